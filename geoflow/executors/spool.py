"""What a worker's calls returned, one by one, in files that outlive it until the driver has written their chunk.

Each chunk of tasks has a file, mapped into memory: to add what a call returned takes a copy of its text, and no system
call. A file of a chunk that is written is used again. Nothing has to be told for it to be found by whoever looks once
the process is gone: see `geoflow.executors.returned`, which reads it.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from geoflow.core.chunks import Chunk
from geoflow.support.jsonable import to_json

logger = logging.getLogger("geoflow.executors")
SUFFIX = ".spool"
MAGIC = b"gfspool3"  # the last sign is the version
# How it begins: the magic, how long the header behind the seals is, where times and texts are, and the header's sum.
HEAD = struct.Struct("<8sqqqI4x")
# Two seals that are written in turns, so that one is whole whenever the process is killed: so many calls, times and
# bytes of texts, and the sums of these times and texts.
SEAL = struct.Struct("<qqqII")
SEALS = HEAD.size, HEAD.size + SEAL.size
HEADER = HEAD.size + 2 * SEAL.size
TIMES = struct.Struct("<q3d")  # so many calls had ended, the last of which started, ended, and took of the processor
# A text is one call's: the JSON of a result, or this and JSON of all that there is to tell. Behind it is a zero.
TOLD = "!"
# What is not sealed yet, of calls that ended so long after the last seal, is known by its form alone. Only the last
# call before a seal has times: all others took less than this.
SEAL_SECONDS = 0.002
_LEAST, _PER_CALL = 65_536, 96
_ZEROS = bytes(_LEAST)
_MOST = 4_000_000  # bytes of a file that is used again


def nowhere(data: bytes) -> None:
    """Writes nothing."""


class Keeping(NamedTuple):
    """How the calls of a chunk are kept.

    ``write`` takes the text of each and a zero, as bytes, in their order, as it returns; it is a file's own, since the
    shortest calls take hardly longer than a function's call. Where it raises, the text is given to ``extend``, which
    returns what writes from then on. ``seal`` takes how many were written, and started, ended and cpu of the last one;
    it is due once `SEAL_SECONDS` after the seal before, and at the end. It returns when it is due again.
    """

    write: Callable[[bytes], object]
    extend: Callable[[str], Callable[[bytes], object]]
    seal: Callable[[int, float, float, float], float]


class _File:
    """A file of zeros that is mapped into memory: for one chunk at a time, of this number."""

    def __init__(self, path: Path, size: int) -> None:
        self.chunk = 0
        self.used = 0  # bytes, from its beginning on
        self.path = path
        self.size = 0
        self.grow(size)

    def grow(self, size: int) -> None:
        """Have at least *size* bytes. They are written: to look at memory that the disk has no room for kills."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags if self.size else flags | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            while self.size < size:
                piece = min(max(_LEAST, self.size), 1 << 20)
                self.size += os.pwrite(descriptor, bytes(piece), self.size)
            self.map = mmap.mmap(descriptor, self.size)
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        for start in range(0, self.used, _LEAST):
            end = min(start + _LEAST, self.used)
            self.map[start:end] = _ZEROS[: end - start]


class Spool:
    """The files of one worker process, whose names begin with *stem*.

    *written* tells the number up to which all chunks are in the store.
    """

    def __init__(self, stem: Path, written: Callable[[], int]) -> None:
        self._stem = stem
        self._written = written
        self._files: list[_File] = []
        self._made = 0
        self._in_vain = False

    def begin(self, chunk: Chunk, code: str, base: float, begun: float) -> Keeping | None:
        """Keep what the calls of *chunk* return; None where there is no room for it.

        *code* is the fingerprint of what runs; *base*, the time that those of the calls are counted from, and that at
        which the chunk has *begun*.
        """
        header = _header(chunk, code, base, begun, self._stem)
        times = -(-(HEADER + len(header)) // 8) * 8
        texts = times + TIMES.size * len(chunk.batch.keys)
        try:
            file = self._free(texts + _PER_CALL * len(chunk.batch.keys))
        except (OSError, ValueError, MemoryError) as exc:
            self._say(exc)
            return None
        file.chunk, file.used = chunk.number, texts
        file.map[HEADER : HEADER + len(header)] = header
        HEAD.pack_into(file.map, 0, MAGIC, len(header), times, texts, crc32(header))
        return self._adding(file, times, texts)

    def _free(self, size: int) -> _File:
        """A file that is all zeros, for a chunk that will take about *size* bytes."""
        written = self._written()
        for file in [file for file in self._files if file.chunk <= written]:
            if file.size > _MOST:  # it has had much; another takes its place
                self._files.remove(file)
                file.path.unlink(missing_ok=True)
                continue
            file.clear()
            if file.size < size:
                file.grow(size)
            return file
        path = self._stem.with_name(f"{self._stem.name}-{self._made}{SUFFIX}")
        self._made += 1
        self._files.append(_File(path, size))
        return self._files[-1]

    def _say(self, exc: Exception) -> None:
        if not self._in_vain:
            self._in_vain = True
            logger.warning("what calls return cannot be kept: %s; if this process is killed, they run again", exc)

    def _adding(self, file: _File, times: int, texts: int) -> Keeping:
        view, whole = file.map, True
        done = seals = 0
        sealed, sums = texts, (0, 0)
        view.seek(texts)

        def extend(text: str) -> Callable[[bytes], object]:
            nonlocal view, whole
            try:
                data, at = (text + "\0").encode(), view.tell()
                file.grow(at + len(data) + file.size)
                view = file.map
                view.seek(at)
                view.write(data)
            except (OSError, ValueError, MemoryError) as exc:
                self._say(exc)
                whole = False  # what comes behind a text that is not here would be taken for another call's
                return nowhere
            return view.write

        def seal(calls: int, started: float, ended: float, cpu: float) -> float:
            nonlocal done, seals, sealed, sums
            if whole and calls > done:
                row, place, at = TIMES.pack(calls, started, ended, cpu), times + TIMES.size * seals, view.tell()
                view[place : place + TIMES.size] = row
                sums = crc32(row, sums[0]), crc32(view[sealed:at], sums[1])
                done, seals, sealed, file.used = calls, seals + 1, at, at
                SEAL.pack_into(view, SEALS[seals & 1], calls, seals, at - texts, *sums)
            return ended + SEAL_SECONDS

        return Keeping(view.write, extend, seal)


def _header(chunk: Chunk, code: str, base: float, begun: float, stem: Path) -> bytes:
    keys, batch = chunk.batch.keys, chunk.batch
    header: dict[str, Any] = {
        **{"folder": stem.parent.name, "job_id": chunk.job_id, "epoch": chunk.epoch, "chunk": chunk.number},
        **{"task_type": batch.task_type, "attempt": batch.attempt, "retries": batch.retries, "losses": batch.losses},
        **{"first_key": batch.first_key, "first": keys[0], "count": len(keys)},
        **{"keys": None if isinstance(keys, range) else list(keys)},
        **{"code": code, "base": base, "begun": begun, "pid": os.getpid()},
    }
    return to_json(header).encode()


def text_of(row: tuple[Any, ...], task_id: str) -> str:
    """The text of a call that failed or printed, by its row of a `geoflow.executors.worker.Told`."""
    return TOLD + json.dumps([task_id, *row[1:]])
