"""Failed tasks, put together by what their errors have in common: type, shape of the message, place, and cause."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from geoflow.core.models import Category
from geoflow.core.retry import explain, is_retryable
from geoflow.core.rows import StageRow
from geoflow.stores.questions import Attempted, FailedTask, attempts_of, failed_attempts, failed_tasks, task_id
from geoflow.support.masking import mask_text
from geoflow.support.text import cut, human_duration, shorten
from geoflow.views.model import GIVEN, LAST_TOLD, LED, PRINTED, READ, TASKS, TRIED, WHOLE, ErrorGroup, readable
from geoflow.views.source_lines import around
from geoflow.views.tracebacks import cause, causes, fold, place, raised_by

EXAMINED, GROUPS, ATTEMPTS, NAMED = 200, 8, 5, 5  # the first failures are examined, and this much of them is shown


def groups(connection: Any, stages: Sequence[StageRow], secrets: Sequence[str]) -> tuple[ErrorGroup, ...]:
    """The largest groups of the first failures in each of *stages*."""
    alike: defaultdict[tuple[str, str, str | None, str], list[FailedTask]] = defaultdict(list)
    for task in chain.from_iterable(failed_tasks(connection, stage, EXAMINED) for stage in stages):
        where, led = place(task.traceback), folded(cause(task.traceback) or "")
        alike[task.error_type, folded(task.error), where, led].append(task)
    largest = sorted(alike.items(), key=lambda group: -len(group[1]))[:GROUPS]
    return tuple(_group(connection, kind, tasks, secrets) for kind, tasks in largest)


class FailureKind(NamedTuple):
    """Attempts that failed alike: how many, of how many tasks, and the first of them."""

    attempts: int
    tasks: int
    error_category: str
    error_type: str
    error: str
    task_id: str


_OTHER = ("", "", "of other kinds")
MOST_KINDS = 1_000  # what differs from all of so many kinds is counted as one more


def kinds(connection: Any, job_id: str) -> list[FailureKind]:
    """All attempts of a job that failed, those of plans that were set aside too, put together; the most come first."""
    alike: dict[tuple[str, str, str], _Tally] = {}
    for failed in failed_attempts(connection, job_id):
        kind = (failed.error_category, failed.error_type, folded(failed.error))
        if kind not in alike and len(alike) >= MOST_KINDS:
            kind = _OTHER
        tally = alike.setdefault(kind, _Tally(kind if kind is _OTHER else failed[1:], failed.task_key))
        tally.attempts += 1
        tally.tasks += tally.last != failed.task_key
        tally.last = failed.task_key
    most_first = sorted(alike.values(), key=lambda tally: -tally.attempts)
    return [
        FailureKind(tally.attempts, tally.tasks, *tally.about, task_id(connection, tally.first)) for tally in most_first
    ]


@dataclass
class _Tally:
    about: tuple[str, str, str]
    first: int
    attempts: int = 0
    tasks: int = 0
    last: int | None = None


# What differs from task to task in a message: quoted parts, paths and URLs, and words with a digit in them.
_VARYING = re.compile(r"""'[^'\n]*+'|"[^"\n]*+"|(?<!\S)[^\s/\\]*+[/\\]\S*+|(?<!\w)(?=\w*\d)\w++""")


def folded(message: str) -> str:
    """The shape of *message*: the same for messages that differ in names and numbers only."""
    return _VARYING.sub("*", message[:300])


def _group(
    connection: Any, kind: tuple[str, str, str | None, str], alike: list[FailedTask], secrets: Sequence[str]
) -> ErrorGroup:
    key, _, retries, error_type, error, category, traceback = alike[0]
    attempts = attempts_of(connection, key, ATTEMPTS, READ)
    more = f" and {len(alike) - NAMED:,} more" if len(alike) > NAMED else ""
    message = cut(mask_text(error, secrets), 1000)
    raised = raised_by(traceback)
    source = raised and around(raised, attempts[0].ended_at)
    details = {
        TASKS: ", ".join(shorten(task.task_id, 100) for task in alike[:NAMED]) + more,
        "Message": message if len(message) > 200 or "\n" in message else "",
        **history(attempts, secrets, limit=1000),
        GIVEN: readable(attempts[0].parameters, 600, secrets),
    }
    fate = f"{shorten(category, 20) or 'unknown'}, {'retried' if retries else 'not retried'}"
    shown = tuple((title, details[title]) for title in sorted(details, key=LAST_TOLD.__contains__) if details[title])
    led = cut(mask_text(cause(traceback) or "", secrets), 1000) or None
    about = (error_type, message, kind[2], fate, why(error_type, category, retries), shown, led)
    return ErrorGroup(
        len(alike), *about, source and mask_text(source, secrets), repr(kind), shorten(alike[0].task_id, 100)
    )


def history(attempts: Sequence[Attempted], secrets: Sequence[str], limit: int) -> dict[str, str]:
    """What the *attempts* of a task tell, last first: texts of about *limit* characters, by their titles."""
    whole = mask_text(attempts[0].traceback or "", secrets)
    short = fold(whole)
    return {
        TRIED: "\n".join(_attempt(attempt, secrets) for attempt in reversed(attempts)),
        LED: cut(causes(whole) or "", limit),
        "Traceback": cut(short, 2 * limit),
        WHOLE: cut(whole, 2 * limit) if whole != short else "",
        PRINTED: cut(mask_text(attempts[0].output or "", secrets), limit),
    }


def why(error_type: str, category: str, retries: int) -> str:
    """The rule that decided whether such a failure was retried."""
    if category == Category.LOST and error_type == "EngineLost":
        was = "It was running each time that its worker, or the process that drives the job, was killed"
        return f"{was}: such a task is not run again by itself."
    rule = explain(error_type, category)
    return f"{rule} Here the policy allowed no retry." if is_retryable(category) and not retries else rule


def _attempt(attempt: Attempted, secrets: Sequence[str]) -> str:
    number, waited, outcome, duration, error, *_ = attempt
    before = "no wait" if waited is None else f"waited {human_duration(waited)}"
    ran = "" if duration is None else f" after {human_duration(duration)}"
    return f"{number}, {before}: {outcome}{ran}{error and f': {shorten(mask_text(error, secrets), 160)}'}"
