"""Results that a plan takes over: which attempt's result a task was completed with, and what a job is planned anew for.

A geoflow that does not know their tables sees attempts that completed, and jobs that were run again.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args

from geoflow.core.rows import Again, Anew, Keyed, Move, Reusable, Reuse, StageRow, TakenOver
from geoflow.errors import ResultRemoved
from geoflow.stores.columns import ATTEMPTS_PER_TASK, last_attempt
from geoflow.stores.made_later import TABLES
from geoflow.stores.reading import COMPLETED
from geoflow.stores.sources import KeptSources
from geoflow.support.parcel import PIECE

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


class ReusedResults(KeptSources):
    """The part of a `geoflow.stores.store.Store` that knows whose results are others'."""

    @abc.abstractmethod
    def insert_rows(self, connection: Any, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    @abc.abstractmethod
    def _move(self, connection: Any, moves: Sequence[Move]) -> None: ...

    # Planned anew

    def anew(self, job_key: int) -> Anew | None:
        """What the job's plans are made anew for, if they are."""
        rows = self._rows("SELECT mode, since FROM anew WHERE job_key = ?", job_key) if self.has("anew") else []
        return next((Anew(mode, since) for mode, since in rows if mode in get_args(Reuse) and type(since) is int), None)

    def _set_aside(self, connection: Any, job_key: int, again: Again) -> None:
        """Set aside what is done over, and remember what for: a resume goes on with it."""
        before = self.anew(job_key)
        if self.has("anew"):
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

    # Known to later plans

    def _make_known(self, connection: Any, first_key: int, keyed: Sequence[Keyed]) -> None:
        if keyed:
            self.make(connection, "reusable")
            rows = [(first_key + place, digest, inputs) for place, digest, inputs in keyed]
            self.insert_rows(connection, "reusable", TABLES["reusable"], rows)

    def reusable(self, digests: Sequence[str], *, with_results: bool, naming: str) -> Iterator[Reusable]:
        """The completed tasks that are known by these digests, the newest first.

        Without results, these are empty but where the word *naming* is in them.
        """
        if not self.has("reusable"):
            return
        result = "a.result"
        if not with_results:  # text, since DuckDB has it as JSON, of which nothing can be empty
            text = "CAST(a.result AS VARCHAR)"
            result = f"CASE WHEN {text} LIKE '%{naming}%' THEN {text} ELSE '' END"
        for start in range(0, len(digests), _AT_ONCE):
            some = digests[start : start + _AT_ONCE]
            yield from map(
                Reusable._make,
                self._rows(
                    f"SELECT k.digest, a.attempt_key, coalesce(a.code, ''), k.inputs, a.ended_at, {result}"
                    f" FROM reusable k JOIN task t ON t.task_key = k.task_key JOIN {last_attempt()}"
                    f" WHERE k.digest IN ({', '.join('?' * len(some))}) AND t.status = 'completed'"
                    " ORDER BY a.attempt_key DESC",
                    *some,
                ),
            )

    def inputs(self, stage: StageRow) -> Iterator[str]:
        """What the stage's completed tasks had as inputs, of those that took over a result what that was made with."""
        if not self.has("reusable"):
            return
        source, joined = "t.task_key", ""
        if self.has("reused"):
            source = "coalesce(r.source_key >> 12, t.task_key)"
            joined = " LEFT JOIN reused r ON r.attempt_key = (t.task_key << 12) + t.attempt"
        sql = (
            f"SELECT k.inputs FROM task t{joined} JOIN reusable k ON k.task_key = {source}"
            " WHERE t.task_key >= ? AND t.task_key < ? AND t.status = 'completed'"
        )
        yield from (text for (text,) in self._of(stage, sql))

    def forget(self, job_type: str | None, before: float | None) -> int:
        """Have nothing taken over from tasks of this type of job, that ended *before* then; how many these are."""
        if not self.has("reusable"):
            return 0
        sql = (
            "SELECT t.task_key FROM reusable k JOIN task t ON t.task_key = k.task_key JOIN stage s USING (stage_key)"
            f" JOIN job j USING (job_key) LEFT JOIN {last_attempt()} WHERE (? IS NULL OR j.job_type = ?)"
            " AND (? IS NULL OR coalesce(a.ended_at, s.planned_at) < ?)"
        )
        with self._transaction() as connection:
            rows = connection.execute(sql, (job_type, job_type, before, before)).fetchall()
            for start in range(0, len(rows), _AT_ONCE):
                among = ", ".join(str(key) for (key,) in rows[start : start + _AT_ONCE])
                connection.execute(f"DELETE FROM reusable WHERE task_key IN ({among})")
        return len(rows)

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

    def _take_over(self, connection: Any, first_key: int, taken: TakenOver) -> None:
        """Complete the tasks of a new plan that have taken over a result, and have the others known to later plans."""
        self._make_known(connection, first_key, taken.keyed)
        if not (reused := taken.reused):
            return
        self.make(connection, "reused")
        sources = self._sources(connection, list(reused.values()))
        keys = sorted(first_key + place for place in reused)
        attempts = [key * ATTEMPTS_PER_TASK + 1 for key in keys]
        if len(sources) < len(set(reused.values())):
            raise ResultRemoved("A result that was to be taken over was removed meanwhile: nothing was planned.")
        rows = [(key, sources[reused[place - first_key]]) for key, place in zip(attempts, keys, strict=True)]
        self.insert_rows(connection, "reused", ("attempt_key", "source_key"), rows)
        connection.execute(_TAKEN_OVER, (attempts[0], attempts[-1]))
        self._move(connection, [Move("reuse", keys)])

    def _sources(self, connection: Any, attempts: Sequence[int]) -> dict[int, int]:
        """The attempts that ran, by those whose results are wanted, less those that are gone.

        These may have been taken over themselves.
        """
        sources: dict[int, int] = {}
        for start in range(0, len(attempts), _AT_ONCE):
            among = ", ".join(map(str, attempts[start : start + _AT_ONCE]))
            sql = f"SELECT attempt_key, attempt_key FROM attempt WHERE attempt_key IN ({among})"
            sources.update(connection.execute(sql).fetchall())
            sql = (
                "SELECT r.attempt_key, r.source_key FROM reused r JOIN attempt a ON a.attempt_key = r.source_key"
                f" WHERE r.attempt_key IN ({among}) AND a.outcome = 'completed'"
            )
            sources.update(connection.execute(sql).fetchall())
        return sources
