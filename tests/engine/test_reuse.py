"""Nothing is computed twice: what a plan may take over of results that are there, and what has to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.core.rows import Again
from geoflow.jobtypes.contract import job_id_for
from geoflow.stores.convert import convert
from tests.helpers.sessions import OpenSession, check_intact, rows

pytestmark = pytest.mark.on_duckdb


class Tiles:
    """One task lists, one for each line of the file *names* tells, one counts what was told."""

    job_type = "tiles"
    description = "Tasks as a file has them by now."
    stages = [
        {"number": 1, "name": "scan", "task_type": "scan_names"},
        {"number": 2, "name": "tell", "task_type": "tell_name", "parallelism": "fan_out"},
        {"number": 3, "name": "count", "task_type": "count_names", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return job_id_for("tiles", params)

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> Any:
        folder = Path(job_params["folder"])
        if stage == 1:
            return [{"task_id": f"{job_id[:8]}-scan", "task_type": "scan_names", "parameters": {"trace": str(folder)}}]
        names = (folder / "names").read_text().split()
        return [
            {
                "task_id": f"{job_id[:8]}-{number}",
                "task_type": "tell_name",
                "parameters": {"name": name, "trace": str(folder)},
            }
            for number, name in enumerate(names)
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {"told": [task.result_data.get("result") for task in context.task_results]}


def note(folder: str, word: str) -> None:
    with open(Path(folder, "trace"), "a") as file:
        file.write(f"{word}\n")


def scan_names(params: dict[str, Any]) -> dict[str, Any]:
    note(params["trace"], "scan")
    return {"success": True, "result": "scanned"}


def tell_name(params: dict[str, Any]) -> dict[str, Any]:
    note(params["trace"], params["name"])
    if Path(params["trace"], "broken").exists() and params["name"] == "b":
        return {"success": False, "error": "broken", "retryable": False}
    return {"success": True, "result": params["name"]}


def tell_in_context(params: dict[str, Any], context: Any) -> dict[str, Any]:
    return {**tell_name(params), "result": f"{params['name']} of {context.task_id[-1:]}"}


def count_names(params: dict[str, Any]) -> dict[str, Any]:
    note(params["job_parameters"]["folder"], "count")
    return {"success": True, "result": len(params["previous_results"])}


HANDLERS = {"scan_names": scan_names, "tell_name": tell_name, "count_names": count_names}


class World:
    """A session, a folder with names that a job of `Tiles` tells, and what ran."""

    def __init__(self, session: gf.Session, folder: Path) -> None:
        self.session, self.folder = session, folder
        session.register(Tiles, HANDLERS)
        self.names("a", "b", "c")

    def names(self, *names: str) -> None:
        (self.folder / "names").write_text("\n".join(names))

    def run(self, **options: Any) -> gf.JobHandle:
        return self.session.run("tiles", folder=str(self.folder), **options)

    def ran(self) -> list[str]:
        """What has run since this was asked last."""
        trace = self.folder / "trace"
        words = trace.read_text().split() if trace.exists() else []
        trace.write_text("")
        return sorted(words)

    def repair(self, job: gf.JobHandle, stage: int, *, keep: bool = False) -> gf.JobHandle:
        runtime = self.session.runtime
        row = runtime.row(job.id)
        again = Again(stage, keep=keep, reuse="repair")
        runtime.drive(row, runtime.registered_as(row), "rerun", again=again, here=True)
        return job.wait()


@pytest.fixture
def world(open_session: OpenSession, tmp_path: Path) -> World:
    return World(open_session(workers=0), tmp_path)


def test_S48_a_stage_that_is_planned_anew_takes_over_what_is_the_same_and_runs_the_rest(world: World) -> None:
    job = world.run()
    assert world.ran() == ["a", "b", "c", "count", "scan"]
    world.names("a", "new", "c")
    assert world.repair(job, 2).result() == {"told": ["scanned", "a", "new", "c", 3]}
    assert world.ran() == ["count", "new"]
    frame = job.tasks(history=True)
    assert list(frame["superseded"]) == [False, *[True] * 4, *[False] * 4], "what was planned before is history"
    check_intact(world.session.store)


def test_S48_where_all_is_the_same_nothing_runs(world: World) -> None:
    job = world.run()
    before = job.result()
    world.ran()
    assert world.repair(job, 1).result() == before
    assert world.ran() == []
    attempts = job.attempts()
    taken = attempts[~attempts["superseded"]]
    assert list(taken["outcome"]) == ["completed"] * 5
    assert taken[["started_at", "slot"]].isna().all(axis=None), "nobody ran them"
    ended = attempts[attempts["superseded"]]["ended_at"]
    assert list(taken["ended_at"]) == list(ended), "they are as old as what they took over"


def test_S48_what_was_taken_over_leads_to_the_attempt_that_ran(world: World) -> None:
    job = world.run()
    for _ in range(3):
        world.repair(job, 1)
    sources = rows(world.session, "SELECT DISTINCT source_key >> 12 FROM reused ORDER BY 1")
    assert sources == [(key,) for key in range(1, 6)], "and not to one that took it over itself"


def test_S48_what_ran_with_other_code_runs(world: World) -> None:
    job = world.run()
    world.ran()

    def tell_name(params: dict[str, Any]) -> dict[str, Any]:
        note(params["trace"], params["name"])
        return {"success": True, "result": params["name"].upper()}

    world.session.register(Tiles, {**HANDLERS, "tell_name": tell_name})
    assert world.repair(job, 1).result() == {"told": ["scanned", "A", "B", "C", 3]}
    assert world.ran() == ["a", "b", "c", "count"]


def test_S48_a_handler_that_is_told_which_task_it_is_has_to_be_of_the_same_one(world: World) -> None:
    world.session.register(Tiles, {**HANDLERS, "tell_name": tell_in_context})
    job = world.run()
    world.ran()
    world.names("a", "c", "b")
    assert world.repair(job, 2).result() == {"told": ["scanned", "a of 0", "c of 1", "b of 2", 3]}
    assert world.ran() == ["b", "c", "count"]


def test_S48_only_what_completed_is_taken_over(world: World) -> None:
    (world.folder / "broken").touch()
    job = world.run()
    assert job.status == "failed"
    world.ran()
    (world.folder / "broken").unlink()
    assert world.repair(job, 2).result()["told"] == ["scanned", "a", "b", "c", 3]
    assert world.ran() == ["b", "count"]


def test_S48_a_stage_is_kept_where_what_failed_in_it_runs_and_what_is_behind_it_is_planned_anew(
    world: World,
) -> None:
    (world.folder / "broken").touch()
    job = world.run()
    world.ran()
    (world.folder / "broken").unlink()
    assert world.repair(job, 2, keep=True).result()["told"] == ["scanned", "a", "b", "c", 3]
    assert world.ran() == ["b", "count"]
    assert len(job.tasks(history=True)) == 5, "no plan was set aside"


def test_S48_a_plan_that_was_interrupted_goes_on_to_take_over_when_it_is_resumed(
    world: World, open_session: OpenSession
) -> None:
    job = world.run()
    world.names("a", "b", "c", "d")
    (world.folder / "broken").touch()
    runtime = world.session.runtime
    row = runtime.row(job.id)
    registered = runtime.registered_as(row)
    claimed = runtime.claim(row, registered, runtime.codes(registered), "rerun", Again(1, reuse="repair"))
    runtime.start(claimed, awaited=True)
    runtime.ask("interrupt", claimed)
    world.session.close()
    world.ran()
    again = World(open_session(workers=0), world.folder)
    again.names("a", "b", "c", "d")
    job = again.session.job(job.id).resume().wait()
    assert job.result()["told"] == ["scanned", "a", "b", "c", "d", 4]
    assert again.ran() == ["count", "d"]


def test_S48_a_rerun_of_all_takes_nothing_over_also_after_a_repair(world: World) -> None:
    job = world.run()
    world.repair(job, 1)
    world.ran()
    job.rerun().wait()
    assert world.ran() == ["a", "b", "c", "count", "scan"]
    world.repair(job, 3)
    assert world.ran() == []


def test_S48_a_copy_in_the_other_kind_of_store_has_it_too(world: World, tmp_path: Path) -> None:
    job = world.run()
    world.repair(job, 1)
    world.session.close()
    there = tmp_path / ("copy.db" if str(world.session.store.name).endswith(".duckdb") else "copy.duckdb")
    world.session.close()
    copied = convert(world.session.settings.store, there)
    assert (copied["reused"], copied["anew"]) == (5, 1)
