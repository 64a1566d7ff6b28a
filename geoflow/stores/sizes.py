"""How much each job takes of its store: the bytes of what it was given, of what it gave, and of what it told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from geoflow.stores.store import Store

_OF_TASKS = "FROM task t JOIN stage s ON s.stage_key = t.stage_key"
_OF_ATTEMPTS = (
    f"FROM attempt a JOIN task t ON t.task_key = a.attempt_key >> 12 {_OF_TASKS.removeprefix('FROM task t ')}"
)


class JobSize(NamedTuple):
    """A job with its number of tasks, and how many bytes of text it has: all its attempts, older plans included.

    ``printed`` is what its attempts printed, with errors and tracebacks.
    """

    job_id: str
    job_type: str
    tasks: int
    parameters: int
    results: int
    printed: int

    @property
    def total(self) -> int:
        return self.parameters + self.results + self.printed


def job_sizes(store: Store) -> list[JobSize]:
    """All jobs, oldest first. Every text is looked at: it takes a second for each gigabyte or so."""

    def length(*columns: str) -> str:
        return " + ".join(f"coalesce({store._BYTES.format(column)}, 0)" for column in columns)

    def by_job(connection: Any, what: str, joined: str) -> dict[int, tuple[int, ...]]:
        rows = connection.execute(f"SELECT s.job_key, {what} {joined} GROUP BY s.job_key").fetchall()
        return {key: tuple(map(int, sums)) for key, *sums in rows}

    def sized(connection: Any) -> Iterator[JobSize]:
        given = by_job(connection, f"count(*), sum({length('t.parameters', 't.metadata')})", _OF_TASKS)
        told = length("a.output", "a.error", "a.traceback")
        gave = by_job(connection, f"sum({length('a.result')}), sum({told})", _OF_ATTEMPTS)
        own = f"{length('parameters', 'stages')}, {length('result')}, {length('error', 'traceback')}"
        for key, job_id, job_type, *sizes in connection.execute(
            f"SELECT job_key, job_id, job_type, {own} FROM job ORDER BY job_key"
        ).fetchall():
            tasks, parameters = given.get(key, (0, 0))
            results, printed = gave.get(key, (0, 0))
            yield JobSize(job_id, job_type, tasks, sizes[0] + parameters, sizes[1] + results, sizes[2] + printed)

    with store.reading() as connection:
        return list(sized(connection))
