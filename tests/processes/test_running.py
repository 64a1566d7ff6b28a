"""S53, S54: what a task prints, and how far it has come, can be seen while it runs; also from another process."""

from __future__ import annotations

import contextlib
import gc
import resource
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.commands.printing import MORE, Followed, Output
from geoflow.core.models import Progress
from geoflow.engine.tasks import place_of
from geoflow.executors.inline import _Kept, _Tee
from geoflow.executors.marker import MarkFile
from geoflow.executors.running import told_in
from geoflow.support import attempt, progress
from geoflow.support.text import overwritten
from geoflow.views.model import RunningTask
from tests.helpers import jobs
from tests.helpers.sessions import Drive, OpenSession, rows
from tests.helpers.waiting import is_running, wait_until

_SOURCE = """
import sys, time, pathlib
import geoflow as gf
print("before")
{does}
while not pathlib.Path({gate!r}).exists():
    time.sleep(0.01)
print("after")
"""


def held(gate: Path, does: str) -> dict[str, Any]:
    """A task that *does* this, and then waits for the *gate* to be there."""
    return {"do": "tell", "value": _SOURCE.format(does=does, gate=str(gate))}


def running(session: gf.Session, job: gf.JobHandle) -> tuple[RunningTask, ...]:
    return session.runtime.snapshot(job.id).running


