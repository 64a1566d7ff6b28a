"""The mark of a slot, of which its worker and its driver each write a part."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from geoflow.executors import marker
from geoflow.executors.marker import RECALL_SECONDS, MarkFile


class Clock:
    now = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(marker, "_now", lambda: clock.now)
    return clock


def fenced(mark: MarkFile, position: int) -> bool:
    """Whether the worker passes the fence when it says that this call runs."""
    passed: list[int] = []

    @contextlib.contextmanager
    def fence() -> Iterator[None]:
        passed.append(position)
        yield

    mark._fence = fence()  # type: ignore[assignment]
    assert mark.running(7, position, key=position)
    return bool(passed)


def test_the_fence_is_passed_behind_each_call_behind_which_something_may_be_taken_back(clock: Clock) -> None:
    mark = MarkFile(None)
    assert mark.begins(7)
    assert not fenced(mark, 0)
    clock.now += RECALL_SECONDS / 4
    assert not fenced(mark, 1)
    clock.now += RECALL_SECONDS * 0.99
    assert mark.runs_long() is None
    assert fenced(mark, 2), "well before its driver takes the call for a long one"
    assert not fenced(mark, 3)


def test_a_worker_that_was_paused_before_it_wrote_passes_the_fence(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = MarkFile(None)
    mark.begins(7)
    times = iter([clock.now, clock.now + RECALL_SECONDS])
    monkeypatch.setattr(marker, "_now", lambda: next(times))
    assert fenced(mark, 0)


def test_a_call_runs_long_from_when_it_began_and_not_once_its_chunk_is_on_its_way_back(clock: Clock) -> None:
    mark = MarkFile(None)
    mark.begins(7)
    mark.running(7, 0, key=40)
    clock.now += RECALL_SECONDS
    assert mark.runs_long() == mark.read()
    assert mark.read()[1:4] == (7, 1, 40)
    mark.running(7, 1, key=41)
    assert mark.runs_long() is None
    clock.now += RECALL_SECONDS
    mark.reporting(7)
    assert mark.runs_long() is None


def test_what_is_taken_back_does_not_begin_and_what_is_not_does() -> None:
    mark = MarkFile(None)
    mark.recall(8, rest=False)
    assert [mark.begins(number) for number in (7, 8, 9, 9)] == [False, False, True, False], "nor does it begin twice"
    assert mark.running(9, 0, key=1)
    mark.recall(9, rest=True)
    assert not mark.running(9, 1, key=2)
    assert mark.running(10, 0, key=3)
