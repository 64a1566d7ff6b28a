"""Slots: process pools of one worker each, so that a process that dies takes exactly one task with it.

A slot's file of memory (its mark) says which call runs; that is how a timeout and a death find the one to blame. All
processes start from a fork server, or by spawn where there is none, never as a fork of a kernel with threads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from geoflow.executors.base import Chunk, Report
from geoflow.executors.lifeline import Lifeline
from geoflow.executors.mark import MarkFile
from geoflow.executors.remains import PREFIX
from geoflow.executors.reports import report
from geoflow.executors.slot import STACK_SIGNAL, Setup, initialise, read_output, work
from geoflow.executors.spawning import SlotContext
from geoflow.models import Attempt, Category, Failure, Outcome
from geoflow.pace import CHUNK_SECONDS
from geoflow.text import DEFAULT_SECRETS, cut
from geoflow.worker import Answer

MAX_START_FAILURES = 3
# A chunk that waits behind a call which has run this long is given to an idle slot instead.
RECALL_SECONDS = 0.1
_FAULT_HEADS = ("Fatal Python error:", "Stack (most recent call first):", "Current thread 0x")


class _Message(NamedTuple):
    slot: int
    generation: int
    chunk: int
    future: Future[Any]


class ProcessExecutor:
    """*slots* worker processes. Nothing is started before the first chunk."""

    chunk_seconds = CHUNK_SECONDS

    def __init__(
        self,
        slots: int,
        *,
        preload: tuple[str, ...] = (),
        output_limit: int = 64_000,
        log_file: Path | None = None,
        log_level: str = "INFO",
        secrets: tuple[str, ...] = DEFAULT_SECRETS,
    ) -> None:
        self.slots = slots
        self._preload = preload
        self._output_limit = output_limit
        self._log = (None if log_file is None else str(log_file.absolute()), log_level, secrets)
        self._slots: list[_Slot] = []
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._folder: Path | None = None
        self._lifeline: Lifeline | None = None
        self._opening = threading.Lock()

    def start(self, inbox: SimpleQueue[Any]) -> None:
        self._inbox = inbox

    def _open(self) -> None:
        with self._opening:  # also in threads that submit, which say `where` they will run
            if self._slots:
                return
            try:
                self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
                self._lifeline = Lifeline(self._folder)
                forget = self._lifeline.forget
                self._slots = [_Slot(number, self._folder, self._setup, forget) for number in range(self.slots)]
            except BaseException:  # an interrupt, mostly: the next call begins anew
                self.close()
                raise

    def _setup(self, mark: Path, output: Path) -> Setup:
        registry = self._lifeline.registry if self._lifeline else None
        return Setup(str(mark), str(output), self._output_limit, registry, dict(os.environ), self._preload, *self._log)

    def where(self) -> str | None:
        self._open()
        return str(self._folder)

    def capacity(self, job_id: str, *, reserve: bool) -> int:
        self._open()
        idle = sum(1 for slot in self._slots if not slot.chunks)
        if not reserve:
            return idle
        return idle * 2 + sum(1 for slot in self._slots if len(slot.chunks) == 1 and slot.chunks[0].job_id == job_id)

    def submit(self, chunk: Chunk) -> None:
        def burden(slot: _Slot) -> tuple[bool, int, bool]:
            foreign = any(other.job_id != chunk.job_id for other in slot.chunks)
            return foreign, len(slot.chunks), not slot.started

        slot = min(self._slots, key=burden)
        slot.send(chunk, self._inbox)

    def run_here(self) -> bool:
        return False

    def collect(self, message: _Message) -> list[Report]:
        slot = self._slots[message.slot]
        if message.generation != slot.generation:
            return []  # of a process that was ended meanwhile and accounted for then
        error = message.future.exception()
        if error is None:
            return slot.answered(message.chunk, Answer(*message.future.result()))
        return slot.died(None if isinstance(error, BrokenProcessPool) else error)

    def check(self) -> list[Report]:
        found = [report for slot in self._slots for report in slot.check()]
        idle = sum(1 for slot in self._slots if not slot.chunks)
        for slot in self._slots:
            if idle and (recalled := slot.recall_waiting() or slot.recall_rest()):
                found.append(recalled)
                idle -= 1
        return found

    def stop(self, job_id: str) -> list[Report]:
        return [
            found
            for slot in self._slots
            if any(chunk.job_id == job_id for chunk in slot.chunks)
            for found in slot.stop()
        ]

    def busy(self) -> bool:
        return any(slot.chunks for slot in self._slots)

    def close(self) -> None:
        for slot in self._slots:
            slot.close()
        self._slots = []
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class _Slot:
    """One process at a time, replaced when it dies, and the chunks that it was sent."""

    def __init__(
        self, number: int, folder: Path, setup: Callable[[Path, Path], Setup], forget: Callable[[int], None]
    ) -> None:
        self.number = number
        self.generation = 0
        self.chunks: deque[Chunk] = deque()
        self._folder = folder
        self._setup = setup
        self._forget = forget
        self._open_files()
        self._pool: ProcessPoolExecutor | None = None
        self._context: SlotContext | None = None
        self._versions: dict[str, str] = {}
        self._start_failures = 0
        self._recalled: set[int] = set()

    def _open_files(self) -> None:
        # New ones for each process: the last one may still write while it dies.
        stem = f"slot-{self.number}-{self.generation}"
        self._output = self._folder / f"{stem}.out"
        self._mark_path = self._folder / f"{stem}.mark"
        self._trouble = ""
        try:
            self._mark = MarkFile(self._mark_path)
        except OSError as exc:  # the disk is full, or the folder was tidied away: its process will not get further
            self._mark, self._trouble = MarkFile(None), str(exc)

    @property
    def started(self) -> bool:
        return self._pool is not None

    def send(self, chunk: Chunk, inbox: SimpleQueue[Any]) -> None:
        code = chunk.code
        sent = {code.version: code.version, **dict(code.modules)}
        if not self.chunks and any(self._versions.get(name, stamp) != stamp for name, stamp in sent.items()):
            self._replace()  # its process imported an older version of a module
        self.chunks.append(chunk)
        if code.version in self._versions:
            chunk = chunk._replace(code=code._replace(value=None))
        self._versions = sent | self._versions
        generation, number = self.generation, chunk.number
        try:
            future = self._submit(chunk)
        except (BrokenProcessPool, OSError, EOFError, RuntimeError) as exc:  # EOFError: the fork server was killed
            self._trouble = f"{type(exc).__name__}: {exc}"
            future = Future()
            future.set_exception(exc if isinstance(exc, BrokenProcessPool) else BrokenProcessPool(str(exc)))
        future.add_done_callback(lambda done: inbox.put(_Message(self.number, generation, number, done)))

    def _submit(self, chunk: Chunk) -> Future[Any]:
        if self._pool is None:
            setup = self._setup(self._mark_path, self._output)
            self._context = SlotContext(setup.preload)
            self._pool = ProcessPoolExecutor(
                1,
                mp_context=self._context,
                initializer=initialise,
                initargs=(setup,),
            )
        return self._pool.submit(work, chunk)

    def answered(self, number: int, answer: Answer) -> list[Report]:
        if number in self._recalled:
            self._recalled.remove(number)
            return []
        chunk = self.chunks.popleft()
        assert chunk.number == number, "a slot answers in the order in which it was asked"
        self._start_failures = 0
        return [report(chunk, answer, self.number)]

    def recall_waiting(self) -> Report | None:
        """Take back the chunk that waits behind one that turned out long, while another slot has nothing to do."""
        mark = self._mark.read()
        if len(self.chunks) < 2 or mark.position <= 0 or time.monotonic() - mark.since < RECALL_SECONDS:
            return None
        waiting = self.chunks[-1]
        self._mark.recall(waiting.number, rest=False)
        if self._mark.read().chunk != self.chunks[0].number:
            return None  # it begins just now, and answers for itself
        self.chunks.pop()
        self._recalled.add(waiting.number)
        return Report(waiting, unstarted=waiting.batch.keys)

    def recall_rest(self) -> Report | None:
        """Take back what has not begun of the chunk that runs, behind a call in it that turned out long."""
        mark = self._mark.read()
        if len(self.chunks) != 1 or mark.position <= 0 or time.monotonic() - mark.since < RECALL_SECONDS:
            return None
        (chunk,) = self.chunks
        keys = chunk.batch.keys
        if mark.chunk != chunk.number or mark.position >= len(keys):
            return None
        self._mark.recall(chunk.number, rest=True)
        mark = self._mark.read()
        if mark.position <= 0 or mark.position >= len(keys):
            return None  # it got to its end, and answers for itself
        # Should the call that the mark names now have seen the recall, its chunk's answer says that it did not begin.
        self.chunks[0] = chunk._replace(batch=chunk.batch._replace(keys=keys[: mark.position]))
        return Report(chunk, unstarted=keys[mark.position :])

    def check(self) -> list[Report]:
        """Whether the running call is past its time, or the process gone without its pool's noticing."""
        if not self.chunks or self._pool is None:
            return []
        mark = self._mark.read()
        if not mark.pid:
            return []
        chunk = self.chunks[0]
        spent = time.monotonic() - mark.since
        if chunk.timeout is not None and mark.chunk == chunk.number and mark.position > 0 and spent > chunk.timeout:
            _dump_stack(mark.pid, self._output)
            failure = Failure(
                f"timed out: it ran longer than {chunk.timeout:g} s, and its process was ended",
                "TaskTimeout",
                Category.TIMEOUT,
                True,
            )
            return self._end(failure)
        # A child of the worker may hold the pipe that would tell of its death (found with os.fork in a handler).
        return [] if _is_alive(mark.pid) else self.died(None)

    def stop(self) -> list[Report]:
        """End the process for the job's sake: nobody is to blame."""
        return self._end(None)

    def died(self, error: BaseException | None) -> list[Report]:
        """The process ended by itself, or could not answer: the running call is to blame."""
        pid = self._mark.read().pid
        if error is not None:
            what = f"the worker's answer could not be read: {type(error).__name__}: {error}"
        else:
            what = f"worker process {pid} {self._how_it_ended()} while it ran this task"
        return self._end(Failure(what, "WorkerDied", Category.LOST, True))

    def _how_it_ended(self) -> str:
        # Its pool's own thread asks for the exit code first; two askers would get it wrong.
        closing = threading.Thread(target=self._pool.shutdown, daemon=True) if self._pool else None
        if closing is not None:
            closing.start()
            closing.join(1.0)
        code = self._context.exit_code() if self._context and not (closing and closing.is_alive()) else None
        if code is None:
            return "ended"
        if code >= 0:
            return f"ended with exit status {code}"
        name = next((known.name for known in signal.Signals if known == -code), "?")
        hint = "; it may have been out of memory" if -code == signal.SIGKILL else ""
        return f"was ended by signal {-code} ({name}{hint})"

    def _end(self, failure: Failure | None) -> list[Report]:
        """End the process, and account for all that it was sent. *failure* is for the call that ran."""
        mark, chunks = self._mark.read(), list(self.chunks)
        self._kill(mark.pid)
        printed = read_output(self._output, 64_000)
        why = printed or self._trouble
        self._replace()
        if not chunks:
            return []
        first, *rest = chunks
        position = mark.position if mark.chunk == first.number else 0
        if position == 0:
            reports = [self._unstarted(first, why, counted=failure is not None)]
        elif position > 0:
            reports = [self._blamed(first, position - 1, mark.since, failure, printed, mark.pid)]
        elif len(first.batch.keys) == 1 and failure is not None:
            reports = [self._blamed(first, 0, mark.since, failure, printed, mark.pid)]
        else:
            keys = first.batch.keys
            reports = [Report(first, lost=keys[:-position], unstarted=keys[-position:], suspects=failure is not None)]
        return reports + [Report(chunk, unstarted=chunk.batch.keys) for chunk in rest]

    def _unstarted(self, chunk: Chunk, why: str, *, counted: bool) -> Report:
        self._start_failures += counted
        broken = None
        if self._start_failures >= MAX_START_FAILURES:
            what = f"Worker processes cannot start: {self._start_failures} in a row ended before any work."
            broken = f"{what} {cut(why, 4_000)}"
        return Report(chunk, unstarted=chunk.batch.keys, broken=broken)

    def _blamed(
        self, chunk: Chunk, index: int, since: float, failure: Failure | None, printed: str | None, pid: int
    ) -> Report:
        self._start_failures = 0
        keys = chunk.batch.keys
        if failure is None:
            return Report(chunk, lost=keys[: index + 1], unstarted=keys[index + 1 :])
        printed, stack = _parted(printed)
        ended = time.time()
        blamed = Attempt(
            keys[index],
            chunk.batch.attempt,
            Outcome.FAILED,
            ended - max(time.monotonic() - since, 0.0),
            ended,
            failure=failure._replace(traceback=stack),
            output=printed,
            slot=self.number,
            pid=pid,
            code=chunk.code.fingerprint,
        )
        return Report(chunk, (blamed,), lost=keys[:index], unstarted=keys[index + 1 :])

    def _kill(self, pid: int) -> None:
        """End the process *pid* and its children, or one that has not yet told its number: it may hold a chunk."""
        if pid:
            self._kill_group(pid)
        elif self._context is not None and self._pool is not None:
            self._context.kill()
        _cut_off(self._pool)

    def _kill_group(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        self._forget(pid)  # its number may be another's by the time the reaper acts

    def _replace(self) -> None:
        """Forget the process; the next chunk starts another."""
        self.generation += 1
        self.chunks.clear()
        self._recalled.clear()
        self._versions.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        for path in (self._output, self._mark_path):
            path.unlink(missing_ok=True)
        self._open_files()

    def close(self) -> None:
        pid = self._mark.read().pid
        if self.chunks:
            self._kill(pid)
        pool = self._pool
        self._replace()
        if pool is not None:
            closing = threading.Thread(target=pool.shutdown, daemon=True)
            closing.start()
            closing.join(0.5)
            if pid:
                self._kill_group(pid)  # also what its tasks left running
                _cut_off(pool)
                closing.join(1.0)


def _cut_off(pool: ProcessPoolExecutor | None) -> None:
    """Close this side's end of the pipe that a killed worker answered by.

    It may have died in the middle of an answer. The pool's thread would wait for the rest of it for ever, and the
    interpreter for that thread, since nobody else had closed the pipe.
    """
    writer = getattr(getattr(pool, "_result_queue", None), "_writer", None)
    if writer is not None and not writer.closed:
        writer.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _dump_stack(pid: int, output: Path) -> None:
    """Have the stuck process write where it is; a signal handler in C does it, also while the GIL is held."""
    if STACK_SIGNAL is None:
        return
    with contextlib.suppress(OSError):
        before = output.stat().st_size
        os.kill(pid, STACK_SIGNAL)
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline and output.stat().st_size == before:
            time.sleep(0.005)


def _parted(printed: str | None) -> tuple[str | None, str | None]:
    """What the task printed, and the stack that the process wrote as it ended."""
    if printed is None:
        return None, None
    found = [place for head in _FAULT_HEADS if (place := printed.find(head)) >= 0]
    if not found:
        return printed, None
    return printed[: min(found)] or None, printed[min(found) :]
