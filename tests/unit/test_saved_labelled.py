"""S59: xarray's objects and zarr's arrays come back from `gf.save` as they were, or are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoflow as gf

xr = pytest.importorskip("xarray")
zarr = pytest.importorskip("zarr")


def back(value: Any) -> Any:
    """What comes back of *value*, by way of JSON; and that again has the same file."""
    reference = gf.save(value)
    found = gf.load(json.loads(json.dumps(reference)))
    assert gf.save(found) == reference
    return found


def assert_same(found: Any, value: Any) -> None:
    """Equal for xarray, and in what xarray does not look at: dtypes, types of attributes, indexes, the sign of zero."""
    assert type(found) is type(value)
    assert found.identical(value)
    assert repr(found.attrs) == repr(value.attrs)
    assert {*found.xindexes} == {*value.xindexes}
    mine, its = variables(value), variables(found)
    assert mine.keys() == its.keys()
    for name, variable in mine.items():
        there = its[name]
        assert (there.dtype, there.dims, repr(there.attrs)) == (variable.dtype, variable.dims, repr(variable.attrs))
        assert variable.dtype.kind in "OT" or there.values.tobytes() == variable.values.tobytes()


def variables(value: Any) -> dict[Any, Any]:
    if isinstance(value, xr.Dataset):
        return dict(value.variables)
    return {"": value.variable, **{name: coordinate.variable for name, coordinate in value.coords.items()}}


def raster(**attrs: Any) -> Any:
    """As rioxarray opens a file: the CRS in a coordinate of no dimension, to which the encoding leads."""
    array = xr.DataArray(
        np.array([[1.5, -9999], [np.inf, np.nan]], "f4"),
        dims=("y", "x"),
        coords={
            "y": [2.5, 1.5],
            "x": [0.5, 1.5],
            "utm": ((), 0, {"crs_wkt": "PROJCS[...]", "GeoTransform": "0 1 0 3 0 -1"}),
        },
        name="height",
        attrs=attrs,
    )
    array.encoding = {
        "grid_mapping": "utm",
        "_FillValue": np.float32(-9999),
        "dtype": np.dtype("i2"),
        "compressor": object(),
    }
    return array


OBJECTS: dict[str, Any] = {
    "attributes of CF": raster(
        _FillValue=np.float32(-9999), scale_factor=1.0, add_offset=0, units="days since 2000-01-01"
    ),
    "attributes of each kind": raster(
        a=(1, [2.0, {"b": np.int8(1)}]), b=np.array([[1, 2]], ">u2"), c=float("nan"), d=float("-inf"), e=None, f=True
    ),
    "coordinates by name": raster(coordinates="utm", grid_mapping="other"),
    "times of each unit": xr.Dataset(
        {unit: ("t", np.array(["2020-01-01", "NaT", "1600-01-01"], f"M8[{unit}]")) for unit in ("s", "ms", "us")},
        coords={"t": pd.date_range("2020", periods=3, unit="us"), "wait": ("t", np.array([1, 2, 3], "m8[ms]"))},
    ),
    "texts": xr.Dataset(
        {"u": ("x", ["a", "ä\U0001f30d"]), "s": ("x", [b"a", b"bc"]), "o": ("x", np.array(["a", ""], dtype=object))},
        coords={"x": ["p", "q"]},
    ),
    "numbers": xr.Dataset(
        {name: ("x", np.array([0, 1], name)) for name in ("?", "u1", ">i4", "u8", "f2", ">f8", "c16")}
        | {"most": ("x", np.array([2**64 - 1, 0], "u8")), "negative zeros": ("x", np.array([-0.0, -0.0]))}
    ),
    "odd names": xr.Dataset(
        {"a/b": ("x", [1]), ".": ((0, "x"), [[2]]), 7: ("x", [3]), "A": ("x", [4]), "a": ("x", [5])}
    ),
    "no dimension": xr.DataArray(3.5),
    "nothing in it": xr.DataArray(
        np.zeros((0, 3)), dims=("a", "b"), name="values", coords={"values": ("b", [1, 2, 3])}
    ),
    "empty": xr.Dataset(attrs={"note": "x"}),
    "its own coordinate": xr.DataArray([1, 2], dims="x", coords={"x": [1, 2]}, name="x"),
    "an index that is none": xr.Dataset(coords={"x": [1, 2]}).drop_indexes("x"),
    "an index over others": xr.Dataset(coords={"x": [1, 2], "of": ("x", ["a", "b"])}).set_xindex("of"),
    "of a frame": pd.DataFrame({"s": ["a", "b"], "n": [1.0, 2.0]}).to_xarray(),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_S59_an_xarray_object_comes_back_with_its_dtypes_attributes_and_indexes(name: str) -> None:
    assert_same(back(OBJECTS[name]), OBJECTS[name])


def test_S59_what_leads_to_the_crs_of_an_xarray_object_comes_back_too() -> None:
    found = back(raster())
    encoding = {"grid_mapping": "utm", "_FillValue": np.float32(-9999), "dtype": np.dtype("i2")}
    assert found.encoding == encoding
    assert type(found.encoding["_FillValue"]) is np.float32
    assert found.coords["utm"].attrs["crs_wkt"] == "PROJCS[...]"


@pytest.mark.parametrize("how", [{}, {"masked": True}, {"mask_and_scale": True}, {"band_as_variable": True}])
def test_S59_a_file_that_rioxarray_opens_comes_back_with_its_crs_place_and_nodata(how: Any, tmp_path: Path) -> None:
    rioxarray, rasterio = pytest.importorskip("rioxarray"), pytest.importorskip("rasterio")
    about = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(5e5, 5e6, 10, 10), "nodata": -9999}
    with rasterio.open(tmp_path / "a.tif", "w", width=4, height=3, count=2, dtype="int16", **about) as file:
        file.write(np.arange(24, dtype="i2").reshape(2, 3, 4))
        file.descriptions, file.scales = ("red", "nir"), (0.1, 0.2)
    value = rioxarray.open_rasterio(tmp_path / "a.tif", **how)
    found = back(value)
    assert_same(found, value)
    assert (found.rio.crs, found.rio.transform()) == (about["crs"], about["transform"])
    for its, mine in zip(_rasters(found), _rasters(value), strict=True):
        assert repr((its.rio.nodata, its.rio.encoded_nodata)) == repr((mine.rio.nodata, mine.rio.encoded_nodata))


def _rasters(value: Any) -> list[Any]:
    return [value] if isinstance(value, xr.DataArray) else list(value.data_vars.values())


def test_S48_S59_where_the_values_were_read_from_makes_no_difference() -> None:
    one, other = raster(), raster()
    one.encoding["source"], other.encoding["source"] = "/scratch/1/a.tif", "/scratch/2/a.tif"
    assert gf.save(one) == gf.save(other)


@given(
    st.sampled_from(["?", "u1", ">i4", "<f8", "c8", "M8[s]", "m8[ms]", "S2", "f2"]),
    st.lists(st.integers(0, 3), max_size=3),
    st.binary(min_size=300, max_size=300),
    st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.floats() | st.text(max_size=3), max_size=3),
    st.text(max_size=3),
)
def test_S59_arrays_with_any_numbers_attributes_and_names_come_back_from_xarray(
    dtype: str, shape: list[int], content: bytes, attrs: dict[str, Any], name: str
) -> None:
    content = bytes(byte & 1 for byte in content) if dtype == "?" else content
    values = np.frombuffer(content, dtype, int(np.prod(shape))).reshape(shape)
    value = xr.Dataset({name: (tuple(range(len(shape))), values, attrs)}, attrs=attrs)
    assert_same(back(value), value)


class _Unit(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of another library's, that says so."""

    shape, ndim, dtype = (1,), 1, np.dtype("f8")

    def __array_function__(self, *of: Any) -> Any:
        return NotImplemented

    def __array_ufunc__(self, *of: Any, **how: Any) -> Any:
        return NotImplemented


