"""The open DuckDB file that all stores of a process share: made, opened, lent out, closed, its errors in words.

DuckDB lends a file to one process at a time, readers included, and knows nothing of forks.
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
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import duckdb

from geoflow.errors import SchemaTooNew, StoreBusy, StoreError
from geoflow.stores.place import check_place, check_same, file_at

SCHEMA_VERSION = 1
# Nothing is fetched from the network, and a name in a query is a table's, never a variable's of whoever asks. With one
# thread the many small statements take two thirds of the time.
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
_STATEMENTS = 200
_opening = threading.Lock()


class File:
    """An open file: its writer, and who uses it. It is closed with its last user."""

    def __init__(self, path: Path, name: str) -> None:
        self.lock = threading.RLock()
        self.epochs: dict[int, int] = {}
        self.users = 0
        self._key = os.path.realpath(path)
        self._pid = os.getpid()
        self._parsed: dict[str, duckdb.Statement] = {}
        if not path.exists():
            _make(path)
        self._log = path.with_name(f"{path.name}.wal")
        self.connection = duckdb.connect(str(path), config=CONFIG)
        self._opened = file_at(path)
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
            self.connection.execute(_schema())
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
            os.close(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def check(self, path: Path, name: str) -> None:
        """Refuse what DuckDB would let pass, and lose rows by: the file is gone from *path*, or this is a fork."""
        check_same(self._opened, path, name)
        if self._pid != os.getpid():
            raise StoreError(
                f"{name} was opened by process {self._pid}, of which this one is a fork: "
                "DuckDB would let both write, and lose rows. Use it in that process, or a SQLite store."
            )

    def give_back(self) -> None:
        """One user less. A fork leaves the file as it is."""
        if self._pid != os.getpid():
            return
        with _opening:
            self.users -= 1
            if not self.users:
                _files.pop(self._key, None)
                self.connection.close()


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
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_keep_the_parents)


def _schema() -> str:
    return resources.files("geoflow.stores").joinpath("schema_duckdb.sql").read_text("utf-8")


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
