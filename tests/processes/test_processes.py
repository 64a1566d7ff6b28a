"""What slots do for tasks that print, hang, crash or leave things behind, and what is left when it is over."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import jobs
from tests.helpers.sessions import ROOT, Drive, OpenSession, rows
from tests.helpers.waiting import is_running, wait_until

OUTCOMES = "SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1"
WORKER = "SELECT DISTINCT pid FROM attempts"


@pytest.mark.on_duckdb(seldom=True)
def test_S30_a_segfault_among_200_costs_one_attempt_of_its_own_task_alone(open_session: OpenSession) -> None:
    session = open_session(max_retries=0)
    tasks: list[dict[str, Any]] = [{} for _ in range(201)]
    tasks[90] = {"do": "segfault"}
    job = session.run("acts", tasks=tasks)
    assert rows(session, "SELECT status, count(*) FROM tasks GROUP BY 1") == [("completed", 200), ("failed", 1)]
    assert rows(session, "SELECT task_id, error_type FROM attempts WHERE outcome = 'failed'") == [
        ("s1-t90", "WorkerDied")
    ]
    assert "signal 11 (SIGSEGV)" in (job.error or "")
    (traceback,) = rows(session, "SELECT traceback FROM attempts WHERE outcome = 'failed'")[0]
    assert "jobs.py" in traceback
    assert rows(session, "SELECT count(*) FROM tasks WHERE retries > 0") == [(0,)]


@pytest.mark.parametrize(
    ("do", "value", "said"),
    [
        ("signal", "SIGKILL", "signal 9 (SIGKILL; it may have been out of memory)"),
        ("signal", "SIGTERM", "signal 15 (SIGTERM)"),
        ("exit", 0, "exit status 0"),
        ("exit", 3, "exit status 3"),
    ],
)
@pytest.mark.on_duckdb(seldom=True)
def test_S30_a_task_that_keeps_killing_its_worker_runs_out_of_retries(
    open_session: OpenSession, do: str, value: Any, said: str
) -> None:
    session = open_session(max_retries=1, base_delay=0.01)
    job = session.run("acts", tasks=[{}, {"do": do, "value": value}, {}, {}])
    assert said in (job.error or "")
    assert rows(session, "SELECT attempt, outcome, error_category FROM attempts WHERE task_id = 's1-t1'") == [
        (1, "failed", "lost"),
        (2, "failed", "lost"),
    ]
    assert rows(session, "SELECT count(*) FROM tasks WHERE status = 'completed'") == [(3,)]


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "MemoryError"])
def test_what_a_handler_raises_is_its_own_failure_and_the_worker_lives_on(open_session: OpenSession, name: str) -> None:
    session = open_session(workers=1, max_retries=0)
    job = session.run("acts", tasks=[{"do": "raise", "value": name}, {}, {}])
    assert rows(session, "SELECT error_type FROM attempts WHERE outcome = 'failed'") == [(name,)]
    assert len(rows(session, "SELECT DISTINCT pid FROM attempts")) == 1
    assert job.status == "failed"


@pytest.mark.parametrize("do", ["hang", "hang in c"])
def test_S31_a_task_past_its_timeout_is_ended_with_its_stack_and_disturbs_no_neighbour(
    open_session: OpenSession, do: str
) -> None:
    session = open_session(task_timeout=0.5, max_retries=1, base_delay=0.01)
    job = session.run("acts", tasks=[{}, {"do": do}, {}, {}])
    assert "timed out: it ran longer than 0.5 s" in (job.error or "")
    found = rows(session, "SELECT outcome, error_category, traceback FROM attempts WHERE task_id = 's1-t1'")
    assert [row[:2] for row in found] == [("failed", "timeout"), ("failed", "timeout")]
    assert f"in _{do.replace(' ', '_')}" in found[0][2]
    assert rows(session, "SELECT count(*) FROM tasks WHERE status = 'completed'") == [(3,)]


def test_prints_of_python_and_of_native_code_are_kept_with_their_attempt(open_session: OpenSession) -> None:
    session = open_session()
    session.run("acts", tasks=[{"do": "say", "value": "first"}, {}, {"do": "say", "value": "third"}])
    outputs = dict(rows(session, "SELECT task_id, output FROM attempts"))
    assert outputs["s1-t0"].splitlines() == ["first", "on stderr", "from native code"]
    assert outputs["s1-t1"] is None
    assert "third" in outputs["s1-t2"]


def test_prints_before_a_crash_are_kept(open_session: OpenSession) -> None:
    session = open_session(max_retries=0)
    session.run("acts", tasks=[{"do": "say then die", "value": "last words"}])
    (output,) = rows(session, "SELECT output FROM attempts")[0]
    assert "last words" in output


def test_inline_prints_are_kept_and_shown(open_session: OpenSession, capsys: pytest.CaptureFixture[str]) -> None:
    session = open_session(workers=0)
    session.run("acts", tasks=[{"do": "say", "value": "hello"}])
    (output,) = rows(session, "SELECT output FROM attempts")[0]
    assert "hello" in output
    assert "hello" in capsys.readouterr().out


def test_S40_what_a_handler_logs_has_its_job_task_and_attempt(open_session: OpenSession) -> None:
    session = open_session()
    job = session.run("acts", tasks=[{}, {"do": "say", "value": "something"}])
    session.close()
    assert session.settings.log_path is not None
    lines = [json.loads(line) for line in session.settings.log_path.read_text().splitlines()]
    (line,) = [line for line in lines if line["logger"] == "users.own"]
    assert line["message"] == "logged: something"
    assert (line["job_id"], line["task_id"], line["attempt"], line["stage"]) == (job.id, "s1-t1", 1, 1)


def test_a_task_that_is_stuck_with_a_child_is_ended_with_the_child(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session()
    child = tmp_path / "child"
    job = session.submit("acts", tasks=[{"do": "child then hang", "value": str(child)}])
    wait_until(lambda: child.exists() and bool(child.read_text()))
    job.cancel()
    wait_until(lambda: not is_running(int(child.read_text())))


def test_a_death_that_a_child_hides_is_seen_all_the_same(open_session: OpenSession) -> None:
    session = open_session(max_retries=0)
    job = session.run("acts", tasks=[{"do": "fork and die"}, {}])
    assert "WorkerDied" in (job.error or "")


def test_a_code_change_of_a_module_reaches_workers_that_had_the_old_one(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(jobs.__file__).read_text().replace('"acts"', '"mine"')
    path = tmp_path / "changing_job.py"
    path.write_text(source)
    monkeypatch.setattr(sys, "path", list(sys.path))
    session = open_session(workers=1)
    session.register(str(path))
    assert session.run("mine", tasks=[{"value": 1}]).result()["values"] == [1]
    path.write_text(source.replace('"value": value', '"value": "new"'))
    import importlib

    session.registry.register(importlib.reload(sys.modules["changing_job"]))
    assert session.run("mine", tasks=[{"value": 2}]).result()["values"] == ["new"]
    del sys.modules["changing_job"]


def test_a_change_of_a_module_that_a_function_of_the_notebook_calls_reaches_workers_that_had_the_old_one(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "worths.py").write_text("WORTH = 1\n")
    (tmp_path / "helps.py").write_text("import worths\ndef worth():\n    return worths.WORTH\n")
    helps: Any = importlib.import_module("helps")

    def act(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {"value": helps.worth()}}

    session = open_session(workers=1)
    session.register(jobs.Acts, {"act": act})
    assert session.run("acts", tasks=[{}]).result()["values"] == [1]
    (tmp_path / "worths.py").write_text("WORTH = 1_000\n")
    importlib.reload(helps.worths)
    assert session.run("acts", tasks=[{}, {}]).result()["values"] == [1000, 1000]
    assert session.run("acts", tasks=[{}, {}, {}]).result()["values"] == [1000] * 3
    assert len(rows(session, WORKER)) == 2, "once, and not again when nothing has changed"
    del sys.modules["helps"], sys.modules["worths"]


SCRIPT = """
    import sys
    sys.path.insert(0, {root!r})
    from tests.helpers import jobs
    import geoflow as gf

    FACTOR = 7

    def helper(n):
        return n * FACTOR

    def act(params):
        return {{"success": True, "result": {{"value": helper(params["value"])}}}}

    class Mine(jobs.Acts):
        job_type = "mine"

    print("top level")
    session = gf.open({store!r}, workers=2)
    session.register(Mine, {{"act": act}})
    job = session.run("mine", tasks=[{{"value": n}} for n in range(5)])
    print(job.result()["values"])
    session.close()
