"""What a store of tables answers: its jobs, their plans, what waits, what came out."""

from __future__ import annotations

import abc
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from geoflow.core.rows import FailedRow, JobRow, Results, StageRow
from geoflow.errors import IllegalTransition, StoreError
from geoflow.stores.checked import job_row, stage_rows
from geoflow.stores.columns import last_attempt
from geoflow.support.parcel import PIECE
from geoflow.support.text import count

# How many tasks are told of in one row: the first few say how long their texts are.
_FIRST_AT_ONCE, _RESULTS_AT_ONCE, _GROWTH = 1_000, 50_000, 8
# The completed tasks of a stage, each with the attempt that completed it.
COMPLETED = f"FROM task t JOIN {last_attempt()} WHERE t.task_key >= ? AND t.task_key < ? AND t.status = 'completed'"
# What is told of these, and of those that failed as well: these have an error, and no result.
_OF_ENDED = (
    "coalesce(a.result, '{}') AS result,"
    " CASE t.status WHEN 'failed' THEN coalesce(a.error_type || ': ' || a.error, 'it failed') END AS error"
    f" FROM task t LEFT JOIN {last_attempt()} WHERE t.task_key >= ? AND t.task_key < ?"
    " AND t.status IN ('completed', 'failed')"
)
_TASKS = "FROM task WHERE task_key >= ? AND task_key < ?"
_PLANS, _PEAKS = 3, 10_000  # what tasks may need is told by so many of the last plans, and so many tasks of each
JOB_COLUMNS = ", ".join(JobRow._fields)


