"""S59: what `gf.save` keeps comes back the same, and what would not is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoflow as gf
from geoflow.jobtypes.inputs import saved_in
from geoflow.tools.export import carried_saved

RING = [(0, 0), (1, 1), (1, 0)]
SHAPES = ["POINT Z (1 2 3)", "POLYGON EMPTY", "MULTIPOINT (1 2, 3 4)", "GEOMETRYCOLLECTION (POINT (1 2))"]


def back(value: Any) -> Any:
    """What comes back of *value*, by way of JSON."""
    return gf.load(json.loads(json.dumps(gf.save(value))))


@pytest.mark.parametrize("value", [b"", b"abc\x00\xff"])
def test_S59_bytes_come_back_as_they_were(value: bytes) -> None:
    assert back(value) == value


@given(
    st.sampled_from(["?", "u1", ">i4", "<f8", "c16", "M8[s]", "m8[ms]", "U3", "S2", "f2", [("a", "S2"), ("b", ">f4")]]),
    st.lists(st.integers(0, 3), max_size=3),
    st.binary(min_size=600, max_size=600),
    st.booleans(),
)
def test_S59_arrays_come_back_with_dtype_shape_and_order(
    dtype: Any, shape: list[int], content: bytes, by_columns: bool
) -> None:
    if dtype == "U3":  # not every number is a letter
        content = bytes(600)
    count = int(np.prod(shape))
    array = np.frombuffer(content, dtype, count).reshape(shape, order="F" if by_columns else "C")
    found = back(array)
    assert (found.dtype, found.shape, found.flags.f_contiguous) == (array.dtype, array.shape, array.flags.f_contiguous)
    assert found.tobytes() == array.tobytes()


NOT_KEPT: list[tuple[Any, str]] = [
    (bytearray(b"x"), "this bytearray: it keeps bytes, numpy arrays, DataFrames, Series, GeoDataFrames, xarray"),
    ([np.zeros(2)], "this list: it keeps bytes"),
    (np.float32(1), r"this numpy\.float32: it keeps"),
    (np.ma.masked_array([1, 2], [True, False]), "this numpy.MaskedArray: would come back as a plain ndarray"),
    (np.array([1, None]), "Object arrays cannot be saved"),
    (np.zeros(2, np.dtype("f8", metadata={"unit": "m"})), "its dtype .* would come back changed"),
    (np.zeros(2, [("a", np.dtype("f8", metadata={"unit": "m"}))]), "its dtype .* would come back changed"),
]


@pytest.mark.filterwarnings("ignore:metadata on a dtype")
@pytest.mark.parametrize(("value", "why"), NOT_KEPT)
def test_S59_what_would_not_come_back_the_same_is_refused_by_name(value: Any, why: str) -> None:
    with pytest.raises(gf.errors.UnstorableValue, match=why):
        gf.save(value)


def test_S59_a_frame_without_pyarrow_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(gf.errors.UnstorableValue, match=r"as Parquet, which needs pyarrow: pip install pyarrow\.$"):
        gf.save(pd.DataFrame({"a": [1]}))


def frames() -> dict[str, pd.DataFrame]:
    plain = pd.DataFrame(
        {
            "number": [1, 2],
            "text": ["x", None],
            "when": pd.to_datetime(["2020-01-01", "2021-01-01"], utc=True),
            "kind": pd.Categorical(["p", "q"], categories=["q", "p", "unused"], ordered=True),
            "few": pd.array([1, None], dtype="Int64"),
            "float": [float("inf"), float("nan")],
            "day": [date(2020, 1, 1), None],
        }
    )
    noted = plain.copy()
    noted.attrs = {"source": "s"}
    return {
        "plain": plain,
        "indexed": plain.set_index("text"),
        "two levels": plain.set_index(["number", "when"]),
        "noted": noted,
        "no rows": plain.drop(columns="kind").iloc[:0],
        "numbered columns": pd.DataFrame(np.eye(2)),
    }


@pytest.mark.parametrize("name", frames())
def test_S59_a_frame_comes_back_with_its_types_index_and_attrs(name: str) -> None:
    pytest.importorskip("pyarrow")
    frame = frames()[name]
    found = back(frame)
    pd.testing.assert_frame_equal(found, frame)
    assert found.attrs == frame.attrs


@pytest.mark.filterwarnings("ignore:The DataFrame has column names of mixed type")
@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (pd.DataFrame({"cells": [[1], [2]]}), "its column 'cells', of type object,"),
        (pd.DataFrame({"cells": [{"a": 1}, {"b": 2}]}), "its column 'cells'"),
        (pd.DataFrame({"cells": pd.Series([None, float("nan"), "x"], dtype=object)}), "its column 'cells'"),
        (pd.DataFrame({"cells": [Decimal("1.0"), Decimal("1.00")]}), "its column 'cells'"),
        (pd.DataFrame({"kinds": pd.Categorical([], categories=["a"])}), "its column 'kinds', of type category,"),
        (pd.DataFrame({1: [1], "2": [2]}), "the names of its columns, of type object,"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate column names"),
        (pd.DataFrame({"cells": [1j]}), "complex128"),
    ],
)
def test_S59_of_a_frame_the_column_is_named_that_would_change(frame: pd.DataFrame, what: str) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(gf.errors.UnstorableValue, match=what):
        gf.save(frame)


@pytest.mark.parametrize("name", ["height", None, 7, ""])
def test_S59_a_series_comes_back_with_its_name_type_index_and_attrs(name: str | int | None) -> None:
    pytest.importorskip("pyarrow")
    for series in (
        pd.Series([1.5, float("nan")], index=pd.Index(["a", "b"], name="tile"), name=name, dtype="float32"),
        pd.Series(pd.to_datetime(pd.Series(["2026-01-01", None]), utc=True), name=name),
        pd.Series(pd.Categorical(["a", "b", "a"]), name=name),
        pd.Series([], dtype="Int64", name=name),
        pd.Series([1], index=pd.Index([2], name="values"), name=name),
    ):
        series.attrs = {"unit": "m"}
        found = back(series)
        pd.testing.assert_series_equal(found, series)
        assert type(found) is pd.Series
        assert type(found.name) is type(name)
        assert found.attrs == series.attrs


@pytest.mark.parametrize(
    ("series", "what"),
    [
        (pd.Series([[1], [2]]), "its values, of type object, would come back changed"),
        (pd.Series([1], name=("a", 1)), r"its name \('a', 1\) would come back changed"),
    ],
)
def test_S59_what_of_a_series_would_change_is_named(series: pd.Series, what: str) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(gf.errors.UnstorableValue, match=what):
        gf.save(series)


def test_S59_attrs_that_would_change_are_named() -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1]})
    frame.attrs = {"shape": (1, 2)}
    with pytest.raises(gf.errors.UnstorableValue, match="its attrs would come back changed"):
        gf.save(frame)


def test_S59_a_geodataframe_comes_back_with_the_crs_of_each_column_and_every_shape() -> None:
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    pytest.importorskip("pyarrow")
    shapes = [*map(shapely.from_wkt, SHAPES), None]
    frame = geopandas.GeoDataFrame({"n": range(5)}, geometry=shapes, crs=32632).rename_geometry("outline")
    frame["centre"] = geopandas.GeoSeries([shapely.Point(0, 0)] * 5, crs=4326)
    found = back(frame)
    assert type(found) is geopandas.GeoDataFrame
    assert (found.crs, found.geometry.name, found["centre"].crs) == (frame.crs, "outline", frame["centre"].crs)
    assert [shape and shape.wkt for shape in found.geometry] == [shape and shape.wkt for shape in shapes]
    ring = geopandas.GeoDataFrame(geometry=[shapely.LinearRing(RING)])
    with pytest.raises(gf.errors.UnstorableValue, match="its column 'geometry', of type geometry, would come back"):
        gf.save(ring)
    with pytest.raises(
        gf.errors.UnstorableValue, match=r"this geopandas\.GeoSeries: would come back as a plain Series"
    ):
        gf.save(frame.geometry)


def test_S59_what_exported_modules_carry_keeps_frames_or_refuses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    pytest.importorskip("pyarrow")
    monkeypatch.setenv("SAVED_FOLDER", str(tmp_path))
    frame = geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(1, 2)], crs=32632)
    assert carried_saved._load(carried_saved._save(frame)).crs == frame.crs
    assert gf.load(carried_saved._save(frame)).equals(frame)
    assert carried_saved._load(gf.save(frame)).equals(frame)
    found = carried_saved._load(carried_saved._save(pd.DataFrame({"a": [float("inf"), float("nan")]})))
    assert repr(found["a"].tolist()) == "[inf, nan]"
    noted = pd.DataFrame({"a": [1]})
    noted.attrs = {"shape": (1, 2)}
    ring = geopandas.GeoDataFrame(geometry=[shapely.LinearRing(RING)])
    for wrong in (pd.DataFrame({"cells": [[1], [2]]}), noted, ring):
        with pytest.raises(TypeError, match="would not come back the same: convert it first"):
            carried_saved._save(wrong)


@pytest.mark.parametrize("reference", [None, "a.npy", {"gf_saved": "npy"}, {"path": "x", "bytes": 1, "sha256": "0"}])
def test_S59_load_says_what_it_takes(reference: Any) -> None:
    with pytest.raises(TypeError, match=r"gf\.load (takes the reference that gf\.save returned|knows no format None)"):
        gf.load(reference)


def test_S43_S59_nothing_in_a_file_that_a_reference_names_is_unpickled(tmp_path: Path) -> None:
    reference = gf.save(np.zeros(2))
    np.save(path := tmp_path / "a.npy", np.array([print]), allow_pickle=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="allow_pickle=False"):
        gf.load({**reference, "path": str(path), "bytes": path.stat().st_size, "sha256": digest})


def test_S59_outside_of_a_task_what_is_saved_lasts_as_long_as_the_interpreter(tmp_path: Path) -> None:
    code = "import geoflow as gf; r = gf.save(b'x'); assert gf.load(r) == b'x'; print(r['path'])"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    made = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert Path(made.stdout.strip()).is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_S48_S59_the_files_that_a_result_names_are_found_wherever_they_stand() -> None:
    reference = {"gf_saved": "npy", "path": "/a.npy", "bytes": 1, "sha256": "0"}
    assert saved_in(json.dumps({"success": True, "result": [{"deep": {"x": reference}}, reference]})) == ["/a.npy"] * 2
    assert saved_in(json.dumps({"gf_saved": 1, "path": 3})) == []
