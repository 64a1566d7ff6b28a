"""How far the attempt that runs here has come, by its own account: in memory that others can read while it runs."""

from __future__ import annotations

import logging
import math
import operator
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar
from zlib import crc32

from geoflow.support import attempt
from geoflow.support.mapped import mapped

logger = logging.getLogger("geoflow.executors")
SUFFIX = ".progress"
# When the call began, when this was told, done, total, text; and behind it the sum of all that.
_TOLD, _SUM = struct.Struct("=4d120s"), struct.Struct("=I4x")
_STEP = _TOLD.size + _SUM.size
# They are written in turns: one is whole while the other is written.
_TURNS = 2
_SIZE = _TURNS * _STEP
_Item = TypeVar("_Item")
_monotonic, _pack, _pack_sum = time.monotonic, _TOLD.pack, _SUM.pack


class _Telling:
    """What one attempt tells, in the file of its worker."""

    def __init__(self, path: str, began: float) -> None:
        self._map = mapped(path, _SIZE, os.O_CREAT | os.O_NOFOLLOW)
        self._began = began
        self._turn = 0

    def tell(self, done: float, total: float, text: bytes) -> None:
        told = _pack(self._began, _monotonic(), done, total, text)
        self._turn = turn = _STEP - self._turn
        self._map[turn : turn + _STEP] = told + _pack_sum(crc32(told))


class _Here(threading.local):
    telling: _Telling | None = None


_telling: _Telling | None = None  # of a worker, with all its threads
_here = _Here()  # of a thread that runs attempts elsewhere


def progress(done: float, total: float | None = None, text: str = "") -> None:
    """Tell how far the task that runs here has come: *done* of *total*, in whatever unit, and what it is at.

    Whoever looks at the job sees the last that was told, with as much of *text* as fits into 120 bytes. It may be
    called from anywhere in a handler, a thread of its own too, and as often as one likes: nothing is kept of it. Where
    no task runs (in a test, in a process that the handler started; with ``workers=0``, in a thread of its own) it does
    nothing.
    """
    of = math.nan if total is None else float(total)
    done, said = float(done), text.encode("utf-8", "backslashreplace")
    telling = _telling or _here.telling or _begun()
    if telling is not None:
        telling.tell(done, of, said)


def _begun() -> _Telling | None:
    global _telling  # noqa: PLW0603 - one attempt at a time runs in a worker
    slot, ends = attempt.slot(), attempt.ends_of_attempt()
    if slot is None or ends is None:
        return None
    try:
        telling = _Telling(slot.stem + SUFFIX, slot.began())
    except (OSError, ValueError) as exc:  # the disk is full, which is not the task's fault
        logger.warning("the progress of a task cannot be told: %s", exc)
        return None
    ends.append(_end)
    if attempt.is_worker():
        _telling = telling
    else:
        _here.telling = telling
    return telling


def _end(result: str | None = None) -> None:
    global _telling  # noqa: PLW0603
    _telling = _here.telling = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end)


def track(iterable: Iterable[_Item], desc: str = "", total: float | None = None) -> Iterator[_Item]:
    """The items of *iterable*, of which it tells the `progress`: an item is done when the next one is asked for.

    *total* is how many there are; by default it is asked of *iterable*, which may not know.
    """
    if total is None:
        total = operator.length_hint(iterable, -1)
        total = None if total < 0 else total
    progress(0, total, desc)
    for done, item in enumerate(iterable, 1):
        yield item
        progress(done, total, desc)


def last_told(content: bytes, began: float) -> tuple[float, float | None, str] | None:
    """What the call that *began* then has told last, by its file's *content*: done, total and text."""
    found = []
    for place in range(0, min(len(content), _SIZE) - _STEP + 1, _STEP):
        told = content[place : place + _TOLD.size]
        if _SUM.unpack_from(content, place + _TOLD.size)[0] == crc32(told):
            found.append(_TOLD.unpack(told))
    # A file may yet have what an earlier call did.
    _, _, done, total, text = max((told for told in found if told[0] == began), default=(0, 0, None, 0, b""))
    if done is None:
        return None
    return done, None if math.isnan(total) else total, text.rstrip(b"\0").decode("utf-8", "ignore")
