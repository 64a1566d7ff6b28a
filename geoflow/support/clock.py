"""The time, and waiting for it: the engine's only clock, so that a test can move it."""

from __future__ import annotations

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
