"""How many tasks travel together: enough to make the way there cheap, few enough to lose little."""

from __future__ import annotations

import math

# Measured: a round trip to a slot takes 0.1 to 0.3 ms; 50 ms of work makes that less than one part in a hundred.
CHUNK_SECONDS = 0.05
# A chunk goes back with what is done when it has taken so many times that, so that one slow task delays few others.
PATIENCE = 5
# What is less than the first is divided among the slots and no further, what is less than the second not at all: to
# write what came back and what goes out takes as long as another slot would spare.
SHARE_SECONDS = 0.01
LEAST_SECONDS = 0.002
MAX_CHUNK = 4_000
# Nor is a chunk to be given, or to give, more text than that: what is out is in memory several times.
CHUNK_LENGTH = 4_000_000
# The first chunks tell how long tasks take; a chunk is at most this many times larger than the last.
GROWTH = 64
# Behind a chunk that is shorter than this, another may wait in the slot; behind a longer one it would be stuck.
SHORT_SECONDS = 0.1


class Pace:
    """The measured pace of one stage."""

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._length = 0.0
        self._largest = 0

    def observe(self, tasks: int, seconds: float, length: int = 0) -> None:
        """*tasks* took *seconds* together, and what they were given and gave is so *long*.

        Later chunks weigh more, since a stage's first tasks import things.
        """
        if tasks:
            latest = seconds / tasks
            self._length = 0.5 * self._length + 0.5 * length / tasks
            self._seconds = latest if self._seconds is None else 0.5 * self._seconds + 0.5 * latest
            self._largest = max(self._largest, tasks)

    def chunk_size(self, left: int, slots: int, target: float = CHUNK_SECONDS) -> int:
        """How many of the *left* tasks to send at once, for *target* seconds of work or a quarter of a slot's share."""
        if self._seconds is None:
            return 1
        seconds = max(self._seconds, 1e-9)
        share = max(
            math.ceil(left / (4 * slots)),
            min(int(SHARE_SECONDS / seconds), math.ceil(left / slots)),
            min(int(LEAST_SECONDS / seconds), left),
        )
        most = min(target / seconds, MAX_CHUNK, CHUNK_LENGTH / max(self._length, 1.0))
        return max(1, min(int(most), GROWTH * self._largest, share))

    def is_short(self) -> bool:
        """Whether chunks take so little time that one may wait behind another."""
        return self._seconds is not None and self._seconds < SHORT_SECONDS
