"""Take in a vector file: converted once, checked in chunks, loaded into GeoPackage and DuckDB, described as STAC.

    geoflow run examples/geospatial/ingest_vector.py source=counties.shp folder=out crs=EPSG:4269

A file that says no CRS is refused until ``crs=`` says it. A chunk with an invalid geometry is refused, with the place
and the reason of the first, or mended with ``invalid=repair``; what that changed of the area is told.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

import geoflow as gf


class Params(BaseModel):
    source: gf.InputFile
    folder: Path  # parts, and one .gpkg, .duckdb and .json called as the source is
    crs: str | None = None  # of a source that does not say it
    invalid: Literal["refuse", "repair"] = "refuse"
    chunk: int = Field(default=250, ge=1)  # features


class Chunk(BaseModel):
    number: int
    begin: int  # the first feature's place
    features: int
    prepared: gf.InputFile


class Part(BaseModel):
    number: int
    features: int
    repaired: int
    area_change_km2: float  # by repairs
    area_km2: float  # geodesic
    bbox: tuple[float, float, float, float]  # in degrees: west, south, east, north
    kinds: dict[str, int]  # how many geometries there are of each
    path: gf.OutputFile


class Loaded(BaseModel):
    features: int
    repaired: int
    area_change_km2: float
    area_km2: float
    bbox: tuple[float, float, float, float]
    gpkg: gf.OutputFile
    duckdb: gf.OutputFile


class CrsMissing(ValueError):
    """The file says no CRS, and nobody else did."""


class CrsMismatch(ValueError):
    """The file says another CRS than the parameters."""


class GeometryInvalid(ValueError):
    """A geometry is missing, empty, crosses itself or goes beyond the antimeridian."""


class GeometryMixed(ValueError):
    """There are points, lines and polygons in one file, and a layer has one of these."""


ingest_vector = gf.JobType("ingest_vector", params=Params, description="Load a vector file into GeoPackage and DuckDB.")


@ingest_vector.stage
def prepare(p: Params) -> list[Chunk]:
    """Convert it once to a format of which chunks are read at once; of GeoJSON each chunk would read all before it."""
    import pyogrio
    import pyproj

    about, table = pyogrio.read_arrow(p.source)  # geometries stay as they are: one that is none costs its chunk alone
    crs = about["crs"] and pyproj.CRS(about["crs"])
    if crs is None and p.crs is None:
        raise CrsMissing(f"{p.source} says no CRS; say it with crs=, as crs=EPSG:4269")
    if p.crs is not None and crs is not None and crs != p.crs:
        raise CrsMismatch(f"{p.source} says {crs.to_string()}, not {p.crs}; leave crs= out to take it as it is")
    (p.folder / "parts").mkdir(parents=True, exist_ok=True)
    prepared = p.folder / "parts" / "prepared.fgb"
    made = {"driver": "FlatGeobuf", "crs": about["crs"] or p.crs, "geometry_type": "Unknown"}
    with gf.output(prepared) as path:  # without an index, which would put the features into another order
        pyogrio.write_arrow(
            table, path, geometry_name=about["geometry_name"] or "wkb_geometry", SPATIAL_INDEX="NO", **made
        )
    places = range(0, table.num_rows, p.chunk)
    return [
        Chunk(number=number, begin=begin, features=min(p.chunk, table.num_rows - begin), prepared=str(prepared))
        for number, begin in enumerate(places)
    ]


@ingest_vector.each(prepare, key="number", timeout=300)
def check(chunk: Chunk, p: Params) -> Part:
    import geopandas
    import shapely

    rows = slice(chunk.begin, chunk.begin + chunk.features)
    frame = as_read = geopandas.read_file(chunk.prepared, rows=rows, on_invalid="ignore")
    if as_read.geometry.isna().any():  # also those that GEOS does not take: their rings are closed here
        frame = geopandas.read_file(chunk.prepared, rows=rows, on_invalid="fix")
    if (nothing := frame.geometry.isna() | frame.geometry.is_empty).any():
        first = chunk.begin + int(nothing.argmax())
        raise GeometryInvalid(f"{nothing.sum()} of {len(frame)} features have no geometry; the first is {first}")
    bad, before = as_read.geometry.isna() | ~frame.geometry.is_valid, geodesic_km2(frame)
    if bad.any() and p.invalid == "refuse":
        place = int(bad.argmax())
        is_open = as_read.geometry.iloc[place] is None
        why = "a ring is not closed" if is_open else shapely.is_valid_reason(frame.geometry.iloc[place])
        told = f"{bad.sum()} of {len(frame)} geometries are invalid; the first is feature {chunk.begin + place}: {why}"
        raise GeometryInvalid(f"{told}. invalid=repair mends them")
    frame.loc[bad, "geometry"] = frame.geometry[bad].make_valid()
    on_earth = frame.geometry.to_crs("OGC:CRS84").bounds
    if (beyond := (on_earth.minx < -180) | (on_earth.maxx > 180)).any():
        place = int(beyond.argmax())
        reached = f"{on_earth.minx.iloc[place]:g} to {on_earth.maxx.iloc[place]:g}"
        told = f"feature {chunk.begin + place} goes beyond the antimeridian, from {reached} degrees"
        raise GeometryInvalid(f"{told}; cut it there: nothing else can be drawn or described")
    target = p.folder / "parts" / f"{chunk.number:04d}.parquet"
    with gf.output(target) as path:
        frame.to_parquet(path)
    area = geodesic_km2(frame)
    return Part(
        number=chunk.number,
        features=len(frame),
        repaired=int(bad.sum()),
        area_change_km2=area - before,
        area_km2=area,
        bbox=(on_earth.minx.min(), on_earth.miny.min(), on_earth.maxx.max(), on_earth.maxy.max()),
        kinds=frame.geom_type.str.removeprefix("Multi").replace("LinearRing", "LineString").value_counts().to_dict(),
        path=str(target),
    )


def geodesic_km2(frame) -> float:
    """The area on the ellipsoid of the frame's own datum: no projection has a say in it."""
    on_earth = frame.geometry.to_crs(frame.crs.geodetic_crs)
    earth = frame.crs.get_geod()
    return sum(abs(earth.geometry_area_perimeter(one)[0]) for one in on_earth) / 1e6


