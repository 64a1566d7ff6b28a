"""A process that drives a large job is killed without warning, several times; the job ends as if nothing had been."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from geoflow.stores.opening import is_duckdb
from tests.helpers.profiles import is_thorough
from tests.helpers.sessions import ROOT, OpenSession, Trace, check_intact, rows
from tests.helpers.waiting import wait_until

DRIVER = """
    import sys
    sys.path.insert(0, {root!r})
    from tests.helpers import jobs
    import geoflow as gf

    session = gf.open({store!r}, workers=2, display="none")
    session.register(jobs)
    job = session.submit("acts", tasks=[{{"trace": {trace!r}}}] * {tasks})
    (job.resume() if job.receipt.status == "already_exists" else job).wait()
    session.close()
"""


@pytest.mark.on_duckdb
def test_S37_a_large_job_survives_kills_and_runs_no_completed_task_again(
    open_session: OpenSession, tmp_path: Path, store_name: str, trace: Trace, request: pytest.FixtureRequest
) -> None:
    tasks = (3_000 if is_duckdb(store_name) else 10_000) // (1 if is_thorough(request.config) else 4)
    store = tmp_path / store_name
    code = DRIVER.format(root=ROOT, store=str(store), trace=trace.path, tasks=tasks)
    chance = random.Random(11)
    kept: list[tuple[set[str], Counter[str]]] = []
    for kill in range(4):
        driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
        _wait_for_lines(trace, len(trace.lines()) + chance.randint(1, tasks // 6), driver)
        driver.kill()
        driver.wait()
        with open_session() as session:
            completed = {row[0] for row in rows(session, "SELECT task_id FROM tasks WHERE status = 'completed'")}
        kept.append((completed, Counter(line.split()[0] for line in trace.lines())))
        assert kill == 0 or len(completed) >= len(kept[-2][0])
    session = open_session()
    job = session.submit("acts", tasks=[{"trace": trace.path}] * tasks, on_existing="resume")  # it may have ended
    assert job.wait(timeout=120).result()["completed"] == tasks
    runs = Counter(line.split()[0] for line in trace.lines())
    for completed, ran_by_then in kept:
        assert all(runs[task] == ran_by_then[task] for task in completed)
    attempts = dict(rows(session, "SELECT task_id, count(*) FROM attempts GROUP BY 1"))
    assert all(runs[task] <= attempts[task] for task in runs)
    assert sum(runs.values()) - tasks <= 2 * 4, "of each worker the call that it was at when it was killed"
    assert rows(session, "SELECT count(*) FROM attempts WHERE outcome = 'completed'") == [(tasks,)]
    assert rows(session, "SELECT count(*) FROM attempts WHERE outcome NOT IN ('completed', 'lost')") == [(0,)]
    check_intact(session.store)


def _wait_for_lines(trace: Trace, count: int, driver: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: len(trace.lines()) > count or driver.poll() is not None)
