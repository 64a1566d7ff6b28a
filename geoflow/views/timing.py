"""When the attempts of a job ran, and how long: counted into bins, so that many cost a picture what few do.

All arithmetic is numpy's, in seconds from the first attempt's start. What was set aside by a rerun is left out, and so
is an attempt that did not run: its result was taken over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from geoflow.core.models import Outcome
from geoflow.stores import columnwise, questions
from geoflow.stores.columns import ATTEMPTS_PER_TASK
from geoflow.stores.questions import PlannedStage
from geoflow.stores.store import Store
from geoflow.views.rows import at_once

Array = Any  # of numpy: mypy has no names for their dtypes that say more
KINDS = ("completed", "retried", "failed", "stopped")  # what came of an attempt
_OUTCOMES: dict[str | None, int] = {Outcome.COMPLETED: 0, Outcome.FAILED: 2}  # all others are stopped, 3
BINS, LANES, CELLS = 200, 24, 3_000  # at most so many of each; CELLS is bins times lanes
LONGEST_GAP = 600.0  # seconds: a shorter one is never left out
SLOWEST = 3


class Runs(NamedTuple):
    """The attempts that ran, and that ended: arrays of one length, in the order of their keys; times in seconds."""

    plans: list[PlannedStage]
    keys: Array
    kinds: Array  # a place in `KINDS` each
    slots: Array  # -1: no worker is known
    waiting: Array  # since when a later attempt waited; NaN for a first one
    started: Array
    ended: Array
    peaks: Array  # bytes that its process had at most; NaN where nobody knows


class Lane(NamedTuple):
    """One line of a timeline: for each bin, and each of some kinds, a share of its height, 0 to 1."""

    name: str
    shares: dict[str, list[float]]


class Timeline(NamedTuple):
    """Lanes over time. ``breaks`` are the pauses that are left out, each with its place; places are 0 to 1."""

    lanes: tuple[Lane, ...]
    seconds: float  # from the first start to the last end, without breaks
    breaks: tuple[tuple[float, float], ...]
    planned: tuple[tuple[float, str], ...]
    counts: dict[str, int]  # attempts of each kind
    workers: int
    most: int = 0  # what a share of 1 is, where that is an amount


class StageTimes(NamedTuple):
    """How long the attempts of a stage ran: how many in each bin, by kind; seconds; the slowest, by task id."""

    name: str
    counts: dict[str, list[int]]
    median: float
    slowest: tuple[tuple[str, float], ...]

    @property
    def attempts(self) -> int:
        return sum(map(sum, self.counts.values()))


class Histogram(NamedTuple):
    """How long attempts ran, by stage. ``edges`` are those of the bins, in seconds; *logarithmic* or even."""

    stages: tuple[StageTimes, ...]
    edges: list[float]
    logarithmic: bool


class Timing(NamedTuple):
    """The attempts of a job that ran, and the ids of those that ran the longest in each stage, by their tasks' keys."""

    runs: Runs
    slowest: dict[int, str]

    @classmethod
    def of(cls, store: Store, job_id: str, *, peaks: bool = False) -> Timing:
        """With *peaks* they know what they had in memory, which takes longer to read."""
        with at_once(store) as connection:
            runs = _read(connection, job_id, peaks=peaks)
            return cls(runs, {key: questions.task_id(connection, key) for key in _slowest(runs)})

    def timeline(self) -> Timeline:
        """When the job's workers were busy, and with what."""
        return timeline_of(self.runs)

    def over_time(self) -> Timeline:
        """How many of the job's attempts had ended by when, of all that have."""
        return over_time_of(self.runs)

    def memory(self) -> Timeline:
        """What the job's workers had in memory at most, and when; a share of 1 is the most of all, in bytes."""
        return memory_of(self.runs)

    def histogram(self) -> Histogram:
        """How long the job's attempts ran."""
        return histogram_of(self.runs, self.slowest)


def _read(connection: Any, job_id: str, *, peaks: bool) -> Runs:
    plans = questions.plans(connection, job_id)
    ranges = [(plan.first, plan.last) for plan in plans]
    own, alike = (
        ["key", "slot", "started_at", "ended_at", *(["peak_memory"] if peaks else [])],
        ("outcome", "queued_at"),
    )
    columns: list[list[Array]] = [[np.zeros(0)] for _ in own]
    outcomes: list[Array] = [np.zeros(0, "int8")]
    told: dict[int, tuple[int, float | None]] = {}
    for piece in columnwise.read(connection, "runs", own, alike, ranges):
        for column, values in zip(columns, piece.columns, strict=True):
            column.append(_numbers(values))
        outcomes.append(np.full(len(piece.columns[0]), _OUTCOMES.get(piece.usual[0], 3), "int8"))
        told |= {key: (_OUTCOMES.get(outcome, 3), queued_at) for key, outcome, queued_at in piece.unlike}
    numbers, slots, started, ended, *more = map(np.concatenate, columns)
    keys, kinds, waiting = numbers.astype("int64"), np.concatenate(outcomes), np.full(len(numbers), np.nan)
    if told:
        places = np.searchsorted(keys, np.fromiter(told, "int64", len(told)))
        kinds[places] = [kind for kind, _ in told.values()]
        waiting[places] = np.array([queued_at for _, queued_at in told.values()], dtype=float)
    kinds[(kinds == 0) & (keys % ATTEMPTS_PER_TASK > 1)] = KINDS.index("retried")
    there = ~(np.isnan(started) | np.isnan(ended))  # else its result was taken over, or nobody saw it end
    first = started[there].min(initial=np.inf)
    waited, began, over = ((times[there] - first) / 1e6 for times in (waiting, started, ended))
    begun = [plan._replace(created_at=(plan.created_at - first) / 1e6) for plan in plans] if there.any() else []
    slots = np.nan_to_num(slots[there], nan=-1).astype("int64")
    over = np.maximum(began, over)  # whatever a clock did
    had = more[0][there] if more else np.full(len(slots), np.nan)
    return Runs(begun, keys[there], kinds[there], slots, waited, began, over, had)


