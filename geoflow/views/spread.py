"""The tasks of one stage as a table of its own: what they took and gave as columns, and as geometries on request."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

import pandas as pd

from geoflow.errors import GeoflowError, TableError
from geoflow.jobtypes.inputs import SAVED
from geoflow.stores.store import Store
from geoflow.support.masking import mask
from geoflow.support.text import shorten
from geoflow.views import frames
from geoflow.views.footprints import H3_CELL, tile_bounds
from geoflow.views.rows import planned_stage

_BOUNDS = {"bbox", "bounds", "bounding_box"}
_CELLS = {"h3", "h3_cell", "cell"}
_TILE = {"z", "x", "y"}
# The keys of what a typed stage is given; of a handler of the contract they are parameters like others.
_TYPED = {"item", "params"}


def frame(store: Store, job_id: str, stage: int | str | None, secrets: Sequence[str] | None = None) -> pd.DataFrame:
    """All tasks of the *stage*, or of the last that was planned: ``task_id``, ``status``, then parameters and result.

    A field of a result is a column of its name, and so is a parameter, or a field of an item, where no other column is
    called so; else it is ``parameters.name``. Fields of objects in these are ``name.field``. GeoJSON stays whole,
    and so does what `gf.load` takes. With *secrets*, parameters whose names are like these are masked.
    """
    tasks = frames.tasks(store, job_id, stage=planned_stage(store, job_id, stage)[0])
    results = [_returned(value) for value in tasks["result"]]
    columns: dict[str, Any] = {"task_id": tasks["task_id"], "status": tasks["status"]}
    for name, values in _columns("", results).items():
        columns[f"result.{name}" if name in columns else name or "result"] = values
    given = tasks["parameters"].tolist()
    if secrets is not None:
        given = mask(given, secrets)
    for name, values in _columns("", _given(given)).items():
        columns[f"parameters.{name}" if name in columns else name or "parameters"] = values
    return pd.DataFrame(columns, index=tasks.index)


def _returned(value: Any) -> Any:
    """What a handler gave, less what only says that it did."""
    if not isinstance(value, dict):
        return value
    return value["result"] if "result" in value else {name: value[name] for name in value if name != "success"}


def _given(values: list[Any]) -> list[Any]:
    """Parameters; of a typed stage's tasks the item's fields stand beside them."""
    if not all(isinstance(value, dict) and "item" in value and value.keys() <= _TYPED for value in values):
        return values
    items = [value["item"] for value in values]
    if not all(isinstance(item, dict) and not _is_one(item) for item in items):
        return values
    return [{**value["item"], **{name: value[name] for name in value if name != "item"}} for value in values]


def _columns(name: str, values: list[Any]) -> dict[str, Any]:
    """The column *name* of *values*, or one for each key where they are objects, or None."""
    told = [value for value in values if value is not None]
    if not told or not all(isinstance(value, dict) and not _is_one(value) for value in told):
        return {name: frames.column(values)}
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for value in told for key in value):
        found |= _columns(
            f"{name}.{key}" if name else key, [None if value is None else value.get(key) for value in values]
        )
    return found


def _is_one(value: dict[str, Any]) -> bool:
    """Whether it is one value, whatever its keys: a geometry, or what `gf.load` takes."""
    return _is_geometry(value) or SAVED in value


def _is_geometry(value: Any) -> bool:
    """Whether it is a geometry of GeoJSON."""
    return isinstance(value, dict) and "type" in value and ("coordinates" in value or "geometries" in value)


def geometries(table: pd.DataFrame, column: str | None, crs: Any) -> Any:
    """*table* as a GeoDataFrame whose geometry is made of the *column*, or of the only one that fits, in its place.

    These fit: GeoJSON, and four numbers called bbox, bounds or bounding_box. Where nothing else does, H3 cells called
    h3, h3_cell or cell, a tile's ``z``, ``x``, ``y``, or else H3 cells as text in any column become a further column
    ``geometry``, in EPSG:4326. The CRS of others is *crs*, else what a column ``crs`` says, where all say the same;
    else it is not known, and None.
    """
    try:
        geopandas = import_module("geopandas")
    except ImportError:
        raise GeoflowError("A GeoDataFrame needs geopandas: pip install 'geoflow[vector]'") from None
    names, make = _found(table, column)
    rows: list[Any] = table[names].to_numpy().tolist() if len(names) > 1 else table[names[0]].tolist()
    in_degrees = make in (_tile, _cell)
    if in_degrees and crs is not None:
        told = f"{', '.join(names)} are in EPSG:4326:"
        raise TableError(told, python="leave crs= out, and use to_crs of what you are given.", typed="leave --crs out.")
    shapes = []
    for task_id, value in zip(table["task_id"], rows, strict=True):
        parts = value if make in (_box, _tile) and isinstance(value, list) else [value]
        try:
            shapes.append(None if any(part is None or part is pd.NA for part in parts) else make(value))
        except Exception as exc:  # of libraries, of any kind
            raise TableError(f"Task {task_id}: {', '.join(names)} makes no geometry ({exc}).") from None
    name = "geometry" if in_degrees else names[0]
    if in_degrees and name in table:
        raise TableError(f"The geometry of {', '.join(names)} has no place: there is a column 'geometry' already.")
    placed = table.assign(**{name: geopandas.GeoSeries(shapes, index=table.index)})
    known = "EPSG:4326" if in_degrees else crs or _crs_of(table)
    try:
        return geopandas.GeoDataFrame(placed, geometry=name, crs=known)
    except Exception as exc:  # pyproj's
        raise TableError(f"The CRS {shorten(str(known), 100)!r} is not known: {exc}") from None


def has_geojson(table: pd.DataFrame) -> bool:
    """Whether a column is of GeoJSON alone, of which `geometries` makes some."""
    return _shape in _fitting(table, table.columns).values()


def _crs_of(table: pd.DataFrame) -> Any:
    said = table["crs"].dropna().unique().tolist() if "crs" in table else []
    if len(said) > 1:
        listed = ", ".join(str(one)[:60] for one in said[:5])
        told = f"The tasks are in {len(said)} CRSs ({listed}):"
        raise TableError(told, python="make one frame for each, or give crs=.", typed="give --crs.")
    return said[0] if said else None


def _found(table: pd.DataFrame, column: str | None) -> tuple[list[str], Callable[[Any], Any]]:
    """The column of the geometry, or several, and what makes one of their values."""
    if column is not None and column not in table:
        raise TableError(f"There is no column {column!r}: {', '.join(map(str, table))}.")
    fit = _fitting(table, [column] if column else table.columns, is_said=column is not None)
    if not fit and not column and {*table.columns} >= _TILE:
        return ["z", "x", "y"], _tile
    if not fit:
        fit = {name: _cell for name in ([column] if column else table.columns) if _are_cells(table[name])}
    if len(fit) == 1:
        name, make = fit.popitem()
        return [name], make
    if fit:
        told = f"{len(fit)} columns have geometries: {', '.join(fit)}."
        raise TableError(told, python="Say which with geometry=.", typed="Say which with --geometry.")
    what = f"{column!r} has no geometries" if column else "No column has geometries"
    raise TableError(
        f"{what}: GeoJSON, four numbers called bbox, or H3 cells. The columns are {', '.join(map(str, table))}."
    )


def _fitting(table: pd.DataFrame, names: Iterable[str], is_said: bool = False) -> dict[str, Callable[[Any], Any]]:
    """Those of the columns *names* that have geometries, or else H3 cells, with what makes one of a value."""
    names = list(names)
    fit: dict[str, Callable[[Any], Any]] = {}
    for name in names:
        told = [value for value in table[name] if isinstance(value, dict | list)]
        if told and all(map(_is_geometry, told)):
            fit[name] = _shape
        elif told and (is_said or name.rpartition(".")[2] in _BOUNDS) and all(map(_is_bounds, told)):
            fit[name] = _box
    return fit or dict.fromkeys((name for name in names if name.rpartition(".")[2] in _CELLS), _cell)


def _are_cells(values: pd.Series[Any]) -> bool:
    told = values.dropna().tolist() if values.name != "task_id" else []
    return bool(told) and all(isinstance(value, str) and H3_CELL.fullmatch(value) for value in told)


def _shape(geometry: Any) -> Any:
    return import_module("shapely.geometry").shape(geometry)


def _cell(cell: Any) -> Any:
    """An H3 cell in degrees, cut where it crosses the antimeridian, and drawn up to the pole that it has inside."""
    try:
        h3 = import_module("h3")
    except ImportError:
        raise GeoflowError("H3 cells need h3: pip install 'geoflow[h3]'") from None
    shapely, move = import_module("shapely"), import_module("shapely.affinity").translate
    corners = h3.cell_to_boundary(h3.int_to_str(cell) if isinstance(cell, int) else cell)
    ring: list[tuple[float, float]] = []  # (longitude, latitude): each longitude within 180° of the one before
    for latitude, longitude in (*corners, corners[0]):
        turns = round((ring[-1][0] - longitude) / 360) if ring else 0
        ring.append((longitude + 360 * turns, latitude))
    if ring[0][0] != ring[-1][0]:  # it went round a pole
        pole = math.copysign(90, ring[0][1])
        ring += [(ring[-1][0], pole), (ring[0][0], pole)]
    whole, world = shapely.Polygon(ring), shapely.box(-180, -90, 180, 90)
    if world.covers(whole):
        return whole
    return shapely.union_all([move(whole, turn).intersection(world) for turn in (-360, 0, 360)])


def _is_bounds(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(type(part) in (int, float) for part in value)


def _box(bounds: Iterable[float]) -> Any:
    west, south, east, north = bounds
    if west > east or south > north:
        raise ValueError(f"{[west, south, east, north]} is turned, or crosses the antimeridian: cut it there")
    return import_module("shapely").box(west, south, east, north)


def _tile(place: Iterable[int]) -> Any:
    """A tile of the usual web map, in degrees (https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames)."""
    zoom, x, y = place
    if not (0 <= x < 2**zoom and 0 <= y < 2**zoom):
        raise ValueError(f"there is no tile {zoom}/{x}/{y}")
    return _box(tile_bounds(zoom, x, y))
