"""The DuckDB file itself: who may open it, what is refused, and what a killed process leaves."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from geoflow.core.rows import Move
from geoflow.errors import LeaseLost, SchemaTooNew, StoreBusy, StoreError
from geoflow.stores.duckdb import DuckDbStore
from tests.helpers.sessions import ROOT
from tests.helpers.stored import NOW, OWNER, complete, created, ended, new_tasks, planned, started

HOLDER = """
import sys
from geoflow.stores.duckdb import DuckDbStore
store = DuckDbStore(sys.argv[1])
store.open()
print("open", flush=True)
sys.stdin.read()
"""
DRIVER = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.helpers.stored import *
from geoflow.stores.duckdb import DuckDbStore
store = DuckDbStore(sys.argv[1])
lease, stage = planned(store, tasks=2000)
for first in range(stage.first_key, stage.end_key, 10):
    complete(store, lease, range(first, first + 10))
    print(first + 10 - stage.first_key, flush=True)
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_S9_another_process_is_told_who_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "work.duckdb"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreBusy, match=rf"held by process {holder.pid}: .* SQLite store"):
            DuckDbStore(path).open()
        holder.kill()
    store = DuckDbStore(path)
    store.open()  # the lock went with its holder
    store.close()


def test_S9_two_stores_of_one_file_in_one_process_share_it(tmp_path: Path) -> None:
    first, second = DuckDbStore(tmp_path / "work.duckdb"), DuckDbStore(tmp_path / "work.duckdb")
    lease = first.claim(created(first).job_key, OWNER)
    with pytest.raises(StoreBusy, match="is driven by process 4242"):
        second.claim(lease.job_key, OWNER)
    first.release(lease)
    assert second.claim(lease.job_key, OWNER).epoch == 2
    with pytest.raises(LeaseLost):
        first.commit(lease, [], [])
    first.close()
    assert len(second.jobs()) == 1  # it is closed with its last user
    second.close()


def test_S36_what_a_killed_process_committed_is_there_and_what_it_did_not_is_not(tmp_path: Path) -> None:
    path = tmp_path / "work.duckdb"
    with subprocess.Popen([sys.executable, "-c", DRIVER, str(path), ROOT], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        reported = [int(driver.stdout.readline()) for _ in range(20)][-1]
        driver.send_signal(signal.SIGKILL)
        reported = max([reported, *map(int, driver.stdout.read().split())])
    store = DuckDbStore(path)
    (job,) = store.jobs()
    assert store.driver(job.job_key) is None
    (stage,) = store.stages(job.job_key)
    counts = store.counts(stage)
    assert counts["completed"] in (reported, reported + 10)  # the last one may not have been told of
    assert sum(counts.values()) == 2000
    assert sum(some.tasks for some in store.results(stage)) == counts["completed"]
    lease = store.claim(job.job_key, OWNER)
    left = [key for key, _, _ in store.in_state(stage, "processing")]
    store.commit(lease, [Move("lose", left)], [ended(key, outcome="lost") for key in left])
    store.close()


def test_changes_of_a_job_with_tasks_are_taken_after_the_file_was_opened_again(tmp_path: Path) -> None:
    store = DuckDbStore(tmp_path / "work.duckdb")
    lease, stage = planned(store)
    complete(store, lease, range(stage.first_key, stage.end_key))
    store.close()
    lease = store.claim(lease.job_key, OWNER)
    store.plan(lease, 2, new_tasks("x"), now=NOW)
    store.change_job(lease, "complete", now=NOW, result="{}")
    store.change_job(lease, "rerun", now=NOW)
    store.close()
    assert store.stages(lease.job_key) == []
    store.close()


def test_S43_the_file_and_its_log_are_their_owners_alone_also_after_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "work.duckdb"
    store = DuckDbStore(path)
    before = os.umask(0o000)
    try:
        created(store)
        log = path.with_name("work.duckdb.wal")
        assert (mode(path), mode(log)) == (0o600, 0o600)
        with store.reading() as connection:
            connection.execute("CHECKPOINT")
        assert not log.exists()
        created(store)
        assert mode(log) == 0o600
    finally:
        os.umask(before)
        store.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a DuckDB file"),
        (b"hello, world " * 1000, "not a DuckDB file"),
        ("sqlite", "not a DuckDB file"),
        ("foreign", "database of another program"),
    ],
)
def test_S45_what_is_no_store_is_refused_and_not_touched(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = tmp_path / "work.duckdb"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "sqlite":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE mine (x)")
        connection.close()
    else:
        with duckdb.connect(str(path)) as other:
            other.execute("CREATE TABLE mine (x INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=message):
        DuckDbStore(path).open()
    assert path.read_bytes() == before


def test_a_folder_and_a_file_in_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        DuckDbStore(tmp_path).open()
    with pytest.raises(StoreError, match="does not exist"):
        DuckDbStore(tmp_path / "no" / "work.duckdb").open()
    with pytest.raises(StoreError, match="is a file"):
        DuckDbStore(":memory:")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store = DuckDbStore(tmp_path / "work.duckdb")
    created(store)
    store.close()
    with duckdb.connect(store.name) as connection:
        connection.execute("UPDATE geoflow SET schema = 99")
    with pytest.raises(SchemaTooNew, match="schema 99"):
        store.open()


def test_a_file_that_is_open_by_other_means_in_this_process_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "work.duckdb"
    with duckdb.connect(str(path)), pytest.raises(StoreBusy, match="by other means than geoflow"):
        DuckDbStore(path).open()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_may_not_use_its_parents_connection(tmp_path: Path) -> None:
    store = DuckDbStore(tmp_path / "work.duckdb")
    created(store)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.jobs()
        except StoreError as exc:
            os.write(writer, str(exc).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        assert re.search(r"opened by process \d+, of which this one is a fork", told.read())
    os.waitpid(child, 0)
    store.close()


# What the schema refuses, also from hands other than ours. It has no foreign keys, and its JSON takes NaN.


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE job SET status = 'running'",
        "UPDATE job SET status = NULL",
        "UPDATE job SET job_id = 'short'",
        "UPDATE job SET parameters = '{bad'",
        "UPDATE job SET result = 'not json'",
        "UPDATE job SET epoch = -1",
        "UPDATE job SET created_at = 'yesterday'",
        "INSERT INTO job (job_key, job_id, job_type, status, stages, parameters, created_at)"
        " SELECT 99, job_id, job_type, status, stages, parameters, created_at FROM job",
        "UPDATE task SET status = 'pending'",
        "UPDATE task SET status = 'Completed'",
        "UPDATE task SET attempt = 'two'",
        "UPDATE attempt SET outcome = 'running'",
        "UPDATE attempt SET ended_at = 'later'",
        "INSERT INTO attempt (attempt_key, outcome) SELECT attempt_key, outcome FROM attempt",
    ],
)
def test_S19_the_schema_refuses_rows_that_break_the_promises(tmp_path: Path, statement: str) -> None:
    store = DuckDbStore(tmp_path / "work.duckdb")
    lease = started(store)
    stage = store.plan(lease, 1, new_tasks("a", "b"), now=NOW)
    complete(store, lease, [stage.first_key])
    with pytest.raises(StoreError, match=r"Constraint|Conversion"), store.reading() as connection:
        connection.execute(statement)
    store.close()
