"""What the machine says of what it has done: a log line for each committed change, and the user's callback."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from geoflow.core.batch import NewTasks
from geoflow.core.models import Attempt, JobStatus
from geoflow.engine.active_job import ActiveJob
from geoflow.errors import DriverFailed, GeoflowWarning
from geoflow.stores.store import Store
from geoflow.support.jsonable import from_json
from geoflow.support.logs import logger_of
from geoflow.support.text import count, exact, human_bytes, shorten

logger = logger_of("geoflow.machine")
# Characters of the parameters of a planning, and of each task: a reference is some hundred.
HEAVY, LIGHT = 10_000_000, 1_000


def tell(job: ActiveJob, what: str, level: int = logging.INFO, **fields: Any) -> None:
    """One line about the job, with what it planned, or why it failed."""
    about = {"job_id": job.job_id, "job_type": job.job_type.name, "stage": job.stage_number}
    about["correlation_id"] = job.lease.correlation_id
    job_id, stage = job.job_id[:8], job.stage_number

    def message() -> str:
        planned = f" stage {stage}: {count(fields['tasks'], 'task')}" if "tasks" in fields else ""
        reason = fields.get("error_message")
        return f"job {job_id} {what}{planned}{(reason and f': {shorten(reason, 300)}') or ''}"

    with contextlib.suppress(Exception):  # a log that cannot be written, or a user's filter, stops no job
        logger.later(level, message, about | fields)


def tell_failure(job: ActiveJob, attempt: Attempt, task_id: str, task_type: str) -> None:
    """One line about a task that failed for good."""
    assert attempt.failure is not None
    error, error_type, category, retryable, _ = attempt.failure
    fields = {"error_message": error, "error_type": error_type, "error_category": category, "retryable": retryable}
    about = {"task_id": task_id, "task_type": task_type, "attempt": attempt.attempt}
    tell(job, f"task failed: {error_type}", logging.WARNING, **about, **fields)


def tell_if_heavy(job: ActiveJob, tasks: NewTasks) -> None:
    """Warn of tasks whose parameters together are more than what is good for the store, and could be less."""
    size, number = sum(map(len, tasks.parameters)), len(tasks.task_ids)
    if size <= HEAVY or size <= LIGHT * number:
        return
    stage = job.job_type.stages[job.stage_number - 1]
    what = f"what the tasks of stage {stage.number} ({stage.name}) are given is {human_bytes(size)} of JSON together"
    todo = (
        "have the stage before write it to a file, and give each task the path and its part: a feature, rows, a window"
    )
    told = f"{what}, {human_bytes(size / number)} each, and all of it is stored and sent. To be faster, {todo}."
    tell(job, what, logging.WARNING)
    with contextlib.suppress(GeoflowWarning):  # where warnings are errors: the job has no part in that
        warnings.warn_explicit(told[0].upper() + told[1:], GeoflowWarning, job.job_type.name, stage.number)


def stopped(job: ActiveJob, error: BaseException) -> DriverFailed:
    """What to tell who waits for a job that is not driven any more."""
    short_id = job.job_id[:8]
    made = DriverFailed(
        f"Job {short_id} was stopped, since what drives it failed: {type(error).__name__}: {exact(error)}. "
        "What had completed is kept;",
        python="job.resume() goes on.",
        typed=f"geoflow resume {short_id} goes on.",
    )
    made.__cause__ = error
    return made


def tell_end(job: ActiveJob, store: Store, callback: Callable[..., object] | None) -> None:
    """The job has ended, and its row says so: call *callback*, in a thread of its own, then let go who waits."""
    tell(job, "failed, and nothing of it runs any more" if job.status == JobStatus.FAILED else str(job.status))
    if callback is None or job.refinalizing:
        job.finish()
    else:
        try:
            here = copy_context()  # what it says goes to the same log
            threading.Thread(target=here.run, args=(_call_back, job, store, callback), daemon=True).start()
        except RuntimeError:  # there are no more to be had, or the interpreter exits
            _call_back(job, store, callback)


def _call_back(job: ActiveJob, store: Store, callback: Callable[..., object]) -> None:
    try:
        row = store.job(job.job_id)
        result = from_json(row.result) if row and row.result else None
        callback(job_id=job.job_id, job_type=job.job_type.name, status=str(job.status), result=result)
    except Exception as exc:  # it is the user's, and changes nothing
        fields = {"error_type": type(exc).__name__, "error_message": str(exc)}
        tell(job, "on_job_complete failed", logging.ERROR, **fields)
    finally:
        job.finish()
