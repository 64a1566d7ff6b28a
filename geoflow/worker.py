"""What runs in a worker: one chunk at a time, user code inside a net that lets nothing but text out.

The same functions run inline, in the caller's process. Whatever user code does (raise, exit, return what has no JSON
form), the answer is a plain tuple for each call; only the end of the process itself is left for others to see.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from geoflow import logs, transport, values
from geoflow.contract import accepts_context, normalise
from geoflow.errors import ContractViolationError, UnstorableValue
from geoflow.executors.base import Chunk
from geoflow.models import Call, Category, Failure, JobExecutionContext, TaskContext, TaskResult, TaskStatus
from geoflow.retry import RetryPolicy, classify, is_retryable, lineage
from geoflow.text import exact
from geoflow.transport import Code, unpack
from geoflow.values import from_json, to_json

# A chunk goes back with what is done when it has taken this long, so that one slow task delays few others.
CHUNK_SECONDS = 0.25
MAX_TASK_ID = 100
_STATUSES = {str(status): status for status in TaskStatus}
_ENGINE_FILES = (__file__, values.__file__, transport.__file__)
# ru_maxrss is in bytes on macOS, in kilobytes elsewhere (getrusage(2)).
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Row(NamedTuple):
    """How one call ended; times are in seconds after the answer's ``base``. It travels as a plain tuple, with only
    exact str, int and float inside: what its reader would have to look up a class for could break the pipe."""

    started: float
    ended: float
    cpu: float
    result: str | None
    failure: tuple[str, str, str, bool, str | None] | None
    output: str | None


class Answer(NamedTuple):
    """What a worker returns for a chunk: rows for its first calls, in order; the others did not begin."""

    pid: int
    base: float
    peak_memory: int
    rows: list[tuple[Any, ...]]
    planned: list[tuple[str, str, str, str | None]]


class Marker(Protocol):
    """Tells the outside which call runs now, in a way that survives this process."""

    def running(self, chunk: int, position: int, key: int) -> None: ...

    def reporting(self, chunk: int) -> None: ...


class Output(Protocol):
    """Keeps what a call prints."""

    def take(self) -> str | None: ...


class Codes:
    """The functions that this process was sent, by version."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, bool]] = {}

    def get(self, code: Code) -> tuple[Any, bool]:
        """The function or class, and whether it takes a context."""
        found = self._known.get(code.version)
        if found is None:
            target = unpack(code)
            found = self._known[code.version] = (target, not isinstance(target, type) and accepts_context(target))
        return found


def run_chunk(
    chunk: Chunk,
    codes: Codes,
    marker: Marker,
    output: Output,
    pid: int,
    passes: tuple[type[BaseException], ...] = (),
) -> Answer:
    """Run the chunk's calls one after another. Exceptions in *passes* end it; all others become rows."""
    try:
        return _run_chunk(chunk, codes, marker, output, pid, passes)
    finally:
        logs.set_fields(None)


def _run_chunk(
    chunk: Chunk, codes: Codes, marker: Marker, output: Output, pid: int, passes: tuple[type[BaseException], ...]
) -> Answer:
    base, zero = time.time(), time.perf_counter()
    rows: list[tuple[Any, ...]] = []
    planned: list[tuple[str, str, str, str | None]] = []
    cpu_before = time.process_time()
    about: dict[str, object] = {"job_id": chunk.job_id, "job_type": chunk.job_type, "stage": chunk.stage}
    logs.set_fields(about)
    for position, call in enumerate(chunk.calls):
        marker.running(chunk.number, position, call.key)
        started = time.perf_counter() - zero
        result: str | None = None
        failure: Failure | None = None
        try:
            if chunk.kind == "tasks":
                about["task_id"], about["task_type"], about["attempt"] = call.task_id, call.task_type, call.attempt
                logs.set_fields(about)
                result, failure = _run_task(chunk, call, codes)
            elif chunk.kind == "plan":
                planned = _run_plan(chunk, call, codes)
            else:
                result = _run_finalize(call, codes.get(chunk.code)[0])
        except passes:
            raise
        except BaseException as exc:  # SystemExit and KeyboardInterrupt of user code are its failures, not ours
            failure = describe(exc, chunk.policy, chunk.code.own)
        printed = output.take()
        ended = time.perf_counter() - zero
        cpu = time.process_time()
        rows.append((started, ended, cpu - cpu_before, result, failure and tuple(failure), printed))
        cpu_before = cpu
        if ended > CHUNK_SECONDS:
            break
    marker.reporting(chunk.number)
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    return Answer(pid, base, peak_memory, rows, planned)


def _run_task(chunk: Chunk, call: Call, codes: Codes) -> tuple[str | None, Failure | None]:
    handler, with_context = codes.get(chunk.code)
    parameters = from_json(call.parameters)
    if with_context:
        logger = logging.getLogger(f"geoflow.task.{call.task_type}")
        value = handler(
            parameters,
            TaskContext(
                chunk.job_id,
                chunk.job_type,
                chunk.stage,
                call.task_id,
                call.task_index,
                call.task_type,
                call.attempt,
                logger,
            ),
        )
    else:
        value = handler(parameters)
    return outcome(value, call.task_type)


