"""What handlers do to their worker: one attempt of theirs is charged, neighbours lose nothing, the slot is back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from tests.faults.driving import busy_workers, end_group, running_workers, told, wait_until_gone, workers_of
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession, Trace, rows
from tests.helpers.waiting import is_running, wait_until

CULPRIT = "SELECT attempt, outcome, error_type, error_category FROM attempts WHERE task_id = 's1-t1' ORDER BY attempt"


def run_with(session: gf.Session, do: str, value: Any = None, **more: Any) -> gf.JobHandle:
    """A job of four tasks, the second of which does as told; the three others must be none the worse for it."""
    job = session.run("acts", tasks=[{}, {"do": do, "value": value, **more}, {}, {}])
    neighbours = rows(session, "SELECT status, retries FROM tasks WHERE task_id <> 's1-t1'")
    assert neighbours == [("completed", 0)] * 3
    charged = rows(session, "SELECT DISTINCT task_id FROM attempts WHERE outcome = 'failed'")
    assert charged in ([], [("s1-t1",)])
    return job


# Deaths


@pytest.mark.parametrize("name", ["SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"])
def test_F018_a_signal_that_native_code_dies_of_is_named_with_the_python_stack(faulty: OpenSession, name: str) -> None:
    session = faulty()
    job = run_with(session, "signal", name)
    assert f"({name})" in (job.error or "")
    assert rows(session, CULPRIT) == [(1, "failed", "WorkerDied", "lost"), (2, "failed", "WorkerDied", "lost")]
    tracebacks = rows(session, "SELECT traceback FROM attempts WHERE outcome = 'failed'")
    assert all("jobs.py" in traceback for (traceback,) in tracebacks)


@pytest.mark.parametrize("status", [0, 7])
def test_F024_a_worker_that_native_code_ends_without_a_word_has_died_whatever_its_status(
    faulty: OpenSession, status: int
) -> None:
    job = run_with(faulty(), "exit from c", status)
    assert f"ended with exit status {status}" in (job.error or "")


def test_F035_a_worker_that_lost_its_pipes_is_replaced_and_what_had_returned_there_is_kept(faulty: OpenSession) -> None:
    session = faulty()
    assert run_with(session, "close", [3, 256]).status == "completed"
    assert rows(session, "SELECT outcome, count(*) FROM attempts GROUP BY 1") == [("completed", 4)]
    ((culprit,),) = rows(session, "SELECT pid FROM attempts WHERE task_id = 's1-t1'")
    assert culprit not in running_workers(session)


def test_F112_a_worker_that_dies_in_the_middle_of_its_answer_leaves_no_thread_and_what_returned_runs_once(
    faulty: OpenSession, trace: Trace
) -> None:
    session = faulty()
    tasks = [{"do": "die answering", "trace": trace.path}, {"trace": trace.path}]
    assert session.run("acts", tasks=tasks).status == "completed"
    assert sorted(trace.lines()) == ["s1-t0 1", "s1-t1 1"]
    session.close()
    wait_until(lambda: not [one for one in threading.enumerate() if type(one).__name__ == "_ExecutorManagerThread"])


def test_F035_a_task_that_closes_its_standard_streams_completes_and_later_prints_are_kept(faulty: OpenSession) -> None:
    session = faulty(workers=1)
    assert run_with(session, "close", [0, 3]).status == "completed"
    run_after = session.run("acts", tasks=[{"do": "say", "value": "still here"}])
    ((output,),) = rows(session, "SELECT output FROM attempts WHERE job_id = ?", run_after.id)
    assert output.splitlines() == ["still here", "on stderr", "from native code"]
    assert len(workers_of(session)) == 1


def test_F050_tasks_that_always_kill_their_worker_take_none_of_300_others_with_them(faulty: OpenSession) -> None:
    session = faulty()
    tasks: list[dict[str, Any]] = [{} for _ in range(300)]
    deadly = range(15, 300, 60)
    for place, name in zip(deadly, ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM", "SIGKILL"], strict=True):
        tasks[place] = {"do": "signal", "value": name}
    session.run("acts", tasks=tasks)
    assert rows(session, "SELECT task_index, retries FROM tasks WHERE status = 'failed'") == [(n, 1) for n in deadly]
    assert rows(session, "SELECT count(*), sum(retries) FROM tasks WHERE status = 'completed'") == [(295, 0)]
    assert rows(session, "SELECT count(*) FROM attempts WHERE outcome = 'failed'") == [(10,)]


def test_F045_an_idle_worker_that_dies_costs_no_attempt_of_the_next_task(faulty: OpenSession) -> None:
    session = faulty()
    session.run("acts", tasks=[{"do": "sleep", "value": 0.05}] * 2)
    workers = workers_of(session)
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    # At once: its pool may not have noticed, and break while it is given work (F046).
    assert session.run("acts", tasks=[{"value": n} for n in range(8)]).status == "completed"
    assert rows(session, "SELECT DISTINCT outcome, attempt FROM attempts") == [("completed", 1)]


def test_F045_workers_that_are_killed_again_and_again_cost_each_time_one_attempt_at_most(
    faulty: OpenSession, trace: Trace
) -> None:
    session = faulty(max_retries=20)
    count, kills = 60, 0
    job = session.submit("acts", tasks=[{"do": "sleep", "value": 0.02, "trace": trace.path}] * count)
    for done in range(5, count, 10):
        wait_until(lambda more=done: len(trace.lines()) >= more)  # type: ignore[misc]
        for pid in filter(is_running, running_workers(session)):
            os.kill(pid, signal.SIGKILL)
            kills += 1
    assert job.wait(timeout=30).status == "completed"
    ((charged,),) = rows(session, "SELECT count(*) FROM attempts WHERE outcome = 'failed'")
    assert 0 < charged <= kills
    assert rows(session, "SELECT sum(retries) FROM tasks") == [(charged,)]


def test_F041_workers_that_cannot_start_fail_the_job_and_say_so_and_the_next_session_works(
    open_session: OpenSession,
) -> None:
    session = open_session()
    folder = session.runtime.executor.where()
    assert folder is not None
    Path(folder, "workers").unlink()  # where a worker must report before it takes work
    job = session.run("acts", tasks=[{}])
    assert job.status == "failed"
    assert "Worker processes cannot start: 3 in a row ended before any work" in (job.error or "")
    assert rows(session, "SELECT count(*) FROM attempts WHERE outcome <> 'lost'") == [(0,)]
    session.close()
    assert job.resume().wait(timeout=30).status == "completed"


# Memory


def test_F020_a_task_that_is_out_of_memory_fails_alone_and_its_worker_lives_on(faulty: OpenSession) -> None:
    session = faulty(workers=1)
    run_with(session, "allocate", 200)
    by_outcome = [(1, "lost"), (2, "failed"), (3, "failed")]
    assert rows(session, CULPRIT) == [(*attempt, "MemoryError", "memory") for attempt in by_outcome]
    assert len(workers_of(session)) == 1


def test_F021_a_result_for_which_memory_does_not_suffice_costs_its_own_task_alone(faulty: OpenSession) -> None:
    session = faulty()
    run_with(session, "return more than memory", 20)
    found = rows(session, CULPRIT)
    assert [row[1] for row in found][-2:] == ["failed", "failed"]
    assert {error_type for _, _, error_type, _ in found} <= {"MemoryError", "WorkerDied"}


def test_F043_what_the_frames_of_a_failed_task_hold_stays_in_its_worker(faulty: OpenSession) -> None:
    session = faulty(max_retries=0)
    before = memory_pages()
    run_with(session, "fail holding", 200)
    assert rows(session, CULPRIT) == [(1, "failed", "RuntimeError", "unknown")]
    assert (memory_pages() - before) * os.sysconf("SC_PAGE_SIZE") < 50_000_000


def memory_pages() -> int:
    """What this process has in memory, in pages."""
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_F044_a_result_of_50_megabytes_is_kept_and_neighbours_are_none_the_worse(faulty: OpenSession) -> None:
    session = faulty(result_limit=100)
    assert run_with(session, "return much", 50).status == "completed"
    assert rows(session, "SELECT length(result) > 50000000 FROM tasks WHERE task_id = 's1-t1'") == [(1,)]


# Timeouts


def test_F026_an_endless_loop_is_ended_at_its_timeout_with_its_stack(faulty: OpenSession) -> None:
    session = faulty(task_timeout=0.3)
    job = run_with(session, "spin")
    assert "timed out: it ran longer than 0.3 s" in (job.error or "")
    found = rows(session, "SELECT error_category, traceback FROM attempts WHERE task_id = 's1-t1'")
    assert [category for category, _ in found] == ["timeout", "timeout"]
    assert all("in _spin" in traceback for _, traceback in found)


def test_F028_a_worker_that_is_stopped_is_ended_at_its_timeout(faulty: OpenSession) -> None:
    session = faulty(task_timeout=0.3)
    run_with(session, "signal", "SIGSTOP")
    assert rows(session, CULPRIT) == [(1, "failed", "TaskTimeout", "timeout"), (2, "failed", "TaskTimeout", "timeout")]


def test_F029_a_worker_that_ignores_signals_is_ended_at_its_timeout(faulty: OpenSession) -> None:
    session = faulty(task_timeout=0.3)
    run_with(session, "hang deaf")
    assert rows(session, CULPRIT) == [(1, "failed", "TaskTimeout", "timeout"), (2, "failed", "TaskTimeout", "timeout")]


@pytest.mark.parametrize("do", ["hang in c", "hang deaf", "signal"])
def test_F030_a_task_without_a_timeout_that_hears_nothing_is_ended_by_cancel(
    faulty: OpenSession, trace: Trace, do: str
) -> None:
    session = faulty()
    job = session.submit("acts", tasks=[{"do": do, "value": "SIGSTOP", "trace": trace.path}])
    wait_until(lambda: trace.lines() == ["s1-t0 1"])
    wait_until(lambda: len(busy_workers(session)) == 1)
    busy = busy_workers(session)
    job.cancel()
    assert job.status == "cancelled"
    wait_until_gone(busy, seconds=2)
    assert rows(session, "SELECT outcome FROM attempts") == [("cancelled",)]


def test_F032_a_child_of_a_task_that_timed_out_ends_with_it(faulty: OpenSession, tmp_path: Path) -> None:
    session = faulty(task_timeout=0.5, max_retries=0)
    child = tmp_path / "child"
    run_with(session, "child then hang", str(child))
    wait_until_gone(told(child), seconds=5)


# What they leave behind


def test_F032_a_child_that_a_task_left_ends_with_the_session(faulty: OpenSession, tmp_path: Path) -> None:
    session = faulty()
    child = tmp_path / "child"
    assert run_with(session, "leave child", str(child)).status == "completed"
    (pid,) = told(child)
    assert is_running(pid)
    session.close()
    wait_until_gone({pid}, seconds=5)


def test_F032_a_child_that_made_itself_a_session_of_its_own_escapes_and_that_is_said(
    faulty: OpenSession, tmp_path: Path
) -> None:
    session = faulty()
    child = tmp_path / "child"
    run_with(session, "leave child of its own", str(child))
    session.close()
    (pid,) = told(child)
    assert is_running(pid)
    end_group(pid)


@pytest.mark.parametrize("do", ["leave thread", "leave exit handler"])
def test_F033_what_a_task_left_running_does_not_hold_up_the_end(faulty: OpenSession, do: str) -> None:
    assert run_with(faulty(), do).status == "completed"  # what is checked comes when the session is closed


def test_F034_of_100_megabytes_that_are_printed_the_two_ends_are_kept(faulty: OpenSession) -> None:
    session = faulty()
    assert run_with(session, "print much", 100).status == "completed"
    ((output,),) = rows(session, "SELECT output FROM attempts WHERE task_id = 's1-t1'")
    assert "more bytes" in output
    assert 60_000 < len(output) < 70_000
    assert rows(session, "SELECT count(*) FROM attempts WHERE output IS NOT NULL") == [(1,)]


def test_F036_what_a_task_changes_of_its_process_does_not_reach_the_engine(faulty: OpenSession, tmp_path: Path) -> None:
    session = faulty(workers=1, task_timeout=5.0)
    assert run_with(session, "change process", str(tmp_path)).status == "completed"
    job = session.run("acts", tasks=[{"do": "say", "value": "hello"}, {"do": "raise", "value": "ValueError"}])
    found = rows(session, "SELECT output, error_type FROM attempts WHERE job_id = ? ORDER BY task_id", job.id)
    assert found == [("hello\non stderr\nfrom native code\n", None), (None, "ValueError")]
    assert len(workers_of(session)) == 1


def test_F048_of_a_task_that_forks_and_returns_twice_the_child_goes_no_further(
    faulty: OpenSession, tmp_path: Path, trace: Trace
) -> None:
    session = faulty(workers=1)
    child = tmp_path / "child"
    forks = {"do": "fork and both return", "value": str(child), "trace": trace.path}
    job = session.run("acts", tasks=[{"trace": trace.path}, forks, *[{"trace": trace.path}] * 30])
    assert job.status == "completed"
    wait_until(lambda: bool(told(child)))
    wait_until_gone(told(child), seconds=5)
    session.run("acts", tasks=[{"trace": trace.path, "value": "more"}] * 30)
    assert len(workers_of(session)) == 1
    assert len(trace.lines()) == 62, "each task ran once"


def test_F049_a_task_may_run_a_session_of_its_own(faulty: OpenSession, tmp_path: Path) -> None:
    def nested(params: dict[str, Any]) -> dict[str, Any]:
        with gf.open(params["store"], workers=params["workers"], display="none") as session:
            return {"success": True, "result": {"value": session.run("hello_world", n=2).result()["greetings"]}}

    session = faulty()
    session.register(type("Mine", (jobs.Acts,), {"job_type": "mine", "__module__": "__main__"}), {"act": nested})
    tasks = [{"store": str(tmp_path / f"{workers}.db"), "workers": workers} for workers in (0, 1)]
    assert session.run("mine", tasks=tasks).result()["values"] == [2, 2]


# What they raise


@pytest.mark.parametrize("name", ["GeneratorExit", "StopIteration", "Abandoned"])
def test_F025_what_is_no_common_exception_is_a_failure_all_the_same(faulty: OpenSession, name: str) -> None:
    session = faulty(workers=1, max_retries=0)
    job = run_with(session, "raise", name)
    assert f"a {name} on purpose" in (job.error or "")
    assert len(workers_of(session)) == 1


@pytest.mark.parametrize(
    ("how", "error_type", "said"),
    [
        ("two arguments", "TwoArguments", "it broke at noon"),
        ("lock", "Holding", "it holds a lock"),
        ("no text", "Silent", "<Silent whose __str__ raised RuntimeError>"),
        ("long", "RuntimeError", "xxx"),
        ("group", "ExceptionGroup", "several (2 sub-exceptions)"),
        ("surrogate", "RuntimeError", r"\ud800\x00"),
    ],
)
def test_F042_an_exception_that_cannot_travel_is_told_in_words_and_breaks_nothing(
    faulty: OpenSession, how: str, error_type: str, said: str
) -> None:
    session = faulty(workers=1, max_retries=0)
    job = run_with(session, "raise odd", how)
    ((found, error, traceback),) = rows(
        session, "SELECT error_type, error, traceback FROM attempts WHERE outcome = 'failed'"
    )
    assert found == error_type
    assert error.startswith(said)
    assert len(error) + len(traceback) < 50_000
    assert "jobs.py" in traceback
    assert said[:3] in (job.error or "")
    assert len(workers_of(session)) == 1


def test_F042_a_recursion_without_end_fails_its_task_alone(faulty: OpenSession) -> None:
    session = faulty(workers=1, max_retries=0)
    run_with(session, "recurse")
    assert rows(session, CULPRIT) == [(1, "failed", "RecursionError", "unknown")]
    assert len(workers_of(session)) == 1


@pytest.mark.parametrize("what", ["coroutine", "future", "generator"])
def test_F080_a_promise_of_a_result_is_no_result(faulty: OpenSession, what: str) -> None:
    session = faulty(workers=1)
    job = run_with(session, f"return {what}")
    assert f"it returned {what}" in (job.error or "").lower()
    assert rows(session, CULPRIT) == [(1, "failed", "ContractViolationError", "contract")]


@pytest.mark.parametrize(("what", "key"), [("lock", "result['result']['lock']"), ("function", "['then']")])
def test_F076_a_result_that_cannot_be_stored_fails_its_task_for_good_and_its_place_is_named(
    faulty: OpenSession, what: str, key: str
) -> None:
    session = faulty(workers=1)
    job = run_with(session, f"return {what}")
    assert key in (job.error or "")
    assert rows(session, CULPRIT) == [(1, "failed", "UnstorableValue", "permanent")]


# Code that does not arrive


class _Explodes:
    """Made anew in a worker, it raises."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[int]]:
        return _explode_elsewhere, (os.getpid(),)