"""


def test_functions_of_a_script_without_a_main_guard_run_in_workers_and_the_script_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(root=ROOT, store=str(tmp_path / "work.db"))))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["top level", "[0, 7, 14, 21, 28]"], done.stderr


def test_what_waits_in_a_chunk_behind_a_long_task_runs_in_an_idle_slot(
    open_session: OpenSession, tmp_path: Path
) -> None:
    """The first tasks are short, so that those after them travel together."""
    session, made = open_session(workers=2), str(tmp_path / "made")
    session.run("acts", tasks=[{}, {}])  # the code is there now, and the first tasks take no time
    tasks = [*[{}] * 4, {"do": "wait for", "value": made}, *[{}] * 5, {"do": "make", "value": made}, {}]
    job = session.run("acts", tasks=tasks)
    assert job.status == "completed", job.error
    assert rows(session, OUTCOMES) == [("completed", 2 + len(tasks))], "and none ran twice"


def test_workers_start_in_a_notebook_whose_names_were_all_taken_away(tmp_path: Path) -> None:
    """As by ``%reset -f``, which leaves ``__main__`` without what multiprocessing looks for."""
    code = (
        "import sys, geoflow as gf; vars(sys.modules['__main__']).pop('__spec__')\n"
        f"with gf.open({str(tmp_path / 'work.db')!r}, workers=1, display='none') as session:\n"
        "    print(session.run('hello_world', n=1).status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "completed\n", done.stderr


@pytest.mark.on_duckdb
def test_S36_workers_end_with_a_driver_that_is_killed_and_a_resume_finishes_its_job(
    open_session: OpenSession, drive: Drive, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    hang = {"do": "pid then hang", "value": str(pids), "until_attempt": 2}
    alone = {"do": "sleep", "value": 0.1}  # so that none travels with another
    driver = drive({"tasks": [alone, alone, hang, hang]})
    wait_until(lambda: pids.exists() and len(pids.read_text().splitlines()) == 2)
    driver.kill()
    driver.wait()
    wait_until(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()), seconds=5)
    session = open_session()
    (job,) = session.resume()
    assert job.wait(timeout=30).status == "completed"
    assert rows(session, OUTCOMES) == [("completed", 4), ("lost", 2)]
    assert rows(session, "SELECT task_id, attempts, retries FROM tasks ORDER BY 1") == [
        ("s1-t0", 1, 0),
        ("s1-t1", 1, 0),
        ("s1-t2", 2, 0),
        ("s1-t3", 2, 0),
    ]


@pytest.mark.on_duckdb(seldom=True)
def test_S30_a_task_that_runs_each_time_its_engine_is_killed_fails_after_three(
    open_session: OpenSession, drive: Drive, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    params = {"tasks": [{}, {"do": "pid then hang", "value": str(pids)}]}
    for turn in range(1, 4):
        driver = drive(params, "job.resume(); job.wait()")
        wait_until(lambda count=turn: pids.exists() and len(pids.read_text().splitlines()) == count)  # type: ignore[misc]
        driver.kill()
        driver.wait()
    session = open_session()
    (job,) = session.resume()
    assert job.wait(timeout=30).status == "failed"
    assert "may be what kills it" in (job.error or "")
    assert [
        row[0] for row in rows(session, "SELECT outcome FROM attempts WHERE task_id = 's1-t1' ORDER BY attempt")
    ] == [
        "lost",
        "lost",
        "failed",
    ]


@pytest.mark.on_duckdb(seldom=True)
def test_S38_an_interrupt_of_run_puts_the_job_back_and_leaves_no_worker(
    open_session: OpenSession, drive: Drive, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    hang = {"do": "pid then hang", "value": str(pids), "until_attempt": 2}
    then = """
    try:
        session.follow(job)
    except KeyboardInterrupt:
        print(job.status, flush=True)
        print(job.resume().wait().status, flush=True)
    """
    driver = drive({"tasks": [hang, {}]}, then)
    wait_until(lambda: pids.exists() and bool(pids.read_text().splitlines()))
    (worker,) = map(int, pids.read_text().split())
    os.killpg(driver.pid, signal.SIGINT)  # as a notebook server does: to the whole group
    out, _ = driver.communicate(timeout=30)
    assert out.splitlines() == ["queued", "completed"]
    assert not is_running(worker)
    session = open_session()
    assert rows(session, "SELECT attempt, outcome FROM attempts WHERE task_id = 's1-t0' ORDER BY 1") == [
        (1, "interrupted"),
        (2, "completed"),
    ]


@pytest.mark.on_duckdb(seldom=True)
def test_an_interpreter_that_exits_with_a_job_running_ends_and_the_job_can_be_resumed(
    open_session: OpenSession, drive: Drive, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    hang = {"do": "pid then hang", "value": str(pids), "until_attempt": 2}
    then = f"""
    import os, time
    while not os.path.exists({str(pids)!r}): time.sleep(0.01)
    """
    driver = drive({"tasks": [hang]}, then)
    assert driver.wait(timeout=20) == 0
    wait_until(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()), seconds=5)
    session = open_session()
    (job,) = session.resume()
    assert job.wait(timeout=30).status == "completed"


def test_S37_a_fork_of_the_notebooks_process_ends_without_touching_its_session(open_session: OpenSession) -> None:
    """As a pool that the user makes beside the session does on Linux."""
    session = open_session(workers=1)
    job = session.run("acts", tasks=[{}])
    ((worker,),) = rows(session, WORKER)
    fork = multiprocessing.get_context("fork")
    seen = fork.SimpleQueue()
    child = fork.Process(target=lambda: seen.put((job.status, session.job(job.id).tasks().shape[0])))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert seen.get() == ("completed", 1), "in the fork it is opened anew, to be looked at"
    assert is_running(worker)
    assert session.run("acts", tasks=[{}, {}]).status == "completed"
    assert rows(session, WORKER) == [(worker,)]
    session.close()
    wait_until(lambda: not is_running(worker))


@pytest.mark.on_duckdb(seldom=True)
def test_S36_workers_end_with_a_driver_that_is_killed_though_a_fork_of_it_lives(
    open_session: OpenSession, drive: Drive, tmp_path: Path
) -> None:
    pids, fork = tmp_path / "pids", tmp_path / "fork"
    then = f"""
    import os, time
    while not os.path.exists({str(pids)!r}): time.sleep(0.01)
    if os.fork() == 0:
        open({str(fork)!r}, "w").write(str(os.getpid()))
        time.sleep(60)
        os._exit(0)
    job.wait()
    """
    driver = drive({"tasks": [{"do": "pid then hang", "value": str(pids)}]}, then)
    wait_until(lambda: fork.exists() and bool(fork.read_text()))
    driver.kill()
    driver.wait()
    try:
        wait_until(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()), seconds=5)
        session = open_session()
        assert rows(session, "SELECT status FROM jobs") == [("processing",)]
        assert session.store.driver(1) is None, "the fork holds no lock of its parent's"
    finally:
        os.kill(int(fork.read_text()), signal.SIGKILL)


def test_S38_another_process_can_cancel_a_job(open_session: OpenSession, drive: Drive, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    driver = drive({"tasks": [{"do": "pid then hang", "value": str(pids)}]}, "print(job.wait().status)")
    wait_until(lambda: pids.exists() and bool(pids.read_text()))
    session = open_session()
    job = session.job(rows(session, "SELECT job_id FROM jobs")[0][0])
    began = time.monotonic()
    assert job.cancel().status == "cancelled"
    assert time.monotonic() - began < 10
    out, _ = driver.communicate(timeout=20)
    assert out.strip() == "cancelled"


def test_the_reaper_ends_the_groups_it_was_told_of_and_none_that_it_was_told_to_forget(tmp_path: Path) -> None:
    from geoflow.executors.lifeline import Lifeline

    line = Lifeline(tmp_path)
    kept, forgotten = (subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2))
    try:
        for group in (kept, forgotten):
            Path(line.registry).write_text(f"+{group.pid}\n")
        line.forget(forgotten.pid)
        line.close()
        assert kept.wait(timeout=10) == -signal.SIGKILL
        assert forgotten.poll() is None
    finally:
        forgotten.kill()
        forgotten.wait()


def test_the_fork_server_has_imported_what_every_worker_needs() -> None:
    code = "import sys, geoflow.executors.preloaded; print('geoflow.executors.child' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
