"""Jobs, tasks and attempts in a SQLite file: the store of record.

One connection writes, one transaction a change, begun IMMEDIATE so that two writers wait for each other instead of
failing half-way. Readers have connections of their own. The promises that the rows keep are in `schema.sql`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from geoflow.core.batch import Completed, NewTasks
from geoflow.core.rows import Lease
from geoflow.errors import SchemaTooNew, StoreBusy, StoreError, TooLarge
from geoflow.stores.columns import COMPLETED_OWN, COMPLETED_SAME
from geoflow.stores.copies import write_copy
from geoflow.stores.file_guard import Guard, close_as_it_is, tidy
from geoflow.stores.files import check_place, file_at, gone, rescued, set_aside
from geoflow.stores.insert_many import insert_many
from geoflow.stores.job_locks import Ownership
from geoflow.stores.migrations import bring_up_to_date
from geoflow.stores.store import Store, completed_columns
from geoflow.support.jsonable import MAX_BYTES
from geoflow.support.text import human_bytes, shorten

APPLICATION_ID = 0x67666C77  # "gflw", so that another program's database is not taken for ours
SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
# SQLite's own 1,000 have it copy its log back into the file after every 4 MB, for a fifth of the time of all inserts.
LOG_PAGES = 10_000
# All statements are our own: the tables and keys that they were written for refuse none of them.
_NOT_OURS = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)
_SMALLEST_DATABASE = 512  # a page, of the smallest size that there is
_STANDS_IN = (
    "INSERT OR IGNORE INTO task (task_key, stage_key, task_id, task_type, parameters) VALUES (?, ?, '', '', '')"
)


class SqliteStore(Store):
    """The store in the file *path*, or in memory for ``":memory:"``. Nothing is opened before it is needed."""

    _refused = sqlite3.IntegrityError
    _DATABASE = "sqlite"
    _TEXTS = "json_group_array({})"
    _BYTES = "length(CAST({} AS BLOB))"
    _JSONS = "'[' || coalesce(group_concat({}), '') || ']'"

    def __init__(self, path: str | os.PathLike[str], *, synchronous: str = "NORMAL") -> None:
        name = os.fspath(path)
        if not name:
            raise StoreError("The store's path is empty: give a file such as 'work.db', or ':memory:'.")
        # Absolute, so that the store stays where it is when the process goes to another folder.
        self._path = None if name == ":memory:" else Path(name).absolute()
        self._names = str(self._path), f"{self._path}-wal"
        super().__init__(name, Ownership(self._path))
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        # The file that the connection writes to, and its log.
        self._files: tuple[tuple[int, int] | None, tuple[int, int] | None] = None, None
        self._guard: Guard | None = None
        self._why_not: str | None = None  # what became of the files that were opened

    # Opening

    def open(self) -> None:
        with self._lock:
            self._writer()

    def _writer(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._path is not None:
                try:
                    check_file(self._path, _read_soon)
                except StoreBusy:
                    self._ownership.check()
                    check_file(self._path)
                self._ownership.check()
            opened = self._files_now()[0]  # before it is opened: it may be replaced at this very moment
            try:
                connection = sqlite3.connect(
                    self._path or self.name, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
                )
            except sqlite3.Error as exc:
                raise _explained(exc, self.name) from exc
            try:
                self._prepare(connection)
            except sqlite3.Error as exc:
                connection.close()
                raise _explained(exc, self.name) from exc
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._files = opened, self._files_now()[1]
        elif not (connection := self._connection).in_transaction:
            self._check_files(connection)  # a transaction does so at its end: within one no copy can be made
        return connection

    def _files_now(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        if self._path is None:
            return None, None
        return file_at(self._names[0]), file_at(self._names[1])

    def _check_files(self, connection: sqlite3.Connection) -> None:
        """Refuse to go on with a file or a log that is not at its place: what is written to it, nobody finds again."""
        now, then = self._files_now(), self._files
        if now == then:
            return
        assert self._path is not None, "only a file can be another one"
        if now[0] is None:  # moved, as a rule: it may be put back, with its log
            raise StoreError(gone(self.name))
        if self._why_not is None:
            kept = rescued(self._path, "", lambda target: write_copy(connection, target), sqlite3.Error)
            if now[0] != then[0]:
                # Else the next program that opens the new file copies the old one's log over it.
                aside = set_aside(self._path, ("-wal", "-shm")) if now[1] == then[1] else []
                where = " and ".join(path.name for path in aside)
                log = f" The log of the file that was opened is now {where}." if aside else ""
                self._why_not = gone(self.name) + log
            else:
                self._why_not = (
                    f"The log of {self.name} ({self._path.name}-wal) was deleted or replaced while this session had it"
                    " open, by another program or by hand. Nothing more is written: close the session, open it again,"
                    " and resume; what is missing from the file runs again."
                )
            self._why_not += f" What this session had stored is kept in {kept}." * bool(kept)
        raise StoreError(self._why_not)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        ahead = _log_ahead(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        if version < SCHEMA_VERSION:
            bring_up_to_date(connection, self._path, schema(), APPLICATION_ID, SCHEMA_VERSION)
        if self._path is not None and ahead:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on its log is there
            self._guard = Guard(self._path, BUSY_SECONDS)
            weakref.finalize(self, self._guard.let_go).atexit = False

    def close(self) -> None:
        with self._lock:
            self._ownership.release_all()
            self._epochs.clear()
            self._ids.clear()
            connection, self._connection = self._connection, None
            guard, self._guard = self._guard, None
            if connection is not None and self._files_now() != self._files:
                with contextlib.suppress(StoreError):
                    self._check_files(connection)
                close_as_it_is(connection)
                connection = None
            if guard is not None:
                guard.let_go()
            if connection is not None:
                connection.close()
            if guard is not None:
                tidy()
            self._why_not = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            writer = self._writer()
            if self._path is None:
                yield writer
                return
        connection = read_only(self._path)
        try:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            yield connection
        except (sqlite3.Error, UnicodeDecodeError) as exc:
            raise _explained(exc, self.name) from exc
        finally:
            connection.close()

    def copy_to(self, target: Path) -> None:
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on nothing changes
                write_copy(connection, target)
            finally:
                connection.rollback()

    def room(self) -> tuple[int, int]:
        asked = ("page_size", "page_count", "freelist_count")
        size, pages, free = (self._rows(f"PRAGMA {name}")[0][0] for name in asked)
        return size * pages, size * free

    def shrink(self) -> None:
        with self._lock:
            self._writer()
            if self._guard is not None:
                self._guard.begin(self.name, BUSY_SECONDS)
            try:
                self._rows("VACUUM")
                self._rows("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                if self._guard is not None:
                    self._guard.end()

    @contextlib.contextmanager
    def _transaction(self, lease: Lease | None = None) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._writer()
            guard = self._guard
            if guard is not None:
                guard.begin(self.name, BUSY_SECONDS)
            try:
                connection.execute("BEGIN IMMEDIATE")
                if lease is not None:
                    self._verify(connection, lease)
                yield connection
                connection.execute("COMMIT")
            except (sqlite3.Error, UnicodeDecodeError) as exc:
                raise _explained(exc, self.name) from exc
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if guard is not None:
                    guard.end()
            self._check_files(connection)  # else it may have gone to a log that was deleted meanwhile

    # In SQLite's own way

    def _changed(self, connection: sqlite3.Connection, sql: str, values: dict[str, Any]) -> int:
        return connection.execute(sql, values).rowcount

    def insert_rows(
        self, connection: sqlite3.Connection, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        marks = ", ".join("?" * len(names))
        connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)

    def _insert_tasks(self, connection: sqlite3.Connection, stage_key: int, first_key: int, tasks: NewTasks) -> None:
        # No keys: SQLite counts on from the highest one, which is how `first_key` came about. Where that was removed,
        # a row has it for the moment.
        stands_in = self.has("removed") and connection.execute(_STANDS_IN, (first_key - 1, stage_key)).rowcount
        texts = tasks.task_ids, tasks.parameters
        if len(set(tasks.task_types)) == 1 and isinstance(tasks.metadata, list | tuple) and not any(tasks.metadata):
            same = stage_key, tasks.task_types[0]
            insert_many(connection, "task (task_id, parameters, stage_key, task_type)", same, *texts)
        else:
            into = "task (task_id, parameters, task_type, metadata, stage_key)"
            insert_many(connection, into, (stage_key,), *texts, tasks.task_types, tasks.metadata)
        if stands_in:
            connection.execute("DELETE FROM task WHERE task_key = ?", (first_key - 1,))

    def _insert_completed(self, connection: sqlite3.Connection, completed: Sequence[Completed]) -> None:
        into = f"attempt ({', '.join(COMPLETED_OWN + COMPLETED_SAME)})"
        for several in completed:
            own, same = completed_columns(several)
            insert_many(connection, into, same, *own)

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with self._lock:
            connection = self._writer()
            try:
                return connection.execute(sql, values).fetchall()
            except (sqlite3.Error, UnicodeDecodeError) as exc:
                raise _explained(exc, self.name) from exc

    def _one(self, sql: str, *values: Any, longest: int | None) -> Any:
        with self._lock:
            connection = self._writer()
            try:
                return one_row(connection, sql, values, longest)
            except (sqlite3.Error, UnicodeDecodeError) as exc:
                raise _explained(exc, self.name) from exc

    def _one_of(self, connection: sqlite3.Connection, sql: str, values: dict[str, Any], longest: int | None) -> Any:
        return one_row(connection, sql, values, longest)


def one_row(connection: sqlite3.Connection, sql: str, values: Any, longest: int | None) -> Any:
    """The one row that *sql* finds, or None when a text that it would make is longer than *longest*."""
    if longest is None:
        return connection.execute(sql, values).fetchone()
    before = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)
    try:
        return connection.execute(sql, values).fetchone()
    except sqlite3.DataError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_TOOBIG:
            raise
        return None
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)


def schema() -> str:
    """The SQL that makes an empty store."""
    return resources.files("geoflow.stores").joinpath("schema.sql").read_text("utf-8")


def check_file(path: Path, read: Callable[[Path], sqlite3.Connection] | None = None) -> None:
    """Refuse what cannot be a store before anything is written; make a new file readable by its owner alone.

    An existing file is looked at through SQLite only: opening and closing it by other means would drop the locks
    that this process's connections hold on it.
    """
    check_place(path, "geoflow.db")
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        size = path.stat().st_size
        if not size:
            return
        if size < _SMALLEST_DATABASE:  # SQLite would take it for an empty one
            raise StoreError(f"{path} is not a SQLite file. It was not touched: name another store.")
    except OSError as exc:
        raise StoreError(f"{path} cannot be opened: {exc.strerror}. Check its permissions and the disk.") from exc
    with contextlib.closing((read or read_only)(path)) as connection:
        try:
            # In one statement: another process may make the store at this very moment.
            application, version, tables, foreign = connection.execute(
                "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master),"
                " (SELECT count(*) FROM sqlite_master WHERE type = 'trigger' OR sql LIKE 'create virtual%')"
                " FROM pragma_application_id, pragma_user_version"
            ).fetchone()
        except sqlite3.DatabaseError as exc:
            code = getattr(exc, "sqlite_errorcode", 0)
            if code == sqlite3.SQLITE_READONLY_ROLLBACK and read is not _rolling_back:  # killed as it was made
                check_file(path, _rolling_back)
                return
            if code == sqlite3.SQLITE_NOTADB:
                raise StoreError(f"{path} is not a SQLite file. It was not touched: name another store.") from None
            raise _explained(exc, str(path)) from exc
        except UnicodeDecodeError as exc:
            raise _explained(exc, str(path)) from None
    if application != APPLICATION_ID and (tables or application):
        raise StoreError(f"{path} is the database of another program. It was not touched: name another store.")
    if foreign:
        raise StoreError(f"{path} has triggers that are not geoflow's. It was not touched: name another store.")
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"{path} was written by a newer geoflow (schema {version}, this one knows {SCHEMA_VERSION}). "
            "It was not touched: upgrade geoflow, or use another store."
        )


def _log_ahead(connection: sqlite3.Connection) -> bool:
    """Switch to the write-ahead log, where there can be one. Who makes the store at the same time is in the way, and
    SQLite does not wait."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return bool(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.002)


