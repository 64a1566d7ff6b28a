"""A clock that tests move."""

from __future__ import annotations

import math
from queue import Empty, SimpleQueue
from typing import Any


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
