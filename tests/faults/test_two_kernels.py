"""Two kernels and one store: one drives a job, the other is told who does, and nothing is done twice."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

import geoflow as gf
from geoflow.errors import LeaseLost, StoreBusy
from tests.faults.driving import SECONDS, Start, busy_workers, check_store, told, wait_until_gone
from tests.helpers.sessions import OpenSession, Trace, rows
from tests.helpers.waiting import wait_until

# A job of the kernel's, which hangs until the file "go on" is there.
HOLDS = """
def act(params, context):
    with open(params["trace"], "a") as file:
        file.write(f"{context.task_id} {context.attempt}\\n")
    while not os.path.exists(params["go_on"]):
        time.sleep(0.01)
    return {"success": True, "result": {}}

class Mine(jobs.Acts):
    job_type = "mine"

session.register(Mine, {"act": act})
job = session.submit("mine", tasks=[{"trace": sys.argv[2], "go_on": sys.argv[3]}] * 3)
wait_until(lambda: len(lines(sys.argv[2])) == 4)
say(job.id)
say(job.wait().status)
"""


def test_F101_a_second_kernel_finds_the_job_is_told_who_drives_it_and_waits_for_its_end(
    open_session: OpenSession, start: Start, trace: Trace, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    kernel = start(HOLDS, trace.path, go_on)
    job_id = kernel.hears()
    session = open_session()
    job = session.job(job_id)
    since = r"since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d"
    session.register(_mine(), {"act": _never})
    for take in (job.resume, job.rerun):
        with pytest.raises(StoreBusy, match=rf"Job {job_id[:8]} is driven by process {kernel.pid}, {since}"):
            take()
    assert session.resume() == []
    again = session.submit("mine", tasks=[{"trace": trace.path, "go_on": str(go_on)}] * 3)
    assert again.id == job_id
    assert again.receipt is not None
    assert (again.receipt.status, again.receipt.existing_status) == ("already_exists", "processing")
    assert not job.interrupted
    go_on.touch()
    assert job.wait(timeout=SECONDS).status == "completed"
    assert kernel.hears() == "completed"
    kernel.ends()
    assert rows(session, "SELECT outcome, count(*) FROM attempts GROUP BY 1") == [("completed", 3)]
    assert sorted(trace.lines()) == ["s1-t0 1", "s1-t1 1", "s1-t2 1"]


def _mine() -> type:
    from tests.helpers import jobs

    return type("Mine", (jobs.Acts,), {"job_type": "mine", "__module__": "__main__"})


def _never(params: dict[str, object]) -> dict[str, object]:
    raise AssertionError("the other kernel's code runs")


def test_F102_a_kernel_that_is_stopped_is_not_taken_over_and_goes_on_when_it_may(
    open_session: OpenSession, start: Start, trace: Trace, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    kernel = start(HOLDS, trace.path, go_on)
    job_id = kernel.hears()
    kernel.stops()
    session = open_session()
    session.register(_mine(), {"act": _never})
    job = session.job(job_id)
    assert session.resume() == []
    with pytest.raises(StoreBusy, match=str(kernel.pid)):
        job.resume()
    go_on.touch()  # its workers end meanwhile, and nobody takes their answers
    with pytest.raises(TimeoutError, match="it goes on elsewhere"):
        pytest.fail(f"{job.wait(timeout=0.2)!r}\nThe kernel: {kernel.states()}, driven by {job.runtime.driver(job.id)}")
    kernel.signal(signal.SIGCONT)
    assert job.wait(timeout=SECONDS).status == "completed"
    assert kernel.hears() == "completed"
    assert rows(session, "SELECT outcome, attempt, count(*) FROM attempts GROUP BY 1, 2") == [("completed", 1, 3)]


def test_F102_a_kernel_whose_job_was_taken_from_it_writes_no_more_and_ends_its_workers(
    open_session: OpenSession, start: Start, trace: Trace, tmp_path: Path, store: Path
) -> None:
    """It takes force to get there: the lock file must be removed, as a user does who takes it for a remnant."""
    session = open_session(max_retries=1, base_delay=0.01)
    job = session.submit("acts", tasks=[{"do": "hang", "until_attempt": 2, "trace": trace.path}, {}])
    wait_until(lambda: "s1-t0 1" in trace.lines())
    wait_until(lambda: rows(session, "SELECT task_id FROM tasks WHERE status = 'completed'") == [("s1-t1",)])
    wait_until(lambda: len(busy_workers(session)) == 1)  # the other one is not to blame, and stays
    workers = busy_workers(session)
    store.with_name(".work.db.lock").unlink()
    code = """
