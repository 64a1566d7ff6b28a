"""Bring a store's schema up to date: make it whole when it is new, step by step when it is older.

A new store is made from `schema.sql`. An older one is copied beside itself first, then changed through sqlite-utils,
whose ``transform`` rewrites a table where SQLite's own ALTER cannot.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from geoflow.errors import SchemaTooNew, StoreError

if TYPE_CHECKING:
    from sqlite_utils import Database

# From which version: what leads to the next one. Version 1 is the first that was released.
STEPS: Mapping[int, Callable[[Database], None]] = {}


def bring_up_to_date(
    connection: sqlite3.Connection,
    path: Path | None,
    schema: str,
    application_id: int,
    target: int,
    steps: Mapping[int, Callable[[Database], None]] = STEPS,
) -> None:
    """Give *connection* the schema *target*, in one transaction. An existing file is backed up first."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()  # another process may have been faster
        if version > target:
            raise SchemaTooNew(f"A newer geoflow has just brought {path} to schema {version}: upgrade this one.")
        if version == 0:
            for statement in _statements(schema):
                connection.execute(statement)
        elif version < target:
            if path is not None:
                _back_up(connection, path, version)
            _migrate(connection, version, target, steps)
        connection.execute(f"PRAGMA application_id = {application_id}")
        connection.execute(f"PRAGMA user_version = {target}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _statements(schema: str) -> list[str]:
    statements, current = [], ""
    for line in schema.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


def _back_up(connection: sqlite3.Connection, path: Path, version: int) -> None:
    backup = path.with_name(f"{path.name}.v{version}.backup")
    if backup.exists():
        return
    # Under another name until it is whole: a copy that was cut short must not pass for one.
    growing = path.with_name(f"{backup.name}.{os.getpid()}")
    os.close(os.open(growing, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
    source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    with contextlib.closing(source), contextlib.closing(sqlite3.connect(growing)) as target:
        source.backup(target)
    growing.replace(backup)


def _migrate(
    connection: sqlite3.Connection, version: int, target: int, steps: Mapping[int, Callable[[Database], None]]
) -> None:
    from sqlite_utils import Database

    database = Database(connection)
    for step in range(version, target):
        if step not in steps:
            raise StoreError(f"No way is known from schema {step} to {step + 1}: open it with an older geoflow.")
        steps[step](database)
