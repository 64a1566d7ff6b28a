"""S52: files that are there once their task has succeeded, and a folder for what it needs meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoflow.testing import failure_of
from geoflow.views.tracebacks import place
from tests.helpers import writing
from tests.helpers.sessions import OpenSession, rows
from tests.helpers.waiting import wait_until
from tests.helpers.writing import WHOLE, left, submit

pytestmark = pytest.mark.usefixtures("temp")  # nobody else's attempts are in it
everywhere = pytest.mark.parametrize("workers", [0, 1])


@everywhere
def test_S52_an_output_is_there_whole_once_its_task_has_returned_and_not_before(
    open_session: OpenSession, out: Path, workers: int
) -> None:
    job = submit(open_session(workers=workers), {"path": str(out / "a.tif")})
    job.wait()
    assert job.task(f"{1:04}-0").result == {"success": True, "result": {"path": str(out / "a.tif"), "was": False}}
    assert (out / "a.tif").read_text() == WHOLE
    assert left(out) == []


@everywhere
@pytest.mark.parametrize("do", ["raise", "raise later", "return failure"])
def test_S52_of_an_attempt_that_fails_nothing_is_left_and_what_was_there_stays(
    open_session: OpenSession, out: Path, workers: int, do: str
) -> None:
    (out / "a.tif").write_text("of an earlier run")
    job = submit(open_session(workers=workers, max_retries=0), {"path": str(out / "a.tif"), "do": do})
    job.wait()
    assert job.status == "failed"
    assert (out / "a.tif").read_text() == "of an earlier run"
    assert left(out) == []


def test_S52_of_an_attempt_that_is_interrupted_here_nothing_is_left(open_session: OpenSession, out: Path) -> None:
    session = open_session(workers=0)
    session.register(writing.Writes, handlers={"write": writing.write})
    with pytest.raises(KeyboardInterrupt):
        session.run("writes", tasks=[{"path": str(out / "a.tif"), "do": "interrupt"}], number=1)
    assert list(out.iterdir()) == []
    assert left(out) == []


def test_S48_S52_an_output_is_as_its_attempt_left_it_when_it_is_looked_at_for_an_update(
    open_session: OpenSession, out: Path
) -> None:
    """Its file is renamed before the attempt ends, and no later."""
    session = open_session(workers=1)
    stage = {**writing.Writes.stages[0], "reuse": True, "outputs": ["path"]}
    session.register(type("Writes", (writing.Writes,), {"stages": [stage]}), handlers={"write": writing.write_first})
    for number, reused in ((2, False), (3, True)):
        job = session.run("writes", tasks=[{"path": str(out / "b.tif")}], number=number)
        assert (job.status, bool(job.tasks()["reused_from"].notna().all())) == ("completed", reused)
    (out / "b.tif").write_text("changed since")
    job = session.run("writes", tasks=[{"path": str(out / "b.tif")}], number=4)
    assert not job.tasks()["reused_from"].notna().any()
    assert (out / "b.tif").read_text() == WHOLE


def test_S52_what_a_worker_that_was_killed_had_begun_is_removed_by_its_session(
    open_session: OpenSession, out: Path
) -> None:
    session = open_session(workers=1, base_delay=0.0)
    task = {"path": str(out / "a.tif"), "do": "die", "until_attempt": 2, "found": str(out / "found")}
    job = submit(session, task)
    job.wait()
    assert (job.status, (out / "a.tif").read_text()) == ("completed", WHOLE)
    wait_until(lambda: left(out) == [])
    assert not any(Path(line).exists() for line in (out / "found").read_text().split())


@pytest.mark.parametrize("how", ["timeout", "cancel", "close"])
def test_S52_of_a_task_that_is_ended_nothing_is_left(open_session: OpenSession, out: Path, how: str) -> None:
    session = open_session(workers=1, max_retries=0, task_timeout=0.5 if how == "timeout" else None)
    job = submit(session, {"path": str(out / "a.tif"), "do": "hang", "found": str(out / "found")})
    wait_until(lambda: (out / "found").exists() and len((out / "found").read_text().split()) == 2)
    assert all(Path(line).parent.exists() for line in (out / "found").read_text().split())
    if how == "timeout":
        job.wait()
    else:
        (job.cancel if how == "cancel" else session.close)()
    if how == "close":
        assert left(out) == [], "at once: nobody is there to do it later"
    wait_until(lambda: left(out) == [])
    assert not (out / "a.tif").exists()


@everywhere
@pytest.mark.parametrize("what", ["draft", "scratch"])
def test_S52_a_result_that_names_what_will_be_gone_fails_its_task(
    open_session: OpenSession, out: Path, workers: int, what: str
) -> None:
    session = open_session(workers=workers)
    job = submit(session, {"path": str(out / "a.tif"), "do": what})
    job.wait()
    ((error, retryable),) = rows(session, "SELECT error, retryable FROM attempts")
    assert "names a place that is gone once the task has ended" in error
    assert not retryable
    assert list(out.iterdir()) == []


def test_S52_what_is_put_beside_an_output_comes_along_and_that_of_the_old_file_goes(
    open_session: OpenSession, out: Path
) -> None:
    for name in ("a.tif", "a.tif.ovr", "a.tif.aux.xml", "a.tif.txt"):
        (out / name).write_text("old")
    submit(open_session(workers=0), {"path": str(out / "a.tif"), "do": "more"}).wait()
    found = {path.name: path.read_text() for path in out.iterdir()}
    assert found == {"a.tif": WHOLE, "a.tif.ovr": "new", "a.tif.txt": "old"}


def test_S52_two_attempts_of_one_name_both_write_it_whole(open_session: OpenSession, out: Path) -> None:
    session = open_session(workers=2)
    tasks = [{"path": str(out / "a.tif"), "pause": 0.002, "found": str(out / f"found-{n}")} for n in range(6)]
    job = submit(session, *tasks)
    job.wait()
    assert job.status == "completed"
    assert (out / "a.tif").read_text() == WHOLE
    assert len({(out / f"found-{number}").read_text() for number in range(6)}) == 6
    assert left(out) == []


def test_S52_a_task_that_is_run_here_writes_as_in_a_worker(open_session: OpenSession, out: Path) -> None:
    session = open_session(workers=1, max_retries=0)
    submit(session, {"path": str(out / "a.tif"), "do": "return failure"}).wait()
    task = session.job(f"{1:064x}").task(f"{1:04}-0")
    assert task.run()["success"] is False
    assert list(out.iterdir()) == []
    assert failure_of(task.handler, task.parameters, task.context()).error == "no"
    assert list(out.iterdir()) == []
    assert writing.write({**task.parameters, "do": "more"}, task.context())["success"]
    assert sorted(path.name for path in out.iterdir()) == ["a.tif", "a.tif.ovr"]
    task = session.run("writes", tasks=[{"path": str(out / "b.tif")}], number=2).task("0002-0")
    (out / "b.tif").unlink()
    task.debug()
    assert (out / "b.tif").read_text() == WHOLE


@everywhere
def test_S52_what_a_thread_of_a_handlers_wrote_is_its_attempts(
    open_session: OpenSession, out: Path, workers: int
) -> None:
    session = open_session(workers=workers, max_retries=0)
    submit(session, {"path": str(out / "a.tif"), "do": "in a thread"}).wait()
    # Where tasks may run in several threads of one process, whose a thread is that one began cannot be told.
    assert [path.name for path in out.iterdir()] == ([] if workers else ["thread"])


def test_S52_what_a_fork_of_a_handlers_wrote_is_there_at_the_end_of_its_block(
    open_session: OpenSession, out: Path
) -> None:
    session = open_session(workers=1, max_retries=0)
    submit(session, {"path": str(out / "a.tif"), "do": "in a fork"}).wait()
    assert [path.name for path in out.iterdir()] == ["fork"]
    assert left(out) == []


def test_S52_a_path_that_is_refused_fails_its_task_for_good_where_the_handler_asked_for_it(
    open_session: OpenSession, out: Path
) -> None:
    job = submit(open_session(workers=1), {"path": str(out)})
    job.wait()
    (failed,) = job.errors().itertuples()
    assert (failed.attempt, failed.error_category) == (1, "permanent")
    assert failed.error == f"gf.output({str(out)!r}): that is a folder. Give the path of a file in it."
    assert "write in writing.py" in str(place(str(failed.traceback)))
