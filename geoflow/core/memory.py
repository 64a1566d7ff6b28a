"""Which tasks may be out together, by the memory that they need: never more than the budget.

The first task that does not fit has its part kept for it: it waits for those that were out when its turn came, and
smaller ones may pass it only as far as they fit beside it. So none waits for ever, whatever comes after it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

ALONE = math.inf  # the need of a task that is to have all of the budget
MARGIN = 1.25  # by which what nobody has seen yet may be more than it looks
CAREFUL = 0.75  # of all that there is: what one of which nobody knows anything is expected to need
FAR = 2  # so many times the largest size that was seen, and more, lets one expect nothing
PROCESS = 80_000_000  # what a worker has with Python and some libraries, before any task
UNKNOWN = 1  # that of one of which nothing is known: it runs with any other, but not with one that is alone


class _Held(NamedTuple):
    job: str
    need: int
    passed: bool  # one that waits


class Memory:
    """A *budget* of bytes, and who has which part of it. Jobs are known by their ids, tasks by their keys."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: dict[int, _Held] = {}
        self._out = self._passed = 0
        self._first: tuple[str, int] | None = None  # the job whose next task waits for its part, and that

    @property
    def is_for_one(self) -> bool:
        """Whether a task that is to have all of it has that, or waits for it: nothing else is to begin."""
        waits = self._first is not None and self._first[1] >= self.budget
        return waits or any(held.need >= self.budget for held in self._held.values())

    def passing(self) -> int:
        """The most that a task may need which goes out before the one that waits."""
        waiting = 0 if self._first is None else self._first[1] + self._passed
        return self.budget - max(self._out, waiting)

    def take(self, job: str, key: int, need: float, *, can_begin: bool = True) -> bool:
        """Whether the first task in the job's line may go out, which then has its part; else that is kept for it."""
        part, is_next = int(min(need, self.budget)), self._first is None or self._first[0] == job
        if not can_begin or part > (self.budget - self._out if is_next else self.passing()):
            if is_next:
                self._first = job, part
            return False
        if is_next:
            self._stop_waiting()
        self._hold(job, key, part, passed=not is_next)
        return True

    def is_out(self, job: str, key: int, need: float) -> None:
        """The task is out already, before its *need* was known: there may be more out now than the budget."""
        held = self._held.get(key)
        self.leave([key])
        self._hold(job, key, int(min(need, self.budget)), passed=held is not None and held.passed)

    def let_pass(self, job: str, key: int, need: float) -> None:
        """The task goes out before one that waits, beside which there is room for it."""
        self._hold(job, key, int(need), passed=True)

    def _hold(self, job: str, key: int, need: int, *, passed: bool) -> None:
        self._held[key] = _Held(job, need, passed)
        self._out += need
        self._passed += need if passed else 0

    def leave(self, keys: Iterable[int]) -> None:
        """These are out no more."""
        for key in keys if self._held else ():
            if (held := self._held.pop(key, None)) is not None:
                self._out -= held.need
                self._passed -= held.need if held.passed else 0

    def forget(self, job: str) -> None:
        """Nothing of the job is out, or to go out."""
        self.leave([key for key, held in self._held.items() if held.job == job])
        self.wait_no_more(job)

    def wait_no_more(self, job: str) -> None:
        """Nothing of the job waits for its part."""
        if self._first is not None and self._first[0] == job:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        """What has passed the one that waited is as any other."""
        if self._first is not None:
            self._first, self._passed = None, 0
            self._held = {key: held._replace(passed=False) for key, held in self._held.items()}


class Part(NamedTuple):
    """What a *job* has of the *memory*; *busy* tells whether anything is out, of whichever job."""

    memory: Memory
    job: str
    busy: Callable[[], bool]

    def take(self, key: int, need: float) -> bool:
        """See `Memory.take`. What is to be alone waits for all that is out, also for what nothing is known of."""
        can_begin = need < self.memory.budget or not self.busy()
        return self.memory.take(self.job, key, need, can_begin=can_begin)

    def let_pass(self, key: int, need: float) -> None:
        """See `Memory.let_pass`."""
        self.memory.let_pass(self.job, key, need)


class Expected:
    """What tasks are expected to have in memory, of what some had at most, as sizes and bytes; a size of 0 is unknown.

    A larger one is taken to need no less than a smaller one did. Between two that are known it lies between what these
    had, below the least it goes down with the size, and beyond the largest it goes on as from the least to the most
    that was seen; for `MARGIN` more, since nobody has seen it. Where nothing was seen, or nothing near (`FAR`), it is
    expected to need as much as an *unknown* one.
    """

    def __init__(self, peaks: Iterable[tuple[float, int]], unknown: float = UNKNOWN) -> None:
        self._unknown = unknown
        known: dict[float, int] = {}
        self._least = self._most = 0
        for size, peak in sorted(peaks):
            self._most = max(self._most, peak)
            self._least = min(self._least or peak, peak)
            if size > 0:
                known[size] = max(peak, known.get(size, 0), next(reversed(known.values()), 0))
        self._sizes, self._peaks = list(known), list(known.values())

    def is_guess(self, size: float) -> bool:
        """Whether nothing tells what a task of this *size* needs."""
        return self._most == 0 or (bool(self._sizes) and size > FAR * self._sizes[-1])

    def __call__(self, size: float) -> float:
        """Bytes for a task of this *size*."""
        sizes, peaks = self._sizes, self._peaks
        if size <= 0 or not sizes:
            return self._most or self._unknown
        place = bisect_left(sizes, size)
        if place == len(sizes):
            least = self._least if self._least < peaks[-1] else 0
            grown = (peaks[-1] - least) * size / sizes[-1]
            likely = max(peaks[-1], MARGIN * (least + grown))
            return max(likely, self._unknown) if self.is_guess(size) else likely
        if place == 0:
            likely = max(PROCESS, MARGIN * peaks[0] * size / sizes[0])
        else:
            share = (size - sizes[place - 1]) / (sizes[place] - sizes[place - 1])
            likely = MARGIN * (peaks[place - 1] + share * (peaks[place] - peaks[place - 1]))
        return peaks[place] if size == sizes[place] else min(likely, peaks[place])


class Line:
    """Tasks in their *order*, by their keys, with what each *needs*: the first can be had, or the largest that fits."""

    def __init__(self, order: Iterable[int], needs: Mapping[int, float]) -> None:
        self._needs = needs
        self._order = deque(order)
        self._at = {key: place for place, key in enumerate(self._order)}
        self._by_need = sorted(map(self._entry, self._order))
        self._before = 0  # the place before all that there are

    def __len__(self) -> int:
        return len(self._by_need)

    def _entry(self, key: int) -> tuple[float, int, int]:
        """Of two that need the same, the earlier one is the last, and so found first."""
        return self._needs.get(key, UNKNOWN), -self._at[key], key

    def first(self) -> int | None:
        """The key of the first one, which stays."""
        while self._order and self._order[0] not in self._at:
            self._order.popleft()
        return self._order[0] if self._order else None

    def fitting(self, most: float) -> int | None:
        """The key of the largest one that needs no more than *most*, which stays."""
        place = bisect_right(self._by_need, (most, math.inf, 0))
        return self._by_need[place - 1][2] if place else None

    def remove(self, key: int) -> None:
        entry = self._entry(key)
        del self._by_need[bisect_right(self._by_need, entry) - 1], self._at[key]

    def put_back(self, keys: Sequence[int]) -> None:
        """They are the first ones again."""
        for key in reversed(keys):
            self._before -= 1
            self._at[key] = self._before
            self._order.appendleft(key)
            insort(self._by_need, self._entry(key))
