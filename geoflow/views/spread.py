"""The tasks of one stage as a table of its own: what they took and gave as columns, and as geometries on request."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import pandas as pd

from geoflow.errors import GeoflowError
from geoflow.stores.store import Store
from geoflow.views import frames

_BOUNDS = {"bbox", "bounds", "bounding_box"}
# The keys of what a typed stage is given; of a handler of the contract they are parameters like others.
_TYPED = {"item", "params"}


def frame(store: Store, job_id: str, stage: int | str | None) -> pd.DataFrame:
    """All tasks of the *stage*, or of the last that was planned: ``task_id``, ``status``, then parameters and result.

    A field of a result is a column of its name, and so is a parameter, or a field of an item, where no other column is
    called so; else it is ``parameters.name``. Fields of objects in these are ``name.field``. GeoJSON stays whole.
    """
    stages, tasks = frames.stages(store, job_id), frames.tasks(store, job_id)
    planned = stages[stages["planned_at"].notna()]
    number = _number(planned, stage)
    tasks = tasks[tasks["stage"] == number].reset_index(drop=True)
    results = [_returned(value) for value in tasks["result"]]
    columns: dict[str, Any] = {"task_id": tasks["task_id"], "status": tasks["status"]}
    for name, values in _columns("", results).items():
        columns[f"result.{name}" if name in columns else name or "result"] = values
    for name, values in _columns("", _given(tasks["parameters"].tolist())).items():
        columns[f"parameters.{name}" if name in columns else name or "parameters"] = values
    return pd.DataFrame(columns, index=tasks.index)


def _number(planned: pd.DataFrame, stage: int | str | None) -> int:
    known: dict[str, int] = dict(zip(planned["stage_name"].tolist(), planned["stage"].tolist(), strict=True))
    if stage is None and known:
        return max(known.values())
    number = stage if isinstance(stage, int) else known.get(stage or "", 0)
    if number not in known.values():
        names = ", ".join(f"{name} ({number})" for name, number in known.items()) or "none yet"
        raise ValueError(f"there is no stage {stage!r} that was planned: {names}.")
    return number


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
    if not all(isinstance(item, dict) and not _is_geometry(item) for item in items):
        return values
    return [{**value["item"], **{name: value[name] for name in value if name != "item"}} for value in values]


def _columns(name: str, values: list[Any]) -> dict[str, Any]:
    """The column *name* of *values*, or one for each key where they are objects, or None."""
    told = [value for value in values if value is not None]
    if not told or not all(isinstance(value, dict) and not _is_geometry(value) for value in told):
        return {name: frames.column(values)}
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for value in told for key in value):
        found |= _columns(
            f"{name}.{key}" if name else key, [None if value is None else value.get(key) for value in values]
        )
    return found


def _is_geometry(value: Any) -> bool:
    """Whether it is a geometry of GeoJSON."""
    return isinstance(value, dict) and "type" in value and ("coordinates" in value or "geometries" in value)


def geometries(table: pd.DataFrame, column: str | None, crs: Any) -> Any:
    """*table* as a GeoDataFrame with its geometry in ``geometry``, made of the *column*, or of the only one that fits.

    These fit: GeoJSON, and four numbers called bbox, bounds or bounding_box. A tile's ``z``, ``x``, ``y`` fit where
    nothing else does. The CRS is *crs*, else what a column ``crs`` says, where all say the same; a tile's is EPSG:4326.
    Else it is not known, and None.
    """
    try:
        geopandas = import_module("geopandas")
    except ImportError:
        raise GeoflowError("a GeoDataFrame needs geopandas: pip install 'geoflow[vector]'") from None
    name, make = _found(table, column)
    shapes = []
    rows = table[["z", "x", "y"]].to_numpy().tolist() if name is None else table[name].tolist()
    for task_id, value in zip(table["task_id"], rows, strict=True):
        try:
            missing = value is None or (
                isinstance(value, list) and any(part is None or part is pd.NA for part in value)
            )
            shapes.append(None if missing else make(value))
        except Exception as exc:  # shapely's, of any kind
            raise ValueError(f"task {task_id}: {name or 'z, x, y'} makes no geometry ({exc}).") from None
    if crs is None and name is None:
        crs = "EPSG:4326"
    if crs is None and "crs" in table:
        said = table["crs"].dropna().unique().tolist()
        if len(said) > 1:
            listed = ", ".join(str(one)[:60] for one in said[:5])
            raise ValueError(f"the tasks are in {len(said)} CRSs ({listed}): make one frame for each, or give crs=.")
        crs = said[0] if said else None
    rest = table.drop(columns=[name for name in ("geometry", name) if name and name in table])
    return geopandas.GeoDataFrame(rest, geometry=geopandas.GeoSeries(shapes, index=table.index), crs=crs)


def _found(table: pd.DataFrame, column: str | None) -> tuple[str | None, Callable[[Any], Any]]:
    """The column of the geometry, or None for a tile's, and what makes one of its values."""
    if column is not None and column not in table:
        raise ValueError(f"there is no column {column!r}: {', '.join(map(str, table))}.")
    fit: dict[str, Callable[[Any], Any]] = {}
    for name in [column] if column else table.columns:
        told = [value for value in table[name] if isinstance(value, dict | list)]
        if told and all(map(_is_geometry, told)):
            fit[name] = import_module("shapely.geometry").shape
        elif told and (column or name.rpartition(".")[2] in _BOUNDS) and all(map(_is_bounds, told)):
            fit[name] = _box
    if len(fit) == 1:
        return next(iter(fit.items()))
    if fit:
        raise ValueError(f"{len(fit)} columns have geometries: {', '.join(fit)}. Say which with geometry=.")
    if not column and {"z", "x", "y"} <= {*table.columns}:
        return None, _tile
    what = f"{column!r} has" if column else "no column has"
    raise ValueError(
        f"{what} geometries: GeoJSON, or four numbers called bbox. The columns are {', '.join(map(str, table))}."
    )


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
    count = 2**zoom
    if not (0 <= x < count and 0 <= y < count):
        raise ValueError(f"there is no tile {zoom}/{x}/{y}")
    south, north = (math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / count)))) for row in (y + 1, y))
    return _box((x / count * 360 - 180, south, (x + 1) / count * 360 - 180, north))
