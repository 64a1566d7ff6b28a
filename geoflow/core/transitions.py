"""What may happen to jobs and tasks: two tables of the changes of state that exist.

The store guards every write with the state that the table says it leaves.
"""

from __future__ import annotations

from geoflow.core.models import JobStatus, TaskStatus
from geoflow.errors import IllegalTransition

_J, _T = JobStatus, TaskStatus

JOB_TRANSITIONS: dict[tuple[JobStatus, str], JobStatus] = {
    (_J.QUEUED, "start"): _J.PROCESSING,
    (_J.PROCESSING, "complete"): _J.COMPLETED,
    (_J.PROCESSING, "fail"): _J.FAILED,
    (_J.PROCESSING, "interrupt"): _J.QUEUED,
    (_J.QUEUED, "cancel"): _J.CANCELLED,
    (_J.PROCESSING, "cancel"): _J.CANCELLED,
    (_J.FAILED, "resume"): _J.QUEUED,
    (_J.CANCELLED, "resume"): _J.QUEUED,
    (_J.COMPLETED, "refinalize"): _J.COMPLETED,
    (_J.QUEUED, "rerun"): _J.QUEUED,
    (_J.PROCESSING, "rerun"): _J.QUEUED,
    (_J.COMPLETED, "rerun"): _J.QUEUED,
    (_J.FAILED, "rerun"): _J.QUEUED,
    (_J.CANCELLED, "rerun"): _J.QUEUED,
}

TASK_TRANSITIONS: dict[tuple[TaskStatus, str], TaskStatus] = {
    (_T.QUEUED, "start"): _T.PROCESSING,
    # Another task's result is taken over as it is planned.
    (_T.QUEUED, "reuse"): _T.COMPLETED,
    (_T.PROCESSING, "complete"): _T.COMPLETED,
    (_T.PROCESSING, "fail"): _T.FAILED,
    (_T.PROCESSING, "retry"): _T.QUEUED,
    # Lost: it ran in a process that died, and may be why. Requeued: it is not to blame. Released: it had not begun.
    (_T.PROCESSING, "lose"): _T.QUEUED,
    (_T.PROCESSING, "requeue"): _T.QUEUED,
    (_T.PROCESSING, "release"): _T.QUEUED,
    (_T.QUEUED, "cancel"): _T.CANCELLED,
    (_T.PROCESSING, "cancel"): _T.CANCELLED,
    (_T.FAILED, "reset"): _T.QUEUED,
    (_T.CANCELLED, "reset"): _T.QUEUED,
    # Only by a rerun that was asked for, of what completed with older code.
    (_T.COMPLETED, "redo"): _T.QUEUED,
}

# A task that was running when its engine died, this many times in a row, may be what kills it.
MAX_LOSSES = 3


def job_after(status: JobStatus, event: str) -> JobStatus:
    """The state that *event* leads to from *status*, or ``IllegalTransition``."""
    try:
        return JOB_TRANSITIONS[status, event]
    except KeyError:
        raise IllegalTransition(f"A job that is {status} cannot {event}.") from None


def task_after(status: TaskStatus, event: str) -> TaskStatus:
    """The state that *event* leads to from *status*, or ``IllegalTransition``."""
    try:
        return TASK_TRANSITIONS[status, event]
    except KeyError:
        raise IllegalTransition(f"A task that is {status} cannot {event}.") from None
