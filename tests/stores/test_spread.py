"""One stage's tasks as a table: parameters and results as columns of honest dtypes, and geometries on request."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import pandas as pd
import pytest

import geoflow as gf
from geoflow.core.models import JobExecutionContext
from geoflow.errors import GeoflowError


def job_of(results: list[dict[str, Any]]) -> tuple[type, Any]:
    """A job type whose tasks give *results*, with its handler; one that has ``fails`` fails."""

    def give(params: dict[str, Any]) -> dict[str, Any]:
        gives = json.loads(params["gives"])
        if "fails" in gives:
            return {"success": False, "error": "no", "retryable": False}
        return {"success": True, "result": gives}

    class Given(gf.JobBase):
        job_type = "given"
        description = "what is told"
        stages = [{"number": 1, "name": "give", "task_type": "give", "on_failure": "continue"}]

        @staticmethod
        def validate_job_parameters(params):
            return params

        @staticmethod
        def generate_job_id(params):
            return "5" * 64

        @staticmethod
        def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
            tasks = enumerate(results)
            return [
                {"task_id": f"t{i}", "task_type": "give", "parameters": {"name": f"n{i}", "gives": json.dumps(gives)}}
                for i, gives in tasks
            ]

        @staticmethod
        def finalize_job(context: JobExecutionContext | None = None) -> dict[str, Any]:
            return {}

    return Given, give


@pytest.fixture
def ran(open_session):
    """The job of tasks that gave what it is called with."""
    session = open_session(":memory:", workers=0)

    def run(*results: dict[str, Any]) -> gf.JobHandle:
        made, give = job_of(list(results))
        session.register(made, handlers={"give": give})
        return session.run("given", on_existing="rerun")

    return run


POINT = {"type": "Point", "coordinates": [1.5, 2.5]}


def test_results_and_parameters_are_columns_of_their_dtypes_and_who_failed_is_there(ran):
    table = ran({"n": 1, "mean": 0.5, "deep": {"a": "x"}}, {"fails": True}, {"n": 3, "mean": 1.0, "name": "r"}).frame()
    assert table["status"].tolist() == ["completed", "failed", "completed"]
    assert table.columns.tolist()[:6] == ["task_id", "status", "n", "mean", "deep.a", "name"]
    assert {name: str(table[name].dtype) for name in ("n", "mean", "deep.a")} == {
        "n": "Int64",
        "mean": "Float64",
        "deep.a": "string",
    }
    assert table["parameters.name"].tolist() == ["n0", "n1", "n2"]
    assert table["name"].tolist()[2] == "r"


def test_a_stage_that_is_not_there_is_refused_with_those_that_are(ran):
    job = ran({"n": 1})
    assert len(job.frame("give")) == len(job.frame(1)) == 1
    with pytest.raises(ValueError, match=r"no stage 'take' that was planned: give \(1\)"):
        job.frame("take")


def test_a_typed_stages_items_are_columns(open_session):
    job = gf.JobType("squares")

    @job.stage
    def sides(params: dict) -> list[dict]:
        return [{"side": 2}, {"side": 3}]

    @job.each(sides)
    def area(item: dict) -> int:
        return item["side"] ** 2

    table = job.run(session=open_session(":memory:", workers=0)).frame("area")
    assert (table["result"].tolist(), table["side"].tolist()) == ([4, 9], [2, 3])


@pytest.fixture
def geopandas():
    return pytest.importorskip("geopandas", reason="pip install 'geoflow[vector]' has it")


def test_geojson_becomes_the_geometry_and_its_crs_is_that_of_the_column(ran, geopandas, tmp_path):
    job = ran({"at": POINT, "crs": "EPSG:4326", "n": 1}, {"fails": True})
    table = job.gdf()
    assert table.geometry.iloc[0].coords[0] == (1.5, 2.5)
    assert table.geometry.iloc[1] is None
    assert table.crs == "EPSG:4326"
    table.to_parquet(tmp_path / "out.parquet")
    assert geopandas.read_parquet(tmp_path / "out.parquet").geometry.iloc[0].coords[0] == (1.5, 2.5)


@pytest.mark.parametrize(
    ("given", "bounds"),
    [({"bbox": [0, 1, 2, 3]}, (0, 1, 2, 3)), ({"z": 1, "x": 1, "y": 0}, (0, 0, 180, 85.0511287798066))],
)
def test_bounds_and_tiles_become_boxes(ran, geopandas, given, bounds):
    assert ran(given).gdf().total_bounds.tolist() == pytest.approx(bounds)


def test_a_crs_that_nobody_told_is_not_guessed(ran, geopandas):
    assert ran({"at": POINT}).gdf().crs is None
    assert ran({"at": POINT}).gdf(crs=31985).crs == "EPSG:31985"


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([{"n": 1}], "No column has geometries: GeoJSON, four numbers called bbox"),
        ([{"at": POINT, "to": POINT}], "2 columns have geometries: at, to. Say which with geometry="),
        ([{"bbox": [170, 0, -170, 1]}], r"Task t0: bbox makes no geometry .*crosses the antimeridian"),
        ([{"z": 1, "x": 2, "y": 0}], "Task t0: z, x, y makes no geometry .there is no tile 1/2/0"),
        ([{"at": {"type": "Blob", "coordinates": [1]}}], "Task t0: at makes no geometry .*[Bb]lob"),
        ([{"z": 1, "x": 0, "y": 0, "geometry": 1}], "there is a column 'geometry' already"),
        ([{"at": POINT, "crs": "EPSG:4326"}, {"at": POINT, "crs": "EPSG:31985"}], "The tasks are in 2 CRSs"),
    ],
)
def test_what_makes_no_geometry_is_said_by_name(ran, geopandas, results, message):
    with pytest.raises(ValueError, match=message):
        ran(*results).gdf()


def test_no_column_is_lost_for_the_geometry(ran, geopandas):
    table = ran({"geometry": "as it was", "at": POINT}).gdf()
    assert (table.geometry.name, table["geometry"].tolist()) == ("at", ["as it was"])


def test_h3_cells_cover_the_earth_once_cut_at_the_antimeridian_and_drawn_to_the_poles(ran, geopandas):
    h3 = pytest.importorskip("h3", reason="pip install 'geoflow[h3]' has it")
    cells = [cell for base in h3.get_res0_cells() for cell in h3.cell_to_children(base, 1)]
    table = ran(*[{"h3": cell} for cell in cells]).gdf()
    assert len(table) == 842  # 2 + 120 · 7, https://h3geo.org/docs/core-library/restable
    assert table.geometry.is_valid.all()
    assert table.total_bounds.tolist() == [-180, -90, 180, 90]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # geopandas': degrees are no unit of area
        assert table.geometry.area.sum() == pytest.approx(360 * 180, rel=1e-9)
    assert table.geometry.union_all().area == pytest.approx(360 * 180, rel=1e-9)
    with pytest.raises(ValueError, match="h3 are in EPSG:4326: leave crs= out"):
        ran({"h3": cells[0]}).gdf(crs=3857)
    with pytest.raises(ValueError, match="Task t0: h3 makes no geometry"):
        ran({"h3": "notacell"}).gdf()


def test_h3_cells_are_found_under_any_name_but_not_before_what_is_called_so(ran, geopandas):
    pytest.importorskip("h3", reason="pip install 'geoflow[h3]' has it")
    (here, there), words = ("8001fffffffffff", "8009fffffffffff"), "8 is no cell"
    found = ran({"where": here, "words": words}, {"where": there, "words": words}).gdf()
    assert found.total_bounds.tolist() == ran({"h3": here}, {"h3": there}).gdf().total_bounds.tolist()
    named = ran({"parent": here, "cell": there}).gdf()
    assert named.total_bounds.tolist() == ran({"h3": there}).gdf().total_bounds.tolist()
    with pytest.raises(ValueError, match="2 columns have geometries: parent, child"):
        ran({"parent": here, "child": there}).gdf()


def test_a_column_that_is_asked_for_is_taken_or_refused(ran, geopandas):
    job = ran({"at": POINT, "to": {"type": "Point", "coordinates": [3, 4]}, "n": 1})
    assert job.gdf(geometry="to").geometry.iloc[0].coords[0] == (3, 4)
    with pytest.raises(ValueError, match="'n' has no geometries"):
        job.gdf(geometry="n")
    assert isinstance(job.frame(), pd.DataFrame)


def test_without_geopandas_it_says_what_to_install(ran, monkeypatch):
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(GeoflowError, match=r"pip install 'geoflow\[vector\]'"):
        ran({"at": POINT}).gdf()


def test_what_was_saved_is_one_value_in_a_column_which_load_takes(ran) -> None:
    reference = gf.save(b"tile")
    table = ran({"cog": reference, "n": 1}, {"fails": True}).frame("give")
    assert list(table)[:4] == ["task_id", "status", "cog", "n"]
    assert gf.load(table["cog"].iloc[0]) == b"tile"
    assert pd.isna(table["cog"].iloc[1])