def read_only(path: Path, seconds: float | None = None) -> sqlite3.Connection:
    timeout = BUSY_SECONDS if seconds is None else seconds
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=timeout)


def _rolling_back(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)


def _read_soon(path: Path) -> sqlite3.Connection:
    return read_only(path, 1.0)


def _explained(exc: sqlite3.Error | UnicodeDecodeError, name: str) -> StoreError:
    """SQLite's error in words: what happened to which file, and what is safe."""
    if isinstance(exc, UnicodeDecodeError):  # its own message about a table whose definition is damaged is no text
        return StoreError(f"{name} is damaged. Keep a copy, and start with another store.")
    code = getattr(exc, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary == sqlite3.SQLITE_TOOBIG:
        return TooLarge(f"{name} cannot hold a text of more than {human_bytes(MAX_BYTES)}: write it to a file.")
    if primary == sqlite3.SQLITE_FULL:
        return StoreError(f"The disk of {name} is full. What was committed is safe; free some space, then resume.")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"{name} was locked by another process for {BUSY_SECONDS:.0f} s. Nothing was written.")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(f"{name} is damaged or is not a store ({exc}). Keep a copy, and start with another store.")
    if code in _NOT_OURS or (code is None and isinstance(exc, sqlite3.OperationalError)):
        # Without a code it quotes what it could not decode, and our own SQL.
        how = "a text in it cannot be decoded" if code is None else shorten(str(exc), 200)
        what = f"{name} is damaged, or another program changed it ({how})."
        return StoreError(f"{what} Keep a copy, and start with another store.")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        what = "written" if primary == sqlite3.SQLITE_READONLY else "opened"
        return StoreError(f"{name} cannot be {what} ({exc}). Check the permissions of the file and of its folder.")
    return StoreError(f"{name}: {exc}.")
