"""How long a stage's tasks wait and run, and how long the rest of them will take: read from a sample of them.

A sample costs the same for a hundred thousand tasks as for a few hundred, and is all of them where there are few.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from geoflow.notebook.views import StageView
from geoflow.stores.base import JobRow, StageRow

SAMPLE = 200
_SAMPLED = (
    "SELECT count(*), sum(CASE WHEN a.ended_at >= $since THEN 1 ELSE 0 END), avg(a.ended_at - a.started_at),"
    " avg(a.started_at - coalesce(a.queued_at, $planned)) FROM task t"
    " JOIN attempt a ON a.attempt_key = (t.task_key << 12) + t.attempt WHERE t.task_key IN ({})"
)


class Sample(NamedTuple):
    """Of how many tasks the last attempt has ended, of how many in this run, and how long these attempts took."""

    ended: int
    ended_lately: int
    ran: float | None
    waited: float | None


def since(row: JobRow) -> float:
    """When the job was last taken up, as far as its owner says: to the second."""
    try:
        return datetime.fromisoformat(json.loads(row.owner or "{}")["since"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return row.created_at


def sampled(connection: Any, plan: StageRow, began: float) -> Sample:
    """What tasks at even distances tell of the stage, in a run that *began* then."""
    keys = range(plan.first_key, plan.end_key, max(1, -(-plan.task_count // SAMPLE)))
    if not keys:
        return Sample(0, 0, None, None)
    query = _SAMPLED.format(", ".join(map(str, keys)))
    ended, lately, ran, waited = connection.execute(query, {"since": began, "planned": plan.planned_at}).fetchone()
    return Sample(ended, lately or 0, _positive(ran), _positive(waited))


def timed(stage: StageView, sample: Sample) -> StageView:
    return replace(stage, ran=sample.ran, waited=sample.waited)


def remaining(stage: StageView, plan: StageRow, sample: Sample, began: float, now: float) -> float | None:
    """Seconds until the stage's tasks will have ended, at their pace in the run that *began* then; None if unknown."""
    ended = sum(stage.counts.get(state, 0) for state in ("completed", "failed"))
    left, seconds = stage.tasks - ended, now - max(began, plan.planned_at)
    # Those that ended in an earlier run say nothing of the pace of this one.
    lately = ended if plan.planned_at >= began or not sample.ended else ended * sample.ended_lately / sample.ended
    return seconds * left / lately if left > 0 and lately > 0 and seconds > 0 else None


def _positive(seconds: float | None) -> float | None:
    """Machines' clocks differ, and none of them ran backwards."""
    return None if seconds is None else max(seconds, 0.0)
