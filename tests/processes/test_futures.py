"""Jobs in pools that the user gives: what holds there as in worker processes, and what cannot."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from geoflow.core.chunks import Chunk
from geoflow.errors import JobFailed, ParameterError
from geoflow.executors import futures
from tests.helpers import jobs
from tests.helpers.clocks import ManualClock
from tests.helpers.sessions import OpenSession, rows
from tests.helpers.waiting import wait_until

MakePool = Callable[..., Executor]


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2)


def _processes(method: str = "spawn") -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Pools that are shut down at the end, with what still runs in their processes."""
    made: list[Executor] = []

    def make(how: Callable[..., Executor], *arguments: Any) -> Executor:
        made.append(how(*arguments))
        return made[-1]

    yield make
    for pool in made:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


ALL = pytest.mark.parametrize(
    "how",
    [_threads, _processes, lambda: _processes("forkserver")],
    ids=["threads", "spawn", "forkserver"],
)


@ALL
def test_S14_S33_three_stages_hand_their_results_on_in_a_pool_that_stays_open(
    open_session: OpenSession, make_pool: MakePool, how: Callable[[], Executor]
) -> None:
    pool = make_pool(how)
    session = open_session(executor=pool, workers=None)
    assert session.settings.workers == 2
    result = session.run("three_acts", tasks=[{"value": n} for n in range(300)]).result()
    assert result["values"][:300] == list(range(300))
    assert result["completed"] == 601
    session.close()
    assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize("how", [_threads, _processes], ids=["threads", "processes"])
def test_S23_S26_user_exceptions_never_break_the_pool_and_are_retried_as_anywhere(
    open_session: OpenSession, make_pool: MakePool, clock: ManualClock, how: Callable[[], Executor]
) -> None:
    session = open_session(executor=make_pool(how), clock=clock)
    names = ["OSError", "ValueError", "SystemExit", "KeyboardInterrupt"]
    session.run("acts", tasks=[{"do": "raise", "value": name} for name in names])
    found = rows(session, "SELECT error_type, count(*) FROM attempts GROUP BY 1 ORDER BY 1")
    assert found == [("KeyboardInterrupt", 4), ("OSError", 4), ("SystemExit", 1), ("ValueError", 1)]
    assert session.run("acts", tasks=[{}]).status == "completed"


def test_functions_of_a_notebook_travel_to_a_pool_of_processes_by_value(
    open_session: OpenSession, make_pool: MakePool
) -> None:
    factor = 7

    def multiply(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {"value": params["value"] * factor}}

    session = open_session(executor=make_pool(_processes))
    session.register(type("Mine", (jobs.Acts,), {"job_type": "mine", "__module__": "__main__"}), {"act": multiply})
    assert session.run("mine", tasks=[{"value": n} for n in range(5)]).result()["values"] == [0, 7, 14, 21, 28]


def test_prints_in_processes_are_kept_with_their_attempt_as_far_as_python_writes_them(
    open_session: OpenSession, make_pool: MakePool
) -> None:
    session = open_session(executor=make_pool(_processes), output_limit=100)
    tasks = [{"do": "say", "value": "first"}, {}, {"do": "say", "value": "x" * 200}]
    session.run("acts", tasks=tasks)
    outputs = dict(rows(session, "SELECT task_id, output FROM attempts"))
    assert outputs["s1-t0"] == "first\non stderr\n"
    assert outputs["s1-t1"] is None
    assert outputs["s1-t2"] == "x" * 100 + "\n… 111 more characters"


def test_prints_in_threads_are_shown_and_not_kept(
    open_session: OpenSession, make_pool: MakePool, capsys: pytest.CaptureFixture[str]
) -> None:
    session = open_session(executor=make_pool(_threads))
    session.run("acts", tasks=[{"do": "say", "value": "hello"}])
    assert rows(session, "SELECT output FROM attempts") == [(None,)]
    assert "hello" in capsys.readouterr().out


@pytest.mark.parametrize("how", [_threads, _processes], ids=["threads", "processes"])
def test_S40_what_a_handler_logs_in_a_pool_has_its_job_task_and_attempt(
    open_session: OpenSession, make_pool: MakePool, caplog: pytest.LogCaptureFixture, how: Callable[[], Executor]
) -> None:
    session = open_session(executor=make_pool(how), log_level="INFO")
    # Threads log where the process does; geoflow's own file takes what is logged below its name.
    say = "geoflow.users.own"
    session.register(type("Mine", (jobs.Acts,), {"job_type": "mine", "__module__": "__main__"}), {"act": _logs_to(say)})
    job = session.run("mine", tasks=[{"value": n} for n in range(20)])
    session.close()
    assert session.settings.log_path is not None
    lines = [json.loads(line) for line in session.settings.log_path.read_text().splitlines()]
    said = {line["message"]: line for line in lines if line["logger"] == say}
    assert len(said) == 20
    for n in range(20):
        line = said[f"value {n}"]
        assert (line["job_id"], line["task_id"], line["attempt"]) == (job.id, f"s1-t{n}", 1)


