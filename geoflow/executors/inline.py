"""Chunks run in the caller's own thread: no processes, so that a debugger works. Timeouts cannot be enforced here."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import threading
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Self, TextIO

from geoflow.core.batch import Call
from geoflow.core.chunking import CHUNK_SECONDS
from geoflow.core.chunks import Chunk, Report
from geoflow.executors.leftovers import remove, sign, sweep
from geoflow.executors.loaded_code import Codes
from geoflow.executors.marker import MarkFile
from geoflow.executors.printed import MOST_BYTES, shortened
from geoflow.executors.reports import from_answer
from geoflow.executors.worker import run_chunk
from geoflow.support.attempt import Slot, ends_of_attempt, in_slot
from geoflow.support.identity import label
from geoflow.support.jsonable import to_json


class _Kept:
    """What is printed here, in a file as a worker's is: who looks at the job from elsewhere reads it there."""

    def __init__(self, path: Path | None, limit: int, mark: MarkFile) -> None:
        self._file: io.RawIOBase | io.BytesIO = io.BytesIO() if path is None else path.open("a+b", buffering=0)
        self._limit, self._mark, self._taken = limit, mark, 0
        self._pending: list[str] = []
        self._writing = threading.RLock()  # a handler's threads print, too

    def write(self, text: str) -> None:
        with self._writing:
            self._pending.append(text)
            if "\n" in text:
                self.flush()

    def flush(self) -> None:
        with self._writing:
            left = memoryview("".join(self._pending).encode("utf-8", "backslashreplace"))
            self._pending.clear()
            try:
                while left:
                    left = left[self._file.write(left) :]
            except OSError:  # the disk is full, which is not the handler's fault: this goes on in memory
                before = self._read(-1, self._taken)
                self._file, self._taken = io.BytesIO(), 0
                self._file.write(before + left)

    def take(self) -> str | None:
        """What was printed since the last time."""
        with self._writing:
            self.flush()
            end = self._file.seek(0, os.SEEK_END)
            if end == self._taken:
                return None
            text = shortened(self._read, self._taken, end - self._taken, self._limit)
            self._taken = end
            if end > MOST_BYTES:
                self._file.truncate(0)
                self._taken = 0
            self._file.seek(0, os.SEEK_END)
            self._mark.printed(self._taken)
            return text

    def _read(self, size: int, start: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size) or b""

    def close(self) -> None:
        """A handler's thread may print on."""
        with self._writing:
            self._file.close()
            self._file, self._taken = io.BytesIO(), 0


class _Tee(io.TextIOBase):
    """In it, what is printed to *stream* goes where it went before, and is kept.

    It lives as long as its place: Python prints to what is ``sys.stdout`` without holding it, so that one which goes
    with its call might do so in the middle of another thread's print.
    """

    def __init__(self, stream: Literal["stdout", "stderr"], kept: _Kept) -> None:
        self._stream, self._kept, self._is_on = stream, kept, False
        self._screen: TextIO | None = None
        self._thread = threading.current_thread()

    def __enter__(self) -> Self:
        self._screen, self._is_on, self._thread = getattr(sys, self._stream), True, threading.current_thread()
        setattr(sys, self._stream, self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_on = False
        if getattr(sys, self._stream) is self:  # else another session prints in another thread, and began later
            screen = self._screen
            while isinstance(screen, _Tee) and not screen._is_on:  # or one that began before has ended by now
                screen = screen._screen
            setattr(sys, self._stream, screen)

    def write(self, text: str) -> int:
        if self._screen is not None:  # a program without a console has none
            self._screen.write(text)
        if self._is_on and self._is_the_calls():
            self._kept.write(text)
        return len(text)

    def _is_the_calls(self) -> bool:
        """Whether the call prints: it or a thread of its own, not another session's call, or the user meanwhile."""
        thread = threading.current_thread()
        return thread is self._thread or (ends_of_attempt() is None and thread is not threading.main_thread())

    def flush(self) -> None:
        # Flushed as this one goes, too, and what it stood before may have been closed by then.
        screen = self._screen
        if screen is not None and hasattr(screen, "flush") and not getattr(screen, "closed", False):
            screen.flush()
        if self._is_on:
            self._kept.flush()


class _Place:
    """Where calls run here: a folder with the files that a slot's process has, so that others can see what runs.

    Where there is no room for one, nothing is seen before the end.
    """

    def __init__(self, output_limit: int) -> None:
        self.folder: Path | None = None
        mark = output = None
        self.slot: Slot | None = None
        with contextlib.suppress(OSError):
            self.folder = Path(tempfile.mkdtemp(prefix=label()))
            sign(self.folder)
            mark, output = self.folder / "slot-0.mark", self.folder / "slot-0.out"
            self.slot = Slot(str(self.folder / "slot-0"), lambda: self.mark.read().since)
        self.mark = MarkFile(mark)
        self.kept = _Kept(output, output_limit, self.mark)
        self.tees = _Tee("stdout", self.kept), _Tee("stderr", self.kept)

    def close(self) -> None:
        self.kept.close()
        if self.folder is not None:
            remove(self.folder)
            sweep(self.folder.parent)


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
        self._place: _Place | None = None
        self._opening = threading.Lock()  # also threads that submit ask `where` it will run
        self._began = False  # the first of the calls
        self._ended: Report | None = None  # and this is how it ended, until it is collected

    def start(self, inbox: SimpleQueue[Any]) -> None:
        self._inbox = inbox

    def _open(self) -> _Place:
        with self._opening:
            if self._place is None:
                self._place = _Place(self._limit)
            return self._place

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
        place, self._began = self._open(), True
        out, err = place.tees
        with out, err, in_slot(place.slot):
            answer = run_chunk(chunk, self._codes, place.mark, place.kept, os.getpid(), passes=passes, calls=[call])
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
        self._began = False
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
                if self._began:  # the call that an interrupt came in
                    place = self._open()
                    began, printed = 1, place.kept.take()
                    place.mark.ready()
                self._calls.clear()
                self._began = False
            self._waiting.remove(chunk)
            reports.append(Report(chunk, lost=keys[:began], unstarted=keys[began:], printed=printed))
        return reports

    def busy(self) -> bool:
        return bool(self._waiting)

    def looks(self) -> None:
        return None

    def where(self) -> str | None:
        folder = self._open().folder
        return None if folder is None else str(folder)

    def close(self) -> None:
        self._waiting.clear()
        self._calls.clear()
        self._began, self._ended = False, None
        with self._opening:
            place, self._place = self._place, None
        if place is not None:
            place.close()
