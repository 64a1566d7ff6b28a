"""How xarray's objects and zarr's arrays are kept: as a Zarr store in one zip file, which those libraries open as well.

xarray's own way to Zarr and back takes what looks like a CF convention for one: of an array whose attributes have a
``_FillValue`` or ``units`` it makes another, of times nanoseconds, of tuples lists, and it does not come back to a
CRS that the encoding names. Here arrays go in as they are, and all that is said of them stands beside them, exactly.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from geoflow.errors import UnstorableValue

_RECORD = "geoflow"  # the attribute of the group with what is said of the arrays in it
_DIMENSIONS = "_ARRAY_DIMENSIONS"  # by which xarray knows them in a store of the second Zarr format
_VALUES = "values"
_A_NAME = re.compile(r"\w[\w .-]*")


class _Said(NamedTuple):
    """What is said of one variable; *place* is where its array is."""

    name: Any
    place: str
    dims: list[Any]
    dtype: str
    attrs: Any
    encoding: Any
    is_coordinate: bool
    has_index: bool


def write_labelled(value: Any, path: Path) -> None:
    """Write a Dataset or a DataArray; ``UnstorableValue`` says what of it cannot be written."""
    dataset, array = _as_dataset(value)
    names = [*dataset.data_vars, *dataset.coords]  # in which order they come back
    said = [_said(number, name, dataset, _called(name, array)) for number, name in enumerate(names)]
    about = {"array": array, "name": _exact("its name", getattr(value, "name", None)), "variables": said}
    about |= {"attrs": _exact("its attribute", dataset.attrs), "encoding": _encoding(dataset.encoding)}
    with _zipped(path) as store:
        # Of this format zarr keeps each dtype of numpy's; of the third, texts and bytes may be read otherwise one day.
        group = importlib.import_module("zarr").create_group(store, zarr_format=2)
        group.attrs.put({**_readable(dataset.attrs), _RECORD: json.dumps(about)})
        for each in said:
            variable = dataset.variables[_made(each.name)]
            values = variable.values
            values = values.astype(object).astype(str) if values.dtype.kind in "OT" else values
            more = {**_readable(variable.attrs), _DIMENSIONS: [str(dim) for dim in variable.dims]}
            group.create_array(each.place, data=values, attributes=more, config={"write_empty_chunks": True})


def read_labelled(path: Path) -> Any:
    """The Dataset or DataArray, in memory."""
    xarray, zarr = importlib.import_module("xarray"), importlib.import_module("zarr")
    with zarr.storage.ZipStore(path, mode="r") as store:
        group = zarr.open_group(store, mode="r", zarr_format=2)
        about = json.loads(group.attrs[_RECORD])
        said = [_Said(*each) for each in about["variables"]]
        variables = {}
        for each in said:
            values = importlib.import_module("numpy").asarray(group[each.place][...])
            variable = xarray.Variable(_made(each.dims), values.astype(_dtype(each.dtype), copy=False))
            variable.attrs, variable.encoding = _made(each.attrs), _made(each.encoding)
            variables[_made(each.name)] = variable
    coordinates = {_made(each.name): variables.pop(_made(each.name)) for each in said if each.is_coordinate}
    dataset = xarray.Dataset(variables, xarray.Coordinates(coordinates, indexes={}), _made(about["attrs"]))
    dataset.encoding = _made(about["encoding"])
    for each in said:
        dataset = dataset.set_xindex(_made(each.name)) if each.has_index else dataset
    return dataset if about["array"] is None else dataset[_made(about["array"])].rename(_made(about["name"]))


def lost_of_labelled(value: Any, path: Path) -> str | None:
    """What of *value* is not what `read_labelled` makes of the file."""
    back = read_labelled(path)
    (mine, array), (its, _) = _as_dataset(value), _as_dataset(back)
    if getattr(value, "name", None) != getattr(back, "name", None):
        return "its name"
    if {*mine.coords} != {*its.coords} or {*mine.xindexes} != {*its.xindexes}:
        return "which of its variables are coordinates, or have an index,"
    if not _same_text(mine.attrs, its.attrs):
        return "its attrs"
    for name, variable in mine.variables.items():
        there = its.variables[name]
        if variable.dims != there.dims or not _same_text(variable.attrs, there.attrs):
            return f"the dimensions or attributes of {_called(name, array)}"
        if variable.dtype != there.dtype or not _same(variable.values, there.values):
            return f"{_called(name, array)}, of type {variable.dtype},"
    return None


def write_zarr(value: Any, path: Path) -> None:
    """Write a zarr array, with its chunks, attributes and compression."""
    with _zipped(path) as store:
        importlib.import_module("zarr").from_array(
            store, data=value, fill_value=None, attributes=value.attrs.asdict(), config={"write_empty_chunks": True}
        )


def read_zarr(path: Path) -> Any:
    """The zarr array, to be read only: each part of it is read from the file when it is asked for."""
    zarr = importlib.import_module("zarr")
    return zarr.open_array(zarr.storage.ZipStore(path, mode="r"), mode="r")


def lost_of_zarr(value: Any, path: Path) -> str | None:
    """The same of a zarr array."""
    back = read_zarr(path)
    mine, its = (json.dumps(each.metadata.to_dict(), default=str, sort_keys=True) for each in (value, back))
    if mine != its:
        return "how it is laid out, or its attributes,"
    numbers = importlib.import_module("numpy").ndindex(value.cdata_shape)
    same = all(_same(value.blocks[number], back.blocks[number]) for number in numbers)
    return None if same else f"its values, of type {value.dtype},"


class _zipped:
    """A Zarr store to be written, which in the end is the one file *path*: equal ones are equal byte by byte."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = Path(tempfile.mkdtemp(dir=path.parent))

    def __enter__(self) -> Any:
        return importlib.import_module("zarr").storage.LocalStore(self._folder)

    def __exit__(self, kind: object, *exc: object) -> None:
        try:
            if kind is None:
                with zipfile.ZipFile(self._path, "w") as whole:
                    for file in sorted(file for file in self._folder.rglob("*") if file.is_file()):
                        entry = zipfile.ZipInfo(file.relative_to(self._folder).as_posix())  # of no date
                        entry.file_size = file.stat().st_size
                        with whole.open(entry, "w") as target, file.open("rb") as source:
                            shutil.copyfileobj(source, target)
        finally:
            shutil.rmtree(self._folder)


