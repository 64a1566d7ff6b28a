"""A kernel is killed again and again, at any moment, and resumed each time: nothing is lost, nothing is done twice.

Five kills, more where more is tried (`profiles`), or as many as the environment variable ``GEOFLOW_KILLS`` says.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.faults.driving import Start, wait_until_gone
from tests.helpers.sessions import Trace

KILLS = int(os.environ.get("GEOFLOW_KILLS") or min(max(settings().max_examples // 15, 5), 50))
TASKS = 300
# Most tasks take no time, some do, some fail at first, and one in a hundred kills its worker in its first attempt.
WORKS = """
import random
chance = random.Random(int(sys.argv[2]))
def task():
    odd = chance.random()
    trace = {"trace": sys.argv[3]}
    if odd < 0.01:
        return {"do": "signal", "value": "SIGKILL", "until_attempt": 2, **trace}
    if odd < 0.1:
        return {"do": "raise", "value": "OSError", "until_attempt": 2, **trace}
    return {"do": "sleep", "value": 0.004 if odd < 0.5 else 0, **trace}

say("ready")
first, second = ([task() for _ in range(%d)] for _ in range(2))
job = session.submit("two_acts", tasks=first, tasks_2=second, n=int(sys.argv[2]))
if job.receipt.status == "already_exists":
    job.resume()
say(job.wait().status)
"""


@pytest.mark.slow
def test_F011_a_kernel_killed_at_random_moments_loses_no_task_and_runs_no_completed_one_again(
    start: Start, store: Path, tmp_path: Path
) -> None:
    """Each execution leaves a line in a file that outlives all; it is compared with what was committed at each kill."""
    chance = random.Random(17)
    kills = jobs = again = 0
    began = time.monotonic()
    while kills < KILLS:
        jobs += 1
        trace = Trace(tmp_path / f"trace-{jobs}")
        kept: list[tuple[set[str], Counter[str]]] = []
        while True:
            kernel = start(WORKS % (TASKS // 2), jobs, trace.path)
            assert kernel.hears() == "ready"
            if kills == KILLS:
                assert kernel.hears() == "completed"
                kernel.ends()
                break
            if kernel.killed_after(chance.uniform(0.0, 0.8)):
                kills += 1
                kept.append((completed_tasks(store, jobs), executions(trace)))
            elif len(completed_tasks(store, jobs)) == TASKS:
                break
        done, runs = completed_tasks(store, jobs), executions(trace)
        assert done == set(runs), "none is lost"
        assert len(done) == TASKS
        for completed, ran_by_then in kept:
            assert {task: runs[task] for task in completed} == {task: ran_by_then[task] for task in completed}
        recorded = Counter(
            dict(select(store, f"SELECT task_id, count(*) FROM attempts WHERE job_key = {jobs} GROUP BY 1"))
        )
        assert runs <= recorded, "each execution is on record"
        again += sum(runs.values()) - TASKS
    wait_until_gone({pid for (pid,) in select(store, "SELECT DISTINCT pid FROM attempts WHERE pid IS NOT NULL")})
    assert select(store, "SELECT DISTINCT status FROM jobs") == [("completed",)]
    ((failed,),) = select(store, "SELECT count(*) FROM attempts WHERE outcome = 'failed'")
    seconds = time.monotonic() - began
    print(f"{kills} kills, {jobs} jobs of {TASKS} tasks, {seconds:.0f} s: nothing lost, no completed task run again,")
    print(f"{again - failed} executions repeated since a kill came before they were committed")  # pytest -s shows it


def select(store: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return connection.execute(sql).fetchall()


def completed_tasks(store: Path, job_key: int) -> set[str]:
    """Those whose completion is committed, in a store that is whole; none where the kill came before its tables."""
    assert select(store, "PRAGMA integrity_check") == [("ok",)]
    if not select(store, "SELECT 1 FROM sqlite_master WHERE name = 'tasks'"):
        return set()
    return {
        name
        for (name,) in select(store, f"SELECT task_id FROM tasks WHERE job_key = {job_key} AND status = 'completed'")
    }


def executions(trace: Trace) -> Counter[str]:
    return Counter(line.split()[0] for line in trace.lines())
