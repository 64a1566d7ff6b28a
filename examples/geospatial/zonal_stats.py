"""Zonal statistics: how much of a raster is in each polygon, by exactextract, a task for each zone, the largest first.

    geoflow run examples/geospatial/zonal_stats.py zones=countries.gpkg raster=land.tif out=stats.parquet

Pixels that a border cuts count by their share. A zone without a pixel has the count 0, and no mean.
"""

from pathlib import Path

from pydantic import BaseModel

import geoflow as gf


class Params(BaseModel):
    zones: gf.InputFile  # polygons, in any format that GDAL reads
    raster: gf.InputFile
    out: Path  # a parquet file, one row a zone
    by: str = "name"  # the column that names a zone
    only: tuple[str, ...] = ()  # names of zones; all, if there are none


class Zone(BaseModel):
    name: str
    fid: int  # by which the zone is read: one geometry may be megabytes, and does not travel
    box: float  # area of its bounding box in the file's units: how long it takes goes with that


class Stat(BaseModel):
    name: str
    fid: int
    count: float  # pixels
    mean: float | None
    sum: float
    min: float | None
    max: float | None


class Table(BaseModel):
    zones: int
    pixels: float
    sum: float
    out: gf.OutputFile


class CrsMissing(ValueError):
    """Nobody knows where on Earth this is."""


zonal_stats = gf.JobType("zonal_stats", params=Params, description="Statistics of a raster in each polygon of a file.")


@zonal_stats.stage
def plan(p: Params) -> list[Zone]:
    """The zones, in the order of the file."""
    import geopandas
    import rasterio

    zones = geopandas.read_file(p.zones, columns=[p.by], fid_as_index=True)
    with rasterio.open(p.raster) as raster:
        where = {str(p.zones): zones.crs, str(p.raster): raster.crs}
    for path, crs in where.items():
        if crs is None:
            raise CrsMissing(f"{path} says no CRS")
    if unknown := set(p.only) - set(zones[p.by]):
        raise ValueError(f"only: {p.zones} has no zones {sorted(unknown)}")
    if p.only:
        zones = zones[zones[p.by].isin(p.only)]
    box = zones.geometry.bounds.fillna(0)
    areas = (box.maxx - box.minx) * (box.maxy - box.miny)
    return [Zone(name=str(zones[p.by][fid]), fid=fid, box=areas[fid]) for fid in zones.index]


# The largest first, so that no worker ends with Antarctica alone. What a task holds is bounded by max_cells_in_memory.
@zonal_stats.each(plan, key="fid", size="box", order="largest", memory="350MB", timeout=300)
def stat(zone: Zone, p: Params) -> Stat:
    import geopandas
    import rasterio
    from exactextract import exact_extract

    with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(p.raster) as raster:
        at = geopandas.read_file(p.zones, columns=[p.by], fids=[zone.fid]).to_crs(raster.crs)
        if at.geometry.is_empty.all() or at.geometry.isna().all():
            raise ValueError(f"the zone {zone.name} has no geometry")
        asked = ["count", "mean", "sum", "min", "max"]
        found = exact_extract(raster, at, asked, max_cells_in_memory=2_000_000)[0]["properties"]
    if not found["count"]:
        found = {"count": 0, "mean": None, "sum": 0, "min": None, "max": None}
    return Stat(name=zone.name, fid=zone.fid, **found)


@zonal_stats.reduce(stat)
def table(stats: list[Stat], p: Params) -> Table:
    import pandas as pd

    frame = pd.DataFrame([one.model_dump() for one in stats]).sort_values("fid", ignore_index=True)
    with gf.output(p.out) as path:
        frame.to_parquet(path)
    return Table(zones=len(frame), pixels=frame["count"].sum(), sum=frame["sum"].sum(), out=p.out)


ALL_JOBS = {"zonal_stats": zonal_stats}