def _as_dataset(value: Any) -> tuple[Any, Any]:
    """*value*, or where it is a DataArray a Dataset with it, and as what."""
    if type(value).__name__ == "Dataset":
        return value, None
    name = _VALUES
    while name in value.coords:
        name += "_"
    return value.to_dataset(name=name, promote_attrs=False), name


def _called(name: Any, array: Any) -> str:
    """A variable, as messages have it."""
    return "its values" if name == array else f"its variable {name!r}"


def _said(number: int, name: Any, dataset: Any, called: str) -> _Said:
    variable, index = dataset.variables[name], dataset.xindexes.get(name)
    held, what = type(variable.data), f"{called}, of type {variable.dtype},"
    if not isinstance(variable.dtype, importlib.import_module("numpy").dtype) or held.__module__ != "numpy":
        more = ": .compute() it" if held.__module__.startswith("dask.") else ""
        raise UnstorableValue(f"{what} held by a {held.__module__}.{held.__qualname__}, would not come back so{more}")
    if index is not None and type(index).__name__ != "PandasIndex":
        raise UnstorableValue(f"{what} has an index of its own kind, a {type(index).__name__}")
    exact_name, dims = _exact("the name of a variable", name), [_exact("a dimension", dim) for dim in variable.dims]
    alike = [other for other in dataset.variables if str(other).lower() == str(name).lower()]  # some disks see no case
    place = name if isinstance(name, str) and _A_NAME.fullmatch(name) and len(alike) == 1 else f"-{number}"
    attrs, encoding = _exact(f"of {called} the attribute", variable.attrs), _encoding(variable.encoding)
    dtype = "T" if variable.dtype.kind == "T" else variable.dtype.str
    if _dtype(dtype) != variable.dtype:
        raise UnstorableValue(f"{what} would come back changed")
    return _Said(exact_name, place, dims, dtype, attrs, encoding, name in dataset.coords, index is not None)


