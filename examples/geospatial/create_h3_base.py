"""A grid of H3 cells over the land: a task for each of the 122 base cells, one table of them all.

    geoflow run examples/geospatial/create_h3_base.py land=countries.gpkg out=cells.parquet resolution=3

A cell is of the land when its centre is in one of the polygons. Without ``land=`` the grid is of the whole Earth.
"""

from pathlib import Path

from pydantic import BaseModel, Field

import geoflow as gf


class Params(BaseModel):
    out: Path  # a parquet file, one row a cell
    resolution: int = Field(ge=0, le=5)  # 2,016,842 cells; finer ones are no table that one task makes
    land: gf.InputFile | None = None  # polygons


class Part(BaseModel):
    """The cells of one base cell, as columns; an area is that on the sphere, in km²."""

    base: str
    cells: list[str]
    area: list[float]
    pentagons: int
    over_antimeridian: int


class Grid(BaseModel):
    cells: int
    pentagons: int
    over_antimeridian: int
    area_km2: float
    out: gf.OutputFile


create_h3_base = gf.JobType("create_h3_base", params=Params, description="A grid of H3 cells, of the land or of all.")


@create_h3_base.stage
def plan() -> list[str]:
    import h3

    return sorted(h3.get_res0_cells())


@create_h3_base.each(plan, key=str, timeout=600)
def children(base: str, p: Params) -> Part:
    import h3

    cells = sorted(h3.cell_to_children(base, p.resolution))
    if p.land is not None:
        cells = on_land(cells, p.land)
    rings = ([longitude for _, longitude in h3.cell_to_boundary(cell)] for cell in cells)
    return Part(
        base=base,
        cells=cells,
        area=[h3.cell_area(cell, unit="km^2") for cell in cells],
        pentagons=sum(map(h3.is_pentagon, cells)),
        over_antimeridian=sum(max(ring) - min(ring) > 180 for ring in rings),
    )


def on_land(cells: list[str], land: str) -> list[str]:
    import geopandas
    import h3
    import shapely

    polygons = geopandas.read_file(land, columns=[]).to_crs(4326).geometry.array
    latitudes, longitudes = zip(*map(h3.cell_to_latlng, cells), strict=True)
    found = shapely.STRtree(polygons).query(shapely.points(longitudes, latitudes), predicate="within")[0]
    return [cells[place] for place in sorted(set(found.tolist()))]


@create_h3_base.reduce(children)
def table(parts: list[Part], p: Params) -> Grid:
    import pandas as pd

    frame = pd.DataFrame(
        {
            "cell": [cell for part in parts for cell in part.cells],
            "base": [part.base for part in parts for _ in part.cells],
            "area_km2": [area for part in parts for area in part.area],
        }
    )
    with gf.output(p.out) as path:
        frame.to_parquet(path)
    return Grid(
        cells=len(frame),
        pentagons=sum(part.pentagons for part in parts),
        over_antimeridian=sum(part.over_antimeridian for part in parts),
        area_km2=float(frame["area_km2"].sum()),
        out=p.out,
    )


ALL_JOBS = {"create_h3_base": create_h3_base}
