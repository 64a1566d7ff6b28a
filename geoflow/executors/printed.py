"""What a slot's process prints, in a file, so that native code's output is kept as well, also when the process dies."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

# To cut a file short takes a disk as long as a hundred tasks that print: it is let grow to here.
MOST_BYTES = 4_000_000


_lseek = os.lseek


class Printed:
    """The slot's standard output and error. *mark* is told how much of the file earlier calls have printed."""

    def __init__(self, path: Path, limit: int, mark: Callable[[int], object] = lambda taken: None) -> None:
        self._path, self._limit, self._mark = path, limit, mark
        self._in_fork = False
        self._taken = 0
        os.register_at_fork(after_in_child=self._forked)
        self._open()

    def _forked(self) -> None:
        self._in_fork = True

    def _open(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for target in (1, 2):
            os.dup2(descriptor, target)
        if descriptor > 2:
            os.close(descriptor)
        self._is = os.fstat(1)
        self._streams = tuple(
            open(target, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            for target in (1, 2)
        )
        sys.stdout, sys.stderr = self._streams

    def take(self) -> str | None:
        """What was printed since the last time; the streams are then again what they were."""
        if self._in_fork:  # a handler forked, and its child returned as well: it must not go on in the worker's place
            os._exit(0)
        out, err = self._streams
        if sys.stdout is not out or sys.stderr is not err:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # it is the user's, and may hold what it was given
                    stream.flush()
            sys.stdout, sys.stderr = out, err
        try:
            out.flush()
            err.flush()
            end = _lseek(1, 0, 2)  # to the end: a third of what fstat costs
            if end == self._taken:
                return None
            replaced = not all(os.path.samestat(os.fstat(target), self._is) for target in (1, 2))
        except (OSError, ValueError):  # user code closed them
            replaced = True
        if replaced:
            self._open()
            end = os.lseek(1, 0, os.SEEK_END)
        text = shortened(partial(os.pread, 1), self._taken, end - self._taken, self._limit)
        self._taken = end
        if end > MOST_BYTES:
            os.ftruncate(1, 0)
            self._taken = 0
        self._mark(self._taken)
        return text


def read_output(path: Path, limit: int, start: int = 0) -> str | None:
    """What the file at *path* has from *start* on, as `Printed.take` keeps it."""
    try:
        with path.open("rb") as file:
            return shortened(partial(os.pread, file.fileno()), start, file.seek(0, os.SEEK_END) - start, limit)
    except OSError:
        return None


def shortened(read: Callable[[int, int], bytes], start: int, size: int, limit: int) -> str | None:
    """The beginning and the end of *size* bytes from *start* on, at most *limit* of them, as *read* (so many, from
    where) has them."""
    if size <= limit:
        text = read(max(size, 0), start)
    else:
        half = limit // 2
        text = read(half, start) + f"\n… {size - limit} more bytes …\n".encode()
        text += read(half, start + size - half)
    return text.decode("utf-8", "backslashreplace") or None
