"""Many rows of a store, column by column: each comes as one JSON text, at a third of the price of as many objects.

No text is longer than one message may be, whatever the rows hold: of long ones fewer are read at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from geoflow.errors import StoreError
from geoflow.stores.columns import ATTEMPTS_BETWEEN, ATTEMPTS_PER_TASK, COLUMNS
from geoflow.stores.reading import by_ranges
from geoflow.stores.sqlite import one_row
from geoflow.support.jsonable import from_json

Keys = tuple[int, int]  # the first and the last
# What rows are read of, and by which key: jobs, tasks with their last attempt, attempts with their task, or alone.
_SOURCES = {
    "jobs": ("jobs WHERE job_key BETWEEN $first AND $last", "job_key"),
    "tasks": (
        f"task LEFT JOIN attempt ON attempt_key = task.task_key * {ATTEMPTS_PER_TASK} + task.attempt"
        " WHERE task.task_key BETWEEN $first AND $last",
        "task.task_key",
    ),
    "attempts": (
        f"attempt JOIN task USING (task_key) WHERE {ATTEMPTS_BETWEEN}",
        "attempt_key",
    ),
    "runs": (f"attempt WHERE {ATTEMPTS_BETWEEN}", "attempt_key"),
}
_SQL = {"attempts": "task.attempt", "attempt": "attempt.attempt"}
_AT_ONCE = 1_000  # keys: few enough for the processor's caches and for SQLite's longest text


class Piece(NamedTuple):
    """Some rows, in the order of their keys: the columns of their own, and of the others what is *usual* in all rows
    but in those that are *unlike*, which come with their keys."""

    columns: list[list[Any]]
    usual: list[Any]
    unlike: list[list[Any]]


def read(
    connection: Any, table: str, own: Sequence[str], alike: Sequence[str], keys: Sequence[Keys], condition: str = ""
) -> Iterator[Piece]:
    """The rows of *table* with these *keys*, for which a *condition* holds.

    Columns of their *own* come for each row; columns that are mostly *alike* only for rows that are not like most.
    """
    select, most = _select(connection, table, own, alike, condition)
    usual: list[Any] = [None for _ in alike]

    def ask(first: int, last: int, longest: int | None) -> Any:
        values = {"first": first, "last": last, **dict(zip(alike, usual, strict=True))}
        if isinstance(connection, sqlite3.Connection):
            return one_row(connection, select, values, longest)
        return connection.execute(select, values).fetchone()

    for row in by_ranges(ask, keys, most):
        columns = [_sound(text) for text in row]
        unlike = columns.pop() if alike else []
        yield Piece(columns, usual, unlike)
        if unlike and len(unlike) > len(columns[0]) / 2:
            newest = zip(alike, unlike[-1][1:], strict=True)
            usual = [None if COLUMNS[name] in ("time", "span") else value for name, value in newest]


def task_key(attempt_key: Any) -> Any:
    """The key of an attempt's task; of an array of keys, an array."""
    return attempt_key // ATTEMPTS_PER_TASK


def _select(connection: Any, table: str, own: Sequence[str], alike: Sequence[str], condition: str) -> tuple[str, int]:
    """A query for the columns *own*, and for key and *alike* where these are not as usual; and for how many keys."""
    source, key = _SOURCES[table]
    # SQLite reads by the key, and so in order; DuckDB is to be told, and would rather be asked for much at once.
    if isinstance(connection, sqlite3.Connection):
        every, joined = "json_group_array({}){}", "'[' || coalesce(group_concat(coalesce({}, 'null')), '') || ']'"
        rounded, differs, most = "CAST({} * 1e6 + 0.5 AS INTEGER)", "IS NOT", _AT_ONCE
    else:
        every = f"coalesce(CAST(to_json(list({{}} ORDER BY {key}){{}}) AS VARCHAR), '[]')"
        joined = every.format("CAST({} AS JSON)", "")
        rounded, differs, most = "CAST(round({} * 1e6) AS BIGINT)", "IS DISTINCT FROM", 10 * _AT_ONCE
    sql = {name: _SQL.get(name, name) for name in (*own, *alike)} | {"key": key}
    kinds = COLUMNS | {"key": "count"}
    shown = {name: rounded.format(sql[name]) if kinds[name] in ("time", "span") else sql[name] for name in sql}
    texts = [joined.format(name) if kinds[name] == "json" else every.format(shown[name], "") for name in own]
    row = ", ".join(shown[name] for name in ("key", *alike))
    differing = " OR ".join(f"{sql[name]} {differs} ${name}" for name in alike)
    if alike:
        texts.append(every.format(f"json_array({row})", f" FILTER (WHERE {differing})"))
    return f"SELECT {', '.join(texts)} FROM {source}{condition}", most


def _sound(text: str) -> Any:
    try:
        return from_json(text)
    except ValueError as exc:
        raise StoreError(
            "A row of the store has as JSON what is none, or is too deep: it is damaged, or another program changed it."
            " session.jobs() and session.sql() without its columns show the others."
        ) from exc
