"""Tasks of a stage in lists, by what one looks for: a state, a type of error, a part of a text; the worst first."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from typing import Any, NamedTuple

from geoflow.core.rows import StageRow
from geoflow.stores import columns


class ListedTask(NamedTuple):
    """A task as a line of a list; the error and how long it took are those of its last attempt."""

    task_key: int
    task_id: str
    status: str
    retries: int
    error_type: str
    error: str
    duration: float | None


class Wanted(NamedTuple):
    """Which tasks are listed: of this status, failed with this type of error, with this *part* of a text in them.

    Each is "" where it does not matter. *order* is ``worst``, by their states, ``longest``, or ``planned``.
    """

    status: str = ""
    error_type: str = ""
    part: str = ""
    order: str = "worst"


def tasks(connection: Any, stage: StageRow, wanted: Wanted, limit: int, states: Sequence[str]) -> list[ListedTask]:
    """The first of *stage*'s tasks that are *wanted*; the worst of *states* comes first."""
    worst = f"CASE status {' '.join(f'WHEN {state!r} THEN {place}' for place, state in enumerate(states))} END, "
    order = {"worst": worst, "longest": "coalesce(a.ended_at - a.started_at, -1.0) DESC, "}.get(wanted.order, "")
    which, values = _which(stage, wanted)
    # Only what is listed is looked up among the attempts, where that is enough.
    chosen = f"SELECT t.* {which} ORDER BY {order}t.task_key LIMIT $limit"
    sql = (
        "SELECT chosen.task_key, task_id, status, retries, coalesce(a.error_type, ''),"
        f" coalesce(substr(a.error, 1, 300), ''), a.ended_at - a.started_at FROM ({chosen}) chosen"
        f" LEFT JOIN {columns.last_attempt('chosen')} ORDER BY {order}chosen.task_key"
    )
    return list(map(ListedTask._make, connection.execute(sql, {**values, "limit": limit}).fetchall()))


def number(connection: Any, stage: StageRow, wanted: Wanted) -> int:
    """How many of *stage*'s tasks are *wanted*."""
    if not any(wanted[:3]):
        return stage.task_count
    which, values = _which(stage, wanted)
    return int(connection.execute(f"SELECT count(*) {which}", values).fetchone()[0])


def _which(stage: StageRow, wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """From where, and with which conditions, and the values for these."""
    texts = ("t.task_id", "t.parameters", "coalesce(a.error_type || ': ' || a.error, '')")
    conditions: dict[str, dict[str, Any]] = {
        "t.task_key >= $first AND t.task_key < $end": {"first": stage.first_key, "end": stage.end_key},
        "t.status = $status": {"status": wanted.status},
        "t.status = 'failed' AND a.error_type = $error": {"error": wanted.error_type},
        f"({' OR '.join(f'instr(lower({text}), $part) > 0' for text in texts)})": {"part": wanted.part.lower()},
    }
    meant = {condition: values for condition, values in conditions.items() if "" not in values.values()}
    looked_up = wanted.error_type or wanted.part or wanted.order == "longest"
    joined = f" LEFT JOIN {columns.last_attempt()}" if looked_up else ""
    return f"FROM task t{joined} WHERE {' AND '.join(meant)}", dict(ChainMap(*meant.values()))


def error_types(connection: Any, stage: StageRow) -> dict[str, int]:
    """With which types of errors tasks of *stage* have failed, and how many with each."""
    sql = (
        f"SELECT coalesce(a.error_type, ''), count(*) FROM task t JOIN {columns.last_attempt()}"
        " WHERE t.task_key >= ? AND t.task_key < ? AND t.status = 'failed' GROUP BY 1"
    )
    return dict(connection.execute(sql, (stage.first_key, stage.end_key)).fetchall())
