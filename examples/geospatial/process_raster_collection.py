"""A folder of rasters as a collection: every block read, a COG of each, one mosaic, STAC; a class of the contract.

    geoflow run examples/geospatial/process_raster_collection.py folder=scenes out=collection

What cannot be read costs only itself: it is a failed task with a code, and the collection is made of the others. All
rasters have to be in one CRS, and are not warped: their pixels stay as they are.
"""

import hashlib
import json
from pathlib import Path

import geoflow as gf

BYTES_A_SAMPLE = 4  # at most


def list_rasters(params):
    """The rasters of the folder by their names, the largest first."""
    found = sorted(Path(params["folder"]).glob("*.tif"), key=lambda path: (-path.stat().st_size, path.name))
    return {"success": True, "result": {"rasters": [str(path) for path in found]}}


def refused(code, path, why):
    return {"success": False, "error_type": code, "error": f"{Path(path).name}: {why}", "retryable": False}


def validate_raster(params):
    """Read each block: a file that is cut in half or has rotten bits opens as a sound one does."""
    import numpy as np
    import rasterio

    path = params["raster"]
    try:
        raster = rasterio.open(path)
    except rasterio.errors.RasterioIOError as exc:
        return refused("FILE_UNREADABLE", path, in_gdals_words(exc))
    with raster, rasterio.Env(GDAL_CACHEMAX=64):
        if raster.crs is None:
            return refused("CRS_MISSING", path, "it says no CRS")
        if raster.crs != rasterio.CRS.from_user_input(params["crs"]):
            return refused("CRS_MISMATCH", path, f"its CRS is {raster.crs.to_string()}, not {params['crs']}")
        if np.dtype(raster.dtypes[0]).itemsize > BYTES_A_SAMPLE:
            return refused("BIT_DEPTH_POLICY_VIOLATION", path, f"{raster.dtypes[0]} has over 32 bits a sample")
        try:
            for _, window in raster.block_windows(1):
                raster.read(window=window)
        except rasterio.errors.RasterioIOError as exc:
            return refused("FILE_CORRUPT", path, in_gdals_words(exc))
        return {"success": True, "result": {"raster": path, "width": raster.width, "height": raster.height}}


def in_gdals_words(exc):
    """The first cause: rasterio's own message is often no more than "See previous exception for details"."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return str(exc)


def make_cog(params):
    """A COG with the same pixels, as GDAL's driver lays it out, and what `rio cogeo validate` says of it."""
    import rasterio.shutil
    from rio_cogeo import cog_validate

    target = Path(params["out"], f"{Path(params['raster']).stem}.tif")
    with rasterio.Env(GDAL_CACHEMAX=64), gf.output(target) as path:
        rasterio.shutil.copy(params["raster"], path, driver="COG", compress="deflate", blocksize=256, num_threads=1)
        valid, errors, warnings = cog_validate(path, quiet=True)
        with rasterio.open(path) as cog:
            made = {"cog": str(target), "bbox": list(cog.bounds), "bytes": Path(path).stat().st_size}
            made["checksums"] = [cog.checksum(band) for band in cog.indexes]
    if not valid:
        return refused("COG_INVALID", target, "; ".join([*errors, *warnings]))
    return {"success": True, "result": made}


def make_mosaic(params):
    """A tile index that GDAL opens as one raster (``GTI:``): nothing is copied."""
    import geopandas
    import rasterio
    import shapely

    cogs = [handled["result"] for handled in params["previous_results"]]
    asked = params["job_parameters"]
    boxes = [shapely.box(*cog["bbox"]) for cog in cogs]
    index = geopandas.GeoDataFrame({"location": [cog["cog"] for cog in cogs]}, geometry=boxes, crs=asked["crs"])
    west, south, east, north = index.total_bounds.tolist()
    with rasterio.open(cogs[0]["cog"]) as first:
        across, down = first.res
    # GDAL rounds up what it reckons itself of the bounds: a mosaic may be a row too high.
    size = {"width": round((east - west) / across), "height": round((north - south) / down)}
    corner = ",".join(map(repr, (west, across, 0.0, north, 0.0, -down)))
    grid = {"XSIZE": str(size["width"]), "YSIZE": str(size["height"]), "GEOTRANSFORM": corner}
    target = Path(asked["out"], "mosaic.gti.gpkg")
    with gf.output(target) as path:
        index.to_file(path, driver="GPKG", layer="tiles", layer_metadata=grid)
        with rasterio.open(f"GTI:{path}") as mosaic:
            size = {"width": mosaic.width, "height": mosaic.height, "bands": mosaic.count}
    return {"success": True, "result": {"mosaic": str(target), **size, "cogs": cogs}}


