"""Which tasks of a stage go out next, and which of them together.

New tasks go out many at a time, in the order of the plan or the largest first. One that failed or was lost before goes
alone, so that it can take no neighbour with it, and not before its time. Those whose need of memory is known go one by
one, as they fit (`memory`). The tasks are the store's; here are keys.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from geoflow.core.memory import ALONE, UNKNOWN, Line, Part
from geoflow.core.rows import StageRow, Take

CLOCK_SLACK = 1.0  # seconds by which a clock may be corrected without its counting as set


class Wait(NamedTuple):
    """Since when a task waits for its retry, and how many seconds it is to; None: nobody knows any more."""

    since: float
    delay: float | None


class TaskQueue:
    """The queued tasks of one stage: so many, of which those *tried* before wait for the times told with their keys.

    *order* is that of the new ones, where it is not that of their keys; *needs* is how much memory each task needs, in
    bytes, where they are to go out by that, and then there is an order; some of that may be *guessed*. Of those that
    were tried some are to be *alone*. Whatever a clock says, none waits longer than its delay, or than *most* seconds,
    where that is not known.
    """

    def __init__(
        self,
        stage: StageRow,
        queued: int,
        *,
        order: Iterable[int] | None = None,
        needs: Mapping[int, float] | None = None,
        guessed: bool = False,
        tried: Iterable[tuple[int, float | None]] = (),
        alone: Iterable[int] = (),
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
        self._order = None if order is None or needs is not None else deque(order)  # or they are these
        self._line = None if order is None or needs is None else Line(order, needs)  # or these
        self._needs = {**(needs or {}), **dict.fromkeys(alone, ALONE)}
        self.is_guessed = guessed
        self.is_blocked = False  # whether tasks that are ready wait for memory
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

    @property
    def is_weighed(self) -> bool:
        """Whether its tasks go out by the memory that they need, one by one."""
        return self._line is not None

    def take(self, room: int, size: Callable[[int], int], now: float, part: Part | None = None) -> Take | None:
        """What is to go out in as many as *room* chunks; *size* says how many of so many new tasks go together.

        What was tried or has an *order* is out with that. Of other new tasks the store says which ones it starts.
        What is to be weighed has a *part* of the memory from now on.
        """
        self._shorten_waits(now)
        self.is_blocked = False
        groups: list[list[int]] = []
        weighed = part if self._needs or (part is not None and part.memory.is_for_one) else None
        while len(groups) < room and self._tried and self._tried[0][0] <= now:
            key = self._tried[0][1]
            if weighed is not None and not weighed.take(key, self._needs.get(key, UNKNOWN)):
                self.is_blocked = True
                break
            groups.append([heapq.heappop(self._tried)[1]])
        self._left, new = 0, self._new
        sizes: list[int] = []
        if weighed is not None and self._line is not None:
            groups += self._fitting(self._line, room - len(groups), weighed)
            new = 0
        elif weighed is not None and weighed.memory.is_for_one:
            self.is_blocked, new = self.is_blocked or new > 0, 0
        while new > 0 and len(groups) + len(sizes) < room:
            together = size(new)
            if self._order is None:
                sizes.append(together)
            else:
                groups.append([self._order.popleft() for _ in range(together)])
            new -= together
        return Take(self._stage, groups, self._after, sizes) if groups or sizes else None

    def _fitting(self, line: Line, room: int, part: Part) -> Iterator[list[int]]:
        """The first of the *line*, as far as there is memory for them; the largest that fits passes what does not."""
        while room > 0 and (key := line.first()) is not None:
            if self.is_blocked or not part.take(key, self._needs.get(key, UNKNOWN)):
                self.is_blocked = True
                if (smaller := line.fitting(part.memory.passing())) is None:
                    return
                key = smaller
                part.let_pass(key, self._needs.get(key, UNKNOWN))
            line.remove(key)
            room -= 1
            yield [key]

    def started(self, keys: Sequence[int], group: Sequence[int], *, new: bool) -> None:
        """The store has started *keys*, which are all of the *group* that was taken, or the first ones of it."""
        if not new:
            return
        self._new -= len(keys)
        if self._line is not None:
            return
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
        if self._line is not None:
            self._line.put_back(keys)
        elif self._order is None:
            self._after = min(self._after, keys[0] - 1)
        else:
            self._order.extendleft(reversed(keys))

    def retry(self, key: int, delay: float, now: float) -> None:
        """This one failed, and goes out again in *delay* seconds."""
        self._waits[key] = Wait(now, delay)
        heapq.heappush(self._tried, (now + delay, key))

    def line_up(self, order: Sequence[int], needs: Mapping[int, float] | None = None, *, guessed: bool = False) -> None:
        """From now on the new ones, which are those in *order*, go out by the memory that each *needs*, if that is
        given; it may be *guessed*."""
        self._needs = {**(needs or {}), **{key: need for key, need in self._needs.items() if need == ALONE}}
        self._order = deque(order) if needs is None else None
        self._line = None if needs is None else Line(order, self._needs)
        self._new, self.is_guessed = len(order), guessed

    def be_alone(self, key: int) -> bool:
        """This one goes out again by itself, with all of the memory; whether it did not have that already."""
        if self._needs.get(key) == ALONE:
            return False
        self._needs[key] = ALONE
        heapq.heappush(self._tried, (0.0, key))
        return True

    def settled(self, key: int) -> Wait | None:
        """This one ended; how it had waited for that, if it was a retry."""
        return self._waits.pop(key, None)
