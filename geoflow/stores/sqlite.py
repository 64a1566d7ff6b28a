"""Jobs, tasks and attempts in a SQLite file: the store of record.

One connection writes, one transaction a change, begun IMMEDIATE so that two writers wait for each other instead of
failing half-way. Readers have connections of their own. The promises that the rows keep are in `schema.sql`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from geoflow.errors import SchemaTooNew, StoreBusy, StoreError
from geoflow.models import Attempt, Outcome
from geoflow.stores.base import Lease, NewTask
from geoflow.stores.ownership import Ownership
from geoflow.stores.tables import ATTEMPTS_PER_TASK, TableStore

APPLICATION_ID = 0x67666C77  # "gflw", so that another program's database is not taken for ours
SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
_SMALLEST_DATABASE = 512  # a page, of the smallest size that there is
# Each bound column of an insert costs as much as the row itself: what most attempts do not have is left out.
_INSERT_COMPLETED = (
    "INSERT INTO attempt (attempt_key, outcome, started_at, ended_at, cpu, peak_memory, result, slot, pid, code)"
    " VALUES (?, 'completed', ?, ?, ?, ?, ?, {slot:d}, {pid:d}, ?)"
)
_COMPLETED = str(Outcome.COMPLETED)
_INSERT_ATTEMPT = (
    "INSERT INTO attempt (attempt_key, outcome, started_at, ended_at, cpu, peak_memory, result, output, slot,"
    " pid, code, queued_at, backoff, error, error_type, error_category, retryable, traceback)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class SqliteStore(TableStore):
    """The store in the file *path*, or in memory for ``":memory:"``. Nothing is opened before it is needed."""

    _refused = sqlite3.IntegrityError

    def __init__(self, path: str | os.PathLike[str], *, synchronous: str = "NORMAL") -> None:
        name = os.fspath(path)
        if not name:
            raise StoreError("The store's path is empty: give a file such as 'work.db', or ':memory:'.")
        # Absolute, so that the store stays where it is when the process goes to another folder.
        self._path = None if name == ":memory:" else Path(name).absolute()
        super().__init__(name, Ownership(self._path))
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None

    # Opening

    def open(self) -> None:
        with self._lock:
            self._writer()

    def _writer(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._path is not None:
                _check_file(self._path)
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
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        _log_ahead(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -16000")
        if version < SCHEMA_VERSION:
            from geoflow.stores.migrations import bring_up_to_date

            bring_up_to_date(connection, self._path, schema(), APPLICATION_ID, SCHEMA_VERSION)

    def shut(self) -> None:
        with self._lock:
            self._ownership.release_all()
            self._epochs.clear()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            writer = self._writer()
            if self._path is None:
                yield writer
                return
        connection = _read_only(self._path)
        try:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            yield connection
        except sqlite3.Error as exc:
            raise _explained(exc, self.name) from exc
        finally:
            connection.close()

    @contextlib.contextmanager
    def _transaction(self, lease: Lease | None = None) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._writer()
            try:
                connection.execute("BEGIN IMMEDIATE")
                if lease is not None:
                    self._verify(connection, lease)
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as exc:
                raise _explained(exc, self.name) from exc
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    # In SQLite's own way

    def _changed(self, connection: sqlite3.Connection, sql: str, values: dict[str, Any]) -> int:
        return connection.execute(sql, values).rowcount

    def insert_rows(
        self, connection: sqlite3.Connection, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        marks = ", ".join("?" * len(names))
        connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)

    def _insert_tasks(
        self, connection: sqlite3.Connection, stage_key: int, first_key: int, tasks: Sequence[NewTask]
    ) -> None:
        connection.executemany(
            "INSERT INTO task (task_key, stage_key, task_id, task_type, parameters, metadata)"
            f" VALUES (?, {stage_key:d}, ?, ?, ?, ?)",
            ((key, *task) for key, task in enumerate(tasks, first_key)),
        )

    def _insert_attempts(self, connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> None:
        plain: dict[tuple[int, int | None], list[tuple[Any, ...]]] = {}
        others: list[tuple[Any, ...]] = []
        for attempt in attempts:
            (
                (task_key, number, outcome, started, ended, cpu, memory, result),
                (failure, output, slot, pid, code, queued_at, backoff),
            ) = attempt[:8], attempt[8:]
            key = task_key * ATTEMPTS_PER_TASK + number
            if failure is None and output is None and queued_at is None and slot is not None and outcome == _COMPLETED:
                row = (key, started, ended, cpu, memory, result, code)
                try:
                    plain[slot, pid].append(row)
                except KeyError:
                    plain[slot, pid] = [row]
            else:
                told = failure or (None, None, None, None, None)
                known = (key, outcome, started, ended, cpu, memory, result, output, slot, pid, code, queued_at, backoff)
                others.append((*known, *told))
        for (slot_number, process), found in plain.items():
            connection.executemany(_INSERT_COMPLETED.format(slot=slot_number, pid=process or 0), found)
        connection.executemany(_INSERT_ATTEMPT, others)

    def finalize_rows(self, job_key: int) -> str:
        found = self._rows(
            "SELECT json_group_array(json_array(task_id, task_type, status, json(result), error, ended_at)) FROM"
            " (SELECT t.task_id, t.task_type, t.status, iif(t.status = 'completed', a.result, NULL) AS result,"
            " iif(t.status = 'completed', NULL, a.error) AS error, a.ended_at FROM stage s"
            " JOIN task t ON t.task_key >= s.first_key AND t.task_key < s.first_key + s.task_count"
            " LEFT JOIN attempt a ON a.attempt_key = (t.task_key << 12) + t.attempt"
            " WHERE s.job_key = ? AND NOT s.superseded ORDER BY t.task_key)",
            job_key,
        )
        return str(found[0][0])

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with self._lock:
            connection = self._writer()
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                raise _explained(exc, self.name) from exc


def schema() -> str:
    """The SQL that makes an empty store."""
    return resources.files("geoflow.stores").joinpath("schema.sql").read_text("utf-8")


def _check_file(path: Path) -> None:
    """Refuse what cannot be a store before anything is written; make a new file readable by its owner alone.

    An existing file is looked at through SQLite only: opening and closing it by other means would drop the locks
    that this process's connections hold on it.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder: the store is a file, such as {path / 'geoflow.db'}.")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"{path} cannot be opened: the folder {path.absolute().parent} does not exist. Make it first.")
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
    with contextlib.closing(_read_only(path)) as connection:
        try:
            # In one statement: another process may make the store at this very moment.
            application, version, tables = connection.execute(
                "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
                " FROM pragma_application_id, pragma_user_version"
            ).fetchone()
        except sqlite3.DatabaseError as exc:
            if getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
                raise StoreError(f"{path} is not a SQLite file. It was not touched: name another store.") from None
            raise _explained(exc, str(path)) from exc
    if application != APPLICATION_ID and (tables or application):
        raise StoreError(f"{path} is the database of another program. It was not touched: name another store.")
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"{path} was written by a newer geoflow (schema {version}, this one knows {SCHEMA_VERSION}). "
            "It was not touched: upgrade geoflow, or use another store."
        )


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. Who makes the store at the same time is in the way, and SQLite does not wait."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.002)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)


def _explained(exc: sqlite3.Error, name: str) -> StoreError:
    """SQLite's error in words: what happened to which file, and what is safe."""
    code = getattr(exc, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary == sqlite3.SQLITE_FULL:
        return StoreError(f"The disk of {name} is full. What was committed is safe; free some space, then resume.")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"{name} was locked by another process for {BUSY_SECONDS:.0f} s. Nothing was written.")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(f"{name} is damaged or is not a store ({exc}). Keep a copy, and start with another store.")
    if primary == sqlite3.SQLITE_READONLY:
        return StoreError(f"{name} cannot be written ({exc}). Check the permissions of the file and of its folder.")
    return StoreError(f"{name}: {exc}.")
