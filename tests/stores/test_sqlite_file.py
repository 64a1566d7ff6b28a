"""The SQLite store as a file: who may read it, what it refuses, and how processes share it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

import geoflow as gf
from geoflow.core.batch import NewTasks
from geoflow.core.models import Attempt
from geoflow.core.rows import Move, NewJob
from geoflow.errors import LeaseLost, SchemaTooNew, StoreBusy, StoreError
from geoflow.jobtypes.contract import job_id_for
from geoflow.stores import migrations, sqlite
from geoflow.stores.migrations import bring_up_to_date
from geoflow.stores.sqlite import APPLICATION_ID, SCHEMA_VERSION, SqliteStore, schema

NOW = 1_700_000_000.0
STAGES = '[{"number":1,"name":"scan","task_type":"scan","parallelism":"single"}]'
SECONDS = 60.0  # what a test waits for another process at most


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work.db"


@pytest.fixture
def opened() -> Iterator[Callable[[Path | str], SqliteStore]]:
    """Open stores that are shut at the end."""
    stores: list[SqliteStore] = []

    def open_one(path: Path | str) -> SqliteStore:
        stores.append(SqliteStore(path))
        stores[-1].open()
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


Opened = Callable[[Path | str], SqliteStore]


def owner() -> str:
    return json.dumps({"pid": os.getpid(), "since": "today"})


def new_job(letter: str = "a") -> NewJob:
    return NewJob(letter * 64, "tiles", STAGES, "{}", NOW)


def filled(store: SqliteStore, tasks: int = 5) -> int:
    """A job with a result for each of its tasks; its key."""
    row, _ = store.create(new_job())
    lease = store.claim(row.job_key, owner())
    store.change_job(lease, "start", now=NOW)
    stage = store.plan(lease, 1, NewTasks.of(*((f"t{n}", "scan", "{}", None) for n in range(tasks))), now=NOW)
    keys = range(stage.first_key, stage.end_key)
    store.commit(
        lease,
        [Move("start", keys), Move("complete", keys)],
        [Attempt(key, 1, "completed", NOW, NOW, result='{"success":true}') for key in keys],
    )
    store.change_job(lease, "complete", now=NOW, result="{}")
    store.release(lease)
    return row.job_key


def select(store: SqliteStore, sql: str) -> list[tuple[Any, ...]]:
    with store.reading() as connection:
        return connection.execute(sql).fetchall()


def contents(folder: Path) -> dict[str, bytes]:
    """The files of *folder* with something in them, less SQLite's index of the log, which every reader writes."""
    found = {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}
    return {name: content for name, content in found.items() if content}


