"""What runs in a worker: one chunk at a time, user code inside a net that lets nothing but text out.

The same functions run inline, in the caller's process. Whatever user code does (raise, exit, return what has no JSON
form), the answer is a plain tuple for each call; only the end of the process itself is left for others to see.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple, Protocol

from geoflow.core.batch import Call, named
from geoflow.core.models import (
    Category,
    Failure,
    JobExecutionContext,
    TaskContext,
    TaskResult,
    TaskStatus,
    as_spoken_by,
)
from geoflow.core.retry import RetryPolicy, classify, is_retryable, lineage
from geoflow.errors import ContractViolationError, UnstorableValue
from geoflow.executors.base import Chunk
from geoflow.executors.codes import Codes
from geoflow.jobtypes.contract import normalise
from geoflow.support import logs
from geoflow.support.jsonable import from_json, stored, to_json
from geoflow.support.nesting import here
from geoflow.support.parcel import IN_MEMORY, PIECE, Spool
from geoflow.support.text import exact
from geoflow.usercode.origin import is_ours, is_users
from geoflow.usercode.packing import Code

MAX_TASK_ID = 100
# Code that cannot be loaded for these is the same the next time; whatever else it raises is judged as a handler's is.
_CANNOT_LOAD = (SyntaxError, ImportError)
# To ask for the processor's time takes as long as the shortest calls. Between two askings, all time counts as such.
_CPU_SECONDS = 1e-4
# ru_maxrss is in bytes on macOS, in kilobytes elsewhere (getrusage(2)).
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Told(NamedTuple):
    """How one call ended that failed or printed. It travels as a plain tuple, with only exact str, int and float
    inside: what its reader would have to look up a class for could break the pipe."""

    key: int
    started_at: float
    ended_at: float
    cpu: float
    result: str | None
    failure: tuple[str, str, str, bool, str | None] | None
    output: str | None


class Answer(NamedTuple):
    """What a worker returns for a chunk, of which the first ``ran`` calls ended and the others did not begin.

    ``completed`` are columns, for all that are not ``told`` by themselves: position in the chunk, and started_at to
    results of a `batch.Completed`. ``told`` are rows of a `Told`, ``planned`` a plan's columns, or its ids and
    types and the file that has the rest. ``held`` is a `codes.Held` of the chunk's code when it came with the
    chunk and was loaded; empty when it neither came nor is here: nothing was begun, and it is to be sent along.
    ``sick`` says why the process begins nothing more, ``memory`` how much it holds, in bytes, where that was asked.
    """

    pid: int
    ran: int
    seconds: float
    peak_memory: int
    completed: tuple[Any, ...]
    told: list[tuple[Any, ...]]
    planned: tuple[Any, ...]
    sick: str = ""
    memory: int = 0
    held: tuple[Any, ...] | None = None


NOT_BEGUN = Answer(0, 0, 0.0, 0, (), [], ())
NO_CODE = NOT_BEGUN._replace(held=())


class Marker(Protocol):
    """Tells the outside which call runs now, in a way that survives this process."""

    def running(self, chunk: int, position: int, key: int) -> bool | None:
        """The call runs now; unless the answer is False: then it is not to, nor any after it."""

    def reporting(self, chunk: int) -> None: ...


class Output(Protocol):
    """Keeps what a call prints."""

    def take(self) -> str | None: ...


class Keeper(Protocol):
    """Keeps the process as it was before a call."""

    def after(self, ended: float, failed: bool, printed: bool) -> str:
        """Put back what the call that has *ended* changed. Why no other is to run here, or an empty text."""

    def look(self) -> None:
        """Compare all that there is to compare."""

    sick: str


def run_chunk(
    chunk: Chunk,
    codes: Codes,
    marker: Marker,
    output: Output,
    pid: int,
    passes: tuple[type[BaseException], ...] = (),
    calls: Sequence[Call] | None = None,
    keeper: Keeper | None = None,
) -> Answer:
    """Run the chunk's calls, or only *calls*, one after another. Exceptions in *passes* end it; others become rows."""
    here.inside = True
    try:
        with contextlib.nullcontext() if chunk.kind == "tasks" else _rare_collections():
            calls = chunk.batch.calls() if calls is None else calls
            return _run_chunk(chunk, calls, codes, marker, output, pid, passes, keeper)
    finally:
        logs.set_fields(None)
        here.inside = False


