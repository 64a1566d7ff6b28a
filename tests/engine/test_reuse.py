"""Nothing is computed twice: what a plan may take over of results that are there, and what has to run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import geoflow as gf
from geoflow.core.chunks import Look
from geoflow.core.rows import Again
from geoflow.jobtypes.contract import job_id_for
from geoflow.jobtypes.inputs import looked_at, state_of
from geoflow.stores.convert import convert
from geoflow.support.jsonable import to_json
from tests.engine.test_crash_points import MOMENTS, Crash, crashing
from tests.helpers.profiles import a_share, is_thorough, seldom
from tests.helpers.sessions import OpenSession, check_intact, leave_as_killed, rows

pytestmark = [pytest.mark.on_duckdb(seldom=True), pytest.mark.filterwarnings("ignore:.*is a folder or an address")]


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


@pytest.mark.on_duckdb
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


@pytest.mark.on_duckdb
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


@pytest.mark.on_duckdb
def test_S48_a_copy_in_the_other_kind_of_store_has_it_too(world: World, tmp_path: Path) -> None:
    job = world.run()
    world.repair(job, 1)
    world.session.close()
    there = tmp_path / ("copy.db" if str(world.session.store.name).endswith(".duckdb") else "copy.duckdb")
    world.session.close()
    copied = convert(world.session.settings.store, there)
    assert (copied["reused"], copied["anew"]) == (5, 1)


# Across jobs, and files


FOLDER: dict[str, Any] = {
    "job_type": "folder",
    "description": "A folder of files.",
    "stages": [
        {"number": 1, "name": "scan", "task_type": "scan_folder"},
        {
            "number": 2,
            "name": "warp",
            "task_type": "warp_file",
            "parallelism": "fan_out",
            "inputs": ["path"],
            "outputs": ["out"],
        },
        {"number": 3, "name": "sum", "task_type": "sum_up", "parallelism": "fan_in"},
    ],
}


def scan_folder(params: dict[str, Any]) -> dict[str, Any]:
    note(params["work"], "scan")
    return {"success": True, "result": {"files": sorted(map(str, Path(params["folder"]).iterdir()))}}


def warp_file(params: dict[str, Any]) -> dict[str, Any]:
    path, out = Path(params["path"]), Path(params["out"])
    note(params["work"], path.name)
    out.write_text(path.read_text().upper())
    return {"success": True, "result": {"out": str(out), "size": len(out.read_text())}}


def sum_up(params: dict[str, Any]) -> dict[str, Any]:
    note(params["job_parameters"]["work"], "sum")
    return {"success": True, "result": sum(one["result"]["size"] for one in params["previous_results"])}


def folder_type(metadata_of: int = 0, **stage: Any) -> type:
    """A job type that scans a folder and warps each file of it; its second stage says *stage* otherwise."""

    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> Any:
        work = job_params["work"]
        if stage == 1:
            return [{"task_id": f"{job_id[:8]}-scan", "task_type": "scan_folder", "parameters": job_params}]
        return [
            {
                "task_id": f"{job_id[:8]}-{Path(path).name}",
                "task_type": "warp_file",
                "parameters": {"path": path, "out": f"{work}/{Path(path).name}.out", "work": f"{work}/"},
                "metadata": {"long": "x" * metadata_of},
            }
            for path in previous_results[0]["result"]["files"]
        ]

    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {"sum": context.task_results[-1].result_data["result"]}

    first, second, third = FOLDER["stages"]
    return type(
        "FolderJob",
        (),
        {
            **FOLDER,
            "stages": [first, {**second, **stage}, third],
            "validate_job_parameters": staticmethod(lambda params: params),
            "generate_job_id": staticmethod(lambda params: job_id_for("folder", params)),
            "create_tasks_for_stage": staticmethod(create_tasks_for_stage),
            "finalize_job": staticmethod(finalize_job),
        },
    )


class Folder(World):
    """A session, a folder of five files that a job warps, and what ran."""

    def __init__(self, session: gf.Session, folder: Path, **stage: Any) -> None:
        self.session, self.folder = session, folder / "work"
        self.handlers = {"scan_folder": scan_folder, "warp_file": warp_file, "sum_up": sum_up}
        session.register(folder_type(**stage), self.handlers)
        self.data = folder / "data"
        for path in (self.folder, self.data):
            path.mkdir(exist_ok=True)
        for name in "abcde":
            self.write(name, name * 3)

    def again(self, session: gf.Session) -> Folder:
        """The same folder as it is, with another session."""
        made = Folder.__new__(Folder)
        made.session, made.folder, made.data = session, self.folder, self.data
        session.register(folder_type(), self.handlers)
        return made

    def write(self, name: str, text: str) -> None:
        (self.data / name).write_text(text)

    def update(self, **more: Any) -> gf.JobHandle:
        return self.session.run("folder", folder=str(self.data), work=str(self.folder), on_existing="update", **more)


@pytest.fixture
def folder(open_session: OpenSession, tmp_path: Path) -> Folder:
    return Folder(open_session(workers=0), tmp_path)


@pytest.mark.on_duckdb
def test_S49_an_update_runs_what_is_new_or_has_changed_and_what_is_behind_it(folder: Folder) -> None:
    assert folder.update().result() == {"sum": 15}
    assert folder.ran() == ["a", "b", "c", "d", "e", "scan", "sum"]
    assert folder.update().result() == {"sum": 15}
    assert folder.ran() == ["scan"], "what looks for new files looks again"
    folder.write("f", "new")
    folder.write("b", "longer")
    (folder.folder / "d.out").unlink()
    job = folder.update()
    assert job.result() == {"sum": 21}
    assert folder.ran() == ["b", "d", "f", "scan", "sum"]
    frame = job.tasks()
    assert list(frame["reused_from"].notna()) == [False, True, False, True, False, True, False, False]
    assert set(frame["reused_from"].dropna()) == {job.id}
    attempts = job.attempts()
    told = attempts[~attempts["superseded"]].set_index("task_id")["reused_from"]
    assert told.to_dict() == frame.set_index("task_id")["reused_from"].to_dict()
    (folder.data / "a").unlink()
    assert folder.update().result() == {"sum": 18}
    assert folder.ran() == ["scan", "sum"], "what is no longer planned is history"
    assert len(job.tasks()) == 7


def test_S49_a_file_that_is_written_again_with_as_many_bytes_in_its_old_time_has_changed(folder: Folder) -> None:
    folder.update()
    folder.ran()
    before = (folder.data / "b").stat()
    folder.write("b", "xyz")
    os.utime(folder.data / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
    folder.update()
    assert folder.ran() == ["b", "scan", "sum"]


def test_S49_by_content_a_file_that_is_only_newer_is_the_same(open_session: OpenSession, tmp_path: Path) -> None:
    folder = Folder(open_session(workers=0), tmp_path, inputs_by="content")
    folder.update()
    folder.ran()
    os.utime(folder.data / "b")
    folder.update()
    assert folder.ran() == ["scan"]
    folder.write("b", "xyz")
    with pytest.warns(UserWarning, match="inputs of 1 task changed"):
        folder.session.run("folder", folder=str(folder.data), work=str(folder.folder))
    folder.update()
    assert folder.ran() == ["b", "scan", "sum"]


def test_S49_an_output_that_another_has_written_since_is_made_again(folder: Folder) -> None:
    folder.update()
    folder.ran()
    (folder.folder / "c.out").write_text("of another")
    folder.update()
    assert folder.ran() == ["c", "scan", "sum"], "and what is behind it, whose parameters name it"


def test_S49_a_file_that_a_parameter_names_counts_though_nobody_declared_it(
    open_session: OpenSession, tmp_path: Path
) -> None:
    folder = Folder(open_session(workers=0), tmp_path, inputs=None)
    folder.update()
    folder.write("b", "other")
    folder.ran()
    folder.update()
    assert folder.ran() == ["b", "scan", "sum"]


def test_S49_what_a_task_writes_and_nobody_declared_is_taken_for_an_input(
    open_session: OpenSession, tmp_path: Path
) -> None:
    folder = Folder(open_session(workers=0), tmp_path, outputs=None)
    folder.update()
    folder.ran()
    folder.update()
    assert folder.ran() == ["a", "b", "c", "d", "e", "scan", "sum"]


@pytest.mark.on_duckdb
def test_S49_a_submission_says_that_declared_inputs_have_changed(folder: Folder) -> None:
    submit = {"folder": str(folder.data), "work": str(folder.folder)}
    job = folder.session.run("folder", submit)
    assert folder.session.run("folder", submit).receipt.inputs_changed == 0  # type: ignore[union-attr]
    folder.write("b", "other")
    (folder.data / "c").unlink()
    with pytest.warns(UserWarning, match="inputs of 2 tasks changed since: job.update\\(\\) runs what has changed"):
        again = folder.session.run("folder", submit)
    assert again.receipt is not None
    assert (again.receipt.inputs_changed, job.inputs_changed) == (2, 2)
    assert "job.update()" in str(job)
    folder.ran()
    with pytest.warns(UserWarning, match="declares as input what is a folder or an address: .*work of stage 2"):
        again = folder.update()
    assert again.receipt is not None
    assert "work of stage 2" in again.receipt.unseen
    assert folder.ran() == ["b", "scan", "sum"]
    assert job.inputs_changed == 0


@pytest.mark.on_duckdb
def test_S48_with_reuse_equal_tasks_of_another_job_are_taken_over(open_session: OpenSession, tmp_path: Path) -> None:
    world = World(open_session(workers=0, reuse=True), tmp_path)
    first = world.run()
    world.names("a", "b", "c", "d")
    world.ran()
    second = world.run(another=1)
    assert second.result() == {"told": ["scanned", "a", "b", "c", "d", 4]}
    assert world.ran() == ["count", "d", "scan"], "the scan is given a folder, which it may look into"
    assert list(second.tasks()["reused_from"].notna()) == [False, True, True, True, False, False]
    assert set(second.tasks()["reused_from"].dropna()) == {first.id}
    assert "3 reused, 1 ran" in str(second)
    assert "3 reused, 1 ran" in second._repr_html_()


def test_S48_without_reuse_nothing_is_taken_over_and_no_table_is_made(world: World) -> None:
    world.run()
    world.ran()
    world.run(another=1)
    assert world.ran() == ["a", "b", "c", "count", "scan"]
    assert not any(world.session.store.has(table) for table in ("reused", "reusable", "anew"))


def test_S48_a_rerun_that_is_asked_for_runs_all_though_the_session_reuses(
    open_session: OpenSession, tmp_path: Path
) -> None:
    world = World(open_session(workers=0, reuse=True), tmp_path)
    job = world.run()
    world.ran()
    job.rerun().wait()
    assert world.ran() == ["a", "b", "c", "count", "scan"]


@pytest.mark.on_duckdb
def test_S48_what_was_forgotten_is_not_taken_over(folder: Folder) -> None:
    folder.update()
    folder.ran()
    assert folder.session.forget(job_type="other") == 0
    assert folder.session.forget(job_type="folder", before=datetime(2001, 1, 1)) == 0
    assert folder.session.forget(job_type="folder") == 7
    folder.update()
    assert folder.ran() == ["a", "b", "c", "d", "e", "scan", "sum"]


def test_S49_an_input_that_names_no_parameter_is_said(open_session: OpenSession, tmp_path: Path) -> None:
    folder = Folder(open_session(workers=0), tmp_path, inputs=["pth"])
    job = folder.update()
    assert job.status == "failed"
    assert "says that 'pth' of its tasks' parameters is an input, and no task has a parameter of that name" in str(
        job.error
    )
    assert "They have: out, path, work" in str(job.error)


def test_S49_an_input_that_is_not_there_is_the_matter_of_its_task_alone(
    open_session: OpenSession, tmp_path: Path
) -> None:
    folder = Folder(open_session(workers=0, max_retries=0), tmp_path)
    folder.update()
    folder.ran()
    (folder.data / "x").symlink_to("nowhere")
    job = folder.update()
    assert job.status == "failed"
    assert "x" in folder.ran()
    assert set(job.errors()["error_type"]) == {"FileNotFoundError"}
    (folder.data / "x").unlink()
    assert folder.update().result() == {"sum": 15}
    assert folder.ran() == ["scan"]


# Typed functions


class Scene(BaseModel):
    path: gf.InputFile
    bands: list[str] = []


class Warped(BaseModel):
    name: str
    cog: gf.OutputFile


@dataclasses.dataclass
class Area:
    folder: str
    work: str
    masks: list[gf.InputFile]
    extra: gf.InputFile | None = None


def warp_type(**options: Any) -> gf.JobType:
    t = gf.JobType("warp", params=Area, **options)

    @t.stage
    def scan(area: Area) -> list[Scene]:
        note(area.work, "scan")
        return [Scene(path=str(path)) for path in sorted(Path(area.folder).iterdir())]

    @t.each(scan, key="path")
    def warp(scene: Scene) -> Warped:
        name = Path(scene.path).name
        cog = WORK / f"{name}.cog"
        note(str(WORK), name)
        cog.write_text(Path(scene.path).read_text().upper())
        return Warped(name=name, cog=str(cog))

    @t.reduce(warp)
    def names(warped: list[Warped]) -> dict[str, Any]:
        note(str(WORK), "names")
        return {"names": [one.name for one in warped]}

    return t


WORK = Path()


def test_S49_who_names_a_file_by_a_path_has_the_job_of_who_names_it_by_text(
    open_session: OpenSession, tmp_path: Path
) -> None:
    class File(BaseModel):
        of: gf.InputFile
        masks: list[gf.InputFile] = []
        made: gf.OutputFile | None = None

    t = gf.JobType("named", params=File)

    @t.stage
    def look(file: File) -> File:
        return File(of=Path(file.of), made=Path(file.of))  # type: ignore[arg-type]

    session, path = open_session(workers=0), tmp_path / "a.tif"
    path.touch()
    by_path = t.run(of=path, masks=[path], session=session)
    by_text = t.submit(of=str(path), masks=[str(path)], session=session)
    assert by_text.id == by_path.id
    assert by_path.result() == {"of": str(path), "masks": [], "made": str(path)}
    with pytest.raises(ValueError, match="valid string"):
        t.run(of=7, session=session)


def test_S49_typed_functions_say_by_their_annotations_what_is_an_input_and_what_an_output(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(open_session(workers=0), tmp_path)
    monkeypatch.setitem(globals(), "WORK", folder.folder)
    given = {"folder": str(folder.data), "work": str(folder.folder), "masks": []}
    t = warp_type()
    stages = t.contract().stages  # type: ignore[attr-defined]
    assert [(stage.get("inputs"), stage.get("outputs")) for stage in stages] == [
        (["params.masks", "params.extra"], None),
        (["item.path"], ["cog"]),
        (None, None),
    ]
    t.run(given, session=folder.session, on_existing="update")
    folder.ran()
    folder.write("b", "other")
    (folder.folder / "c.cog").unlink()
    job = t.run(given, session=folder.session, on_existing="update")
    assert job.result() == {"names": ["a", "b", "c", "d", "e"]}
    assert folder.ran() == ["b", "c", "names"], "the scan declares its inputs, and a list of none is as it was"


def test_S48_parameters_that_a_typed_function_does_not_take_do_not_count(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(open_session(workers=0), tmp_path)
    monkeypatch.setitem(globals(), "WORK", folder.folder)
    t = warp_type(reuse=True)
    t.run(folder=str(folder.data), work=str(folder.folder), masks=[], session=folder.session)
    folder.ran()
    mask = tmp_path / "mask"
    mask.touch()
    job = t.run(folder=str(folder.data), work=str(folder.folder), masks=[str(mask)], session=folder.session)
    assert job.receipt is not None
    assert job.receipt.status == "created"
    assert folder.ran() == ["scan"]
    assert list(job.tasks()["reused_from"].isna()) == [True] + [False] * 6


@pytest.mark.parametrize(("options", "told"), [({"reuse": 1}, "reuse"), ({"inputs_by": "size"}, "inputs_by")])
def test_S49_an_option_that_cannot_be_is_refused(options: dict[str, Any], told: str) -> None:
    t = gf.JobType("refused")
    with pytest.raises(gf.errors.DefinitionError, match=told):
        t.stage(**options)


# What is not sound


@pytest.mark.parametrize(
    ("column", "value"),
    [("inputs", "no JSON"), ("inputs", '{"declared":1,"found":{},"unseen":[]}'), ("inputs", '{"declared":{"a":1}}')],
)
def test_S43_what_another_program_has_written_about_inputs_is_not_trusted(
    folder: Folder, column: str, value: str
) -> None:
    if folder.session.store.name.endswith(".duckdb") and value == "no JSON":
        pytest.skip("DuckDB holds no such JSON")
    job = folder.update()
    folder.ran()
    with folder.session.store._transaction() as connection:
        connection.execute(f"UPDATE reusable SET {column} = ?", (value,))
    assert job.inputs_changed == 0
    assert folder.update().result() == {"sum": 15}
    assert folder.ran() == ["a", "b", "c", "d", "e", "scan", "sum"]


@pytest.mark.on_duckdb
def test_S43_a_source_that_is_not_there_and_a_mode_that_nobody_knows_stop_no_job(folder: Folder) -> None:
    job = folder.update()
    folder.update()
    folder.ran()
    with folder.session.store._transaction() as connection:
        connection.execute("UPDATE reused SET source_key = 1")
        connection.execute("UPDATE anew SET mode = 'whatever'")
    assert folder.update().result() == {"sum": 15}
    assert folder.ran() == ["scan"]
    assert len(job.tasks()) == 7


@pytest.mark.parametrize(
    "text", ["", "\x00", "x" * 5_000, "a/" * 2_000, "/dev/null", "http://[", "s3://nowhere/x", "*?["]
)
def test_S49_a_text_that_is_no_path_of_a_file_stops_no_job(
    open_session: OpenSession, tmp_path: Path, text: str
) -> None:
    world = World(open_session(workers=0, reuse=True), tmp_path)
    world.names("a")
    assert world.run(text=text).status == "completed"
    assert looked_at([to_json({"text": text})], Look(("text",)))[0] in (None, '{"declared":{},"found":{},"unseen":[]}')


@pytest.mark.parametrize("beside", ["roads.dbf", "roads.shp.aux.xml"])
def test_S49_what_belongs_to_a_file_counts_as_a_part_of_it(tmp_path: Path, beside: str) -> None:
    whole, other = tmp_path / "roads.shp", tmp_path / beside
    whole.write_text("lines")
    other.write_text("old")
    before = state_of(str(whole))
    assert state_of(str(whole)) == before
    other.write_text("newer")
    assert state_of(str(whole)) != before


def test_S49_a_file_that_names_others_is_never_known_to_be_the_same(tmp_path: Path) -> None:
    (tmp_path / "all.vrt").write_text("<VRTDataset/>")
    assert state_of(str(tmp_path / "all.vrt")) is None


def test_S49_a_file_is_told_from_one_that_is_changed_right_after_it_was_looked_at(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"{number}"
        path.write_text("one")
        before = state_of(str(path))
        path.write_text("two")
        assert state_of(str(path)) != before


def test_a_probe_measures_though_the_session_reuses(open_session: OpenSession, tmp_path: Path) -> None:
    world = World(open_session(workers=0, reuse=True), tmp_path)
    world.run()
    world.ran()
    world.session.probe("tiles", folder=str(tmp_path))
    assert world.ran() == ["a", "b", "c", "count", "scan"]


def test_S49_an_update_that_dies_at_any_transaction_goes_on_as_one(
    open_session: OpenSession, tmp_path: Path, store_name: str, pytestconfig: pytest.Config
) -> None:
    folder = Folder(open_session(workers=0), tmp_path)
    folder.update()
    folder.session.close()
    saved = tmp_path / "saved"
    path = tmp_path / store_name
    shutil.copy(path, saved)
    for at in range(1, 100, 1 if is_thorough(pytestconfig) else 3):
        for file in tmp_path.glob(f"{store_name}*"):
            file.unlink()
        shutil.copy(saved, path)
        folder.write("b", f"other {at:03}")
        folder.ran()
        store = crashing(path, at, MOMENTS[at % 7 % 3])
        dying = folder.again(gf.open(path, workers=0, display="none"))
        dying.session.runtime.__dict__["store"] = store
        try:
            dying.update()
        except Crash:
            leave_as_killed(store)
        else:
            dying.session.close()
            break
        then = folder.again(open_session(path, workers=0))
        resumed = [job.wait() for job in then.session.resume()] or [then.update()]
        if not resumed[0].tasks()["reused_from"].notna().any():  # it died before anything of it was written
            resumed = [then.update()]
        assert resumed[0].result() == {"sum": 21}
        ran = folder.ran()
        assert set(ran) == {"b", "scan", "sum"}, at
        assert ran.count("b") <= 2
        then.session.close()
    assert at > 10


@pytest.mark.parametrize("length", [1, seldom(14_000_000)])
def test_S49_in_workers_it_is_the_same_also_where_a_plan_goes_by_a_file(
    open_session: OpenSession, tmp_path: Path, length: int
) -> None:
    folder = Folder(open_session(workers=1), tmp_path, metadata_of=length)
    folder.update()
    folder.ran()
    folder.write("b", "other")
    job = folder.update()
    assert job.result() == {"sum": 17}
    assert folder.ran() == ["b", "scan", "sum"]
    assert list(job.tasks()["reused_from"].isna()) == [True, False, True, False, False, False, True]


@pytest.mark.on_duckdb
def test_S48_a_table_that_was_made_in_a_transaction_that_failed_is_not_there(world: World) -> None:
    store = world.session.store
    assert not store.has("reusable")
    with contextlib.suppress(ZeroDivisionError), store._transaction() as connection:
        store.make(connection, "reusable")
        raise ZeroDivisionError
    assert not store.has("reusable")
    with store._transaction() as connection:
        store.make(connection, "reusable")
    assert store.has("reusable")


def test_S48_a_handler_in_the_place_of_a_typed_function_takes_what_it_takes(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(workers=0, reuse=True)
    t = gf.JobType("placed")

    @t.stage
    def numbers(p: dict[str, Any]) -> list[int]:
        return [1, 2]

    @t.each(numbers)
    def times(n: int) -> int:
        return n

    def times_factor(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": params["item"] * params["params"]["factor"]}

    session.register(t.contract(), {**t.handlers(), "placed_times": times_factor})
    assert session.run("placed", factor=2).result()["results"] == [2, 4]
    assert session.run("placed", factor=3).result()["results"] == [3, 6]


def test_S49_a_file_that_cannot_be_looked_at_is_not_known_to_be_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path := tmp_path / "secret.tif").touch()
    parameters = [to_json({"path": str(path)})]
    assert looked_at(parameters, Look())[0] is not None

    def refuse(path: Any, **_: Any) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("geoflow.jobtypes.inputs.os.stat", refuse)
    assert looked_at(parameters, Look()) == looked_at(parameters, Look(("path",))) == [None]


OPERATIONS = st.tuples(st.sampled_from(["write", "touch", "delete", "drop", "spoil"]), st.sampled_from("abcdefg"))


@a_share(0.5)
@given(days=st.lists(st.lists(OPERATIONS, max_size=4), min_size=1, max_size=5))
def test_S49_whatever_happens_to_the_files_exactly_what_has_changed_runs(
    days: list[list[tuple[str, str]]],
) -> None:
    with tempfile.TemporaryDirectory() as there, gf.open(f"{there}/work.db", workers=0, display="none") as session:
        folder = Folder(session, Path(there))
        versions: dict[str, int] = {}  # of what was made of each file
        known: set[tuple[tuple[str, int], ...]] = set()  # what was added up before
        to_run = set("abcde")
        for number, operations in enumerate([[], *days, []]):
            for what, name in operations:
                path, made = folder.data / name, folder.folder / f"{name}.out"
                match what:
                    case "write":
                        folder.write(name, "x" * (number + 1))
                    case "touch" if path.exists():
                        os.utime(path)
                    case "delete":
                        path.unlink(missing_ok=True)
                    case "drop" if made.exists():
                        made.unlink()
                    case "spoil" if made.exists():
                        made.write_text("of another")
                    case _:
                        continue
                to_run.add(name)
            there_are = sorted(path.name for path in folder.data.iterdir())
            if not there_are:
                return  # a fan-in of nothing fails
            wanted = to_run.intersection(there_are)
            to_run -= wanted
            versions |= {name: versions.get(name, 0) + 1 for name in wanted}
            adds_up = tuple((name, versions[name]) for name in there_are)
            sizes = sum(len((folder.data / name).read_text()) for name in there_are)
            assert folder.update().result() == {"sum": sizes}
            expected = sorted([*wanted, "scan", *([] if adds_up in known else ["sum"])])
            assert folder.ran() == expected
            known.add(adds_up)


def warp_with_output(params: dict[str, Any]) -> dict[str, Any]:
    note(params["work"], Path(params["path"]).name)
    with gf.output(params["out"]) as path:
        path.write_text(Path(params["path"]).read_text())
    return {"success": True, "result": {"out": params["out"], "size": path.name.count("")}}


@pytest.mark.parametrize("workers", [0, 1])
def test_S49_a_file_that_gets_its_name_at_the_end_of_its_task_is_as_that_left_it(
    open_session: OpenSession, tmp_path: Path, workers: int
) -> None:
    folder = Folder(open_session(workers=workers), tmp_path)
    folder.session.register(folder_type(), {**folder.handlers, "warp_file": warp_with_output})
    folder.update()
    folder.ran()
    folder.update()
    assert folder.ran() == ["scan"]
    folder.write("b", "other")
    (folder.folder / "c.out").unlink()
    folder.update()
    assert folder.ran() == ["b", "c", "scan", "sum"]
