"""What a task returned is kept, whatever is killed: it does not run again."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.executors.leftovers import sweep
from tests.helpers.sessions import Drive, OpenSession, Trace, rows
from tests.helpers.waiting import wait_until

ENDS = "SELECT outcome, count(*) FROM attempts GROUP BY 1 ORDER BY 1"


@pytest.fixture
def hang(tmp_path: Path) -> dict[str, Any]:
    """A task that hangs at its first attempt, once it has said so in a file."""
    return {"do": "say then hang", "value": [str(tmp_path / "hangs"), "behind it"], "until_attempt": 2}


def runs(trace: Trace) -> Counter[str]:
    """How often each task ran."""
    return Counter(line.split()[0] for line in trace.lines())


def killed_at_its_hang(drive: Drive, tmp_path: Path, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """A process with one worker is killed while its last task hangs; who it was, by the job's row."""
    driver = drive({"tasks": tasks}, workers=1)
    wait_until((tmp_path / "hangs").exists)
    driver.kill()
    driver.wait()
    return {"tasks": tasks}


def last_owner(session: gf.Session) -> dict[str, Any]:
    ((owner,),) = rows(session, "SELECT owner FROM job")
    found: dict[str, Any] = json.loads(owner)
    return found


@pytest.mark.on_duckdb
def test_S47_tasks_that_returned_before_a_neighbour_ended_their_worker_run_once(
    open_session: OpenSession, trace: Trace
) -> None:
    session = open_session(base_delay=0.01)
    tasks: list[dict[str, Any]] = [{"trace": trace.path}] * 200
    tasks[150] = {"trace": trace.path, "do": "signal", "value": "SIGSEGV", "until_attempt": 3}
    assert session.run("acts", tasks=tasks).status == "completed"
    assert {task: times for task, times in runs(trace).items() if times > 1} == {"s1-t150": 3}
    assert rows(session, ENDS) == [("completed", 200), ("failed", 2)]


@pytest.mark.on_duckdb
def test_S47_tasks_that_returned_before_their_driver_was_killed_run_once_whatever_they_told(
    open_session: OpenSession, drive: Drive, trace: Trace, tmp_path: Path, temp: Path, hang: dict[str, Any]
) -> None:
    plain: dict[str, Any] = {"trace": trace.path}
    flaky = {**plain, "do": "raise", "value": "OSError", "until_attempt": 2}
    tasks = [*[plain] * 20, {**plain, "do": "say", "value": "hello"}, flaky, {**plain, **hang}]
    killed_at_its_hang(drive, tmp_path, tasks)
    sweep(temp)
    session = open_session(base_delay=0.01)
    (job,) = session.resume()
    assert job.wait(60).status == "completed"
    assert {task: times for task, times in runs(trace).items() if times > 1} == {"s1-t21": 2, "s1-t22": 2}
    assert rows(session, ENDS) == [("completed", 23), ("failed", 1), ("lost", 1)]
    assert rows(session, "SELECT error_type, error FROM attempts WHERE outcome = 'failed'") == [
        ("OSError", "a OSError on purpose")
    ]
    ((output, pid, slot, code),) = rows(
        session, "SELECT output, pid, slot, code FROM attempts WHERE task_id = 's1-t20'"
    )
    assert output == "hello\non stderr\nfrom native code\n"
    others = rows(session, "SELECT DISTINCT pid, slot, code FROM attempts WHERE outcome = 'completed'")
    assert (pid, slot, code) in others, "as of any attempt"
    assert rows(session, "SELECT count(*) FROM attempts WHERE started_at > ended_at OR cpu < 0") == [(0,)]
    assert job.result()["completed"] == 23
    session.close()
    assert [path.name for path in temp.glob("geoflow-*")] == []


def test_S47_what_a_driver_left_that_was_followed_by_one_that_was_killed_too_is_taken_in(
    open_session: OpenSession, drive: Drive, trace: Trace, tmp_path: Path, hang: dict[str, Any]
) -> None:
    asked = killed_at_its_hang(drive, tmp_path, [*[{"trace": trace.path}] * 20, {"trace": trace.path, **hang}])
    then = (
        "import os, geoflow.engine.machine as machine; machine.take_in = lambda *args: os._exit(9)\njob.resume().wait()"
    )
    for _ in range(2):
        assert drive(asked, then=then).wait(60) == 9
    session = open_session()
    (job,) = session.resume()
    assert job.wait(60).status == "completed"
    assert {task: times for task, times in runs(trace).items() if times > 1} == {"s1-t20": 2}


