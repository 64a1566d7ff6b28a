"""DataFrames of what a store holds: the documented columns, honest dtypes, and nothing lost on the way."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import geoflow as gf
from geoflow.core.batch import NewTasks
from geoflow.core.models import Attempt, Failure
from geoflow.core.rows import Again, Lease, Move, NewJob, StageRow
from geoflow.errors import StoreError
from geoflow.stores import columnwise
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.sqlite import SqliteStore
from geoflow.support import logs
from geoflow.support.jsonable import to_json
from geoflow.views import failures, frames
from geoflow.views.lines import Wanted

NOW = 1_700_000_000.25
ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
STAGES = json.dumps(
    [
        {"number": 1, "name": "scan", "task_type": "scan_it", "parallelism": "single"},
        {"number": 2, "name": "stat", "task_type": "stat_it", "parallelism": "fan_out"},
        {"number": 3, "name": "sum", "task_type": "sum_it", "parallelism": "fan_in"},
    ]
)
DOCUMENTED = {
    "jobs": "job_type status stage total_stages parameters result error created_at started_at ended_at duration "
    "tasks completed failed",
    "tasks": "task_id stage_name status attempts duration error error_type parameters result stage task_index "
    "task_type retries error_category created_at started_at ended_at metadata not_before code job_id",
    "attempts": "task_id stage attempt outcome error error_type error_category retryable traceback output slot "
    "pid queued_at started_at ended_at duration cpu peak_memory",
}
BROKEN = Failure("no such tile", "OSError", "transient", True, "Traceback: here")
WRONG = Failure("bad tile", "ValueError", "permanent", False, "Traceback: there")
LOST = Failure("its engine ended", "EngineLost", "lost", True)


class Engine:
    """One job in a store, moved as the engine moves jobs."""

    def __init__(self, store: SqliteStore | DuckDbStore, job_id: str, parameters: object = None) -> None:
        self.store = store
        job = NewJob(job_id, "tiles", STAGES, to_json(parameters or {"folder": "data"}), NOW, "tiles.py")
        row, _ = store.create(job)
        self.lease: Lease = store.claim(row.job_key, json.dumps({"pid": 1, "since": "today"}))
        self.store.change_job(self.lease, "start", now=NOW + 1)
        self.numbers: dict[int, int] = {}

    def plan(self, stage: int, parameters: Sequence[object], metadata: object = None, at: float = NOW + 2) -> StageRow:
        name = json.loads(STAGES)[stage - 1]["task_type"]
        extra = None if metadata is None else to_json(metadata)
        tasks = [(f"s{stage}-{index}", name, to_json(each), extra) for index, each in enumerate(parameters)]
        return self.store.plan(self.lease, stage, NewTasks.of(*tasks), now=at)

    def start(self, *keys: int) -> None:
        for key in keys:
            self.numbers[key] = self.numbers.get(key, 0) + 1
        self.store.commit(self.lease, [Move("start", keys)], [])

    def end(self, event: str, *keys: int, at: float = NOW + 10, not_before: float | None = None, **told: Any) -> None:
        """The attempts of *keys* end by *event*, one second after they began."""
        outcomes = {"complete": "completed", "fail": "failed", "retry": "failed", "lose": "lost"}
        told = {"started_at": at, "ended_at": at + 1, "cpu": 0.5, "peak_memory": 1 << 33, "slot": 1, "pid": 77} | told
        if event == "complete":
            told = {"result": to_json({"success": True, "result": {"bytes": 17}}), "code": "c0de"} | told
        attempts = [Attempt(key, self.numbers[key], outcomes[event], **told) for key in keys]
        self.store.commit(self.lease, [Move(event, keys, not_before)], attempts)

    def run(self, *keys: int, at: float = NOW + 10, **told: Any) -> None:
        self.start(*keys)
        self.end("complete", *keys, at=at, **told)


@pytest.fixture(params=[":memory:", "work.db"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(request.param if request.param == ":memory:" else tmp_path / request.param)
    yield made
    made.close()


def fill(store: SqliteStore) -> None:
    """Two jobs whose plans lie between each other's, one of them begun again; tasks and attempts of every kind."""
    one = Engine(store, ONE)
    old = one.plan(1, [{"index": index} for index in range(3)])
    one.run(old.first_key)
    one.start(old.first_key + 1)
    one.end("fail", old.first_key + 1, failure=WRONG, at=NOW + 30)
    store.change_job(one.lease, "rerun", now=NOW + 40, again=Again(parameters='{"folder":"other"}'))
    store.change_job(one.lease, "start", now=NOW + 41)

    two = Engine(store, TWO, {"password": "hunter2"})
    none = two.plan(1, [])
    assert none.task_count == 0
    other = two.plan(2, [{}, {}])
    two.run(*range(other.first_key, other.end_key), at=NOW + 20, output="printed\n")

    first = one.plan(1, [{"index": index} for index in range(7)], metadata={"size": 3}, at=NOW + 42).first_key
    one.run(first, at=NOW + 50)
    one.start(first + 1, first + 2, first + 3, first + 4, first + 5)
    one.end("retry", first + 1, failure=BROKEN, at=NOW + 50, not_before=NOW + 52)
    one.run(first + 1, at=NOW + 52, queued_at=NOW + 51, backoff=1.0)
    one.end("fail", first + 3, failure=WRONG, at=NOW + 51.5)
    one.end("retry", first + 2, failure=BROKEN, at=NOW + 53, not_before=NOW + 60)
    one.end("lose", first + 4, failure=LOST, started_at=None, ended_at=None, cpu=None, pid=None)
    one.start(first + 4)
    store.change_job(one.lease, "fail", now=NOW + 70, error="Task 's1-3' failed", traceback="Traceback: there")

    three = Engine(store, THREE)
    last = three.plan(1, [{}, {}])
    three.start(last.first_key)
    store.change_job(three.lease, "cancel", now=NOW + 90, moves=[Move("cancel", [last.first_key, last.first_key + 1])])


