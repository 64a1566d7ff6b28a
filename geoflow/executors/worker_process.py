"""One worker process from outside: started, looked at, ended. What runs inside it is in `slot`."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from geoflow.executors.base import Chunk
from geoflow.executors.mark import MarkFile
from geoflow.executors.printed import read_output
from geoflow.executors.slot import STACK_SIGNAL, Setup, initialise, work
from geoflow.executors.spawning import SlotContext
from geoflow.transport import Code


class WorkerProcess:
    """A process in a pool of its own, its mark and output in files named by *stem*. It starts with the first chunk."""

    def __init__(self, stem: Path, setup: Callable[[Path, Path], Setup], forget: Callable[[int], None]) -> None:
        self.trouble = ""
        self._output, self._mark_path = stem.with_suffix(".out"), stem.with_suffix(".mark")
        self._setup = setup
        self._forget = forget
        self._pool: ProcessPoolExecutor | None = None
        self._context: SlotContext | None = None
        self._versions: dict[str, str] = {}
        try:
            self.mark = MarkFile(self._mark_path)
        except OSError as exc:  # the disk is full, or the folder was tidied away: the process will not get further
            self.mark, self.trouble = MarkFile(None), str(exc)

    @property
    def started(self) -> bool:
        return self._pool is not None

    def is_outdated(self, code: Code) -> bool:
        """Whether it has imported another version of a module that *code* needs."""
        return any(self._versions.get(name, stamp) != stamp for name, stamp in _versions(code).items())

    def submit(self, chunk: Chunk) -> Future[Any]:
        """Send *chunk*, with its code unless that is there already. The future is broken where no process can be."""
        code = chunk.code
        if code.version in self._versions:
            chunk = chunk._replace(code=code._replace(value=None))
        self._versions = _versions(code) | self._versions
        try:
            return self._started_pool().submit(work, chunk)
        except (BrokenProcessPool, OSError, EOFError, RuntimeError) as exc:  # EOFError: the fork server was killed
            self.trouble = f"{type(exc).__name__}: {exc}"
            future: Future[Any] = Future()
            future.set_exception(exc if isinstance(exc, BrokenProcessPool) else BrokenProcessPool(str(exc)))
            return future

    def _started_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            setup = self._setup(self._mark_path, self._output)
            self._context = SlotContext(setup.preload)
            self._pool = ProcessPoolExecutor(1, mp_context=self._context, initializer=initialise, initargs=(setup,))
        return self._pool

    def is_alive(self) -> bool:
        try:
            os.kill(self.mark.read().pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def dump_stack(self) -> None:
        """Have it write where it is stuck; a signal handler in C does it, also while the GIL is held."""
        if STACK_SIGNAL is None:
            return
        with contextlib.suppress(OSError):
            before = self._output.stat().st_size
            os.kill(self.mark.read().pid, STACK_SIGNAL)
            deadline = time.monotonic() + 0.2
            while time.monotonic() < deadline and self._output.stat().st_size == before:
                time.sleep(0.005)

    def printed(self) -> str | None:
        """What its running call has printed so far."""
        return read_output(self._output, 64_000, self.mark.printed_before())

    def how_it_ended(self) -> str:
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        code = self._context.exit_code(1.0) if self._context else None
        if code is None:
            return "ended"
        if code >= 0:
            return f"ended with exit status {code}"
        name = next((known.name for known in signal.Signals if known == -code), "?")
        hint = "; it may have been out of memory" if -code == signal.SIGKILL else ""
        return f"was ended by signal {-code} ({name}{hint})"

    def kill(self) -> None:
        """End the process and its children, also one that has not yet told its number: it may hold a chunk."""
        if pid := self.mark.read().pid:
            self._kill_group(pid)
        elif self._context is not None:
            self._context.kill()
        _cut_off(self._pool)

    def _kill_group(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        self._forget(pid)  # its number may be another's by the time the reaper acts

    def leave(self) -> None:
        """Expect no more of it: one that still runs ends once its call has."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        for path in (self._output, self._mark_path):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """End it, with all that its tasks left running. Nothing waits for that: it may be asked as Python exits."""
        self.leave()
        if self._pool is not None and (pid := self.mark.read().pid):
            self._kill_group(pid)
            _cut_off(self._pool)


def _versions(code: Code) -> dict[str, str]:
    return {code.version: code.version, **dict(code.modules)}


def _cut_off(pool: ProcessPoolExecutor | None) -> None:
    """Close this side's end of the pipe that a killed worker answered by.

    It may have died in the middle of an answer. The pool's thread would wait for the rest of it for ever, and the
    interpreter for that thread, since nobody else had closed the pipe.
    """
    writer = getattr(getattr(pool, "_result_queue", None), "_writer", None)
    if writer is not None and not writer.closed:
        writer.close()