def test_S47_workers_that_outlive_their_driver_are_ended_before_what_they_returned_is_taken_in(
    open_session: OpenSession, drive: Drive, trace: Trace
) -> None:
    tasks = [{"trace": trace.path, "do": "sleep", "value": 0.005}] * 300
    driver = drive(
        {"tasks": tasks},
        then="print(session.runtime.executor._lifeline._reaper.pid, flush=True)\njob.wait()",
        workers=1,
    )
    assert driver.stdout is not None
    os.kill(int(driver.stdout.readline()), signal.SIGKILL)
    wait_until(lambda: len(trace.lines()) > 50)
    driver.kill()
    driver.wait()
    session = open_session()
    (job,) = session.resume()
    assert job.wait(60).status == "completed"
    assert sum(runs(trace).values()) - 300 <= 1, "but the call that ran when its worker was ended"


def test_S47_tasks_that_returned_before_a_neighbour_was_past_its_timeout_run_once(
    open_session: OpenSession, trace: Trace
) -> None:
    session = open_session(workers=1, task_timeout=0.3, base_delay=0.01)
    late = {"trace": trace.path, "do": "hang", "until_attempt": 2}
    session.run("acts", tasks=[*[{"trace": trace.path}] * 20, late])
    assert {task: times for task, times in runs(trace).items() if times > 1} == {"s1-t20": 2}


def test_S47_what_had_returned_when_a_job_was_cancelled_is_completed(
    open_session: OpenSession, tmp_path: Path, trace: Trace, hang: dict[str, Any]
) -> None:
    session = open_session(workers=1)
    job = session.submit("acts", tasks=[*[{"trace": trace.path}] * 20, {"trace": trace.path, **hang}])
    wait_until((tmp_path / "hangs").exists)
    job.cancel()
    assert rows(session, "SELECT status, count(*) FROM tasks GROUP BY 1 ORDER BY 1") == [
        ("cancelled", 1),
        ("completed", 20),
    ]
    assert job.resume().wait(60).status == "completed"
    assert {task: times for task, times in runs(trace).items() if times > 1} == {"s1-t20": 2}


def test_S47_without_workers_what_a_task_returned_is_written_before_the_next_begins(
    open_session: OpenSession, drive: Drive, trace: Trace
) -> None:
    deadly = {"trace": trace.path, "do": "signal", "value": "SIGKILL", "until_attempt": 2}
    driver = drive({"tasks": [*[{"trace": trace.path}] * 3, deadly]}, workers=0)
    assert driver.wait(60) == -signal.SIGKILL
    session = open_session(workers=0)
    (job,) = session.resume()
    assert job.wait(60).status == "completed"
    assert {task: times for task, times in runs(trace).items() if times > 1} == {"s1-t3": 2}


def _cut(path: Path) -> None:
    os.truncate(path, 100)


def _garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[120:140] = bytes(20)
    path.write_bytes(content)


def _newer(path: Path) -> None:
    path.write_bytes(b"gfspool4" + path.read_bytes()[8:])


@pytest.mark.parametrize("spoil", [_cut, _garble, _newer])
def test_S47_a_spool_that_is_not_sound_is_left_out_and_said_once_and_nothing_written_is_lost(
    open_session: OpenSession,
    drive: Drive,
    trace: Trace,
    tmp_path: Path,
    hang: dict[str, Any],
    spoil: Callable[[Path], None],
) -> None:
    killed_at_its_hang(drive, tmp_path, [*[{"trace": trace.path}] * 20, {"trace": trace.path, **hang}])
    session = open_session()
    files = list(Path(last_owner(session)["folder"]).glob("*.spool"))
    assert files
    for path in files:
        spoil(path)
    before = dict(rows(session, "SELECT task_id, attempt FROM attempts WHERE outcome = 'completed'"))
    (job,) = session.resume()
    assert job.wait(60).status == "completed"
    assert all(runs(trace)[task] == 1 for task in before)
    log = [json.loads(line) for line in (tmp_path / "work.db.log").read_text().splitlines()]
    said = [line["message"] for line in log if "left out" in line["message"]]
    assert len(said) == len(set(said)) == len(files)
    assert said[0].startswith("what calls had returned is left out, and they run again: slot-0-0-")


def test_S43_S47_what_lies_in_a_folder_that_is_not_the_last_owners_is_not_looked_at(
    open_session: OpenSession, drive: Drive, trace: Trace, tmp_path: Path, hang: dict[str, Any]
) -> None:
    killed_at_its_hang(drive, tmp_path, [*[{"trace": trace.path}] * 20, {"trace": trace.path, **hang}])
    session = open_session()
    owner = last_owner(session)
    with session.store._transaction() as connection:
        connection.execute("UPDATE job SET owner = ?", (json.dumps({**owner, "seal": "0" * 64}),))
    (job,) = session.resume()
    assert job.wait(60).status == "completed"
    assert list(Path(owner["folder"]).glob("*.spool")), "nor is anything removed there"
    assert rows(session, "SELECT count(*) FROM tasks WHERE status = 'completed'") == [(21,)]