def asked(store: SqliteStore | DuckDbStore, view: str, frame: Any, *values: Any) -> list[dict[str, Any]]:
    """What the store itself says of the columns of *frame*."""
    with store.reading() as connection:
        rows = connection.execute(f"SELECT {', '.join(frame)} FROM {view}", values).fetchall()
    return [dict(zip(frame, row, strict=True)) for row in rows]


def plain(frame: Any) -> list[dict[str, Any]]:
    """The rows as SQL has them: seconds, JSON text, and None for all that is missing."""

    def value(cell: Any) -> Any:
        if isinstance(cell, dict):
            return to_json(cell)
        if cell is None or cell is pd.NaT or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
            return None
        if isinstance(cell, pd.Timestamp):
            return pytest.approx(cell.timestamp(), abs=1e-6)
        if isinstance(cell, pd.Timedelta):
            return pytest.approx(cell.total_seconds(), abs=3e-6)
        return cell

    return [{name: value(row[name]) for name in frame} for row in frame.astype(object).to_dict("records")]


def all_frames(store: SqliteStore, log: Path) -> dict[str, Any]:
    return {
        "jobs": frames.jobs(store),
        "stages": frames.stages(store, ONE),
        "tasks": frames.tasks(store, ONE),
        "history": frames.tasks(store, ONE, history=True),
        "attempts": frames.attempts(store, ONE),
        "errors": frames.errors(store, ONE),
        "logs": frames.logs(log, Wanted(ONE)),
    }


# Columns and dtypes


def test_dtypes_are_the_same_for_no_rows_and_for_many(store: SqliteStore, tmp_path: Path) -> None:
    log = tmp_path / "work.log"
    empty = all_frames(store, log)
    fill(store)
    line = {"time": "2024-05-06T07:08:09.123Z", "level": "INFO", "logger": "x", "message": "hello", "job_id": ONE}
    log.write_text(json.dumps(line | {"stage": 1, "attempt": 2, "retryable": True, "duration_ms": 1.5}) + "\n")
    full = all_frames(store, log)

    for name, frame in full.items():
        assert len(empty[name]) == 0, name
        assert len(frame) > 0, name
        assert list(empty[name].dtypes.items()) == list(frame.dtypes.items()), name