def _run_chunk(
    chunk: Chunk,
    calls: Sequence[Call],
    codes: Codes,
    marker: Marker,
    output: Output,
    pid: int,
    passes: tuple[type[BaseException], ...],
    keeper: Keeper | None,
) -> Answer:
    zero = time.perf_counter()
    base = time.time() - zero
    positions, times, results = array("l"), array("d"), list[str]()
    told: list[tuple[Any, ...]] = []
    planned: tuple[Any, ...] = ()
    length = counted = 0  # of what goes back
    cpu_before, asked = time.process_time(), zero
    are_tasks = chunk.kind == "tasks"
    about: dict[str, object] = {"job_id": chunk.job_id, "job_type": chunk.job_type, "stage": chunk.stage}
    logs.set_fields(about)
    not_loaded = _loading(chunk.code, codes, passes)
    handler = codes.get(chunk.code) if are_tasks and not_loaded is None else None
    clock, running, take = (
        time.perf_counter,
        marker.running,
        output.take,
    )  # looked up once for short calls
    if are_tasks:
        about["task_type"], about["attempt"] = chunk.batch.task_type, chunk.batch.attempt
    after = None if keeper is None else keeper.after
    ran = 0
    for position, call in enumerate(calls):
        if running(chunk.number, position, call.key) is False:
            break
        ran = position + 1
        started = clock()
        result: str | None = None
        failure: Failure | None = None
        try:
            if not_loaded is not None:
                raise not_loaded
            if are_tasks:
                about["task_id"] = call.task_id
                logs.set_fields(about)
                handler = handler or codes.get(chunk.code)
                result, failure = _run_task(chunk, call, *handler)
            elif chunk.kind == "plan":
                planned = _run_plan(chunk, call, codes)
            else:
                result = _run_finalize(chunk, call, codes.get(chunk.code)[0])
        except passes:
            raise
        except BaseException as exc:  # SystemExit and KeyboardInterrupt of user code are its failures, not ours
            failure = describe(exc, chunk.policy, chunk.code.own)
            if failure.category == Category.UNKNOWN and isinstance(exc, _CANNOT_LOAD) and not codes.held(chunk.code):
                failure = failure._replace(category=str(Category.PERMANENT), retryable=False)
            not_loaded = None  # the next call asks once more
        printed = take()
        ended = clock()
        cpu = ended - started
        if ended - asked > _CPU_SECONDS:
            cpu_now = time.process_time()
            cpu = max(cpu_now - cpu_before - (started - asked), 0.0)
            cpu_before, asked = cpu_now, ended
            length += sum(map(len, results[counted:]))  # in less time than that, no long one is made
            counted = len(results)
        if are_tasks and printed is None and result is not None:
            positions.append(position)
            times.extend((base + started, base + ended, cpu))
            results.append(result)
        else:
            row = (call.key, base + started, base + ended, cpu, result)
            told.append((*row, failure and tuple(failure), printed))
            length += len(printed or "") + (len(failure.traceback or "") if failure else len(result or ""))
        if after is not None and after(ended, failure is not None, printed is not None):
            break
        if ended - zero > chunk.patience or length > PIECE:
            break
    if keeper is not None:
        keeper.look()
    marker.reporting(chunk.number)
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    completed = (positions, times[::3], times[1::3], times[2::3], results)
    held = codes.held(chunk.code) if chunk.code.is_whole else None
    sick = keeper.sick if keeper is not None else ""
    spent = time.perf_counter() - zero
    return Answer(pid, ran, spent, peak_memory, completed, told, planned, sick, 0, held and tuple(held))


def _loading(code: Code, codes: Codes, passes: tuple[type[BaseException], ...]) -> BaseException | None:
    """Load the code before any call counts as running, and any timeout runs; what that raises is the first call's."""
    try:
        codes.get(code)
    except passes:
        raise
    except BaseException as exc:
        return exc
    return None


def _run_task(
    chunk: Chunk, call: Call, handler: Callable[..., Any], with_context: bool
) -> tuple[str | None, Failure | None]:
    task_type = chunk.batch.task_type
    if with_context:
        logger = logs.logger_of(f"geoflow.task.{task_type}")
        value = handler(
            call.parameters,
            TaskContext(
                chunk.job_id,
                chunk.job_type,
                chunk.stage,
                call.task_id,
                call.task_index,
                task_type,
                chunk.batch.attempt,
                logger,
            ),
        )
    else:
        value = handler(call.parameters)
    return outcome(value, task_type)


