"""The history of jobs: each change is an event, in the transaction that makes it."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import geoflow as gf
from geoflow.core.rows import SeenJob
from geoflow.errors import IllegalTransition
from geoflow.stores.sqlite import SqliteStore
from geoflow.stores.store import Store
from tests.helpers.sessions import OpenSession, check_intact
from tests.helpers.stored import NOW, OWNER, STORES, created, new_job, new_tasks, planned, select, started
from tests.helpers.waiting import wait_until

HALF = [{"value": 1}, {"do": "raise", "value": "ValueError"}]
DRIVEN = ["submitted", "started", "planned", "finalized"]


def names(job: gf.JobHandle) -> list[str]:
    return job.history()["event"].tolist()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = STORES[request.param](tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("name", [":memory:", "work.db", "work.duckdb"])
def test_S63_each_change_of_a_job_is_an_event_in_the_order_of_the_changes(
    open_session: OpenSession, tmp_path: Path, name: str
) -> None:
    session = open_session(name if name == ":memory:" else tmp_path / name, workers=0)
    job = session.run("acts", tasks=[{"value": n} for n in range(20)])
    assert names(job) == DRIVEN, "and none for a task"
    session.submit("acts", tasks=[{"value": n} for n in range(20)])
    job.rerun(stage=1).wait()
    job.update().wait()
    job.refinalize()
    again = ["started", "planned", "finalized"]
    rest = ["found again", "claimed", "rerun", *again, "claimed", "updated", *again, "claimed", "finalized again"]
    history = job.history()
    assert history["event"].tolist() == DRIVEN + rest
    assert history["tasks"].tolist()[:4] == [0, 0, 20, 0]
    assert history["happened_at"].is_monotonic_increasing
    assert history["was"].tolist()[1:] == history["status"].tolist()[:-1], "each begins where the one before had ended"
    assert set(history["pid"]) == {os.getpid()}
    assert set(history["session"]) == {session.store.session} != {""}
    found = session.sql("SELECT event, tasks, happened_at FROM events ORDER BY event_key")
    assert found[["event", "tasks"]].to_numpy().tolist() == history[["event", "tasks"]].to_numpy().tolist()
    assert (found["happened_at"] - history["happened_at"]).abs().max() <= pd.Timedelta(1, "us")


def test_S63_a_job_that_failed_tells_why_and_what_was_retried(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    job = session.run("acts", tasks=HALF)
    job.retry_failed().wait()
    first = ["submitted", "started", "planned", "failed", "ended"]
    assert names(job) == [*first, "claimed", "retried", "started", "failed", "ended"]
    history = job.history()
    assert history.loc[history["event"] == "failed", "why"].str.contains("ValueError").tolist() == [True, True]
    assert history.loc[history["event"] == "retried", "tasks"].tolist() == [1]


def test_S63_a_job_that_goes_on_without_tasks_says_without_how_many(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0, on_failure="continue")
    job = session.run("acts", tasks=HALF)
    assert names(job) == ["submitted", "started", "planned", "went on", "finalized"]
    assert job.history()["tasks"].tolist() == [0, 0, 2, 1, 0]
    job.retry_failed().wait()
    assert "retried" in names(job)


def test_S63_a_fallback_is_the_reason_of_a_finalized_job(open_session: OpenSession) -> None:
    job = open_session(":memory:", workers=0).run("acts", tasks=[{}], finalize="none")
    assert str(job.history()["why"].iloc[-1]).startswith("with the fallback: ")


def test_S63_who_asked_for_a_cancel_is_told_apart_from_who_drove(open_session: OpenSession, tmp_path: Path) -> None:
    driving, looking = (open_session(tmp_path / "work.db", workers=1) for _ in range(2))
    job = driving.submit("acts", tasks=[{"do": "make", "value": str(tmp_path / "runs")}, {"do": "hang"}, {}, {}])
    wait_until((tmp_path / "runs").exists)
    looking.job(job.id).cancel()
    job.wait()
    assert names(job)[-2:] == ["cancel asked", "cancelled"]
    assert job.history()["session"].tolist()[-2:] == [looking.store.session, driving.store.session]
    assert "cancelled by you just now (" in str(looking.job(job.id))
    assert f"cancelled by another session (process {os.getpid()}) just now" in str(job)
    left = int(job.history()["tasks"].iloc[-1])
    assert left
    assert f", {left} task" in job._repr_html_()


def test_S63_a_job_that_was_interrupted_says_by_whom_until_it_goes_on(
    open_session: OpenSession, tmp_path: Path
) -> None:
    path, gate = tmp_path / "work.db", tmp_path / "open"
    session = open_session(path, workers=1)
    job = session.submit(
        "acts", tasks=[{"do": "make", "value": str(tmp_path / "runs")}, {"do": "wait for", "value": str(gate)}]
    )
    wait_until((tmp_path / "runs").exists)
    session.close()
    looking = open_session(path, workers=0)
    assert "interrupted by another session (process " in str(looking.job(job.id))
    gate.touch()
    looking.job(job.id).resume().wait()
    assert names(job)[-5:] == ["planned", "interrupted", "claimed", "started", "finalized"]
    assert " ago (" not in str(job)
    assert "just now" not in str(job)


def test_S63_a_change_that_is_refused_is_no_event(store: Store) -> None:
    lease = started(store)
    with store._transaction() as connection:
        connection.execute("DROP TABLE events")
    if hasattr(store, "_file") and store._file is not None:
        store._file.tables = None
    with pytest.raises(IllegalTransition):
        store.change_job(lease, "resume", now=NOW)
    with pytest.raises(IllegalTransition):
        store.end_job(lease, error=None, now=NOW)
    with contextlib.suppress(RuntimeError), store._transaction(lease) as connection:
        store.note(connection, lease.job_id, "planned")
        assert store.has("events")
        raise RuntimeError("the rest of the transaction fails")
    assert not store.has("events")
    store.plan(lease, 1, new_tasks("a"), now=NOW)
    assert [event.event for event in store.events(lease.job_id)] == ["planned"]


def test_S63_events_of_jobs_are_kept_apart_and_the_last_can_be_asked_for(store: Store) -> None:
    one, _ = planned(store)
    other = started(store)
    assert [event.event for event in store.events(one.job_id)] == ["submitted", "claimed", "started", "planned"]
    assert [event.event for event in store.events(other.job_id, 2)] == ["claimed", "started"]
    assert store.events("0" * 64) == []


def test_S63_a_claim_of_what_a_dead_process_left_says_so(store: Store) -> None:
    lease = started(store)
    store.release(lease)
    store.claim(lease.job_key, OWNER)
    assert store.events(lease.job_id)[-1].why == "what drove it had ended without a word"


def test_S63_a_store_of_0_1_opens_and_gains_its_history_with_its_first_change(
    open_session: OpenSession, tmp_path: Path
) -> None:
    path = tmp_path / "work.db"
    before = open_session(path, workers=0)
    old = before.run("acts", tasks=[{}])
    before.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE events")  # the one table that a new store has and one of 0.1 has not
    session = open_session(path, workers=0)
    assert session.job(old.id).history().empty
    assert session.sql("SELECT count(*) AS n FROM events")["n"].tolist() == [0]
    assert str(session.job(old.id)).splitlines()[0].startswith("✓")
    job = session.run("acts", tasks=[{}, {}])
    assert names(job) == DRIVEN
    assert session.job(old.id).history().empty
    ((version,),) = select(session.store, "PRAGMA user_version")
    assert version == 1, "what 0.1 reads is as it was: it still opens the store"


def _is_killed_at(path: Path, number: int, job_id: str) -> bool:
    """Whether a process that submits a job to the store there got as far as to be killed at its statement *number*."""
    child = os.fork()
    if child == 0:
        store = SqliteStore(path)
        seen = 0

        def count(statement: str) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            store._writer().set_trace_callback(count)
            store.create(new_job(job_id))
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_S63_a_process_killed_at_any_step_of_the_first_event_leaves_the_old_store_or_the_new(tmp_path: Path) -> None:
    for number in range(1, 40):
        path = tmp_path / f"{number}.db"
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        store = SqliteStore(path)
        old = created(store)
        with store._transaction() as connection:
            connection.execute("DROP TABLE events")
        store.close()
        job_id = f"{number:064x}"
        was_killed = _is_killed_at(path, number, job_id)
        store = SqliteStore(path)
        check_intact(store)
        is_there = store.job(job_id) is not None
        assert [event.event for event in store.events(job_id)] == ["submitted"] * is_there
        assert store.has("events") == is_there
        assert store.job(old.job_id) == old
        assert is_there or was_killed
        store.create(new_job(job_id))
        assert store.events(job_id)[0].event == "submitted"
        store.close()
        if not was_killed:
            assert number > 4, "it was killed at several steps before it had done all of them"
            return
    raise AssertionError("the first event takes fewer statements")


def test_S63_a_store_that_has_no_room_for_an_event_finds_the_job_all_the_same(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "work.db")
    job = new_job()
    row, _ = store.create(job)
    ((pages,),) = store._rows("PRAGMA page_count")
    store._rows(f"PRAGMA max_page_count = {pages}")
    for _ in range(200):
        assert store.create(job) == (row, False)
    assert 1 < len(store.events(job.job_id)) < 200
    store.close()


def test_S63_of_a_pruned_job_one_event_is_left_and_it_is_followed_by_what_the_same_job_does_next(store: Store) -> None:
    first, other = (store.create(new_job())[0] for _ in range(2))
    assert list(store.remove([SeenJob(first.job_id, "queued", None, 0)])) == [[first.job_id]]
    (left,) = store.events(first.job_id)
    assert (left.event, left.was, left.status) == ("pruned", "queued", None)
    assert [event.event for event in store.events(other.job_id)] == ["submitted"]
    store.create(new_job(first.job_id))
    assert [event.event for event in store.events(first.job_id)] == ["pruned", "submitted"]


def test_S43_an_event_that_is_not_sound_is_shown_as_such_and_hides_no_other(store: Store) -> None:
    lease = started(store)
    if isinstance(store, SqliteStore):  # the other has types that hold
        with store._transaction() as connection:
            values = "(90, ?, 'soon', x'00', 3, 4, 'first', -1, 5, x'01', 'many', 6)"
            connection.execute(f"INSERT INTO events VALUES {values}", (lease.job_id,))
        odd = store.events(lease.job_id)[-1]
        assert (odd.happened_at, odd.event, odd.stage, odd.tasks, odd.pid) == (0.0, "?", 0, 0, 0)
    assert [event.event for event in store.events(lease.job_id)][:3] == ["submitted", "claimed", "started"]
