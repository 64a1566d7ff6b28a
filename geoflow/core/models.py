"""The nouns: states, job types' stages and tasks, attempts, and what handlers and finalize are given.

What crosses a trust border (definitions, parameters of the engine, contexts) is a frozen pydantic model. What
exists a hundred thousand times (attempts) is a named tuple: validating each one costs more than running it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import Enum, StrEnum
from types import CodeType
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geoflow.support.allowance import AllowFailed
from geoflow.support.exception_names import ExceptionNames


class Word(StrEnum):
    """A word that equals its text, and the member of that value of any other enum that has the name of its own.

    Job types written for production compare with an enum of theirs, mostly a plain one: ``TaskStatus.COMPLETED`` of
    either make is the same state. It hashes as its text does.
    """

    def __eq__(self, other: object) -> bool:
        equal = str.__eq__(self, other)
        if equal is NotImplemented and isinstance(other, Enum):
            return type(other).__name__ == type(self).__name__ and bool(other.value == self._value_)
        return equal

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = str.__hash__


class JobStatus(Word):
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskStatus(Word):
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(Word):
    """How an attempt ended. Only ``failed`` is charged against the task's retries."""

    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Category(Word):
    """What kind of failure it was; see `geoflow.core.retry` for what follows from each."""

    CONTRACT = "contract"
    PERMANENT = "permanent"
    TRANSIENT = "transient"
    BUSINESS = "business"
    UNKNOWN = "unknown"
    LOST = "lost"
    TIMEOUT = "timeout"
    MEMORY = "memory"


OnFailure = Literal["drain", "stop", "continue"]
Order = Literal["planned", "largest"]
InputsBy = Literal["time", "content"]


MAX_AT_ONCE = 1000  # of one limit, which has a file for each


class Limit(BaseModel):
    """How many tasks may run at once, and begin in a second, over all jobs and processes that use a store.

    It is known by its *name*, whichever job types name it: at most *at_once* of their tasks run at any moment, and two
    begin at least ``1 / per_second`` seconds apart. Tasks that wait occupy no worker. Raises ``ValueError``
    for numbers that are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=60)
    at_once: int | None = Field(default=None, ge=1, le=MAX_AT_ONCE, strict=True)
    per_second: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)

    def __init__(self, name: str, *, at_once: int | None = None, per_second: float | None = None) -> None:
        try:
            super().__init__(name=name, at_once=at_once, per_second=per_second)
        except ValidationError as exc:
            wrong = [
                f"{each['loc'][0]}: {each['msg']} (got {each['input']!r})"
                if each["loc"]
                else each["msg"].removeprefix("Value error, ")
                for each in exc.errors()
            ]
            raise ValueError(f"gf.Limit({name!r}) is none. {'; '.join(wrong)}.") from None

    @model_validator(mode="after")
    def _says_something(self) -> Limit:
        if self.at_once is None and self.per_second is None:
            raise ValueError("It needs at_once=, per_second= or both")
        return self

    def __str__(self) -> str:
        numbers = {"at_once": self.at_once, "per_second": self.per_second}
        return ", ".join(f"{name}={value:g}" for name, value in numbers.items() if value is not None)


class Stage(BaseModel):
    """One stage of a job type: its place, its name, its handler, and who makes its tasks.

    ``timeout`` is in seconds for each task, ``idle_timeout`` for each in which it neither printed nor told of its
    progress; ``max_retries``, ``on_failure`` and ``allow_failed`` overrule the
    session's, and so do ``permanent`` and ``transient``, for the exceptions that they name (see `RetryPolicy`); at most
    ``workers`` of its tasks run at once in each job: two jobs may run twice as many; a ``limit`` is for all of the
    store. Tasks start in the ``order`` of the plan, or the ``"largest"`` first, so that no long one is left for the
    end. How large a task is, its metadata say as ``size``, a number of any unit; else the time counts that it took when
    the job was run before. Each needs so much ``memory``, in bytes; where it ``memory_differs``, its metadata say it.
    Of ``sized`` ones that say nothing of memory, what they need is expected by what earlier ones had.

    With ``reuse``, a task takes over the result of an equal one that has completed. ``inputs`` are patterns of the
    names of parameters that are paths or addresses, whose state counts, ``inputs_by`` their times or their content;
    ``outputs``, of what in a result names files that have to be there still.
    """

    model_config = ConfigDict(frozen=True)

    number: int = Field(ge=1)
    name: str
    task_type: str
    parallelism: str = "single"
    timeout: float | None = None
    idle_timeout: float | None = None
    max_retries: int | None = None
    permanent: ExceptionNames = frozenset()
    transient: ExceptionNames = frozenset()
    on_failure: OnFailure | None = None
    allow_failed: AllowFailed = None
    workers: int | None = None
    limit: Limit | None = None
    order: Order = "planned"
    memory: int | None = None
    memory_differs: bool = False
    sized: bool = False
    reuse: bool | None = None
    inputs: tuple[str, ...] = ()
    inputs_by: InputsBy = "time"
    outputs: tuple[str, ...] = ()

    @property
    def at_once(self) -> int | None:
        """How many of its tasks may be out at once; None is any number. Those with a limit go out one by one."""
        most = (self.limit.at_once or MAX_AT_ONCE) if self.limit is not None else None
        return min(self.workers or most, most) if most else self.workers

    @property
    def is_fan_in(self) -> bool:
        return self.parallelism == "fan_in"


class Receipt(BaseModel):
    """What a submission found: a job created, or the one that was there.

    ``stale`` is how many of its tasks completed with older code than that of now, ``inputs_changed``, of how many the
    declared inputs are not as they were. ``unseen`` are its tasks' parameters that are folders or addresses and
    that no stage declares as inputs: what is there may have changed unseen.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    job_type: str
    status: Literal["created", "already_exists"]
    existing_status: JobStatus | None = None
    stage: int | None = None
    idempotent: bool = False
    stale: int = 0
    inputs_changed: int = 0
    unseen: tuple[str, ...] = ()


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


