"""Whether the store is whole, and whether jobs in it were left half-way. Nothing of it is made or changed."""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from geoflow.errors import StoreBusy, StoreError
from geoflow.stores import sqlite
from geoflow.stores.opening import is_duckdb, opened
from geoflow.stores.questions import number_of_jobs
from geoflow.support.text import count, human_bytes, shorten
from geoflow.tools.doctor.diagnosis import Diagnosis, ok, problem, warning

DISK = "See what is said of its folder and of locks; a copy of it and its -wal on another disk can be looked at."
LOOK_SECONDS = 1.0
ANOTHER = "Name another store, with --store or GEOFLOW_STORE."


def store_file(path: Path, *, as_it_lies: bool = False) -> Diagnosis:
    """Whether the store is whole, and of a version that is known; *as_it_lies*: without locks, and nothing written."""
    quoted = shlex.quote(str(path))
    if not path.exists():
        return ok(f"{path} is not there yet: the first job makes it.")
    try:
        faults, about = _duckdb_faults(path) if is_duckdb(path) else _sqlite_faults(path, as_it_lies)
    except StoreError as exc:
        if as_it_lies and isinstance(exc.__cause__, sqlite3.OperationalError):
            return _unknown(path, exc.__cause__)
        if not isinstance(exc, StoreBusy):
            return problem(str(exc), ANOTHER)
        return warning(str(exc), "Ask again once that process has ended.")
    except sqlite3.DatabaseError as exc:
        if isinstance(exc, sqlite3.OperationalError):  # of the disk: it says nothing of the file
            return _unknown(path, exc)
        faults, about = str(exc), ""
    text = f"{path}, {human_bytes(path.stat().st_size)}{about}"
    if faults:
        remedy = f"Keep a copy of {quoted}*, and go on with another store; sqlite3 {quoted} .recover saves what it can."
        return problem(f"{text}, is damaged: {shorten(faults, 200)}", remedy)
    if not os.access(path, os.W_OK):
        return problem(f"{text}, cannot be written.", "Change its owner or its mode.")
    if path.stat().st_mode & 0o077:
        return warning(f"{text}. Others may read it.", f"chmod 600 {quoted}")
    return ok(f"{text}.")


def _unknown(path: Path, exc: sqlite3.Error) -> Diagnosis:
    return problem(f"{path} cannot be looked at ({exc}): whether it is whole is not known.", DISK)


def _sqlite_faults(path: Path, as_it_lies: bool) -> tuple[str, str]:
    """What is damaged, and what else there is to say."""
    with _looked_at(path, as_it_lies) as (connection, version):
        faults = [fault for (fault,) in connection.execute("PRAGMA quick_check(3)") if fault != "ok"]
        # What it passes: a row whose key is another one now, as a job is that no list has any more.
        orphans = Counter((child, parent) for child, _, parent, _ in connection.execute("PRAGMA foreign_key_check"))
    faults += [f"the {parent} of {number:,} rows of {child} is missing" for (child, parent), number in orphans.items()]
    if faults:
        return "; ".join(faults), ""
    about = f", whole, schema {version}"
    if version < sqlite.SCHEMA_VERSION:
        about += f" (the next session brings it to {sqlite.SCHEMA_VERSION})"
    return "", about


def _duckdb_faults(path: Path) -> tuple[str, str]:
    from geoflow.stores.duckdb_file import read_through

    with opened(path) as store, store.reading() as connection:
        read_through(connection)
    return "", ", can be read"


def jobs(path: Path) -> Diagnosis:
    """Jobs that are not at their end, and that no process drives."""
    try:
        if not path.exists() or not _is_of_now(path):
            return ok("There are none to look at.")
        with opened(path) as store:
            stopped = [row for row in store.unended() if store.driver(row.job_key) is None]
            with store.reading() as connection:
                number = number_of_jobs(connection)
    except (StoreError, sqlite3.Error):
        return ok("They cannot be looked at; see what is said of the store.")
    if not stopped:
        return ok(f"{count(number, 'job')}; none was left half-way.")
    shown = ", ".join(f"{row.job_id[:8]} ({row.job_type}, {row.status})" for row in stopped[:3])
    more = f" and {len(stopped) - 3:,} more" if len(stopped) > 3 else ""
    text = f"{len(stopped):,} of {count(number, 'job')} not at the end, and driven by nobody: {shown}{more}."
    return warning(text, f"geoflow resume --store {shlex.quote(str(path))}")


@contextlib.contextmanager
def _looked_at(path: Path, as_it_lies: bool = False) -> Iterator[tuple[sqlite3.Connection, int]]:
    """The SQLite store, unchanged, and the version of its schema."""
    read = _as_it_lies if as_it_lies else sqlite.read_only
    sqlite.check_file(path, read)
    with contextlib.closing(read(path)) as connection:
        yield connection, connection.execute("PRAGMA user_version").fetchone()[0]


def _as_it_lies(path: Path) -> sqlite3.Connection:
    """Without locks and shared memory, unless a log belongs to it, which takes both."""
    log = Path(f"{path}-wal")
    more = "" if log.exists() and log.stat().st_size else "&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{more}", uri=True, timeout=LOOK_SECONDS)


def _is_of_now(path: Path) -> bool:
    """Whether to open it would change nothing."""
    if is_duckdb(path):
        return True
    with _looked_at(path) as (_, version):
        return version == sqlite.SCHEMA_VERSION
