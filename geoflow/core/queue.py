"""Which tasks of a stage go out next, and which of them together.

New tasks go out many at a time, in the order of the plan or the largest first. One that failed or was lost before goes
alone, so that it can take no neighbour with it, and not before its time. The tasks are the store's; here are keys.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from geoflow.core.rows import StageRow, Take

CLOCK_SLACK = 1.0  # seconds by which a clock may be corrected without its counting as set


class Wait(NamedTuple):
    """Since when a task waits for its retry, and how many seconds it is to; None: nobody knows any more."""

    since: float
    delay: float | None


class TaskQueue:
    """The queued tasks of one stage: so many, of which those *tried* before wait for the times told with their keys.

    *order* is that of the new ones, where it is not that of their keys. Whatever a clock says, none waits longer than
    its delay, or than *most* seconds, where that is not known.
    """

    def __init__(
        self,
        stage: StageRow,
        queued: int,
        *,
        order: Iterable[int] | None = None,
        tried: Iterable[tuple[int, float | None]] = (),
        most: float = 0.0,
    ) -> None:
        self._stage = stage
        self._most = most
        self._waits: dict[int, Wait] = {}  # of tasks that were tried, until they are settled
        self._tried: list[tuple[float, int]] = []  # a heap of times and keys
        for key, start in tried:
            self._tried.append((start or 0.0, key))
            if start is not None:
                self._waits[key] = Wait(start, None)
        heapq.heapify(self._tried)
        self._new = queued - len(self._tried)
        self._after = stage.first_key - 1  # the new ones have higher keys
        self._order = None if order is None else deque(order)  # or they are these
        self._left = 0  # so many of them come from what was taken last

    def __len__(self) -> int:
        return self._new + len(self._tried)

    def due(self) -> float | None:
        """When the first of those that were tried may start."""
        return self._tried[0][0] if self._tried else None

    def is_ready(self, now: float) -> bool:
        """Whether a task may start."""
        return self._new > 0 or (bool(self._tried) and self._tried[0][0] <= now)

    def ready(self, now: float) -> int:
        """How many tasks may start."""
        return self._new + sum(start <= now for start, _ in self._tried)

    # Out

    def take(self, room: int, size: Callable[[int], int], now: float) -> Take | None:
        """What is to go out in as many as *room* chunks; *size* says how many of so many new tasks go together.

        What was tried or has an *order* is out with that. Of other new tasks the store says which ones it starts.
        """
        self._shorten_waits(now)
        groups: list[list[int]] = []
        while len(groups) < room and self._tried and self._tried[0][0] <= now:
            groups.append([heapq.heappop(self._tried)[1]])
        self._left, new = 0, self._new
        sizes: list[int] = []
        while new > 0 and len(groups) + len(sizes) < room:
            together = size(new)
            if self._order is None:
                sizes.append(together)
            else:
                groups.append([self._order.popleft() for _ in range(together)])
            new -= together
        return Take(self._stage, groups, self._after, sizes) if groups or sizes else None

    def started(self, keys: Sequence[int], group: Sequence[int], *, new: bool) -> None:
        """The store has started *keys*, which are all of the *group* that was taken, or the first ones of it."""
        if not new:
            return
        self._new -= len(keys)
        if self._order is None:
            self._after = keys[-1]
        elif len(group) > len(keys):
            gone = set(keys)
            for key in (key for key in group if key not in gone):
                self._order.insert(self._left, key)  # behind what the groups before this one left
                self._left += 1

    def _shorten_waits(self, now: float) -> None:
        """Where the clock was set back since a task began to wait, it waits from now on."""
        if not self._tried or self._tried[0][0] <= now + CLOCK_SLACK:
            return
        for place, (start, key) in enumerate(self._tried):
            delay = self._waits[key].delay
            latest = now + (self._most if delay is None else delay)
            if start > latest + CLOCK_SLACK:
                self._waits[key] = Wait(now, delay)
                self._tried[place] = latest, key
        heapq.heapify(self._tried)

    # Back

    def put_back(self, keys: Sequence[int], *, new: bool) -> None:
        """These did not run, or not to their end, which is not charged: they go out again first."""
        if not new:
            for key in keys:
                heapq.heappush(self._tried, (0.0, key))
            return
        self._new += len(keys)
        if self._order is None:
            self._after = min(self._after, keys[0] - 1)
        else:
            self._order.extendleft(reversed(keys))

    def retry(self, key: int, delay: float, now: float) -> None:
        """This one failed, and goes out again in *delay* seconds."""
        self._waits[key] = Wait(now, delay)
        heapq.heappush(self._tried, (now + delay, key))

    def settled(self, key: int) -> Wait | None:
        """This one ended; how it had waited for that, if it was a retry."""
        return self._waits.pop(key, None)