job = session.job(session.store.jobs()[0].job_id)
say(job.resume().wait().status)
hear()
"""
    kernel = start(code)
    assert kernel.hears() == "completed"
    run = session.runtime.active[job.id]
    assert job.cancel().wait(timeout=SECONDS).status == "completed", "it ended over there"
    assert isinstance(run.error, LeaseLost)
    assert "was taken over by another session; this one has stopped driving it" in str(run.error)
    wait_until_gone(workers, seconds=2)
    outcomes = rows(session, "SELECT attempt, outcome FROM attempts WHERE task_id = 's1-t0' ORDER BY 1")
    assert outcomes == [(1, "lost"), (2, "completed")]
    check_store(session)
    kernel.tell()
    kernel.ends()


SAME = """
say("ready")
hear()
job = session.submit("three_acts", tasks=[{"trace": sys.argv[2], "value": n} for n in range(3)])
say(job.receipt.status, job.wait().status)
"""


def test_F061_five_kernels_with_workers_that_submit_one_job_at_once_run_it_once(
    open_session: OpenSession, start: Start, trace: Trace
) -> None:
    kernels = [start(SAME, trace.path) for _ in range(5)]
    for kernel in kernels:
        assert kernel.hears() == "ready"
    for kernel in kernels:
        kernel.tell()
    said = Counter(kernel.hears() for kernel in kernels)
    assert said == {"created completed": 1, "already_exists completed": 4}
    for kernel in kernels:
        kernel.ends()
    assert sorted(trace.lines()) == ["s1-t0 1", "s1-t1 1", "s1-t2 1"]
    session = open_session()
    assert rows(session, "SELECT outcome, count(*), count(DISTINCT task_id) FROM attempts GROUP BY 1") == [
        ("completed", 7, 7)
    ]


def test_F112_two_kernels_that_resume_the_jobs_of_a_killed_one_at_once_share_them(
    open_session: OpenSession, start: Start, tmp_path: Path, trace: Trace
) -> None:
    pids = tmp_path / "pids"
    begin = """
hang = {"do": "pid then hang", "value": sys.argv[2]}
for n in range(6):
    session.submit("acts", tasks=[{"trace": sys.argv[3], "value": n, "do": "sleep", "value": 0.01}] * 3, n=n)
session.submit("acts", tasks=[hang, hang])
wait_until(lambda: lines(sys.argv[2]))
say("busy")
hear()
"""
    kernel = start(begin, pids, trace.path)
    assert kernel.hears() == "busy"
    kernel.kill()
    wait_until_gone(told(pids), seconds=5)
    resume = """
say("ready")
hear()
resumed = [job for job in session.resume()]
hanging = [job for job in resumed if "pid then hang" in str(job.parameters)]
for job in hanging:
    job.cancel()
say(len(resumed), *sorted({job.wait().status.value for job in resumed}))
"""
    kernels = [start(resume) for _ in range(2)]
    for kernel in kernels:
        assert kernel.hears() == "ready"
    for kernel in kernels:
        kernel.tell()
    for kernel in kernels:
        kernel.hears()
        kernel.ends()
    session = open_session()
    assert rows(session, "SELECT status, count(*) FROM jobs GROUP BY 1 ORDER BY 1") == [
        ("cancelled", 1),
        ("completed", 6),
    ]
    lost = rows(session, "SELECT count(*) FROM attempts WHERE outcome = 'lost'")[0][0]
    assert len(trace.lines()) <= 18 + lost
    check_store(session)


def test_F084_a_job_waits_for_another_process_that_holds_the_store_and_then_goes_on(
    faulty: OpenSession, store: Path, trace: Trace
) -> None:
    session = faulty()
    job = session.submit("acts", tasks=[{"do": "sleep", "value": 0.01, "trace": trace.path}] * 30)
    wait_until(lambda: len(trace.lines()) > 3)
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TimeoutError):
            job.wait(timeout=0.5)
        done = len(trace.lines())
        other.execute("ROLLBACK")
    assert done < 30
    assert job.wait(timeout=SECONDS).status == "completed"
    assert rows(session, "SELECT outcome, attempt, count(*) FROM attempts GROUP BY 1, 2") == [("completed", 1, 30)]


def test_F120_many_jobs_that_many_threads_submit_at_once_all_end(faulty: OpenSession) -> None:
    session = faulty()
    handles: list[gf.JobHandle] = []

    def submit(thread: int) -> None:
        handles.extend(session.submit("acts", tasks=[{"value": thread}, {}], n=n) for n in range(6))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {job.wait(timeout=SECONDS).status for job in handles} == {"completed"}
    assert rows(session, "SELECT count(*) FROM jobs") == [(48,)]
    assert rows(session, "SELECT outcome, attempt, count(*) FROM attempts GROUP BY 1, 2") == [("completed", 1, 96)]
