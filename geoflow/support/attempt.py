"""What is to be done at the end of the attempt that runs here, and where what it needs or tells meanwhile is put."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

# It is told the result as JSON text, or None where the attempt did not succeed. What it raises fails the attempt.
End = Callable[[str | None], None]


class Slot(NamedTuple):
    """Where calls run one after another: its files begin with *stem*, and *began* says since when its call runs, by
    the monotonic clock."""

    stem: str
    began: Callable[[], float]


class Ends(list[End]):
    """What is to be done at the end of one attempt; *folder* is its job's, for what it saves, where it is of one."""

    folder: str | None = None


class _Here(threading.local):
    ends: Ends | None = None
    slot: Slot | None = None


_here = _Here()
_slot: Slot | None = None
_of_worker: Ends | None = None
_running: list[None] = []  # one for each thread that runs attempts


def settle_in(slot: Slot) -> None:
    """This process is a worker: one attempt at a time, with all its threads."""
    global _slot  # noqa: PLW0603 - one for the process is what it is
    _slot = slot


def slot() -> Slot | None:
    """Where this worker, or this thread that runs attempts, has its files; None in others."""
    return _here.slot or _slot


def is_worker() -> bool:
    """Whether all of this process is one slot's."""
    return _slot is not None


@contextlib.contextmanager
def in_slot(slot: Slot | None) -> Iterator[None]:
    """In it this thread is a slot's, in a process that is no worker."""
    before, _here.slot = _here.slot, slot
    try:
        yield
    finally:
        _here.slot = before


def room() -> str | None:
    """The folder of the session that this worker is of; None in other processes."""
    return None if _slot is None else os.path.dirname(_slot.stem)


class attempts:
    """In it attempts run here, one after another: at the end of each, whoever runs them empties the list that it gives
    and calls what was in it. What is left in the end is of an attempt that did not come to its own."""

    __slots__ = ("_before",)

    def __enter__(self) -> Ends:
        global _of_worker  # noqa: PLW0603
        _running.append(None)
        self._before = _here.ends, _of_worker
        ends = Ends()
        _here.ends = ends
        if _slot is not None:
            _of_worker = ends
        return ends

    def __exit__(self, *exc: object) -> None:
        global _of_worker
        _running.pop()
        ends = _here.ends
        _here.ends, _of_worker = self._before
        while ends:
            ends.pop()(None)


def ends_of_attempt() -> Ends | None:
    """What is to be done when the attempt ends that runs in this thread, or that this thread was begun by in a worker;
    None where there is none, as in a fork: that of the process which it was forked from is not its own."""
    return _here.ends if _here.ends is not None else _of_worker


def is_of_a_handler() -> bool:
    """Whether no attempt runs in this thread, but it may be a handler's: one runs here in another thread, or did so in
    the process that this one was forked from."""
    return ends_of_attempt() is None and (bool(_running) or _slot is not None)


def _forget() -> None:
    global _of_worker  # noqa: PLW0603
    _here.ends = _of_worker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