def outcome(value: Any, task_type: str) -> tuple[str | None, Failure | None]:
    """A handler's return value as JSON text, or as the failure that it is."""
    success = value.get("success") if isinstance(value, dict) else None
    if success is True:
        return to_json(value), None
    if success is not False:
        raise ContractViolationError(
            f"The handler of {task_type!r} must return a dict with 'success' of True or False; it returned "
            f"{shown(value)}."
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


def shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as exc:  # a user's __repr__ may raise anything
        text = f"an object whose repr raises {type(exc).__name__}"
    return f"{type(value).__name__}: {exact(text, 200)}"


_patient, _threshold = 0, gc.get_threshold()
_changing = threading.Lock()


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage less often: plan and finalize hold dicts by the hundred thousand, and to look through them again
    and again takes more time than to make them."""
    global _patient, _threshold  # noqa: PLW0603 - the process has one collector, and perhaps threads that plan at once
    with _changing:
        if not _patient:
            _threshold = gc.get_threshold()
            gc.set_threshold(max(_threshold[0], 100_000) if _threshold[0] else 0, *_threshold[1:])
        _patient += 1
    try:
        yield
    finally:
        with _changing:
            _patient -= 1
            if not _patient:
                gc.set_threshold(*_threshold)


def _run_plan(chunk: Chunk, call: Call, codes: Codes) -> tuple[Any, ...]:
    job_class, asked = codes.get(chunk.code)[0], call.parameters
    previous = asked["previous_results"] or []
    for text in chunk.texts:
        previous.extend(from_json(text or "[]"))
    made = job_class.create_tasks_for_stage(chunk.stage, asked["job_params"], chunk.job_id, previous or None)
    spool = Spool(chunk.answer) if chunk.answer is not None else None
    columns = checked_plan(made, chunk.stage, chunk.task_types, spool)
    if spool is None or not spool.used:
        return columns
    spool.close()
    return (*columns[:2], spool.path)


def checked_plan(
    made: Any, stage: int, task_types: tuple[str, ...], spool: Spool | None = None
) -> tuple[list[str], list[str], list[str], list[str | None]]:
    """The plan's ids, types, parameters and metadata as text; an error names the stage, the task and the key.

    The last two go to *spool* where they are long: first one task's parameters, then its metadata.
    """
    if not isinstance(made, list):
        raise ContractViolationError(
            f"create_tasks_for_stage of stage {stage} must return a list of dicts; it returned {shown(made)}."
        )
    ids: list[str] = []
    types: list[str] = []
    given: list[str] = []
    notes: list[str | None] = []
    seen: set[str] = set()
    length = 0
    known: dict[str, str] = {}  # from the spelling in the plan to the registered one
    for index, task in enumerate(made):
        if not isinstance(task, dict):
            raise ContractViolationError(f"Stage {stage}, task {index} is not a dict but {shown(task)}.")
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
                f"not {shown(task_id)}."
            )
        if task_id in seen:
            raise ContractViolationError(
                f"Stage {stage}, task {index}: the task_id {task_id!r} is there twice in this stage."
            )
        seen.add(task_id)
        if task_type not in known:
            named = normalise(task_type) if isinstance(task_type, str) else None
            if named not in task_types:
                raise ContractViolationError(
                    f"Stage {stage}, task {index} ({task_id!r}): no handler is registered for the task_type "
                    f"{task_type!r}; there are {', '.join(task_types)}."
                )
            known[task_type] = named
        try:
            if not isinstance(parameters, dict):
                raise UnstorableValue(f"parameters must be a dict, not {shown(parameters)}.")
            text = stored(parameters, "parameters")
            note = to_json(task["metadata"], where="metadata") if task.get("metadata") is not None else None
        except UnstorableValue as exc:
            raise ContractViolationError(f"Stage {stage}, task {index} ({task_id!r}): {exc}") from None
        ids.append(task_id if type(task_id) is str and task_id.isascii() and task_id.isprintable() else exact(task_id))
        types.append(known[task_type])
        given.append(text)
        notes.append(note)
        length += len(text) + (len(note) if note is not None else 0)
        if length > IN_MEMORY and spool is not None:
            length = _spooled(spool, given, notes)
    if spool is not None and spool.used:
        _spooled(spool, given, notes)
    return ids, types, given, notes


def _spooled(spool: Spool, given: list[str], notes: list[str | None]) -> int:
    spool.take(chain.from_iterable(zip(given, notes, strict=True)))
    given.clear()
    notes.clear()
    return 0


def _run_finalize(chunk: Chunk, call: Call, job_class: Any) -> str:
    given = call.parameters
    columns = ids, types, results, ended = given.pop("task_results")
    for text in chunk.texts:
        for column, more in zip(columns, from_json(text or "[]"), strict=True):
            column.extend(more)
    # Finalize comes when all tasks are complete, so that is what each of them is.
    completed = as_spoken_by(getattr(job_class, "flow_finalize", job_class.finalize_job), TaskStatus.COMPLETED)
    same = repeat(completed, len(ids)), results, repeat(None, len(ids))
    told = named(TaskResult, ids, types, *same, [microseconds / 1e6 for microseconds in ended])
    made = job_class.finalize_job(JobExecutionContext.model_construct(**given, task_results=told))
    if not isinstance(made, dict):
        raise ContractViolationError(f"finalize_job must return a dict; it returned {shown(made)}.")
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
        return bool(path) and is_users(path)

    return is_own


def _formatted(exc: BaseException) -> str | None:
    """The traceback from the user's first frame on, or None when no user code was involved."""
    frames = exc.__traceback__
    while frames is not None and is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    if frames is None and exc.__cause__ is None:
        return None
    try:
        return exact("".join(traceback.format_exception(type(exc), exc, frames)), 32_000)
    except BaseException as inner:  # RecursionError, MemoryError, a __str__ that raises in the cause chain
        return f"(the traceback could not be made: {type(inner).__name__})"