def _same_text(mine: Any, its: Any) -> bool:
    """Whether attributes are written alike: NaN is not equal to itself."""
    return json.dumps(_exact("", mine)) == json.dumps(_exact("", its))


def _dtype(text: str) -> Any:
    numpy = importlib.import_module("numpy")
    return numpy.dtypes.StringDType() if text == "T" else numpy.dtype(text)


def _same(mine: Any, its: Any) -> bool:
    """Whether two arrays have the same in each place, bit by bit where that is a number."""
    numpy = importlib.import_module("numpy")
    mine, its = numpy.asarray(mine), numpy.asarray(its)
    if mine.shape != its.shape:
        return False
    if mine.dtype.kind in "OT":
        pairs = zip(mine.ravel().tolist(), its.ravel().tolist(), strict=True)
        return all(type(one) is type(other) is str and one == other for one, other in pairs)
    return bool((_bits(mine) == _bits(its)).all())


def _bits(array: Any) -> Any:
    return importlib.import_module("numpy").ascontiguousarray(array).reshape(-1).view("u1")


def _encoding(encoding: Any) -> Any:
    """Of how the file was packed that the values came from what can be said: rioxarray finds the CRS by it.

    Where it was is left out: it may have been in a folder of the attempt's own, and equal objects are to be equal.
    """
    said = {name: value for name, value in encoding.items() if name != "source" and _tried(_exact, "", value)}
    return _exact("", said)


def _readable(attrs: Any) -> dict[str, Any]:
    """The attributes for other readers of the file, as far as JSON has them."""
    plain = {str(name): value.tolist() if hasattr(value, "tolist") else value for name, value in attrs.items()}
    return {name: value for name, value in plain.items() if _tried(_dumps, value)}


_dumps = partial(json.dumps, allow_nan=False)


def _tried(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        function(*arguments)
    except (TypeError, ValueError, UnstorableValue):
        return False
    return True


_PLAIN = (type(None), bool, int, float, str)


def _exact(what: str, value: Any) -> Any:
    """*value* as JSON from which `_made` makes the same, types and all; ``UnstorableValue`` where there is no way."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return [_exact(what, item) for item in value]
    if kind is tuple:
        return {"tuple": [_exact(what, item) for item in value]}
    if kind is dict:
        return {"dict": [[_exact(what, name), _exact(f"{what} {name!r}", item)] for name, item in value.items()]}
    library, dtype = kind.__module__.partition(".")[0], getattr(value, "dtype", value)
    if library == "numpy" and getattr(dtype, "kind", None) in set("biufU"):
        if dtype is value:
            return {"dtype": dtype.str}
        shape = [*value.shape] if kind.__name__ == "ndarray" else None
        items = [value.item()] if shape is None else value.ravel().tolist()
        if all(type(item) in _PLAIN for item in items):  # not those of a long double
            return {"numpy": [dtype.str, shape, items]}
    raise UnstorableValue(f"{what} is a {library}.{kind.__name__}, which cannot be written as text")


def _made(said: Any) -> Any:
    if isinstance(said, list):
        return [_made(item) for item in said]
    if not isinstance(said, dict):
        return said
    ((kind, inside),) = said.items()
    if kind == "tuple":
        return tuple(_made(item) for item in inside)
    if kind == "dict":
        return {_made(name): _made(item) for name, item in inside}
    numpy = importlib.import_module("numpy")
    if kind == "dtype":
        return numpy.dtype(inside)
    dtype, shape, items = inside
    array = numpy.array(items, dtype)
    return array[0] if shape is None else array.reshape(shape)
