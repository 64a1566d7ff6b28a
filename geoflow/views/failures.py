"""Failed tasks, put together by what their errors have in common: the type, the shape of the message, the place."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from geoflow.core.models import Category
from geoflow.core.retry import explain, is_retryable
from geoflow.core.rows import StageRow
from geoflow.support.masking import mask_text
from geoflow.support.text import cut, human_duration, shorten
from geoflow.views.model import ErrorGroup
from geoflow.views.tracebacks import causes, fold, place
from geoflow.views.wording import GIVEN, READ, WHOLE, readable

__all__ = ["folded", "groups", "kinds", "place", "told", "why"]

EXAMINED, GROUPS, ATTEMPTS, TASKS = 200, 8, 5, 5  # the first failures are examined, and this much of them is shown
_FAILURES = (
    "SELECT t.task_key, t.task_id, t.retries, coalesce(a.error_type, ''), coalesce(a.error, ''),"
    " coalesce(a.error_category, ''), coalesce(substr(a.traceback, -4000), '')"
    " FROM task t JOIN attempt a ON a.attempt_key = (t.task_key << 12) + t.attempt"
    " WHERE t.task_key >= ? AND t.task_key < ? AND t.status = 'failed' ORDER BY t.task_key LIMIT ?"
)
ATTEMPTS_OF = (
    "SELECT a.attempt, backoff, outcome, duration, coalesce(error_type || ': ' || error, ''), traceback, output,"
    " substr(t.parameters, 1, ?) FROM attempts a JOIN task t ON t.task_key = a.task_key"
    " WHERE a.task_key = ? ORDER BY a.attempt DESC LIMIT ?"
)


def groups(connection: Any, stage: StageRow, secrets: Sequence[str]) -> tuple[ErrorGroup, ...]:
    """The largest groups of the first failures in *stage*."""
    alike: defaultdict[tuple[str, str, str | None], list[Any]] = defaultdict(list)
    for task in connection.execute(_FAILURES, (stage.first_key, stage.end_key, EXAMINED)).fetchall():
        *_, error_type, error, _, traceback = task
        alike[error_type, folded(error), place(traceback)].append(task)
    largest = sorted(alike.items(), key=lambda group: -len(group[1]))[:GROUPS]
    return tuple(_group(connection, where, tasks, secrets) for (_, _, where), tasks in largest)


class Kind(NamedTuple):
    """Attempts that failed alike: how many, of how many tasks, and the first of them."""

    attempts: int
    tasks: int
    error_category: str
    error_type: str
    error: str
    task_id: str


_OTHER = ("", "", "of other kinds")
MOST_KINDS = 1_000  # what differs from all of so many kinds is counted as one more
_FAILED = (
    "SELECT attempt_key >> 12, coalesce(error_category, ''), coalesce(error_type, ''),"
    " coalesce(substr(error, 1, 300), '') FROM attempt"
    " WHERE attempt_key >= ? AND attempt_key < ? AND outcome = 'failed' ORDER BY attempt_key"
)


def kinds(connection: Any, job_id: str) -> list[Kind]:
    """All attempts of a job that failed, those of plans that were set aside too, put together; the most come first."""
    alike: dict[tuple[str, str, str], list[Any]] = {}
    plans = "SELECT first_key, tasks FROM stages WHERE job_id = ? AND tasks > 0 ORDER BY first_key"
    for first, tasks in connection.execute(plans, (job_id,)).fetchall():
        cursor = connection.execute(_FAILED, (first << 12, (first + tasks) << 12))
        while rows := cursor.fetchmany(1_000):
            for task, *said in rows:
                kind = (said[0], said[1], folded(said[2]))
                is_other = kind not in alike and len(alike) >= MOST_KINDS
                kind, about = (_OTHER, _OTHER) if is_other else (kind, said)
                found = alike.setdefault(kind, [0, 0, None, *about, task])
                found[0] += 1
                found[1] += found[2] != task
                found[2] = task
    name = "SELECT task_id FROM task WHERE task_key = ?"
    return [
        Kind(attempts, tasks, category, error_type, error, connection.execute(name, (task,)).fetchone()[0])
        for attempts, tasks, _, category, error_type, error, task in sorted(alike.values(), key=lambda one: -one[0])
    ]


# What differs from task to task in a message: quoted parts, paths and URLs, and words with a digit in them.
_VARYING = re.compile(r"""'[^'\n]*+'|"[^"\n]*+"|(?<!\S)[^\s/\\]*+[/\\]\S*+|(?<!\w)(?=\w*\d)\w++""")


def folded(message: str) -> str:
    """The shape of *message*: the same for messages that differ in names and numbers only."""
    return _VARYING.sub("*", message[:300])


def _group(connection: Any, where: str | None, alike: list[Any], secrets: Sequence[str]) -> ErrorGroup:
    key, _, retries, error_type, error, category, _ = alike[0]
    attempts = connection.execute(ATTEMPTS_OF, (READ, key, ATTEMPTS)).fetchall()
    more = f" and {len(alike) - TASKS:,} more" if len(alike) > TASKS else ""
    message = cut(mask_text(error, secrets), 1000)
    details = {
        "Tasks": ", ".join(shorten(task_id, 100) for _, task_id, *_ in alike[:TASKS]) + more,
        "Message": message if len(message) > 200 or "\n" in message else "",
        **told(attempts, secrets, limit=1000),
        GIVEN: readable(attempts[0][-1], 600, secrets),
    }
    fate = f"{shorten(category, 20) or 'unknown'}, {'retried' if retries else 'not retried'}"
    shown = tuple((title, text) for title, text in details.items() if text)
    return ErrorGroup(len(alike), error_type, message, where, fate, why(error_type, category, retries), shown)


def told(attempts: Sequence[Any], secrets: Sequence[str], limit: int) -> dict[str, str]:
    """What the *attempts* of a task tell, last first, as rows of `ATTEMPTS_OF`: texts of about *limit* characters."""
    *_, traceback, output, _ = attempts[0]
    whole = mask_text(traceback or "", secrets)
    short = fold(whole)
    return {
        "Attempts": "\n".join(_attempt(row, secrets) for row in reversed(attempts)),
        "Cause chain": cut(causes(whole) or "", limit),
        "Traceback": cut(short, 2 * limit),
        WHOLE: cut(whole, 2 * limit) if whole != short else "",
        "What it printed": cut(mask_text(output or "", secrets), limit),
    }


def why(error_type: str, category: str, retries: int) -> str:
    """The rule that decided whether such a failure was retried."""
    if category == Category.LOST and error_type == "EngineLost":
        was = "It was running each time that its worker, or the process that drives the job, was killed"
        return f"{was}: such a task is not run again by itself."
    rule = explain(error_type, category)
    return f"{rule} Here the policy allowed no retry." if is_retryable(category) and not retries else rule


def _attempt(row: Any, secrets: Sequence[str]) -> str:
    number, waited, outcome, duration, error, *_ = row
    before = "no wait" if waited is None else f"waited {human_duration(waited)}"
    ran = "" if duration is None else f" after {human_duration(duration)}"
    return f"{number}, {before}: {outcome}{ran}{error and f': {shorten(mask_text(error, secrets), 160)}'}"
