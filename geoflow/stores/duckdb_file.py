"""The open DuckDB file that all stores of a process share: made, opened, lent out, closed, its errors in words.

DuckDB lends a file to one process at a time, readers included, and knows nothing of forks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import threading
import weakref
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from geoflow.errors import SchemaTooNew, StoreBusy, StoreError
from geoflow.stores.allowed_sql import reads_own_tables_alone
from geoflow.stores.columns import COLUMNS, KINDS
from geoflow.stores.files import check_place, file_at, gone, growing_beside, private, rescued, set_aside
from geoflow.stores.locks import HOLDS, are_kept, lock, lock_file, open_lock_file, take_over
from geoflow.stores.made_later import TABLES as MADE_LATER

SCHEMA_VERSION = 1
# Nothing is fetched from the network, and a name in a query is a table's, never a variable's of whoever asks. With one
# thread the many small statements take two thirds of the time.
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
_TABLES = frozenset(("job", "stage", "task", "attempt"))
_STATEMENTS = 200
_opening = threading.Lock()


class File:
    """An open file: its writer, and who uses it. It is closed with its last user."""

    def __init__(self, path: Path, name: str) -> None:
        self.lock = threading.RLock()
        self.epochs: dict[int, int] = {}
        self.users = 0
        self.tables: set[str] | None = None  # where that is known
        self._key = os.path.realpath(path)
        self._pid = os.getpid()
        self._parsed: dict[str, duckdb.Statement] = {}
        self._why_not: str | None = None  # what became of the file that was opened
        self._log = path.with_name(f"{path.name}.wal")
        self._log_opened: tuple[int, int] | None = None
        self._kept: list[int] = []  # descriptors, whose locks stay when DuckDB's own is dropped by a copy of the file
        try:
            self._keep_others_out(path, name)
            if not path.exists():
                _make(path)
            self.connection = duckdb.connect(str(path), config=CONFIG)
        except BaseException:
            self.let_go()
            raise
        self._opened = file_at(path)
        try:
            self._take_over(path, name)
            self._prepare(name)
        except BaseException:
            self.connection.close()
            self.let_go()
            raise

    def _keep_others_out(self, path: Path, name: str) -> None:
        """Be the one process whose geoflow has the file. DuckDB's own lock goes when it is copied here."""
        if not are_kept():
            return
        self._kept.append(open_lock_file(lock_file(path)))
        if not lock(self._kept[0], HOLDS):
            raise held(name, os.pread(self._kept[0], 20, 0).decode("ascii", "ignore").strip())
        os.pwrite(self._kept[0], f"{os.getpid():<20}".encode(), 0)

    def _take_over(self, path: Path, name: str) -> None:
        """The same towards programs that are not geoflow: of the file itself, in place of DuckDB's own lock."""
        if are_kept():
            self._kept.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            if not take_over(self._kept[-1]):
                raise held(name, "")

    def let_go(self) -> None:
        while self._kept:
            os.close(self._kept.pop())

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
        # A view is run when it is looked at, and a file may come from anywhere.
        views = self.connection.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
        macros = self.connection.execute("SELECT count(*) FROM duckdb_functions() WHERE NOT internal").fetchone()
        if macros != (0,) or not all(reads_own_tables_alone(view, _TABLES) for (view,) in views):
            raise StoreError(f"{name} has views that are not geoflow's: it was not looked at. Name another store.")
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
            os.close(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def check(self, path: Path, name: str) -> None:
        """Refuse what DuckDB would let pass, and lose rows by: the file is gone from *path*, or this is a fork."""
        if self._opened != (now := file_at(path)):
            if now is not None and self._why_not is None and self._pid == os.getpid():
                self._why_not = self._replaced(path, name)
            raise StoreError(self._why_not or gone(name))
        if self._pid != os.getpid():
            raise StoreError(
                f"{name} was opened by process {self._pid}, of which this one is a fork: "
                "DuckDB would let both write, and lose rows. Use it in that process, or a SQLite store."
            )

    def settled(self) -> None:
        """Remember which file the log is, after something was written."""
        self._log_opened = file_at(self._log)

    def _replaced(self, path: Path, name: str) -> str:
        """Set aside what belongs to the file that was opened: it is not of the one that is there now."""
        with self.lock:
            why = gone(name)
            # Else the next one that opens the new file reads the old one's log into it, or refuses both.
            ours = self._log_opened is not None and file_at(self._log) == self._log_opened
            if ours and (aside := set_aside(path, (".wal",))):
                why += f" The log of the file that was opened is now {aside[0].name}."
            if (kept := rescued(path, ".duckdb", self.copy_to, duckdb.Error)) is not None:
                why += f" What this session had stored is kept in {kept}."
            return why

    def copy_to(self, target: Path) -> None:
        """Write all that the file has at this moment to the new file *target*."""
        if not self._kept:
            raise OSError("to read the file here would let go of it")
        with self.lock, open(target, "xb", opener=private) as copy:
            self.connection.execute("CHECKPOINT")
            at = 0
            while part := os.pread(self._kept[-1], 1 << 20, at):
                copy.write(part)
                at += len(part)

    def give_back(self) -> None:
        """One user less. A fork leaves the file as it is."""
        if self._pid != os.getpid():
            return
        with _opening:
            self.users -= 1
            if not self.users:
                _files.pop(self._key, None)
                self.connection.close()
                self.let_go()


def read_through(connection: duckdb.DuckDBPyConnection) -> None:
    """DuckDB has no check of its own: every value is read once."""
    there = {table for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    for table in sorted(there & {*_TABLES, *MADE_LATER}):
        connection.execute(f"SELECT count(COLUMNS(*)) FROM {table}").fetchall()


def check_whole(path: Path) -> None:
    """Refuse a file that nobody writes to, and that is damaged. Nothing is made beside it."""
    with explaining(str(path)), contextlib.closing(duckdb.connect(str(path), read_only=True, config=CONFIG)) as copy:
        read_through(copy)


_files: weakref.WeakValueDictionary[str, File] = weakref.WeakValueDictionary()


def borrow(path: Path, name: str) -> File:
    """The file at *path*, opened unless another store has it open. Its user gives it back."""
    with _opening, explaining(name):
        file = _files.get(key := os.path.realpath(path))
        if file is None:
            check_place(path, "geoflow.duckdb")
            if "?" in str(path):
                raise StoreError(
                    f"{path} has a '?' in it, behind which DuckDB sees no part of a path: name another store."
                )
            file = _files[key] = File(path, name)
        file.users += 1
    return file


def _keep_the_parents() -> None:
    """Never let go of what this fork was born with: to do so writes the file, and takes its log from the parent."""
    for file in list(_files.values()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(file.connection))  # also when the interpreter ends
        file.let_go()  # or it kept the locks when the parent is gone
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_keep_the_parents)


def schema() -> str:
    """The SQL that makes an empty store: that of SQLite in DuckDB's words, and what DuckDB has of its own.

    JSON has a type, which takes NaN too. An index cannot be partial: that a stage is not planned twice is for the one
    writer to see to. And there are no foreign keys, since DuckDB refuses any change of a row that another one refers to
    once the file was closed and opened again.
    """
    sqlites, own = (resources.files("geoflow.stores").joinpath(name).read_text("utf-8") for name in _SCHEMAS)
    for theirs, ours in _IN_DUCKDB:
        sqlites = re.sub(theirs, ours, sqlites, flags=re.MULTILINE | re.DOTALL)
    return sqlites + own


_SCHEMAS = ("schema.sql", "schema_duckdb.sql")
_IN_DUCKDB: tuple[tuple[str, Any], ...] = (
    (r"^CREATE (?:VIEW jobs|VIEW attempts|UNIQUE INDEX) .*?;", ""),
    (r" CHECK \((?:\w+ IS NULL OR )?json_valid\(\w+\)\)| REFERENCES \w+|(?<=\)) STRICT(?=;)", ""),
    (r"^  (\w+) (?:TEXT|INTEGER|REAL)\b", lambda column: f"  {column[1]} {KINDS[COLUMNS[column[1]]].duckdb}"),
    (r"\bjson_extract\(", "json_extract_string("),
)


def _make(path: Path) -> None:
    """Make an empty database that is readable by its owner alone; DuckDB would let everyone read it."""
    try:
        with growing_beside(path) as folder:
            new = folder / path.name
            duckdb.connect(str(new)).close()
            new.chmod(0o600)
            with contextlib.suppress(FileExistsError):  # another process was a moment faster
                os.link(new, path)
    except OSError as exc:
        raise StoreError(
            f"{path} cannot be made: {exc.strerror}. Check the folder's permissions and the disk."
        ) from exc


def held(name: str, pid: str) -> StoreBusy:
    holder = f"process {pid}" if pid.isdecimal() else "another process"
    return StoreBusy(
        f"{name} is held by {holder}: DuckDB lends a file to one process at a time, also to look at. "
        "Close the session there, or keep the jobs in a SQLite store, which many may open."
    )


@contextlib.contextmanager
def explaining(name: str) -> Iterator[None]:
    """DuckDB's errors in words: what happened to which file, and what is safe."""
    try:
        yield
    except duckdb.Error as exc:
        raise _explained(exc, name) from exc


def _explained(exc: duckdb.Error, name: str) -> StoreError:
    text = " ".join(str(exc).split())
    said = re.sub(r'"[^"]*"', "", text)  # without the path, in which anything may stand
    if "Could not set lock" in said:
        pid = re.search(r"PID ([1-9]\d*)", said)  # PID 0 where it was gone before DuckDB looked who it was
        return held(name, pid[1] if pid else "")
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
