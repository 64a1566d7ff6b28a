"""Jobs, tasks and attempts in a SQLite file: the store of record.

One connection writes, one transaction a change, begun IMMEDIATE so that two writers wait for each other instead of
failing half-way. Readers have connections of their own. The promises that the rows keep are in `schema.sql`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from geoflow.errors import DefinitionError, IllegalTransition, LeaseLost, SchemaTooNew, StoreBusy, StoreError
from geoflow.models import Attempt, JobStatus, Outcome, TaskStatus
from geoflow.stores.base import FailedRow, JobRow, Lease, Move, NewJob, NewTask, StageRow, TaskRow
from geoflow.stores.ownership import Ownership
from geoflow.transitions import job_after, task_after

APPLICATION_ID = 0x67666C77  # "gflw", so that another program's database is not taken for ours
SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
_SMALLEST_DATABASE = 512  # a page, of the smallest size that there is
_JOB_COLUMNS = ", ".join(JobRow._fields)
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
    }.items()
}
# What else changes with the state. A loss counts only while nothing else comes between.
_ALSO = {
    "start": ", attempt = attempt + 1, not_before = NULL",
    "complete": ", losses = 0",
    "fail": "",
    "retry": ", retries = retries + 1, losses = 0, not_before = :not_before",
    "lose": ", losses = losses + 1",
    "requeue": "",
    "release": ", attempt = attempt - 1",
    "cancel": ", not_before = NULL",
    "reset": ", retries = 0, losses = 0, not_before = NULL",
}
_END = "ended_at = :now, result = :result, error = :error, traceback = :traceback, cancel_requested = 0"
_JOB_CHANGES = {
    "start": "started_at = coalesce(started_at, :now), ended_at = NULL, error = NULL, traceback = NULL",
    "complete": _END,
    "cancel": _END,
    "refinalize": _END,
    # Its siblings may still run: `close` writes the end.
    "fail": "error = :error, traceback = :traceback, result = NULL, ended_at = NULL",
    "interrupt": "ended_at = NULL",
    "resume": "ended_at = NULL, cancel_requested = 0",
    "rerun": "started_at = NULL, ended_at = NULL, result = NULL, error = NULL, traceback = NULL, stage = 1,"
    " cancel_requested = 0, parameters = coalesce(:parameters, parameters)",
}
# An attempt's key is its task's, times this, plus its number; see `schema.sql`.
ATTEMPTS_PER_TASK = 4096
# Each bound column of an insert costs as much as the row itself: what most attempts do not have is left out.
_INSERT_COMPLETED = (
    "INSERT INTO attempt (attempt_key, outcome, started_at, ended_at, cpu, peak_memory, result, slot, pid, code)"
    " VALUES (?, 'completed', ?, ?, ?, ?, ?, {slot:d}, {pid:d}, ?)"
)
_COMPLETED = str(Outcome.COMPLETED)
_INSERT_ATTEMPT = (
    "INSERT INTO attempt (attempt_key, outcome, started_at, ended_at, cpu, peak_memory, result, output, slot,"
    " pid, code, queued_at, backoff, error, error_type, error_category, retryable, traceback)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class SqliteStore:
    """The store in the file *path*, or in memory for ``":memory:"``. Nothing is opened before it is needed."""

    def __init__(self, path: str | os.PathLike[str], *, synchronous: str = "NORMAL") -> None:
        self.name = os.fspath(path)
        if not self.name:
            raise StoreError("The store's path is empty: give a file such as 'work.db', or ':memory:'.")
        # Absolute, so that the store stays where it is when the process goes to another folder.
        self._path = None if self.name == ":memory:" else Path(self.name).absolute()
        self._synchronous = synchronous
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._ownership = Ownership(self._path)
        self._epochs: dict[int, int] = {}

    # Opening

    def open(self) -> None:
        with self._lock:
            self._writer()

    def _writer(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._path is not None:
                _check_file(self._path)
            try:
                connection = sqlite3.connect(
                    self._path or self.name, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
                )
            except sqlite3.Error as exc:
                raise _explained(exc, self.name) from exc
            try:
                self._prepare(connection)
            except sqlite3.Error as exc:
                connection.close()
                raise _explained(exc, self.name) from exc
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        _log_ahead(connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -16000")
        if version < SCHEMA_VERSION:
            from geoflow.stores.migrations import bring_up_to_date

            bring_up_to_date(connection, self._path, schema(), APPLICATION_ID, SCHEMA_VERSION)

    def shut(self) -> None:
        with self._lock:
            self._ownership.release_all()
            self._epochs.clear()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            writer = self._writer()
            if self._path is None:
                yield writer
                return
        connection = _read_only(self._path)
        try:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            yield connection
        except sqlite3.Error as exc:
            raise _explained(exc, self.name) from exc
        finally:
            connection.close()

    @contextlib.contextmanager
    def _transaction(self, lease: Lease | None = None) -> Iterator[sqlite3.Connection]:
        """One IMMEDIATE transaction, refused when *lease* is no longer the job's."""
        with self._lock:
            connection = self._writer()
            try:
                connection.execute("BEGIN IMMEDIATE")
                if lease is not None:
                    self._verify(connection, lease)
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as exc:
                raise _explained(exc, self.name) from exc
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _verify(self, connection: sqlite3.Connection, lease: Lease) -> None:
        row = connection.execute("SELECT epoch FROM job WHERE job_key = ?", (lease.job_key,)).fetchone()
        if row is None or row[0] != lease.epoch:
            raise LeaseLost(
                f"Job {lease.job_id[:8]} was taken over by another session; this one has stopped driving it. "
                "Nothing was written: look at it with session.job(...)."
            )

    # Submitting and taking over

    def create(self, job: NewJob, *, hold: bool = False) -> tuple[JobRow, bool]:
        held: int | None = None
        try:
            with self._transaction() as connection:
                created = connection.execute(
                    "INSERT INTO job (job_id, job_type, status, stages, parameters, created_at, source)"
                    " VALUES (?, ?, 'queued', ?, ?, ?, ?) ON CONFLICT (job_id) DO NOTHING",
                    (job.job_id, job.job_type, job.stages, job.parameters, job.created_at, job.source),
                ).rowcount
                row = _job_row(
                    connection.execute(f"SELECT {_JOB_COLUMNS} FROM job WHERE job_id = ?", (job.job_id,)).fetchone()
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
        parameters: str | None = None,
    ) -> None:
        with self._transaction(lease) as connection:
            (text,) = connection.execute("SELECT status FROM job WHERE job_key = ?", (lease.job_key,)).fetchone()
            before = JobStatus(text)
            after = job_after(before, event)
            self._move(connection, moves, attempts)
            connection.execute(
                f"UPDATE job SET status = :after, {_JOB_CHANGES[event]} WHERE job_key = :job_key AND status = :before",
                {"after": after, "before": before, "job_key": lease.job_key, "now": now, "result": result}
                | {"error": error, "traceback": traceback, "parameters": parameters},
            )
            if event == "rerun":
                connection.execute(
                    "UPDATE stage SET superseded = 1 WHERE job_key = ? AND NOT superseded", (lease.job_key,)
                )

    def close(self, lease: Lease, *, error: str | None, now: float) -> None:
        with self._transaction(lease) as connection:
            closed = connection.execute(
                "UPDATE job SET ended_at = ?, error = coalesce(?, error)"
                " WHERE job_key = ? AND status = 'failed' AND ended_at IS NULL",
                (now, error, lease.job_key),
            ).rowcount
            if not closed:
                raise IllegalTransition(f"Job {lease.job_id[:8]} is not a failed one whose end is yet to be written.")

    def plan(self, lease: Lease, stage: int, tasks: Sequence[NewTask], *, now: float) -> StageRow:
        with self._transaction(lease) as connection:
            self._refuse_repeated_ids(connection, lease.job_key, stage, tasks)
            (first_key,) = connection.execute("SELECT coalesce(max(task_key), 0) + 1 FROM task").fetchone()
            (stage_key,) = connection.execute(
                "INSERT INTO stage (job_key, stage, first_key, task_count, planned_at) VALUES (?, ?, ?, ?, ?)"
                " RETURNING stage_key",
                (lease.job_key, stage, first_key, len(tasks), now),
            ).fetchone()
            connection.executemany(
                "INSERT INTO task (task_key, stage_key, task_id, task_type, parameters, metadata)"
                f" VALUES (?, {stage_key:d}, ?, ?, ?, ?)",
                ((key, *task) for key, task in enumerate(tasks, first_key)),
            )
            moved = connection.execute(
                "UPDATE job SET stage = ? WHERE job_key = ? AND status = 'processing'", (stage, lease.job_key)
            ).rowcount
            if not moved:
                raise IllegalTransition(f"Job {lease.job_id[:8]} is not processing: its stages cannot be planned.")
        return StageRow(stage_key, stage, first_key, len(tasks), now)

    def _refuse_repeated_ids(
        self, connection: sqlite3.Connection, job_key: int, stage: int, tasks: Sequence[NewTask]
    ) -> None:
        seen = {task.task_id for task in tasks}
        if len(seen) < len(tasks):
            raise DefinitionError(f"Stage {stage} has two tasks with one id: give each task an id of its own.")
        for earlier, first, count in connection.execute(
            "SELECT stage, first_key, task_count FROM stage WHERE job_key = ? AND NOT superseded", (job_key,)
        ).fetchall():
            for (task_id,) in connection.execute(
                "SELECT task_id FROM task WHERE task_key >= ? AND task_key < ?", (first, first + count)
            ):
                if task_id in seen:
                    raise DefinitionError(
                        f"Stage {stage} has the task id {task_id!r}, which stage {earlier} of this job has too: "
                        "put the stage into the id."
                    )

    def commit(self, lease: Lease, moves: Sequence[Move], attempts: Sequence[Attempt]) -> None:
        with self._transaction(lease) as connection:
            self._move(connection, moves, attempts)

    def _move(self, connection: sqlite3.Connection, moves: Sequence[Move], attempts: Sequence[Attempt]) -> None:
        if attempts:
            try:
                _insert_attempts(connection, attempts)
            except sqlite3.IntegrityError as exc:
                raise IllegalTransition(f"An attempt was reported twice; the second was not written ({exc}).") from exc
        for move in moves:
            changed = 0
            for first, last in _ranges(move.keys):
                changed += self._move_range(connection, move, first, last)
            if changed != len(move.keys):
                raise IllegalTransition(
                    f"{len(move.keys) - changed} of {len(move.keys)} tasks were not in the state that "
                    f"{move.event!r} leaves; nothing of this change was written."
                )

    def _move_range(self, connection: sqlite3.Connection, move: Move, first: int, last: int) -> int:
        if move.event == "cancel":
            condition, after = "status IN ('queued', 'processing')", TaskStatus.CANCELLED
        elif move.event == "reset":
            condition, after = "status IN ('failed', 'cancelled')", TaskStatus.QUEUED
        else:
            before, after = _TASK_STATES_AFTER[move.event]
            condition = f"status = '{before}'"
        return connection.execute(
            f"UPDATE task SET status = :after{_ALSO[move.event]}"
            f" WHERE task_key BETWEEN :first AND :last AND {condition}",
            {"after": after, "first": first, "last": last, "not_before": move.not_before},
        ).rowcount

    # Reading

    def job(self, job_id: str) -> JobRow | None:
        return next((row for row in self.find(job_id) if row.job_id == job_id), None)

    def find(self, prefix: str) -> list[JobRow]:
        if set(prefix) - set("0123456789abcdef"):
            return []
        # "g" comes after every hex digit.
        found = self._rows(
            f"SELECT {_JOB_COLUMNS} FROM job WHERE job_id >= ? AND job_id < ? || 'g' ORDER BY job_key", prefix, prefix
        )
        return [_job_row(row) for row in found]

    def jobs(self) -> list[JobRow]:
        return [_job_row(row) for row in self._rows(f"SELECT {_JOB_COLUMNS} FROM job ORDER BY job_key")]

    def stages(self, job_key: int) -> list[StageRow]:
        return [
            StageRow(*row)
            for row in self._rows(
                "SELECT stage_key, stage, first_key, task_count, planned_at FROM stage"
                " WHERE job_key = ? AND NOT superseded ORDER BY stage",
                job_key,
            )
        ]

    def counts(self, stage: StageRow) -> dict[str, int]:
        return dict(
            self._rows(
                "SELECT status, count(*) FROM task WHERE task_key >= ? AND task_key < ? GROUP BY status",
                stage.first_key,
                stage.end_key,
            )
        )

    def queued(self, stage: StageRow, after: int, limit: int) -> list[TaskRow]:
        rows = self._rows(
            f"SELECT task_key, task_id, task_key - {stage.first_key:d}, task_type, attempt, retries, losses,"
            " not_before, parameters FROM task"
            " WHERE task_key > ? AND task_key < ? AND status = 'queued' ORDER BY task_key LIMIT ?",
            max(after, stage.first_key - 1),
            stage.end_key,
            limit,
        )
        return list(map(TaskRow._make, rows))

    def in_state(self, stage: StageRow, status: str) -> list[tuple[int, int, int]]:
        return [
            (key, attempt, losses)
            for key, attempt, losses in self._rows(
                "SELECT task_key, attempt, losses FROM task WHERE task_key >= ? AND task_key < ? AND status = ?"
                " ORDER BY task_key",
                stage.first_key,
                stage.end_key,
                status,
            )
        ]

    def results(self, stage: StageRow) -> list[str]:
        found = self._rows(
            "SELECT a.result FROM task t JOIN attempt a ON a.attempt_key = (t.task_key << 12) + t.attempt"
            " WHERE t.task_key >= ? AND t.task_key < ? AND t.status = 'completed' ORDER BY t.task_key",
            stage.first_key,
            stage.end_key,
        )
        return [result for (result,) in found]

    def finalize_rows(self, job_key: int) -> str:
        found = self._rows(
            "SELECT json_group_array(json_array(task_id, task_type, status, json(result), error, ended_at)) FROM"
            " (SELECT t.task_id, t.task_type, t.status, iif(t.status = 'completed', a.result, NULL) AS result,"
            " iif(t.status = 'completed', NULL, a.error) AS error, a.ended_at FROM stage s"
            " JOIN task t ON t.task_key >= s.first_key AND t.task_key < s.first_key + s.task_count"
            " LEFT JOIN attempt a ON a.attempt_key = (t.task_key << 12) + t.attempt"
            " WHERE s.job_key = ? AND NOT s.superseded ORDER BY t.task_key)",
            job_key,
        )
        return str(found[0][0])

    def failed(self, stage: StageRow) -> list[FailedRow]:
        return [
            FailedRow(*row)
            for row in self._rows(
                "SELECT task_index, task_id, task_type, retries, coalesce(error_type || ': ' || error, '') FROM tasks"
                " WHERE task_key >= ? AND task_key < ? AND status = 'failed' ORDER BY task_key",
                stage.first_key,
                stage.end_key,
            )
        ]

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with self._lock:
            connection = self._writer()
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                raise _explained(exc, self.name) from exc


