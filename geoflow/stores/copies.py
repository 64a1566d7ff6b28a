"""A SQLite store as another file: all that it has at one moment, and whether that arrived whole."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from geoflow.errors import StoreError

# Pages at once: between two portions an interrupt is heard, and other threads may work.
_PAGES = 1_000


def write_copy(connection: sqlite3.Connection, target: Path) -> None:
    """Copy what *connection* sees to the new file *target*, readable by its owner alone, and check it there."""
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = OFF")  # half a copy is of no use, and is thrown away
            connection.backup(copy, pages=_PAGES, progress=lambda *_: None)
    except sqlite3.Error as exc:
        raise StoreError(f"The copy {target} could not be made: {exc}.") from exc
    check_whole(target)


def check_whole(path: Path) -> None:
    """Refuse a file that nobody writes to, and that is damaged. Nothing is made beside it."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as copy:
        (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise StoreError(f"{path} is damaged: {verdict}")