def make_stac(params):
    """A STAC item for each COG, and their collection, valid against the core schemas, which pystac brings along."""
    from datetime import UTC, datetime

    import pystac
    import rasterio.warp
    import shapely

    (made,) = (handled["result"] for handled in params["previous_results"])
    asked = params["job_parameters"]
    when, items = datetime.fromisoformat(asked["datetime"]).astimezone(UTC), []
    for cog in made["cogs"]:
        bbox = rasterio.warp.transform_bounds(asked["crs"], "OGC:CRS84", *cog["bbox"])
        about = {"proj:code": asked["crs"]}
        box = shapely.box(*bbox).__geo_interface__
        items.append(pystac.Item(Path(cog["cog"]).stem, box, list(bbox), when, about))
        items[-1].add_asset("data", pystac.Asset(cog["cog"], media_type=pystac.MediaType.COG, roles=["data"]))
    extent = pystac.Extent.from_items(items)
    collection = pystac.Collection("collection", f"COGs of {asked['folder']}", extent, license="other")
    for item in items:
        item.validate()
    collection.validate()
    written = []
    for described in [collection, *items]:
        target = Path(asked["out"], f"{described.id}.json")
        with gf.output(target) as path:
            path.write_text(json.dumps(described.to_dict(include_self_link=False), indent=1))
        written.append(str(target))
    return {"success": True, "result": {**made, "stac": written}}


class ProcessRasterCollection:
    job_type = "process_raster_collection"
    description = "Validate rasters, make COGs of those that are sound, a mosaic and STAC of these."
    stages = [
        {"number": 1, "name": "list", "task_type": "list_rasters", "parallelism": "single"},
        {
            "number": 2,
            "name": "validate",
            "task_type": "validate_raster",
            "parallelism": "fan_out",
            "on_failure": "continue",
            "timeout": 300,
        },
        {"number": 3, "name": "cog", "task_type": "make_cog", "parallelism": "fan_out", "timeout": 600},
        {"number": 4, "name": "mosaic", "task_type": "make_mosaic", "parallelism": "fan_in"},
        {"number": 5, "name": "stac", "task_type": "make_stac", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params):
        folder, out = (Path(str(params.get(name, ""))).absolute() for name in ("folder", "out"))
        if not folder.is_dir():
            raise ValueError(f"folder: {folder} is not a folder")
        if out == folder:
            raise ValueError("out: the COGs would take the places of the rasters; name another folder")
        out.mkdir(parents=True, exist_ok=True)
        said = {"crs": params.get("crs", "EPSG:4326"), "datetime": params.get("datetime", "2000-01-01T00:00:00+00:00")}
        return {"folder": str(folder), "out": str(out), **said}

    @staticmethod
    def generate_job_id(params):
        text = json.dumps(params, sort_keys=True)
        return hashlib.sha256(f"process_raster_collection|{text}".encode()).hexdigest()

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if stage == 1:
            return [{"task_id": f"{job_id[:8]}-list", "task_type": "list_rasters", "parameters": job_params}]
        done = [handled["result"] for handled in previous_results]
        if stage == 2:
            kind, name, given = "validate_raster", "validate", {"crs": job_params["crs"]}
            rasters = done[0]["rasters"]
        else:
            kind, name, given = "make_cog", "cog", {"out": job_params["out"]}
            rasters = [one["raster"] for one in done]
        return [
            {
                "task_id": f"{job_id[:8]}-{name}-{Path(raster).stem}"[:100],
                "task_type": kind,
                "parameters": {"raster": raster, **given},
            }
            for raster in rasters
        ]

    @staticmethod
    def finalize_job(context=None):
        return context.task_results[-1].result_data["result"]


ALL_JOBS = {"process_raster_collection": ProcessRasterCollection}
ALL_HANDLERS = {
    "list_rasters": list_rasters,
    "validate_raster": validate_raster,
    "make_cog": make_cog,
    "make_mosaic": make_mosaic,
    "make_stac": make_stac,
}
