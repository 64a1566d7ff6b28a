"""What drives jobs fails, at any call of the executor, the store, the clock or the log: nobody waits for ever.

Each sweep fails one call after the other, until a run has fewer of them: who waits is told, in the same session the job
is brought to its end, and no task that had completed runs again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, cycle, product
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.errors import DriverFailed, GeoflowError
from tests.faults.driving import check_store
from tests.helpers.clocks import ManualClock
from tests.helpers.profiles import turns
from tests.helpers.sessions import ROOT, OpenSession, Trace, rows
from tests.helpers.waiting import wait_until

SECONDS = 30.0
TASKS = 4
Act = Callable[[gf.Session, dict[str, Any]], None]


class Gone(BaseException):
    """What no handler of Exception sees."""


class Fault:
    """Raises at call number *at* of whatever it stands before, in the thread of the driver or of who submits."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error = at, error
        self.calls = 0
        self.where = ""

    def comes(self, name: str) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.where = name
            raise self.error


class Faulty:
    """Stands before *part*, and lets the fault come before each call of its public methods."""

    def __init__(self, part: Any, fault: Fault, spared: tuple[str, ...] = ()) -> None:
        self._part, self._fault, self._spared = part, fault, spared

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if not callable(found) or name.startswith("_") or name in self._spared:
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._fault.comes(name)
            return found(*args, **options)

        return call


