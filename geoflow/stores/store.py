"""The store, which holds the truth: what it writes of jobs, plans, tasks and attempts, whichever database keeps them.

One process drives a job at a time, by a lease; every change is one transaction that names the lease's epoch and the
state that it leaves, and is refused when either is no longer so.

Statements here are read by SQLite and by DuckDB alike. How a database is opened, how rows go in by the
thousand and what its errors mean is in the module of each.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, ClassVar

from geoflow.core.batch import Batch, Completed, NewTasks
from geoflow.core.models import Attempt, JobStatus, Outcome
from geoflow.core.rows import Again, Lease, Move, StageRow, Take, TakenOver
from geoflow.core.transitions import TASK_TRANSITIONS, job_after, task_after
from geoflow.errors import DefinitionError, IllegalTransition, StoreError
from geoflow.stores.columns import ATTEMPT, ATTEMPTS_PER_TASK
from geoflow.stores.ranges import as_ranges, consecutive
from geoflow.stores.removing import RemovableJobs
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.parcel import PIECE

_NOTHING = TakenOver()
_IDS_AT_ONCE = 10_000
_IDS_KEPT = 1_000_000  # in 80 MB
# What changes with a task's state. A loss counts only while nothing else comes between.
_TASK_CHANGES = {
    "start": ", attempt = attempt + 1, not_before = NULL",
    "reuse": ", attempt = attempt + 1",
    "complete": ", losses = 0",
    "fail": "",
    "retry": ", retries = retries + 1, losses = 0, not_before = $not_before",
    "lose": ", losses = losses + 1",
    "requeue": "",
    "release": ", attempt = attempt - 1",
    "cancel": ", not_before = NULL",
    "reset": ", retries = 0, losses = 0, not_before = NULL",
    "redo": ", retries = 0, losses = 0, not_before = NULL",
}
_END = "ended_at = $now, result = $result, error = $error, traceback = $traceback, cancel_requested = 0"
_JOB_CHANGES = {
    "start": "started_at = coalesce(started_at, $now), ended_at = NULL, error = NULL, traceback = NULL",
    "complete": _END,
    "cancel": _END,
    # Not the end: hours may lie between, in which nothing ran, and the job's duration is that of its run.
    "refinalize": _END.removeprefix("ended_at = $now, "),
    # Its siblings may still run: `close` writes the end.
    "fail": "error = $error, traceback = $traceback, result = NULL, ended_at = NULL",
    "interrupt": "ended_at = NULL",
    "resume": "ended_at = NULL, cancel_requested = 0",
    "rerun": "started_at = NULL, ended_at = NULL, result = NULL, error = NULL, traceback = NULL, stage = $stage,"
    " cancel_requested = 0, parameters = coalesce($parameters, parameters)",
}

# What a job's history calls them: past participles.
_TOLD = {
    "start": "started",
    "complete": "finalized",
    "fail": "failed",
    "interrupt": "interrupted",
    "cancel": "cancelled",
    "resume": "resumed",
    "refinalize": "finalized again",
}
# Changes of tasks that no attempt tells of, where they come with one of the job's.
_UNTOLD = ("cancel", "reset", "redo")


@cache
def _task_change(event: str) -> str:
    before = [state for state, leaving in TASK_TRANSITIONS if leaving == event]
    after = task_after(before[0], event)
    states = ", ".join(f"'{state}'" for state in before)
    return (
        f"UPDATE task SET status = '{after}'{_TASK_CHANGES[event]}"
        f" WHERE task_key BETWEEN $first AND $last AND status IN ({states})"
    )


class Store(RemovableJobs):
    """A place that keeps jobs, tasks and attempts. Its methods may be called from any thread."""

    # What the database raises for a row that the schema refuses.
    _refused: ClassVar[type[Exception]]

    # What each database does in its own way

    @abc.abstractmethod
    def open(self) -> None:
        """Open it now; ``StoreError`` that names the file when that cannot be."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close every connection. The store can be opened again."""

    @abc.abstractmethod
    def reading(self) -> AbstractContextManager[Any]:
        """A connection to read the views with, which holds up nobody who writes."""

    @abc.abstractmethod
    def copy_to(self, target: Path) -> None:
        """Write all that it has at this moment to the new file *target*, and check it there; others may go on."""

    @abc.abstractmethod
    def insert_rows(self, connection: Any, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add *rows* as they are, with the columns *names*."""

    @abc.abstractmethod
    def _one_of(self, connection: Any, sql: str, values: dict[str, Any], longest: int | None) -> Any:
        """As `_one`, within a transaction."""

    @abc.abstractmethod
    def _insert_tasks(self, connection: Any, stage_key: int, first_key: int, tasks: NewTasks) -> None: ...

    @abc.abstractmethod
    def _insert_completed(self, connection: Any, completed: Sequence[Completed]) -> None: ...

    # Driving

    def change_job(
        self,
        lease: Lease,
        event: str,
        *,
        now: float,
        result: str | None = None,
        error: str | None = None,
        traceback: str | None = None,
        moves: Sequence[Move] = (),
        attempts: Sequence[Attempt] = (),
        completed: Sequence[Completed] = (),
        again: Again | None = None,
        told: str | None = None,
        why: str | None = None,
    ) -> None:
        """Move the job by *event*, together with *moves* of its tasks and *attempts* that ended.

        A ``rerun`` sets the plans of all stages aside, as history, or those that *again* says. The job's history has it
        as *told*, where that is not the usual word, and *why*: the error, where there is one.
        """
        again = again or Again()
        with self._transaction(lease) as connection:
            text, stage = connection.execute(
                "SELECT status, stage FROM job WHERE job_key = ?", (lease.job_key,)
            ).fetchone()
            before = JobStatus(text)
            after = job_after(before, event)
            self._move(connection, moves, attempts, completed)
            self._changed(
                connection,
                f"UPDATE job SET status = $after, {_JOB_CHANGES[event]} WHERE job_key = $job_key AND status = $before",
                {"after": after, "before": before, "job_key": lease.job_key, "now": now, "result": result}
                | {"error": error, "traceback": traceback, "parameters": again.parameters, "stage": again.stage},
            )
            if event == "rerun":
                self._set_aside(connection, lease.job_key, again)
                (told, why), stage = again.told, again.stage
            about: dict[str, Any] = {"at": now, "was": before, "status": after, "stage": stage}
            about["tasks"] = sum(len(move.keys) for move in moves if move.event in _UNTOLD)
            self.note(connection, lease.job_id, told or _TOLD[event], why=why or error, **about)

    def end_job(self, lease: Lease, *, error: str | None, now: float) -> None:
        """Write when a failed job's last sibling ended, and why the job failed."""
        with self._transaction(lease) as connection:
            closed = self._changed(
                connection,
                "UPDATE job SET ended_at = $now, error = coalesce($error, error)"
                " WHERE job_key = $job_key AND status = 'failed' AND ended_at IS NULL",
                {"now": now, "error": error, "job_key": lease.job_key},
            )
            if not closed:
                raise IllegalTransition(f"Job {lease.job_id[:8]} is not a failed one whose end is yet to be written.")
            (stage,) = connection.execute("SELECT stage FROM job WHERE job_key = ?", (lease.job_key,)).fetchone()
            about: dict[str, Any] = {"was": JobStatus.FAILED, "status": JobStatus.FAILED, "stage": stage}
            self.note(connection, lease.job_id, "ended", at=now, why=error, **about)

    def plan(self, lease: Lease, stage: int, tasks: NewTasks, *, now: float, taken: TakenOver = _NOTHING) -> StageRow:
        """Write a stage's tasks and make it the current stage; ``DefinitionError`` when a task id is taken.

        Those that have *taken* over a result are complete; ``ResultRemoved`` where one of these is gone.
        """
        count = len(tasks.task_ids)
        with self._transaction(lease) as connection:
            ids = self._earlier_ids(connection, lease.job_key, stage, tasks.task_ids)
            first_key = self._next_key(connection, "task")
            (stage_key,) = connection.execute(
                "INSERT INTO stage (stage_key, job_key, stage, first_key, task_count, planned_at)"
                " VALUES (?, ?, ?, ?, ?, ?) RETURNING stage_key",
                (self._next_key(connection, "stage"), lease.job_key, stage, first_key, count, now),
            ).fetchone()
            self._insert_tasks(connection, stage_key, first_key, tasks)
            self._take_over(connection, first_key, taken)
            moved = self._changed(
                connection,
                "UPDATE job SET stage = $stage WHERE job_key = $job_key AND status = 'processing'",
                {"stage": stage, "job_key": lease.job_key},
            )
            if not moved:
                raise IllegalTransition(f"Job {lease.job_id[:8]} is not processing: its stages cannot be planned.")
            plans = connection.execute(
                "SELECT count(*), max(stage_key) FROM stage WHERE job_key = ? AND superseded = 0", (lease.job_key,)
            ).fetchone()
            self._note_driven(connection, lease, stage, "planned", count, now)
            if taken.reused:
                self._note_driven(connection, lease, stage, "reused", len(taken.reused), now)
        if len(ids) + count <= _IDS_KEPT:
            self._ids[lease.job_key] = plans, ids, tasks.task_ids
        return StageRow(stage_key, stage, first_key, count, now)

    def _note_driven(
        self, connection: Any, lease: Lease, stage: int, event: str, tasks: int, at: float | None = None
    ) -> None:
        about: dict[str, Any] = {"was": JobStatus.PROCESSING, "status": JobStatus.PROCESSING, "stage": stage}
        self.note(connection, lease.job_id, event, tasks=tasks, at=at, **about)

    def let_pass(self, lease: Lease, stage: StageRow, failed: int = 0) -> None:
        """Note that the job goes on without the *failed* tasks of *stage*, for all who look at it later.

        It is said where its stages are declared: no other table needs to know, and another plan has another key.
        """
        with self._transaction(lease) as connection:
            (text,) = connection.execute("SELECT stages FROM job WHERE job_key = ?", (lease.job_key,)).fetchone()
            stages = from_json(text)
            stages[stage.stage - 1]["let_pass"] = stage.stage_key
            connection.execute("UPDATE job SET stages = ? WHERE job_key = ?", (to_json(stages), lease.job_key))
            self._note_driven(connection, lease, stage.stage, "went on", failed)

    def _earlier_ids(self, connection: Any, job_key: int, stage: int, task_ids: Sequence[str]) -> set[int]:
        """The hashes of all ids that the job's plans have. Refuses *task_ids* that are among them, or there twice.

        They are remembered while the job is driven: to read all of them again for each stage would cost more and more.
        """
        seen = set(task_ids)
        if len(seen) < len(task_ids):
            raise DefinitionError(f"Stage {stage} has two tasks with one id: give each task an id of its own.")
        current = "FROM stage WHERE job_key = ? AND superseded = 0"
        if connection.execute(f"SELECT 1 {current} AND stage = ?", (job_key, stage)).fetchone():
            raise IllegalTransition(f"Stage {stage} of this job is planned, and is not planned twice.")
        plans = connection.execute(f"SELECT count(*), max(stage_key) {current}", (job_key,)).fetchone()
        known, ids, last = self._ids.pop(job_key, (None, set[int](), ()))
        ids.update(map(hash, last))  # only now: most jobs plan no further stage
        if known == plans and ids.isdisjoint(map(hash, seen)):
            return ids
        ids = set()
        for number, first, count in connection.execute(
            f"SELECT stage, first_key, task_count {current}", (job_key,)
        ).fetchall():
            for start in range(first, first + count, _IDS_AT_ONCE):
                for (task_id,) in connection.execute(
                    "SELECT task_id FROM task WHERE task_key >= ? AND task_key < ?",
                    (start, min(start + _IDS_AT_ONCE, first + count)),
                ).fetchall():
                    if task_id in seen:
                        raise DefinitionError(
                            f"Stage {stage} has the task id {task_id!r}, which stage {number} of this job has too: "
                            "put the stage into the id."
                        )
                    ids.add(hash(task_id))
        return ids

    def commit(
        self,
        lease: Lease,
        moves: Sequence[Move],
        attempts: Sequence[Attempt],
        completed: Sequence[Completed] = (),
        take: Take | None = None,
    ) -> list[Batch]:
        """Write what became of tasks, then start those to *take*: a batch for each of its groups and sizes, in order.

        A batch may have fewer tasks than wished for: it ends before the first one of another type or history. Nothing
        is written when a task is not in the state that it should leave; ``StoreError`` where none is queued of those
        that were to start.
        """
        with self._transaction(lease) as connection:
            self._move(connection, moves, attempts, completed)
            return [] if take is None else list(self._start(connection, take))

    def _start(self, connection: Any, take: Take) -> Iterator[Batch]:
        for keys in take.groups:
            among = "" if len(keys) == 1 else f" AND task_key IN ({', '.join(map(str, keys))})"
            yield self._start_batch(connection, take.stage, among, min(keys) - 1, max(keys) + 1, len(keys))
        after = max(take.after, take.stage.first_key - 1)
        for size in take.sizes:
            new = " AND retries = 0 AND losses = 0"
            batch = self._start_batch(connection, take.stage, new, after, take.stage.end_key, size)
            after = batch.keys[-1]
            yield batch

    def _start_batch(self, connection: Any, stage: StageRow, which: str, after: int, before: int, size: int) -> Batch:
        """Start the first *size* queued tasks of *which*, or as many of these as are of one type and history."""
        chosen = (
            f"FROM task WHERE task_key > $after AND task_key < $before{which} AND status = 'queued'"
            " ORDER BY task_key LIMIT $size"
        )
        history = "task_type, attempt, retries, losses"
        look = f"SELECT task_key, {history} {chosen}"
        asked = {"after": after, "before": before, "size": size}
        head = connection.execute(look, {**asked, "size": 1}).fetchone()
        if head is None:
            raise self.nothing_queued(stage, size)
        first, *kind = head
        alike = dict(zip(history.split(", "), kind, strict=True))
        # By a range, not by `chosen`: to sort and to count takes twice the time of all else.
        texts = (
            f"SELECT count(*), {self._TEXTS.format('task_id')}, {self._JSONS.format('parameters')} FROM task"
            f" WHERE task_key BETWEEN $first AND $last{which} AND status = 'queued' AND "
            + " AND ".join(f"{name} = ${name}" for name in alike)
        )
        keys: Sequence[int] = range(first, min(first + size, before))
        longest = PIECE if size > 1 else None
        text_row = self._one_of(connection, texts, {"first": first, "last": keys[-1], **alike}, longest)
        if text_row is not None and text_row[0] < len(keys):  # some of them are of another kind, or ran before
            rows = connection.execute(look, asked).fetchall()
            keys = consecutive([key for key, *others in takewhile(lambda row: row[1:] == head[1:], rows)])
            text_row = self._one_of(connection, texts, {"first": first, "last": keys[-1], **alike}, longest)
        if text_row is None:
            rows = connection.execute(f"SELECT task_key, {history}, task_id, parameters {chosen}", asked)
            few = list(not_long(row for row in takewhile(lambda row: row[1:5] == head[1:], iter(rows.fetchone, None))))
            rows.close()
            keys = consecutive([row[0] for row in few])
            text_row = len(few), to_json([row[5] for row in few]), f"[{','.join(row[6] for row in few)}]"
        self._move(connection, [Move("start", keys)])
        task_type, attempt, retries, losses = kind
        return Batch(task_type, attempt + 1, retries, losses, stage.first_key, keys, *text_row[1:])

    def _move(
        self,
        connection: Any,
        moves: Sequence[Move],
        attempts: Sequence[Attempt] = (),
        completed: Sequence[Completed] = (),
    ) -> None:
        if attempts or completed:
            if max(attempt.attempt for several in (attempts, completed) for attempt in several) >= ATTEMPTS_PER_TASK:
                raise StoreError(
                    f"A task has run {ATTEMPTS_PER_TASK - 1} times, which is all that the store can count."
                )
            try:
                if completed:
                    self._insert_completed(connection, completed)
                if attempts:
                    self.insert_rows(connection, "attempt", ATTEMPT, list(map(_attempt_row, attempts)))
            except self._refused as exc:
                raise IllegalTransition(f"An attempt was reported twice; the second was not written ({exc}).") from exc
        for (event, not_before), alike in groupby(moves, key=lambda move: (move.event, move.not_before)):
            runs = list(as_ranges(alike))
            sql = _task_change(event)
            changed = sum(
                self._changed(connection, sql, {"first": first, "last": last, "not_before": not_before})
                for first, last in runs
            )
            wanted = sum(last - first + 1 for first, last in runs)
            if changed != wanted:
                raise IllegalTransition(
                    f"{wanted - changed} of {wanted} tasks were not in the state that "
                    f"{event!r} leaves; nothing of this change was written."
                )


def _attempt_row(attempt: Attempt) -> tuple[Any, ...]:
    *failure, retryable, traceback = attempt.failure or (None, None, None, None, None)
    key = attempt.key * ATTEMPTS_PER_TASK + attempt.attempt
    is_retryable = None if retryable is None else int(retryable)
    return key, *attempt[2:8], *attempt[9:], *failure, is_retryable, traceback


def completed_columns(several: Completed) -> tuple[tuple[Iterable[Any], ...], tuple[Any, ...]]:
    """What attempts that completed are written with: the columns `COMPLETED_OWN`, and the values `COMPLETED_SAME`."""
    keys: Iterable[int] = several.keys
    if isinstance(keys, range) and keys.step == 1:
        first, end = (key * ATTEMPTS_PER_TASK + several.attempt for key in (keys.start, keys.stop))
        keys = range(first, end, ATTEMPTS_PER_TASK)
    else:
        keys = (key * ATTEMPTS_PER_TASK + several.attempt for key in keys)
    own = keys, several.started_at, several.ended_at, several.cpu, several.results
    return own, (str(Outcome.COMPLETED), several.slot, several.pid, several.peak_memory, several.code)


def not_long(rows: Iterable[Any]) -> Iterator[Any]:
    """The first of *rows*, and as many more as have texts, their last columns, of a bounded length together."""
    length = 0
    for row in rows:
        length += len(row[-1])
        if length > PIECE and length > len(row[-1]):
            return
        yield row
