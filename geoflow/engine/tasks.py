"""One task of a job: found by its id or the beginning of it, with all that its handler was given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from geoflow.core.models import TaskContext, TaskStatus
from geoflow.core.payloads import missing_in
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import Runtime
from geoflow.errors import DefinitionError, GeoflowError, JobNotFound, ParameterError
from geoflow.jobtypes.contract import Handler, Registered
from geoflow.stores import questions
from geoflow.stores.questions import TaskPlace
from geoflow.stores.store import Store
from geoflow.support.jsonable import from_json
from geoflow.support.logs import logger_of
from geoflow.support.text import shorten

_SHOWN = 5
# Of a task whose output is followed: its last attempts, and of one that runs so much from its beginning on.
LAST_ATTEMPTS, FOLLOWED_BYTES = 20, 4_000_000


class TaskNotFound(GeoflowError, LookupError):
    """No task, or more than one, goes by this id or beginning of an id."""


class TaskRow(NamedTuple):
    """A task as the store has it, with what its last attempt left: JSON text, but for the error and the output."""

    job_id: str
    job_type: str
    task_key: int
    task_id: str
    task_type: str
    stage: int
    task_index: int
    status: str
    attempts: int
    parameters: str
    result: str | None
    error_type: str | None
    error: str | None
    output: str | None

    def __str__(self) -> str:
        return shorten(f"task {self.task_id} of job {self.job_id[:8]}", 120)

    @property
    def arguments(self) -> dict[str, Any]:
        """What its handler is called with: a dict of one's own."""
        parameters: dict[str, Any] = from_json(self.parameters)
        return parameters

    @property
    def returned(self) -> dict[str, Any] | None:
        """All that its handler returned; None where it has not succeeded."""
        result: dict[str, Any] | None = from_json(self.result or "null")
        return result

    @property
    def failed_with(self) -> str | None:
        """The type and the message of the error that the last attempt ended with."""
        return None if self.error is None else f"{self.error_type}: {self.error}"

    def context(self) -> TaskContext:
        """What a handler that takes two arguments is given as the second, as it was at the last attempt."""
        logger = logger_of(f"geoflow.task.{self.task_type}")
        about = (self.job_id, self.job_type, self.stage, self.task_id, self.task_index, self.task_type)
        missing = missing_in(self.arguments.get("aggregation_metadata"))
        return TaskContext(*about, max(self.attempts, 1), logger, missing)

    def handler_in(self, job_type: Registered) -> Handler:
        """Its function in *job_type*, as that is registered now; ``DefinitionError`` when there is none."""
        handler = job_type.handlers.get(self.task_type)
        if handler is None:
            raise DefinitionError(
                f"The job type {job_type.name!r} that is registered now has no handler for {self.task_type!r}, which "
                f"{self} needs. It has {', '.join(sorted(job_type.handlers))}."
            )
        return handler


def task_row(store: Store, job: JobRow, place: TaskPlace) -> TaskRow:
    """All of the task, read anew."""
    with store.reading() as connection:
        last = questions.last_attempt(connection, place.task_key)
    return TaskRow._make((job.job_id, job.job_type, *place, *last))


# What it prints


class Outputs(NamedTuple):
    """What a task's attempts have printed, by their numbers; of which one may be ``running``.

    ``goes_on`` says whether the task has not ended, and somebody drives its job.
    """

    by_attempt: dict[int, str]
    running: int | None
    goes_on: bool


def output_of(runtime: Runtime, job: JobRow, place: TaskPlace) -> str | None:
    """What the last attempt printed; of one that runs in a worker, what it has written out by now."""
    row = task_row(runtime.store, job, place)
    printed = runtime.printed(job.job_id, place.task_key) if row.status == TaskStatus.PROCESSING else None
    return row.output if printed is None else printed


