"""What is to be done at the end of the attempt that runs here, and where what it needs meanwhile is put."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

# It is told the result as JSON text, or None where the attempt did not succeed. What it raises fails the attempt.
End = Callable[[str | None], None]


class _Here(threading.local):
    running: tuple[int, list[End]] | None = None  # with the process: a fork of it runs no attempt


_here = _Here()
_room: str | None = None
_of_worker: tuple[int, list[End]] | None = None


def settle_in(room: str) -> None:
    """This process is a worker: one attempt at a time, with all its threads, and *room* is its session's folder."""
    global _room  # noqa: PLW0603 - one for the process is what it is
    _room = room


def room() -> str | None:
    """The folder of the session that this worker is of; None in other processes."""
    return _room


@contextlib.contextmanager
def attempts() -> Iterator[list[End]]:
    """Here attempts run, one after another: at the end of each, whoever runs them empties the list and calls what was
    in it. What is left in the end is of an attempt that did not come to its own."""
    global _of_worker  # noqa: PLW0603
    before = _here.running, _of_worker
    ends: list[End] = []
    _here.running = os.getpid(), ends
    if _room is not None:
        _of_worker = _here.running
    try:
        yield ends
    finally:
        _here.running, _of_worker = before
        while ends:
            ends.pop()(None)


def ends_of_attempt() -> list[End] | None:
    """What is to be done when the attempt ends that runs in this thread, or that this thread was begun by in a worker;
    None where there is none, or only in the process that this one was forked from."""
    running = _here.running or _of_worker
    return running[1] if running is not None and running[0] == os.getpid() else None