def test_the_documented_columns_come_first_and_in_the_documented_order(store: SqliteStore, tmp_path: Path) -> None:
    found = all_frames(store, tmp_path / "no.log")

    for name, words in DOCUMENTED.items():
        columns = words.split()
        assert list(found[name].columns[: len(columns)]) == columns
    assert list(found["errors"].columns.drop("cause")) == list(found["attempts"].columns)
    internal = {"job_key", "task_key", "stage_key", "first_key", "epoch", "place", "written"}
    assert not any(internal & set(frame.columns) for frame in found.values())


def test_states_are_categories_times_are_utc_durations_are_timedeltas_and_numbers_are_whole(store: SqliteStore) -> None:
    fill(store)
    tasks, attempts, jobs = frames.tasks(store, ONE), frames.attempts(store, ONE), frames.jobs(store)

    states = ["queued", "processing", "completed", "failed", "cancelled"]
    assert list(tasks.status.cat.categories) == list(jobs.status.cat.categories) == states
    assert list(attempts.outcome.cat.categories) == ["completed", "failed", "lost", "cancelled", "interrupted"]
    assert "transient" in tasks.error_category.cat.categories
    for frame in (tasks, attempts, jobs):
        assert {str(dtype) for name, dtype in frame.dtypes.items() if str(name).endswith("_at")} == {
            "datetime64[us, UTC]"
        }
        assert str(frame.duration.dtype) == "timedelta64[us]"
        assert {str(frame[name].dtype) for name in ("job_id", "error")} == {"string"}
    assert {str(tasks[name].dtype) for name in ("stage", "task_index", "attempts", "retries")} == {"int64"}
    assert {str(attempts[name].dtype) for name in ("slot", "pid", "peak_memory")} == {"Int64"}
    assert (str(attempts.retryable.dtype), str(attempts.superseded.dtype)) == ("boolean", "bool")
    assert (attempts.cpu.dropna() == pd.Timedelta(seconds=0.5)).all()


def test_a_duration_is_exactly_the_difference_of_its_times_which_are_to_the_nearest_microsecond(
    store: SqliteStore,
) -> None:
    one = Engine(store, ONE)
    first = one.plan(1, [{}] * 100).first_key
    for index in range(100):
        one.run(first + index, started_at=NOW + index + 0.0000017, ended_at=NOW + index / 3 + 200)
    tasks = frames.tasks(store, ONE)

    assert (tasks.duration == tasks.ended_at - tasks.started_at).all()
    assert set(tasks.started_at.dt.microsecond) == {250_002}


# What the rows say


@pytest.mark.parametrize("chunk", [1, 3, 1_000])
def test_the_rows_are_those_of_the_views_however_they_are_read(
    store: SqliteStore, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnwise, "_AT_ONCE", chunk)
    fill(store)

    listed = frames.jobs(store).drop(columns="with_errors")
    assert plain(listed) == asked(store, "jobs ORDER BY job_key", listed)
    for job_id in (ONE, TWO, THREE, "f" * 64):
        tasks = frames.tasks(store, job_id, history=True)
        attempts = frames.attempts(store, job_id).drop(columns="stage_name")
        assert plain(tasks) == asked(store, "tasks WHERE job_id = ? ORDER BY task_key", tasks, job_id)
        assert plain(attempts) == asked(store, "attempts WHERE job_id = ? ORDER BY task_key, attempt", attempts, job_id)


