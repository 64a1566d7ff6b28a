"""S37: for each task, as many executions as attempts on record, whatever stopped it and when.

Handlers leave a line each time that they are called. What ran and is not on record would run again without a trace. The
other way round there is little leeway: of each process that was ended, the one call that had just been marked as begun.
A killed driver leaves more of them: all that was out counts as lost.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from geoflow.core.batch import Batch
from geoflow.core.chunks import Chunk
from geoflow.core.retry import RetryPolicy
from geoflow.executors.base import Executor as Slots
from geoflow.executors.futures import FuturesExecutor
from geoflow.executors.inline import InlineExecutor
from geoflow.executors.marker import MarkFile
from geoflow.executors.processes import ProcessExecutor
from geoflow.usercode.packing import pack
from tests.helpers import jobs
from tests.helpers.accounting import account
from tests.helpers.profiles import seldom
from tests.helpers.sessions import OpenSession, Trace, rows
from tests.helpers.waiting import wait_until

JOB = "a" * 64


def chunk_of(number: int, first: int, *tasks: dict[str, Any], timeout: float | None = None) -> Chunk:
    """A chunk of tasks for `jobs.act`, with the keys from *first* on."""
    keys = range(first, first + len(tasks))
    batch = Batch("act", 1, 0, 0, 1, keys, json.dumps([f"t{key}" for key in keys]), json.dumps(tasks))
    return Chunk(number, "tasks", JOB, "acts", 1, pack(jobs.act), batch, RetryPolicy(), timeout, patience=60.0)


@contextmanager
def started(executor: Slots) -> Iterator[SimpleQueue[Any]]:
    inbox: SimpleQueue[Any] = SimpleQueue()
    executor.start(inbox)
    try:
        yield inbox
    finally:
        executor.close()


def test_S37_an_answer_that_is_on_its_way_when_a_job_is_stopped_is_kept(tmp_path: Path) -> None:
    executor = ProcessExecutor(1)
    with started(executor):
        assert executor.capacity(JOB, reserve=True) == 2
        executor.submit(chunk_of(1, 1, {}, {}, {}))
        executor.submit(chunk_of(2, 4, {}, {"do": "pid then hang", "value": str(tmp_path / "pid")}, {}))
        wait_until((tmp_path / "pid").exists)  # nobody has collected what became of the first by now
        first, second = executor.stop(JOB)
    assert first.completed is not None
    assert list(first.completed.keys) == [1, 2, 3]
    assert (list(first.lost), list(first.unstarted)) == ([], [])
    assert second.completed is not None
    assert list(second.completed.keys) == [4]
    assert (list(second.lost), list(second.unstarted)) == ([5], [6])


def test_S37_what_a_worker_answered_before_it_died_in_the_next_chunk_is_kept(tmp_path: Path) -> None:
    executor = ProcessExecutor(1)
    with started(executor) as inbox:
        executor.capacity(JOB, reserve=True)
        executor.submit(chunk_of(1, 1, {}, {}))
        executor.submit(chunk_of(2, 3, {}, {"do": "hang"}, timeout=0.2))
        reports = list(executor.collect(inbox.get(timeout=30)))

        def checked() -> bool:
            reports.extend(executor.check())
            return len(reports) > 1

        wait_until(checked)
    assert [list(report.completed.keys) if report.completed else [] for report in reports] == [[1, 2], [3]]
    assert [attempt.key for attempt in reports[1].attempts] == [4]
    assert list(reports[1].lost) == []


def test_S37_a_process_that_is_given_up_while_it_starts_begins_nothing(tmp_path: Path) -> None:
    """Its start is in another thread, and the chunk on its way: it can neither be ended yet nor called back."""
    trace = Trace(tmp_path / "trace")
    executor = ProcessExecutor(2)
    with started(executor):
        for number in range(1, 13):
            executor.capacity(JOB, reserve=False)
            executor.submit(chunk_of(number, number, {"trace": trace.path}))
            wait([Future()], number / 200)
            for report in executor.stop(JOB):
                assert report.chunk.number == number
                if report.unstarted:
                    (tmp_path / f"t{number}").touch()
        executor.submit(chunk_of(99, 99, {"trace": trace.path}))
        wait_until(lambda: "t99 1" in trace.lines())
    ran = {line.split()[0] for line in trace.lines()}
    assert not [name for name in ran if (tmp_path / name).exists()]


def test_S37_a_mark_that_is_gone_is_not_made_anew_by_its_process(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MarkFile(tmp_path / "slot-0-0.mark", new=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_S37_an_answer_in_a_pool_of_the_users_that_nobody_has_collected_is_kept(
    tmp_path: Path, kind: Callable[[int], Executor]
) -> None:
    with kind(1) as pool, started(executor := FuturesExecutor(pool, 1)):
        executor.submit(chunk_of(1, 1, {}, {}))
        executor.submit(chunk_of(2, 3, {"do": "make", "value": str(tmp_path / "begun")}))
        wait_until((tmp_path / "begun").exists)
        wait_until(executor._out[1].future.done)  # the worker goes on while the pool still hands its answer over
        reports = {report.chunk.number: report for report in executor.stop(JOB)}
    assert reports[1].completed is not None
    assert list(reports[1].completed.keys) == [1, 2]
    assert not reports[2].unstarted


def test_S37_an_interrupt_right_after_a_call_finds_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment between a call's end and its being told of, which an interrupt may come in."""

    class Interrupted(SimpleQueue[Any]):
        def put(self, item: Any, *args: Any, **options: Any) -> None:
            super().put(item)
            raise KeyboardInterrupt

    executor = InlineExecutor()
    inbox = Interrupted()
    executor.start(inbox)
    executor.submit(chunk_of(1, 1, {}, {}, {}))
    with pytest.raises(KeyboardInterrupt):
        executor.run_here()
    first, rest = executor.stop(JOB)
    assert first.completed is not None
    assert list(first.completed.keys) == [1]
    assert (list(rest.lost), list(rest.unstarted)) == ([], [2, 3])
    assert executor.collect(inbox.get_nowait()) == [], "it is not told twice"