def schema() -> str:
    """The SQL that makes an empty store."""
    return resources.files("geoflow.stores").joinpath("schema.sql").read_text("utf-8")


def _job_row(row: Sequence[Any]) -> JobRow:
    found = JobRow(*row)
    return found._replace(status=JobStatus(found.status))


def _insert_attempts(connection: sqlite3.Connection, attempts: Sequence[Attempt]) -> None:
    plain: dict[tuple[int, int | None], list[tuple[Any, ...]]] = {}
    others: list[tuple[Any, ...]] = []
    for attempt in attempts:
        (
            (task_key, number, outcome, started, ended, cpu, memory, result),
            (failure, output, slot, pid, code, queued_at, backoff),
        ) = attempt[:8], attempt[8:]
        if number >= ATTEMPTS_PER_TASK:
            raise StoreError(f"A task has run {ATTEMPTS_PER_TASK - 1} times, which is all that the store can count.")
        key = task_key * ATTEMPTS_PER_TASK + number
        if failure is None and output is None and queued_at is None and slot is not None and outcome == _COMPLETED:
            row = (key, started, ended, cpu, memory, result, code)
            try:
                plain[slot, pid].append(row)
            except KeyError:
                plain[slot, pid] = [row]
        else:
            told = failure or (None, None, None, None, None)
            known = (key, outcome, started, ended, cpu, memory, result, output, slot, pid, code, queued_at, backoff)
            others.append((*known, *told))
    for (slot_number, process), found in plain.items():
        connection.executemany(_INSERT_COMPLETED.format(slot=slot_number, pid=process or 0), found)
    connection.executemany(_INSERT_ATTEMPT, others)