def outcome(value: Any, task_type: str) -> tuple[str | None, Failure | None]:
    """A handler's return value as JSON text, or as the failure that it is."""
    success = value.get("success") if isinstance(value, dict) else None
    if success is True:
        return to_json(value), None
    if success is not False:
        raise ContractViolationError(
            f"The handler of {task_type!r} must return a dict with 'success' of True or False; it returned "
            f"{_shown(value)}."
        )
    retryable = value.get("retryable", True) is not False
    given, named = value.get("error"), value.get("error_type")
    error = exact(given) if given is not None else ""
    category = Category.BUSINESS if retryable else Category.PERMANENT
    return None, Failure(
        error or "the handler returned success: False and no error",
        exact(named) if isinstance(named, str) else "ReturnedFailure",
        str(category),
        retryable,
    )


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as exc:  # a user's __repr__ may raise anything
        text = f"an object whose repr raises {type(exc).__name__}"
    return f"{type(value).__name__}: {exact(text, 200)}"


def _run_plan(chunk: Chunk, call: Call, codes: Codes) -> list[tuple[str, str, str, str | None]]:
    job_class = codes.get(chunk.code)[0]
    asked = from_json(call.parameters)
    made = job_class.create_tasks_for_stage(chunk.stage, asked["job_params"], chunk.job_id, asked["previous_results"])
    return checked_plan(made, chunk.stage, chunk.task_types)


def checked_plan(made: Any, stage: int, task_types: tuple[str, ...]) -> list[tuple[str, str, str, str | None]]:
    """The plan's tasks as text, or an error that names the stage, the task and the key."""
    if not isinstance(made, list):
        raise ContractViolationError(
            f"create_tasks_for_stage of stage {stage} must return a list of dicts; it returned {_shown(made)}."
        )
    tasks: list[tuple[str, str, str, str | None]] = []
    seen: set[str] = set()
    known: dict[str, str] = {}  # from the spelling in the plan to the registered one
    for index, task in enumerate(made):
        if not isinstance(task, dict):
            raise ContractViolationError(f"Stage {stage}, task {index} is not a dict but {_shown(task)}.")
        try:
            task_id, task_type, parameters = task["task_id"], task["task_type"], task["parameters"]
        except KeyError as exc:
            keys = sorted(map(str, task))
            raise ContractViolationError(
                f"Stage {stage}, task {index} has no {exc.args[0]!r}; its keys are {keys}."
            ) from None
        if not isinstance(task_id, str) or not 1 <= len(task_id) <= MAX_TASK_ID:
            raise ContractViolationError(
                f"Stage {stage}, task {index}: task_id must be a text of 1 to {MAX_TASK_ID} characters, "
                f"not {_shown(task_id)}."
            )
        where = f"Stage {stage}, task {index} ({task_id!r})"
        if task_id in seen:
            raise ContractViolationError(
                f"Stage {stage}, task {index}: the task_id {task_id!r} is there twice in this stage."
            )
        seen.add(task_id)
        if task_type not in known:
            named = normalise(task_type) if isinstance(task_type, str) else None
            if named not in task_types:
                raise ContractViolationError(
                    f"{where}: no handler is registered for the task_type {task_type!r}; "
                    f"there are {', '.join(task_types)}."
                )
            known[task_type] = named
        if not isinstance(parameters, dict):
            raise ContractViolationError(f"{where}: parameters must be a dict, not {_shown(parameters)}.")
        try:
            given = to_json(parameters, where="parameters")
            metadata = to_json(task["metadata"], where="metadata") if task.get("metadata") is not None else None
        except UnstorableValue as exc:
            raise ContractViolationError(f"{where}: {exc}") from None
        tasks.append((exact(task_id), known[task_type], given, metadata))
    return tasks


def _run_finalize(call: Call, job_class: Any) -> str:
    given = from_json(call.parameters)
    results = [
        TaskResult(task_id, task_type, _STATUSES[status], result or {}, error, ended_at)
        for task_id, task_type, status, result, error, ended_at in given.pop("task_results")
    ]
    made = job_class.finalize_job(JobExecutionContext.model_construct(**given, task_results=results))
    if not isinstance(made, dict):
        raise ContractViolationError(f"finalize_job must return a dict; it returned {_shown(made)}.")
    return to_json(made)


def describe(exc: BaseException, policy: RetryPolicy, own: tuple[str, ...]) -> Failure:
    """An exception as text, with its category. Never raises, whatever the exception does."""
    kind = type(exc)
    category = classify(lineage(kind, _is_own(own)), policy)
    if isinstance(exc, UnstorableValue):  # whatever the policy says of a TypeError: the same code returns the same
        category = Category.PERMANENT
    message = exact(exc)
    if isinstance(exc, SystemExit):
        message = f"the code called sys.exit({message})"
    retryable = is_retryable(category)
    return Failure(message or exact(kind.__name__), exact(kind.__name__), str(category), retryable, _formatted(exc))


def _is_own(own: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a module is the job type's own: of its top-level package, or not installed as a library."""

    def is_own(module: str) -> bool:
        top = module.partition(".")[0]
        if top in own or top in ("__main__", "__mp_main__"):
            return True
        path = getattr(sys.modules.get(module), "__file__", None) or ""
        return bool(path) and not any(part in path for part in ("site-packages", "dist-packages", "/lib/python3"))

    return is_own


def _formatted(exc: BaseException) -> str | None:
    """The traceback from the user's first frame on, or None when no user code was involved."""
    frames = exc.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _ENGINE_FILES:
        frames = frames.tb_next
    if frames is None and exc.__cause__ is None:
        return None
    try:
        return exact("".join(traceback.format_exception(type(exc), exc, frames)), 32_000)
    except BaseException as inner:  # RecursionError, MemoryError, a __str__ that raises in the cause chain
        return f"(the traceback could not be made: {type(inner).__name__})"
