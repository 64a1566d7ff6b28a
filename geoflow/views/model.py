"""What is drawn of a job: values that are masked and bounded, however many tasks there are, and what they say in words.

`geoflow.views.snapshot` reads them from a store, `geoflow.render.drawing` draws them, as HTML and as text in the same
words. Times are seconds since the epoch, durations seconds. Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, NamedTuple

from geoflow.core.models import Progress
from geoflow.support.jsonable import from_json
from geoflow.support.masking import mask, mask_text
from geoflow.support.text import count, first_lines, human_bytes, shorten
from geoflow.views.stages import StageView, left_of, took

SYMBOLS = {
    "queued": "○",
    "processing": "▸",
    "completed": "✓",
    "failed": "✗",
    "cancelled": "⊘",
    "interrupted": "‖",
    "completed with errors": "!",
    "not planned": "·",
}
# What can be done with a job, by the name of what does it: what its button is called, and what it does.
ACTIONS = {
    "retry_failed": ("Retry failed", "Run the failed tasks again, with the code of now."),
    "resume": ("Resume", "Go on with what has not completed, with the code of now."),
    "rerun_stale": ("Run stale again", "Run what completed with older code again, and what is behind it."),
    "refinalize": ("Finalize again", "Run finalize alone again, with the code of now."),
    "update": ("Update", "Run what is new or has changed, and what is behind it; the rest is taken over."),
    "cancel": ("Cancel", "End the job. While a cell waits for it, interrupting the kernel (■) works everywhere."),
}
# The title of what is folded where it can be, and left out where it cannot.
WHOLE = "Whole traceback"
# The title of what a failed task was given, which is JSON.
GIVEN = "Parameters of the task"
# The titles of which tasks failed alike, of what these were tried, what they printed, and what led to their error.
TASKS, TRIED, PRINTED, LED = "Tasks", "Attempts", "What it printed", "Cause chain"
LAST_TOLD = (TRIED, GIVEN, PRINTED, LED, WHOLE)  # of an error; folded where that can be
HIT = "→"  # before the line of code that raised an error
# A task that runs for so long is shown by itself, or one that tells of its progress; so many at most.
SHOWN_SECONDS, MOST_RUNNING = 2.0, 8
# It is overdue from here on, and once it has run for so many times as long as others of its stage.
OVERDUE_SECONDS, OVERDUE_TIMES = 10.0, 5.0
# JSON longer than this is not parsed to be drawn: a drawing is made several times a second.
READ = 50_000


class ErrorGroup(NamedTuple):
    """Failed tasks that have their error's type, shape and place in common; the rest is the first one's.

    ``where`` is the last of the user's frames in words, ``fate`` what became of such failures, ``why`` the rule that
    decided that; ``details`` are titles and texts. ``cause`` is the exception that led to the error, if there was one.
    """

    tasks: int
    error_type: str
    message: str
    where: str | None
    fate: str
    why: str
    details: tuple[tuple[str, str], ...]
    cause: str | None = None
    source: str | None = None
    key: str = ""
    example: str = ""


class RunningTask(NamedTuple):
    """A task that runs for so many seconds, in a process that holds ``memory`` bytes, with what it ``printed`` last.

    ``mean`` is how long those of its stage ran that have ended.
    """

    task_id: str
    stage: int
    seconds: float
    memory: int | None
    mean: float | None
    progress: Progress | None
    printed: str

    @property
    def is_overdue(self) -> bool:
        """Whether it runs for much longer than others of its stage did."""
        return self.mean is not None and self.seconds > max(OVERDUE_SECONDS, OVERDUE_TIMES * self.mean)

    @property
    def share(self) -> float | None:
        """How much of it is done, of 1, by its own account."""
        if self.progress is None or not self.progress.total or not isfinite(self.progress.done):
            return None
        return min(max(self.progress.done / self.progress.total, 0.0), 1.0)

    @property
    def facts(self) -> list[str]:
        """What there is to say of it, in few words each."""
        late = f", others took {took(self.mean)}" if self.is_overdue else ""
        said = [f"running {took(self.seconds)}{late}"]
        if self.progress is not None:
            done, total, text = self.progress
            of = "" if total is None else f" of {total:,.12g}"
            said += [f"{done:,.12g}{of}", shorten(text, 60)]
        said += [] if self.memory is None else [human_bytes(self.memory)]
        return [each for each in said if each]

    @property
    def document(self) -> dict[str, Any]:
        """The same for programs: seconds and bytes."""
        told = self.progress._asdict() if self.progress is not None else None
        return {**self._asdict(), "overdue": self.is_overdue, "progress": told}

    @property
    def last_line(self) -> str:
        """The last line that it has printed."""
        return next((line.strip() for line in reversed(self.printed.splitlines()) if line.strip()), "")


class JobView(NamedTuple):
    """A job: its outline, and then what a line in a table of jobs does not need.

    ``elapsed`` is None when it has not started, or nobody knows how long it ran. ``parameters`` are names, and values
    as JSON text. It completed ``with_errors`` without tasks that failed, or with the fallback in place of finalize's
    result. ``traceback`` belongs to ``error`` when that is no task's: a plan or finalize failed. ``errors`` are
    the largest groups. ``hint`` is what to type next, with a comment. ``remaining`` is how long the stage that it is at
    will take yet, at the pace of its tasks in this run. ``inputs_changed`` is how many of a job's tasks that have
    completed had declared files that are not the same by now. ``running`` are its tasks that run now, the longest
    first, where that can be seen. ``stale`` have completed with older code than their handlers' of now, where that was
    asked. ``past`` says of one that stopped on its way when, by whom, and what is left.
    """

    job_id: str
    job_type: str
    status: str
    with_errors: bool
    created_at: float
    started_at: float | None
    ended_at: float | None
    elapsed: float | None
    driver: str | None
    stages: tuple[StageView, ...]
    parameters: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    traceback: str | None = None
    errors: tuple[ErrorGroup, ...] = ()
    result_preview: str | None = None
    hint: str | None = None
    remaining: float | None = None
    inputs_changed: int = 0
    running: tuple[RunningTask, ...] = ()
    stale: int = 0
    past: str = ""

    @property
    def shown_running(self) -> tuple[tuple[RunningTask, ...], str]:
        """Those of its running tasks that one may want to look at, and in words that there are more."""
        told = [task for task in self.running if task.progress or task.seconds >= SHOWN_SECONDS]
        others = f"and {count(len(told) - MOST_RUNNING, 'other')}" if len(told) > MOST_RUNNING else ""
        return tuple(told[:MOST_RUNNING]), others

    @property
    def state(self) -> str:
        """The status, ``completed with errors``, or ``interrupted`` when it stopped half-way."""
        if self.with_errors:
            return "completed with errors"
        half_way = self.status in ("queued", "processing") and self.started_at is not None
        return "interrupted" if half_way and self.driver is None else self.status

    @property
    def counts(self) -> Counter[str]:
        """How many of its tasks are in which state."""
        return sum((Counter(stage.counts) for stage in self.stages), Counter[str]())

    @property
    def failed(self) -> int:
        """How many of its tasks have failed."""
        return sum(stage.counts.get("failed", 0) for stage in self.stages)

    @property
    def actions(self) -> tuple[str, ...]:
        """What can be done with it now, by the names of `ACTIONS`, what leads on first."""
        if self.driver is not None:
            return ("cancel",)
        is_done = self.status in ("completed", "failed")
        return (*self._leading_on, *(("rerun_stale",) if self.stale and is_done else ()))

    @property
    def _leading_on(self) -> tuple[str, ...]:
        if self.status == "completed" and self.failed:
            return ("retry_failed",)
        if self.status == "completed":
            update = ("update",) if self.inputs_changed else ()
            return (*update, "refinalize") if self.with_errors else update
        if self.status in ("failed", "cancelled") and self.failed:
            cancelled = self.status == "cancelled" or any(stage.counts.get("cancelled") for stage in self.stages)
            return ("retry_failed", "resume") if cancelled else ("retry_failed",)
        return ("resume", "cancel") if self.state in ("interrupted", "queued") else ("resume",)

    @property
    def about(self) -> list[str]:
        """What there is to say beside the state."""
        now = driven = ""
        if self.driver:
            driven = f"driven by {shorten(self.driver.partition(', since')[0], 60)}"
            if self.status == "failed" and self.ended_at is None:
                now = "its other tasks still run"
            elif self.status == "processing" and all(stage.state.startswith("completed") for stage in self.stages):
                now = "finalizing"
            if self.remaining is not None:
                now = ", ".join(filter(None, (now, self._left())))
        return [part for part in (took(self.elapsed), now, f"submitted {when(self.created_at)}", driven) if part]

    def _left(self) -> str:
        """How long it will take yet, in words that claim no more than is known: later stages have no pace yet."""
        at = max((stage.number for stage in self.stages if stage.planned), default=len(self.stages))
        of = "" if at == len(self.stages) else f" of stage {at}"
        return f"about {left_of(self.remaining or 0)} left{of}"

    @property
    def goes_without(self) -> str:
        """That the job went on without tasks that failed; an empty text when it did not."""
        passed = [stage for stage in self.stages if stage.let_pass and stage.counts.get("failed")]
        if not passed:
            return ""
        failed, tasks = sum(stage.counts["failed"] for stage in passed), sum(stage.tasks for stage in passed)
        where = f"stage {passed[0].number}" if len(passed) == 1 else f"{len(passed)} stages"
        return (
            f"{failed:,} of {count(tasks, 'task')} of {where} failed, and the job went on without "
            f"{'it' if failed == 1 else 'them'}. In production the job would have failed."
        )

    @property
    def errors_title(self) -> str:
        shown = sum(group.tasks for group in self.errors)
        others = f", {self.failed - shown:,} more in job.errors()" if shown < self.failed else ""
        return f"Errors: {count(shown, 'failed task')} in {count(len(self.errors), 'group')}{others}"


class TaskLine(NamedTuple):
    """One task in a list; ``label`` is what the list says of it, in one line."""

    key: int
    task_id: str
    label: str


class Listing(NamedTuple):
    """Some of so many tasks, ``total``, that were looked for; ``errors`` are all types of errors, and how many."""

    tasks: tuple[TaskLine, ...]
    total: int
    errors: tuple[tuple[str, int], ...]


class TaskView(NamedTuple):
    """One task. ``facts`` are short, ``why`` is the rule about retries; ``details`` are titles and texts."""

    task_id: str
    state: str
    facts: tuple[str, ...]
    error: str | None
    why: str | None
    details: tuple[tuple[str, str], ...]


def when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def readable(text: str, limit: int, secrets: Sequence[str]) -> str:
    """JSON *text* masked and made readable, in about *limit* characters."""
    if len(text) >= READ:
        return shorten(mask_text(text[:READ], secrets), limit)
    return first_lines(laid_out(mask(from_json(text), secrets), 100), characters=limit)


def laid_out(value: Any, width: int) -> str:
    """*value* as JSON, on one line if that has at most *width* characters."""
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= width else json.dumps(value, ensure_ascii=False, indent=2)