@ingest_vector.reduce(check)
def load(parts: list[Part], p: Params) -> Loaded:
    import duckdb
    import geopandas

    kinds = sum((Counter(part.kinds) for part in parts), Counter())
    if len(kinds) > 1:
        found = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
        raise GeometryMixed(f"{p.source} has {found}: a layer has one kind; make a file of each")
    name = Path(p.source).stem
    gpkg, base = p.folder / f"{name}.gpkg", p.folder / f"{name}.duckdb"
    with gf.output(gpkg) as path:
        for part in parts:
            geopandas.read_parquet(part.path).to_file(path, layer=name, driver="GPKG", mode="a" if part.number else "w")
    with gf.output(base) as path, duckdb.connect(str(path), config={"threads": 1}) as connection:
        files = [part.path for part in parts]
        connection.execute("CREATE TABLE features AS FROM read_parquet($files)", {"files": files})
    west, south, east, north = zip(*(part.bbox for part in parts), strict=True)
    return Loaded(
        features=sum(part.features for part in parts),
        repaired=sum(part.repaired for part in parts),
        area_change_km2=sum(part.area_change_km2 for part in parts),
        area_km2=sum(part.area_km2 for part in parts),
        bbox=(min(west), min(south), max(east), max(north)),
        gpkg=str(gpkg),
        duckdb=str(base),
    )


@ingest_vector.reduce(load)
def describe(loaded: Loaded, p: Params) -> dict:
    """A STAC item, valid against the core schema: what describes an extension would be fetched from the network."""
    from datetime import UTC, datetime

    import pystac
    import shapely

    item = pystac.Item(
        id=Path(p.source).stem,
        geometry=shapely.box(*loaded.bbox).__geo_interface__,
        bbox=list(loaded.bbox),
        datetime=datetime.fromtimestamp(Path(p.source).stat().st_mtime, UTC),
        properties={"features": loaded.features},
        assets={
            "gpkg": pystac.Asset(loaded.gpkg, media_type="application/geopackage+sqlite3", roles=["data"]),
            "duckdb": pystac.Asset(loaded.duckdb, media_type="application/vnd.duckdb", roles=["data"]),
        },
    )
    item.validate()
    stac = p.folder / f"{item.id}.json"
    with gf.output(stac) as path:
        item.save_object(include_self_link=False, dest_href=str(path))
    return {**loaded.model_dump(), "stac": str(stac)}


ALL_JOBS = {"ingest_vector": ingest_vector}
