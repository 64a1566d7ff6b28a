"""The time, and waiting for it: the engine's only clock, so that a test can move it."""

from __future__ import annotations

import math
import time
from queue import Empty, SimpleQueue
from typing import Any, Protocol


class Clock(Protocol):
    """``tick`` is the longest that one wait may last, in seconds of this clock."""

    tick: float

    def now(self) -> float:
        """Seconds since the epoch, for records and for the times before which retries must not start."""

    def wait(self, inbox: SimpleQueue[Any], seconds: float) -> Any:
        """The next message of *inbox*, or None once *seconds* have passed without one."""


class SystemClock:
    """The machine's own clock."""

    tick = 0.1

    def now(self) -> float:
        return time.time()

    def wait(self, inbox: SimpleQueue[Any], seconds: float) -> Any:
        try:
            return inbox.get(timeout=max(seconds, 0.0))
        except Empty:
            return None


class ManualClock:
    """A clock that stands still until someone waits for it. ``waits`` are the times it was asked to pass."""

    tick = math.inf

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self.waits: list[float] = []

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def wait(self, inbox: SimpleQueue[Any], seconds: float) -> Any:
        try:
            return inbox.get_nowait()
        except Empty:
            self.waits.append(seconds)
            self._now += seconds
            return None
