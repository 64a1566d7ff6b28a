"""Jobs whose every execution leaves a line in a file, and what the store has on record of these executions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import geoflow as gf
from tests.helpers.sessions import Trace, rows

Tasks = list[dict[str, Any]]


def _tasks(trace: str, count: int, **act: Any) -> Tasks:
    return [{"trace": trace, **act}] * count


def _flaky(trace: str, count: int) -> Tasks:
    return _tasks(trace, count, do="raise", value="OSError", until_attempt=3)


# By name: the job type, and its parameters for a file of lines and a size.
SHAPES: dict[str, tuple[str, Callable[[str, int], dict[str, Any]]]] = {
    "short": ("acts", lambda trace, n: {"tasks": _tasks(trace, 20 * n)}),
    "brief": ("acts", lambda trace, n: {"tasks": _tasks(trace, n, do="sleep", value=0.005)}),
    "stages": (
        "three_acts",
        lambda trace, n: {"tasks": _tasks(trace, n, do="sleep", value=0.005), "tasks_2": _tasks(trace, 10 * n)},
    ),
    "flaky": ("acts", lambda trace, n: {"tasks": _flaky(trace, n)}),
    "slow to finalize": ("acts", lambda trace, n: {"tasks": _tasks(trace, n), "finalize": "slow"}),
    "slow to plan": (
        "two_acts",
        lambda trace, n: {"tasks": _tasks(trace, n), "tasks_2": _tasks(trace, n), "plan": "slow"},
    ),
}


class Account(NamedTuple):
    """Executions as ``"task attempt"``: those without an attempt on record, those that are there twice, and attempts
    that nobody saw the end of and that left no line, which is all that those may be."""

    executions: int
    attempts: int
    unaccounted: list[str]
    twice: list[str]
    unseen: int


def account(session: gf.Session, job: gf.JobHandle, trace: Trace) -> Account:
    """What the store has of the job, against what its executions left. An attempt that ended must have run."""
    lines = Counter(trace.lines())
    recorded = {
        f"{task} {number}": (outcome, error_type)
        for task, number, outcome, error_type in rows(
            session,
            "SELECT task_id, attempt, outcome, error_type FROM attempts WHERE job_id = ? AND task_type = 'act'",
            job.id,
        )
    }
    silent = [told for name, told in recorded.items() if name not in lines]
    assert all(outcome in ("lost", "interrupted", "cancelled") for outcome, _ in silent), silent
    return Account(
        lines.total(),
        len(recorded),
        [name for name in lines if name not in recorded],
        [name for name, times in lines.items() if times > 1],
        len(silent),
    )
