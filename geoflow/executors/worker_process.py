"""One worker process from outside: started, looked at, ended. What runs inside it is in `child`."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from geoflow.core.chunks import Chunk
from geoflow.executors.child import Setup, initialise, work
from geoflow.executors.kept import STACK_SIGNAL
from geoflow.executors.loaded_code import MOST_VERSIONS, Held
from geoflow.executors.marker import MarkFile
from geoflow.executors.printed import read_output
from geoflow.executors.returned import Returned, kept_in
from geoflow.executors.spawning import SlotContext, end_server
from geoflow.executors.spool import SUFFIX
from geoflow.support import progress
from geoflow.support.identity import end_group, is_running
from geoflow.support.memory import of_process, steady
from geoflow.support.surroundings import Surroundings
from geoflow.support.text import human_bytes
from geoflow.usercode.packing import Code

# How often it is made sure that the process is there, should nobody tell of its end.
ALIVE_SECONDS = 0.1
LOOKS = 60  # at its memory, that are remembered; told of are the last one, and those so many seconds before:
BEFORE = (1.0, 5.0)


class WorkerProcess:
    """A process in a pool of its own, its mark and output in files named by *stem*. It starts with the first chunk.

    That may take for ever, where a module that the fork server is to import hangs: it is done in a thread of its own,
    which is left to itself when the process is given up meanwhile.
    """

    def __init__(self, stem: Path, setup: Callable[[Path, Path], Setup], forget: Callable[[int], None]) -> None:
        self.trouble = ""
        self.started = False
        self._output, self._mark_path = stem.with_suffix(".out"), stem.with_suffix(".mark")
        self._setup = setup
        self._forget = forget
        self._changing = threading.Lock()
        self._unsent: deque[tuple[Chunk | None, Future[Any]]] = deque()  # until the process is there
        self._left = False
        self._pool: ProcessPoolExecutor | None = None
        self._hearing: threading.Thread | None = None
        self._context: SlotContext | None = None
        self._held: dict[str, Held] = {}
        self._modules: dict[str, str] = {}
        self._next_look = 0.0
        self.memory: int | None = None  # that it had at the last look
        self._looks: deque[tuple[float, int]] = deque(maxlen=LOOKS)
        self._surroundings: Surroundings | None = None
        self._warm: Future[Any] | None = None
        try:
            self.mark = MarkFile(self._mark_path)
        except OSError as exc:  # the disk is full, or the folder was tidied away: the process will not get further
            self.mark, self.trouble = MarkFile(None), str(exc)

    # What it has

    def holds(self, held: Held) -> None:
        """It says that it has this code."""
        self._held[held.version] = held
        for old in list(self._held)[: -2 * MOST_VERSIONS]:
            del self._held[old]
        self._modules.update(held.modules)

    def lacks(self, code: Code) -> None:
        """It says that it does not have this code, or no more."""
        self._held.pop(code.version, None)

    def held(self, code: Code) -> Held | None:
        """What it has said of this code; None when it has not said that it is there."""
        return self._held.get(code.version)

    def is_outdated(self, code: Code) -> bool:
        """Whether it has imported another version of a module that *code*, which it has not got, needs."""
        return code.version not in self._held and any(
            self._modules.get(name, stamp) != stamp for name, stamp in code.modules
        )

    # Sending

    def submit(self, chunk: Chunk) -> Future[Any]:
        """Send *chunk*, with its code unless that is there already. The future is broken where no process can be."""
        if chunk.code.version in self._held:
            chunk = chunk._replace(code=chunk.code.name_only())
        if chunk.surroundings == self._surroundings:
            chunk = chunk._replace(surroundings=None)
        elif chunk.surroundings is not None:
            self._surroundings = chunk.surroundings
        return self._send(chunk)

    def _send(self, chunk: Chunk | None) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            with self._changing:
                if self._pool is not None:
                    return self._pool.submit(work, chunk)
                self._unsent.append((chunk, future))
                if self.started:
                    return future
                self.started = True
            setup = self._setup(self._mark_path, self._output)
            threading.Thread(target=self._start, args=(setup,), daemon=True, name="geoflow-start").start()
        except (OSError, RuntimeError) as exc:  # of which a pool that is broken is one
            self._break(future, exc)
        return future

    def warm_up(self) -> None:
        """Start it before there is a chunk for it."""
        self._warm = self._send(None)

    @property
    def is_warm(self) -> bool:
        """Whether it has started, after `warm_up`."""
        return self._warm is not None and self._warm.done() and self._warm.exception() is None

    @property
    def has_failed(self) -> bool:
        """Whether `warm_up` was in vain."""
        return self._warm is not None and self._warm.done() and self._warm.exception() is not None

    def _start(self, setup: Setup) -> None:
        context = SlotContext(setup.preload)
        pool = None
        try:
            pool = ProcessPoolExecutor(1, mp_context=context, initializer=initialise, initargs=(setup,))
            chunk, future = self._unsent[0]
            sent = [(pool.submit(work, chunk), future)]
            with self._changing:
                self._context, self._hearing = context, _thread_of(pool)
                if not self._left:
                    self._pool = pool
                    sent += [(pool.submit(work, chunk), future) for chunk, future in list(self._unsent)[1:]]
            if self._left:
                raise BrokenProcessPool("it was given up before it had started")
            for inner, outer in sent:
                inner.add_done_callback(functools.partial(_hand_on, outer))
            self._unsent.clear()
        except Exception as exc:  # whatever keeps it from starting is told, and never waited for
            with self._changing:
                self._pool = None
            context.kill()
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
            for _, future in self._unsent:
                self._break(future, exc)

    def _break(self, future: Future[Any], exc: Exception) -> None:
        self.trouble = f"{type(exc).__name__}: {exc}{_hint(exc)}"
        if not future.done():
            future.set_exception(exc if isinstance(exc, BrokenProcessPool) else BrokenProcessPool(str(exc)))

    # Looking

    def is_alive(self) -> bool:
        """Whether it is there, as far as a look now and then can tell."""
        if (now := time.monotonic()) < self._next_look:
            return True
        self._next_look = now + ALIVE_SECONDS
        mark = self.mark.read()
        if memory := of_process(mark.pid):  # 0 of one that has just died
            self.memory = memory
            self._looks.append((now, memory))
        return is_running(mark.pid, mark.born)

    def remembered(self, since: float) -> str | None:
        """In words, how much memory it had in its last seconds, of those *since* then; None where it was soon gone."""
        looks = [look for look in self._looks if look[0] > since]
        if len(looks) < 2:
            return None
        last, most = looks[-1]
        earlier = dict[float, str]()
        for seconds in BEFORE:
            if before := [look for look in looks if look[0] <= last - seconds]:
                earlier[before[-1][0]] = f", {last - before[-1][0]:.0f} s before {human_bytes(before[-1][1])}"
        return f"geoflow: its process had {human_bytes(most)} in memory{''.join(earlier.values())}"

    def steady(self, since: float) -> int | None:
        """See `geoflow.support.memory.steady`."""
        return steady(self._looks, since)

    def is_heard(self) -> bool:
        """Whether its pool has the thread by which it is heard: to start another one may have failed, which ends it."""
        if self._hearing is None or self._hearing.is_alive():
            return True
        mark = self.mark.read()
        return mark.pid != 0 and not is_running(mark.pid, mark.born)  # its end ended the thread, which has told of it

    def dump_stack(self) -> None:
        """Have it write where it is stuck; a signal handler in C does it, also while the GIL is held."""
        mark = self.mark.read()
        if STACK_SIGNAL is None or not is_running(mark.pid, mark.born):
            return
        with contextlib.suppress(OSError):
            before = size = self._output.stat().st_size
            os.kill(mark.pid, STACK_SIGNAL)
            deadline, looks = time.monotonic() + 0.5, 0
            while (
                time.monotonic() < deadline and looks < 4
            ):  # it writes line by line, and nothing says which is the last
                time.sleep(0.005)
                seen, size = size, self._output.stat().st_size
                looks = looks + 1 if size == seen > before else 0

    def printed(self) -> str | None:
        """What its running call has printed so far."""
        return read_output(self._output, 64_000, self.mark.printed_before())

    def told(self) -> tuple[int, bytes]:
        """What is another whenever its running call has printed, or told of its progress."""
        size, progressed = 0, b""
        with contextlib.suppress(OSError):
            size = self._output.stat().st_size
        with contextlib.suppress(OSError):
            progressed = self._mark_path.with_suffix(progress.SUFFIX).read_bytes()
        return size, progressed

    def returned(self) -> dict[int, Returned]:
        """What its calls had returned, by the number of their chunk, as far as that is not known to be in the store."""
        kept = kept_in(self._mark_path.parent, f"{self._mark_path.stem}-")
        return {returned.chunk: returned for returned in kept.values()}

    def files(self) -> list[Path]:
        """Where that is kept: not to be removed before it is in the store."""
        return list(self._mark_path.parent.glob(f"{self._mark_path.stem}-*{SUFFIX}"))

    def how_it_ended(self, *, out_of_memory: Callable[[], bool] = lambda: False) -> tuple[str, bool]:
        """In words, and whether it was for want of memory; that is asked about a death that may be of it."""
        if self._pool is not None:
            _cut_off(self._pool)  # not after the pool has let go of its queues
            self._pool.shutdown(wait=False)
        code = self._context.exit_code(1.0) if self._context else None
        if code is None:
            return "ended", False
        if code >= 0:
            return f"ended with exit status {code}", False
        name = next((known.name for known in signal.Signals if known == -code), "?")
        if -code != signal.SIGKILL:
            return f"was ended by signal {-code} ({name})", False
        if out_of_memory():
            return f"was ended by the system, which had no memory left for it ({name})", True
        return f"was ended by signal {-code} ({name}; it may have been out of memory)", False

    # Ending

    def kill(self) -> None:
        """End the process and its children, also one that has not yet told its number: it may hold a chunk."""
        mark = self.mark.read()
        if mark.pid:
            self._kill_group(mark.pid, mark.born)
        elif self._context is not None:
            self._context.kill()
        _cut_off(self._pool)

    def give_up_starting(self) -> None:
        """It does not start: what it is to be forked from may hang, and is ended too."""
        if self._pool is None:
            end_server()

    def _kill_group(self, pid: int, born: int) -> None:
        end_group(pid, born)
        self._forget(pid)  # its number may be another's by the time the reaper acts

    def leave(self) -> None:
        """Expect no more of it: one that still runs ends once its call has."""
        with self._changing:
            self._left = True
        if self._pool is not None:
            _cut_off(self._pool)
            self._pool.shutdown(wait=False, cancel_futures=True)
        for path in (self._output, self._mark_path, self._mark_path.with_suffix(progress.SUFFIX)):
            with contextlib.suppress(OSError):  # gone, or the disk became read-only: nobody reads it any more
                path.unlink()

    def close(self) -> None:
        """End it, with all that its tasks left running. Nothing waits for that: it may be asked as Python exits."""
        self.leave()
        if self._pool is not None and (mark := self.mark.read()).pid:
            self._kill_group(mark.pid, mark.born)


def _hand_on(future: Future[Any], done: Future[Any]) -> None:
    """Have *future* end as *done* has."""
    if future.done():  # it was given up
        return
    error = BrokenProcessPool("it was given up") if done.cancelled() else done.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())


def _hint(exc: Exception) -> str:
    """What the system was short of, where its own words do not tell."""
    if isinstance(exc, OSError) and exc.filename is None and exc.errno in (errno.ENOSPC, errno.ENOSYS, errno.EACCES):
        return ". multiprocessing keeps its semaphores in /dev/shm: is there room, and may they be made there?"
    if isinstance(exc, ConnectionError | BlockingIOError | EOFError) or "start new thread" in str(exc):
        return ". Does the system let so many processes and threads start (ulimit -u, pids.max)? Or use fewer workers"
    return ""


def _thread_of(pool: ProcessPoolExecutor | None) -> threading.Thread | None:
    """The pool's own thread, which sends and hears for it."""
    return getattr(pool, "_executor_manager_thread", None)


def _cut_off(pool: ProcessPoolExecutor | None) -> None:
    """Close this side's end of the pipe that a killed worker answered by.

    It may die in the middle of an answer. The pool's thread would wait for the rest of it for ever, and the interpreter
    for that thread, since nobody else had closed the pipe. A worker that lives has its own end, and can still answer.
    """
    writer = getattr(getattr(pool, "_result_queue", None), "_writer", None)
    if writer is not None and not writer.closed:
        writer.close()
