"""Jobs that are removed: their rows go together or not at all, and no later row is given a key that one of them had.

A key tells a thing from all others for as long as the store lives: what another session remembers by a key must not be
found to be something else. So the highest keys are kept, in a table that is made when a job is first removed.
"""

from __future__ import annotations

import abc
import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from geoflow.core.rows import SeenJob
from geoflow.errors import StoreBusy
from geoflow.stores.checked import HIGHEST
from geoflow.stores.columns import ATTEMPTS_PER_TASK
from geoflow.stores.made_later import TABLES
from geoflow.stores.notes import Notes

_TASKS_AT_ONCE = 20_000  # in one transaction, which others wait for; a job that has more goes in one all the same
_JOBS_AT_ONCE = 500
_OWN = ("attempt", "task", "stage", "job")
_HIGHEST = "removed"
_OURS = "WHERE job_key < 1000000000"
# These go by what is there of the rest, or by the jobs' ids; and code may be another job's as well.
_LATER = (_HIGHEST, "reusable", "events", "sources", "note")
_KEPT = f"INSERT INTO {_HIGHEST} ({', '.join(TABLES[_HIGHEST])})"


class RemovableJobs(Notes):
    """The part of a `geoflow.stores.store.Store` that removes jobs."""

    @abc.abstractmethod
    def shrink(self) -> None:
        """Give the room of rows that are gone back to the disk; ``StoreError`` when that cannot be now."""

    @abc.abstractmethod
    def room(self) -> tuple[int, int]:
        """How many bytes the store has, and how many of them are room of rows that are gone."""

    def _next_key(self, connection: Any, table: str) -> int:
        sql = f"SELECT coalesce(max({table}_key), 0) FROM {table}"
        if table == "job":  # in a damaged store there may be plans of a job whose row is not found: they are no other's
            sql = (
                f"SELECT max(highest) FROM (SELECT coalesce(max(job_key), 0) AS highest FROM job {_OURS} UNION ALL"
                f" SELECT coalesce(max(job_key), 0) FROM stage {_OURS} AND superseded = 0)"
            )
        (highest,) = connection.execute(sql).fetchone()
        if self.has(_HIGHEST):
            (removed,) = connection.execute(f"SELECT coalesce(max({table}_key), 0) FROM {_HIGHEST}").fetchone()
            highest = max(highest, removed)
        if not 0 <= highest < HIGHEST:
            raise self.damaged(f"a key of {table} is {highest}")
        return int(highest) + 1

    def clear(self) -> None:
        """Remove all jobs at once. ``StoreBusy``, and nothing is done, where somebody drives one of them."""
        with self._removal() as connection:
            for job_key, job_id in connection.execute("SELECT job_key, job_id FROM job").fetchall():
                if driver := self.driver(job_key):
                    raise StoreBusy(f"Job {job_id[:8]} is driven by {driver}: nothing was removed. Cancel it first.")
            for table in (*(table for table in TABLES if table != _HIGHEST and self.has(table)), *_OWN):
                connection.execute(f"DELETE FROM {table}")

    def remove(self, jobs: Iterable[SeenJob]) -> Iterator[list[str]]:
        """Remove those of the *jobs* that are as they were seen, and that nobody drives; the ids of some, then of more.

        What was told of is gone for good. Results that others took over from them stay, as those of who took them over.
        """
        left = deque(jobs)
        while left:
            some: dict[int, str] = {}
            with self._removal() as connection:
                tasks = 0
                while left and tasks < _TASKS_AT_ONCE and len(some) < _JOBS_AT_ONCE:
                    job = left.popleft()
                    sql = "SELECT job_key, status, ended_at FROM job WHERE job_id = ?"
                    row = connection.execute(sql, (job.job_id,)).fetchone()
                    as_seen = row is not None and tuple(row[1:]) == (job.status, job.ended_at)
                    if as_seen and self._ownership.is_free(row[0]):
                        some[row[0]] = job.job_id
                        tasks += job.tasks
                if some:
                    self._remove(connection, ", ".join(map(str, some)))
            yield list(some.values())

    @contextlib.contextmanager
    def _removal(self) -> Iterator[Any]:
        """A transaction in which rows go, at the end of which the highest keys are kept."""
        with self._lock, self._unchecked(), self._transaction() as connection:
            self.make(connection, _HIGHEST)
            highest = [self._next_key(connection, key.removesuffix("_key")) - 1 for key in TABLES[_HIGHEST]]
            connection.execute(f"DELETE FROM {_HIGHEST}")
            connection.execute(f"{_KEPT} VALUES (?, ?, ?)", highest)
            yield connection

    @contextlib.contextmanager
    def _unchecked(self) -> Iterator[None]:
        """Have SQLite look for no rows that refer to those that go: it would read a whole table for each of them."""
        if self._DATABASE != "sqlite":
            yield
            return
        self._rows("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            self._rows("PRAGMA foreign_keys = ON")

    def _remove(self, connection: Any, job_keys: str) -> None:
        """Remove what these jobs have in each table."""
        among = f"WHERE job_key IN ({job_keys})"
        plans = connection.execute(f"SELECT stage_key, first_key, task_count FROM stage {among}").fetchall()
        later = {table: key for table, (key, *_) in TABLES.items() if table not in _LATER and self.has(table)}
        for table, key in (("attempt", "attempt_key"), ("task", "task_key"), *later.items()):
            if key == "job_key":
                connection.execute(f"DELETE FROM {table} {among}")
            else:
                _delete(connection, table, key, plans)
        self._hand_over(connection)
        if self.has("reusable"):
            _delete(connection, "reusable", "task_key", plans)
        self.note_pruned(connection, among)
        for table in ("stage", "job"):
            connection.execute(f"DELETE FROM {table} {among}")

    def _hand_over(self, connection: Any) -> None:
        """Have results whose makers are gone be those of who took them over, also for later plans."""
        gone = "NOT EXISTS (SELECT 1 FROM attempt a WHERE a.attempt_key = reused.source_key)"
        if self.has("reused") and self.has("reusable"):
            connection.execute(
                "INSERT INTO reusable SELECT reused.attempt_key >> 12, k.digest, k.inputs FROM reused"
                " JOIN reusable k ON k.task_key = reused.source_key >> 12"
                f" WHERE {gone} AND reused.attempt_key >> 12 NOT IN (SELECT task_key FROM reusable)"
            )
        if self.has("reused"):
            connection.execute(f"UPDATE reused SET source_key = attempt_key WHERE {gone}")


def _delete(connection: Any, table: str, key: str, plans: Sequence[tuple[int, int, int]]) -> None:
    """Delete what the tasks of the *plans* have in a table with that *key*."""
    times = ATTEMPTS_PER_TASK if key == "attempt_key" else 1
    for stage_key, first, tasks in plans:
        # Of another program's making, a plan may claim another one's tasks.
        own = f" AND stage_key = {stage_key:d}" if table == "task" else ""
        bounds = first * times, (first + tasks) * times
        connection.execute(f"DELETE FROM {table} WHERE {key} >= ? AND {key} < ?{own}", bounds)
