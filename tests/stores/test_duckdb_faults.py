"""What is done to a DuckDB file: full disks, damage, forks, and hands other than ours."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from geoflow.errors import StoreBusy, StoreError
from geoflow.stores.convert import convert
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.duckdb_file import _explained
from tests.helpers.sessions import ROOT
from tests.helpers.stored import OWNER, complete, created, planned

HEADERS = 3 * 4096  # without which it would not be taken for a DuckDB file
OPENER = """
import sys
from geoflow.errors import StoreBusy
from geoflow.stores.duckdb import DuckDbStore
try:
    DuckDbStore(sys.argv[1]).open()
except StoreBusy as exc:
    print(exc)
"""
# The fork ends as programs do: all that it has is let go of.
FORKING = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from tests.helpers.stored import *
store = DuckDbStore(sys.argv[1])
created(store)
child = os.fork()
if child == 0:
    {then}
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
created(store)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work.duckdb"


def test_S36_a_disk_that_takes_no_more_loses_nothing_that_was_committed(path: Path) -> None:
    store = DuckDbStore(path)
    lease, stage = planned(store, tasks=1000)
    log = path.with_name("work.duckdb.wal")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    keys = range(stage.first_key, stage.end_key)
    committed = 0

    def complete_all() -> None:
        nonlocal committed
        for first in keys[::10]:
            complete(store, lease, range(first, first + 10))
            committed += 10

    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 50_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"work\.duckdb: .* Could not write file"):
            complete_all()
        counts = store.counts(stage)
        assert 0 < counts["completed"] == committed < 1000, "it can be looked at"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    created(store)  # there is space again
    store.close()
    assert store.counts(stage) == counts
    assert len(store.jobs()) == 2
    store.close()


def test_S36_a_full_disk_is_named() -> None:
    said = 'TransactionContext Error: Failed to commit: Could not write file "/a.wal": No space left on device'
    told = str(_explained(duckdb.IOException(said), "work.duckdb"))
    assert told == "The disk of work.duckdb is full. What was committed is safe; free some space, then resume."


def test_S43_a_damaged_store_says_so(path: Path) -> None:
    store = DuckDbStore(path)
    created(store)
    store.close()
    content = path.read_bytes()
    path.write_bytes(content[:HEADERS] + bytes(len(content) - HEADERS))
    with pytest.raises(StoreError, match=r"work\.duckdb is damaged .* Keep a copy"):
        store.open()


@pytest.mark.parametrize("what", [Path.unlink, lambda path: path.rename(path.with_name("moved.duckdb"))])
def test_S36_a_file_that_was_taken_away_is_not_written_to_any_more(path: Path, what: Callable[[Path], object]) -> None:
    store, other = DuckDbStore(path), DuckDbStore(path)
    created(store)
    what(path)
    for one in (store, other):
        with pytest.raises(StoreError, match=r"work\.duckdb was deleted, moved or replaced"):
            created(one)
    store.close()
    other.close()
    assert created(store).job_key == 1, "closed, it begins with the file that is there"
    store.close()


def test_S45_a_name_that_duckdb_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "what?").mkdir()
    for path in (tmp_path / "what?" / "work.duckdb", tmp_path / "what?.duckdb"):
        with pytest.raises(StoreError, match=r"has a '\?' in it"):
            DuckDbStore(path).open()
    assert list((tmp_path / "what?").iterdir()) == []


@pytest.mark.parametrize("name", ["it's;\n--", 'a "b" ü%20#', ":memory:", "md:x"])
def test_S45_a_store_may_have_any_other_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    store = DuckDbStore(f"{name}.duckdb")
    created(store)
    store.close()
    assert (tmp_path / f"{name}.duckdb").is_file()
    assert len(store.jobs()) == 1
    store.close()


def test_S36_no_look_at_the_file_in_this_process_gives_its_lock_away(path: Path, tmp_path: Path) -> None:
    store = DuckDbStore(path)
    created(store)
    second = DuckDbStore(path)
    second.open()
    second.close()
    convert(path, tmp_path / "copy.db")
    with pytest.raises(StoreError), store.reading() as connection:
        connection.execute(f"ATTACH '{path}' AS again")
    told = subprocess.run([sys.executable, "-c", OPENER, path], capture_output=True, text=True, check=True)
    assert f"held by process {os.getpid()}" in told.stdout
    store.close()


def test_S9_a_holder_that_is_gone_when_duckdb_looks_for_it_is_another_process() -> None:
    said = 'IO Error: Could not set lock on file "/PID 7/WAL.duckdb": Conflicting lock is held in PID 0. See also https://x'
    told = _explained(duckdb.IOException(said), "work.duckdb")
    assert isinstance(told, StoreBusy)
    assert str(told).startswith("work.duckdb is held by another process: DuckDB lends a file")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("then", ["pass", "store.__dict__.clear()", "store.close()"])
def test_S36_a_fork_that_ends_takes_nothing_of_its_parents_file(path: Path, then: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING.format(then=then), path, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "0\n", done.stderr
    store = DuckDbStore(path)
    assert [job.job_key for job in store.jobs()] == [1, 2], "also what was committed after the fork's end"
    assert store.claim(2, OWNER).epoch == 1
    store.close()
