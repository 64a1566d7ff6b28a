"""Which jobs a turn looks at, so that it costs what has happened, and not how many there are.

A job is looked at when something happened to it, when a time of its has come, and when there is room for what it has to
send. Else it waits for what it has sent, and that is reported on.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable

from geoflow.core.queue import CLOCK_SLACK
from geoflow.engine.active_job import ActiveJob


class Agenda:
    """The jobs of one machine, and what each waits for."""

    def __init__(self) -> None:
        self._touched: set[ActiveJob] = set()
        self._to_send: dict[int, ActiveJob] = {}
        self._line: list[int] = []  # the numbers of these, in order
        self._due: dict[ActiveJob, float] = {}
        self._times: list[tuple[float, int, ActiveJob]] = []  # a heap; what differs from `_due` counts no more
        self._latest = 0.0

    def touch(self, jobs: Iterable[ActiveJob]) -> None:
        """Something happened to them."""
        self._touched.update(jobs)

    def first_in_line(self) -> ActiveJob | None:
        """The oldest that has work to send."""
        return self._to_send[self._line[0]] if self._line else None

    def due(self) -> float | None:
        """The next time that one waits for."""
        while self._times and self._due.get(self._times[0][2]) != self._times[0][0]:
            heapq.heappop(self._times)
        return self._times[0][0] if self._times else None

    def take(self, now: float, room: int) -> list[ActiveJob]:
        """Those to look at, the oldest first; each then rests or is dropped. *room* is how many can send."""
        if now + CLOCK_SLACK < self._latest:  # the clock was set back, which changes all times
            self._touched.update(self._due)
            self._latest = now
        self._latest = max(self._latest, now)
        while (at := self.due()) is not None and at <= now:
            job = heapq.heappop(self._times)[2]
            self._touched.add(job)
            del self._due[job]
        self._touched.update(self._to_send[number] for number in self._line[:room])
        jobs, self._touched = self._touched, set()
        return sorted(jobs, key=lambda job: job.number)

    def rest(self, job: ActiveJob, *, to_send: bool) -> None:
        """It was looked at, and goes on once there is room, if it has work *to_send*, or at its time."""
        if to_send and job.number not in self._to_send:
            self._to_send[job.number] = job
            insort(self._line, job.number)
        elif not to_send and self._to_send.pop(job.number, None) is not None:
            del self._line[bisect_left(self._line, job.number)]
        due = None if to_send else job.due()
        if due is None:
            self._due.pop(job, None)
        elif due != self._due.get(job):
            self._due[job] = due
            heapq.heappush(self._times, (due, job.number, job))

    def drop(self, job: ActiveJob) -> None:
        """It is driven no more."""
        self.rest(job, to_send=False)
        self._due.pop(job, None)
        self._touched.discard(job)
