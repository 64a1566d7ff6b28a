"""Vector files: what says no CRS or crosses itself is refused by name, and what is loaded has the source's areas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.geospatial.conftest import Run, data

geopandas = pytest.importorskip("geopandas", reason='no geopandas: pip install "geoflow[vector]"')
shapely = pytest.importorskip("shapely", reason='no shapely: pip install "geoflow[vector]"')
pyproj = pytest.importorskip("pyproj", reason='no pyproj: pip install "geoflow[vector]"')
pytest.importorskip("pyarrow", reason='no pyarrow: pip install "geoflow[vector]"')
pytest.importorskip("pystac", reason='no pystac: pip install "geoflow[stac]"')
pytest.importorskip("jsonschema", reason='no jsonschema: pip install "geoflow[stac]"')

LAND_M2 = 9_158_445_302_537  # that the Census says, ALAND


def test_counties_without_a_crs_are_refused_and_with_one_they_have_the_areas_of_the_census(
    run: Run, tmp_path: Path
) -> None:
    source = data("counties")
    refused = run("ingest_vector", source=source, folder=str(tmp_path))
    assert refused.errors()["error_type"].tolist() == ["CrsMissing"]
    assert "says no CRS; say it with crs=" in str(refused.error)

    job = run("ingest_vector", source=source, folder=str(tmp_path), crs="EPSG:4269")
    assert job.status == "completed", job.error
    made = job.result()
    assert job.stages()["completed"].tolist() == [1, 13, 1, 1]
    assert (made["features"], made["repaired"]) == (3233, 0)
    assert made["area_km2"] == pytest.approx(9_354_940.71837, abs=1e-5)  # on the ellipsoid of NAD83

    with duckdb.connect(made["duckdb"], read_only=True) as base:
        counted = base.sql("SELECT count(*), count(DISTINCT STATEFP), sum(ALAND) FROM features").fetchall()
        assert counted == [(3233, 56, LAND_M2)]
        assert str(base.sql("SELECT geometry FROM features").types[0]).startswith("GEOMETRY")
    table = geopandas.read_file(made["gpkg"])
    assert (len(table), table["ALAND"].sum(), table.crs) == (3233, LAND_M2, "EPSG:4269")
    on_wgs84 = sum(abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(one)[0]) for one in table.geometry) / 1e6
    assert on_wgs84 == pytest.approx(9_354_940.71840, abs=1e-5)  # as ST_Area_Spheroid of DuckDB's extension has it
    stac = json.loads(Path(made["stac"]).read_text())
    assert stac["stac_version"].startswith("1.")
    assert Path(stac["assets"]["gpkg"]["href"]).samefile(made["gpkg"])


def test_polygons_that_cross_themselves_cost_their_chunks_or_are_repaired_without_a_change_of_area(
    run: Run, tmp_path: Path
) -> None:
    source = data("tokyo")
    refused = run("ingest_vector", source=source, folder=str(tmp_path), chunk=100)
    assert refused.stages()[["completed", "failed"]].to_numpy().tolist()[:2] == [[1, 0], [1, 2]]
    errors = refused.errors()
    assert errors["error_type"].tolist() == ["GeometryInvalid"] * 2
    assert sorted(error.split(";")[0] for error in errors["error"]) == [
        "4 of 100 geometries are invalid",
        "6 of 100 geometries are invalid",
    ]
    assert errors["error"].str.contains("Ring Self-intersection").all()

    made = run("ingest_vector", source=source, folder=str(tmp_path), chunk=100, invalid="repair").result()
    assert (made["features"], made["repaired"]) == (262, 10)
    assert made["area_change_km2"] == pytest.approx(0, abs=1e-6)
    assert geopandas.read_file(made["gpkg"]).geometry.is_valid.all()


def test_rings_that_are_not_closed_cost_their_chunks_or_are_closed(run: Run, tmp_path: Path) -> None:
    """The whole file cannot be read by geopandas."""
    source = data("coast")
    refused = run("ingest_vector", source=source, folder=str(tmp_path), chunk=100, crs="EPSG:4326")
    assert refused.stages()[["completed", "failed"]].to_numpy().tolist()[:2] == [[1, 0], [6, 2]]
    assert [error.partition(". ")[0] for error in sorted(refused.errors()["error"])] == [
        "1 of 100 geometries are invalid; the first is feature 471: a ring is not closed",
        "1 of 100 geometries are invalid; the first is feature 95: a ring is not closed",
    ]
    made = run(
        "ingest_vector", source=source, folder=str(tmp_path), chunk=100, crs="EPSG:4326", invalid="repair"
    ).result()
    assert (made["features"], made["repaired"]) == (790, 2)
    assert geopandas.read_file(made["gpkg"]).geometry.is_valid.all()


@pytest.mark.parametrize(
    ("shapes", "error_type", "said"),
    [
        (
            [shapely.box(170, 0, 190, 5)],
            "GeometryInvalid",
            "0 goes beyond the antimeridian, from 170 to 190 deg",
        ),
        (
            [shapely.Point(1, 2), shapely.Polygon()],
            "GeometryInvalid",
            "1 of 2 features have no geometry; the first",
        ),
        (
            [shapely.Point(1, 2), shapely.box(0, 0, 1, 1), shapely.Point(3, 4)],
            "GeometryMixed",
            "has 2 Point, 1 Polygon: a layer has one kind; make a file of each",
        ),
    ],
)
def test_what_no_layer_can_have_is_refused_by_name(
    run: Run, tmp_path: Path, shapes: list[Any], error_type: str, said: str
) -> None:
    source = tmp_path / "places.geojson"
    geopandas.GeoDataFrame({"number": range(len(shapes))}, geometry=shapes, crs=4326).to_file(source)
    job = run("ingest_vector", source=str(source), folder=str(tmp_path), chunk=2)
    assert job.errors()["error_type"].tolist() == [error_type]
    assert said in str(job.error)


def test_another_crs_than_the_file_says_is_refused(run: Run, tmp_path: Path) -> None:
    job = run("ingest_vector", source=data("tokyo"), folder=str(tmp_path), crs="EPSG:4326")
    assert job.errors()["error_type"].tolist() == ["CrsMismatch"]
    assert "says EPSG:30166, not EPSG:4326" in str(job.error)
