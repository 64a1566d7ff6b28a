"""A stage's frame in the forms that other programs read: CSV, TSV, GeoJSON, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pandas as pd

from geoflow.errors import GeoflowError, TableError
from geoflow.views import spread

DEGREES = "EPSG:4326"
_ALMOST = 1e-6  # degrees: what a reprojection may lie beyond the end of the world
_PIECES = 64  # of a geometry's length, in which no edge goes half around the Earth unless it crosses the antimeridian


def separated(table: pd.DataFrame, separator: str) -> Iterator[str]:
    """*table* as lines, the first with the names, quoted as RFC 4180 has it where a value needs that.

    What is missing is empty, as an empty text is; a list or an object is its JSON.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="")
    columns = [map(_cell, table[name].tolist()) for name in table]
    for row in (list(table), *zip(*columns, strict=True)):
        writer.writerow(row)
        yield text.getvalue()
        text.seek(0)
        text.truncate()


def _cell(value: Any) -> Any:
    if value is None or value is pd.NA:
        return None
    return value if isinstance(value, str) or (isinstance(value, int | float) and not _is_flag(value)) else _json(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def features(table: pd.DataFrame, geometry: str | None, crs: Any) -> Iterator[str]:
    """*table* as a FeatureCollection of RFC 7946, a feature a line; for *geometry* and *crs* see `JobHandle.gdf`.

    Geometries are brought to EPSG:4326, as the RFC has it. ``TableError`` where their CRS is not known, and, with the
    task, where one crosses the antimeridian on its way there, or lies nowhere in degrees.
    """
    shapes = _in_degrees(spread.geometries(table, geometry, crs))
    mapping = import_module("shapely.geometry").mapping
    name = shapes.geometry.name
    others = {other: shapes[other].tolist() for other in shapes if other != name}
    yield '{"type": "FeatureCollection", "features": ['
    last = len(shapes) - 1
    for place, shape in enumerate(shapes.geometry):
        feature = {
            "type": "Feature",
            "geometry": None if shape is None else mapping(shape),
            "properties": {
                other: None if values[place] is pd.NA else values[place] for other, values in others.items()
            },
        }
        yield _json(feature) + "," * (place < last)
    yield "]}"


def _in_degrees(shapes: Any) -> Any:
    if shapes.crs is None:
        name = shapes.geometry.name
        told = f"GeoJSON is in {DEGREES}, and in which CRS the geometries of {name!r} are is not known."
        raise TableError(told, python="Give crs=.", typed=f"Say it, as in --crs {DEGREES}.")
    moved = shapes.to_crs(DEGREES)
    for task_id, shape, before in zip(moved["task_id"], moved.geometry, shapes.geometry, strict=True):
        if shape is None or shape.is_empty:
            continue
        west, south, east, north = shape.bounds
        x, y = 180 + _ALMOST, 90 + _ALMOST
        if not (-x <= west <= east <= x and -y <= south <= north <= y):
            bounds = ", ".join(f"{side:g}" for side in shape.bounds)
            why = "is not in degrees, as GeoJSON has to be: is its CRS another?"
            if max(-west, east) <= 2 * x and max(-south, north) <= y:
                why = "goes beyond 180 degrees: cut it at the antimeridian."
            raise TableError(f"Task {task_id}: {bounds} {why}")
        if east - west > 180 and not shapes.crs.is_geographic and _is_torn(before, shapes.crs):
            told = "its geometry crosses the antimeridian, or a pole is in it: cut it there"
            raise TableError(f"Task {task_id}: {told}.")
    return moved


def _is_torn(shape: Any, crs: Any) -> bool:
    """Whether a line of *shape* jumps from one end of the world to the other, in degrees."""
    shapely, geopandas = import_module("shapely"), import_module("geopandas")
    fine = shapely.segmentize(shape, shape.length / _PIECES)
    parts = [ring for part in shapely.get_parts([fine]) for ring in shapely.get_parts([part.boundary, part])]
    lines = [part for part in parts if part.geom_type in ("LineString", "LinearRing")]
    for line in geopandas.GeoSeries(lines, crs=crs).to_crs(DEGREES):
        x = shapely.get_coordinates(line)[:, 0]
        if (abs(x[1:] - x[:-1]) > 180).any():
            return True
    return False


def parquet(table: pd.DataFrame, geometry: str | None, crs: Any) -> bytes:
    """*table* as a Parquet file; as GeoParquet where *geometry* or *crs* is given, or a column has GeoJSON.

    What is a list or an object, or not all of one type, is text there: its JSON.
    """
    if geometry is not None or crs is not None or spread.has_geojson(table):
        table = spread.geometries(table, geometry, crs)
    for name in table:
        if table[name].dtype == object:
            values = [None if value is None else _json(value) for value in table[name]]
            table = table.assign(**{str(name): pd.array(values, dtype="string")})
    file = io.BytesIO()
    try:
        table.to_parquet(file, index=False)
    except ImportError:
        raise GeoflowError("Parquet needs pyarrow: pip install 'geoflow[vector]'") from None
    return file.getvalue()