class Process:
    """Python code in another process, which speaks in lines."""

    def __init__(self, code: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def hears(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(self._process.communicate(timeout=SECONDS)[1])
        return line.strip()

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ends(self) -> str:
        """The rest of what it says, once it has ended without a complaint."""
        said, complaint = self._process.communicate(timeout=SECONDS)
        assert self._process.returncode == 0, complaint
        return said

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=SECONDS)


PREAMBLE = """
import json, os, sys
from geoflow.errors import GeoflowError, StoreBusy
from geoflow.core.models import Attempt
from geoflow.core.rows import Move, NewJob
from geoflow.stores.sqlite import SqliteStore

def say(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline()

owner = json.dumps({"pid": os.getpid(), "since": "today"})
store = SqliteStore(sys.argv[1])
"""


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start processes that are gone at the end."""
    started: list[Process] = []

    def start_one(code: str, *arguments: object) -> Process:
        started.append(Process(code, *arguments))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()


Start = Callable[..., Process]


# Who may read it


def test_S44_every_file_of_a_store_is_its_owners_alone_whatever_the_umask(path: Path, opened: Opened) -> None:
    before = os.umask(0)
    try:
        store = opened(path)
        filled(store)
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["work.db", "work.db-wal", "work.db-shm", ".work.db.lock"], 0o600)


# What is refused


def a_database(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def a_table(path: Path, *statements: str) -> None:
    a_database(path, "CREATE TABLE theirs (a)", "INSERT INTO theirs VALUES (1)", *statements)


def a_newer_store(path: Path) -> None:
    store = SqliteStore(path)
    filled(store)
    store.close()
    a_database(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def with_a_log(path: Path, *statements: str) -> None:
    """Leave *statements* in the write-ahead log, as a process does that is killed."""
    code = f"""
import sqlite3
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
for statement in {statements!r}:
    connection.execute(statement)
os._exit(0)
"""
    Process(code, path).ends()
    assert Path(f"{path}-wal").stat().st_size


def a_newer_store_with_a_log(path: Path) -> None:
    SqliteStore(path).open()
    with_a_log(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


REFUSED: dict[str, tuple[Callable[[Path], object], type[StoreError], str]] = {
    "a table of numbers": (lambda path: path.write_text("a,b\n1,2\n" * 500), StoreError, "not a SQLite file"),
    "a single letter": (lambda path: path.write_text("x"), StoreError, "not a SQLite file"),
    "a cut off header": (lambda path: path.write_bytes(b"SQLite format 3\0\x10"), StoreError, "not a SQLite file"),
    "nothing but zeros": (lambda path: path.write_bytes(bytes(8192)), StoreError, "not a SQLite file"),
    "another database": (a_table, StoreError, "another program"),
    "another's without tables": (
        lambda path: a_database(path, "PRAGMA application_id = 77"),
        StoreError,
        "another program",
    ),
    "another program's": (lambda path: a_table(path, "PRAGMA application_id = 77"), StoreError, "another program"),
    "another's with a log": (lambda path: with_a_log(path, "CREATE TABLE x (a)"), StoreError, "another program"),
    "a newer store": (a_newer_store, SchemaTooNew, "newer geoflow"),
    "a newer store with a log": (a_newer_store_with_a_log, SchemaTooNew, "newer geoflow"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_S43_what_is_not_a_store_of_ours_is_refused_by_name_and_not_touched(tmp_path: Path, what: str) -> None:
    make, error, message = REFUSED[what]
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "work.db"
    make(path)
    before = contents(folder)
    store = SqliteStore(path)
    for _ in range(2):
        with pytest.raises(error, match=message) as raised:
            store.open()
        assert str(path) in str(raised.value)
        assert "not touched" in str(raised.value)
    assert contents(folder) == before


def test_S43_a_missing_folder_and_a_folder_are_named_and_nothing_is_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "work.db"
    with pytest.raises(StoreError, match=r"does not exist\. Make it first") as raised:
        SqliteStore(missing).open()
    assert str(missing.parent) in str(raised.value)
    with pytest.raises(StoreError, match="is a folder"):
        SqliteStore(tmp_path).open()
    with pytest.raises(StoreError, match="path is empty"):
        SqliteStore("")
    assert list(tmp_path.iterdir()) == []


def test_S43_a_file_that_cannot_be_opened_is_named(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(StoreError, match=r"work\.db"):
        SqliteStore(path).open()


def test_S43_an_empty_file_becomes_a_store(path: Path, opened: Opened) -> None:
    path.touch()
    assert opened(path).jobs() == []


def test_S36_a_store_whose_process_was_killed_as_it_was_made_is_made_again(
    path: Path, tmp_path: Path, opened: Opened
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "made.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE half AS SELECT zeroblob(100000)")  # more than the cache holds: it is written
        for name in ("made.db", "made.db-journal"):
            shutil.copy(tmp_path / name, path.with_name(name.replace("made.db", path.name)))
    store = opened(path)
    assert store.jobs() == []
    assert store._rows("SELECT count(*) FROM sqlite_master WHERE name = 'half'") == [(0,)]


def test_S43_a_damaged_store_says_so(path: Path) -> None:
    store = SqliteStore(path)
    filled(store, tasks=500)
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(reversed(whole[4096:])))
    with pytest.raises(StoreError, match=r"work\.db is damaged"):
        store.jobs()
    store.close()


@pytest.mark.parametrize(
    "name",
    ["with space.db", "ä🌍.db", "q?mode=ro#y%41&z.db", 'it\'s "quoted".db', "new\nline.db", "-rf.db", "x" * 200],
)
def test_S45_a_store_may_have_any_name(tmp_path: Path, opened: Opened, name: str) -> None:
    store = opened(tmp_path / name)
    key = filled(store)
    assert select(store, "SELECT completed FROM jobs") == [(5,)]
    assert opened(tmp_path / name).jobs() == store.jobs()
    assert store.driver(key) is None
    expected = {name, f"{name}-wal", f"{name}-shm", f".{name}.lock"}
    assert {file.name for file in tmp_path.iterdir()} == expected


def test_S42_a_store_with_a_relative_path_stays_where_it_was_when_the_process_goes_elsewhere(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = opened("work.db")
    filled(store)
    monkeypatch.chdir(tmp_path / "there")
    assert select(store, "SELECT completed FROM jobs") == [(5,)]
    assert sum(text.count("success") for text in store.finalize_rows(1)) == 5
    store.close()
    assert len(store.jobs()) == 1
    assert list((tmp_path / "there").iterdir()) == []
    assert store.name == "work.db"


def test_S36_a_full_disk_is_named_and_what_was_committed_stays(path: Path, opened: Opened) -> None:
    store = opened(path)
    filled(store)
    before = select(store, "SELECT * FROM tasks")
    writer = store._writer()
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages + 5}")
    row, _ = store.create(new_job("b"))
    lease = store.claim(row.job_key, owner())
    store.change_job(lease, "start", now=NOW)
    tasks = NewTasks.of(*((f"t{n}", "scan", json.dumps({"a": "x" * 500}), None) for n in range(1000)))
    with pytest.raises(StoreError, match=r"disk of .*work\.db is full"):
        store.plan(lease, 1, tasks, now=NOW)
    assert store.stages(row.job_key) == []
    assert select(store, "SELECT * FROM tasks") == before
    writer.execute("PRAGMA max_page_count = 1000000")
    assert store.plan(lease, 1, tasks, now=NOW).task_count == 1000


def test_S19_every_transaction_is_begun_as_a_writers(path: Path, opened: Opened) -> None:
    store = opened(path)
    begun: list[str] = []
    store._writer().set_trace_callback(begun.append)
    filled(store)
    starts = [statement for statement in begun if statement.startswith("BEGIN")]
    writes = [statement for statement in begun if statement.split()[0] in ("INSERT", "UPDATE", "DELETE")]
    assert len(starts) == 6
    assert set(starts) == {"BEGIN IMMEDIATE"}
    assert len(writes) > len(starts)


# Older stores


def added_and_rewritten(database: Database) -> None:
    """A step to a version 2 through all that sqlite-utils does: views made anew, tables rewritten."""
    views = {view.name: view.schema for view in database.views}
    for name in views:
        database[name].drop()
    database.table("task").transform(rename={"losses": "lost"})
    database.table("stage").transform(types={"planned_at": float})
    database.table("attempt").add_column("host", str)
    database.execute("UPDATE attempt SET host = 'here'")
    for statement in views.values():
        database.execute(statement)


@pytest.fixture
def version_2(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Database], None]], None]:
    """Have geoflow know a version 2, and the step to it."""

    def known(step: Callable[[Database], None]) -> None:
        monkeypatch.setattr(sqlite, "SCHEMA_VERSION", 2)
        monkeypatch.setitem(migrations.STEPS, 1, step)

    return known


Version2 = Callable[[Callable[[Database], None]], None]


def tables(path: Path) -> tuple[int, list[Any], list[Any]]:
    """The version, the schema and the rows of a file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        names = ("job", "stage", "task", "attempt")
        return (
            connection.execute("PRAGMA user_version").fetchone()[0],
            connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall(),
            [connection.execute(f"SELECT * FROM {name}").fetchall() for name in names],
        )


def an_old_store(path: Path) -> tuple[int, list[Any], list[Any]]:
    store = SqliteStore(path)
    filled(store)
    store.close()
    return tables(path)


def test_S37_an_older_store_is_brought_up_to_date_with_its_rows_and_a_copy_is_kept(
    path: Path, opened: Opened, version_2: Version2
) -> None:
    old = an_old_store(path)
    version_2(added_and_rewritten)
    before = os.umask(0)
    try:
        store = opened(path)
    finally:
        os.umask(before)
    assert select(store, "SELECT host, count(*) FROM attempt GROUP BY host") == [("here", 5)]
    assert select(store, "SELECT status, attempts, result FROM tasks") == [("completed", 1, '{"success":true}')] * 5
    assert select(store, "SELECT lost FROM task") == [(0,)] * 5
    store._writer().execute("UPDATE job SET stage = 1")  # it is in order for writers, too
    with pytest.raises(sqlite3.IntegrityError):
        store._writer().execute("DELETE FROM stage")
    version, _, rows = tables(path)
    assert (version, [len(found) for found in rows]) == (2, [1, 1, 5, 5])
    backup = path.with_name("work.db.v1.backup")
    assert backup.stat().st_mode & 0o777 == 0o600
    assert tables(backup) == old
    store.close()
    assert opened(path).jobs() == store.jobs()


def test_S37_a_step_that_fails_in_the_middle_leaves_the_old_version(path: Path, version_2: Version2) -> None:
    old = an_old_store(path)

    def fails(database: Database) -> None:
        added_and_rewritten(database)
        raise RuntimeError("in the middle")

    version_2(fails)
    store = SqliteStore(path)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="in the middle"):
            store.open()
        assert tables(path) == old
    assert tables(path.with_name("work.db.v1.backup")) == old


