"""From what a few tasks took to what all of them will take: a simulation. Pure; chance comes from a seed."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from geoflow.core.chunking import CHUNK_SECONDS

# From docs/performance.md: a job of one task ("latency: 1 task"), a task among many ("about 10 µs a task"), and the way
# to a worker and back ("round trips of 0.3 ms"), which the tasks of a chunk share.
STAGE_SECONDS, TASK_SECONDS, TRIP_SECONDS = 0.0024, 0.000_01, 0.0003
DOUBT = 0.5  # one measurement is trusted within a factor of about two: this is the deviation of its logarithm
ROUNDS, MOST = 60, 500  # how often all is simulated, and with how many of a stage's tasks; others are added as a mean
COLD = 2.0  # a worker's first task that took so many times the longest other one imported what those need not


class Range(NamedTuple):
    """An estimate."""

    low: float
    likely: float
    high: float


class Ran(NamedTuple):
    """One task that ran. Times are in seconds, over all its attempts; *first* says that it was its worker's first."""

    seconds: float
    cpu: float = 0.0
    first: bool = False
    largest: bool = False
    failed: bool = False


class Measured(NamedTuple):
    """What is known of one stage. *seconds* are of ordinary tasks, *largest* of one that is known to be the largest.

    *start* is what the first task in each worker takes longer, *cpu* how many processors a task keeps at work, *growth*
    how many times longer a task takes than was measured. At most *workers* run at once.
    """

    tasks: Range
    seconds: tuple[float, ...]
    largest: float | None = None
    start: float = 0.0
    planning: float = 0.0
    cpu: float = 0.0
    growth: Range = Range(1.0, 1.0, 1.0)
    workers: int | None = None
    largest_first: bool = False


def measured(ran: Sequence[Ran], tasks: Range, way: float = 0.0) -> Measured:
    """A stage of so many *tasks*, of which these *ran*, at least one. Failed ones count where there are no others.

    By what the tasks tell of their sizes, the mean of all lies so far on the *way* from those that ran to the largest.
    """
    done = [task for task in ran if not task.failed] or list(ran)
    usual = [task for task in done if not task.first or task.largest] or done
    longest = max(task.seconds for task in usual)
    cold = [task.seconds for task in done if task not in usual and task.seconds > COLD * longest]
    usual = [task for task in done if task in usual or task.seconds <= COLD * longest]
    ordinary = [task for task in usual if not task.largest] or usual
    largest = max(task.seconds for task in usual if task.largest) if len(ordinary) < len(usual) else None
    start = max(cold, default=0.0) and max(cold) - statistics.median(task.seconds for task in ordinary)
    cpu = sum(task.cpu for task in usual) / (sum(task.seconds for task in usual) or 1.0)
    mean = statistics.fmean(task.seconds for task in ordinary) or 1.0
    scale = 1.0 if largest is None else max(0.0, 1 + way * (largest - mean) / mean)
    return Measured(tasks, tuple(scale * task.seconds for task in ordinary), largest, start, cpu=cpu)


def grown(planned: int, results: int, alone: Sequence[int], parents: Range) -> Range:
    """How many tasks a stage will have after *parents*, when it has *planned* after some *results* of these.

    *alone* says how many it would have after single ones of them. The likely number goes on along the line from there
    to *planned*; the range is that of all parents being as the one with the fewest, or the most.
    """
    if not results or parents == (results, results, results):
        return Range(planned, planned, planned)
    if not alone:
        each = planned / results
        return Range(min(planned, parents.low * each), parents.likely * each, parents.high * each)
    mean = statistics.fmean(alone)
    likely = max(0.0, mean + (planned - mean) / (results - 1) * (parents.likely - 1))
    low = parents.low * min(alone) if math.isclose(mean * results, planned) else planned
    return Range(min(low, likely), likely, max(parents.high * max(alone), likely))


def failures(failed: int, of: int, tasks: Range) -> Range:
    """How many of *tasks* will fail, when *failed* of so many did: Wilson's interval of 95 %."""
    if tasks == (of, of, of):
        return Range(failed, failed, failed)
    share, square = failed / of, 1.96**2
    middle, half = share + square / (2 * of), math.sqrt(square * (share * (1 - share) / of + square / (4 * of * of)))
    low, high = ((middle + side * half) / (1 + square / of) for side in (-1, 1))
    return Range(max(low, 0.0) * tasks.low if failed else 0.0, share * tasks.likely, min(high, 1.0) * tasks.high)


def makespan(durations: Sequence[float], workers: int, start: float = 0.0) -> float:
    """When the last task ends, if each goes to the worker that is free first; *start* is before the first in each."""
    free = [start] * min(workers, len(durations))
    for seconds in durations:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free, default=0.0)


def forecast(stages: Sequence[Measured], workers: Sequence[int], processors: int, *, seed: int = 0) -> list[Range]:
    """The seconds that all *stages* take one after another, for each number of *workers* on so many *processors*.

    It ranges from the low end of the counts and of chance, which one in twenty is below, to the high end of both.
    """
    totals = [
        [_total(stages, workers, processors, case, Random(f"{seed}|{turn}")) for turn in range(ROUNDS)]
        for case in range(3)  # the places in a `Range`
    ]
    ranges, edge = [], ROUNDS // 20
    for place in range(len(workers)):
        low, likely, high = (sorted(each[place] for each in rounds) for rounds in totals)
        three = (low[edge], statistics.median(likely), high[-1 - edge])
        ranges.append(Range(min(three), three[1], max(three)))
    return ranges


def _total(
    stages: Sequence[Measured], workers: Sequence[int], processors: int, case: int, chance: Random
) -> list[float]:
    totals = [0.0 for _ in workers]
    for stage in stages:
        tasks = round(stage.tasks[case])
        durations = _drawn(stage, tasks, case, chance)
        mean = statistics.fmean(durations) if durations else 0.0
        # However many workers there are, the processors have that much to do, and the coordinator that.
        least = max(mean * tasks * stage.cpu / processors, tasks * TASK_SECONDS)
        for place, number in enumerate(workers):
            slots = min(number, stage.workers or number)
            span = makespan(durations, slots, stage.start) + (tasks - len(durations)) * mean / slots
            totals[place] += max(span, least) + stage.planning + STAGE_SECONDS
    return totals


def _drawn(stage: Measured, tasks: int, case: int, chance: Random) -> list[float]:
    """What the stage's tasks take this time, in the order in which they start; at most `MOST` of them."""
    special = [] if stage.largest is None else [stage.largest]
    few, doubt = len(stage.seconds), 1.0
    durations = [*stage.seconds, *special][:tasks]
    if tasks > few + len(special):
        doubt = math.exp(chance.gauss(0.0, DOUBT * math.sqrt((1 - few / tasks) / few)))
        # A sample of the sample, so that one odd task in three does not always stand for a third of them.
        durations = chance.choices(chance.choices(stage.seconds, k=few), k=min(tasks, MOST) - len(special)) + special
        chance.shuffle(durations)
    if stage.largest_first:
        durations.sort(reverse=True)
    scale = doubt * stage.growth[case]
    return [scale * seconds + TASK_SECONDS + TRIP_SECONDS * min(1.0, seconds / CHUNK_SECONDS) for seconds in durations]
