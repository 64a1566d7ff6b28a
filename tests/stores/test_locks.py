"""What a session holds of its store stays held, whatever is opened, closed, copied or replaced beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.core.rows import NewJob
from geoflow.errors import StoreBusy, StoreError
from geoflow.stores import locks
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.files import file_at
from geoflow.stores.opening import store_at
from geoflow.stores.sqlite import SqliteStore

pytestmark = pytest.mark.skipif(not locks.are_kept(), reason="this system has no locks that belong to an open file")

TIMES = 40
STAGES = '[{"number":1,"name":"scan","task_type":"scan_it"}]'
# Opens the store as `geoflow jobs` does, tries to take what runs, and closes it: as often as it is told to.
ANOTHER = """
import sys
from geoflow.errors import StoreBusy, StoreError
from geoflow.stores.opening import store_at
for line in sys.stdin:
    store, told = store_at(sys.argv[1]), []
    try:
        store.open()
        if any(job.job_id[0] == "f" for job in store.jobs()):
            store.claim(1, "{}")
            told.append("taken")
    except StoreBusy:
        told.append("busy")
    store.close()
    print(" ".join(told) or "nothing", flush=True)
"""
SHELL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM job").fetchall()
connection.close()
"""


@pytest.fixture(params=["work.db", "work.duckdb"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store" / request.param


@pytest.fixture
def another(path: Path) -> Iterator[Callable[[], str]]:
    command = [sys.executable, "-c", ANOTHER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask() -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield ask
        process.kill()


def read_all(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in path.parent.iterdir()]


def hashed(path: Path) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in read_all(path)]


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path.parent.parent / "all.zip", "w") as archive:
        for file in path.parent.iterdir():
            archive.write(file)


def tree(path: Path) -> None:
    shutil.copytree(path.parent, path.parent.parent / "copy", dirs_exist_ok=True)


def note_saved(path: Path) -> None:
    """As an editor saves: a new file, moved over the old one."""
    new = path.with_name("notes.txt~")
    new.write_text("x")
    new.replace(path.with_name("notes.txt"))


def copied_by_another(path: Path) -> None:
    subprocess.run(["cp", "-r", str(path.parent), str(path.parent.parent / "copy")], check=True)


WAYS: dict[str, Callable[[Path], Any]] = {
    "copy": lambda path: shutil.copy(path, path.parent.parent / "backup"),
    "hash": hashed,
    "zip": zipped,
    "copytree": tree,
    "stat": lambda path: [file.stat() for file in path.parent.iterdir()],
    "editor": note_saved,
    "another process": copied_by_another,
}


@pytest.mark.parametrize("way", WAYS)
def test_S37_nothing_is_lost_or_taken_by_two_when_the_store_is_read_in_the_process_that_has_it_open(
    path: Path, another: Callable[[], str], way: str
) -> None:
    store = store_at(path)
    store.open()
    lease = store.claim(store.create(NewJob("f" * 64, "tiles", STAGES, "{}", 1.0))[0].job_key, "{}")
    for number in range(TIMES):
        WAYS[way](path)
        if number % 10 == 0:
            assert "taken" not in (said := another())
            assert "busy" in said
        store.create(NewJob(f"{number:064x}", "tiles", STAGES, "{}", 1.0))
    store.change_job(lease, "start", now=2.0)
    # As if the process were killed now: what another finds in the files is all that there is.
    shutil.copytree(path.parent, kept := path.parent.parent / "killed")
    left = store_at(kept / path.name)
    assert len(left.jobs()) == TIMES + 1
    left.close()
    store.close()


def test_S37_a_run_whose_store_is_copied_all_the_while_completes_and_all_of_it_is_found(
    path: Path, another: Callable[[], str]
) -> None:
    with gf.open(path, workers=0, display="none") as session:
        for number in range(10):
            tree(path)
            another()
            session.run("hello_world", n=5, message=str(number))
    store = store_at(path)
    assert [job.status for job in store.jobs()] == ["completed"] * 10
    store.close()


def test_S37_a_shell_that_closes_the_store_does_not_delete_its_log(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    store = SqliteStore(path)
    store.create(NewJob("a" * 64, "tiles", STAGES, "{}", 1.0))
    shutil.copytree(tmp_path, tmp_path / "copy")
    log = path.with_name("work.db-wal").stat().st_ino
    subprocess.run([sys.executable, "-c", SHELL, str(path)], check=True)
    assert path.with_name("work.db-wal").stat().st_ino == log
    store.close()
    assert not path.with_name("work.db-wal").exists(), "the last one to close it does"


def test_S37_a_log_that_was_deleted_is_missed_and_what_the_session_stored_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    store = SqliteStore(path)
    store.create(NewJob("a" * 64, "tiles", STAGES, "{}", 1.0))
    path.with_name("work.db-wal").unlink()
    path.with_name("work.db-shm").unlink()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"log of .*work\.db .* was deleted .* is kept in .*rescued"):
            store.create(NewJob("b" * 64, "tiles", STAGES, "{}", 1.0))
    store.close()
    (rescued,) = tmp_path.glob("work.db.rescued-*")
    assert [job.job_id[0] for job in SqliteStore(rescued).jobs()] == ["a"]
    assert not list(tmp_path.glob("work.db-*")), "nothing was written into the file that is there now"


def test_S37_a_log_that_goes_within_a_transaction_is_no_success(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    store = SqliteStore(path)
    store.open()
    with pytest.raises(StoreError, match=r"log of .* was deleted"), store._transaction():
        path.with_name("work.db-wal").unlink()
    store.close()


def test_S36_the_log_of_a_store_that_was_replaced_is_set_aside_and_what_was_stored_is_kept(path: Path) -> None:
    other = store_at(path.with_name(f"other{path.suffix}"))
    for letter in "bc":
        other.create(NewJob(letter * 64, "tiles", STAGES, "{}", 1.0))
    other.close()
    store = store_at(path)
    store.create(NewJob("a" * 64, "tiles", STAGES, "{}", 1.0))
    path.with_name(f"other{path.suffix}").replace(path)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"replaced .* The log .* is now .*aside"):
            store.jobs()
    store.close()
    new = store_at(path)
    assert [job.job_id[0] for job in new.jobs()] == ["b", "c"]
    new.close()
    (rescued,) = path.parent.glob(f"{path.name}.rescued-*")
    assert rescued.stat().st_mode & 0o077 == 0
    kept = store_at(rescued)
    assert [job.job_id[0] for job in kept.jobs()] == ["a"]
    kept.close()


def test_S36_a_replaced_store_that_is_only_closed_does_not_have_its_log_replayed(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    other = SqliteStore(tmp_path / "other.db")
    other.create(NewJob("b" * 64, "tiles", STAGES, "{}", 1.0))
    other.close()
    store = SqliteStore(path)
    store.create(NewJob("a" * 64, "tiles", STAGES, "{}", 1.0))
    (tmp_path / "other.db").replace(path)
    store.close()
    assert [job.job_id[0] for job in SqliteStore(path).jobs()] == ["b"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_S37_a_fork_that_outlives_its_parent_keeps_no_lock_of_it(path: Path) -> None:
    code = """
import os, sys, time
from geoflow.core.rows import NewJob
from geoflow.stores.opening import store_at
store = store_at(sys.argv[1])
row, _ = store.create(NewJob("a" * 64, "tiles", sys.argv[2], "{}", 1.0))
store.claim(row.job_key, "{}")
read, write = os.pipe()
if not (child := os.fork()):
    os.write(write, b"x")
    os.close(1), os.close(2)
    time.sleep(60)
    os._exit(0)
os.read(read, 1)
print(child, flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path), STAGES], capture_output=True, text=True, check=True)
    try:
        store = store_at(path)
        assert store.claim(1, "{}").epoch == 2
        store.close()
    finally:
        os.kill(int(done.stdout), 9)


def test_S36_a_disk_without_locks_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.fcntl", refuse)
    with pytest.raises(StoreError, match=r"has no locks \(No locks available\).*keep the store on a disk"):
        store_at(path).open()


def test_S36_two_stores_of_one_process_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoflow.stores.sqlite.BUSY_SECONDS", 0.05)
    one, two = SqliteStore(tmp_path / "work.db"), SqliteStore(tmp_path / "work.db")
    one.open()
    two.open()
    with one._transaction(), pytest.raises(StoreBusy, match="Nothing was written"):
        two.create(NewJob("a" * 64, "tiles", STAGES, "{}", 1.0))
    assert two.create(NewJob("a" * 64, "tiles", STAGES, "{}", 1.0))[1]
    one.close()
    two.close()


def test_S36_descriptors_of_stores_that_are_gone_are_closed(tmp_path: Path) -> None:
    for number in range(60):
        store = SqliteStore(tmp_path / f"{number}.db")
        store.open()
        store.close()
    held = len(os.listdir("/proc/self/fd"))
    for number in range(60, 90):
        store = SqliteStore(tmp_path / f"{number}.db")
        store.open()
        store.close()
    assert len(os.listdir("/proc/self/fd")) <= held


def test_S9_a_duckdb_program_is_kept_out_after_the_file_was_copied(tmp_path: Path) -> None:
    path = tmp_path / "work.duckdb"
    store = DuckDbStore(path)
    store.open()
    shutil.copy(path, tmp_path / "copy")
    code = "import duckdb, sys; duckdb.connect(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "Could not set lock" in done.stderr
    store.close()
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_connection_of_the_users_to_the_same_store_keeps_its_own_locks(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    store = SqliteStore(path)
    store.open()
    own = sqlite3.connect(path)
    own.execute("SELECT count(*) FROM job").fetchall()
    store.close()
    store = SqliteStore(path)
    store.open()
    store.close()
    subprocess.run([sys.executable, "-c", SHELL, str(path)], check=True)
    assert path.with_name("work.db-wal").exists(), "it is open here"
    own.close()


def test_S42_a_store_that_is_collected_while_another_is_opened_waits_for_nothing_and_is_let_go_of_then(
    tmp_path: Path,
) -> None:
    one, other = (SqliteStore(tmp_path / name) for name in ("one.db", "other.db"))
    one.open()
    assert one._guard is not None
    with locks.descriptors.lock:  # as the thread has it that opens the other
        one._guard.let_go()  # as the collection of the first does, which may come at any moment in that thread
    other.open()
    place = file_at(tmp_path / "one.db")
    assert place is not None
    assert locks.descriptors.by_file[place].users == 0
    one.close()
    other.close()