@pytest.mark.parametrize("chunk", [1, 7, 1_000])
@pytest.mark.parametrize("kind", [SqliteStore, DuckDbStore])
def test_rows_that_are_unlike_most_others_are_as_the_views_have_them(
    kind: type[SqliteStore | DuckDbStore], chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnwise, "_AT_ONCE", chunk)
    store = kind(tmp_path / "work.store")
    one = Engine(store, ONE)
    keys = list(
        range((plan := one.plan(1, [{"n": n} for n in range(400)], metadata={"size": 1})).first_key, plan.end_key)
    )
    one.run(*keys[:100])
    one.start(*keys[100:320])
    one.end("fail", *keys[100:200:9], failure=WRONG)
    one.end("retry", *keys[200:300], failure=BROKEN, not_before=NOW + 60)
    one.end("lose", *keys[300:310], failure=LOST, started_at=None, ended_at=None)
    one.run(*keys[290:305], queued_at=NOW + 61, backoff=0.5, code="c0de2", output="printed")

    tasks, attempts, errors = (getattr(frames, name)(store, ONE) for name in ("tasks", "attempts", "errors"))
    attempts = attempts.drop(columns="stage_name")
    assert plain(tasks) == asked(store, "tasks WHERE job_id = ? ORDER BY task_key", tasks, ONE)
    assert plain(attempts) == asked(store, "attempts WHERE job_id = ? ORDER BY task_key, attempt", attempts, ONE)
    failed = attempts[attempts.outcome == "failed"].sort_values("ended_at", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(errors.drop(columns=["stage_name", "cause"]), failed)
    assert len(errors) == 112
    store.close()


def test_S28_a_success_after_a_retry_has_its_retries_its_result_and_no_error(store: SqliteStore) -> None:
    fill(store)
    task = frames.tasks(store, ONE).set_index("task_id").loc["s1-1"]

    assert (task.status, task.attempts, task.retries) == ("completed", 2, 1)
    assert task.result == {"success": True, "result": {"bytes": 17}}
    assert [pd.isna(task[name]) for name in ("error", "error_type", "error_category", "not_before")] == [True] * 4
    assert (task.duration, task.code) == (pd.Timedelta(seconds=1), "c0de")


def test_S22_a_failed_task_has_its_error_and_no_result_and_its_attempt_the_traceback(store: SqliteStore) -> None:
    fill(store)
    task = frames.tasks(store, ONE).set_index("task_id").loc["s1-3"]
    attempt = frames.attempts(store, ONE).query("task_id == 's1-3'").iloc[0]

    assert task.result is None
    assert (task.status, task.error, task.error_type, task.error_category) == (
        "failed",
        "bad tile",
        "ValueError",
        "permanent",
    )
    assert (attempt.outcome, attempt.traceback, bool(attempt.retryable)) == ("failed", "Traceback: there", False)


def test_S18_a_task_that_waits_for_its_retry_is_queued_and_says_until_when_and_why(store: SqliteStore) -> None:
    fill(store)
    task = frames.tasks(store, ONE).set_index("task_id").loc["s1-2"]

    assert (task.status, task.error) == ("queued", "no such tile")
    assert task.not_before == pd.Timestamp(NOW + 60, unit="s", tz="UTC")


def test_a_task_that_runs_has_nothing_yet_of_the_attempt_that_runs(store: SqliteStore) -> None:
    fill(store)
    tasks = frames.tasks(store, ONE).set_index("task_id")

    for task_id, number in (("s1-4", 2), ("s1-5", 1)):
        task = tasks.loc[task_id]
        assert (task.status, task.attempts) == ("processing", number)
        assert task.result is None
        assert [pd.isna(task[name]) for name in ("error", "started_at", "ended_at", "duration", "code")] == [True] * 5


def test_S10_a_rerun_hides_the_tasks_before_it_which_history_and_attempts_still_have(store: SqliteStore) -> None:
    fill(store)
    current, history = frames.tasks(store, ONE), frames.tasks(store, ONE, history=True)

    assert len(current) == 7
    assert "superseded" not in current
    assert history.superseded.tolist() == [True] * 3 + [False] * 7
    assert frames.attempts(store, ONE).superseded.tolist() == [True] * 2 + [False] * 6


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 100, 5_000])
def test_of_the_errors_the_last_can_be_asked_for(store: SqliteStore, limit: int) -> None:
    fill(store)
    every = frames.errors(store, ONE)
    assert len(every) > 3
    last = every[max(len(every) - limit, 0) :].reset_index(drop=True)
    pd.testing.assert_frame_equal(frames.errors(store, ONE, limit), last)