@pytest.mark.on_duckdb
def test_S53_S54_what_a_task_prints_and_how_far_it_has_come_is_seen_while_it_runs(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session, gate = open_session(workers=1), tmp_path / "gate"
    job = session.submit("acts", tasks=[{}, held(gate, "gf.progress(3, 10, 'band 3')"), {}])
    wait_until(lambda: any(task.progress is not None for task in running(session, job)))
    (task,) = running(session, job)
    assert (task.task_id, task.stage, task.progress) == ("s1-t1", 1, Progress(3.0, 10.0, "band 3"))
    assert task.printed == "before\n"
    assert task.share == 0.3
    assert job.task("s1-t1").output == "before\n"
    assert "3 of 10 · band 3" in str(job)
    assert "3 of 10 · band 3" in job._repr_html_()
    gate.touch()
    job.wait()
    assert job.status == "completed"
    assert job.task("s1-t1").output == "before\nafter\n"
    assert running(session, job) == ()


@pytest.mark.parametrize("workers", [0, 2])
def test_S53_S54_another_process_sees_it_too_and_what_was_printed_stays_when_the_driver_is_killed(
    open_session: OpenSession, drive: Drive, tmp_path: Path, workers: int
) -> None:
    gate = tmp_path / "gate"
    does = "sys.stderr.write('\\r 10%|#  |\\r 20%|## |'); sys.stderr.flush(); gf.progress(2)"
    driver = drive({"tasks": [held(gate, does)]}, workers=workers)
    session = open_session(workers=0)
    wait_until(lambda: session.store.latest() is not None)
    row = session.store.latest()
    assert row is not None
    job = session.job(row.job_id)
    wait_until(lambda: any(task.progress is not None for task in running(session, job)))
    (task,) = running(session, job)
    assert task.progress == Progress(2.0, None, "")
    assert task.last_line == "20%|## |"
    assert job.task("s1-t0").output == "before\n\r 10%|#  |\r 20%|## |"
    assert "20%|## |" in str(job)
    (call,) = session.runtime.calls_of(row)
    assert (call.pid == driver.pid) == (workers == 0)
    driver.kill()
    driver.wait()
    assert running(session, job) == ()  # nobody drives it
    wait_until(lambda: not is_running(call.pid))
    gate.touch()
    assert job.resume().wait().status == "completed"
    printed = rows(session, "SELECT outcome, output FROM attempts WHERE stage = 1 ORDER BY attempt")
    assert printed[0] == ("lost", "before\n\r 10%|#  |\r 20%|## |")
    assert [outcome for outcome, _ in printed] == ["lost", "completed"]


def followed(session: gf.Session, job: gf.JobHandle, task_id: str) -> Iterator[str]:
    row = session.runtime.row(job.id)
    return Output(session.runtime, row, place_of(session.store, row, task_id), follow=True).lines(80)


@pytest.mark.on_duckdb(seldom=True)
@pytest.mark.parametrize("workers", [0, 1])
def test_S53_what_a_task_prints_can_be_followed_to_its_end_each_line_once(
    open_session: OpenSession, tmp_path: Path, workers: int
) -> None:
    session, gate = open_session(workers=workers, base_delay=0, max_retries=1), tmp_path / "gate"
    task = held(gate, "print('token=hush')")
    task["value"] = f"print('half ', end='', flush=True)\n{task['value']}\nraise OSError('again')"
    job = session.submit("acts", tasks=[task])
    if workers == 0:
        threading.Thread(target=job.wait).start()
    wait_until(lambda: any("before" in task.printed for task in running(session, job)))
    lines = followed(session, job, "s1-t0")
    assert next(lines) == "half before"
    gate.touch()
    assert list(lines) == ["token=***", "after", "half before", "token=***", "after"]


def test_S53_who_follows_what_is_too_long_to_be_kept_is_told_so(open_session: OpenSession, tmp_path: Path) -> None:
    session, gate = open_session(workers=1, output_limit=100), tmp_path / "gate"
    job = session.submit("acts", tasks=[held(gate, "print('x' * 200)")])
    wait_until(lambda: any("x" in task.printed for task in running(session, job)))
    lines = followed(session, job, "s1-t0")
    assert [next(lines), next(lines)] == ["before", "x" * 200]
    gate.touch()
    assert list(lines) == [MORE]


def test_S40_what_is_logged_of_a_job_can_be_followed_to_its_end_each_line_once(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session, gate = open_session(workers=1), tmp_path / "gate"
    source = "import logging; logging.getLogger('mine').warning('{} token=hush')"
    task = held(gate, source.format("halfway"))
    task["value"] += source.format("the end")
    job = session.submit("acts", tasks=[task])
    lines = Followed(session.runtime, job, None, {"level": "WARNING"}).lines(80)
    assert next(lines).endswith("  WARNING  s1-t0  halfway token=***")
    gate.touch()
    assert [line.rpartition("  ")[2] for line in lines] == ["the end token=***"]
    last_two = list(Followed(session.runtime, job, 2, {}).lines(80))  # of a job that has ended
    assert [line.rpartition("  ")[2] for line in last_two] == ["the end token=***", f"job {job.id[:8]} completed"]


@pytest.mark.parametrize("how", ["cancel", "interrupt"])
def test_S53_an_attempt_that_is_ended_with_its_job_keeps_what_it_printed(
    open_session: OpenSession, tmp_path: Path, how: str
) -> None:
    session = open_session(workers=1)
    job = session.submit("acts", tasks=[held(tmp_path / "gate", "gf.progress(1)")])
    wait_until(lambda: any(task.progress is not None for task in running(session, job)))
    if how == "cancel":
        job.cancel()
    else:
        session.close()
    assert open_session(workers=0).job(job.id).task("s1-t0").output == "before\n"


def test_S53_so_does_one_that_is_interrupted_here(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    with pytest.raises(KeyboardInterrupt):
        session.run("acts", tasks=[{"do": "tell", "value": "print('before'); raise KeyboardInterrupt"}])
    (row,) = session.store.jobs()
    assert session.job(row.job_id).task("s1-t0").output == "before\n"


def test_S54_a_task_is_not_given_the_progress_of_the_one_before_it(open_session: OpenSession, tmp_path: Path) -> None:
    session, gate = open_session(workers=1), tmp_path / "gate"
    told = {"do": "tell", "value": "import geoflow as gf\nlist(gf.track(range(5), 'all of it'))"}
    job = session.submit("acts", tasks=[told, held(gate, "")])
    wait_until(lambda: [task.printed for task in running(session, job)] == ["before\n"])
    (task,) = running(session, job)
    assert (task.task_id, task.progress) == ("s1-t1", None)
    gate.touch()
    assert job.wait().status == "completed"


def telling(params: dict[str, Any], context: gf.TaskContext) -> dict[str, Any]:
    context.progress(2, 4, "by its context")
    Path(params["told"]).touch()
    while not Path(params["gate"]).exists():
        time.sleep(0.01)
    return {"success": True, "result": list(context._asdict())}


def test_S54_a_context_tells_of_it_and_has_the_fields_that_it_had(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(workers=1)
    session.register(jobs.Acts, handlers={"act": telling})
    job = session.submit("acts", tasks=[{name: str(tmp_path / name) for name in ("told", "gate")}])
    wait_until((tmp_path / "told").exists)
    assert [task.progress for task in running(session, job)] == [Progress(2, 4, "by its context")]
    (tmp_path / "gate").touch()
    job.wait()
    assert (job.task("s1-t0").result or {})["result"] == list(gf.TaskContext._fields)


def test_S54_who_tells_nothing_has_no_file_for_it(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    session.submit("acts", tasks=[{}, {"do": "tell", "value": "print('hello')"}]).wait()
    folder = Path(session.runtime.executor.where() or "")
    assert list(folder.glob("*.mark"))
    assert not list(folder.glob("*.progress"))


# Without a worker


def test_S53_what_is_printed_here_is_kept_in_order_whatever_the_disk_has_room_for(tmp_path: Path) -> None:
    kept = _Kept(tmp_path / "slot-0.out", 30, mark := MarkFile(None))
    kept.write("first\n")
    assert kept.take() == "first\n"
    assert (mark.printed_before(), kept.take()) == (6, None)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12, limit[1]))
    try:
        kept.write("second\nthird")
        kept.write(" and\nmore")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert kept.take() == "second\nthird and\nmore"
    kept.write("x" * 100)
    assert kept.take() == f"{'x' * 15}\n… 70 more bytes …\n{'x' * 15}"


def test_S53_with_workers_0_prints_of_two_sessions_in_two_threads_go_back_to_the_screen(
    open_session: OpenSession, tmp_path: Path
) -> None:
    """Whichever of them begins or ends first."""
    before, gate = sys.stdout, tmp_path / "gate"
    first, second = (open_session(tmp_path / f"{n}.db", workers=0) for n in range(2))
    job = first.submit("acts", tasks=[held(gate, "")])
    waits = threading.Thread(target=job.wait)
    waits.start()
    wait_until(lambda: bool(running(first, job)))
    assert sys.stdout is not before
    print("between the two")
    opens = {"do": "tell", "value": f"print('there')\nopen({str(gate)!r}, 'w')"}
    assert second.run("acts", tasks=[opens]).task("s1-t0").output == "there\n"
    waits.join(20)
    assert job.task("s1-t0").output == "before\nafter\n"
    assert sys.stdout is before


def test_S53_with_workers_0_what_processes_print_that_a_task_started_is_kept_too(open_session: OpenSession) -> None:
    source = "import os; print('mine')\nif not (child := os.fork()): print('its'); os._exit(0)\nos.waitpid(child, 0)"
    job = open_session(workers=0).run("acts", tasks=[{"do": "tell", "value": source}])
    assert job.task("s1-t0").output == "mine\nits\n"


def test_S54_with_workers_0_two_threads_tell_each_of_their_own_task(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def tell(number: int) -> None:
        with attempt.in_slot(attempt.Slot(str(tmp_path / f"slot-{number}"), lambda: 5.0)), attempt.attempts():
            both.wait(10)
            for step in range(3):
                gf.progress(step, 10 + number)
            both.wait(10)

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    found = [told_in(tmp_path / f"slot-{number}.progress", 5.0) for number in range(2)]
    assert found == [Progress(2, 10, ""), Progress(2, 11, "")]


def test_S54_where_no_worker_runs_a_task_it_does_nothing() -> None:
    gf.progress(1, 2, "nobody looks")
    assert list(gf.track(iter("abc"))) == ["a", "b", "c"]
    with pytest.raises(TypeError):
        gf.progress(None)  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process is a worker in which a call runs since 5.0."""
    monkeypatch.setattr(attempt, "_slot", attempt.Slot(str(tmp_path / "slot-0-0"), lambda: 5.0))
    with attempt.attempts():
        yield tmp_path / "slot-0-0.progress"


def test_S54_track_tells_of_an_item_once_the_next_is_asked_for(place: Path) -> None:
    seen = [told_in(place, 5.0) for _ in gf.track("ab", "letters")]
    assert seen == [Progress(0, 2, "letters"), Progress(1, 2, "letters")]
    assert told_in(place, 5.0) == Progress(2, 2, "letters")
    assert told_in(place, 6.0) is None
    next(iter(gf.track(count(), total=7)))
    assert told_in(place, 5.0) == Progress(0, 7, "")


@pytest.mark.parametrize("text", ["", "é" * 59, "a" * 121, "a" + "é" * 60, "\ud800", "日本語" * 50])
def test_S54_a_text_that_is_too_long_is_cut_between_two_letters(place: Path, text: str) -> None:
    gf.progress(1, None, text)
    found = told_in(place, 5.0)
    assert found is not None
    whole = text.encode("utf-8", "backslashreplace").decode()
    assert whole.startswith(found.text)
    assert len(found.text.encode()) > min(len(whole.encode()), 120) - 3


def test_S54_what_is_read_while_it_is_written_is_of_one_telling(tmp_path: Path) -> None:
    """Of another process, which tells without a pause until it is ended."""
    source = textwrap.dedent("""
        import sys
        from geoflow.support import attempt, progress
        attempt.settle_in(attempt.Slot(sys.argv[1], lambda: 5.0))
        with attempt.attempts():
            number = 0
            while True:
                number += 1
                progress.progress(number, number, str(number))
    """)
    stem = tmp_path / "slot-0-0"
    with subprocess.Popen([sys.executable, "-c", source, str(stem)]) as writer:
        path = stem.with_suffix(progress.SUFFIX)
        wait_until(path.exists)
        wait_until(lambda: told_in(path, 5.0) is not None)
        found = [told for _ in range(500) if (told := told_in(path, 5.0)) is not None]
        writer.kill()
    assert found
    assert all(told.done == told.total == float(told.text) for told in found)


@pytest.mark.parametrize(
    ("seconds", "mean", "said"),
    [
        (720.0, 4.0, "running 12 min 00 s, others took 4.0 s"),
        (9.0, 0.1, "running 9.0 s"),
        (720.0, 200.0, "running 12 min 00 s"),
    ],
)
def test_S53_a_task_that_runs_for_much_longer_than_others_is_said_to_be_overdue(
    seconds: float, mean: float, said: str
) -> None:
    assert RunningTask("t", 1, seconds, None, mean, None, "").facts == [said]


def test_S53_of_a_line_that_is_written_over_the_last_is_shown() -> None:
    assert overwritten("a\r\nb\rcd\r\n 1%\r 2%\r") == "a\ncd\n 2%"
    assert RunningTask("t", 1, 3.0, None, None, None, "one\n\n \n").last_line == "one"


def watching(idle: float) -> gf.JobType:
    t = gf.JobType("watching")

    @t.stage
    def scan(p: dict) -> list[str]:
        return ["nothing", "print", "progress"]

    @t.each(scan, idle_timeout=idle, retries=0)
    def tell(how: str, p: dict) -> str:
        """Tell of itself in one way, or in none, until the gate is there."""
        done = 0
        print("it begins")
        while not Path(p["gate"]).exists():
            done += 1
            if how == "print":
                print(done)
            elif how == "progress":
                gf.progress(done)
            time.sleep(0.02)
        return how

    return t


@pytest.mark.on_duckdb(seldom=True)
def test_S58_a_task_that_neither_prints_nor_tells_of_its_progress_is_ended_and_those_that_do_go_on(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session, gate = open_session(workers=3), tmp_path / "gate"
    job = session.submit(watching(idle=1.5), gate=str(gate))
    wait_until(lambda: rows(session, "SELECT 1 FROM tasks WHERE status = 'failed'") != [])
    assert len(running(session, job)) == 2
    gate.touch()
    assert job.wait().status == "failed"
    assert "timed out: for 1.5 s (idle_timeout) it neither printed nor told of its progress" in (job.error or "")
    (failed,) = rows(session, "SELECT error_category, output FROM attempts WHERE outcome = 'failed'")
    assert failed[0] == "timeout"
    assert failed[1].startswith("it begins")
    assert rows(session, "SELECT count(*) FROM attempts WHERE outcome = 'completed'") == [(3,)]  # the scan, and two


def test_what_stood_before_a_screen_that_was_closed_meanwhile_goes_without_a_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", missed.append)
    kept = _Kept(None, 100, MarkFile(None))
    tee = _Tee("stdout", kept)
    with (tmp_path / "screen").open("w") as screen, contextlib.redirect_stdout(screen), tee:
        print("kept")
    assert kept.take() == "kept\n"
    del tee
    gc.collect()
    assert missed == []
    kept.close()
