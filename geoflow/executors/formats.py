"""How objects that have no JSON form are written to files and come back the same, or why they cannot.

A library is imported to read what it made; while it writes, it is there already: the object is of its making. What a
format might lose is not listed here but looked for: a frame is read again and compared, cell by cell.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from geoflow.errors import UnstorableValue
from geoflow.executors.labelled import (
    lost_of_labelled,
    lost_of_zarr,
    read_labelled,
    read_zarr,
    write_labelled,
    write_zarr,
)


class Format(NamedTuple):
    """``write`` takes the value and the path; ``lost`` says what of the value is not what `read` makes of the file."""

    ending: str
    write: Callable[[Any, Path], None]
    read: Callable[[Path], Any]
    lost: Callable[[Any, Path], str | None]


def format_of(value: Any) -> str:
    """The name in `FORMATS` of how *value* is kept; ``UnstorableValue`` says why it is not."""
    kind = type(value)
    if kind is bytes:
        return "bytes"
    for module, name, how in (
        ("numpy", "ndarray", "npy"),
        ("geopandas", "GeoDataFrame", "geoparquet"),
        ("pandas", "DataFrame", "parquet"),
        ("pandas", "Series", "series"),
        ("xarray", "Dataset", "xarray"),
        ("xarray", "DataArray", "xarray"),
        ("zarr", "Array", "zarr"),
    ):
        known = getattr(sys.modules.get(module), name, None)
        if kind is known:
            return how
        if known is not None and isinstance(value, known):
            raise _refusal(value, f"would come back as a plain {name}, without what its own type adds")
    known = "bytes, numpy arrays, DataFrames, Series, GeoDataFrames, xarray's DataArrays and Datasets and zarr arrays"
    raise _refusal(value, f"it keeps {known}")


def write(value: Any, how: str, path: Path) -> None:
    """Write *value* to the new file *path*; ``UnstorableValue`` where it would not come back the same."""
    form = FORMATS[how]
    written, needs = _NEEDS.get(how, ("", ""))
    if needs and importlib.util.find_spec(needs) is None:
        raise _refusal(value, f"it is written as {written}, which needs {needs}: pip install {needs}")
    try:
        form.write(value, path)
        lost = form.lost(value, path)
    except (OSError, MemoryError):
        raise
    except UnstorableValue as exc:
        raise _refusal(value, str(exc)) from None
    except Exception as exc:  # whatever pandas, pyarrow and shapely raise for what they cannot write
        raise _refusal(value, f"{type(exc).__name__}: {exc}".rstrip(".")) from exc
    if lost is not None:
        raise _refusal(value, f"{lost} would come back changed")


def _refusal(value: Any, why: str) -> UnstorableValue:
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    name = kind.__qualname__ if library == "builtins" else f"{library}.{kind.__name__}"
    remedy = "" if "pip install" in why else ". Convert it first, or write it with gf.output and return the path"
    return UnstorableValue(f"gf.save cannot keep this {name}: {why}{remedy}.")


def _write_bytes(value: bytes, path: Path) -> None:
    path.write_bytes(value)


def _save_array(array: Any, path: Path) -> None:
    with path.open("wb") as file:
        importlib.import_module("numpy").save(file, array, allow_pickle=False)


def _load_array(path: Path) -> Any:
    return importlib.import_module("numpy").load(path, allow_pickle=False)


def _lost_of_array(array: Any, path: Path) -> str | None:
    form = importlib.import_module("numpy").lib.format
    with path.open("rb") as file:
        read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}.get(form.read_magic(file))
        kept = None if read is None else read(file)[2]
    return None if kept == array.dtype and _noted(kept) == _noted(array.dtype) else f"its dtype {array.dtype!r}"


def _noted(dtype: Any) -> Any:
    """What the user has noted at the dtype and at those of its fields, of which npy keeps nothing."""
    return dtype.metadata, [_noted(field[0]) for field in (dtype.fields or {}).values()]


def _save_frame(frame: Any, path: Path) -> None:
    more = {"engine": "pyarrow"} if type(frame).__name__ == "DataFrame" else {}
    frame.to_parquet(path, **more)


def _load_frame(path: Path) -> Any:
    return importlib.import_module("pandas").read_parquet(path, engine="pyarrow")


def _load_geoframe(path: Path) -> Any:
    return importlib.import_module("geopandas").read_parquet(path)


def _save_series(series: Any, path: Path) -> None:
    frame = series.to_frame(_VALUES)
    frame.attrs = {_NAME: series.name, _ATTRS: dict(series.attrs)}
    _save_frame(frame, path)


def _load_series(path: Path) -> Any:
    frame = _load_frame(path)
    series = frame[_VALUES].rename(frame.attrs[_NAME])
    series.attrs = frame.attrs[_ATTRS]
    return series


def _lost_of_series(series: Any, path: Path) -> str | None:
    name = _load_frame(path).attrs[_NAME]
    if type(name) is not type(series.name) or name != series.name:
        return f"its name {series.name!r}"
    found = next(_differences(series.to_frame(_VALUES), _load_series(path).to_frame(_VALUES)), None)
    return found and found.replace(f"its column {_VALUES!r}", "its values")


def _lost_of_frame(frame: Any, path: Path) -> str | None:
    return next(_differences(frame, _load_frame(path)), None)


def _lost_of_geoframe(frame: Any, path: Path) -> str | None:
    back = _load_geoframe(path)
    if frame.active_geometry_name != back.active_geometry_name:
        return "which geometry column is active"
    return next(_differences(frame, back), None)


def _differences(one: Any, other: Any) -> Iterator[str]:
    """What of two frames is not the same, where they would count as equal for pandas too."""
    if one.shape != other.shape or not _same_index(one.columns, other.columns):
        yield f"the names of its columns, of type {one.columns.dtype},"
        return
    if not _same_index(one.index, other.index):
        yield f"its index, of type {type(one.index).__name__} {one.index.dtype},"
    if one.attrs != other.attrs:
        yield "its attrs"
    for place, name in enumerate(one.columns):
        mine, its = one.iloc[:, place], other.iloc[:, place]
        same = mine.dtype == its.dtype
        if same and str(mine.dtype) == "geometry":
            if mine.crs != its.crs:
                yield f"the CRS of its column {name!r}"
            same = _same_shapes(mine.array, its.array)
        elif same:
            same = mine.equals(its) and (mine.dtype != object or _same_cells(mine, its))
        if not same:
            yield f"its column {name!r}, of type {mine.dtype},"


def _same_index(one: Any, other: Any) -> bool:
    if one.nlevels != other.nlevels or not one.equals(other) or list(one.names) != list(other.names):
        return False
    if one.nlevels > 1:
        return bool(one.dtypes.equals(other.dtypes)) and all(
            _same_index(one.get_level_values(level), other.get_level_values(level)) for level in range(one.nlevels)
        )
    return bool(one.dtype == other.dtype) and (one.dtype != object or _same_cells(one, other))


# Of a list comes an array, and of a dict one with more keys: these alone are looked at.
_CELLS = (type(None), str, bytes, bool, int, float, Decimal, date, time)


def _same_cells(one: Any, other: Any) -> bool:
    return all(
        type(mine) is type(its) and isinstance(mine, _CELLS) and repr(mine) == repr(its)
        for mine, its in zip(one, other, strict=True)
    )


def _same_shapes(one: Any, other: Any) -> bool:
    """Whether two arrays have the same geometries; WKB alone takes a ring for a line, and may leave M out."""
    shapely, numpy = importlib.import_module("shapely"), importlib.import_module("numpy")
    mine, its = numpy.asarray(one), numpy.asarray(other)
    looks = [shapely.get_type_id, shapely.has_z, shapely.to_wkb]
    looks += [shapely.has_m] if hasattr(shapely, "has_m") else []
    return all(bool((look(mine) == look(its)).all()) for look in looks)


def _nothing(value: Any, path: Path) -> None:
    return None


_VALUES, _NAME, _ATTRS = "values", "name", "attrs"  # of a series, which is kept as a frame
_NEEDS = {
    "parquet": ("Parquet", "pyarrow"),
    "series": ("Parquet", "pyarrow"),
    "geoparquet": ("GeoParquet", "pyarrow"),
    "xarray": ("Zarr", "zarr"),
}
FORMATS = {
    "bytes": Format(".bin", _write_bytes, Path.read_bytes, _nothing),
    "npy": Format(".npy", _save_array, _load_array, _lost_of_array),
    "parquet": Format(".parquet", _save_frame, _load_frame, _lost_of_frame),
    "series": Format(".parquet", _save_series, _load_series, _lost_of_series),
    "geoparquet": Format(".parquet", _save_frame, _load_geoframe, _lost_of_geoframe),
    "xarray": Format(".zip", write_labelled, read_labelled, lost_of_labelled),
    "zarr": Format(".zip", write_zarr, read_zarr, lost_of_zarr),
}
