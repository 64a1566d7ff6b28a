"""What is done to the process that drives: signals, kills, exits, forks, limits. Workers end, jobs can be resumed."""

from __future__ import annotations

import gc
import os
import random
import signal
import struct
import subprocess
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.executors.worker_process import _cut_off
from tests.faults.driving import SECONDS, Start, check_aftermath, check_store, told, wait_until_gone, workers_of
from tests.helpers.sessions import OpenSession, Trace, rows
from tests.helpers.waiting import is_running, wait_until

# A task that notes its worker, and hangs there in its first attempt alone; and a job that is begun when it does.
BUSY = """
pids = sys.argv[2]
hang = {"do": "pid then hang", "value": pids, "until_attempt": 2}
job = session.submit("acts", tasks=[hang, {}, {}])
completed = "SELECT count(*) FROM tasks WHERE job_id = ? AND status = 'completed'"
wait_until(lambda: lines(pids) and rows(session, completed, job.id) == [(2,)])
say("busy")
"""


def check_resumed(
    open_session: OpenSession, pids: Path, outcomes: list[tuple[str, int]], charged: int | None = None
) -> None:
    """The workers are gone, and another session finishes the job."""
    wait_until_gone(told(pids), seconds=5)
    session = open_session()
    (job,) = session.resume()
    assert job.wait(timeout=SECONDS).status == "completed"
    assert rows(session, "SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1") == outcomes
    assert rows(session, "SELECT max(retries) FROM tasks WHERE task_id = 's1-t0'") == [(charged or 0,)]
    check_aftermath(session)


# Ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_F013_a_signal_to_end_takes_the_workers_along_and_the_job_is_resumed(
    open_session: OpenSession, start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    pids = tmp_path / "pids"
    kernel = start(BUSY + "job.wait()", pids)
    assert kernel.hears() == "busy"
    kernel.signal(number)
    kernel.ends(-number)
    check_resumed(open_session, pids, [("completed", 3), ("lost", 1)])


