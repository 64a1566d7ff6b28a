"""The file that a log is written to: shared by processes, rotating, and in the driver written behind.

Whoever says something in the process that drives jobs leaves it in a queue, and a thread of its own writes it, many
lines at a time: a job of which every task fails has as many lines as tasks. The thread goes once there was nothing to
write for a while; at the interpreter's exit, when no thread may start any more, who speaks writes by itself. The order
is kept. Of a process that is killed the last moments are missing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from concurrent_log_handler import ConcurrentRotatingFileHandler

# All processes that write one file must agree on these, and so must those that read it.
MAX_BYTES = 10_000_000
BACKUPS = 5
LINGER_SECONDS = 1.0
# Lines are gathered for so long: a short job is not to share the interpreter with the writing of its own lines.
PAUSE_SECONDS = 0.02
# With so many lines to write, who speaks writes: a disk that is slow does not fill the memory.
MOST_WAITING = 10_000
# What of a record says that the file has it: it may come by way of several loggers.
WRITTEN = "_geoflow_written"

Lines = TypeVar("Lines", bound=logging.Formatter)


class LogFile(ConcurrentRotatingFileHandler, Generic[Lines]):
    """The rotating file at *path*, opened at the first record, and written *behind* who speaks, or at once.

    *lines* makes a record a line.
    """

    def __init__(self, path: str | os.PathLike[str], lines: Lines, *, behind: bool = False) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8", chmod=0o600)
        self.lines = lines
        self._behind = behind
        self.begin()
        _files.add(self)

    def begin(self) -> None:
        """Begin with nothing; in a fork, where what waits is the parent's to write, and so is its thread."""
        self._starting = threading.Lock()
        self._waiting: deque[str | Callable[[], str]] = deque()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.__dict__.get(WRITTEN):
            return
        record.__dict__[WRITTEN] = True
        try:
            self.say(self.lines.format(record))
        except Exception:
            self.handleError(record)

    def say(self, line: str | Callable[[], str]) -> None:
        """Write *line*, or what it makes, after all that was said before."""
        self._waiting.append(line)
        if not (self._behind and len(self._waiting) < MOST_WAITING and self._has_thread()):
            self.flush()
        elif not self._woken.is_set():
            self._woken.set()

    def _has_thread(self) -> bool:
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return True
            thread = threading.Thread(target=self._write_behind, name="geoflow-log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is about to end, or there are too many
                return False
            self._thread = thread
            return True

    def _write_behind(self) -> None:
        while True:
            if not self._woken.wait(LINGER_SECONDS):
                with self._starting:
                    if not self._waiting:
                        self._thread = None
                        return
            time.sleep(PAUSE_SECONDS)
            self._woken.clear()
            self.flush()

    def at_once(self) -> None:
        """From now on who speaks writes; what waits is written."""
        self._behind = False
        self.flush()

    def flush(self) -> None:
        """Write what waits. Once this returns, all that was said before is in the file."""
        with _writing:
            while self._waiting:
                # Rotation is looked at before each of these.
                size, lines = 0, list[str]()
                while self._waiting and size <= self.maxBytes // 100:
                    line = self._waiting.popleft()
                    lines.append(line if isinstance(line, str) else line())
                    size += len(lines[-1])
                super().emit(_Ready("\n".join(lines)))
            super().flush()

    def format(self, record: logging.LogRecord) -> str:
        return record.text if isinstance(record, _Ready) else self.lines.format(record)

    def close(self) -> None:
        """Also done by `logging.config` to every handler there is: what comes later opens the file again."""
        self.flush()
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:
        """Stay silent: a disk that is full must not print a traceback for each record."""


class _Ready(logging.LogRecord):
    """Lines that are as they are to be written."""

    def __init__(self, text: str) -> None:
        self.text = text


_files: weakref.WeakSet[LogFile[Any]] = weakref.WeakSet()


def files() -> list[LogFile[Any]]:
    """All that this process writes to."""
    return list(_files)


# Held while a file is written, and so while this process forks: a fork in the middle of a write would be born with
# locks that nobody lets go of.
_writing = threading.RLock()


def _in_fork() -> None:
    for file in files():
        file.begin()
    _writing.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_writing.acquire, after_in_parent=_writing.release, after_in_child=_in_fork)
