"""What a job needs next, from a view of it that fits in one line: a pure decision, and the only place of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from geoflow.core.models import JobStatus, OnFailure


class View(NamedTuple):
    """All that the next step depends on. The counts are of the current stage's tasks.

    ``planned`` says that the stage's tasks are written; ``closed``, that everything about the job's end is. ``asked``
    is what user code is at, elsewhere; ``refinalizing`` says that a complete job is to have another result. Of the
    stage's tasks ``may_fail`` may fail, and the job goes on without them.
    """

    status: JobStatus
    stage: int
    total_stages: int
    planned: bool = False
    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    on_failure: OnFailure = "drain"
    closed: bool = False
    asked: Plan | Finalize | None = None
    refinalizing: bool = False
    may_fail: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """Take the job up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Make the tasks of *stage* and write them, all or none."""

    stage: int


@dataclass(frozen=True, slots=True)
class Listen:
    """A plan or a finalize was asked for: wait for its answer."""


@dataclass(frozen=True, slots=True)
class Work:
    """Send queued tasks to free slots (when *dispatch*) and wait for those that run."""

    dispatch: bool = True


@dataclass(frozen=True, slots=True)
class Fail:
    """A task of this stage failed for good, or more than may: so does the job, at once."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """What failed has been run again, and what was cancelled was not asked for: the job is cancelled again."""


@dataclass(frozen=True, slots=True)
class Finalize:
    """All stages are complete: make the job's result."""


@dataclass(frozen=True, slots=True)
class Close:
    """The job failed and its siblings have settled: write its end."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing is left to do."""


Step = Start | Plan | Listen | Work | Fail | Cancel | Finalize | Close | Ended


def next_step(view: View) -> Step:
    """What to do now. The same view always gives the same step, and every step leads to another view."""
    if view.asked is not None:
        return Listen()
    if view.refinalizing:
        return Finalize()
    match view.status:
        case JobStatus.QUEUED:
            return Start()
        case JobStatus.COMPLETED | JobStatus.CANCELLED:
            return Ended()
        case JobStatus.FAILED if view.closed:
            return Ended()
        case JobStatus.FAILED:
            draining = view.on_failure != "stop"
            if view.processing or (draining and view.queued):
                return Work(dispatch=draining)
            return Close()
        case JobStatus.PROCESSING:
            if not view.planned:
                return Plan(view.stage)
            if view.failed > view.may_fail:
                return Fail()
            if view.queued or view.processing:
                return Work()
            if view.cancelled:
                return Cancel()
            if view.stage < view.total_stages:
                return Plan(view.stage + 1)
            return Finalize()


def failure_message(failed: Sequence[tuple[int, str, str, int, str]], may_fail: int = 0) -> str:
    """Why the job failed, from its failed tasks as (task_index, task_id, task_type, retries, error).

    *may_fail* of them would have been let pass. It names the task that comes first in the stage, not the one that
    failed first, so that it does not depend on the order in which tasks happened to end.
    """
    index, task_id, task_type, retries, error = min(failed)
    after = f"after {retries} {'retry' if retries == 1 else 'retries'}" if retries else "without a retry"
    others = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
    most = f"; at most {may_fail:,} of this stage may fail" if may_fail else ""
    return f"Task {task_id!r} ({task_type}, number {index}) failed {after}: {error}{others}{most}"
