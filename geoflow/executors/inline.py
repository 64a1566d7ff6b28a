"""Chunks run in the caller's own thread: no processes, so that a debugger works. Timeouts cannot be enforced here."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import Any, TextIO

from geoflow.core.batch import Call
from geoflow.core.chunking import CHUNK_SECONDS
from geoflow.core.chunks import Chunk, Report
from geoflow.executors.loaded_code import Codes
from geoflow.executors.reports import from_answer
from geoflow.executors.worker import run_chunk
from geoflow.support.jsonable import to_json


class _NoMarker:
    """Nobody outlives this process to read a marker."""

    def running(self, chunk: int, position: int, key: int) -> float:
        return time.monotonic()

    def reporting(self, chunk: int) -> None:
        pass


class _Tee(io.TextIOBase):
    """Prints go where they went before, and are kept."""

    def __init__(self, screen: TextIO | None, limit: int) -> None:
        self._screen, self._kept, self._room, self._limit = screen, io.StringIO(), limit, limit

    def write(self, text: str) -> int:
        if self._screen is not None:  # a program without a console has none
            self._screen.write(text)
        self._kept.write(text[: max(self._room, 0)])
        self._room -= len(text)
        return len(text)

    def flush(self) -> None:
        if self._screen is not None and hasattr(self._screen, "flush"):
            self._screen.flush()

    def take(self) -> str:
        kept, over = self._kept.getvalue(), -self._room
        self._kept, self._room = io.StringIO(), self._limit
        return kept + (f"\n… {over} more characters" if over > 0 else "")


class _Capture:
    """Holds stdout and stderr while a chunk runs."""

    def __init__(self, limit: int) -> None:
        self._before = sys.stdout, sys.stderr
        self._tees = _Tee(sys.stdout, limit), _Tee(sys.stderr, limit)

    def __enter__(self) -> _Capture:
        sys.stdout, sys.stderr = self._tees
        return self

    def __exit__(self, *exc: object) -> None:
        sys.stdout, sys.stderr = self._before

    def take(self) -> str | None:
        return "".join(tee.take() for tee in self._tees) or None


class InlineExecutor:
    """One slot, which is the thread that asks `run_here`."""

    slots = 1
    chunk_seconds = CHUNK_SECONDS

    def __init__(self, *, output_limit: int = 64_000) -> None:
        self._codes = Codes()
        self._waiting: deque[Chunk] = deque()
        self._calls: deque[Call] = deque()  # what is left of the first chunk
        self._limit = output_limit
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._running: _Capture | None = None  # what the first of them prints, once it was begun
        self._ended: Report | None = None  # and this is how it ended, until it is collected

    def start(self, inbox: SimpleQueue[Any]) -> None:
        self._inbox = inbox

    def capacity(self, job_id: str, *, reserve: bool) -> int:
        return 0 if self._waiting else 1

    def submit(self, chunk: Chunk) -> None:
        self._waiting.append(chunk)

    def run_here(self) -> bool:
        # Of each step below an interrupt may be what comes next: a call counts as begun, then as ended, and stays so.
        if self._ended is not None:
            self._inbox.put(self._ended)
            return True
        if not self._waiting:
            return False
        chunk = self._waiting[0]
        if not self._calls:
            self._calls.extend(chunk.batch.calls())
        # One call at a time, so that a cancel from another thread, or an interrupt, costs no other.
        call = self._calls[0]
        # An interrupt is the user's, not the handler's: it goes up, and the chunk stays to be stopped. Other threads
        # are never interrupted: what looks like it is the handler's own.
        passes = (KeyboardInterrupt,) if threading.current_thread() is threading.main_thread() else ()
        self._running = _Capture(self._limit)
        with self._running as capture:
            answer = run_chunk(chunk, self._codes, _NoMarker(), capture, os.getpid(), passes=passes, calls=[call])
        batch = chunk.batch._replace(keys=(call.key,), task_ids=to_json([call.task_id]), parameters="[]")
        self._ended = from_answer(chunk._replace(batch=batch), answer, slot=0)
        self._inbox.put(self._ended)
        return True

    def collect(self, message: Report) -> list[Report]:
        return [] if message is not self._ended else [self._taken()]

    def _taken(self) -> Report:
        """How the first call ended, which is told of now."""
        ended = self._ended
        assert ended is not None, "asked only of what has ended"
        self._running = None
        self._calls.popleft()
        if not self._calls:
            self._waiting.popleft()
        self._ended = None
        return ended

    def check(self) -> list[Report]:
        return []

    def written(self) -> None:
        pass

    def stop(self, job_id: str) -> list[Report]:
        reports = []
        if self._ended is not None and self._ended.chunk.job_id == job_id:
            reports.append(self._taken())
        for chunk in [chunk for chunk in self._waiting if chunk.job_id == job_id]:
            keys, began, printed = chunk.batch.keys, 0, None
            if self._calls and chunk is self._waiting[0]:
                keys = keys[-len(self._calls) :]
                if self._running is not None:  # the call that an interrupt came in
                    began, printed = 1, self._running.take()
                self._calls.clear()
                self._running = None
            self._waiting.remove(chunk)
            reports.append(Report(chunk, lost=keys[:began], unstarted=keys[began:], printed=printed))
        return reports

    def busy(self) -> bool:
        return bool(self._waiting)

    def where(self) -> str | None:
        return None

    def close(self) -> None:
        self._waiting.clear()
        self._calls.clear()
        self._running, self._ended = None, None