def test_F113_a_kill_of_the_kernels_whole_group_takes_the_workers_along(
    open_session: OpenSession, start: Start, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    kernel = start(BUSY + "job.wait()", pids)
    assert kernel.hears() == "busy"
    kernel.signal_group(signal.SIGKILL)
    kernel.ends(-signal.SIGKILL)
    check_resumed(open_session, pids, [("completed", 3), ("lost", 1)])


@pytest.mark.parametrize("do", ["hang in c", "signal", "hang deaf"])
def test_F113_workers_that_hear_nothing_end_with_a_kernel_that_is_killed(
    start: Start, trace: Trace, store: Path, do: str
) -> None:
    task = {"do": do, "value": "SIGSTOP", "trace": trace.path}
    code = f"""
job = session.submit("acts", tasks=[{task}])
wait_until(lambda: lines({trace.path!r}))
say([slot._mark.read().pid for slot in session.runtime.executor._slots if slot.chunks][0])
job.wait()
"""
    kernel = start(code)
    worker = int(kernel.hears())
    assert is_running(worker)
    kernel.kill()
    wait_until_gone({worker}, seconds=2)


def test_F114_without_the_reaper_the_kernel_goes_on_and_ends_its_workers_itself(
    open_session: OpenSession, start: Start, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    code = """
reaper = session.runtime.executor._lifeline._reaper
reaper.kill()
reaper.wait()
say(session.run("acts", tasks=[{"do": "signal", "value": "SIGKILL", "until_attempt": 2}, {}]).status)
hear()
"""
    kernel = start(BUSY + code, pids)
    assert kernel.hears() == "busy"
    assert kernel.hears() == "completed"
    kernel.tell()
    kernel.ends()
    check_resumed(open_session, pids, [("completed", 5), ("failed", 1), ("interrupted", 1)], charged=1)


@pytest.mark.parametrize("how", ["raise SystemExit(7)", "raise RuntimeError", "os._exit(7)"])
def test_F016_however_the_interpreter_ends_it_ends_and_the_job_is_resumed(
    open_session: OpenSession, start: Start, tmp_path: Path, how: str
) -> None:
    pids = tmp_path / "pids"
    kernel = start(BUSY + how, pids)
    assert kernel.hears() == "busy"
    kernel.ends(1 if "RuntimeError" in how else 7)
    outcome = "lost" if "_exit" in how else "interrupted"
    check_resumed(open_session, pids, [("completed", 3), (outcome, 1)])


# Interrupts, which a notebook server sends to the whole group


def test_F108_an_interrupt_while_idle_costs_no_worker(start: Start) -> None:
    code = """
session.run("acts", tasks=[{"do": "sleep", "value": 0.05}] * 4)
def workers():
    with session.store.reading() as connection:
        return sorted(pid for (pid,) in connection.execute("SELECT DISTINCT pid FROM attempts"))
before = workers()
try:
    say("idle")
    time.sleep(60)
except KeyboardInterrupt:
    pass
session.run("acts", tasks=[{"do": "sleep", "value": 0.06}] * 4)
say(workers() == before)
"""
    kernel = start(code)
    assert kernel.hears() == "idle"
    kernel.signal_group(signal.SIGINT)
    assert kernel.hears() == "True"
    kernel.ends()


def test_F108_an_interrupt_of_wait_leaves_the_job_running_and_fails_no_task(start: Start, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    code = """
def act(params):
    while not os.path.exists(params["go_on"]):
        time.sleep(0.01)
    return {"success": True, "result": {}}

class Mine(jobs.Acts):
    job_type = "mine"

session.register(Mine, {"act": act})
job = session.submit("mine", tasks=[{"go_on": sys.argv[2]}] * 2)
try:
    say("waiting")
    job.wait()
except KeyboardInterrupt:
    say(job.status in ("queued", "processing"))
hear()
say(job.wait().status, len(job.errors()))
"""
    kernel = start(code, go_on)
    assert kernel.hears() == "waiting"
    kernel.signal_group(signal.SIGINT)
    assert kernel.hears() == "True"
    go_on.touch()
    kernel.tell()
    assert kernel.hears() == "completed 0"
    kernel.ends()


@pytest.mark.parametrize("what", ["plan", "finalize"])
def test_F108_an_interrupt_of_run_during_a_plan_or_finalize_puts_the_job_back(
    open_session: OpenSession, start: Start, what: str
) -> None:
    code = f"""
import threading
def when_busy():
    wait_until(lambda: any(slot._mark.read().position > 0 and slot.chunks and slot.chunks[0].kind == {what!r}
                           for slot in session.runtime.executor._slots))
    say([slot._mark.read().pid for slot in session.runtime.executor._slots if slot.chunks][0])
threading.Thread(target=when_busy).start()
try:
    session.run("acts", tasks=[{{}}, {{}}], {what}="hang")
except KeyboardInterrupt:
    say("interrupted")
job = session.job(session.store.jobs()[0].job_id)
say(job.status, job.interrupted)
"""
    kernel = start(code)
    worker = int(kernel.hears())
    kernel.signal_group(signal.SIGINT)
    assert kernel.hears() == "interrupted"
    assert kernel.hears() == "queued True"
    kernel.ends()
    wait_until_gone({worker}, seconds=5)
    session = open_session()
    assert rows(session, "SELECT outcome FROM attempts") == [("completed",)] * (0 if what == "plan" else 2)
    check_store(session)


def test_F109_two_interrupts_in_a_row_leave_a_job_that_can_be_resumed(
    open_session: OpenSession, start: Start, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    kernel = start(BUSY + "session.follow(job)", pids)
    assert kernel.hears() == "busy"
    kernel.signal_group(signal.SIGINT)
    kernel.signal_group(signal.SIGINT)
    wait_until(kernel.has_ended)
    kernel.kill()
    wait_until_gone(told(pids), seconds=5)
    session = open_session()
    (job,) = session.resume()
    assert job.wait(timeout=SECONDS).status == "completed"
    assert rows(session, "SELECT sum(retries) FROM tasks") == [(0,)]
    check_aftermath(session)


INTERRUPTED_AT_RANDOM = """
import random, threading
chance, armed, interrupts = random.Random(5), False, 0

def interrupt(*_):
    global armed, interrupts
    if armed:
        armed = False
        interrupts += 1
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)
again = threading.Event()

def user():
    while True:
        again.wait()
        again.clear()
        time.sleep(patience * (0.5 + chance.random()))
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=user, daemon=True).start()

def steadily(act):
    global armed, patience
    patience = 0.0005
    while True:
        try:
            armed = True
            again.set()
            done = act()
            armed = False
            return done
        except KeyboardInterrupt:
            patience *= 1.5  # with a little more of it each time

# An interrupt within the first import of a module can leave Python's own import lock held (importlib's callback of a
# module's lock takes it before its try): all is imported before the first one comes.
session.submit("acts", tasks=[{"value": -1}]).wait(timeout=60)
for n in range(25):
    steadily(lambda: session.submit("acts", tasks=[{"value": n}] * 3))
steadily(session.resume)
for row in session.store.jobs():
    session.job(row.job_id).wait(timeout=60)
say(interrupts > 3, {row.status.value for row in session.store.jobs()})
hear()
"""


def test_F109_an_interrupt_while_the_interpreter_closes_the_session_does_not_keep_it_from_ending(
    start: Start, tmp_path: Path
) -> None:
    at_the_end = """
import threading
def interrupt():
    while not threading._SHUTTING_DOWN:
        time.sleep(0.0005)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
"""
    for turn in range(3):
        pids = tmp_path / f"pids-{turn}"
        kernel = start(BUSY.replace("[hang, {}, {}]", f"[hang, {{}}, {{'turn': {turn}}}]") + at_the_end, pids)
        assert kernel.hears() == "busy"
        wait_until(kernel.has_ended, seconds=10)
        wait_until_gone(told(pids), seconds=2)


def test_F110_interrupts_at_random_moments_leave_a_whole_store_and_every_job_can_be_finished(
    open_session: OpenSession, start: Start
) -> None:
    kernel = start(INTERRUPTED_AT_RANDOM)
    assert kernel.hears() == "True {'completed'}"
    kernel.tell()
    kernel.ends()
    session = open_session()
    assert rows(session, "SELECT count(*), sum(completed) FROM jobs") == [(26, 76)]
    assert rows(session, "SELECT DISTINCT outcome FROM attempts") == [("completed",)]
    check_store(session)


# What users do


def test_F115_a_session_that_nobody_holds_any_more_ends_its_workers(open_session: OpenSession) -> None:
    from tests.helpers import jobs

    session = gf.open(":memory:", workers=1, display="none")
    session.register(jobs)
    job = session.run("acts", tasks=[{}])
    workers = workers_of(session)
    del session, job
    wait_until(lambda: gc.collect() >= 0 and not any(map(is_running, workers)), seconds=10)


def test_F115_two_sessions_of_one_kernel_share_a_store_and_neither_takes_the_others_jobs(
    faulty: OpenSession, trace: Trace
) -> None:
    first, second = faulty(), faulty()
    jobs = [
        session.submit("acts", tasks=[{"do": "sleep", "value": 0.05, "trace": trace.path, "whose": whose}] * 4)
        for whose, session in enumerate([first, second])
    ]
    assert second.resume() == []
    for job in jobs:
        assert job.wait(timeout=SECONDS).status == "completed"
    assert len(trace.lines()) == 8


def test_F116_children_that_a_user_forks_do_not_disturb_a_job_that_runs(faulty: OpenSession, trace: Trace) -> None:
    session = faulty()
    job = session.submit("acts", tasks=[{"do": "sleep", "value": 0.05, "trace": trace.path}] * 12)
    wait_until(lambda: len(trace.lines()) > 2)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    assert job.wait(timeout=SECONDS).status == "completed"
    assert len(trace.lines()) == 12


def test_F041_a_session_whose_temporary_folder_was_tidied_away_says_so_and_does_not_hang(
    open_session: OpenSession,
) -> None:
    session = open_session(max_retries=5, base_delay=0.01)
    assert session.run("acts", tasks=[{}]).status == "completed"
    folder = session.runtime.executor.where()
    assert folder is not None
    subprocess.run(["rm", "-r", folder], check=True)
    job = session.submit("acts", tasks=[{"do": "signal", "value": "SIGKILL"}])
    assert job.wait(timeout=SECONDS).status == "failed"
    assert "Worker processes cannot start" in (job.error or "")
    assert "No such file or directory" in (job.error or "")
    session.close()
    check_aftermath(session)


@pytest.mark.parametrize("limit", [24, 40])
def test_F123_with_few_files_to_open_a_session_works_or_says_why_not(
    start: Start, open_session: OpenSession, limit: int
) -> None:
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
try:
    say(session.run("acts", tasks=[{{"do": "sleep", "value": 0.01}}] * 6).status)
except Exception as exc:
    say(type(exc).__name__, exc)
"""
    kernel = start(code)
    said = kernel.hears()
    assert said in ("completed", "failed") or "files" in said
    kernel.ends()
    session = open_session()
    for job in session.resume():
        job.wait(timeout=SECONDS)
    check_store(session)


# Cancels


def test_F111_a_cancel_leaves_what_has_ended_and_may_be_repeated(faulty: OpenSession, trace: Trace) -> None:
    session = faulty(max_retries=0)
    done = session.run("acts", tasks=[{}])
    failed = session.run("acts", tasks=[{"do": "raise", "value": "ValueError"}])
    busy = session.submit("acts", tasks=[{"do": "hang", "trace": trace.path}] * 2)
    wait_until(lambda: len(trace.lines()) == 2)
    waiting = session.submit("acts", tasks=[{"value": "it never starts"}])
    for job in (done, failed, waiting, busy):
        for _ in range(2):
            job.cancel()
    assert [job.status for job in (done, failed, waiting, busy)] == ["completed", "failed", "cancelled", "cancelled"]
    assert rows(session, "SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1") == [
        ("cancelled", 2),
        ("completed", 1),
        ("failed", 1),
    ]


def test_F111_a_task_that_waits_for_its_retry_is_cancelled_at_once(faulty: OpenSession) -> None:
    session = faulty(base_delay=60.0, max_delay=60.0)
    job = session.submit("acts", tasks=[{"do": "raise", "value": "OSError"}])
    wait_until(lambda: rows(session, "SELECT outcome FROM attempts") == [("failed",)])
    job.cancel()
    assert job.status == "cancelled"
    assert rows(session, "SELECT status, attempts FROM tasks") == [("cancelled", 1)]


def test_F112_a_cancel_while_the_worker_starts_ends_it_and_so_does_a_close(faulty: OpenSession, trace: Trace) -> None:
    """Nobody knows the worker's number yet, and it holds a task that would keep it, and its pool's thread, for ever."""
    session = faulty(workers=1)
    pools = set(threading.enumerate())
    job = session.submit("acts", tasks=[{"do": "hang", "trace": trace.path}])
    wait_until(lambda: bool(trace.lines()))
    for end in (session.close, job.cancel) * 3:
        session.close()
        job.resume()
        wait_until(lambda: rows(session, "SELECT status FROM tasks") == [("processing",)])
        end()
    session.close()
    wait_until(lambda: set(threading.enumerate()) <= pools)


def test_F112_a_worker_that_is_ended_in_the_middle_of_its_answer_holds_up_nobody() -> None:
    """The thread of its pool has the beginning of an answer, whose rest nobody will send."""
    pool = ProcessPoolExecutor(1)
    queue: Any = vars(pool)["_result_queue"]
    ended: list[type[BaseException]] = []

    def receive() -> None:
        with pytest.raises(OSError, match="end of file during message") as caught:
            queue._reader.recv()
        ended.append(caught.type)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    os.write(queue._writer.fileno(), struct.pack("!i", 1000) + b"the beginning")
    _cut_off(pool)
    thread.join(SECONDS)
    assert ended == [OSError]
    pool.shutdown()


def test_F112_a_cancel_that_races_with_the_last_completion_gives_one_end(faulty: OpenSession) -> None:
    session = faulty()
    chance = random.Random(3)
    ends = set()
    for n in range(25):
        job = session.submit("acts", tasks=[{"value": n}, {}])
        threading.Event().wait(chance.random() * 0.02)
        job.cancel()
        end = job.wait(timeout=SECONDS).status
        ends.add(end)
        states = dict(rows(session, "SELECT status, count(*) FROM tasks WHERE job_id = ? GROUP BY 1", job.id))
        assert end in ("completed", "cancelled")
        assert set(states) <= ({"completed"} if end == "completed" else {"completed", "cancelled"})
        (result,) = rows(session, "SELECT result IS NULL FROM jobs WHERE job_id = ?", job.id)
        assert result == (end == "cancelled",)
    assert ends <= {"completed", "cancelled"}


@pytest.mark.parametrize("do", ["hang", "sleep"])
def test_F016_a_session_that_nobody_holds_drives_its_job_and_keeps_no_interpreter_from_its_end(
    start: Start, open_session: OpenSession, tmp_path: Path, do: str
) -> None:
    code = """
import gc
pids = sys.argv[2]
task = {"do": "pid then hang" if sys.argv[3] == "hang" else "sleep", "value": pids if sys.argv[3] == "hang" else 0.3}
job_id = session.submit("acts", tasks=[task]).id
store = session.store
if sys.argv[3] == "hang":
    wait_until(lambda: lines(pids))
del session
gc.collect()
if sys.argv[3] == "sleep":
    wait_until(lambda: store.job(job_id).status == "completed")
say("over")
"""
    kernel = start(code, tmp_path / "pids", do)
    assert kernel.hears() == "over"
    kernel.ends()
    wait_until_gone(told(tmp_path / "pids"))
    (row,) = rows(open_session(), "SELECT status FROM jobs")
    assert row == ("queued" if do == "hang" else "completed",)


# Callbacks


def test_F128_a_callback_that_blocks_holds_up_its_own_job_alone(faulty: OpenSession) -> None:
    release, blocked = threading.Event(), threading.Event()

    def told_of(*, status: str, result: Any, **_: Any) -> None:
        if result["values"] == ["blocks"]:
            blocked.set()
            release.wait(SECONDS)

    session = faulty(on_job_complete=told_of)
    first = session.submit("acts", tasks=[{"value": "blocks"}])
    assert blocked.wait(SECONDS)
    assert session.run("acts", tasks=[{"value": "goes on"}]).status == "completed"
    with pytest.raises(TimeoutError):
        first.wait(timeout=0.1)
    release.set()
    assert first.wait(timeout=SECONDS).status == "completed"


def test_F128_a_callback_may_look_and_submit(faulty: OpenSession) -> None:
    seen: list[str] = []
    done = threading.Event()

    def told_of(*, job_id: str, result: Any, **_: Any) -> None:
        seen.append(session.job(job_id).status)
        if len(seen) == 1:
            session.submit("acts", tasks=[{"value": "by the callback"}])
        else:
            done.set()

    session = faulty(on_job_complete=told_of)
    session.run("acts", tasks=[{}])
    assert done.wait(SECONDS)
    assert seen == ["completed", "completed"]
