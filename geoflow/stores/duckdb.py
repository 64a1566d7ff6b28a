"""Jobs, tasks and attempts in a DuckDB file: for who would rather have it than SQLite, within one process.

DuckDB lends a file to one process at a time, readers included. All stores of this process that name one file share
its one writer; readers have cursors of their own and see the rows as they were when they began to look.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb

from geoflow.batch import Batch, Completed, NewTasks
from geoflow.errors import SchemaTooNew, StoreBusy, StoreError
from geoflow.models import Attempt, Outcome
from geoflow.stores.base import Lease, Move, Take
from geoflow.stores.ownership import Ownership
from geoflow.stores.tables import ATTEMPTS_PER_TASK, TableStore, consecutive, nothing_queued
from geoflow.values import to_json

SCHEMA_VERSION = 1
_TASKS_AT_ONCE = 20_000
_STATEMENTS = 200
# Nothing is fetched from the network, and a name in a query is a table's, never a variable's of whoever asks. With one
# thread the many small statements take two thirds of the time.
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
_ATTEMPT_COLUMNS = {
    "attempt_key": "BIGINT",
    "outcome": "VARCHAR",
    "started_at": "DOUBLE",
    "ended_at": "DOUBLE",
    "cpu": "DOUBLE",
    "peak_memory": "BIGINT",
    "result": "VARCHAR",
    "output": "VARCHAR",
    "slot": "BIGINT",
    "pid": "BIGINT",
    "code": "VARCHAR",
    "queued_at": "DOUBLE",
    "backoff": "DOUBLE",
    "error": "VARCHAR",
    "error_type": "VARCHAR",
    "error_category": "VARCHAR",
    "retryable": "INTEGER",
    "traceback": "VARCHAR",
}
_COMPLETED_COLUMNS = (
    *("attempt_key", "started_at", "ended_at", "cpu", "result"),
    *("outcome", "slot", "pid", "peak_memory", "code"),
)
_TASK_COLUMNS = {"task_id": "VARCHAR", "task_type": "VARCHAR", "parameters": "VARCHAR", "metadata": "VARCHAR"}
_opening = threading.Lock()


class _File:
    """An open file: its writer, and who uses it. It is closed with its last user."""

    def __init__(self, path: Path, name: str) -> None:
        self.lock = threading.RLock()
        self.users = 0
        self.epochs: dict[int, int] = {}
        self.pid = os.getpid()
        self._parsed: dict[str, duckdb.Statement] = {}
        if not path.exists():
            _make(path)
        self.log = path.with_name(f"{path.name}.wal")
        self.connection = duckdb.connect(str(path), config=CONFIG)
        self.identity = _identity(path)
        try:
            self._prepare(name)
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self, name: str) -> None:
        tables = {table for (table,) in self.connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        if not tables:
            self.keep_private()
            self.connection.begin()
            self.connection.execute(schema())
            self.connection.execute("INSERT INTO geoflow VALUES (?)", (SCHEMA_VERSION,))
            self.connection.commit()
            return
        if not {"geoflow", "job", "task"} <= tables:
            raise StoreError(f"{name} is the database of another program. It was not touched: name another store.")
        row = self.connection.execute("SELECT max(schema) FROM geoflow").fetchone()
        if row is not None and row[0] > SCHEMA_VERSION:
            raise SchemaTooNew(
                f"{name} was written by a newer geoflow (schema {row[0]}, this one knows {SCHEMA_VERSION}). "
                "It was not touched: upgrade geoflow, or use another store."
            )

    def parsed(self, sql: str) -> duckdb.Statement:
        """A statement of ours, parsed once: that takes a third of the time of a small one."""
        if sql not in self._parsed:
            if len(self._parsed) >= _STATEMENTS:
                self._parsed.clear()
            (self._parsed[sql],) = self.connection.extract_statements(sql)
        return self._parsed[sql]

    def keep_private(self) -> None:
        """Have the log there before DuckDB makes it, each time anew, readable by everyone."""
        with contextlib.suppress(OSError):
            os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


_files: weakref.WeakValueDictionary[str, _File] = weakref.WeakValueDictionary()


def _keep_the_parents() -> None:
    """Never let go of what this fork was born with: to do so writes the file, and takes its log from the parent."""
    for file in list(_files.values()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(file.connection))  # also when the interpreter ends
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_keep_the_parents)


class DuckDbStore(TableStore):
    """The store in the DuckDB file *path*. Nothing is opened before it is needed; `StoreBusy` if a process has it."""

    _refused = duckdb.ConstraintException
    _TEXTS = "coalesce(CAST(to_json(list({} ORDER BY task_key)) AS VARCHAR), '[]')"
    _JSONS = "'[' || coalesce(string_agg(CAST({} AS VARCHAR), ',' ORDER BY task_key), '') || ']'"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        if not name or name == ":memory:":
            raise StoreError(f"A DuckDB store is a file such as 'work.duckdb', not {name!r}.")
        self._path = Path(name).absolute()
        super().__init__(name, Ownership(self._path))
        self._file: _File | None = None

    # Opening

    def open(self) -> None:
        self._open_file()

    def _open_file(self) -> _File:
        file = self._file
        if file is None:
            with _opening, _explaining(self.name):
                file = _files.get(key := os.path.realpath(self._path))
                if file is None:
                    _check_place(self._path)
                    file = _files[key] = _File(self._path, self.name)
                file.users += 1
            self._file, self._lock = file, file.lock
        if file.identity != _identity(self._path):  # DuckDB would go on writing to one that nobody finds again
            raise StoreError(
                f"{self.name} was deleted, moved or replaced while this session had it open. Nothing was written: put "
                "the file back, or close the session to begin with the one that is there."
            )
        if file.pid != os.getpid():
            raise StoreError(
                f"{self.name} was opened by process {file.pid}, of which this one is a fork: "
                "DuckDB would let both write, and lose rows. Use it in that process, or a SQLite store."
            )
        return file

    def shut(self) -> None:
        with self._lock:
            self._ownership.release_all()
            self._epochs.clear()
            file, self._file = self._file, None
            if file is None or file.pid != os.getpid():
                return
            with _opening:
                file.users -= 1
                if not file.users:
                    _files.pop(os.path.realpath(self._path), None)
                    file.connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._open_file().connection.cursor()
        try:
            with _explaining(self.name):
                yield cursor
        finally:
            cursor.close()

    @contextlib.contextmanager
    def _transaction(self, lease: Lease | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        file = self._open_file()
        with file.lock, _explaining(self.name):
            file.keep_private()
            file.connection.begin()
            try:
                if lease is not None:
                    self._verify(file.connection, lease)
                yield file.connection
                file.connection.commit()
            except BaseException:
                with contextlib.suppress(duckdb.Error):  # a commit that failed has rolled back already
                    file.connection.rollback()
                raise

    # In DuckDB's own way

    def claim(self, job_key: int, owner: str) -> Lease:
        file = self._open_file()
        with file.lock:
            lease = super().claim(job_key, owner)
            file.epochs[job_key] = lease.epoch
        return lease

    def _verify(self, connection: duckdb.DuckDBPyConnection, lease: Lease) -> None:
        # Every claim of this file is made in this process, and a look at the row takes as long as most changes.
        if self._open_file().epochs.get(lease.job_key) != lease.epoch:
            super()._verify(connection, lease)

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        file = self._open_file()
        with file.lock, _explaining(self.name):
            return file.connection.execute(file.parsed(sql), values).fetchall()

    def _changed(self, connection: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]) -> int:
        used = {name: value for name, value in values.items() if f"${name}" in sql}
        row = connection.execute(self._open_file().parsed(sql), used).fetchone()
        return int(row[0]) if row else 0

    def insert_rows(
        self, connection: duckdb.DuckDBPyConnection, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        described = connection.execute(f"SELECT {', '.join(names)} FROM {table} LIMIT 0").description
        types = {column[0]: "VARCHAR" if str(column[1]) == "JSON" else str(column[1]) for column in described}
        insert(connection, table, types, dict(zip(names, zip(*rows, strict=True), strict=True)))

    def _insert_tasks(
        self, connection: duckdb.DuckDBPyConnection, stage_key: int, first_key: int, tasks: NewTasks
    ) -> None:
        total = len(tasks.task_ids)
        for start in range(0, total, _TASKS_AT_ONCE):
            end = min(start + _TASKS_AT_ONCE, total)
            columns = {name: column[start:end] for name, column in zip(_TASK_COLUMNS, tasks, strict=True)}
            given = {"task_key": range(first_key + start, first_key + end), "stage_key": (stage_key,) * (end - start)}
            insert(connection, "task", {"task_key": "BIGINT", "stage_key": "BIGINT"} | _TASK_COLUMNS, given | columns)

    def _insert_attempts(self, connection: duckdb.DuckDBPyConnection, attempts: Sequence[Attempt]) -> None:
        rows = [
            (
                *(attempt.key * ATTEMPTS_PER_TASK + attempt.attempt, *attempt[2:8], *attempt[9:]),
                *(attempt.failure or (None, None, None, None, None)),
            )
            for attempt in attempts
        ]
        columns = dict(zip(_ATTEMPT_COLUMNS, zip(*rows, strict=True), strict=True))
        columns["retryable"] = tuple(None if value is None else int(value) for value in columns["retryable"])
        insert(connection, "attempt", _ATTEMPT_COLUMNS, columns)

    def _insert_completed(self, connection: duckdb.DuckDBPyConnection, completed: Sequence[Completed]) -> None:
        columns: dict[str, list[Any]] = {name: [] for name in _COMPLETED_COLUMNS}
        for several in completed:
            count, *told = len(several.keys), several.started_at, several.ended_at, several.cpu, several.results
            about = several.slot, several.pid, several.peak_memory, several.code
            keys = (key * ATTEMPTS_PER_TASK + several.attempt for key in several.keys)
            same = ([value] * count for value in (str(Outcome.COMPLETED), *about))
            for column, values in zip(columns.values(), (keys, *told, *same), strict=True):
                column.extend(values)
        insert(connection, "attempt", {name: _ATTEMPT_COLUMNS[name] for name in columns}, columns)

    def _start(self, connection: duckdb.DuckDBPyConnection, take: Take) -> Iterator[Batch]:
        """As for any store, but with one statement for all new tasks: to plan one takes DuckDB a millisecond."""
        yield from super()._start(connection, take._replace(sizes=()))
        if not take.sizes:
            return
        stage, wanted = take.stage, sum(take.sizes)
        after = max(take.after, stage.first_key - 1)
        near = min(after + wanted + 1, stage.end_key)
        rows = self._new_rows(connection, after, near, wanted)
        if len(rows) < wanted and near < stage.end_key:  # some there have run before
            rows += self._new_rows(connection, near - 1, stage.end_key, wanted - len(rows))
        batches = []
        for size in take.sizes:
            if not rows:
                raise nothing_queued(stage, size)
            _, alike = next(groupby(rows[:size], lambda row: row[3:]))
            keys, names, parameters, types, attempts = zip(*alike, strict=True)
            texts = to_json(names), f"[{','.join(parameters)}]"
            batches.append(Batch(types[0], attempts[0] + 1, 0, 0, stage.first_key, consecutive(keys), *texts))
            rows = rows[len(keys) :]
        self._move(connection, [Move("start", batch.keys) for batch in batches])
        yield from batches

    def _new_rows(self, connection: duckdb.DuckDBPyConnection, after: int, before: int, limit: int) -> list[Any]:
        sql = (
            "SELECT task_key, task_id, CAST(parameters AS VARCHAR), task_type, attempt FROM task"
            " WHERE task_key > ? AND task_key < ? AND status = 'queued' AND retries = 0 AND losses = 0"
            " ORDER BY task_key LIMIT ?"
        )
        return connection.execute(self._open_file().parsed(sql), (after, before, limit)).fetchall()


def schema() -> str:
    """The SQL that makes an empty store."""
    return resources.files("geoflow.stores").joinpath("schema_duckdb.sql").read_text("utf-8")


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, types: dict[str, str], columns: Mapping[str, Sequence[Any]]
) -> None:
    """Add rows to *table*, given as *columns* of one length: each travels as one JSON text.

    A statement for each row, or a list as a parameter, costs DuckDB three times as much and more. A column that is the
    same in every row travels once, but for the first, which says how many rows there are.
    """
    names: list[str] = []
    selected: list[str] = []
    values: list[Any] = []
    for name, type_ in types.items():
        column = columns[name]
        if not names or column.count(column[0]) != len(column):
            selected.append(f"unnest(from_json(?, '[\"{type_}\"]'))")
            values.append(to_json(list(column)))
        elif column[0] is None:
            continue
        else:
            selected.append("?")
            values.append(column[0])
        names.append(name)
    connection.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(selected)}", values)


# Opening


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a folder: the store is a file, such as {path / 'geoflow.duckdb'}.")
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be opened: the folder {path.parent} does not exist. Make it first.")
    if "?" in str(path):
        raise StoreError(f"{path} has a '?' in it, behind which DuckDB sees no part of a path: name another store.")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at *path* now, if any."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make(path: Path) -> None:
    """Make an empty database that is readable by its owner alone; DuckDB would let everyone read it."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as exc:
        raise StoreError(
            f"{path} cannot be made: {exc.strerror}. Check the folder's permissions and the disk."
        ) from exc
    try:
        new = folder / path.name
        duckdb.connect(str(new)).close()
        new.chmod(0o600)
        with contextlib.suppress(FileExistsError):  # another process was a moment faster
            os.link(new, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _explaining(name: str) -> Iterator[None]:
    """DuckDB's errors in words: what happened to which file, and what is safe."""
    try:
        yield
    except duckdb.Error as exc:
        raise _explained(exc, name) from exc


def _explained(exc: duckdb.Error, name: str) -> StoreError:
    text = " ".join(str(exc).split())
    said = re.sub(r'"[^"]*"', "", text)  # without the path, in which anything may stand
    if "Could not set lock" in said:
        held = re.search(r"PID (?P<pid>[1-9]\d*)", said)  # PID 0 where it was gone before DuckDB looked who it was
        holder = f"process {held['pid']}" if held else "another process"
        return StoreBusy(
            f"{name} is held by {holder}: DuckDB lends a file to one process at a time, also to look at. "
            "Close the session there, or keep the jobs in a SQLite store, which many may open."
        )
    if "different configuration" in said:
        return StoreBusy(f"{name} is open in this process by other means than geoflow: close that connection first.")
    if "No space left" in said or "not enough space" in said.lower():
        return StoreError(f"The disk of {name} is full. What was committed is safe; free some space, then resume.")
    if "not a valid DuckDB" in said or "sqlite_scanner" in said or "extension" in said.lower():
        return StoreError(f"{name} is not a DuckDB file. It was not touched: name another store.")
    if "Corrupt database" in said:
        return StoreError(f"{name} is damaged ({text}). Keep a copy, and start with another store.")
    if "WAL" in said:
        return StoreError(
            f"The log {name}.wal cannot be read back ({text}). Keep a copy of both files; without the log, what was "
            "written since the last checkpoint is missing, and a resume runs it again."
        )
    if "Permission denied" in said or "read-only" in said:
        return StoreError(f"{name} cannot be written ({text}). Check the permissions of the file and of its folder.")
    return StoreError(f"{name}: {text}")
