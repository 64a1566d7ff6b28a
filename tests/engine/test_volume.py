"""Values that are many or long: nothing of users' is put together as one text, and what cannot be held ends the job."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.core.batch import NewTasks
from geoflow.core.chunking import CHUNK_LENGTH, Pace
from geoflow.engine import asking, events
from geoflow.engine.active_job import ActiveJob
from geoflow.errors import DefinitionError, GeoflowWarning, UnstorableValue
from geoflow.executors import worker
from geoflow.jobtypes import answers as calls
from geoflow.jobtypes.answers import checked_plan
from geoflow.stores import duckdb as duckdb_store
from geoflow.stores import reading
from geoflow.stores import store as tables
from geoflow.support import jsonable as values
from geoflow.support.parcel import Spool, Texts, packed
from tests.helpers.sessions import OpenSession

LONG = 1_000_000


def handler(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": params["text"]}


def measure(params: dict[str, Any]) -> dict[str, Any]:
    given = params.get("previous_results")
    return {"success": True, "result": sum(len(one["result"]) for one in given) if given else params["seen"]}


class Long:
    """A stage of long tasks, one that is planned from their results, and finalize over all of them."""

    job_type = "long"
    description = "long parameters and results"
    stages = [
        {"number": 1, "name": "make", "task_type": "make", "parallelism": "single"},
        {"number": 2, "name": "look", "task_type": "look", "parallelism": "fan_out"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return f"{params['tasks']:064x}"

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        if stage == 1:
            names = (f"t{n}" for n in range(job_params["tasks"]))
            given: Iterator[dict[str, Any]] = ({"text": f"{name} {'x' * job_params['length']}"} for name in names)
            return [
                {"task_id": f"t{n}", "task_type": "make", "parameters": one, "metadata": {"n": n} if n % 2 else None}
                for n, one in enumerate(given)
            ]
        seen = sum(len(one["result"]) for one in previous_results)
        return [{"task_id": "look", "task_type": "look", "parameters": {"seen": seen}}]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        names = [task.task_id for task in context.task_results]
        whole = [str(task.result_data["result"]).split()[0] for task in context.task_results[:-1]]
        return {"in_order": names[:-1] == whole, "tasks": len(names), "seen": context.task_results[-1].result_data}


class FanIn(Long):
    job_type = "fan_in"
    stages = [Long.stages[0], {"number": 2, "name": "total", "task_type": "look", "parallelism": "fan_in"}]


HANDLERS = {"make": handler, "look": measure}


def test_S33_plans_parameters_and_results_that_are_too_long_for_a_message_arrive_in_order(
    open_session: OpenSession,
) -> None:
    session = open_session()
    session.register(Long, HANDLERS)
    job = session.run("long", {"tasks": 80, "length": LONG})
    assert job.result() == {"in_order": True, "tasks": 81, "seen": {"success": True, "result": 80 * (LONG + 4) - 10}}
    assert job.tasks()["metadata"].tolist()[:3] == [None, {"n": 1}, None]
    folder = session.runtime.executor.where()
    assert folder is not None
    assert not [path for path in Path(folder).iterdir() if path.suffix in (".given", ".answer")], "cleared up"


@pytest.mark.parametrize("name", ["work.db", "work.duckdb"])
def test_tasks_go_out_with_a_bounded_length_of_parameters_at_a_time_and_none_is_left_out(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sent: list[int] = []
    for module in (tables, reading, duckdb_store, worker):
        monkeypatch.setattr(module, "PIECE", 2_000)
    monkeypatch.setattr(duckdb_store, "_LOOKED_AT", 3)
    monkeypatch.setattr(reading, "_FIRST_AT_ONCE", 4)
    chunk_of = ActiveJob.chunk

    def noted(self: Any, number: int, batch: Any, *rest: Any) -> Any:
        sent.append(len(batch.parameters))
        return chunk_of(self, number, batch, *rest)

    monkeypatch.setattr(ActiveJob, "chunk", noted)
    monkeypatch.setattr(Pace, "chunk_size", lambda self, left, slots, target: left)
    session = open_session(tmp_path / name, workers=0)
    session.register(Long, HANDLERS)
    assert session.run("long", {"tasks": 40, "length": 500}).result()["in_order"] is True
    assert max(sent) < 2_000 + 600
    assert len(sent) > 10


def test_S15_a_fan_in_over_more_than_a_task_can_be_given_fails_the_job_each_time_and_says_what_to_do(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MAX_BYTES", 5_000)
    session = open_session(workers=0)
    session.register(FanIn, HANDLERS)
    job = session.run("fan_in", {"tasks": 10, "length": 600})
    for _ in range(2):
        assert job.status == "failed"
        assert job.error == (
            "Stage 2 (total) is a fan_in over 6.3 kB of results of stage 1, and one task can be given 5.0 kB. Have the "
            "tasks of stage 1 write files and return their paths, then job.rerun(stage=1); or put a stage between that "
            "aggregates parts of them."
        )
        job.resume().wait()
    monkeypatch.setattr(asking, "MAX_BYTES", values.MAX_BYTES)
    job.resume().wait()
    assert job.status == "completed"


def test_S21_a_value_that_no_store_could_hold_is_refused_with_its_name_and_its_size(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "MAX_BYTES", 1_000)
    with pytest.raises(UnstorableValue, match=r"^result is 2\.0 kB of JSON, and no value may be more than 1\.0 kB: wr"):
        values.to_json("x" * 2_000)
    session = open_session(workers=0)
    session.register(Long, HANDLERS)
    assert "'t0'): parameters is 2.0 kB of JSON" in str(session.run("long", {"tasks": 1, "length": 2_000}).error)


def test_S36_a_value_that_the_store_refuses_ends_the_job_and_not_only_this_run_of_it(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(workers=0)
    session.register(Long, HANDLERS)
    store: Any = session.store
    store._writer().setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 50_000)
    job = session.run("long", {"tasks": 2, "length": 60_000})
    assert (job.status, job.ended) == ("failed", True)
    assert "cannot hold a text of more than" in str(job.error)


def test_S34_results_for_which_there_is_no_room_on_the_disk_have_finalize_fail_and_are_all_kept(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(texts: Any, path: str | None) -> Texts:
        if path is not None and len(list(texts)) == 2:  # of both stages: these are finalize's
            raise OSError(28, "No space left on device", path)
        return packed((), None)

    session = open_session()
    session.register(FanIn, HANDLERS)
    monkeypatch.setattr(asking, "packed", full)
    job = session.run("fan_in", {"tasks": 2, "length": 10})
    assert job.with_errors
    assert "for its process to read: No space left on device. Free some space" in job.result()["finalization_error"]
    monkeypatch.undo()
    assert job.refinalize().result()["in_order"] is True


def test_an_answer_goes_back_once_it_is_long_and_what_is_left_runs_later(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "chunk_size", lambda self, left, slots, target: left)
    session = open_session(workers=1)
    session.register(Long, HANDLERS)
    job = session.run("long", {"tasks": 40, "length": LONG})
    assert job.result()["tasks"] == 41
    assert set(job.attempts()["attempt"]) == {1}, "what did not begin was not charged"


def test_chunks_are_smaller_the_longer_their_tasks_texts_are() -> None:
    pace = Pace()
    for _ in range(8):
        pace.observe(64, 1e-4, 64 * 100)
    assert pace.chunk_size(100_000, 2) > 1_000
    for _ in range(8):
        pace.observe(64, 1e-4, 64 * CHUNK_LENGTH // 4)
    assert pace.chunk_size(100_000, 2) in (3, 4)


@pytest.mark.parametrize("name", ["work.db", "work.duckdb"])
def test_S17_an_id_of_any_earlier_stage_is_refused_whether_the_ids_are_remembered_or_read_again(
    open_session: OpenSession, tmp_path: Path, name: str
) -> None:
    session = open_session(tmp_path / name, workers=0)
    session.register(Long, HANDLERS)
    job = session.run("long", {"tasks": 3, "length": 1})
    assert job.status == "completed"
    store: Any = session.store
    row = store.job(job.id)
    lease = store.claim(row.job_key, json.dumps({"pid": 1}))
    store.change_job(lease, "rerun", now=1.0)
    store.change_job(lease, "start", now=1.0)
    new = NewTasks.of
    for stage in range(1, 4):
        store.plan(lease, stage, new((f"a{stage}", "make", "{}", None), (f"b{stage}", "make", "{}", None)), now=1.0)
    for forget in (False, True):
        if forget:
            store._ids.clear()
        for stage in range(1, 4):
            with pytest.raises(DefinitionError, match=f"'b{stage}', which stage {stage} of this job has too"):
                store.plan(lease, 4, new(("c", "make", "{}", None), (f"b{stage}", "make", "{}", None)), now=1.0)
    store.plan(lease, 4, new(("t0", "make", "{}", None)), now=1.0)
    store.release(lease)
    assert not store._ids


def test_texts_come_out_of_a_file_as_they_went_in(tmp_path: Path) -> None:
    path = str(tmp_path / "texts")
    made: list[str | None] = ["", "a", None, "🌍\n", "x" * 100_000, None]
    spool = Spool(path)
    assert not spool.used
    spool.take(made[:2])
    spool.take(made[2:])
    spool.close()
    assert list(Texts(file=path)) == made
    assert list(Texts(file=path, of=2)) == made[::2]
    assert list(Texts(file=path, place=1, of=2)) == made[1::2]
    assert (tmp_path / "texts").stat().st_mode & 0o777 == 0o600


def test_a_plan_is_written_to_its_file_only_where_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = [{"task_id": f"t{n}", "task_type": "make", "parameters": {"n": n}, "metadata": None} for n in range(9)]
    spool = Spool(str(tmp_path / "short"))
    assert checked_plan(plan, 1, ("make",), spool)[2] == [f'{{"n":{n}}}' for n in range(9)]
    assert not spool.used
    monkeypatch.setattr(calls, "IN_MEMORY", 20)
    spool = Spool(str(tmp_path / "long"))
    ids, types, *rest = checked_plan(plan, 1, ("make",), spool)
    spool.close()
    assert (len(ids), len(types), rest) == (9, 9, [[], []])
    assert list(Texts(file=spool.path, of=2)) == [f'{{"n":{n}}}' for n in range(9)]


def test_jobs_are_listed_in_a_terminal_without_pandas_and_those_to_resume_found_without_their_values(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(tmp_path / "work.db", workers=0)
    session.run("acts", tasks=[{}] * 3)
    session.run("acts", tasks=[{"do": "raise", "value": "ValueError"}, {}])
    assert session.store.unended() == []
    latest = session.store.latest()
    assert latest is not None
    assert latest.status == "failed"
    code = (
        "import sys; from geoflow.commands.cli import main; code = main(sys.argv[1:]);"
        "print({name for name in ('pandas', 'duckdb', 'numpy') if name in sys.modules}, code)"
    )
    words = [sys.executable, "-c", code, "jobs", "--store", str(tmp_path / "work.db")]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.splitlines()[-1] == "set() 0"
    assert [line.split()[1] for line in said.splitlines()[:-1]] == ["completed", "failed"]


def test_frames_of_values_of_any_length_are_read_a_bounded_length_at_a_time(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(workers=0)
    lengths = [10, 9_000, 20, 2_000, 2_000, 0, *[3] * 20]
    job = session.run("acts", tasks=[{"value": "x" * length} for length in lengths])
    monkeypatch.setattr(reading, "PIECE", 3_000)
    found = job.tasks()
    assert [len(one["value"]) for one in found["parameters"]] == lengths
    assert [one["result"]["index"] for one in found["result"]] == list(range(len(lengths)))
    assert job.attempts()["task_index"].tolist() == list(range(len(lengths)))


PIECES = gf.JobType("pieces")


@PIECES.stage
def pieces(params: dict[str, int]) -> list[str]:
    return ["x" * params["long"]] * params["many"]


@PIECES.each(pieces)
def measured(item: str) -> int:
    return len(item)


@PIECES.reduce(measured)
def together(sizes: list[int]) -> int:
    return sum(sizes)


def test_S60_items_that_are_heavy_together_are_warned_of_and_many_small_ones_are_not(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEAVY", 100_000)
    session = open_session(":memory:", workers=0)
    with pytest.warns(
        GeoflowWarning, match=r"stage 2 \(measured\) are given is 10\d\.\d kB of JSON.*2\.\d kB each"
    ) as told:
        PIECES.run(long=2_000, many=50, session=session)
    assert [
        str(one.message).endswith("give each task the path and its part: a feature, rows, a window.") for one in told
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PIECES.run(long=900, many=200, session=session)
        job = PIECES.run(long=2_000, many=51, session=session)
    assert job.status == "completed", "a warning that is an error ends no job"
