"""The nouns: states, job types' stages and tasks, attempts, and what handlers and finalize are given.

What crosses a trust border (definitions, parameters of the engine, contexts) is a frozen pydantic model. What
exists a hundred thousand times (attempts) is a named tuple: validating each one costs more than running it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class JobStatus(StrEnum):
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskStatus(StrEnum):
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """How an attempt ended. Only ``failed`` is charged against the task's retries."""

    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Category(StrEnum):
    """What kind of failure it was; see `geoflow.retry` for what follows from each."""

    CONTRACT = "contract"
    PERMANENT = "permanent"
    TRANSIENT = "transient"
    BUSINESS = "business"
    UNKNOWN = "unknown"
    LOST = "lost"
    TIMEOUT = "timeout"


OnFailure = Literal["drain", "stop"]
Order = Literal["planned", "largest"]


class Stage(BaseModel):
    """One stage of a job type: its place, its name, its handler, and who makes its tasks.

    ``timeout`` is in seconds for each task; ``max_retries`` and ``on_failure`` overrule the session's; at most
    ``workers`` of its tasks run at once. Tasks start in the ``order`` of the plan, or the ``"largest"`` first, so that
    no long one is left for the end. How large a task is, its metadata say as ``size``, a number of any unit; else the
    time counts that it took when the job was run before.
    """

    model_config = ConfigDict(frozen=True)

    number: int = Field(ge=1)
    name: str
    task_type: str
    parallelism: str = "single"
    timeout: float | None = None
    max_retries: int | None = None
    on_failure: OnFailure | None = None
    workers: int | None = None
    order: Order = "planned"

    @property
    def is_fan_in(self) -> bool:
        return self.parallelism == "fan_in"


class Receipt(BaseModel):
    """What a submission found: a job created, or the one that was there.

    ``stale`` is how many of its tasks completed with older code than that of now.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    job_type: str
    status: Literal["created", "already_exists"]
    existing_status: JobStatus | None = None
    stage: int | None = None
    idempotent: bool = False
    stale: int = 0


class TaskResult(NamedTuple):
    """One task as finalize sees it; the names are production's. ``ended_at`` is in seconds since the epoch."""

    task_id: str
    task_type: str
    status: TaskStatus
    result_data: dict[str, Any]
    error_details: str | None = None
    ended_at: float | None = None

    @property
    def timestamp(self) -> datetime | None:
        """When the task ended, in UTC."""
        return None if self.ended_at is None else datetime.fromtimestamp(self.ended_at, UTC)

    @property
    def success(self) -> bool:
        return self.status == TaskStatus.COMPLETED


class JobExecutionContext(BaseModel):
    """What ``finalize_job`` is called with: the job, and the results of all its stages in order."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    job_type: str
    current_stage: int
    total_stages: int
    parameters: dict[str, Any]
    task_results: list[TaskResult]


class TaskContext(NamedTuple):
    """What a handler that accepts a second argument is given. ``attempt`` counts from 1."""

    job_id: str
    job_type: str
    stage: int
    task_id: str
    task_index: int
    task_type: str
    attempt: int
    logger: logging.Logger


class Failure(NamedTuple):
    """Why an attempt did not succeed, as text: exception objects never leave the process they were raised in."""

    error: str
    error_type: str
    category: str
    retryable: bool
    traceback: str | None = None


class Attempt(NamedTuple):
    """One execution of one task, told by itself: it failed, printed, was lost, or had been tried before.

    Times are seconds since the epoch, ``cpu`` seconds of this task (its duration, if that is below 0.1 ms),
    ``peak_memory`` bytes of the whole worker process up to the end of the attempt's chunk. ``result`` is JSON text.
    ``code`` is the version of the handler's code. ``queued_at`` and ``backoff`` (the seconds that the policy had it
    wait) are kept for retries only: a first attempt was queued when its stage was planned.
    """

    key: int
    attempt: int
    outcome: str
    started_at: float | None
    ended_at: float | None
    cpu: float | None = None
    peak_memory: int | None = None
    result: str | None = None
    failure: Failure | None = None
    output: str | None = None
    slot: int | None = None
    pid: int | None = None
    code: str | None = None
    queued_at: float | None = None
    backoff: float | None = None
