"""How many rows a second each store writes, with no engine around it."""

import time
from functools import partial

from benchmarks.parts.run import Run
from benchmarks.tasks import alternated, timed
from geoflow.core.batch import Completed, NewTasks
from geoflow.core.rows import Lease, Move, NewJob
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.sqlite import SqliteStore
from geoflow.stores.store import Store

TASKS, IN_A_COMMIT = 50_000, 1_000
STAGES = '[{"number":1,"name":"noop","task_type":"noop","parallelism":"single"}]'


def writes(run: Run) -> None:
    """rows a second that each store writes: tasks planned, attempts committed by the thousand"""
    for turn in range(run.rounds):
        stores: dict[str, Store] = {
            "SQLite": SqliteStore(run.folder / f"{turn}.db"),
            "DuckDB": DuckDbStore(run.folder / f"{turn}.duckdb"),
        }
        leases = {name: _started(store) for name, store in stores.items()}
        for what, write in {"tasks": _plan, "attempts": _complete}.items():
            acts = {name: partial(write, store, leases[name]) for name, store in stores.items()}
            seconds = alternated(turn, {name: partial(timed, act) for name, act in acts.items()})
            for name, taken in seconds.items():
                run.figures.add("writes", f"{what}, {name}", TASKS / taken, "rows/s")
            run.figures.add("writes", f"{what}, DuckDB / SQLite", seconds["SQLite"] / seconds["DuckDB"], at_least=0.5)
        for store in stores.values():
            store.close()


def _started(store: Store) -> Lease:
    """A new job that may be written to."""
    row, _ = store.create(NewJob("0" * 64, "noop", STAGES, "{}", time.time()))
    lease = store.claim(row.job_key, "{}")
    store.change_job(lease, "start", now=time.time())
    return lease


def _plan(store: Store, lease: Lease) -> None:
    ids = [f"{index:07d}" for index in range(TASKS)]
    parameters = [f'{{"index":{index}}}' for index in range(TASKS)]
    store.plan(lease, 1, NewTasks(ids, ["noop"] * TASKS, parameters, [None] * TASKS), now=time.time())


def _complete(store: Store, lease: Lease) -> None:
    """Start and complete all tasks: two changes of each task's row, and one attempt."""
    [stage] = store.stages(lease.job_key)
    now = time.time()
    for first in range(stage.first_key, stage.end_key, IN_A_COMMIT):
        keys = range(first, min(first + IN_A_COMMIT, stage.end_key))
        store.commit(lease, [Move("start", keys)], [])
        n = len(keys)
        columns = [now] * n, [now] * n, [0.0] * n, ['{"success":true}'] * n
        store.commit(lease, [Move("complete", keys)], [], [Completed(1, 0, 1, "code", 10**8, keys, *columns)])
