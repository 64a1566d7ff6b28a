"""What a store of tables does in the same SQL, whichever database keeps them.

Statements here are read by SQLite and by DuckDB alike. How a database is opened, how rows go in by the thousand and
what its errors mean is in the module of each.
"""

from __future__ import annotations

import abc
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import takewhile
from typing import Any, ClassVar

from geoflow.batch import Batch, Completed, NewTasks
from geoflow.errors import DefinitionError, IllegalTransition, LeaseLost, StoreBusy, StoreError
from geoflow.models import Attempt, JobStatus, TaskStatus
from geoflow.stores.base import Again, JobRow, Lease, Move, NewJob, StageRow, Take
from geoflow.stores.ownership import Ownership
from geoflow.stores.reading import JOB_COLUMNS, TableReader, job_row
from geoflow.transitions import job_after, task_after

# An attempt's key is its task's, times this, plus its number; see `schema.sql`.
ATTEMPTS_PER_TASK = 4096
_IDS_AT_ONCE = 10_000
_TASK_STATES_AFTER = {
    event: (source, task_after(source, event))
    for event, source in {
        "start": TaskStatus.QUEUED,
        "complete": TaskStatus.PROCESSING,
        "fail": TaskStatus.PROCESSING,
        "retry": TaskStatus.PROCESSING,
        "lose": TaskStatus.PROCESSING,
        "requeue": TaskStatus.PROCESSING,
        "release": TaskStatus.PROCESSING,
        "redo": TaskStatus.COMPLETED,
    }.items()
}
# What else changes with the state. A loss counts only while nothing else comes between.
_ALSO = {
    "start": ", attempt = attempt + 1, not_before = NULL",
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
    "refinalize": _END,
    # Its siblings may still run: `close` writes the end.
    "fail": "error = $error, traceback = $traceback, result = NULL, ended_at = NULL",
    "interrupt": "ended_at = NULL",
    "resume": "ended_at = NULL, cancel_requested = 0",
    "rerun": "started_at = NULL, ended_at = NULL, result = NULL, error = NULL, traceback = NULL, stage = $stage,"
    " cancel_requested = 0, parameters = coalesce($parameters, parameters)",
}