def outputs_of(runtime: Runtime, job: JobRow, place: TaskPlace) -> Outputs:
    """What its last attempts have printed by now."""
    driven, row = runtime.driver(job.job_id) is not None, task_row(runtime.store, job, place)
    is_running = row.status == TaskStatus.PROCESSING
    printed = runtime.printed(job.job_id, place.task_key, FOLLOWED_BYTES) if is_running else None
    now = task_row(runtime.store, job, place)
    with runtime.store.reading() as connection:
        attempts = questions.attempts_of(connection, place.task_key, LAST_ATTEMPTS, 0)
    by_attempt = {attempt.attempt: attempt.output or "" for attempt in attempts}
    # The same attempt counts as running before and after: the call that ran between is none of an earlier one.
    same = (row.status, row.attempts) == (now.status, now.attempts) and row.attempts not in by_attempt
    running = row.attempts if printed is not None and same else None
    if running is not None:
        by_attempt[running] = printed or ""
    goes_on = driven and now.status in (TaskStatus.QUEUED, TaskStatus.PROCESSING)
    return Outputs(by_attempt, running, goes_on)


# Finding one


def named(runtime: Runtime, name: str | None = None) -> tuple[JobRow, TaskPlace]:
    """The task called *name*: an id, or its beginning, in the latest job, or ``JOB/TASK``. None: its first failed one.

    Raises ``TaskNotFound`` that lists those it may be, or ``JobNotFound``.
    """
    job_id, slash, task_id = (name or "").partition("/")
    if slash and re.fullmatch("[0-9a-f]+", job_id) and runtime.store.find(job_id):
        job = runtime.row(job_id)
        return job, place_of(runtime.store, job, task_id or None)
    latest = runtime.store.latest()
    if latest is None:
        raise JobNotFound(f"There are no jobs in {runtime.settings.store}.")
    return latest, place_of(runtime.store, latest, name)


def place_of(store: Store, job: JobRow, task_id: str | None = None) -> TaskPlace:
    """The task of *job* whose id is, or begins with, *task_id*; without one, the first that failed.

    The short id of the job, which an id begins with as a rule, may be left out, and so may what the stage puts behind
    it: of ``3fa93fa9-clip-S2_00457`` the key ``S2_00457`` is enough.
    """
    if not isinstance(task_id, str | None):
        raise ParameterError(
            f"A task is known by its id or the beginning of it, a text: {shorten(repr(task_id), 60)} is "
            f"{type(task_id).__name__}. job.tasks() lists the ids."
        )
    failed = _places(store, job, status="failed")
    name = f"job {job.job_id[:8]} ({job.job_type})"
    if task_id is None:
        if failed:
            return failed[0]
        raise TaskNotFound(f"No task of {name} failed. Name one: {_names(_places(store, job))}.")
    ids = task_id, f"{job.job_id[:8]}-{task_id}"
    ways = [{way: each} for way in ("task_id", "begins") for each in ids] + [{"ends": f"-{task_id}"}]
    places = next(filter(None, (_places(store, job, **way) for way in ways)), [])
    if len(places) == 1:
        return places[0]
    if places:
        raise TaskNotFound(f"Several tasks of {name} have ids that begin or end with {task_id!r}: {_names(places)}.")
    others = f"Those that failed are {_names(failed)}." if failed else f"It has {_names(_places(store, job))}."
    no_id = f"No task of {name} has an id that begins or ends with {task_id!r}."
    raise TaskNotFound(f"{no_id} {others} For another job: JOB/TASK.")


def _places(store: Store, job: JobRow, **which: str) -> list[TaskPlace]:
    with store.reading() as connection:
        return questions.places(connection, job.job_key, _SHOWN + 1, **which)  # type: ignore[arg-type]


def _names(places: Sequence[TaskPlace]) -> str:
    names = ", ".join(shorten(place.task_id, 60) for place in places[:_SHOWN])
    return f"{names or 'no tasks yet'}{' and more' if len(places) > _SHOWN else ''}"
