"""What is drawn of a job: values that are masked and bounded, however many tasks there are.

`geoflow.notebook.snapshot` reads them from a store, `geoflow.notebook.display` draws them. Times are seconds since the
epoch, durations seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from geoflow.text import cut, mask, mask_text
from geoflow.values import from_json

CELLS = 200
# JSON longer than this is not parsed to be drawn: a drawing is made several times a second.
READ = 50_000
# The letters of a strip, worst first: a cell shows the worst state of its tasks, so that no failure is hidden.
LETTERS = {"f": "failed", "p": "processing", "x": "cancelled", "q": "queued", "c": "completed"}
_LETTER_OF = {state: letter for letter, state in LETTERS.items()}
_WORST_FIRST = "".join(LETTERS)


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage. ``counts`` has the states that tasks are in; ``strip`` is a letter of `LETTERS` for each cell.

    ``started_at`` is when its tasks were written, ``ended_at`` when the next stage's were or the job ended.
    """

    number: int
    name: str
    task_type: str
    parallelism: str
    planned: bool
    tasks: int
    counts: Mapping[str, int]
    started_at: float | None
    ended_at: float | None
    strip: str

    @property
    def state(self) -> str:
        """The worst state of its tasks; ``completed`` when it made none, ``not planned`` before it has any."""
        present = (state for state in LETTERS.values() if self.counts.get(state))
        return next(present, "completed" if self.planned else "not planned")


class AttemptView(NamedTuple):
    """One attempt: the seconds that its retry had to wait (None when it was no retry), and how it ended."""

    number: int
    waited: float | None
    error: str
    outcome: str
    duration: float | None


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Failed tasks that have their error's type, shape and place in common; the details are the first one's.

    ``where`` is the last of the user's frames in words, ``why`` the rule that decided about a retry.
    """

    error_type: str
    message: str
    category: str
    count: int
    why: str
    where: str | None
    tasks: tuple[str, ...]
    traceback: str | None
    parameters: str
    output: str | None
    attempts: tuple[AttemptView, ...]
    retried: bool


@dataclass(frozen=True, slots=True)
class JobView:
    """A job. ``errors`` are the commonest groups of the first ``examined`` failed tasks.

    ``parameters`` are names, and values as JSON text. ``traceback`` belongs to ``error`` when that is no task's: a plan
    or finalize failed. ``hint`` is what to type next, with a comment; ``driver`` who drives the job.
    """

    job_id: str
    job_type: str
    status: str
    with_errors: bool
    parameters: tuple[tuple[str, str], ...]
    created_at: float
    started_at: float | None
    ended_at: float | None
    now: float
    stages: tuple[StageView, ...]
    errors: tuple[ErrorGroup, ...] = ()
    examined: int = 0
    error: str | None = None
    traceback: str | None = None
    result_preview: str | None = None
    hint: str | None = None
    driver: str | None = None

    @property
    def state(self) -> str:
        """The status, ``completed with errors``, or ``interrupted`` when it stopped half-way."""
        return _state(self.status, self.with_errors, self.started_at, self.driver)

    @property
    def elapsed(self) -> float | None:
        """From its start to its end, or to now; None when it has not started, or nobody knows how long it ran."""
        return _elapsed(self.started_at, self.ended_at, self.now, self.driver)

    @property
    def failed(self) -> int:
        """How many of its tasks have failed."""
        return sum(stage.counts.get("failed", 0) for stage in self.stages)


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job as one line of a table. The counts are of the tasks that are planned."""

    job_id: str
    job_type: str
    status: str
    stage: int
    total_stages: int
    tasks: int
    completed: int
    failed: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    now: float
    with_errors: bool = False
    driver: str | None = None

    @property
    def state(self) -> str:
        """The status, ``completed with errors``, or ``interrupted`` when it stopped half-way."""
        return _state(self.status, self.with_errors, self.started_at, self.driver)

    @property
    def elapsed(self) -> float | None:
        """From its start to its end, or to now; None when it has not started, or nobody knows how long it ran."""
        return _elapsed(self.started_at, self.ended_at, self.now, self.driver)


def _state(status: str, with_errors: bool, started_at: float | None, driver: str | None) -> str:
    if with_errors:
        return "completed with errors"
    half_way = status in ("queued", "processing") and started_at is not None
    return "interrupted" if half_way and driver is None else status


def _elapsed(started_at: float | None, ended_at: float | None, now: float, driver: str | None) -> float | None:
    until = now if ended_at is None and driver is not None else ended_at
    return None if until is None or started_at is None else max(until - started_at, 0.0)


def cell_width(tasks: int) -> int:
    """How many tasks of a stage share a cell of its strip."""
    return max(1, -(-tasks // CELLS))


def aggregate(tasks: int, others: Iterable[tuple[int, str, int]]) -> tuple[dict[str, int], str]:
    """Counts and strip of a stage; *others* has (first place, state, how many) of its cells, less the completed."""
    counts: dict[str, int] = {}
    width = cell_width(tasks)
    cells = ["c"] * -(-tasks // width)
    for place, state, number in others:
        counts[state] = counts.get(state, 0) + number
        cells[place // width] = min(cells[place // width], _LETTER_OF[state], key=_WORST_FIRST.index)
    completed = tasks - sum(counts.values())
    return ({**counts, "completed": completed} if completed else counts), "".join(cells)


def narrow(strip: str, cells: int) -> str:
    """*strip* in at most *cells* letters, each the worst of those it stands for."""
    width = max(1, -(-len(strip) // max(cells, 1)))
    return "".join(min(strip[i : i + width], key=_WORST_FIRST.index) for i in range(0, len(strip), width))


def shown(text: str, limit: int, secrets: tuple[str, ...]) -> str:
    """JSON *text* masked and made readable, in about *limit* characters."""
    if len(text) >= READ:
        return cut(mask_text(text[:READ], secrets), limit)
    masked = mask(from_json(text), secrets)
    line = json.dumps(masked, ensure_ascii=False)
    return cut(line if len(line) <= 100 else json.dumps(masked, ensure_ascii=False, indent=2), limit)