def test_S37_a_step_that_meets_an_error_of_sqlite_leaves_the_old_version(path: Path, version_2: Version2) -> None:
    old = an_old_store(path)

    def fails(database: Database) -> None:
        added_and_rewritten(database)
        database.execute("INSERT INTO task (stage_key) VALUES (1)")

    version_2(fails)
    with pytest.raises(StoreError, match=r"work\.db"):
        SqliteStore(path).open()
    assert tables(path) == old


def test_S37_a_step_that_leaves_rows_without_their_parents_is_refused(path: Path, version_2: Version2) -> None:
    old = an_old_store(path)

    def loses(database: Database) -> None:
        database.table("stage").delete_where()

    version_2(loses)
    with pytest.raises(StoreError, match=r"work\.db"):
        SqliteStore(path).open()
    assert tables(path) == old


def test_S37_a_process_killed_within_a_step_leaves_the_old_version(path: Path, start: Start) -> None:
    old = an_old_store(path)
    process = start(
        """
from geoflow.stores import migrations, sqlite
def step(database):
    database["attempt"].add_column("host", str)
    database.execute("UPDATE attempt SET host = 'here'")
    say("in the middle")
    hear()
sqlite.SCHEMA_VERSION = 2
migrations.STEPS[1] = step
store.open()
""",
        path,
    )
    assert process.hears() == "in the middle"
    process.kill()
    assert tables(path) == old