def as_spoken_by(function: Callable[..., Any], word: Word) -> Any:
    """*word* as *function* says it: the member of that value where it names an enum of another make, else *word*.

    So ``status is TaskStatus.COMPLETED`` and ``status in {TaskStatus.COMPLETED}`` hold too, which no ``==`` can see to.
    """
    while (inner := getattr(function, "__wrapped__", None) or getattr(function, "__func__", None)) is not None:
        function = inner
    code, known = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    for name in _names(code) if code is not None else ():
        kind: Any = known.get(name)
        is_enum = isinstance(kind, type) and issubclass(kind, Enum) and not issubclass(kind, Word)
        if is_enum and kind.__name__ == type(word).__name__:
            return next((member for member in kind if member.value == word.value), word)
    return word


def _names(code: CodeType) -> list[str]:
    return [*code.co_names, *(name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part))]


class JobExecutionContext(BaseModel):
    """What ``finalize_job`` is called with: the job, and the results of all its stages in order."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    job_type: str
    current_stage: int
    total_stages: int
    parameters: dict[str, Any]
    task_results: list[TaskResult]


class MissingTask(NamedTuple):
    """A task that failed, and without whose result its job went on."""

    task_id: str
    task_index: int


class TaskContext(NamedTuple):
    """What a handler that accepts a second argument is given. ``attempt`` counts from 1.

    ``missing`` are, for the task of a fan_in, those of the stage before that failed and were let pass.
    """

    job_id: str
    job_type: str
    stage: int
    task_id: str
    task_index: int
    task_type: str
    attempt: int
    logger: logging.Logger
    missing: Sequence[MissingTask] = ()

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """What `gf.progress` does, where a worker runs the task; production's context has no such thing."""


class PlanContext(NamedTuple):
    """What a ``create_tasks_for_stage`` with a parameter ``context`` is given in it.

    ``missing`` are the tasks of the stage before that failed and were let pass: they have no result.
    """

    job_id: str
    job_type: str
    stage: int
    missing: Sequence[MissingTask] = ()


class Failure(NamedTuple):
    """Why an attempt did not succeed, as text: exception objects never leave the process they were raised in."""

    error: str
    error_type: str
    category: str
    retryable: bool
    traceback: str | None = None


class Progress(NamedTuple):
    """What a task has told last: ``done`` of ``total``, where that is known, and what it is at."""

    done: float
    total: float | None
    text: str


class RunningCall(NamedTuple):
    """What a worker is at: the task of this key, for so many seconds, by what it has ``printed`` and told meanwhile.

    ``memory`` are the bytes that its process holds, where the system tells.
    """

    key: int
    pid: int
    seconds: float
    memory: int | None
    printed: str | None
    progress: Progress | None


class Attempt(NamedTuple):
    """One execution of one task, told by itself: it failed, printed, was lost, or had been tried before.

    Times are seconds since the epoch, ``cpu`` seconds of this task (its duration, if that is below 0.1 ms),
    ``peak_memory`` bytes of the whole worker process while the attempt's chunk ran, where the system can tell (Linux),
    else up to its end. ``result`` is JSON text.
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