def test_failures_of_all_kinds_are_counted_each_task_once(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    every = frames.errors(store, ONE)
    with store.reading() as connection:
        found = failures.kinds(connection, ONE)
        monkeypatch.setattr(failures, "MOST_KINDS", 1)
        bounded = failures.kinds(connection, ONE)
    assert sum(kind.attempts for kind in found) == sum(kind.attempts for kind in bounded) == len(every)
    for kind in found:
        alike = every[(every["error_type"] == kind.error_type) & (every["error_category"] == kind.error_category)]
        assert kind.task_id in set(alike["task_id"])
        assert kind.tasks <= kind.attempts
    assert [kind.attempts for kind in found] == sorted((kind.attempts for kind in found), reverse=True)
    assert len(bounded) <= 2


def test_errors_are_the_failed_attempts_and_the_newest_is_last(store: SqliteStore) -> None:
    fill(store)
    errors = frames.errors(store, ONE)

    assert set(errors.outcome) == {"failed"}
    assert errors.task_id.tolist() == ["s1-1", "s1-1", "s1-3", "s1-2"]
    assert errors.superseded.tolist() == [True, False, False, False]


def test_S30_a_failure_that_nobody_saw_comes_after_those_with_a_time(store: SqliteStore) -> None:
    one = Engine(store, ONE)
    first = one.plan(1, [{}, {}]).first_key
    one.start(first, first + 1)
    one.end("fail", first, failure=LOST, started_at=None, ended_at=None)
    one.end("fail", first + 1, failure=WRONG)

    assert frames.errors(store, ONE).task_index.tolist() == [1, 0]


def test_a_first_attempt_was_queued_by_its_plan_and_a_retry_by_the_failure_before(store: SqliteStore) -> None:
    fill(store)
    attempts = frames.attempts(store, ONE).query("task_id == 's1-1' and not superseded")

    assert attempts.attempt.tolist() == [1, 2]
    assert [at.timestamp() for at in attempts.queued_at] == [NOW + 42, NOW + 51]
    assert attempts.backoff.tolist() == [pd.NaT, pd.Timedelta(seconds=1)]


def test_jobs_are_oldest_first_and_count_the_tasks_of_their_current_plans(store: SqliteStore) -> None:
    fill(store)
    jobs = frames.jobs(store)

    assert jobs.job_id.tolist() == [ONE, TWO, THREE]
    assert jobs.status.tolist() == ["failed", "processing", "cancelled"]
    assert list(zip(jobs.tasks, jobs.completed, jobs.failed, strict=True)) == [(7, 2, 1), (2, 2, 0), (2, 0, 0)]
    assert jobs.parameters.tolist()[0] == {"folder": "other"}
    assert jobs.error.tolist()[0] == "Task 's1-3' failed"


def test_stages_are_all_of_the_job_type_s_with_their_tasks_by_state(store: SqliteStore) -> None:
    fill(store)
    one, two = frames.stages(store, ONE), frames.stages(store, TWO)

    assert one.stage_name.tolist() == ["scan", "stat", "sum"]
    assert one.parallelism.tolist() == ["single", "fan_out", "fan_in"]
    assert one.tasks.tolist() == [7, 0, 0]
    first = one.iloc[0]
    assert [first[state] for state in ("queued", "processing", "completed", "failed", "cancelled")] == [2, 2, 2, 1, 0]
    assert (first.started_at.timestamp(), first.ended_at.timestamp()) == (NOW + 50, NOW + 54)
    assert one.planned_at.isna().tolist() == [False, True, True]
    # S16: planned, and there was nothing to do.
    assert (two.tasks.tolist(), two.planned_at.isna().tolist()) == ([0, 2, 0], [False, False, True])


# Values


def test_S44_a_frame_is_data_so_parameters_are_not_masked(store: SqliteStore) -> None:
    fill(store)

    assert frames.jobs(store).parameters[1] == {"password": "hunter2"}


@pytest.mark.parametrize(
    "text",
    [
        "it's \"quoted\"; '; DROP TABLE job; --",
        "line\nline\r\n\ttab\x00nul\x1b[31mred\x7f\x85\u2028 \\ \\u0000 \\",
        "emoji 👩‍🚀 and é, e\u0301, \U0001d54f",
        '"],["',
        "null",
        "",
    ],
)
def test_S45_texts_come_out_as_they_went_in(store: SqliteStore, text: str) -> None:
    one = Engine(store, ONE)
    plan = store.plan(one.lease, 1, NewTasks.of((text or " ", text, to_json({text: text}), to_json([text]))), now=NOW)
    one.start(plan.first_key)
    one.end("fail", plan.first_key, failure=Failure(text, text, "unknown", True, text), output=text, code=text)
    task, attempt = frames.tasks(store, ONE).iloc[0], frames.errors(store, ONE).iloc[0]

    assert (task.task_id, task.task_type, task.error, task.error_type, task.code) == (text or " ", *[text] * 4)
    assert (task.parameters, task.metadata) == ({text: text}, [text])
    assert (attempt.error, attempt.traceback, attempt.output) == (text, text, text)


@pytest.mark.parametrize("chunk", [1, 1_000])
def test_each_row_has_a_dict_of_its_own(store: SqliteStore, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnwise, "_AT_ONCE", chunk)
    one = Engine(store, ONE)
    one.run(*range((plan := one.plan(1, [{"a": {}}] * 5)).first_key, plan.end_key))
    tasks: Any = frames.tasks(store, ONE)
    tasks.parameters[0]["a"]["changed"] = True

    assert tasks.parameters.tolist() == [{"a": {"changed": True}}, *[{"a": {}}] * 4]
    assert len({id(result["result"]) for result in tasks.result}) == 5


def test_a_frame_can_be_changed(store: SqliteStore) -> None:
    fill(store)
    tasks: Any = frames.tasks(store, ONE)
    tasks.loc[0, ["status", "started_at", "retries", "error"]] = ["queued", pd.NaT, 9, "mine"]

    assert tasks.loc[0, ["status", "retries", "error"]].tolist() == ["queued", 9, "mine"]


# Flat


def flat(store: SqliteStore, parameters: Sequence[object], results: Sequence[object] = ()) -> Any:
    one = Engine(store, ONE)
    first = one.plan(1, parameters).first_key
    for key, result in enumerate(results, first):
        one.run(key, result=to_json(result))
    return frames.tasks(store, ONE, flat=True)


def test_flat_gives_parameters_and_results_columns_of_their_own(store: SqliteStore) -> None:
    told = [{"success": True, "result": {"bytes": size, "mean": 0.5, "name": "t", "ok": True}} for size in (1, 2)]
    frame = flat(store, [{"path": f"{index}.tif", "where": {"x": index}} for index in range(3)], told)

    assert list(frame.columns) == [
        *(name for name in frames.tasks(store, ONE).columns if name not in ("parameters", "result")),
        *("parameters.path", "parameters.where.x", "result.bytes", "result.mean", "result.name", "result.ok"),
    ]
    assert frame["parameters.path"].tolist() == ["0.tif", "1.tif", "2.tif"]
    assert frame["result.bytes"].tolist() == [1, 2, pd.NA]
    dtypes = [str(dtype) for name, dtype in frame.dtypes.items() if name.startswith("result.")]
    assert dtypes == ["Int64", "Float64", "string", "boolean"]


def test_flat_keeps_one_row_a_task_even_when_there_are_no_parameters_and_no_results(store: SqliteStore) -> None:
    frame = flat(store, [{}, {}])

    assert frame.parameters.tolist() == [{}, {}]
    assert frame.result.tolist() == [None, None]
    assert len(frames.tasks(store, "f" * 64, flat=True)) == 0


@pytest.mark.parametrize(
    ("parameters", "columns"),
    [
        ([{"a": {"b": {"c": {"d": 1}}}}, {"a": {"e": 2}}], {"a.b.c.d": [1, pd.NA], "a.e": [pd.NA, 2]}),
        ([{"list": [{"x": 1}]}, {"none": {}}], {"list": [[{"x": 1}], None], "none": [None, {}]}),
        ([{"mixed": 1}, {"mixed": "one"}], {"mixed": [1, "one"]}),
        ([{"either": {"x": 1}}, {"either": 1}], {"either": [{"x": 1}, 1]}),
        ([{"big": 2**64 - 1}, {"big": 1}], {"big": [2**64 - 1, 1]}),
        ([{"big": 2**63 - 1}, {}], {"big": [2**63 - 1, pd.NA]}),
        ([{"number": 1}, {"number": 0.5}], {"number": [1.0, 0.5]}),
        ([{"null": None}, {"null": None}], {"null": [None, None]}),
    ],
)
def test_flat_loses_nothing_of_what_is_nested_mixed_missing_or_large(
    store: SqliteStore, parameters: list[object], columns: dict[str, object]
) -> None:
    frame = flat(store, parameters)

    found = {name: frame[name].tolist() for name in frame if name.startswith("parameters.")}
    assert found == {f"parameters.{name}": values for name, values in columns.items()}


def test_flat_shows_all_that_a_handler_returned_unless_it_is_only_success_and_a_result(store: SqliteStore) -> None:
    frame = flat(store, [{}] * 3, [{"success": True, "n": 1}, {"success": True, "result": [1]}, {"success": True}])

    assert frame["result.success"].tolist() == [True] * 3
    assert frame["result.n"].tolist() == [1, pd.NA, pd.NA]
    assert frame["result.result"].tolist() == [None, [1], None]


# Reading beside those who write


class WrittenMeanwhile(SqliteStore):
    """A store whose readers are overtaken by *write*, once they have begun."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.write: Callable[[], None] | None = None

    @contextmanager
    def reading(self) -> Iterator[Any]:
        with super().reading() as connection:

            def overtaken() -> None:
                write, self.write = self.write, None
                if write is not None:
                    write()

            connection.set_progress_handler(overtaken, 1_000)
            yield connection


def test_a_frame_is_of_one_moment_and_holds_up_no_writer(tmp_path: Path) -> None:
    store = WrittenMeanwhile(tmp_path / "work.db")
    one = Engine(store, ONE)
    plan = one.plan(1, [{"index": index} for index in range(5_000)])
    keys = range(plan.first_key, plan.end_key)
    one.start(*keys)
    before = frames.tasks(store, ONE)
    store.write = lambda: one.end("complete", *keys)
    meanwhile = frames.tasks(store, ONE)
    after = frames.tasks(store, ONE)
    store.close()

    assert store.write is None
    pd.testing.assert_frame_equal(meanwhile, before)
    assert (after.status == "completed").all()
    assert after.result.notna().all()


def test_garbage_is_collected_again_after_a_store_that_could_not_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "work.db"
    broken.write_text("this is not a store, whatever its name says")

    with pytest.raises(StoreError, match="is not a SQLite file"):
        frames.jobs(SqliteStore(broken))
    assert gc.isenabled()


def test_what_was_frozen_for_the_garbage_collector_stays_frozen(store: SqliteStore) -> None:
    fill(store)
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        frames.tasks(store, ONE)
        assert gc.get_freeze_count() > frozen / 2  # some of them were let go of meanwhile
    finally:
        gc.unfreeze()
    frames.tasks(store, ONE)
    assert gc.get_freeze_count() == 0


def test_ten_thousand_tasks_are_each_in_their_place(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "work.db")
    one = Engine(store, ONE)
    plan = one.plan(1, [{"index": index} for index in range(10_000)])
    for start in range(plan.first_key, plan.end_key, 1_000):
        keys = range(start, start + 1_000)
        one.start(*keys)
        told = [
            Attempt(key, 1, "completed", NOW + key, NOW + key + 1, result=to_json({"success": True, "n": key}))
            for key in reversed(keys)  # they end in any order
        ]
        store.commit(one.lease, [Move("complete", keys)], told)
    tasks, attempts = frames.tasks(store, ONE, flat=True), frames.attempts(store, ONE)
    store.close()

    index = np.arange(10_000)
    assert (tasks.task_index == index).all()
    assert (tasks["parameters.index"] == index).all()
    assert (tasks["result.n"] == index + plan.first_key).all()
    assert (attempts.task_index == index).all()
    assert (tasks.started_at == attempts.started_at).all()
    assert tasks.task_id.tolist() == attempts.task_id.tolist() == [f"s1-{number}" for number in index]


# Logs


def test_S40_a_job_s_log_lines_are_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "work.log"
    logs.configure(path, "DEBUG")
    try:
        with logs.bind(job_id=ONE, stage=2, task_id="s2-0", attempt=1):
            logs.ROOT.warning("mine", extra={"tile": "t1", "duration_ms": 12})
        logs.ROOT.info("of another job", extra={"job_id": TWO})
    finally:
        logs.configure(None)
    frame = frames.logs(path, Wanted(ONE))

    assert frame.message.tolist() == ["mine"]
    line: Any = frame.iloc[0]
    assert (line.level, line.stage, line.task_id, line.attempt, line.duration_ms) == ("WARNING", 2, "s2-0", 1, 12.0)
    assert (line.tile, frame["time"].dt.tz is not None) == ("t1", True)
    assert len(frames.logs(path)) == 2
    assert len(frames.logs(None)) == len(frames.logs(tmp_path / "none.log")) == 0


def test_a_column_of_the_log_in_which_something_is_not_of_its_dtype_keeps_it_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "work.log"
    odd = {"time": "yesterday", "stage": "warp", "retryable": "no", "duration_ms": 12, "tile": 2**63 - 1}
    path.write_text(json.dumps(odd) + "\n" + json.dumps({"message": "n", "stage": 1, "tile": None}) + "\n")
    frame: Any = frames.logs(path)

    assert frame.stage.tolist() == ["warp", 1]
    assert frame.retryable[0] == "no"
    assert frame.time.isna().all()
    assert str(frame.duration_ms.dtype) == "Float64"
    assert frame.tile.tolist() == [2**63 - 1, pd.NA]


def test_a_duckdb_store_gives_the_frames_that_sqlite_gives(tmp_path: Path) -> None:
    found = []
    for name in ("work.db", "work.duckdb"):
        with gf.open(tmp_path / name, workers=0, display="none", max_retries=1, base_delay=0) as session:
            job = session.run("hello_world", n=150, failure_rate=0.1)
            frames = [job.tasks(), job.attempts(), job.errors(), job.stages(), session.jobs(), job.tasks(flat=True)]
            # In the order of time, which is another one in each run: a retry may come before or behind the next chunk.
            frames[1:3] = [frame.sort_values(["task_id", "attempt"], ignore_index=True) for frame in frames[1:3]]
            found.append([frame.select_dtypes(exclude=["datetimetz", "timedelta"]) for frame in frames])
    for ours, theirs in zip(*found, strict=True):
        same = [column for column in ours if column not in ("peak_memory", "pid", "traceback", "parameters", "result")]
        pd.testing.assert_frame_equal(ours[same], theirs[same])
        if "parameters" in ours:
            assert ours["parameters"].to_list() == theirs["parameters"].to_list()


def text_columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.StringDtype)]


def test_frames_are_used_alike_whether_pyarrow_is_installed_or_not() -> None:
    with gf.open(":memory:", workers=0, display="none") as session:
        job = session.run("hello_world", n=2)
        seen = [session.jobs(), job.tasks(), job.tasks(flat=True), job.attempts(), job.stages(), job.logs()]
    assert {getattr(frame[name].dtype, "storage", "") for frame in seen for name in text_columns(frame)} == {"python"}
    for frame in (*seen, seen[1].copy(), seen[1].convert_dtypes(), seen[1].reset_index(drop=True)):
        for name in text_columns(frame):
            column = frame[name]
            known = column.dropna().unique().tolist()
            assert column.isin(known).equals(column.notna())
            assert column.str.startswith("").fillna(False).astype(bool).equals(column.notna())
            assert frame.query(f"`{name}` in @known").shape[0] == column.notna().sum()
            assert len(frame[[name]].drop_duplicates().merge(frame[[name]], on=name)) == len(frame)
            assert column.value_counts().sum() == column.notna().sum()
