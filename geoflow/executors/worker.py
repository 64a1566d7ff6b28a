"""What runs in a worker: one chunk at a time, user code inside a net that lets nothing but text out.

The same functions run inline, in the caller's process. Whatever user code does (raise, exit, return what has no JSON
form), the answer is a plain tuple for each call; only the end of the process itself is left for others to see.
"""

from __future__ import annotations

import contextlib
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from geoflow.core.batch import Call
from geoflow.core.chunks import Chunk
from geoflow.core.models import Category, Failure
from geoflow.executors.calling import caller
from geoflow.executors.loaded_code import Codes
from geoflow.executors.spool import SEAL_SECONDS, Spool, nowhere, text_of
from geoflow.jobtypes.answers import describe
from geoflow.support import logs
from geoflow.support.admission import Place, admitted
from geoflow.support.attempt import attempts, ends_of_attempt
from geoflow.support.memory import peak, too_little
from geoflow.support.nesting import here
from geoflow.support.parcel import PIECE

# Code that cannot be loaded for these is the same the next time; whatever else it raises is judged as a handler's is.
_CANNOT_LOAD = (SyntaxError, ImportError)
# To ask for the processor's time takes as long as the shortest calls. Between two askings, all time counts as such.
_CPU_SECONDS = 1e-4


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


_Act = Callable[[Call], tuple[Any, Failure | None]]


class Answer(NamedTuple):
    """What a worker returns for a chunk, of which the first ``ran`` calls ended and the others did not begin.

    ``completed`` are columns, for all that are not ``told`` by themselves: started_at to results of a
    `batch.Completed`. ``told`` are rows of a `Told`, ``planned`` a plan's ids, types and inputs, and its
    other columns or the file that has them. ``held`` is a `codes.Held` of the chunk's code when it came with the chunk
    and was loaded; empty when it neither came nor is here: nothing was begun, and it is to be sent along.
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

    def running(self, chunk: int, position: int, key: int) -> float | None:
        """The call runs now, from this time of the monotonic clock; None: it is not to, nor any after it."""

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


@contextlib.contextmanager
def _at_work() -> Iterator[None]:
    here.inside = True
    try:
        with attempts():
            yield
    finally:
        logs.set_fields(None)
        here.inside = False


@_at_work()
def run_chunk(
    chunk: Chunk,
    codes: Codes,
    marker: Marker,
    output: Output,
    pid: int,
    passes: tuple[type[BaseException], ...] = (),
    calls: Sequence[Call] | None = None,
    keeper: Keeper | None = None,
    spool: Spool | None = None,
) -> Answer:
    """Run the chunk's calls, or only *calls*, one after another. Exceptions in *passes* end it; others become rows.

    What tasks return is kept in the *spool* as they return it.
    """
    calls = chunk.batch.calls() if calls is None else calls
    zero = time.monotonic()
    base = time.time() - zero
    told: list[tuple[Any, ...]] = []
    planned: tuple[Any, ...] = ()
    length = counted = 0  # of what goes back
    cpu_before, asked = time.process_time(), zero
    are_tasks, number, patience = chunk.kind == "tasks", chunk.number, chunk.patience
    about: dict[str, object] = {"job_id": chunk.job_id, "job_type": chunk.job_type, "stage": chunk.stage}
    about["correlation_id"] = chunk.correlation_id
    logs.set_fields(about)
    act, at_end = _loaded(chunk, codes, passes), ends_of_attempt()
    assert at_end is not None, "this is at work"
    at_end.folder = chunk.files
    if chunk.place is not None:
        act = _in_place(act, chunk.place)
    if are_tasks:
        about["task_type"], about["attempt"] = chunk.batch.task_type, chunk.batch.attempt
    # Looked up once, and lists, which are quicker to add to than arrays: the shortest calls take less than all this.
    starts, ends, cpus, results = list[float](), list[float](), list[float](), list[str]()
    clock, set_fields, running, take = time.monotonic, logs.set_fields, marker.running, output.take
    after = None if keeper is None else keeper.after
    held = codes.held(chunk.code)  # None: it could not be loaded, and may be another when it can
    keeping = spool.begin(chunk, held.fingerprint, base, zero) if spool is not None and are_tasks and held else None
    keep = nowhere if keeping is None else keeping.write
    due = zero + SEAL_SECONDS
    ran = 0
    for position, call in enumerate(calls):
        begun = running(number, position, call.key)
        if begun is None:
            break
        started, ran = begun, position + 1
        try:
            if are_tasks:
                about["task_id"] = call.task_id
                set_fields(about)
            result, failure = act(call)
            while at_end:
                at_end.pop()(result)
        except passes:
            raise
        except BaseException as exc:  # SystemExit and KeyboardInterrupt of user code are its failures, not ours
            while at_end:
                at_end.pop()(None)
            result, failure = None, describe(exc, chunk.policy, chunk.code.own)
            if failure.category == Category.UNKNOWN and isinstance(exc, _CANNOT_LOAD) and not codes.held(chunk.code):
                failure = failure._replace(category=str(Category.PERMANENT), retryable=False)
            if failure.category == Category.MEMORY:
                failure = failure._replace(error=f"{failure.error}; {too_little(peak(), chunk.budget)}")
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
            starts.append(started)
            ends.append(ended)
            cpus.append(cpu)
            results.append(result)
            text = result
        else:
            if chunk.kind == "plan":
                planned, result = result or (), None
            row = (call.key, base + started, base + ended, cpu, result)
            told.append((*row, failure and tuple(failure), printed))
            text = "" if keeping is None else text_of(told[-1], call.task_id)
            length += len(printed or "") + (len(failure.traceback or "") if failure else len(result or ""))
        if keeping is not None:
            try:
                keep((text + "\0").encode())
            except (ValueError, MemoryError):
                keep = keeping.extend(text)
            if ended > due:
                due = keeping.seal(ran, started, ended, cpu)
        if after is not None and after(ended, failure is not None, printed is not None):
            break
        if ended - zero > patience or length > PIECE:
            break
    if keeping is not None and ran:
        keeping.seal(ran, started, ended, cpu)
    if keeper is not None:
        keeper.look()
    marker.reporting(chunk.number)
    times = [array("d", [base + moment for moment in column]) for column in (starts, ends)]
    completed = (*times, array("d", cpus), results)
    held = codes.held(chunk.code) if chunk.code.is_whole else None
    sick = keeper.sick if keeper is not None else ""
    spent = time.monotonic() - zero
    return Answer(pid, ran, spent, peak(), completed, told, planned, sick, 0, held and tuple(held))


def _in_place(act: _Act, place: Place) -> _Act:
    def act_there(call: Call) -> tuple[Any, Failure | None]:
        with admitted(place):
            return act(call)

    return act_there


def _loaded(chunk: Chunk, codes: Codes, passes: tuple[type[BaseException], ...]) -> _Act:
    """Load the code before any call counts as running, and any timeout runs."""
    try:
        return caller(chunk, codes)
    except passes:
        raise
    except BaseException as exc:
        reasons = [exc]

    def load_again(call: Call) -> tuple[Any, Failure | None]:
        if reasons:
            raise reasons.pop()  # what the load raised is the first call's
        return caller(chunk, codes)(call)

    return load_again
