"""Time as a driver can hold it against a worker: not the time in which the driver stood still as well."""

from __future__ import annotations

import time
from collections import deque

# Longer between two looks than this, and the rest counts for nobody: a laptop's lid was closed, a container paused.
GAP_SECONDS = 0.5


class Watch:
    """Seconds since some moment of the monotonic clock, less those in which nobody looked."""

    def __init__(self) -> None:
        self._looked: float | None = None
        self._gaps: deque[tuple[float, float]] = deque(maxlen=1_000)  # from when to when

    def look(self, now: float | None = None) -> float:
        """Look at the clock now; call it often while there is something to watch."""
        now = time.monotonic() if now is None else now
        if self._looked is not None and now - self._looked > GAP_SECONDS:
            self._gaps.append((self._looked + GAP_SECONDS, now))
        self._looked = now
        return now

    def spent(self, since: float) -> float:
        """Seconds from *since* to the last look."""
        now = since if self._looked is None else self._looked
        return max(now - since, 0.0) - sum(end - max(begin, since) for begin, end in self._gaps if end > since)