class _Mine(xr.DataArray):  # type: ignore[misc, name-defined]
    __slots__ = ()


REFUSED: dict[str, tuple[Any, str]] = {
    "a CRS": (
        raster(crs=object()),
        r"xarray\.DataArray: of its values the attribute 'crs' is a builtins\.object, which",
    ),
    "cells": (
        xr.Dataset({"n": ("x", np.array(["a", None], dtype=object))}),
        r"its variable 'n', of type object, would",
    ),
    "many": (xr.DataArray(np.array(["a", 1], dtype=object)), r"its values, of type object, would come back changed\."),
    "fields": (xr.DataArray(np.zeros(1, [("a", "i4")])), r"its values, of type .*'a'.*, would come back changed"),
    "kinds": (xr.DataArray(pd.Series(pd.Categorical(["a"]))), r"its values, of type category, held by a pandas\."),
    "levels": (
        xr.DataArray([1], dims="x", coords={"x": pd.MultiIndex.from_tuples([(1, 2)], names=["a", "b"])}),
        "its variable 'x', .* has an index of its own kind, a PandasMultiIndex",
    ),
    "a unit": (xr.DataArray(_Unit(), dims="x"), r"its values, of type float64, held by a .*_Unit,"),
    "its own type": (_Mine([1]), "would come back as a plain DataArray"),
    "a long double": (xr.DataArray([1], attrs={"a": np.longdouble(1)}), r"the attribute 'a' is a numpy\.longdouble"),
    "a tree": (xr.DataTree(), r"this xarray\.DataTree: it keeps bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_S59_what_of_an_xarray_object_would_not_come_back_is_named(name: str) -> None:
    value, why = REFUSED[name]
    with pytest.raises(gf.errors.UnstorableValue, match=why):
        gf.save(value)


def test_S59_an_xarray_object_without_zarr_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(gf.errors.UnstorableValue, match=r"written as Zarr, which needs zarr: pip install zarr\.$"):
        gf.save(raster())


def test_S59_xarray_and_zarr_open_the_file_by_themselves() -> None:
    store = zarr.storage.ZipStore(gf.save(raster(long_name="height of the ground").to_dataset())["path"], mode="r")
    found = xr.open_zarr(store, consolidated=False)
    assert found["height"].dims == ("y", "x")
    assert found["height"].attrs == {"long_name": "height of the ground"}
    assert found["x"].values.tolist() == [0.5, 1.5]
    assert zarr.open_group(store, mode="r")["height"].shape == (2, 2)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_S59_a_zarr_array_comes_back_with_its_chunks_attributes_and_compression(zarr_format: Any) -> None:
    given = zarr.create_array(
        zarr.storage.MemoryStore(),
        data=np.array([[-0.0, np.nan, np.inf], [1, 2, 3]]),
        chunks=(1, 2),
        attributes={"unit": "m", "crs": {"epsg": 32632}},
        fill_value=0.0,
        zarr_format=zarr_format,
    )
    found = back(given)
    assert (found.chunks, dict(found.attrs), found.dtype) == ((1, 2), dict(given.attrs), given.dtype)
    assert found[:].tobytes() == given[:].tobytes()
    assert found.metadata.zarr_format == zarr_format
    assert found.read_only


def test_S59_what_is_kept_of_dask_is_said() -> None:
    pytest.importorskip("dask")
    with pytest.raises(
        gf.errors.UnstorableValue, match=r"held by a dask\.array\.core\.Array, would not come back so: \.compute\(\) it"
    ):
        gf.save(xr.DataArray([1, 2]).chunk())
