"""Stores of each kind, and jobs in them in whatever state a test needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from geoflow.core.batch import Batch, Completed, NewTasks
from geoflow.core.models import Attempt, Failure
from geoflow.core.rows import JobRow, Lease, Move, NewJob, StageRow, Take
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.sqlite import SqliteStore
from geoflow.stores.store import Store

DUCKDB = "duckdb in a file"
STORES: dict[str, Callable[[Path], Store]] = {
    "sqlite in memory": lambda folder: SqliteStore(":memory:"),
    "sqlite in a file": lambda folder: SqliteStore(folder / "work.db"),
    DUCKDB: lambda folder: DuckDbStore(folder / "work.duckdb"),
}
NOW = 1_700_000_000.25
OWNER = json.dumps({"pid": 4242, "since": "2024-01-01T00:00:00+00:00"})
STAGES = json.dumps(
    [
        {"number": 1, "name": "scan", "task_type": "scan_it", "parallelism": "single"},
        {"number": 2, "name": "stat", "task_type": "stat_it", "parallelism": "fan_out"},
    ]
)
WRONG = Failure("no such tile", "OSError", "transient", True, "Traceback: here")
NASTY = [
    "it's \"quoted\" and `ticked`; it\\'s",
    "'; DROP TABLE job; --",
    "Robert'); DELETE FROM attempt WHERE ('1'='1",
    "<script>alert('x')</script> &amp; <b>",
    "%_[a-z]*?\\%",
    "line\nline\r\nline\ttab\x00nul\x1b[31mred\x7f\x85\u2028\u202e",
    "emoji 👩‍🚀🌍 and é, e\u0301, 𝕏, ﷽",
    ":name ?1 @at $dollar {brace} %s %(x)s",
    " leading and trailing ",
    "",
]
_numbers = count(1)


def emptied(store: DuckDbStore) -> None:
    """Have nothing in a store: to open a new DuckDB file takes longer than most of what is then done to it."""
    with store._transaction() as connection:
        for table in ("attempt", "task", "stage", "job"):
            connection.execute(f"DELETE FROM {table}")
        if store.has("events"):
            connection.execute("DELETE FROM events")
    store._open_file().epochs.clear()


def new_job(job_id: str | None = None, **fields: Any) -> NewJob:
    made = NewJob(job_id or f"{next(_numbers):064x}", "tiles", STAGES, '{"folder":"data"}', NOW)
    return made._replace(**fields)


def created(store: Store) -> JobRow:
    row, _ = store.create(new_job())
    return row


def started(store: Store) -> Lease:
    """A job that is claimed and processing."""
    lease = store.claim(created(store).job_key, OWNER)
    store.change_job(lease, "start", now=NOW)
    return lease


def new_tasks(*names: str) -> NewTasks:
    return NewTasks.of(*((name, "scan_it", f'{{"name":"{name}"}}', None) for name in names))


def planned(store: Store, tasks: int = 3, stage: int = 1) -> tuple[Lease, StageRow]:
    lease = started(store)
    return lease, store.plan(lease, stage, new_tasks(*(f"s{stage}-{n}" for n in range(tasks))), now=NOW)


def ended(
    key: int, number: int = 1, outcome: str = "completed", failure: Failure | None = None, **fields: Any
) -> Attempt:
    result = '{"success":true,"result":{"n":1}}' if outcome == "completed" else None
    made = Attempt(key, number, outcome, NOW + 1, NOW + 3, 0.5, 10**8, result, failure, slot=1, pid=77, code="c1")
    return made._replace(**fields)


def complete(store: Store, lease: Lease, keys: Sequence[int], number: int = 1) -> None:
    store.commit(lease, [Move("start", keys)], [])
    store.commit(lease, [Move("complete", keys)], [ended(key, number) for key in keys])


def finished(keys: Sequence[int], number: int = 1, **fields: Any) -> Completed:
    """What `ended` says of each of *keys*, together."""
    many, result = len(keys), '{"success":true,"result":{"n":1}}'
    made = Completed(
        number, 1, 77, "c1", 10**8, keys, [NOW + 1] * many, [NOW + 3] * many, [0.5] * many, [result] * many
    )
    return made._replace(**fields)


def take(
    store: Store, lease: Lease, stage: StageRow, *sizes: int, groups: Sequence[Sequence[int]] = (), after: int = 0
) -> list[Batch]:
    return store.commit(lease, [], [], (), Take(stage, groups, after, sizes))


def places(stage: StageRow, batches: Sequence[Batch]) -> list[list[int]]:
    """The tasks of each batch, numbered from the stage's first one."""
    return [[key - stage.first_key for key in batch.keys] for batch in batches]


def select(store: Store, sql: str) -> list[tuple[Any, ...]]:
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(sql).fetchall()]


def finalize_rows(store: Store, lease: Lease) -> list[list[Any]]:
    """What finalize is told, task by task."""
    return [list(row) for text in store.finalize_rows(lease.job_key) for row in zip(*json.loads(text), strict=True)]


def results(store: Store, stage: StageRow) -> list[str]:
    """The results of the stage's completed tasks, one by one, in JSON texts without blanks."""
    return [json.dumps(each, separators=(",", ":")) for some in store.results(stage) for each in json.loads(some.text)]


def everything(store: Store) -> list[Any]:
    """All that the store's views show: what a refused change must leave as it was."""
    return [
        sorted(map(repr, select(store, f"SELECT * FROM {view}"))) for view in ("jobs", "stages", "tasks", "attempts")
    ]


def again(store: Store, lease: Lease) -> JobRow:
    row = store.job(lease.job_id)
    assert row is not None
    return row
