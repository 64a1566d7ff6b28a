"""Who may begin a task of a limited kind: locks beside a store, which the system takes back from whoever is gone.

A limit is a folder of files. The driver of a job holds one of the places (`Place`) for each task that it sends, so that
what waits occupies no worker. The worker holds that place's second file while the task runs, and this one counts: a
worker that outlives its driver for a moment is in the way of the next, who waits for it. In the same way the driver
keeps the rate roughly, and the worker to the dot. Times are of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

from geoflow.errors import DefinitionError, StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# The descriptors of drivers, which a fork closes: else it kept their places when its parent is gone.
_of_drivers: set[int] = set()
_TIME = struct.Struct("<d")


class Place(NamedTuple):
    """What a worker is to hold while it runs a task: a file, and so many seconds from the start before."""

    folder: str
    number: int
    interval: float


class Admission:
    """A limit as one job has declared it, until `close`: who declares it otherwise meanwhile is refused.

    *at_once* places, and *interval* seconds between two starts. Raises ``DefinitionError`` where others have declared
    it with other numbers, and ``StoreError`` where there can be no locks.
    """

    def __init__(self, folder: str, name: str, at_once: int, interval: float, words: str) -> None:
        self.again_in = 0.0  # seconds after which to ask again
        self._folder = os.path.join(folder, quote(name, safe=""))
        self._at_once, self._interval = at_once, interval
        self._held: dict[int, int] = {}  # descriptors by places
        if fcntl is None:
            raise StoreError(f"The limit {name!r} needs locks of files that this system does not have.")
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            self._declared = self._open("declared")
        except OSError as exc:
            raise StoreError(f"The limit {name!r} cannot be kept in {self._folder}: {exc.strerror}.") from exc
        try:
            self._declare(name, words)
        except BaseException:
            _let_go(self._declared)
            raise

    def _declare(self, name: str, words: str) -> None:
        said = words.encode()
        if _try_lock(self._declared):  # nobody uses it: from now on it is this
            os.ftruncate(self._declared, 0)
            os.pwrite(self._declared, said, 0)
        # To share a lock that one had alone may let another in between, who may have written: so it is read again.
        fcntl.flock(self._declared, fcntl.LOCK_SH)
        if (others := os.pread(self._declared, 1000, 0)) != said:
            raise DefinitionError(
                f"The limit {name!r} is {words} here, but {others.decode(errors='replace')} for jobs of this store "
                "that run now: give both the same numbers or other names, or wait until those have ended."
            )

    def admit(self) -> Place | None:
        """A place for one task, if there is one now; else `again_in` says when to ask again."""
        now = time.monotonic()
        self.again_in = 0.05  # nobody tells when a place of another process becomes free
        for number in range(self._at_once):
            if number not in self._held and (descriptor := self._taken(f"place-{number}")) is not None:
                break
        else:
            return None
        if self._interval and (wait := self._wait(now)):
            _let_go(descriptor)
            self.again_in = wait
            return None
        self._held[number] = descriptor
        return Place(self._folder, number, self._interval)

    def _wait(self, now: float) -> float:
        """How long until the next may be sent; 0.0 is now, and then it counts as sent."""
        descriptor = _open(self._folder, "sent")
        with _closing(descriptor):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            wait = _left(descriptor, self._interval, now)
            if not wait:
                os.pwrite(descriptor, _TIME.pack(now), 0)
        return wait

    def leave(self, place: Place) -> None:
        """Let others have the place."""
        if (descriptor := self._held.pop(place.number, None)) is not None:
            _let_go(descriptor)

    def close(self) -> None:
        """Leave all places, and declare nothing any more."""
        for descriptor in [*self._held.values(), self._declared]:
            _let_go(descriptor)
        self._held = {}
        self._declared = -1

    def _taken(self, name: str) -> int | None:
        descriptor = self._open(name)
        if _try_lock(descriptor):
            return descriptor
        _let_go(descriptor)
        return None

    def _open(self, name: str) -> int:
        descriptor = _open(self._folder, name)
        _of_drivers.add(descriptor)
        return descriptor


@contextlib.contextmanager
def admitted(place: Place) -> Iterator[None]:
    """Hold the place while a task runs here, and not before its time."""
    running = _open(place.folder, f"running-{place.number}")
    with _closing(running):
        fcntl.flock(running, fcntl.LOCK_EX)
        try:
            if place.interval:
                began = _open(place.folder, "began")
                with _closing(began):
                    fcntl.flock(began, fcntl.LOCK_EX)
                    while wait := _left(began, place.interval, time.monotonic()):
                        time.sleep(wait)
                    os.pwrite(began, _TIME.pack(time.monotonic()), 0)
            yield
        finally:
            fcntl.flock(running, fcntl.LOCK_UN)  # a child of the task's may have a copy of the descriptor


def _left(descriptor: int, interval: float, now: float) -> float:
    """How much of the *interval* since the time in the file is left. A time to come is of before the machine began."""
    text = os.pread(descriptor, _TIME.size, 0)
    before = _TIME.unpack(text)[0] if len(text) == _TIME.size else -interval
    return max(before + interval - now, 0.0) if before <= now else 0.0


def _open(folder: str, name: str) -> int:
    return os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _let_go(descriptor: int) -> None:
    _of_drivers.discard(descriptor)
    os.close(descriptor)


def _after_fork() -> None:
    while _of_drivers:
        with contextlib.suppress(OSError):
            os.close(_of_drivers.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
