"""Jobs are removed whole, with what they saved, and take nothing of any other job's with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import geoflow as gf
from geoflow.core.rows import Keyed, SeenJob, TakenOver
from geoflow.errors import ParameterError, ResultRemoved, StoreBusy, StoreError
from geoflow.stores.made_later import TABLES
from geoflow.stores.store import Store
from geoflow.support.moments import moment
from geoflow.views.rows import stages
from tests.helpers.saving import array, files, submit
from tests.helpers.sessions import OpenSession, check_intact
from tests.helpers.stored import (
    NOW,
    OWNER,
    STORES,
    complete,
    everything,
    new_tasks,
    planned,
    select,
    started,
)


@pytest.fixture(params=["sqlite in a file", "duckdb in a file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = STORES[request.param](tmp_path)
    yield opened
    opened.close()


def a_job(store: Store, tasks: int = 3) -> SeenJob:
    """A job that has completed, which nobody drives."""
    lease, stage = planned(store, tasks)
    complete(store, lease, range(stage.first_key, stage.end_key))
    store.change_job(lease, "complete", now=NOW + 5, result="{}")
    store.release(lease)
    return SeenJob(lease.job_id, "completed", NOW + 5, tasks)


def task_of(job: gf.JobHandle, stage: str) -> Any:
    """The first task of the stage."""
    tasks = job.tasks()
    return tasks[tasks["stage_name"] == stage].iloc[0]


def remove(store: Store, *jobs: SeenJob) -> list[str]:
    return [job_id for some in store.remove(jobs) for job_id in some]


def test_S62_a_job_that_is_removed_leaves_no_row_and_all_others_as_they_were(store: Store) -> None:
    first = a_job(store)
    before = everything(store)
    second = a_job(store)
    assert remove(store, second, second._replace(job_id="f" * 64)) == [second.job_id]
    assert everything(store) == before
    for table in ("stage", "task", "attempt"):
        assert len(select(store, f"SELECT * FROM {table}")) == (1 if table == "stage" else 3)
    check_intact(store)
    assert remove(store, first) == [first.job_id]
    assert everything(store) == [[], [], [], []]


def test_S62_no_later_row_gets_a_key_that_a_removed_one_had(store: Store) -> None:
    def highest() -> list[int]:
        return [select(store, f"SELECT max({name}_key) FROM {name}")[0][0] for name in ("job", "stage", "task")]

    a_job(store)
    second = a_job(store)
    had = highest()
    remove(store, second)
    lease, stage = planned(store, 0)
    assert (stage.first_key, stage.task_count) == (had[2] + 1, 0)
    assert [row["tasks"] for row in stages(store, lease.job_id)] == [0, 0]
    lease, stage = planned(store, 2)
    assert [stage.first_key, *highest()] == [had[2] + 1, had[0] + 2, had[1] + 2, had[2] + 2]
    assert len(select(store, "SELECT * FROM task")) == 3 + 2
    remove(store, SeenJob(lease.job_id, "processing", None, 2))
    store.release(lease)
    assert remove(store, SeenJob(lease.job_id, "processing", None, 2)) == [lease.job_id]
    store.close()  # and not by what this object remembers
    assert planned(store, 1)[1].first_key == had[2] + 3


def test_S62_a_job_that_is_driven_or_has_changed_since_it_was_seen_is_not_removed(store: Store) -> None:
    driven = a_job(store)
    row = store.job(driven.job_id)
    assert row is not None
    lease = store.claim(row.job_key, OWNER)
    assert remove(store, driven) == []
    with pytest.raises(StoreBusy, match=f"Job {driven.job_id[:8]} is driven by process"):
        store.clear()
    store.release(lease)
    assert remove(store, driven._replace(ended_at=NOW + 4), driven._replace(status="failed")) == []
    store.clear()
    assert everything(store) == [[], [], [], []]


def test_S62_a_plan_that_would_take_over_what_was_removed_meanwhile_is_refused_and_not_written(store: Store) -> None:
    maker = a_job(store)
    ((attempt_key,),) = select(store, "SELECT min(attempt_key) FROM attempt")
    lease = started(store)
    remove(store, maker)
    taken = TakenOver({0: attempt_key}, [Keyed(1, "digest", "{}")])
    with pytest.raises(ResultRemoved):
        store.plan(lease, 1, new_tasks("a", "b"), now=NOW, taken=taken)
    assert select(store, "SELECT * FROM task") == [] == store.stages(lease.job_key)
    assert not store.has("reusable")


def test_S62_each_table_that_is_made_later_is_kept_in_order_by_its_key() -> None:
    """A job's rows are found in each by the name of its first column; events by its id; code and notes are no job's."""
    assert {columns[0] for name, columns in TABLES.items() if name not in ("removed", "events", "sources", "note")} <= {
        "job_key",
        "task_key",
        "attempt_key",
    }


def saving() -> gf.JobType:
    """Squares that are saved as bytes, which equal items of other jobs take over, with their files."""
    flow = gf.JobType("saving", reuse=True)

    @flow.stage
    def numbers(params: dict[str, int]) -> list[int]:
        return list(range(params["from"], params["to"]))

    @flow.each(numbers)
    def square(number: int) -> dict[str, Any]:
        return {"saved": gf.save(f"{number * number}".encode())}

    @flow.reduce(square)
    def all_of(squares: list[dict[str, Any]]) -> dict[str, Any]:
        return {"all": [int(gf.load(one["saved"])) for one in squares]}

    return flow


def test_S62_a_result_that_was_taken_over_stays_with_its_files_when_its_maker_is_removed(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session, flow = open_session(workers=0), saving()

    def of(begins: int, ends: int) -> gf.JobHandle:
        return session.submit(flow, {"from": begins, "to": ends}).wait()

    first, second = of(0, 3), of(1, 4)
    assert [one["reused_from"] for one in squares(second)] == [first.id, first.id, None]
    pruned = session.prune(job_type="saving", state="completed", keep=1, confirm=True)
    assert [job.job_id for job in pruned.jobs] == [first.id]
    assert "stay: other jobs have them by now" in str(pruned)
    assert pruned.files == 1
    assert [gf.load(one["result"]["result"]["saved"]) for one in squares(second)] == [b"1", b"4", b"9"]
    assert [one["reused_from"] for one in squares(second)] == [None] * 3
    assert {job: len(kept) for job, kept in files(tmp_path / "work.db").items()} == {first.id: 2, second.id: 1}
    third = of(1, 5)  # takes over what was taken over
    assert [one["reused_from"] for one in squares(third)] == [second.id] * 3 + [None]
    assert third.result()["all"] == [1, 4, 9, 16]
    session.prune(job_type="saving", before="0s", confirm=True)
    assert files(tmp_path / "work.db") == {}


def squares(job: gf.JobHandle) -> list[dict[str, Any]]:
    tasks = job.tasks()
    return [
        {"result": row["result"], "reused_from": None if pd.isna(row["reused_from"]) else row["reused_from"]}
        for row in tasks[tasks["stage_name"] == "square"].to_dict("records")
    ]


def test_S62_a_file_that_is_a_parameter_of_another_job_stays(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(workers=0)
    first = submit(session, {"seed": 2}).wait()
    reference = task_of(first, "keep")["result"]["result"]["array"]
    session.submit("hello_world", message=reference["path"], n=1).wait()
    session.prune(job_type="saves", before="0s", confirm=True)
    assert list(files(tmp_path / "work.db").values()) == [[os.path.basename(reference["path"])]]
    assert np.array_equal(gf.load(reference), array(2))
    session.reset(confirm=True)
    assert not (tmp_path / "work.db.files").exists()
    assert session.jobs().empty


def test_S62_nothing_is_removed_before_it_is_confirmed_and_what_stays_is_said(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    session.submit("hello_world", message="a", n=2).wait()
    shown = str(session.prune(state="completed"))
    assert shown.startswith("1 job with 4 tasks would be removed: --confirm (confirm=True) does it.\n")
    assert len(session.jobs()) == 1
    assert str(session.prune(state="failed", confirm=True)) == "No job is meant: nothing was removed."
    assert str(session.prune(before="1d", confirm=True)) == "No job is meant: nothing was removed."
    for wrong, why in [
        ({}, "All jobs are meant, which may be a mistake"),
        ({"state": "finished"}, "state cannot be 'finished': a job is queued, "),
        ({"state": "processing"}, "A job that runs is not removed"),
        ({"before": "yesterday"}, "before cannot be 'yesterday': give a date or time such as"),
        ({"keep": -1}, "keep cannot be -1"),
    ]:
        with pytest.raises(ParameterError, match=why):
            session.prune(**wrong, confirm=True)  # type: ignore[arg-type]
    assert len(session.jobs()) == 1
    removed = session.prune(state=["completed", "failed"], confirm=True)
    assert str(removed).startswith("1 job with 4 tasks was removed.")
    assert session.jobs().empty
    assert removed.document()["jobs"][0]["state"] == "completed"


def test_S62_the_file_of_a_sqlite_store_gets_smaller(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(workers=0)
    session.submit("hello_world", message="x" * 100_000, n=20).wait()
    session.submit("hello_world", message="y", n=1).wait()
    before = session.store.room()[0]
    pruned = session.prune(keep=1, confirm=True)
    assert len(pruned.jobs) == 1
    assert pruned.store_bytes == (before, session.store.room()[0])
    assert (tmp_path / "work.db").stat().st_size < before / 10
    check_intact(session.store)


def test_S62_jobs_are_listed_by_state_type_and_time(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    for number in range(3):
        session.submit("hello_world", message=str(number), n=1).wait()
    failed = session.submit("two_acts", tasks=[{"do": "raise", "value": "ValueError"}], tasks_2=[], n=1).wait()

    def ids(**said: Any) -> list[str]:
        return list(session.jobs(**said)["job_id"])

    every = ids()
    assert every[-1] == failed.id
    assert len(every) == 4
    assert ids(state="completed") == every[:3] == ids(job_type="hello_world") == ids(state="completed", since="1h")
    assert ids(state="completed", limit=2) == every[1:3]
    assert ids(limit=2) == every[2:]
    assert ids(state=["failed", "cancelled"]) == [failed.id] == ids(state="failed", limit=1)
    assert ids(since=timedelta(hours=-1)) == [] == ids(state="interrupted")


def test_moments_are_said_as_dates_times_or_how_long_ago() -> None:
    now = datetime(2026, 2, 1, tzinfo=UTC).timestamp()
    for ago in ("31d", "31 d", "744h", timedelta(days=31), datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00Z"):
        assert moment(ago, now, "since") == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    for wrong in ("", "d", "-3d", "soon", "2026-13-01", 3, "9" * 400 + "d"):
        with pytest.raises(ParameterError, match="since cannot be"):
            moment(wrong, now, "since")  # type: ignore[arg-type]


def test_S62_a_task_whose_job_was_removed_meanwhile_says_so(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    job = session.run("hello_world", n=2)
    task = job.task(job.tasks()["task_id"][0])
    session.prune(state="completed", confirm=True)
    with pytest.raises(StoreError, match="or the job was removed meanwhile"):
        _ = task.status