# Whole jobs, stopped at random moments


def tasks_of(chance: random.Random, trace: str, count: int) -> list[dict[str, Any]]:
    """Mostly short ones; some fail at first, some run past their timeout, some kill their worker, some take long."""

    def task() -> dict[str, Any]:
        odd = chance.random()
        if odd < 0.02:
            return {"do": "raise", "value": "OSError", "until_attempt": 2}
        if odd < 0.025:
            return {"do": "signal", "value": "SIGKILL", "until_attempt": 2}
        if odd < 0.03:
            return {"do": "sleep", "value": 5, "until_attempt": 2}
        if odd < 0.04:
            return {"do": "sleep", "value": 0.15}
        return {"do": "sleep", "value": 0.002} if odd < 0.3 else {}

    return [{"trace": trace, **task()} for _ in range(count)]


def stopped_and_resumed(open_session: OpenSession, folder: Path, name: str, seed: int, **options: Any) -> None:
    """A job that is stopped at random moments until it completes, and what it has on record then."""
    chance = random.Random(seed)
    trace = Trace(folder / f"trace-{seed}")
    store = folder / name
    settings = {"max_retries": 4, "base_delay": 0.01, "task_timeout": 1.0, **options}
    session = open_session(store, **settings)
    job = session.submit("acts", tasks=tasks_of(chance, trace.path, 400), seed=seed)
    stops = 0
    for _ in range(4):
        seen = len(trace.lines())
        wait_until(lambda: len(trace.lines()) > seen or job.ended)  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.15))
        if job.ended:
            break
        stops += 1
        if chance.random() < 0.5:
            job.cancel()
        else:
            session.close()
            session = open_session(store, **settings)
            job = session.job(job.id)
        found = account(session, job, trace)
        assert not found.unaccounted, (seed, found)
        job.resume()
    assert job.wait(timeout=120).result()["completed"] == 400
    found = account(session, job, trace)
    assert (found.unaccounted, found.twice) == ([], []), (seed, found)
    kills = len(rows(session, "SELECT 1 FROM attempts WHERE error_type IN ('WorkerDied', 'TaskTimeout')"))
    if "executor" not in options:
        assert found.unseen <= max(options.get("workers", 2), 1) * (stops + kills), (seed, found)
    session.close()


@pytest.mark.parametrize(
    ("name", "seed"), [("work.db", 0), ("work.duckdb", 0), seldom("work.db", 1), seldom("work.duckdb", 1)]
)
def test_S37_every_execution_is_on_record_whatever_stopped_it(
    open_session: OpenSession, tmp_path: Path, name: str, seed: int
) -> None:
    stopped_and_resumed(open_session, tmp_path, name, seed, workers=2)


@pytest.mark.parametrize("seed", [0, seldom(1)])
def test_S37_every_execution_in_a_pool_of_the_users_is_on_record(
    open_session: OpenSession, tmp_path: Path, seed: int
) -> None:
    with ThreadPoolExecutor(2) as pool:
        chance = random.Random(seed)
        trace = Trace(tmp_path / "trace")
        session = open_session(executor=pool, base_delay=0.01)
        flaky = {"do": "raise", "value": "OSError", "until_attempt": 2}
        tasks = [{"trace": trace.path, **(flaky if chance.random() < 0.1 else {})} for _ in range(400)]
        job = session.submit("acts", tasks=tasks)
        for _ in range(3):
            seen = len(trace.lines())
            wait_until(lambda: len(trace.lines()) > seen or job.ended)  # noqa: B023
            job.cancel()
            job.resume()
        assert job.wait(timeout=120).result()["completed"] == 400
        session.close()
    found = account(session, job, trace)
    assert (found.unaccounted, found.twice) == ([], []), found