class TableStore(TableReader):
    """A `geoflow.stores.base.Store` over the tables job, stage, task and attempt."""

    # What the database raises for a row that the schema refuses.
    _refused: ClassVar[type[Exception]]

    def __init__(self, name: str, ownership: Ownership) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._ownership = ownership
        self._epochs: dict[int, int] = {}

    # What each database does in its own way

    @abc.abstractmethod
    def open(self) -> None: ...

    @abc.abstractmethod
    def shut(self) -> None: ...

    @abc.abstractmethod
    def reading(self) -> AbstractContextManager[Any]: ...

    @abc.abstractmethod
    def _transaction(self, lease: Lease | None = None) -> AbstractContextManager[Any]:
        """One transaction, refused when *lease* is no longer the job's."""

    @abc.abstractmethod
    def _changed(self, connection: Any, sql: str, values: dict[str, Any]) -> int:
        """Run *sql*, which may leave out some of *values*; how many rows it changed."""

    @abc.abstractmethod
    def insert_rows(self, connection: Any, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add *rows* as they are, with the columns *names*: for a copy of another store."""

    @abc.abstractmethod
    def _insert_tasks(self, connection: Any, stage_key: int, first_key: int, tasks: NewTasks) -> None: ...

    @abc.abstractmethod
    def _insert_attempts(self, connection: Any, attempts: Sequence[Attempt]) -> None: ...

    @abc.abstractmethod
    def _insert_completed(self, connection: Any, completed: Sequence[Completed]) -> None: ...

    # Submitting and taking over

    def create(self, job: NewJob, *, hold: bool = False) -> tuple[JobRow, bool]:
        held: int | None = None
        try:
            with self._transaction() as connection:
                created = self._changed(
                    connection,
                    "INSERT INTO job (job_key, job_id, job_type, status, stages, parameters, created_at, source)"
                    " VALUES ((SELECT coalesce(max(job_key), 0) + 1 FROM job), $job_id, $job_type, 'queued', $stages,"
                    " $parameters, $created_at, $source) ON CONFLICT (job_id) DO NOTHING",
                    job._asdict(),
                )
                row = job_row(
                    connection.execute(f"SELECT {JOB_COLUMNS} FROM job WHERE job_id = ?", (job.job_id,)).fetchone()
                )
                # Before anyone can see it: else it looks interrupted until it is claimed, and a resume may take it.
                if created and hold and self._ownership.acquire(row.job_key):
                    held = row.job_key
        except BaseException:
            if held is not None:
                self._ownership.release(held)
            raise
        return row, created == 1

    def claim(self, job_key: int, owner: str) -> Lease:
        with self._lock:
            found = self._rows("SELECT job_id FROM job WHERE job_key = ?", job_key)
            if not found:
                raise StoreError(f"{self.name} has no job with the key {job_key}.")
            job_id = str(found[0][0])
            if not self._ownership.acquire(job_key):
                raise StoreBusy(
                    f"Job {job_id[:8]} is driven by {self.driver(job_key) or 'another process'}. "
                    "Look at it from here, or cancel it or end that process first."
                )
            try:
                with self._transaction() as connection:
                    (epoch,) = connection.execute(
                        "UPDATE job SET epoch = epoch + 1, owner = ? WHERE job_key = ? RETURNING epoch",
                        (owner, job_key),
                    ).fetchone()
            except BaseException:
                if job_key not in self._epochs:
                    self._ownership.release(job_key)
                raise
            self._epochs[job_key] = epoch
        return Lease(job_key, job_id, epoch)

    def release(self, lease: Lease) -> None:
        with self._lock:
            if self._epochs.get(lease.job_key) == lease.epoch:
                del self._epochs[lease.job_key]
                self._ownership.release(lease.job_key)

    def abandon(self, job_key: int) -> None:
        with self._lock:
            self._epochs.pop(job_key, None)
            self._ownership.release(job_key)

    def driver(self, job_key: int) -> str | None:
        with self._lock:
            if self._ownership.is_free(job_key):
                return None
            found = self._rows("SELECT owner FROM job WHERE job_key = ?", job_key)
            owner = json.loads(found[0][0]) if found and found[0][0] else {}
            since = f", since {owner['since']}" if "since" in owner else ""
            return f"process {owner.get('pid', '?')}{since}"

    def request_cancel(self, job_key: int) -> None:
        with self._transaction() as connection:
            connection.execute("UPDATE job SET cancel_requested = 1 WHERE job_key = ?", (job_key,))

    def cancel_requested(self, job_key: int) -> bool:
        return bool(self._rows("SELECT cancel_requested FROM job WHERE job_key = ?", job_key)[0][0])

    # Driving

    def _verify(self, connection: Any, lease: Lease) -> None:
        row = connection.execute("SELECT epoch FROM job WHERE job_key = ?", (lease.job_key,)).fetchone()
        if row is None or row[0] != lease.epoch:
            raise LeaseLost(
                f"Job {lease.job_id[:8]} was taken over by another session; this one has stopped driving it. "
                "Nothing was written: look at it with session.job(...)."
            )

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
    ) -> None:
        again = again or Again()
        with self._transaction(lease) as connection:
            (text,) = connection.execute("SELECT status FROM job WHERE job_key = ?", (lease.job_key,)).fetchone()
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
                connection.execute(
                    "UPDATE stage SET superseded = 1 WHERE job_key = ? AND superseded = 0 AND stage >= ?",
                    (lease.job_key, again.stage + again.keep),
                )

    def close(self, lease: Lease, *, error: str | None, now: float) -> None:
        with self._transaction(lease) as connection:
            closed = self._changed(
                connection,
                "UPDATE job SET ended_at = $now, error = coalesce($error, error)"
                " WHERE job_key = $job_key AND status = 'failed' AND ended_at IS NULL",
                {"now": now, "error": error, "job_key": lease.job_key},
            )
            if not closed:
                raise IllegalTransition(f"Job {lease.job_id[:8]} is not a failed one whose end is yet to be written.")

    def plan(self, lease: Lease, stage: int, tasks: NewTasks, *, now: float) -> StageRow:
        count = len(tasks.task_ids)
        with self._transaction(lease) as connection:
            self._refuse_repeated_ids(connection, lease.job_key, stage, tasks.task_ids)
            (first_key,) = connection.execute("SELECT coalesce(max(task_key), 0) + 1 FROM task").fetchone()
            (stage_key,) = connection.execute(
                "INSERT INTO stage (stage_key, job_key, stage, first_key, task_count, planned_at)"
                " VALUES ((SELECT coalesce(max(stage_key), 0) + 1 FROM stage), ?, ?, ?, ?, ?) RETURNING stage_key",
                (lease.job_key, stage, first_key, count, now),
            ).fetchone()
            self._insert_tasks(connection, stage_key, first_key, tasks)
            moved = self._changed(
                connection,
                "UPDATE job SET stage = $stage WHERE job_key = $job_key AND status = 'processing'",
                {"stage": stage, "job_key": lease.job_key},
            )
            if not moved:
                raise IllegalTransition(f"Job {lease.job_id[:8]} is not processing: its stages cannot be planned.")
        return StageRow(stage_key, stage, first_key, count, now)

    def _refuse_repeated_ids(self, connection: Any, job_key: int, stage: int, task_ids: Sequence[str]) -> None:
        seen = set(task_ids)
        if len(seen) < len(task_ids):
            raise DefinitionError(f"Stage {stage} has two tasks with one id: give each task an id of its own.")
        for earlier, first, count in connection.execute(
            "SELECT stage, first_key, task_count FROM stage WHERE job_key = ? AND superseded = 0", (job_key,)
        ).fetchall():
            if earlier == stage:
                raise IllegalTransition(f"Stage {stage} of this job is planned, and is not planned twice.")
            for start in range(first, first + count, _IDS_AT_ONCE):
                for (task_id,) in connection.execute(
                    "SELECT task_id FROM task WHERE task_key >= ? AND task_key < ?",
                    (start, min(start + _IDS_AT_ONCE, first + count)),
                ).fetchall():
                    if task_id in seen:
                        raise DefinitionError(
                            f"Stage {stage} has the task id {task_id!r}, which stage {earlier} of this job has too: "
                            "put the stage into the id."
                        )

    def commit(
        self,
        lease: Lease,
        moves: Sequence[Move],
        attempts: Sequence[Attempt],
        completed: Sequence[Completed] = (),
        take: Take | None = None,
    ) -> list[Batch]:
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
            raise nothing_queued(stage, size)
        first, *told = head
        alike = dict(zip(history.split(", "), told, strict=True))
        # By a range, not by `chosen`: to sort and to count takes twice the time of all else.
        texts = (
            f"SELECT count(*), {self._TEXTS.format('task_id')}, {self._JSONS.format('parameters')} FROM task"
            f" WHERE task_key BETWEEN $first AND $last{which} AND status = 'queued' AND "
            + " AND ".join(f"{name} = ${name}" for name in alike)
        )
        keys: Sequence[int] = range(first, min(first + size, before))
        count, names, parameters = connection.execute(texts, {"first": first, "last": keys[-1], **alike}).fetchone()
        if count < len(keys):  # some of them are of another kind, or ran before
            rows = connection.execute(look, asked).fetchall()
            keys = consecutive([key for key, *others in takewhile(lambda row: row[1:] == head[1:], rows)])
            count, names, parameters = connection.execute(texts, {"first": first, "last": keys[-1], **alike}).fetchone()
        self._move(connection, [Move("start", keys)])
        task_type, attempt, retries, losses = told
        return Batch(task_type, attempt + 1, retries, losses, stage.first_key, keys, names, parameters)

    def _move(
        self,
        connection: Any,
        moves: Sequence[Move],
        attempts: Sequence[Attempt] = (),
        completed: Sequence[Completed] = (),
    ) -> None:
        if attempts or completed:
            if max(told.attempt for several in (attempts, completed) for told in several) >= ATTEMPTS_PER_TASK:
                raise StoreError(
                    f"A task has run {ATTEMPTS_PER_TASK - 1} times, which is all that the store can count."
                )
            try:
                if completed:
                    self._insert_completed(connection, completed)
                if attempts:
                    self._insert_attempts(connection, attempts)
            except self._refused as exc:
                raise IllegalTransition(f"An attempt was reported twice; the second was not written ({exc}).") from exc
        for move in _merged(moves):
            changed = sum(self._move_range(connection, move, first, last) for first, last in _ranges(move.keys))
            if changed != len(move.keys):
                raise IllegalTransition(
                    f"{len(move.keys) - changed} of {len(move.keys)} tasks were not in the state that "
                    f"{move.event!r} leaves; nothing of this change was written."
                )

    def _move_range(self, connection: Any, move: Move, first: int, last: int) -> int:
        if move.event == "cancel":
            condition, after = "status IN ('queued', 'processing')", TaskStatus.CANCELLED
        elif move.event == "reset":
            condition, after = "status IN ('failed', 'cancelled')", TaskStatus.QUEUED
        else:
            before, after = _TASK_STATES_AFTER[move.event]
            condition = f"status = '{before}'"
        return self._changed(
            connection,
            f"UPDATE task SET status = $after{_ALSO[move.event]}"
            f" WHERE task_key BETWEEN $first AND $last AND {condition}",
            {"after": after, "first": first, "last": last, "not_before": move.not_before},
        )


def nothing_queued(stage: StageRow, wanted: int) -> IllegalTransition:
    return IllegalTransition(f"No task of stage {stage.stage} is queued where {wanted} were to start.")


def consecutive(keys: Sequence[int]) -> Sequence[int]:
    """*keys*, which are in order, as a range where they are one."""
    return range(keys[0], keys[-1] + 1) if keys[-1] - keys[0] == len(keys) - 1 else keys


def _merged(moves: Sequence[Move]) -> Iterator[Move]:
    """*moves*, with those of neighbouring ranges as one: several chunks end, and start, at a time."""
    last: Move | None = None
    for move in moves:
        if last is not None and last[::2] == move[::2] and _follow(last.keys, move.keys):
            last = last._replace(keys=range(last.keys[0], move.keys[-1] + 1))
            continue
        if last is not None:
            yield last
        last = move
    if last is not None:
        yield last


def _follow(first: Sequence[int], second: Sequence[int]) -> bool:
    both = isinstance(first, range) and isinstance(second, range) and bool(first) and bool(second)
    return both and first[-1] + 1 == second[0]


def _ranges(keys: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The runs of consecutive numbers in *keys*, which are mostly one: an update of a range costs a fifth."""
    if isinstance(keys, range):
        if keys:
            yield keys[0], keys[-1]
        return
    ordered = sorted(keys)
    if not ordered:
        return
    first = last = ordered[0]
    for key in ordered[1:]:
        if key != last + 1:
            yield first, last
            first = key
        last = key
    yield first, last
