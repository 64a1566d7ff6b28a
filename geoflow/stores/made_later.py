"""The tables that a store of the first schema has not, each made when it is first needed.

A geoflow that does not know them neither reads nor writes them, and drives the same store meanwhile; so they may hold
nothing that another table needs in order to be right.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Literal

from geoflow.stores.columns import COLUMNS, KINDS
from geoflow.stores.reading import TableReader

# Their columns, the key first: it says whose a row is, but for events and notes. `source_key` is that of the attempt
# that made the result: it ran; or the result's own, where that one was removed. `removed` has the highest keys that
# there were.
TABLES = {
    "reused": ("attempt_key", "source_key"),
    "anew": ("job_key", "mode", "since"),
    "reusable": ("task_key", "digest", "inputs"),
    "removed": ("job_key", "stage_key", "task_key"),
    # The text of the code that attempts name: of a handler, and of what it uses of the user's.
    "sources": ("code", "source"),
    # What sessions note of several jobs, for as long as the store is there.
    "note": ("name", "created_at", "value"),
    # By the job's id, which stays its own also when its row is gone.
    "events": (
        *("event_key", "job_id", "happened_at", "event", "was", "status", "stage", "tasks", "why"),
        *("session", "pid", "host"),
    ),
}
# What they are looked up by besides, in SQLite: DuckDB reads a column as quickly.
_INDEXES = {"reusable": "digest", "events": "job_id"}


def made_if_needed(table: str, database: Literal["sqlite", "duckdb"]) -> str:
    """The SQL that makes one of `TABLES`."""
    columns = [f"{name} {getattr(KINDS[COLUMNS[name]], database)}" for name in TABLES[table]]
    return f"CREATE TABLE IF NOT EXISTS {table} ({columns[0]} PRIMARY KEY, {', '.join(columns[1:])})"


class MadeLater(TableReader):
    """The part of a `geoflow.stores.store.Store` that makes such tables."""

    _DATABASE: ClassVar[Literal["sqlite", "duckdb"]]

    @abc.abstractmethod
    def _changed(self, connection: Any, sql: str, values: dict[str, Any]) -> int:
        """Run *sql*, which may leave out some of *values*; how many rows it changed."""

    def has(self, table: str) -> bool:
        """Whether the store has this one of `TABLES` by now."""
        return bool(self._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", table))

    def make(self, connection: Any, table: str) -> None:
        """Make one of `TABLES`, unless it is there."""
        connection.execute(made_if_needed(table, self._DATABASE))
        if self._DATABASE == "sqlite" and (column := _INDEXES.get(table)):
            connection.execute(f"CREATE INDEX IF NOT EXISTS {table}_{column} ON {table} ({column})")
