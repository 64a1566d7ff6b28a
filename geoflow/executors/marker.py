"""The mark of a slot: which call runs there and since when, readable by others also after the process has died."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

from geoflow.support.identity import UNKNOWN, born
from geoflow.support.mapped import mapped

_LAYOUT = struct.Struct("=qqqqdq")
# Behind it stand numbers, of which these are the places in the whole as an array.
_RECALL_WAITING, _RECALL_REST, _PRINTED, _WRITTEN = (_LAYOUT.size // 8 + place for place in range(4))
_SIZE = 8 * (_WRITTEN + 1)
SETTING_UP = -1
# What waits behind a call is taken back once that has run for so long.
RECALL_SECONDS = 0.1


_now = time.monotonic


class Mark(NamedTuple):
    """``position`` is that of the running call in its chunk, from 1; 0 before any; -n once n calls ended and the
    answer is on its way. ``since`` is on the monotonic clock, which all processes of a machine share. ``born`` tells
    the process from a later one of its number. ``chunk`` is `SETTING_UP` until the process takes chunks."""

    pid: int
    chunk: int
    position: int
    key: int
    since: float
    born: int = UNKNOWN


class MarkFile:
    """The mark in a file that is mapped into memory: written by the slot, read by whoever wants to know.

    Behind it stands what the coordinator takes back: all chunks up to a number, which have not begun, and of the chunk
    of a number the calls that have not. Each side writes its own part, then passes a fence, then reads the other's: so
    at least one of them sees the other. Behind a call that was short there is no fence, which costs as much as the
    rest: what waits for it is not taken back. Without a *path* it is nobody else's.
    """

    def __init__(self, path: Path | None, *, new: bool = True) -> None:
        if path is None:
            self._map = mmap.mmap(-1, _SIZE)
        else:
            self._map = mapped(path, _SIZE, os.O_CREAT if new else 0)
        self._numbers = memoryview(self._map).cast("q")
        self._fence = threading.Lock()  # taking it is a full memory barrier
        self._since = 0.0
        self._pid = os.getpid()
        self._born = born(self._pid) or UNKNOWN

    def read(self) -> Mark:
        return Mark(*_LAYOUT.unpack_from(self._map))

    def runs_long(self) -> Mark | None:
        """The mark, if the call that it names runs for so long that what waits behind it may be taken back."""
        now = _now()  # before the mark is read, which is then no older
        mark = self.read()
        return mark if mark.position >= 0 and now - mark.since >= RECALL_SECONDS else None

    def setting_up(self) -> None:
        """The process is there, and is not yet ready for chunks."""
        self._write(SETTING_UP, 0, 0)

    def ready(self) -> None:
        self._write(0, 0, 0)

    def _write(self, chunk: int, position: int, key: int) -> None:
        self._since = _now()
        _LAYOUT.pack_into(self._map, 0, self._pid, chunk, position, key, self._since, self._born)

    def running(self, chunk: int, position: int, key: int) -> float | None:
        """Say that the call runs. When it began; None where it is not to: its chunk was taken back from there on."""
        before, self._since = self._since, _now()
        _LAYOUT.pack_into(self._map, 0, self._pid, chunk, position + 1, key, self._since, self._born)
        began = _now()  # asked again: this process may have been paused before it wrote
        if began - before > RECALL_SECONDS / 2:
            with self._fence:
                pass
        return began if self._numbers[_RECALL_REST] != chunk else None

    def reporting(self, chunk: int) -> None:
        mark = self.read()
        _LAYOUT.pack_into(self._map, 0, *mark._replace(chunk=chunk, position=-mark.position))

    def printed(self, size: int) -> None:
        """Say that so many bytes of the output's file are of calls that have ended."""
        self._numbers[_PRINTED] = size

    def printed_before(self) -> int:
        """How many bytes of the output's file are not the running call's."""
        return self._numbers[_PRINTED]

    def written(self, chunk: int) -> None:
        """Say that what all chunks up to that number came to is in the store."""
        self._numbers[_WRITTEN] = chunk

    def written_so_far(self) -> int:
        """The number up to which all chunks are in the store; 0 where none is known to be."""
        return self._numbers[_WRITTEN]

    def recall(self, chunk: int, *, rest: bool) -> None:
        """Take back what waits, up to *chunk*, or the *rest* of *chunk*, which runs. See in the mark what has begun."""
        self._numbers[_RECALL_REST if rest else _RECALL_WAITING] = chunk
        with self._fence:
            pass

    def begins(self, chunk: int) -> bool:
        """Whether the slot is to run *chunk*; it then counts as begun."""
        if self.read().chunk >= chunk:  # it came twice
            return False
        self._write(chunk, 0, 0)
        with self._fence:
            pass
        # Chunks are numbered in the order in which they are sent; the register has the last that was taken back.
        return self._numbers[_RECALL_WAITING] < chunk


def read_mark(content: bytes) -> Mark | None:
    """The mark in a mark file's *content*."""
    return Mark(*_LAYOUT.unpack_from(content)) if len(content) == _SIZE else None


def printed_before(content: bytes) -> int:
    """How many bytes of the output's file are not the running call's, by a mark file's *content*."""
    return struct.unpack_from("=q", content, 8 * _PRINTED)[0] if len(content) == _SIZE else 0


def written_by(content: bytes) -> int:
    """The number up to which all chunks are in the store, by a mark file's *content*."""
    return struct.unpack_from("=q", content, 8 * _WRITTEN)[0] if len(content) == _SIZE else 0
