"""Results that a plan takes over: which attempt's result a task was completed with, and what a job is planned anew for.

Neither is in a store of the first schema: these tables are made when they are first needed, and a geoflow that does not
know them sees attempts that completed, and jobs that were run again.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from geoflow.core.rows import Again, Anew, Move
from geoflow.stores.columns import ATTEMPTS_PER_TASK, COLUMNS, KINDS
from geoflow.stores.leases import JobLeases
from geoflow.stores.reading import COMPLETED
from geoflow.support.parcel import PIECE

# Their columns, the key first. `source_key` is that of the attempt that made the result: it ran.
TABLES = {"reused": ("attempt_key", "source_key"), "anew": ("job_key", "mode", "since")}
_FIRST_AT_ONCE, _AT_ONCE = 100, 5_000
# Nobody ran it, so that it took no time and has no process; it ended when what it takes over did.
_TAKEN_OVER = (
    "INSERT INTO attempt (attempt_key, outcome, ended_at, code, result)"
    " SELECT r.attempt_key, 'completed', a.ended_at, a.code, a.result"
    " FROM reused r JOIN attempt a ON a.attempt_key = r.source_key WHERE r.attempt_key BETWEEN ? AND ?"
)


class Before(NamedTuple):
    """A task that has completed, and by which attempt. ``parameters`` are JSON text."""

    attempt_key: int
    task_id: str
    task_index: int
    task_type: str
    code: str
    parameters: str


def made_if_needed(table: str, database: Literal["sqlite", "duckdb"]) -> str:
    """The SQL that makes one of `TABLES`."""
    columns = [f"{name} {getattr(KINDS[COLUMNS[name]], database)}" for name in TABLES[table]]
    return f"CREATE TABLE IF NOT EXISTS {table} ({columns[0]} PRIMARY KEY, {', '.join(columns[1:])})"


class ReusedResults(JobLeases):
    """The part of a `geoflow.stores.store.Store` that knows whose results are others'."""

    _DATABASE: ClassVar[Literal["sqlite", "duckdb"]]

    @abc.abstractmethod
    def insert_rows(self, connection: Any, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    @abc.abstractmethod
    def _move(self, connection: Any, moves: Sequence[Move]) -> None: ...

    def has(self, table: str) -> bool:
        """Whether the store has this one of `TABLES` by now."""
        return bool(self._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", table))

    def make(self, connection: Any, table: str) -> None:
        """Make one of `TABLES`, unless it is there."""
        connection.execute(made_if_needed(table, self._DATABASE))

    # Planned anew

    def anew(self, job_key: int) -> Anew | None:
        """What the job's plans are made anew for, if they are."""
        rows = self._rows("SELECT mode, since FROM anew WHERE job_key = ?", job_key) if self.has("anew") else []
        return next(map(Anew._make, rows), None)

    def _set_aside(self, connection: Any, job_key: int, again: Again) -> None:
        """Set aside what is done over, and remember what for: a resume goes on with it."""
        before = self.anew(job_key)
        if before is not None:
            connection.execute("DELETE FROM anew WHERE job_key = ?", (job_key,))
        which = "job_key = ? AND superseded = 0 AND stage >= ?"
        values = job_key, again.stage + again.keep
        if again.reuse is not None:
            self.make(connection, "anew")
            (since,) = connection.execute(f"SELECT min(stage_key) FROM stage WHERE {which}", values).fetchone()
            if since is None:
                (since,) = connection.execute("SELECT coalesce(max(stage_key), 0) + 1 FROM stage").fetchone()
            if before is not None and before.mode == again.reuse:
                since = min(since, before.since)
            connection.execute("INSERT INTO anew VALUES (?, ?, ?)", (job_key, again.reuse, since))
        connection.execute(f"UPDATE stage SET superseded = 1 WHERE {which}", values)

    # Taken over

    def completed_before(self, job_key: int, stage: int, since: int) -> Iterator[Before]:
        """The completed tasks of the stage's plans that were set aside, from the plan *since* on, older ones first."""
        plans = self._rows(
            "SELECT first_key, task_count FROM stage WHERE job_key = ? AND stage = ? AND superseded <> 0"
            " AND stage_key >= ? ORDER BY stage_key",
            *(job_key, stage, since),
        )
        columns = "t.task_id, t.task_key - ?, t.task_type, coalesce(a.code, ''), t.parameters"
        sql = f"SELECT a.attempt_key, {columns} {COMPLETED} ORDER BY t.task_key"
        for first_key, count in plans:
            start, some, end = first_key, _FIRST_AT_ONCE, first_key + count
            while start < end:
                rows = self._rows(sql, first_key, start, min(start + some, end))
                yield from map(Before._make, rows)
                start += some
                longest = max((len(row[-1]) for row in rows), default=0) or 1
                some = max(1, min(_AT_ONCE, PIECE // longest))

    def _take_over(self, connection: Any, first_key: int, reused: Mapping[int, int]) -> None:
        """Complete the tasks at the places *reused* of a new plan, each with the result of an attempt."""
        if not reused:
            return
        self.make(connection, "reused")
        sources = self._sources(connection, list(reused.values()))
        keys = sorted(first_key + place for place in reused)
        attempts = [key * ATTEMPTS_PER_TASK + 1 for key in keys]
        rows = [(key, sources[reused[place - first_key]]) for key, place in zip(attempts, keys, strict=True)]
        self.insert_rows(connection, "reused", ("attempt_key", "source_key"), rows)
        connection.execute(_TAKEN_OVER, (attempts[0], attempts[-1]))
        self._move(connection, [Move("reuse", keys)])

    def _sources(self, connection: Any, attempts: Sequence[int]) -> dict[int, int]:
        """The attempts that ran, by those whose results are wanted: these may have been taken over themselves."""
        sources = {key: key for key in attempts}
        for start in range(0, len(attempts), _AT_ONCE):
            among = ", ".join(map(str, attempts[start : start + _AT_ONCE]))
            sql = f"SELECT attempt_key, source_key FROM reused WHERE attempt_key IN ({among})"
            sources.update(connection.execute(sql).fetchall())
        return sources