def by_ranges(
    ask: Callable[[int, int, int | None], Any], keys: Sequence[tuple[int, int]], most: int, begun: int | None = None
) -> Iterator[Any]:
    """What is told of all *keys*, some at a time: first of so many as *begun*, then of what makes texts of some length.

    *ask* is given the first and the last of some, and how long a text may be; None says that one would be longer.
    """
    at_once = begun or most
    for first, last in keys:
        start = first
        while start <= last:
            end = min(start + at_once - 1, last)
            row = ask(start, end, PIECE if at_once > 1 else None)
            if row is None:
                at_once = max(at_once // _GROWTH, 1)
                continue
            yield row
            longest = max((len(text) for text in row if isinstance(text, str)), default=0) or 1
            at_once = max(1, min(_GROWTH * at_once, most, PIECE * (end - start + 1) // (2 * longest)))
            start = end + 1


class NothingQueued(StoreError, IllegalTransition):
    """Tasks were to start, and the store has none of them: who asked has counted them, and they are gone."""


class TableReader(abc.ABC):
    """The reading half of a `geoflow.stores.store.Store`."""

    name: str

    # A column of texts or numbers, and one of JSON text, as one JSON array in the order of the keys.
    _TEXTS: ClassVar[str]
    _JSONS: ClassVar[str]
    # How long a text is.
    _BYTES: ClassVar[str]

    @abc.abstractmethod
    def _rows(self, sql: str, *values: Any) -> list[Any]: ...

    @abc.abstractmethod
    def _one(self, sql: str, *values: Any, longest: int | None) -> Any:
        """The one row that *sql* finds, or None: a text in it is longer than *longest*, where the database can tell."""

    def _jobs(self, which: str, *values: Any) -> list[JobRow]:
        return [job_row(row) for row in self._rows(f"SELECT {JOB_COLUMNS} FROM job {which}", *values)]

    def _of(self, stage: StageRow, sql: str, *values: Any) -> list[Any]:
        """The rows that *sql* finds, which asks first for the keys from one up to another."""
        return self._rows(sql, stage.first_key, stage.end_key, *values)

    def job(self, job_id: str) -> JobRow | None:
        return next(iter(self._jobs("WHERE job_id = ?", job_id) if _is_hex(job_id) else []), None)

    def find(self, prefix: str) -> list[JobRow]:
        """The jobs whose id begins with *prefix*."""
        # "g" comes after every hex digit.
        between = "WHERE job_id >= ? AND job_id < ? ORDER BY job_key"
        return self._jobs(between, prefix, prefix + "g") if _is_hex(prefix) else []

    def jobs(self) -> list[JobRow]:
        """All jobs, oldest first."""
        return self._jobs("ORDER BY job_key")

    def unended(self) -> list[JobRow]:
        """Those of which something is still to be done, oldest first."""
        # In this order: to see an end, SQLite has to wade through all parameters and results before it.
        unended = "status IN ('queued', 'processing') OR (status = 'failed' AND ended_at IS NULL)"
        return self._jobs(f"WHERE {unended} ORDER BY job_key")

    def latest(self) -> JobRow | None:
        """The job that was submitted last."""
        return next(iter(self._jobs("ORDER BY job_key DESC LIMIT 1")), None)

    def stages(self, job_key: int, *, whole: bool = False) -> list[StageRow]:
        """The current plans of the job's stages, in order, of no more tasks than there may be.

        With *whole* ``StoreError`` where one was planned with more, or where a stage between them is missing.
        """
        rows = self._rows(
            f"SELECT {', '.join(StageRow._fields)} FROM stage WHERE job_key = ? AND superseded = 0 ORDER BY stage",
            job_key,
        )
        if not rows:
            return []
        ((last,),) = self._rows("SELECT coalesce(max(task_key), 0) FROM task")
        plans = stage_rows(rows, last)
        if whole and [plan[1:4] for plan in plans] != [(place, *row[2:4]) for place, row in enumerate(rows, start=1)]:
            raise self.damaged("stages of a job, or tasks of theirs, cannot be found")
        return plans

    def counts(self, stage: StageRow) -> dict[str, int]:
        """How many of the stage's tasks are in each state."""
        return dict(self._of(stage, f"SELECT status, count(*) {_TASKS} GROUP BY status"))

    def tried_before(self, stage: StageRow) -> list[tuple[int, float | None]]:
        """(key, not_before) of the queued tasks that are not new: they failed, or were lost, before."""
        before = "AND status = 'queued' AND (retries > 0 OR losses > 0) ORDER BY task_key"
        return self._of(stage, f"SELECT task_key, not_before {_TASKS} {before}")

    def finalize_rows(self, job_key: int, let_pass: Container[int] = (), *, done: int | None = None) -> Iterator[str]:
        """The completed tasks of all current stages in order, for finalize: JSON arrays of four columns of some each.

        They are the ids, the task types, the results, and when the tasks ended, in microseconds since the epoch. Of
        the plans in *let_pass* the failed tasks are told too, and their errors are a fifth. Of a job that is *done*,
        with so many stages, ``StoreError`` where one of these, or a task of theirs, is not in the store.
        """
        # A time as a number of digits takes SQLite a third of a float's time.
        columns = (
            self._TEXTS.format("task_id"),
            self._TEXTS.format("task_type"),
            self._JSONS.format("result"),
            self._TEXTS.format("CAST(round(ended_at * 1e6) AS BIGINT)"),
        )
        planned = self.stages(job_key, whole=done is not None)
        if done not in (None, len(planned)):
            raise self.damaged("stages of a job that is done cannot be found")
        for stage in planned:
            failed = stage.stage_key in let_pass
            errors = (self._TEXTS.format("error"),) if failed else ()
            left = stage.task_count
            for number, *texts in self._completed(stage, *columns, *errors, failed=failed):
                left -= number
                yield f"[{','.join(texts)}]"
            if left and done is not None:
                raise self.damaged(f"what came of {count(left, 'task')} of stage {stage.stage} cannot be found")

    def results(self, stage: StageRow) -> Iterator[Results]:
        """The results of the stage's completed tasks, in task order, some at a time: no text is long."""
        for number, text in self._completed(stage, self._JSONS.format("result")):
            yield Results(number, text)

    def results_bytes(self, stage: StageRow) -> int:
        """How long these results are, all of them together."""
        sql = f"SELECT coalesce(sum({self._BYTES.format('a.result')}), 0) {COMPLETED}"
        return int(self._of(stage, sql)[0][0])

    def _completed(self, stage: StageRow, *columns: str, failed: bool = False) -> Iterator[Any]:
        """The number of some of the stage's completed tasks, and their *columns*, each as one text; then of more.

        With *failed* those that failed are among them, with an empty result.

        As many at a time as make texts of a bounded length, since nothing bounds what all of them say together.
        """
        # No order is asked for: SQLite goes through the tasks by their keys as it is, and would sort them in a step.
        told = _OF_ENDED if failed else f"a.result {COMPLETED}"
        sql = (
            f"SELECT count(*), {', '.join(columns)}"
            f" FROM (SELECT t.task_key, t.task_id, t.task_type, a.ended_at, {told})"
        )

        def ask(first: int, last: int, longest: int | None) -> Any:
            return self._one(sql, first, last + 1, longest=longest)

        keys = [(stage.first_key, stage.end_key - 1)]
        return (row for row in by_ranges(ask, keys, _RESULTS_AT_ONCE, _FIRST_AT_ONCE) if row[0])

    def nothing_queued(self, stage: StageRow, wanted: int) -> NothingQueued:
        """What to raise where none is queued of so many that are *wanted*."""
        how = f"No task of stage {stage.stage} is queued where {wanted} were to start"
        return NothingQueued(str(self.damaged(how)))

    def damaged(self, how: str) -> StoreError:
        """What to raise where rows of it cannot be what was written."""
        return StoreError(
            f"{self.name} is damaged, or another program changed it: {how}. Keep a copy, and start with another store."
        )

    def largest_first(self, stage: StageRow) -> list[int]:
        """The keys of the queued tasks that are new, by their size; see `geoflow.core.models.Stage`."""
        took: dict[str, float] = dict(
            self._rows(
                "SELECT t.task_id, a.ended_at - a.started_at FROM stage now"
                " JOIN stage s ON s.job_key = now.job_key AND s.stage = now.stage AND s.superseded = 1"
                " JOIN task t ON t.task_key >= s.first_key AND t.task_key < s.first_key + s.task_count"
                f" JOIN {last_attempt()}"
                " WHERE now.stage_key = ? AND a.started_at IS NOT NULL AND a.ended_at IS NOT NULL ORDER BY t.task_key",
                stage.stage_key,
            )
        )
        new = "AND status = 'queued' AND retries = 0 AND losses = 0 ORDER BY task_key"
        rows = self._of(stage, f"SELECT task_key, task_id, metadata {_TASKS} {new}")
        sizes = {key: _said(metadata, "size") or took.get(name, 0.0) for key, name, metadata in rows}
        return sorted(sizes, key=lambda key: -sizes[key])

    def told(self, stage: StageRow, what: str) -> tuple[list[int], dict[int, float]]:
        """The keys of the queued tasks that are new, in order, and the number that the metadata of each task that has
        not ended have under the name *what*, or 0."""
        is_new = "status = 'queued' AND retries = 0 AND losses = 0"
        open_ones = "AND (status = 'queued' OR status = 'processing') ORDER BY task_key"
        rows = self._of(stage, f"SELECT task_key, {is_new}, metadata {_TASKS} {open_ones}")
        return [key for key, new, _ in rows if new], {key: _said(metadata, what) for key, _, metadata in rows}

    def crowded(self, stage: StageRow) -> list[int]:
        """The keys of the queued tasks for whose last attempt memory did not suffice, which did not count."""
        last = "t.status = 'queued' AND t.losses > 0 AND a.error_category = 'memory'"
        these = f"FROM task t JOIN {last_attempt()} WHERE t.task_key >= ? AND t.task_key < ? AND {last}"
        return [key for (key,) in self._of(stage, f"SELECT t.task_key {these} ORDER BY t.task_key")]

    def peaks(self, job_type: str, probes: str, stage: int) -> list[tuple[float, int]]:
        """Of tasks of the last plans of the *stage* of which any has completed, in jobs of the *job_type* and in
        *probes* of it, the size, or 0, and the most that each had in memory."""
        plans = (
            "SELECT s.first_key, s.first_key + s.task_count FROM stage s JOIN job j USING (job_key)"
            " WHERE s.stage = ? AND (j.job_type = ? OR j.job_type = ?) AND EXISTS (SELECT 1 FROM task t"
            " WHERE t.task_key >= s.first_key AND t.task_key < s.first_key + s.task_count AND t.status = 'completed')"
            f" ORDER BY s.stage_key DESC LIMIT {_PLANS}"
        )
        most = f"AND a.peak_memory IS NOT NULL ORDER BY a.peak_memory DESC LIMIT {_PEAKS}"
        rows = [
            row
            for keys in self._rows(plans, stage, job_type, probes)
            for row in self._rows(f"SELECT t.metadata, a.peak_memory {COMPLETED} {most}", *keys)
        ]
        return [(_said(metadata, "size"), peak) for metadata, peak in rows]

    def codes(self, stage: StageRow) -> list[tuple[str, str, int]]:
        """(task type, fingerprint, how many) of the code that the stage's completed tasks ran with."""
        codes = f"SELECT t.task_type, coalesce(a.code, ''), count(*) {COMPLETED} GROUP BY 1, 2 ORDER BY 1, 2"
        return self._of(stage, codes)

    def completed_with_other_code(self, stage: StageRow, codes: Mapping[str, str]) -> list[int]:
        """The keys of the stage's completed tasks that ran with other code than *codes* has for their type."""
        rows = self._of(stage, f"SELECT t.task_key, t.task_type, a.code {COMPLETED} ORDER BY t.task_key")
        return [key for key, task_type, code in rows if code != codes.get(task_type, code)]

    def in_state(self, stage: StageRow, status: str) -> list[tuple[int, int, int]]:
        """(key, attempt, losses) of the stage's tasks that are *status*."""
        return self._of(stage, f"SELECT task_key, attempt, losses {_TASKS} AND status = ? ORDER BY task_key", status)

    def failed(self, stage: StageRow) -> list[FailedRow]:
        """The stage's failed tasks, in task order."""
        rows = self._of(
            stage,
            "SELECT task_index, task_id, task_type, retries, coalesce(error_type || ': ' || error, '') FROM tasks"
            " WHERE task_key >= ? AND task_key < ? AND status = 'failed' ORDER BY task_key",
        )
        return list(map(FailedRow._make, rows))


def _is_hex(text: str) -> bool:
    return not set(text) - set("0123456789abcdef")


def _said(metadata: str | None, what: str) -> float:
    """The number that a task's metadata have under the name *what*, or 0."""
    try:
        values = json.loads(metadata) if metadata else None
    except (ValueError, RecursionError):  # another program's: it says nothing
        values = None
    said = values.get(what) if isinstance(values, dict) else None
    return float(said) if isinstance(said, int | float) else 0.0
