"""Sessions of the tests, and what is looked at in their stores."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geoflow as gf
from geoflow.stores.opening import is_duckdb
from geoflow.stores.store import Store

OpenSession = Callable[..., gf.Session]
Drive = Callable[..., subprocess.Popen[str]]
ROOT = str(Path(__file__).parents[2])  # where another process finds `tests`


class Trace:
    """A file to which each execution of a task of `jobs` adds a line: its id and the attempt's number."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self) -> list[str]:
        try:
            return Path(self.path).read_text().splitlines()
        except FileNotFoundError:
            return []


def rows(session: gf.Session, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What *sql* finds in the session's store."""
    with session.store.reading() as connection:
        return [tuple(row) for row in connection.execute(sql, values).fetchall()]


def leave_as_killed(store: Store) -> None:
    """Close *store* as its process's end would: locks dropped, nothing more written, the log there to be read back."""
    from geoflow.stores.duckdb import DuckDbStore

    if isinstance(store, DuckDbStore) and store._file is not None:
        store._file.connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    store.close()


def check_intact(store: Store) -> None:
    """The store's file is whole, and no row of it has lost the one that it belongs to."""
    with store.reading() as connection:
        if not is_duckdb(store.name):
            assert [tuple(row) for row in connection.execute("PRAGMA integrity_check")] == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            return
        # It has neither such a check nor foreign keys: all is read, and the last rows are looked for by their keys.
        for table, parent in (("job", None), ("stage", "job"), ("task", "stage"), ("attempt", "task")):
            keys = connection.execute(f"SELECT {table}_key FROM {table}").fetchall()
            assert len(connection.execute(f"FROM {table}").fetchall()) == len(set(keys)) == len(keys)
            for key in keys[-3:]:
                assert len(connection.execute(f"FROM {table} WHERE {table}_key = ?", key).fetchall()) == 1
            if parent is not None:
                lost = f"FROM {table} ANTI JOIN {parent} USING ({parent}_key)"
                assert connection.execute(lost).fetchall() == [], f"rows of {table} without a {parent}"