def test_S37_two_that_open_an_older_store_at_once_bring_it_up_to_date_once(path: Path, version_2: Version2) -> None:
    an_old_store(path)
    steps: list[int] = []
    barrier = threading.Barrier(2)
    problems: list[BaseException] = []

    def step(database: Database) -> None:
        steps.append(1)
        added_and_rewritten(database)

    def open_one() -> None:
        barrier.wait()
        store = SqliteStore(path)
        try:
            store.open()
        except BaseException as exc:
            problems.append(exc)
        finally:
            store.close()

    version_2(step)
    threads = [threading.Thread(target=open_one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert steps == [1]
    assert tables(path)[0] == 2


def test_S37_a_version_that_no_step_leads_from_is_refused(
    path: Path, version_2: Version2, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = an_old_store(path)
    monkeypatch.setattr(sqlite, "SCHEMA_VERSION", 3)
    with pytest.raises(StoreError, match="No way is known from schema 1 to 2"):
        SqliteStore(path).open()
    assert tables(path) == old


def test_S37_a_store_that_a_newer_geoflow_has_just_brought_up_to_date_keeps_its_version(path: Path) -> None:
    an_old_store(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 9")
        before = tables(path)
        with pytest.raises(SchemaTooNew):
            bring_up_to_date(connection, path, schema(), APPLICATION_ID, SCHEMA_VERSION)
    assert tables(path) == before


def test_S37_a_copy_that_was_cut_short_is_made_again(path: Path, opened: Opened, version_2: Version2) -> None:
    old = an_old_store(path)
    backup = path.with_name("work.db.v1.backup")
    version_2(added_and_rewritten)
    code = """
from geoflow.stores import migrations, sqlite
import os, sqlite3
class Dies(sqlite3.Connection):
    def backup(self, target, **options):
        super().backup(target, pages=1, progress=lambda *left: os._exit(0))
connect = sqlite3.connect
sqlite3.connect = lambda *given, **options: connect(*given, **{"factory": Dies, **options})
sqlite.SCHEMA_VERSION = 2
migrations.STEPS[1] = lambda database: None
store.open()
say("not reached")
"""
    assert Process(code, path).ends() == ""
    assert tables(path) == old
    opened(path)
    assert tables(backup) == old


def test_S44_a_copy_is_its_owners_alone_from_the_beginning(path: Path, version_2: Version2) -> None:
    an_old_store(path)
    version_2(added_and_rewritten)
    code = """
from geoflow.stores import migrations, sqlite
import os, sqlite3
os.umask(0)
class Dies(sqlite3.Connection):
    def backup(self, target, **options):
        super().backup(target)
        os._exit(0)
connect = sqlite3.connect
sqlite3.connect = lambda *given, **options: connect(*given, **{"factory": Dies, **options})
sqlite.SCHEMA_VERSION = 2
migrations.STEPS[1] = lambda database: None
store.open()
say("not reached")
"""
    assert Process(code, path).ends() == ""
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
    assert len([name for name in modes if "backup" in name]) == 1
    assert set(modes.values()) == {"0o600"}


# Several processes


def test_S9_processes_that_make_the_same_stores_at_once_all_succeed(tmp_path: Path, start: Start) -> None:
    code = """
say("ready")
hear()
for n in range(24):
    store = SqliteStore(f"{sys.argv[1]}/{n}.db")
    store.create(NewJob(f"{os.getpid():064x}", "tiles", "[]", "{}", 1.0))
    store.create(NewJob("f" * 64, "tiles", "[]", "{}", 1.0))
    assert len(store.jobs()) >= 2
    if n % 2:
        store.close()
"""
    processes = [start(code, tmp_path) for _ in range(4)]
    for process in processes:
        assert process.hears() == "ready"
    for process in processes:
        process.tell()
    for process in processes:
        process.ends()
    for n in range(24):
        store = SqliteStore(tmp_path / f"{n}.db")
        assert len(store.jobs()) == 5
        store.close()


def test_S36_another_process_opens_a_store_while_its_log_is_all_there_is(path: Path, opened: Opened) -> None:
    """A new store's tables are in the write-ahead log until the first checkpoint."""
    store = opened(path)
    store.create(new_job())
    assert Process("say(len(store.jobs()))", path).ends() == "1\n"


def test_S36_a_store_whose_only_process_was_killed_opens_again(path: Path, opened: Opened, start: Start) -> None:
    process = start("store.create(NewJob('a' * 64, 'tiles', '[]', '{}', 1.0)); say('made'); hear()", path)
    assert process.hears() == "made"
    process.kill()
    assert len(opened(path).jobs()) == 1


def test_S36_a_second_session_of_a_process_does_not_give_its_locks_away(path: Path, opened: Opened) -> None:
    """Closing any descriptor of a file drops all of a process's locks on it; then others delete the log in use."""
    store = opened(path)
    store.create(new_job("a"))
    opened(path)  # looks at the file first
    assert Process("say(len(store.jobs())); store.close()", path).ends() == "1\n"
    store.create(new_job("b"))
    assert Process("say(len(store.jobs())); store.close()", path).ends() == "2\n"
    assert len(store.jobs()) == 2


def test_S36_readers_in_another_process_are_never_told_to_wait(path: Path, opened: Opened, start: Start) -> None:
    store = opened(path)
    row, _ = store.create(new_job())
    lease = store.claim(row.job_key, owner())
    store.change_job(lease, "start", now=NOW)
    stage = store.plan(lease, 1, NewTasks.of(*((f"t{n}", "scan", "{}", None) for n in range(600))), now=NOW)
    code = """
from geoflow.stores import sqlite
sqlite.BUSY_SECONDS = 0.0  # whoever would have to wait gets an error
import threading
told = threading.Thread(target=hear)
job, = store.jobs()
stage, = store.stages(job.job_key)
say("ready")
told.start()
reads = last = 0
writing = True
while writing or reads < 10:
    writing = told.is_alive()  # one more look when the last is written
    counts = store.counts(stage)
    assert sum(counts.values()) == 600, counts
    with store.reading() as connection:
        counted = "sum(status = 'processing'), sum(status = 'completed')"
        half, done = connection.execute(f"SELECT {counted} FROM tasks").fetchone()
    assert half == 0 and done >= last, (half, done, last)
    assert sum(some.tasks for some in store.results(stage)) >= done
    reads, last = reads + 1, done
say(last)
"""
    readers = [start(code, path) for _ in range(2)]
    for reader in readers:
        assert reader.hears() == "ready"
    for key in range(stage.first_key, stage.end_key):
        done = Attempt(key, 1, "completed", NOW, NOW, result='{"success":true}')
        store.commit(lease, [Move("start", [key]), Move("complete", [key])], [done])
    for reader in readers:
        reader.tell()
        assert reader.ends() == "600\n"


def test_S36_a_reader_that_stays_in_the_middle_holds_no_writer_up(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.0)
    store = opened(path)
    filled(store, tasks=10)
    with store.reading() as connection:
        cursor = connection.execute("SELECT * FROM tasks")
        cursor.fetchone()
        store.create(new_job("b"))
        assert len(cursor.fetchall()) == 9
    assert len(store.jobs()) == 2


def test_S36_who_waits_too_long_for_another_writer_is_told_and_nothing_is_written(
    path: Path, opened: Opened, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    store = opened(path)
    other = start(
        """
with store._transaction():
    say("in")
    hear()
say("out")
hear()
""",
        path,
    )
    assert other.hears() == "in"
    with pytest.raises(StoreBusy, match=r"work\.db was locked by another process.*Nothing was written"):
        store.create(new_job())
    assert store.jobs() == []
    other.tell()
    assert other.hears() == "out"
    assert store.create(new_job())[1]


TEN = """
import geoflow as gf
import geoflow.engine.machine, geoflow.executors.inline
session = gf.open(sys.argv[1], workers=0, display="none")
say("ready")
hear()
job = session.submit("hello_world", n=3)
job.wait()
say(json.dumps({**job.receipt.model_dump(mode="json"), "now": job.status}))
session.close()
"""


def test_S9_ten_processes_that_submit_the_same_job_at_once_make_one_row_and_one_execution(
    path: Path, opened: Opened, start: Start
) -> None:
    processes = [start(TEN, path) for _ in range(10)]
    for process in processes:
        assert process.hears() == "ready"
    for process in processes:
        process.tell()
    receipts = [json.loads(process.ends()) for process in processes]
    store = opened(path)
    assert select(store, "SELECT status, tasks, completed, failed, epoch FROM jobs") == [("completed", 6, 6, 0, 1)]
    assert select(store, "SELECT outcome, attempt, count(*), count(DISTINCT pid) FROM attempts") == [
        ("completed", 1, 6, 1)
    ]
    assert sorted(receipt["status"] for receipt in receipts) == ["already_exists"] * 9 + ["created"]
    for receipt in receipts:
        first = receipt["status"] == "created"
        assert receipt["idempotent"] is not first
        assert (receipt["existing_status"] is None) is first
        assert receipt["job_id"] == store.jobs()[0].job_id
    # Whoever found the job waited for its end: a job that was just created is never taken for an interrupted one.
    assert [receipt["now"] for receipt in receipts] == ["completed"] * 10


# Who drives a job

HOLDS = """
row, _ = store.create(NewJob("a" * 64, "tiles", "[]", "{}", 1.0))
lease = store.claim(row.job_key, owner)
say(lease.epoch)
hear()
try:
    store.commit(lease, [], [])
    say("written")
except GeoflowError as exc:
    say(type(exc).__name__)
"""


def test_S37_a_job_that_a_live_process_drives_is_not_taken_and_its_pid_is_named(
    path: Path, opened: Opened, start: Start
) -> None:
    holder = start(HOLDS, path)
    assert holder.hears() == "1"
    store = opened(path)
    key = store.jobs()[0].job_key
    assert store.driver(key) == f"process {holder.pid}, since today"
    with pytest.raises(StoreBusy, match=rf"Job aaaaaaaa is driven by process {holder.pid}, since today"):
        store.claim(key, owner())
    assert store.jobs()[0].epoch == 1
    holder.kill()
    assert store.driver(key) is None
    assert store.claim(key, owner()).epoch == 2


def test_S37_a_process_that_is_stopped_keeps_its_job(path: Path, opened: Opened, start: Start) -> None:
    holder = start(HOLDS, path)
    assert holder.hears() == "1"
    store = opened(path)
    holder.signal(signal.SIGSTOP)
    with pytest.raises(StoreBusy, match=str(holder.pid)):
        store.claim(1, owner())
    holder.signal(signal.SIGCONT)
    holder.tell()
    assert holder.hears() == "written"


def test_S37_a_job_given_back_may_be_taken_and_the_one_who_had_it_writes_no_more(
    path: Path, opened: Opened, start: Start
) -> None:
    store = opened(path)
    row, _ = store.create(new_job())
    lease = store.claim(row.job_key, owner())
    store.release(lease)
    holder = start(HOLDS, path)
    assert holder.hears() == "2"
    with pytest.raises(StoreBusy, match=str(holder.pid)):
        store.claim(row.job_key, owner())
    with pytest.raises(LeaseLost, match="taken over by another session"):
        store.change_job(lease, "start", now=NOW)
    holder.tell()
    assert holder.hears() == "written"


def test_S37_other_jobs_of_the_store_are_free_meanwhile(path: Path, opened: Opened, start: Start) -> None:
    holder = start(HOLDS, path)
    assert holder.hears() == "1"
    store = opened(path)
    row, _ = store.create(new_job("b"))
    lease = store.claim(row.job_key, owner())
    store.release(lease)
    with pytest.raises(StoreBusy):  # the lock of another job went, this one's stayed
        store.claim(1, owner())


@pytest.mark.parametrize("link", ["other.db", "../here/work.db"])
def test_S37_one_store_by_two_names_has_one_owner(tmp_path: Path, opened: Opened, link: str) -> None:
    (tmp_path / "here").mkdir()
    path = tmp_path / "here" / "work.db"
    store = opened(path)
    row, _ = store.create(new_job())
    store.claim(row.job_key, owner())
    other = path.parent / link
    if not other.exists():
        other.symlink_to(path)
    with pytest.raises(StoreBusy):
        opened(other).claim(row.job_key, owner())


def test_S37_a_store_whose_folder_was_made_anew_is_held_like_any_other(
    tmp_path: Path, opened: Opened, start: Start
) -> None:
    path = tmp_path / "folder" / "work.db"
    for _ in range(2):
        path.parent.mkdir()
        store = opened(path)
        row, _ = store.create(new_job())
        store.claim(row.job_key, owner())
        code = "say(store.driver(1))\ntry:\n    store.claim(1, owner)\nexcept StoreBusy:\n    say('busy')"
        assert Process(code, path).ends() == f"process {os.getpid()}, since today\nbusy\n"
        store.close()
        shutil.rmtree(path.parent)


def test_S37_looking_who_drives_a_job_never_gets_in_the_way_of_taking_it(
    path: Path, opened: Opened, start: Start
) -> None:
    store = opened(path)
    row, _ = store.create(new_job())
    code = """
import threading
told = threading.Thread(target=hear)
say("ready")
told.start()
while told.is_alive():
    store.driver(1)
"""
    watcher = start(code, path)
    assert watcher.hears() == "ready"
    for _ in range(1500):
        store.release(store.claim(row.job_key, owner()))
    watcher.tell()
    watcher.ends()


def test_S36_those_who_look_who_drives_a_job_do_not_take_each_other_for_it(path: Path, start: Start) -> None:
    code = """
store.create(NewJob("a" * 64, "tiles", "[]", "{}", 1.0))
say("ready")
hear()
say({store.driver(1) for _ in range(20_000)})
"""
    watchers = [start(code, path) for _ in range(2)]
    for watcher in watchers:
        assert watcher.hears() == "ready"
    for watcher in watchers:
        watcher.tell()
    assert [watcher.ends() for watcher in watchers] == ["{None}\n"] * 2


# Two sessions

ENTERED, GO_ON = threading.Event(), threading.Event()


def hold(params: dict[str, Any]) -> dict[str, Any]:
    """Run until the test says so."""
    ENTERED.set()
    return {"success": GO_ON.wait(SECONDS)}


class Held:
    job_type = "held"
    description = "One task that runs until it is told."
    stages = [{"number": 1, "name": "hold", "task_type": "hold", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return job_id_for("held", params)

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        return [{"task_id": "one", "task_type": "hold", "parameters": {}}]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {"done": len(context.task_results)}


@pytest.fixture
def sessions(path: Path) -> Iterator[tuple[gf.Session, gf.Session]]:
    """Two sessions of this process on one file."""
    ENTERED.clear()
    GO_ON.clear()
    made = tuple(gf.open(path, workers=0, display="none") for _ in range(2))
    for session in made:
        session.register(Held, {"hold": hold})
    yield made  # type: ignore[misc]
    GO_ON.set()
    for session in made:
        session.close()


def test_S9_a_second_session_of_the_process_finds_the_job_and_may_not_drive_it(
    sessions: tuple[gf.Session, gf.Session],
) -> None:
    first, second = sessions
    job = first.submit("held")
    assert ENTERED.wait(SECONDS)
    found = second.submit("held")
    assert found.receipt is not None
    assert (found.receipt.status, found.receipt.existing_status) == ("already_exists", "processing")
    assert second.resume() == []
    takes: list[Callable[[], object]] = [
        lambda: second.submit("held", on_existing="resume"),
        found.resume,
        found.rerun,
    ]
    for take in takes:
        with pytest.raises(StoreBusy, match=f"driven by process {os.getpid()}"):
            take()
    assert not found.interrupted
    GO_ON.set()
    assert job.result(SECONDS) == {"done": 1}
    assert found.result(SECONDS) == {"done": 1}
    with second.store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (1,)


def test_S36_a_job_that_another_takes_up_in_the_same_moment_does_not_stop_a_resume(
    sessions: tuple[gf.Session, gf.Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sessions
    first.submit("held")
    assert ENTERED.wait(SECONDS)
    look = second.store.driver
    looks: list[int] = []

    def driver(job_key: int) -> str | None:
        looks.append(job_key)
        return look(job_key) if len(looks) > 1 else None  # as it was before the first took it

    monkeypatch.setattr(second.store, "driver", driver)
    assert second.resume() == []
    GO_ON.set()