def _numbers(values: list[Any]) -> Array:
    if None in values:
        return np.array(values, dtype=float)
    return np.fromiter(values, "int64", len(values))  # in half the time


class _Scale(NamedTuple):
    """The attempts on a clock that stands still in pauses: by lane, and how much time there is."""

    names: list[str]  # of the lanes
    lanes: Array
    together: int  # workers in a lane
    started: Array
    ended: Array
    waiting: Array
    seconds: float
    bins: int
    said: tuple[tuple[tuple[float, float], ...], tuple[tuple[float, str], ...], dict[str, int], int]  # of `Timeline`

    def cells(self, times: Array) -> Array:
        """In which bin each of *times* is."""
        return np.clip((times * (self.bins / self.seconds)).astype("int64"), 0, self.bins - 1)


def _scale(runs: Runs) -> _Scale:
    numbers = np.unique(runs.slots)
    together = -(-len(numbers) // LANES) or 1
    names = [_name(numbers[place : place + together]) for place in range(0, len(numbers), together)]
    lanes = np.searchsorted(numbers, runs.slots) // together
    starts, lengths = gaps(runs.started, runs.ended)
    started, ended, waiting = (worked(times, starts, lengths) for times in (runs.started, runs.ended, runs.waiting))
    seconds = float(ended.max(initial=0.0)) or 1e-6
    bins = max(min(BINS, CELLS // max(len(names), 1)), 50)
    said = (
        tuple(zip((worked(starts, starts, lengths) / seconds).tolist(), lengths.tolist(), strict=True)),
        tuple((_place(plan.created_at, starts, lengths, seconds), plan.stage_name) for plan in runs.plans),
        dict(zip(KINDS, np.bincount(runs.kinds, minlength=len(KINDS)).tolist(), strict=True)),
        int((numbers >= 0).sum()),
    )
    return _Scale(names, lanes, together, started, ended, waiting, seconds, bins, said)


def timeline_of(runs: Runs) -> Timeline:
    on = _scale(runs)
    groups, count = on.lanes * len(KINDS) + runs.kinds, len(on.names) * len(KINDS)
    busy = overlaps(on.started, on.ended, groups, count, on.seconds, on.bins)
    shares = np.clip(busy / on.together, 0, 1).reshape(len(on.names), len(KINDS), on.bins)
    drawn = [
        Lane(name, {kind: share.tolist() for kind, share in zip(KINDS, lane, strict=True) if share.any()})
        for name, lane in zip(on.names, shares, strict=True)
    ]
    waits = np.flatnonzero(~np.isnan(on.waiting))
    if len(waits):
        since, until = on.waiting[waits], on.started[waits]
        number = overlaps(since, until, np.zeros(len(waits), "int64"), 1, on.seconds, on.bins)[0]
        most = max(float(number.max()), 1.0)
        drawn.append(Lane("waiting to retry", {"waiting": (number / most).tolist()}))
    return Timeline(tuple(drawn), on.seconds, *on.said)


def over_time_of(runs: Runs) -> Timeline:
    on = _scale(runs)
    number = np.bincount(on.cells(on.ended) + runs.kinds.astype("int64") * on.bins, minlength=len(KINDS) * on.bins)
    done = number.reshape(len(KINDS), on.bins).cumsum(axis=1) / max(len(runs.keys), 1)
    shares = {kind: row.tolist() for kind, row in zip(KINDS, done, strict=True) if row.any()}
    return Timeline((Lane("ended", shares),), on.seconds, *on.said, most=len(runs.keys))


def memory_of(runs: Runs) -> Timeline:
    on, known = _scale(runs), np.flatnonzero(~np.isnan(runs.peaks))
    lanes, peaks = on.lanes[known], runs.peaks[known]
    first, last = on.cells(on.started[known]), on.cells(on.ended[known])
    had = np.zeros((len(on.names), on.bins))
    np.maximum.at(had, (lanes, first), peaks)
    np.maximum.at(had, (lanes, last), peaks)
    for place in np.flatnonzero(last - first > 1).tolist():  # no more than there are bins, whatever the attempts
        part = had[lanes[place], first[place] + 1 : last[place]]
        np.maximum(part, peaks[place], out=part)
    most = max(float(peaks.max(initial=0.0)), 1.0)
    drawn = (Lane(name, {"peak": (row / most).tolist()}) for name, row in zip(on.names, had, strict=True) if row.any())
    return Timeline(tuple(drawn), on.seconds, *on.said, most=int(most))


def _name(slots: Array) -> str:
    first, last = int(slots[0]), int(slots[-1])
    if last < 0:
        return "no worker"
    return f"worker {last + 1}" if len(slots) == 1 else f"{max(first, 0) + 1}–{last + 1}"


def _place(at: float, starts: Array, lengths: Array, seconds: float) -> float:
    return min(max(float(worked(np.array([at]), starts, lengths)[0]) / seconds, 0.0), 1.0)


def gaps(started: Array, ended: Array) -> tuple[Array, Array]:
    """When nothing ran for long: the starts of such pauses, and their lengths. They would leave no room for the rest.

    Long is more than `LONGEST_GAP`, and more than a quarter of all the time in which something ran.
    """
    order = np.argsort(started, kind="stable")
    until = np.maximum.accumulate(ended[order])[:-1]
    pauses = np.maximum(started[order][1:] - until, 0)
    ran = ended.max(initial=0.0) - pauses.sum()
    long = pauses > max(LONGEST_GAP, ran / 4)
    return until[long], pauses[long]


def worked(times: Array, starts: Array, lengths: Array) -> Array:
    """*times* on a clock that stands still in the gaps with these *starts* and *lengths*."""
    left_out = np.zeros_like(times)
    for start, length in zip(starts, lengths, strict=True):
        left_out += np.clip(times - start, 0, length)
    return times - left_out


def overlaps(started: Array, ended: Array, groups: Array, count: int, seconds: float, bins: int) -> Array:
    """How many intervals of each of *count* groups there are at once, on average, in each of *bins* to *seconds*."""
    width, shape = seconds / bins, (count, bins)

    def until(times: Array) -> tuple[Array, Array]:  # up to each bin's end: how many, and the time that passed since
        cells = np.clip((times / width).astype("int64"), 0, bins - 1) + groups * bins
        number = np.bincount(cells, minlength=count * bins).reshape(shape).cumsum(axis=1)
        total = np.bincount(cells, weights=times, minlength=count * bins).reshape(shape).cumsum(axis=1)
        return number, number * (np.arange(1, bins + 1) * width) - total

    (begun, since_start), (over, since_end) = until(np.maximum(started, 0)), until(np.maximum(ended, 0))
    share = np.diff(since_start - since_end, axis=1, prepend=0) / width
    # Sums are not exact: whether there is anything at all is counted.
    there = begun > np.concatenate([np.zeros((count, 1), "int64"), over[:, :-1]], axis=1)
    return np.where(there, np.maximum(share, 1e-9), 0.0)


def _slowest(runs: Runs) -> Sequence[int]:
    """The tasks of the attempts that ran the longest in each stage, by their keys."""
    return [int(runs.keys[place] // ATTEMPTS_PER_TASK) for plan in runs.plans for place in _longest(runs, plan)]


def _of_stage(runs: Runs, plan: PlannedStage) -> slice:
    bounds = np.array([plan.first, plan.last + 1]) * ATTEMPTS_PER_TASK
    return slice(*np.searchsorted(runs.keys, bounds).tolist())


def _longest(runs: Runs, plan: PlannedStage) -> list[int]:
    part = _of_stage(runs, plan)
    took = runs.ended[part] - runs.started[part]
    few = np.argpartition(took, -SLOWEST)[-SLOWEST:] if len(took) > SLOWEST else np.arange(len(took))
    return [int(part.start + place) for place in sorted(few.tolist(), key=lambda place: -took[place])]


def histogram_of(runs: Runs, ids: dict[int, str], bins: int = 40) -> Histogram:
    """The histogram of *runs*; *ids* has the ids of the slowest tasks, by their keys."""
    took = np.maximum(runs.ended - runs.started, 1e-6)
    low, high = float(took.min(initial=np.inf)), float(took.max(initial=0.0))
    if not len(took):
        return Histogram((), [], logarithmic=False)
    logarithmic = high / low > 20
    low = low if logarithmic else 0.0
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    cells = np.clip(np.searchsorted(edges, took, side="right") - 1, 0, bins - 1)
    stages = []
    for plan in runs.plans:
        part = _of_stage(runs, plan)
        if part.start == part.stop:
            continue
        number = np.bincount(cells[part] + runs.kinds[part] * bins, minlength=bins * len(KINDS)).reshape(-1, bins)
        counts = {kind: row.tolist() for kind, row in zip(KINDS, number, strict=True) if row.any()}
        slowest = tuple(
            (ids[int(runs.keys[place] // ATTEMPTS_PER_TASK)], float(took[place])) for place in _longest(runs, plan)
        )
        stages.append(StageTimes(f"{plan.stage} {plan.stage_name}", counts, float(np.median(took[part])), slowest))
    stages.sort(key=lambda stage: int(stage.name.split()[0]))
    return Histogram(tuple(stages), edges.tolist(), logarithmic)
