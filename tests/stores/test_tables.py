"""A stage's frame in the forms of other programs, read again by those, and what cannot be said in them."""

from __future__ import annotations

import csv
import json
from typing import Any

import duckdb
import pandas as pd
import pytest

from geoflow.errors import TableError
from geoflow.views import frames, tables

ROWS: list[dict[str, Any]] = [
    {"task_id": "a", "mean": 1 / 3, "name": 'x,\t"y"\nz', "tags": ["é", 1], "flag": True, "big": 2**60 + 1, "any": 1},
    {"task_id": "b", "mean": None, "name": None, "tags": None, "flag": None, "big": None, "any": "1"},
]


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """As `JobHandle.frame` makes its columns."""
    return pd.DataFrame({name: frames.column([row[name] for row in rows]) for name in rows[0]})


@pytest.mark.parametrize("separator", [",", "\t"])
def test_separated_values_come_back_whole_whatever_is_in_them(separator: str) -> None:
    text = "\n".join(tables.separated(table(ROWS), separator))
    names, first, second = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    assert names == list(ROWS[0])
    assert first == ["a", repr(1 / 3), 'x,\t"y"\nz', '["é", 1]', "true", str(2**60 + 1), "1"]
    assert second == ["b", "", "", "", "", "", "1"]


def test_parquet_has_the_types_of_the_columns_and_json_of_what_is_no_column_of_one_type(tmp_path: Any) -> None:
    pytest.importorskip("pyarrow", reason="pip install 'geoflow[vector]' has it")
    path = tmp_path / "tasks.parquet"
    path.write_bytes(tables.parquet(table(ROWS), None, None))
    found = duckdb.connect().sql(f"from read_parquet('{path}')")
    assert found is not None
    types = dict(zip(found.columns, map(str, found.types), strict=True))
    assert types == {
        "task_id": "VARCHAR",
        "mean": "DOUBLE",
        "name": "VARCHAR",
        "tags": "VARCHAR",
        "flag": "BOOLEAN",
        "big": "BIGINT",
        "any": "VARCHAR",
    }
    first, second = found.fetchall()
    assert first == ("a", 1 / 3, 'x,\t"y"\nz', '["é", 1]', True, 2**60 + 1, "1")
    assert second == ("b", None, None, None, None, None, '"1"')


@pytest.fixture
def shapely() -> Any:
    return pytest.importorskip("shapely", reason="pip install 'geoflow[vector]' has it")


@pytest.fixture
def geopandas() -> Any:
    return pytest.importorskip("geopandas", reason="pip install 'geoflow[vector]' has it")


def placed(*shapes: Any) -> pd.DataFrame:
    """A table of what GeoJSON has of *shapes*; of None, of a task that failed."""
    at = [shape if shape is None else shape.__geo_interface__ for shape in shapes]
    return table([{"task_id": f"t{place}", "at": json.loads(json.dumps(each))} for place, each in enumerate(at)])


def read(rows: pd.DataFrame, crs: Any) -> list[dict[str, Any]]:
    document = json.loads("\n".join(tables.features(rows, None, crs)))
    assert document["type"] == "FeatureCollection"
    return list(document["features"])


def test_geojson_is_in_degrees_whatever_the_crs_of_the_stage_was(geopandas: Any, shapely: Any) -> None:
    from pyproj import Transformer

    first, second = read(placed(shapely.Point(250_000, 9_000_000), None), "EPSG:31985")
    assert first["properties"] == {"task_id": "t0"}
    expected = Transformer.from_crs("EPSG:31985", "EPSG:4326", always_xy=True).transform(250_000, 9_000_000)
    assert first["geometry"]["coordinates"] == pytest.approx(expected)
    assert second["geometry"] is None


def test_geojson_keeps_a_box_that_goes_around_the_world_and_values_as_in_json(geopandas: Any, shapely: Any) -> None:
    world = shapely.box(-20037508.34, -1e7, 20037508.34, 1e7)
    rows = placed(world).assign(tags=frames.column([["x", None]]), mean=frames.column([0.5]))
    (feature,) = read(rows, "EPSG:3857")
    assert feature["properties"] == {"task_id": "t0", "tags": ["x", None], "mean": 0.5}


@pytest.mark.parametrize(
    ("bounds", "crs", "message"),
    [
        ((0, 0, 1, 1), None, "which CRS the geometries of 'at' are is not known. Give crs="),
        ((0, 0, 1, 1), "EPSG:99999", "The CRS 'EPSG:99999' is not known"),
        ((500_000, 0, 600_000, 1), "EPSG:4326", "Task t1: 500000, 0, 600000, 1 is not in degrees"),
        ((170, 0, 190, 1), "EPSG:4326", "Task t1: 170, 0, 190, 1 goes beyond 180 degrees: cut it at the antimeridian"),
        ((100_000, 0, 300_000, 100_000), "EPSG:32601", "Task t1: its geometry crosses the antimeridian"),
        ((-100_000, -100_000, 100_000, 100_000), "EPSG:3995", "Task t1: .* a pole is in it: cut it"),
    ],
)
def test_what_geojson_cannot_say_is_refused_by_its_task(
    shapely: Any, geopandas: Any, bounds: Any, crs: Any, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        read(placed(None, shapely.box(*bounds)), crs)


def test_parquet_of_geojson_is_geoparquet(geopandas: Any, shapely: Any, tmp_path: Any) -> None:
    path = tmp_path / "tasks.parquet"
    path.write_bytes(tables.parquet(placed(shapely.Point(1, 2), None), None, "EPSG:31985"))
    found = geopandas.read_parquet(path)
    assert (found.crs, found.geometry.name) == ("EPSG:31985", "at")
    assert [found.geometry.iloc[0].coords[0], found.geometry.iloc[1]] == [(1, 2), None]
