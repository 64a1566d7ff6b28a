"""Whether all rows of a job are there: in a damaged store a row is passed over whose key is another one now."""

from __future__ import annotations

from typing import Any

from geoflow.errors import StoreError

MISSING = (
    "Tasks or attempts of this job are missing from the store: it is damaged, another program changed it, or the job"
    " was removed meanwhile. session.sql() shows what is there."
)


def due(connection: Any, table: str, first: int, last: int) -> range:
    """How many of the *tasks*, or of their *attempts*, have to be there.

    A task that runs has its attempt at its end, and one that was cancelled as it ran may have none.
    """
    if table == "tasks":
        return range(last - first + 1, last - first + 2)
    sql = (
        "SELECT coalesce(sum(attempt), 0),"
        " coalesce(sum(CASE WHEN status IN ('processing', 'cancelled') THEN 1 ELSE 0 END), 0)"
        " FROM task WHERE task_key BETWEEN ? AND ?"
    )
    begun, open_ones = connection.execute(sql, (first, last)).fetchone()
    return range(int(begun - open_ones), int(begun) + 1)


def there(row: Any) -> Any:
    """A task's *row*; ``StoreError`` where the store has none."""
    if row is None:
        raise StoreError(MISSING)
    return row


def check_end(status: str, result: str | None, *, is_over: bool) -> None:
    """``StoreError`` where a task has completed without a result, or has not ended where its job *is over*."""
    if (status == "completed" and result is None) or (is_over and status not in ("completed", "failed")):
        raise StoreError(MISSING)
