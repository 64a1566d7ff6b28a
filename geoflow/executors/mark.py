"""The mark of a slot: which call runs there and since when, readable by others also after the process has died."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

_LAYOUT = struct.Struct("=qqqqd")
_RECALL = struct.Struct("=q")
_SIZE = _LAYOUT.size + _RECALL.size


class Mark(NamedTuple):
    """``position`` is that of the running call in its chunk, from 1; 0 before any; -n once n calls ended and the
    answer is on its way. ``since`` is on the monotonic clock, which all processes of a machine share."""

    pid: int
    chunk: int
    position: int
    key: int
    since: float


class MarkFile:
    """The mark in a file that is mapped into memory: written by the slot, read by whoever wants to know.

    Behind it stands the number of a chunk that is to come back unstarted, written by the coordinator. Each side writes
    its own part, then passes a fence, then reads the other's: so at least one of them sees the other.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _SIZE)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self._fence = threading.Lock()  # taking it is a full memory barrier
        self._pid = os.getpid()

    def read(self) -> Mark:
        return Mark(*_LAYOUT.unpack_from(self._map))

    def born(self) -> None:
        _LAYOUT.pack_into(self._map, 0, self._pid, 0, 0, 0, time.monotonic())

    def running(self, chunk: int, position: int, key: int) -> None:
        _LAYOUT.pack_into(self._map, 0, self._pid, chunk, position + 1, key, time.monotonic())

    def reporting(self, chunk: int) -> None:
        pid, _, position, key, since = self.read()
        _LAYOUT.pack_into(self._map, 0, pid, chunk, -position, key, since)

    def recall(self, chunk: int) -> None:
        _RECALL.pack_into(self._map, _LAYOUT.size, chunk)
        with self._fence:
            pass

    def begins(self, chunk: int) -> bool:
        """Whether the slot is to run *chunk*; it then counts as begun."""
        _LAYOUT.pack_into(self._map, 0, self._pid, chunk, 0, 0, time.monotonic())
        with self._fence:
            pass
        return bool(_RECALL.unpack_from(self._map, _LAYOUT.size)[0] != chunk)

    def shut(self) -> None:
        self._map.close()


def read_mark(content: bytes) -> Mark | None:
    """The mark in a mark file's *content*."""
    return Mark(*_LAYOUT.unpack_from(content)) if len(content) == _SIZE else None