class FaultyLog(logging.Handler):
    """A user's own handler, which does not keep its errors to itself."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self._fault = fault

    def handle(self, record: logging.LogRecord) -> bool:
        self._fault.comes(record.getMessage())
        return True


@contextmanager
def faulty(session: gf.Session, part: str, fault: Fault) -> Iterator[None]:
    """The session with *part* of it failing as *fault* says."""
    engine = session.runtime
    if part == "log":
        handler, logger = FaultyLog(fault), logging.getLogger("geoflow")
        logger.addHandler(handler)
        yield
        logger.removeHandler(handler)
        return
    before = {"executor": engine.executor, "store": engine.store, "clock": engine.clock}[part]
    # What shows the job asks the store too: that is not the driver.
    looks = ("find", "reading", "close", "open") if part == "store" else ("wait",) if part == "executor" else ()
    now: Any = Faulty(before, fault, looks)
    if part == "clock":
        engine.clock = now
    else:
        engine.__dict__[part] = now
    engine.__dict__.pop("machine", None)
    yield
    fault.at = 0


def outcome_of(act: Callable[[], Any]) -> tuple[str, float]:
    """What *act* raised, or nothing, and how long it took; it is over within `SECONDS`."""
    told: list[str] = []

    def acted() -> None:
        try:
            act()
            told.append("")
        except BaseException as exc:
            told.append(f"{type(exc).__name__}: {exc}")

    thread = threading.Thread(target=acted, daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(SECONDS)
    assert told, "who waits is told"
    return told[0], time.monotonic() - began


def run(session: gf.Session, params: dict[str, Any]) -> None:
    session.run("three_acts", params)


def submit_and_wait(session: gf.Session, params: dict[str, Any]) -> None:
    session.submit("three_acts", params).wait()


class Sweep:
    """One fault at each call of a part, in a job each."""

    def __init__(self, open_session: OpenSession, folder: Path, workers: int, part: str) -> None:
        self._open_session, self._folder, self._workers, self._part = open_session, folder, workers, part
        self.points = 0
        self.longest = 0.0

    def fails(self, at: int, act: Act, error: BaseException) -> bool:
        """Whether a job came to the call *at*; if so, it has gone as it should."""
        (folder := self._folder / str(at)).mkdir()
        trace = Trace(folder / "trace")
        session = self._open_session(folder / "work.db", workers=self._workers, clock=ManualClock(), max_retries=1)
        flaky = {"do": "raise", "value": "OSError", "until_attempt": 2}
        params = {"tasks": [{"trace": trace.path}] * (TASKS - 1) + [{"trace": trace.path, **flaky}]}
        fault = Fault(at, error)
        session.store.open()
        with faulty(session, self._part, fault):
            said, seconds = outcome_of(lambda: act(session, params))
        if not fault.where:
            session.close()
            return False
        self.points += 1
        self.longest = max(self.longest, seconds)
        where = f"{self._part} {at}: {fault.where}: {said}"
        done = {name for (name,) in rows(session, "SELECT task_id FROM tasks WHERE status = 'completed'")}
        ran = Counter(line.split()[0] for line in trace.lines())
        ended = rows(session, "SELECT status FROM jobs WHERE ended_at IS NOT NULL")
        assert said or ended == [("completed",)], where
        for job in session.resume():
            job.wait(timeout=SECONDS)
        job = session.submit("three_acts", params, on_existing="resume").wait(timeout=SECONDS)
        assert job.status == "completed", where
        check_store(session)
        now = Counter(line.split()[0] for line in trace.lines())
        assert {name: now[name] for name in done} == {name: ran[name] for name in done}, where
        recorded = dict(rows(session, "SELECT task_id, count(*) FROM attempts GROUP BY 1"))
        assert all(now[name] <= recorded[name] for name in now), where
        session.close()
        return True


PARTS = ("executor", "store", "clock", "log")
# At least so many calls does a job of three stages make; the sweep finds them by running into them.
LEAST = {"executor": 40, "store": 20, "clock": 20, "log": 4}


WAYS = list(product([run, submit_and_wait], [RuntimeError("out of the blue"), Gone("for good")]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """*ways*: who submits, and what is raised. Of several ways each has its turn, one call after another."""
    if "ways" in metafunc.fixturenames:
        metafunc.parametrize("ways", turns(metafunc.config, WAYS))


@pytest.mark.parametrize("part", PARTS)
def test_S36_a_fault_at_any_call_of_the_driver_is_told_and_the_same_session_finishes_the_job(
    open_session: OpenSession, tmp_path: Path, part: str, ways: Sequence[tuple[Act, BaseException]]
) -> None:
    sweep = Sweep(open_session, tmp_path, 0, part)
    for at, (act, error) in zip(count(1), cycle(ways), strict=False):
        if not sweep.fails(at, act, error):
            break
    print(f"{part}: {sweep.points} points, all returned, the longest after {sweep.longest:.2f} s")
    assert sweep.points >= LEAST[part]


@pytest.mark.parametrize("part", ["executor", "store", "clock"])
def test_S36_a_fault_at_calls_of_the_driver_of_worker_processes_leaves_a_session_that_works(
    open_session: OpenSession, tmp_path: Path, part: str
) -> None:
    sweep = Sweep(open_session, tmp_path, 2, part)
    for at in range(3, 60, 9):
        sweep.fails(at, submit_and_wait, OSError("read-only"))
    print(f"{part}: {sweep.points} points, all returned, the longest after {sweep.longest:.2f} s")
    assert sweep.points >= 2


def test_S36_what_stops_a_job_is_told_with_what_to_do(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    session.runtime.__dict__["executor"] = Faulty(session.runtime.executor, Fault(5, OSError("no room")))
    job = session.submit("acts", tasks=[{}])
    with pytest.raises(DriverFailed, match=r"was stopped, .*OSError: no room.* job\.resume\(\) goes on"):
        job.wait(timeout=SECONDS)
    assert job.interrupted
    assert isinstance(job.resume().wait(timeout=SECONDS).result(), dict)


def test_S36_a_handler_that_raises_what_an_interrupt_raises_ends_no_driving_thread(open_session: OpenSession) -> None:
    session = open_session(workers=0, max_retries=0)
    job = session.submit("acts", tasks=[{"do": "raise", "value": "KeyboardInterrupt"}, {}])
    wait_until(lambda: job.status == "failed", SECONDS)  # by the driving thread: a wait would take over from it
    assert "KeyboardInterrupt" in (job.error or "")


def test_S35_the_callback_is_called_though_no_thread_is_to_be_had(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    session = open_session(workers=0, on_job_complete=lambda **about: called.append(about["status"]))
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if "_call_back" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert session.run("acts", tasks=[{}]).status == "completed"
    assert called == ["completed"]


def test_S37_a_job_whose_start_fails_is_nobodys_and_can_be_taken_up(open_session: OpenSession, tmp_path: Path) -> None:
    """F3: its row is stored by then, and its lock was kept."""
    session = open_session()
    executor = session.runtime.executor
    session.runtime.__dict__["executor"] = Faulty(executor, Fault(2, FileNotFoundError("the temporary folder is gone")))
    with pytest.raises(FileNotFoundError, match="the temporary folder is gone"):
        session.submit("acts", tasks=[{}])
    (row,) = session.store.jobs()
    assert session.store.driver(row.job_key) is None
    other = open_session()
    (job,) = other.resume()
    assert job.wait(timeout=SECONDS).status == "completed"


TIDIED = """
import os, shutil, sys
sys.path.insert(0, sys.argv[1])
from tests.helpers import jobs
import geoflow as gf

session = gf.open(sys.argv[2], workers=1, display="none")
session.register(jobs)
assert session.run("acts", tasks=[]).status == "completed"
session.close()
shutil.rmtree(os.environ["TMPDIR"])
try:
    session.run("acts", tasks=[{}])
except FileNotFoundError:
    print("refused")
os.mkdir(os.environ["TMPDIR"])
assert session.resume() == []  # nothing of it was stored
print(session.run("acts", tasks=[{}]).status)
session.close()
"""


def test_S37_a_session_whose_temporary_folder_was_tidied_away_goes_on_once_it_is_back(tmp_path: Path) -> None:
    (temporary := tmp_path / "t").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", TIDIED, ROOT, tmp_path / "work.db"],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["refused", "completed"], done.stderr


def test_S37_a_job_for_which_no_thread_can_be_started_is_put_back(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(workers=0)

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            session.submit("acts", tasks=[{}])
    job = session.job(session.store.jobs()[0].job_id)
    assert job.interrupted
    assert job.resume().wait(timeout=SECONDS).status == "completed"
    assert issubclass(DriverFailed, GeoflowError)
