"""Which tasks go out next: what a queue must not lose, not give twice, and not give too early."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from geoflow.core.queue import CLOCK_SLACK, TaskQueue, Wait
from geoflow.core.rows import StageRow, Take

NOW = 1_700_000_000.0
STAGE = StageRow(stage_key=1, stage=1, first_key=101, task_count=20, planned_at=NOW)
MOST = 60.0


def everything(left: int) -> int:
    return left


def two(left: int) -> int:
    return min(left, 2)


def test_new_tasks_go_out_by_size_alone_since_the_store_knows_which_come_next() -> None:
    queue = TaskQueue(STAGE, 20)
    assert queue.take(3, two, NOW) == Take(STAGE, [], 100, [2, 2, 2])
    assert queue.take(1, everything, NOW) == Take(STAGE, [], 100, [20]), "none of them is out before it has started"


def test_new_tasks_that_started_are_out_and_the_next_come_behind_them() -> None:
    queue = TaskQueue(STAGE, 20)
    queue.started(range(101, 105), (), new=True)
    assert (len(queue), queue.take(1, two, NOW)) == (16, Take(STAGE, [], 104, [2]))


def test_the_largest_go_out_first_and_what_the_store_leaves_of_a_group_is_next_again() -> None:
    queue = TaskQueue(STAGE, 4, order=[104, 101, 103, 102])
    assert queue.take(1, everything, NOW) == Take(STAGE, [[104, 101, 103, 102]], 100, [])
    queue.started([101, 104], [104, 101, 103, 102], new=True)  # with so much text together
    assert (len(queue), queue.take(2, two, NOW)) == (2, Take(STAGE, [[103, 102]], 100, []))


def test_what_the_store_leaves_of_several_groups_keeps_its_order() -> None:
    queue = TaskQueue(STAGE, 5, order=[105, 104, 103, 102, 101])
    take = queue.take(2, two, NOW)
    assert take == Take(STAGE, [[105, 104], [103, 102]], 100, [])
    for group in take.groups:
        queue.started(group[:1], group, new=True)
    assert queue.take(9, everything, NOW) == Take(STAGE, [[104, 102, 101]], 100, [])


def test_S30_what_failed_or_was_lost_before_goes_alone_and_before_new_tasks() -> None:
    queue = TaskQueue(STAGE, 4, tried=[(103, None), (101, None)])
    assert queue.take(3, two, NOW) == Take(STAGE, [[101], [103]], 100, [2])
    assert queue.take(9, two, NOW) == Take(STAGE, [], 100, [2]), "they are out"


def test_S26_a_retry_goes_out_once_its_time_has_come_and_not_before() -> None:
    queue = TaskQueue(STAGE, 0)
    queue.retry(105, 4.0, NOW)
    queue.retry(104, 8.0, NOW)
    assert (len(queue), queue.due()) == (2, NOW + 4)
    assert (queue.is_ready(NOW + 3.9), queue.take(9, two, NOW + 3.9)) == (False, None)
    assert (queue.is_ready(NOW + 4), queue.take(9, two, NOW + 4)) == (True, Take(STAGE, [[105]], 100, []))
    assert (len(queue), queue.due()) == (1, NOW + 8)


def test_how_long_a_retry_had_waited_is_told_once_when_it_ends_also_if_it_was_lost_in_between() -> None:
    queue = TaskQueue(STAGE, 0, tried=[(101, NOW + 3.0)], most=MOST)
    queue.retry(105, 4.0, NOW)
    queue.take(9, two, NOW + 4)
    queue.put_back([105], new=False)
    assert (queue.settled(105), queue.settled(105), queue.settled(104)) == (Wait(NOW, 4.0), None, None)
    assert queue.settled(101) == Wait(NOW + 3.0, None), "how long, nobody knows who was not there"


@pytest.mark.parametrize("order", [None, list(range(101, 111))])
def test_what_never_ran_goes_out_again_first(order: list[int] | None) -> None:
    queue = TaskQueue(STAGE, 10, order=order)
    for size in (4, 4):
        take = queue.take(1, lambda left, size=size: size, NOW)  # type: ignore[misc]
        assert take is not None
        group = take.groups[0] if order else range(take.after + 1, take.after + 1 + size)
        queue.started(group, group if order else (), new=True)
    queue.put_back([103, 104], new=True)
    assert len(queue) == 4
    take = queue.take(1, two, NOW)
    assert take is not None
    assert take.groups == [[103, 104]] if order else (take.after, take.sizes) == (102, [2])


def test_there_is_nothing_to_take_without_room_or_tasks() -> None:
    assert TaskQueue(STAGE, 20).take(0, two, NOW) is None
    assert TaskQueue(STAGE, 20, tried=[(101, None)]).take(-1, two, NOW) is None
    assert TaskQueue(STAGE, 0).take(9, two, NOW) is None
    assert not TaskQueue(STAGE, 0).is_ready(NOW)


def test_S26_a_clock_that_is_set_back_makes_no_task_wait_longer_than_its_delay() -> None:
    queue = TaskQueue(STAGE, 0, tried=[(101, NOW + 5)], most=MOST)
    queue.retry(105, 4.0, NOW)
    assert queue.take(9, two, NOW - CLOCK_SLACK) is None
    assert queue.due() == NOW + 4, "so little is a correction"
    before = NOW - 3600
    assert queue.take(9, two, before) is None
    assert queue.due() == before + 4
    assert queue.take(9, two, before + 4) == Take(STAGE, [[105]], 100, [])
    assert queue.due() == before + MOST, "it waits the longest that there is, since nobody knows how long it was to"
    assert queue.settled(105) == Wait(before, 4.0)


@given(st.floats(0, MOST))
def test_S26_what_waits_when_a_job_is_resumed_goes_on_waiting_for_the_same_time(left: float) -> None:
    queue = TaskQueue(STAGE, 1, tried=[(101, NOW + left)], most=MOST)
    queue.take(0, two, NOW)
    assert queue.due() == NOW + left


class Life(RuleBasedStateMachine):
    """A queue, and a store that starts what it takes: maybe only the first ones of what goes together."""

    out: Bundle[tuple[Sequence[int], bool]] = Bundle("out")

    @initialize(
        states=st.lists(st.sampled_from(["new", "tried", "other"]), min_size=1, max_size=12),
        reverse=st.none() | st.booleans(),
    )
    def begin(self, states: list[str], reverse: bool | None) -> None:
        keys = list(enumerate(states, start=STAGE.first_key))
        self.now = NOW
        self.new = [key for key, state in keys if state == "new"]
        self.waiting: dict[int, float] = {key: 0.0 for key, state in keys if state == "tried"}
        self.is_out: set[int] = set()
        self.is_ordered = reverse is not None
        self.new.sort(reverse=bool(reverse))  # as they are to go out
        order = self.new if self.is_ordered else None
        tried = [(key, None) for key in self.waiting]
        self.queue = TaskQueue(STAGE, len(self.new) + len(self.waiting), order=order, tried=tried, most=MOST)

    @rule(target=out, room=st.integers(-1, 4), together=st.integers(1, 5), starts=st.integers(1, 5))
    def take(self, room: int, together: int, starts: int) -> MultipleResults[tuple[Sequence[int], bool]]:
        take = self.queue.take(room, lambda left: min(left, together), self.now)
        due = sorted(key for key, start in self.waiting.items() if start <= self.now)
        if take is None:
            assert room <= 0 or not (self.new or due)
            return multiple()
        assert 0 < len(take.groups) + len(take.sizes) <= room
        sent: list[tuple[Sequence[int], bool]] = []
        ordered = [key for group in take.groups for key in group if key in self.new]
        assert ordered == self.new[: len(ordered)]
        for group in take.groups:
            is_new = group[0] in self.new
            started = sorted(group)[:starts]
            assert is_new or (len(group) == 1 and group[0] in due), "it goes alone, and not before its time"
            self.queue.started(started, group, new=is_new)
            sent.append((started, is_new))
        after = take.after
        for size in take.sizes:
            started = [key for key in sorted(self.new) if key > after][: min(size, starts)]
            assert started, "there are as many behind that key as it counts on"
            self.queue.started(started, (), new=True)
            after = started[-1]
            sent.append((started, True))
        for keys, is_new in sent:
            assert self.is_out.isdisjoint(keys), "none is out twice"
            self.is_out.update(keys)
            for key in keys:
                if is_new:
                    self.new.remove(key)
                else:
                    del self.waiting[key]
        return multiple(*sent)

    @rule(chunk=consumes(out))
    def settle(self, chunk: tuple[Sequence[int], bool]) -> None:
        self.is_out.difference_update(chunk[0])

    @rule(chunk=consumes(out), delay=st.sampled_from([0.0, 5.0, MOST]))
    def fail(self, chunk: tuple[Sequence[int], bool], delay: float) -> None:
        for key in chunk[0]:
            self.queue.retry(key, delay, self.now)
            self.waiting[key] = self.now + delay
        self.is_out.difference_update(chunk[0])

    @rule(chunk=consumes(out), suspected=st.booleans(), first=st.integers(0, 4))
    def come_back(self, chunk: tuple[Sequence[int], bool], suspected: bool, first: int) -> None:
        keys = list(chunk[0])[first:]
        self.is_out.difference_update(chunk[0])
        if keys:
            as_new = chunk[1] and not suspected
            self.queue.put_back(keys, new=as_new)
            self.waiting.update({} if as_new else dict.fromkeys(keys, 0.0))
            self.new[:0] = keys if as_new else ()

    @rule(seconds=st.sampled_from([1.0, 5.0, 100.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def it_counts_what_is_queued_and_knows_when_the_next_is_due(self) -> None:
        assert len(self.queue) == len(self.new) + len(self.waiting)
        assert self.queue.due() == min(self.waiting.values(), default=None)
        is_due = any(start <= self.now for start in self.waiting.values())
        assert self.queue.is_ready(self.now) == (bool(self.new) or is_due)

    def teardown(self) -> None:
        """Whatever happened, all that is queued goes out in the end."""
        self.now += 10 * MOST
        while self.new or self.waiting:
            self.take(4, 5, 5)
        assert len(self.queue) == 0


TestAnyLife = Life.TestCase
