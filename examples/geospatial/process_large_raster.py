"""One large raster as COGs: a tiling scheme, a task for each window, a mosaic, STAC; a class of the contract.

    geoflow run examples/geospatial/process_large_raster.py raster=land30s.tif out=tiles side=5400

It counts, too, what share of the Earth the raster's ones cover, weighing each row by its latitude's cosine.
"""

import hashlib
import json
from pathlib import Path

# What stages 3 and 4 do is what a collection's last two do.
from process_raster_collection import make_mosaic, make_stac, refused

import geoflow as gf


def lay_out(params):
    """Windows of *side* × *side* pixels from the north-west on, those at the edges as large as they are."""
    import rasterio

    side = params["side"]
    with rasterio.open(params["raster"]) as raster:
        if raster.crs is None or not raster.crs.is_geographic:
            return refused("CRS_MISMATCH", params["raster"], f"its CRS has no latitudes: {raster.crs}")
        windows = [
            [column, row, min(side, raster.width - column), min(side, raster.height - row)]
            for row in range(0, raster.height, side)
            for column in range(0, raster.width, side)
        ]
    return {"success": True, "result": {"windows": windows}}


def cut_window(params):
    """The window as a COG, with its count of ones, and the sum of their rows' cosines."""
    import numpy as np
    import rasterio
    import rasterio.shutil
    from rasterio.windows import Window
    from rio_cogeo import cog_validate

    window = Window(*params["window"])
    target = Path(params["out"], f"r{window.row_off:05d}_c{window.col_off:05d}.tif")
    draft = gf.scratch() / "window.tif"
    with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(params["raster"]) as raster:
        transform = raster.window_transform(window)
        laid = {"width": window.width, "height": window.height, "transform": transform, "tiled": True}
        pixels = raster.read(1, window=window)
        with rasterio.open(draft, "w", **(raster.profile | laid | {"blockxsize": 512, "blockysize": 512})) as cut:
            cut.write(pixels, 1)
        with gf.output(target) as path:
            rasterio.shutil.copy(draft, path, driver="COG", compress="deflate", blocksize=512, num_threads=1)
            valid, errors, warnings = cog_validate(path, quiet=True)
            with rasterio.open(path) as cog:
                bbox = list(cog.bounds)
    if not valid:
        return refused("COG_INVALID", target, "; ".join([*errors, *warnings]))
    ones = (pixels == 1).sum(axis=1)
    latitudes = transform.f + transform.e * (np.arange(window.height) + 0.5)
    weighed = float((ones * np.cos(np.radians(latitudes))).sum())
    counted = {"pixels": pixels.size, "ones": int(ones.sum()), "weighed": weighed}
    return {"success": True, "result": {"cog": str(target), "bbox": bbox, **counted}}


class ProcessLargeRaster:
    job_type = "process_large_raster"
    description = "Cut a large raster into COGs, with a mosaic and STAC of them."
    stages = [
        {"number": 1, "name": "scheme", "task_type": "lay_out", "parallelism": "single"},
        {"number": 2, "name": "tile", "task_type": "cut_window", "parallelism": "fan_out", "timeout": 600},
        {"number": 3, "name": "mosaic", "task_type": "make_mosaic", "parallelism": "fan_in"},
        {"number": 4, "name": "stac", "task_type": "make_stac", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params):
        raster, out = (Path(str(params.get(name, ""))).absolute() for name in ("raster", "out"))
        side = int(params.get("side", 5400))
        if not raster.is_file():
            raise ValueError(f"raster: {raster} is not a file")
        if side < 512:
            raise ValueError(f"side: {side} is less than a block of 512 pixels")
        out.mkdir(parents=True, exist_ok=True)
        said = {"crs": params.get("crs", "EPSG:4326"), "datetime": params.get("datetime", "2000-01-01T00:00:00+00:00")}
        return {"raster": str(raster), "folder": str(raster), "out": str(out), "side": side, **said}

    @staticmethod
    def generate_job_id(params):
        text = json.dumps(params, sort_keys=True)
        return hashlib.sha256(f"process_large_raster|{text}".encode()).hexdigest()

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if stage == 1:
            return [{"task_id": f"{job_id[:8]}-scheme", "task_type": "lay_out", "parameters": job_params}]
        given = {"raster": job_params["raster"], "out": job_params["out"]}
        return [
            {
                "task_id": f"{job_id[:8]}-tile-{window[1]}-{window[0]}",
                "task_type": "cut_window",
                "parameters": {"window": window, **given},
            }
            for window in previous_results[0]["result"]["windows"]
        ]

    @staticmethod
    def finalize_job(context=None):
        made = context.task_results[-1].result_data["result"]
        tiles = made.pop("cogs")
        total = {name: sum(tile[name] for tile in tiles) for name in ("pixels", "ones", "weighed")}
        return {**made, **total, "tiles": len(tiles)}


ALL_JOBS = {"process_large_raster": ProcessLargeRaster}
ALL_HANDLERS = {"lay_out": lay_out, "cut_window": cut_window, "make_mosaic": make_mosaic, "make_stac": make_stac}