def _logs_to(name: str) -> Any:
    def act(params: dict[str, Any]) -> dict[str, Any]:
        import logging

        logging.getLogger(name).warning("value %d", params["value"])
        return {"success": True}

    return act


@pytest.mark.on_duckdb
def test_S30_a_pool_whose_process_dies_is_reported_and_the_job_is_finished_in_a_new_one(
    open_session: OpenSession, make_pool: MakePool, tmp_path: Path
) -> None:
    session = open_session(executor=make_pool(_processes))
    once = {"do": "signal", "value": "SIGKILL", "until_attempt": 2}
    job = session.run("acts", tasks=[{}, {}, once, {}])
    assert "The ProcessPoolExecutor given as executor= takes no more work (" in (job.error or "")
    assert "Open a session with a new one" in (job.error or "")
    assert rows(session, "SELECT count(*) FROM tasks WHERE status = 'processing'") == [(0,)]
    session.close()
    job = open_session(executor=make_pool(_processes)).job(job.id).resume()
    assert job.wait(timeout=60).status == "completed"


class WorkerLost(Exception):
    """As a pool of many machines raises it for the call of a machine that is gone."""


class Lossy(ThreadPoolExecutor):
    """Loses the call whose parameters say ``lost``, with whatever travels with it, as its machine's death would."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        chunk: Chunk = pickle.loads(args[0])
        given = [call.parameters for call in chunk.batch.calls()]  # a plan's have those of all its tasks inside
        if {"value": "lost"} in given or '"name":"lost"' in chunk.batch.parameters:
            future: Future[Any] = Future()
            future.set_exception(WorkerLost("the machine is gone"))
            return future
        return super().submit(fn, *args, **kwargs)


@pytest.mark.on_duckdb
def test_S30_calls_lost_together_are_suspects_and_only_the_one_lost_alone_is_charged(
    open_session: OpenSession, make_pool: MakePool
) -> None:
    session = open_session(executor=make_pool(Lossy, 2), max_retries=1, base_delay=0.01)
    tasks: list[dict[str, Any]] = [{"value": n} for n in range(400)]
    tasks[200] = {"value": "lost"}
    job = session.run("acts", tasks=tasks)
    assert "WorkerDied: the pool lost it: WorkerLost: the machine is gone" in (job.error or "")
    assert rows(session, "SELECT task_id, retries FROM tasks WHERE retries > 0 OR status <> 'completed'") == [
        ("s1-t200", 1)
    ]
    lost = dict(rows(session, "SELECT task_id, count(*) FROM attempts WHERE outcome = 'lost' GROUP BY 1"))
    assert len(lost) > 1
    lost.pop("s1-t200")  # which may be lost again when it is retried, beside others
    assert set(lost.values()) == {1}


def test_S17_a_plan_whose_worker_is_lost_fails_the_job(open_session: OpenSession, make_pool: MakePool) -> None:
    job = open_session(executor=make_pool(Lossy, 2)).run("acts", tasks=[], name="lost")
    assert "Stage 1 (act) could not be planned: WorkerDied: the pool lost it" in (job.error or "")


def test_S31_a_task_past_its_timeout_is_reported_and_its_late_answer_dropped(
    open_session: OpenSession,
    make_pool: MakePool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(futures, "START_SECONDS", 0.0)
    session = open_session(executor=make_pool(_threads), task_timeout=0.7, max_retries=1, base_delay=0.01)
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    mine = type("Mine", (jobs.Acts,), {"job_type": "mine", "__module__": "__main__"})
    session.register(mine, {"act": _opens_at_first})
    job = session.run("mine", tasks=[{"value": gate, "started": str(tmp_path / "started")}, *[{}] * 50])
    assert job.status == "completed"
    assert rows(session, "SELECT attempt, outcome, error_category FROM attempts WHERE task_id = 's1-t0'") == [
        (1, "failed", "timeout"),
        (2, "completed", None),
    ]
    before = rows(session, "SELECT * FROM attempts")
    assert len(before) == 52
    # Before the answer may come: it is told of once. Where a file is written, nothing gets to the root logger.
    logger = logging.getLogger("geoflow.executors.futures")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    caplog.set_level("INFO", logger.name)
    ends = os.open(gate, os.O_RDWR)
    os.write(ends, b"x")
    turns = count()
    wait_until(lambda: bool(session.run("mine", tasks=[], turn=next(turns)) and "came late" in caplog.text))
    os.close(ends)
    assert rows(session, "SELECT * FROM attempts") == before


def test_a_pool_all_of_whose_workers_are_held_past_timeouts_is_given_up_in_the_end(
    open_session: OpenSession, make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(futures, "START_SECONDS", 0.0)
    monkeypatch.setattr(futures, "STUCK_SECONDS", 0.2)
    session = open_session(executor=make_pool(_processes), task_timeout=0.2, base_delay=0.01)
    session.run("acts", tasks=[{}, {}])  # so that both processes are there
    job = session.run("acts", tasks=[{"do": "hang", "value": 30}] * 2)
    assert "all its workers are held by calls past their timeout" in (job.error or "")


@pytest.mark.parametrize("how", [_threads, _processes], ids=["threads", "processes"])
def test_S38_cancel_ends_the_job_at_once_and_what_ran_is_dropped(
    open_session: OpenSession, make_pool: MakePool, tmp_path: Path, how: Callable[[], Executor]
) -> None:
    session = open_session(executor=make_pool(how))
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    session.register(type("Mine", (jobs.Acts,), {"job_type": "mine", "__module__": "__main__"}), {"act": _opens})
    job = session.submit("mine", tasks=[{"value": gate, "started": str(tmp_path / f"started-{n}")} for n in range(6)])
    wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 2)
    assert job.cancel().status == "cancelled"
    assert rows(session, "SELECT outcome, count(*) FROM attempts GROUP BY 1") == [("cancelled", 2)]
    assert rows(session, "SELECT status, count(*) FROM tasks GROUP BY 1") == [("cancelled", 6)]
    # Its workers are free again once the calls end by themselves.
    ends = os.open(gate, os.O_RDWR)
    os.write(ends, b"xx")
    assert session.run("acts", tasks=[{}, {}]).status == "completed"
    os.close(ends)
    assert len(list(tmp_path.glob("started-*"))) == 2


def _opens(params: dict[str, Any]) -> dict[str, Any]:
    """Wait until someone lets a byte through the pipe."""
    Path(params["started"]).touch()
    with open(params["value"], "rb", buffering=0) as pipe:
        pipe.read(1)
    return {"success": True}


def _opens_at_first(params: dict[str, Any], context: Any) -> dict[str, Any]:
    return _opens(params) if "started" in params and context.attempt == 1 else {"success": True}


def test_a_pool_that_was_shut_down_fails_the_job_and_says_so(open_session: OpenSession, make_pool: MakePool) -> None:
    pool = make_pool(_threads)
    session = open_session(executor=pool)
    pool.shutdown()
    with pytest.raises(JobFailed, match=r"ThreadPoolExecutor .* cannot schedule new futures after shutdown"):
        session.run("acts", tasks=[{}]).result()


def test_S42_a_pool_that_does_not_say_its_size_is_asked_for_by_name(open_session: OpenSession) -> None:
    with pytest.raises(ParameterError, match="does not say how many workers it has, or give their number as workers="):
        open_session(executor=Executor(), workers=None)
    with pytest.raises(ParameterError, match="workers=0"):
        open_session(executor=Executor(), workers=0)


def test_a_worker_that_imported_an_older_version_of_a_module_refuses_the_newer_one() -> None:
    from geoflow.executors.foreign_child import _Codes
    from geoflow.usercode.packing import pack

    code, codes = pack(jobs.act), _Codes()
    assert codes.get(code) == (jobs.act, True)
    assert dict(code.modules)[jobs.__name__]
    newer = code._replace(version="newer", modules=((jobs.__name__, "edited"),))
    with pytest.raises(ValueError, match=r"older version of tests.helpers.jobs: restart the pool's workers"):
        codes.get(newer)
    by_value = code._replace(version="a cell", reference=None, modules=newer.modules)
    with pytest.raises(ValueError, match="older version of"):
        codes.get(by_value)


@pytest.mark.on_duckdb
def test_S37_an_interrupted_job_is_resumed_in_the_pool_and_its_old_answers_change_nothing(
    open_session: OpenSession, make_pool: MakePool, tmp_path: Path
) -> None:
    pool = make_pool(_processes)
    session = open_session(executor=pool)
    pids = tmp_path / "pids"
    hang = {"do": "pid then hang", "value": str(pids), "until_attempt": 2}
    job = session.submit("acts", tasks=[hang, {}, {}])
    wait_until(pids.exists)
    session.close()
    assert job.status == "queued"
    assert job.resume().wait(timeout=60).status == "completed"
    assert rows(session, "SELECT outcome FROM attempts WHERE task_id = 's1-t0' ORDER BY attempt") == [
        ("interrupted",),
        ("completed",),
    ]
    os.kill(int(pids.read_text()), signal.SIGKILL)
