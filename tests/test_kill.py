"""A process that drives a large job is killed without warning, several times; the job ends as if nothing had been."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

from conftest import OpenSession, Trace, rows, wait_until

TASKS = 10_000
DRIVER = """
    import sys
    sys.path.insert(0, {here!r})
    import jobs
    import geoflow as gf

    session = gf.open({store!r}, workers=2, display="none")
    session.register(jobs)
    job = session.submit("acts", tasks=[{{"trace": {trace!r}}}] * {tasks})
    (job.resume() if job.receipt.status == "already_exists" else job).wait()
    session.close()
"""


def test_S37_a_job_of_10000_tasks_survives_kills_and_runs_no_completed_task_again(
    open_session: OpenSession, tmp_path: Path, trace: Trace
) -> None:
    store = tmp_path / "work.db"
    code = DRIVER.format(here=str(Path(__file__).parent), store=str(store), trace=trace.path, tasks=TASKS)
    chance = random.Random(11)
    kept: list[tuple[set[str], Counter[str]]] = []
    session = open_session(store)
    for kill in range(4):
        driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
        _wait_for_lines(trace, len(trace.lines()) + chance.randint(1, TASKS // 6), driver)
        driver.kill()
        driver.wait()
        completed = {row[0] for row in rows(session, "SELECT task_id FROM tasks WHERE status = 'completed'")}
        kept.append((completed, Counter(line.split()[0] for line in trace.lines())))
        assert kill == 0 or len(completed) >= len(kept[-2][0])
    (job,) = session.resume()
    assert job.wait(timeout=120).result()["completed"] == TASKS
    runs = Counter(line.split()[0] for line in trace.lines())
    for completed, ran_by_then in kept:
        assert all(runs[task] == ran_by_then[task] for task in completed)
    attempts = dict(rows(session, "SELECT task_id, count(*) FROM attempts GROUP BY 1"))
    assert all(runs[task] <= attempts[task] for task in runs)
    assert rows(session, "SELECT count(*) FROM attempts WHERE outcome = 'completed'") == [(TASKS,)]
    assert rows(session, "SELECT count(*) FROM attempts WHERE outcome NOT IN ('completed', 'lost')") == [(0,)]
    assert rows(session, "PRAGMA integrity_check") == [("ok",)]


def _wait_for_lines(trace: Trace, count: int, driver: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: len(trace.lines()) > count or driver.poll() is not None)
