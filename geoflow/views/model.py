"""What is drawn of a job: values that are masked and bounded, however many tasks there are.

`geoflow.views.snapshot` reads them from a store, `geoflow.render.drawing` draws them. Times are seconds since the
epoch, durations seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

STATES = ("failed", "processing", "cancelled", "queued", "completed")  # of tasks, worst first


def worst(states: Iterable[str]) -> str:
    return min(states, key=STATES.index)


class StageView(NamedTuple):
    """One stage. ``counts`` has the states that tasks are in, best first.

    ``strip`` has a state for each cell, which is the worst of its tasks', so that no failure is hidden. ``elapsed`` is
    from when its tasks were written to when the next stage's were, or to the end of the job. ``waited`` and ``ran`` are
    means over the last attempts of its tasks, of a sample where there are many. ``waiting`` are the queued tasks that
    have failed before and wait for their retry, while somebody drives the job. ``let_pass`` says that the job went on
    without those that failed; ``reused`` have taken over the result of another task.
    """

    number: int
    name: str
    task_type: str
    parallelism: str
    planned: bool
    tasks: int
    counts: Mapping[str, int]
    strip: tuple[str, ...]
    elapsed: float | None
    waited: float | None = None
    ran: float | None = None
    waiting: int = 0
    let_pass: bool = False
    reused: int = 0

    @property
    def state(self) -> str:
        """The worst state of its tasks; ``completed`` when it made none, ``not planned`` before it has any."""
        state = worst(self.counts or ["completed"]) if self.planned else "not planned"
        return "completed with errors" if state == "failed" and self.let_pass else state


class ErrorGroup(NamedTuple):
    """Failed tasks that have their error's type, shape and place in common; the rest is the first one's.

    ``where`` is the last of the user's frames in words, ``fate`` what became of such failures, ``why`` the rule that
    decided that; ``details`` are titles and texts.
    """

    tasks: int
    error_type: str
    message: str
    where: str | None
    fate: str
    why: str
    details: tuple[tuple[str, str], ...]


class JobView(NamedTuple):
    """A job: its outline, and then what a line in a table of jobs does not need.

    ``elapsed`` is None when it has not started, or nobody knows how long it ran. ``parameters`` are names, and values
    as JSON text. It completed ``with_errors`` without tasks that failed, or with the fallback in place of finalize's
    result. ``traceback`` belongs to ``error`` when that is no task's: a plan or finalize failed. ``errors`` are
    the largest groups. ``hint`` is what to type next, with a comment. ``remaining`` is how long the stage that it is at
    will take yet, at the pace of its tasks in this run. ``inputs_changed`` is how many of a job's tasks that have
    completed had declared files that are not the same by now.
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

    @property
    def state(self) -> str:
        """The status, ``completed with errors``, or ``interrupted`` when it stopped half-way."""
        if self.with_errors:
            return "completed with errors"
        half_way = self.status in ("queued", "processing") and self.started_at is not None
        return "interrupted" if half_way and self.driver is None else self.status

    @property
    def failed(self) -> int:
        """How many of its tasks have failed."""
        return sum(stage.counts.get("failed", 0) for stage in self.stages)

    @property
    def actions(self) -> tuple[str, ...]:
        """What can be done with it now: names of methods of its handle, what leads on first."""
        if self.driver is not None:
            return ("cancel",)
        if self.status == "completed" and self.failed:
            return ("retry_failed",)
        if self.status == "completed":
            update = ("update",) if self.inputs_changed else ()
            return (*update, "refinalize") if self.with_errors else update
        if self.status == "failed" and self.failed:
            cancelled = any(stage.counts.get("cancelled") for stage in self.stages)
            return ("retry_failed", "resume") if cancelled else ("retry_failed",)
        return ("resume", "cancel") if self.state in ("interrupted", "queued") else ("resume",)


class TaskLine(NamedTuple):
    """One task in a list; ``label`` is what the list says of it, in one line."""

    key: int
    task_id: str
    label: str


class TaskView(NamedTuple):
    """One task. ``facts`` are short, ``why`` is the rule about retries; ``details`` are titles and texts."""

    task_id: str
    state: str
    facts: tuple[str, ...]
    error: str | None
    why: str | None
    details: tuple[tuple[str, str], ...]