def _explode_elsewhere(pid: int) -> object:
    raise RuntimeError("it does not survive the journey")


def test_F039_code_that_explodes_on_arrival_fails_its_tasks_and_no_worker(faulty: OpenSession) -> None:
    bomb = _Explodes()

    def handler(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {"bomb": str(bomb)}}

    session = faulty(workers=1, max_retries=0)
    session.register(type("Mine", (jobs.Acts,), {"job_type": "mine", "__module__": "__main__"}), {"act": handler})
    job = session.run("mine", tasks=[{}, {}])
    assert "it does not survive the journey" in (job.error or "")
    assert rows(session, "SELECT status, retries FROM tasks") == [("failed", 0)] * 2
    assert len(workers_of(session)) == 1


def test_F040_a_module_that_workers_cannot_import_fails_its_tasks_and_no_worker(
    faulty: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(jobs.__file__).read_text().replace('"acts"', '"mine"')
    refuse = "import multiprocessing\nif multiprocessing.parent_process(): raise ImportError('not in a worker')\n"
    (tmp_path / "refusing_job.py").write_text(source.replace("import atexit\n", refuse + "import atexit\n"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    session = faulty(workers=1, max_retries=0)
    session.register(str(tmp_path / "refusing_job.py"))
    job = session.run("mine", tasks=[{}, {}])
    assert multiprocessing.parent_process() is None
    assert "ImportError: not in a worker" in (job.error or "")
    assert len(workers_of(session)) <= 1
    del sys.modules["refusing_job"]