def _ranges(keys: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The runs of consecutive numbers in *keys*, which are mostly one: an update of a range costs a fifth."""
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


def _check_file(path: Path) -> None:
    """Refuse what cannot be a store before anything is written; make a new file readable by its owner alone.

    An existing file is looked at through SQLite only: opening and closing it by other means would drop the locks
    that this process's connections hold on it.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder: the store is a file, such as {path / 'geoflow.db'}.")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"{path} cannot be opened: the folder {path.absolute().parent} does not exist. Make it first.")
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        size = path.stat().st_size
        if not size:
            return
        if size < _SMALLEST_DATABASE:  # SQLite would take it for an empty one
            raise StoreError(f"{path} is not a SQLite file. It was not touched: name another store.")
    except OSError as exc:
        raise StoreError(f"{path} cannot be opened: {exc.strerror}. Check its permissions and the disk.") from exc
    with contextlib.closing(_read_only(path)) as connection:
        try:
            # In one statement: another process may make the store at this very moment.
            application, version, tables = connection.execute(
                "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
                " FROM pragma_application_id, pragma_user_version"
            ).fetchone()
        except sqlite3.DatabaseError as exc:
            if getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
                raise StoreError(f"{path} is not a SQLite file. It was not touched: name another store.") from None
            raise _explained(exc, str(path)) from exc
    if application != APPLICATION_ID and (tables or application):
        raise StoreError(f"{path} is the database of another program. It was not touched: name another store.")
    if version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"{path} was written by a newer geoflow (schema {version}, this one knows {SCHEMA_VERSION}). "
            "It was not touched: upgrade geoflow, or use another store."
        )


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. Who makes the store at the same time is in the way, and SQLite does not wait."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.002)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)


def _explained(exc: sqlite3.Error, name: str) -> StoreError:
    """SQLite's error in words: what happened to which file, and what is safe."""
    code = getattr(exc, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary == sqlite3.SQLITE_FULL:
        return StoreError(f"The disk of {name} is full. What was committed is safe; free some space, then resume.")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"{name} was locked by another process for {BUSY_SECONDS:.0f} s. Nothing was written.")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(f"{name} is damaged or is not a store ({exc}). Keep a copy, and start with another store.")
    if primary == sqlite3.SQLITE_READONLY:
        return StoreError(f"{name} cannot be written ({exc}). Check the permissions of the file and of its folder.")
    return StoreError(f"{name}: {exc}.")
