"""What is seen of a stage: how far it is, in numbers, words, and as the parts of a bar. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from geoflow.support.text import human_duration, shorten

STATES = ("failed", "processing", "cancelled", "queued", "completed")  # of tasks, worst first
# The same in the order of a bar, and up to how many stages have a row each whatever they are at.
_IN_BAR, MOST_STAGES = ("completed", "failed", "cancelled", "processing", "queued"), 12


def worst(states: Iterable[str]) -> str:
    return min(states, key=STATES.index)


class StageView(NamedTuple):
    """One stage. ``counts`` has the states that tasks are in, best first.

    ``elapsed`` is from when its tasks were written to when the next stage's were, or to the end of the job. ``waited``
    and ``ran`` are means over the last attempts of its tasks, of a sample where there are many. ``waiting`` are the
    queued tasks that have failed before and wait for their retry, while somebody drives the job. ``let_pass`` says that
    the job went on without those that failed; ``reused`` have taken over the result of another task. It is ``at_work``
    where somebody drives the job and is at it: so many of its tasks end in a second then, ``rate``, and ``left`` are
    the seconds that it takes yet; the ``limit`` is what its tasks wait for, in words, while somebody drives the job. It
    stands for all stages up to ``until`` where that is a number.
    """

    number: int
    name: str
    task_type: str
    parallelism: str
    planned: bool
    tasks: int
    counts: Mapping[str, int]
    elapsed: float | None
    waited: float | None = None
    ran: float | None = None
    waiting: int = 0
    let_pass: bool = False
    reused: int = 0
    at_work: bool = False
    rate: float | None = None
    left: float | None = None
    until: int | None = None
    limit: str | None = None

    @property
    def state(self) -> str:
        """The worst state of its tasks, but what it is at while it is at work; ``completed`` when it made none.

        ``not planned`` before it has any.
        """
        if not self.planned:
            return "not planned"
        state = worst(self._to_come or self.counts or ["completed"])
        return "completed with errors" if state == "failed" and self.let_pass else state

    @property
    def _to_come(self) -> list[str]:
        return [state for state in ("processing", "queued") if self.at_work and self.counts.get(state)]

    @property
    def label(self) -> str:
        """Its number and name."""
        if self.until is None:
            return f"{self.number} {shorten(self.name, 40)}"
        return f"{self.number}–{self.until}: {self.until - self.number + 1} stages"

    @property
    def shape(self) -> str:
        """Its parallelism in words."""
        return shorten(self.parallelism.replace("_", " "), 20)

    @property
    def facts(self) -> list[str]:
        """How far it is, in few words each, what matters most first; per cents are of those that have ended."""
        if not self.planned or not self.tasks:
            return ["no tasks" if self.planned else "not planned"]
        ended = sum(self.counts.get(state, 0) for state in ("completed", "failed"))
        said = [f"{self.counts.get('completed', 0):,}/{self.tasks:,}"]
        said += [f"{number:,} {state}" for state in ("failed", "cancelled") if (number := self.counts.get(state))]
        if self._to_come:
            said += [f"{100 * ended // self.tasks} %"]
            said += [] if self.rate is None else [pace(self.rate)]
            said += [] if self.left is None else [f"{left_of(self.left)} left"]
        return said

    @property
    def means(self) -> list[str]:
        """How long its tasks run and wait, on average."""
        means = (("run", self.ran), ("wait", self.waited))
        return [f"{'mean ' * (self.tasks > 1)}{word} {took(span)}" for word, span in means if span is not None]

    @property
    def remarks(self) -> list[str]:
        """What its tasks wait for, and how many ran, where others were taken over."""
        held = self.counts.get("queued", 0) - self.waiting if self.limit else 0
        ran = self.counts.get("completed", 0) + self.counts.get("failed", 0) - self.reused
        waits = f"{self.waiting:,} wait for their retries" if self.waiting > 1 else "1 waits for its retry"
        said = [waits] * (self.waiting > 0) + [f"{self.reused:,} reused, {ran:,} ran"] * (self.reused > 0)
        return said + [f"{held:,} {'wait' if held > 1 else 'waits'} under limit {self.limit}"] * (held > 0)

    def shares(self, cells: int) -> list[tuple[str, int]]:
        """Its states, each with as many of *cells* as is its share: none that is there has none of them.

        They stand in the order in which tasks come to an end: what has ended is in front.
        """
        there = [(state, self.counts[state]) for state in _IN_BAR if self.counts.get(state)]
        given = {state: max(round(cells * number / self.tasks), 1) for state, number in there}
        while given and (over := sum(given.values()) - cells):
            largest = max(given, key=lambda state: given[state])
            if not (taken := min(over, given[largest] - 1)):
                break  # there are more states than cells
            given[largest] -= taken
        return list(given.items())


def folded(stages: Sequence[StageView]) -> list[StageView]:
    """*stages*, but of many those that follow each other and are all done, or all to come, as one."""
    if len(stages) <= MOST_STAGES:
        return list(stages)
    shown: list[StageView] = []
    for _, alike in groupby(stages, lambda it: it.state if it.state in ("completed", "not planned") else it.number):
        first, *others = some = list(alike)
        if len(some) < 3:
            shown += some
            continue
        counts = {"completed": sum(stage.tasks for stage in some)} if first.planned else {}
        times = [stage.elapsed for stage in some if stage.elapsed is not None]
        together = (first.planned, sum(counts.values()), counts, sum(times) if times else None)
        shown.append(StageView(first.number, "", "", "", *together, until=others[-1].number))
    return shown


def took(seconds: float | None) -> str:
    return "" if seconds is None else human_duration(seconds)


def left_of(seconds: float) -> str:
    """*seconds* that something takes yet, as nobody knows them better."""
    whole = max(round(seconds), 1)
    return f"{whole} s" if whole < 60 else human_duration(whole)


def pace(rate: float) -> str:
    """So many in a second, or in a minute or an hour where that is what can be imagined."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate * seconds >= 0.95:
            return f"{rate * seconds:,.{0 if rate * seconds >= 9.95 else 1}f}/{unit}"
    return f"{rate * 3600:,.1f}/h"
