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
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple, Protocol

from geoflow.core.batch import Call, named
from geoflow.core.chunks import Chunk
from geoflow.core.models import (
    Category,
    Failure,
    JobExecutionContext,
    TaskContext,
    TaskResult,
    TaskStatus,
    as_spoken_by,
)
from geoflow.errors import ContractViolationError
from geoflow.executors.codes import Codes
from geoflow.jobtypes.calls import checked_plan, describe, outcome, shown
from geoflow.support import logs
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.nesting import here
from geoflow.support.parcel import PIECE, Spool
from geoflow.usercode.packing import Code

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
