"""What the mark of a process that is gone says of the chunks that it did not answer for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.core.batch import Batch
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Category, Failure, Outcome
from geoflow.core.retry import RetryPolicy
from geoflow.executors.marker import Mark
from geoflow.executors.reports import from_mark, has_ended, with_returned
from geoflow.executors.returned import Returned
from geoflow.usercode.packing import Code

DIED = Failure("worker process 12 was ended", "WorkerDied", Category.LOST, True)
STACK = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n"
CODE = Code("scan", None, b"")


def chunk_of(*keys: int, number: int = 7) -> Chunk:
    batch = Batch("scan", 2, 1, 0, 100, keys, "[]", "[]")
    return Chunk(number, "tasks", "a" * 64, "j", 1, CODE, batch, RetryPolicy())


def mark_at(position: int, *, chunk: int = 7) -> Mark:
    return Mark(pid=12, chunk=chunk, position=position, key=0, since=0.0)


def told(position: int, keys: Sequence[int], failure: Failure | None, *, at: int = 7) -> Report | None:
    return from_mark(chunk_of(*keys), mark_at(position, chunk=at), failure, f"half\n{STACK}", 3, 1_000.0, 2.5)


def test_S30_the_running_call_is_to_blame_and_those_before_it_run_again_uncharged() -> None:
    report = told(2, (101, 102, 103), DIED)
    assert report is not None
    (blamed,) = report.attempts
    assert (blamed.key, blamed.attempt, blamed.outcome, blamed.slot, blamed.pid) == (102, 2, "failed", 3, 12)
    assert (blamed.started_at, blamed.ended_at) == (997.5, 1_000.0)
    assert blamed.failure == DIED._replace(traceback=STACK)
    assert blamed.output == "half\n"
    assert (report.lost, report.unstarted, report.suspects) == ((101,), (103,), False)


def test_S30_of_a_process_that_was_ended_for_the_jobs_sake_nobody_is_to_blame() -> None:
    report = told(2, (101, 102, 103), None)
    assert report is not None
    assert (report.attempts, report.lost, report.unstarted, report.suspects) == ((), (101, 102), (103,), False)
    assert report.printed is not None


@pytest.mark.parametrize("failure", [DIED, None])
@pytest.mark.parametrize("position", [-3, 4])
def test_S30_of_several_calls_whose_answer_was_lost_each_may_be_to_blame(
    position: int, failure: Failure | None
) -> None:
    report = told(position, (101, 102, 103), failure)
    assert report is not None
    assert (report.attempts, report.lost, report.unstarted) == ((), (101, 102, 103), ())
    assert report.suspects == (failure is not None)


def test_S30_a_call_that_was_alone_is_to_blame_also_for_an_answer_that_was_lost() -> None:
    report = told(-1, (101,), DIED)
    assert report is not None
    assert [attempt.key for attempt in report.attempts] == [101]


@pytest.mark.parametrize(("position", "at"), [(0, 7), (0, 0), (3, 6)])
def test_a_chunk_that_had_not_begun_is_none_of_the_marks(position: int, at: int) -> None:
    assert told(position, (101, 102), DIED, at=at) is None


def test_a_chunk_behind_which_another_has_begun_has_ended() -> None:
    assert has_ended(chunk_of(101, 102), mark_at(1, chunk=8))
    assert not has_ended(chunk_of(101, 102), mark_at(2))
    assert has_ended(chunk_of(101, 102), mark_at(3)), "it saw that the rest was taken back"


@given(st.integers(1, 5), st.integers(-6, 6), st.integers(6, 8), st.sampled_from([None, DIED]))
def test_whatever_the_mark_says_each_call_is_accounted_for_once_and_at_most_one_is_blamed(
    calls: int, position: int, at: int, failure: Failure | None
) -> None:
    keys = tuple(range(101, 101 + calls))
    report = told(position, keys, failure, at=at)
    if report is None:
        assert not has_ended(chunk_of(*keys), mark_at(position, chunk=at))
        return
    blamed = [attempt.key for attempt in report.attempts]
    assert sorted([*blamed, *report.lost, *report.unstarted]) == list(keys)
    assert len(blamed) <= (failure is not None)


@given(st.integers(1, 5), st.integers(-6, 6), st.integers(7, 8), st.sampled_from([None, DIED]), st.integers(0, 5))
def test_S47_what_had_returned_is_neither_lost_nor_blamed_and_each_call_is_accounted_for_once(
    calls: int, position: int, at: int, failure: Failure | None, ended: int
) -> None:
    keys = tuple(range(101, 101 + calls))
    report = told(position, keys, failure, at=at)
    if report is None:
        return
    chunk = chunk_of(*keys)
    begun = len(keys) - len(report.unstarted)  # no more than that can have returned
    kept = [Attempt(key, 2, Outcome.COMPLETED, 1.0, 2.0, result="{}") for key in keys[: min(ended, begun)]]
    whole = with_returned(report, Returned("a" * 64, 1, 7, chunk.batch, kept, {}))
    completed = whole.completed.keys if whole.completed is not None else ()
    blamed = [attempt.key for attempt in whole.attempts]
    assert sorted([*completed, *blamed, *whole.lost, *whole.unstarted]) == list(keys)
    assert list(completed) == [attempt.key for attempt in kept]
    assert whole.unstarted == report.unstarted
