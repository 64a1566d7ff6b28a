"""Which tasks may be out together by their need of memory, for budgets, needs and ends at random."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.core.memory import ALONE, PROCESS, UNKNOWN, Expected, Line, Memory, Part
from geoflow.core.queue import TaskQueue
from geoflow.core.rows import StageRow, Take
from geoflow.support.amount import bytes_of
from geoflow.support.memory import Kills, budget, steady

NEEDS = st.lists(st.one_of(st.integers(1, 100), st.just(ALONE)), max_size=12)


class World:
    """Some jobs with one stage each, before one memory and so many slots; what is out ends as *chances* have it."""

    def __init__(self, jobs: list[list[float]], slots: int) -> None:
        self.memory = Memory(100)
        self.slots = slots
        self.needs = {
            1000 * job + at: min(need, 100) for job, needs in enumerate(jobs) for at, need in enumerate(needs)
        }
        self.queues = {}
        for job, needs in enumerate(jobs):
            keys = range(1000 * job, 1000 * job + len(needs))
            row = StageRow(job, 1, 1000 * job, len(needs), 0.0)
            told = dict(zip(keys, needs, strict=True))
            self.needs |= {key: min(need, 100) for key, need in told.items()}
            self.queues[job] = TaskQueue(row, len(needs), order=keys, needs=told)
        self.out: list[int] = []

    def turn(self) -> None:
        for job, queue in self.queues.items():
            part = Part(self.memory, f"{job}", lambda: bool(self.out))
            take = queue.take(self.slots - len(self.out), lambda new: new, 0.0, part)
            for group in take.groups if isinstance(take, Take) else ():
                queue.started(group, group, new=True)
                self.out += group

    def end(self, chance: int) -> None:
        key = self.out.pop(chance % len(self.out))
        self.memory.leave([key])


@given(st.lists(NEEDS, min_size=1, max_size=3), st.integers(1, 5), st.lists(st.integers(0, 9), min_size=40))
def test_S56_what_is_out_never_needs_more_than_the_budget_and_all_gets_its_turn(
    jobs: list[list[float]], slots: int, chances: list[int]
) -> None:
    world = World(jobs, slots)
    for turn in range(sum(map(len, jobs)) + 1):
        world.turn()
        assert sum(world.needs[key] for key in world.out) <= 100
        assert len(world.out) <= slots
        if not world.out:
            break
        world.end(chances[turn % len(chances)])
    assert not any(len(queue) for queue in world.queues.values())


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(61, 100), st.integers(1, 5))
def test_S56_a_task_that_does_not_fit_waits_only_for_those_that_were_out_before_it(
    needs: list[int], large: int, slots: int
) -> None:
    world = World([[60, large, *needs]], slots)
    world.turn()
    assert 0 in world.out
    assert (1 in world.out) == (60 + large <= 100 and slots > 1)
    world.out.remove(0)
    world.memory.leave([0])  # whatever has passed the large one since is out still
    if slots > len(world.out):
        world.turn()
        assert 1 in world.out


def test_S56_the_largest_that_fits_passes_one_that_does_not() -> None:
    world = World([[60, 70, 5, 30, 20]], 3)
    world.turn()
    assert world.out == [0, 3], "30 has room beside 70, and nothing else then"


def test_S56_one_that_is_to_be_alone_has_all_of_it_and_nothing_passes() -> None:
    world = World([[50, ALONE, 1], [1, 1]], 4)
    world.turn()
    assert world.out == [0]
    world.end(0)
    world.turn()
    assert world.out == [1]
    world.end(0)
    world.turn()
    assert sorted(world.out) == [2, 1000, 1001]


def test_S56_a_job_that_is_driven_no_more_keeps_nobody_waiting() -> None:
    memory = Memory(100)
    assert memory.take("a", 1, 60)
    assert not memory.take("b", 2, 90)
    assert not memory.take("c", 3, 20)
    memory.forget("b")
    assert memory.take("c", 3, 20)
    memory.forget("a")
    assert memory.take("c", 4, 80)


@given(st.lists(st.integers(1, 9), max_size=20), st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=40))
def test_a_line_has_its_first_one_and_the_largest_that_fits(needs: list[int], steps: list[tuple[bool, int]]) -> None:
    line, left = Line(range(len(needs)), dict(enumerate(needs))), list(range(len(needs)))
    taken: list[int] = []
    for back, most in steps:
        assert line.first() == (left[0] if left else None)
        fitting = [key for key in left if needs[key] <= most]
        wanted = max(fitting, key=lambda key: (needs[key], -left.index(key)), default=None)
        assert line.fitting(most) == wanted
        if back and taken:
            left.insert(0, key := taken.pop())
            line.put_back([key])
        elif wanted is not None:
            line.remove(wanted)
            left.remove(wanted)
            taken.append(wanted)
        assert len(line) == len(left)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("8GB", 8e9),
        ("8 gb", 8e9),
        ("1.5G", 1.5e9),
        ("512MiB", 512 * 2**20),
        (".5TB", 5e11),
        (8e9, 8e9),
        (2_000_000, 2e6),
    ],
)
def test_an_amount_of_memory_is_bytes_or_text_with_a_unit(said: object, meant: float) -> None:
    assert bytes_of(said) == meant


@pytest.mark.parametrize("said", ["8 bananas", "", "GB", "-8GB", 8, "8", True, None, float("nan"), float("inf"), [8]])
def test_what_is_no_amount_of_memory_is_refused(said: object) -> None:
    with pytest.raises(ValueError, match="text such as '8GB'"):
        bytes_of(said)


def test_the_budget_is_what_the_tightest_control_group_allows_less_a_reserve(tmp_path: Path) -> None:
    machine = budget(tmp_path)
    assert machine is not None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/outer/inner\n0::/box\n")
    groups = {"sys/fs/cgroup/memory/outer": "4000000", "sys/fs/cgroup/memory/outer/inner": str(2**63)}
    for folder, limit in groups.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "memory.limit_in_bytes").write_text(limit + "\n")
    assert budget(tmp_path) == 2_000_000, "of little, half is kept"
    (tmp_path / "sys/fs/cgroup/box").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/box/memory.max").write_text("max\n")
    assert budget(tmp_path) == 2_000_000
    (tmp_path / "sys/fs/cgroup/memory/outer/memory.limit_in_bytes").write_text("100000000000000\n")
    assert budget(tmp_path) == machine


def test_the_system_has_ended_a_process_if_it_counts_one_more_than_at_the_last_look(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    counter = tmp_path / "proc/vmstat"
    counter.write_text("oom_kill 3\n")
    kills = Kills(tmp_path)
    assert not kills.look()
    counter.write_text("oom_kill_else 9\noom_kill 5\n")
    assert kills.look()
    assert kills.look(), "of two that die at once, too"
    assert not Kills(tmp_path / "nothing there").look()
    counter.write_text("nr_free_pages 7\n")
    assert not Kills(tmp_path).look(), "an older kernel does not count"


def test_S56_once_memory_does_not_matter_tasks_go_together_again_in_the_order_that_was_left() -> None:
    queue, memory = (
        TaskQueue(StageRow(0, 1, 1, 5, 0.0), 5, order=[3, 1, 4, 5, 2], needs=dict.fromkeys(range(1, 6), 75)),
        Memory(100),
    )
    part = Part(memory, "job", lambda: False)
    assert queue.take(4, lambda new: new, 0.0, part) == Take(StageRow(0, 1, 1, 5, 0.0), [[3]], 0, [])
    queue.started([3], [3], new=True)
    assert queue.is_blocked
    queue.line_up([1, 4, 5, 2])
    memory.is_out("job", 3, 0)
    assert memory.passing() == 25, "as one that needs 75 waits"
    memory.wait_no_more("job")
    assert memory.passing() == 100
    took = queue.take(1, lambda new: 3, 0.0, part)
    assert took is not None
    assert took.groups == [[1, 4, 5]]
    queue.started([1, 4], [1, 4, 5], new=True)
    assert len(queue) == 2
    again = queue.take(4, lambda new: 1, 0.0, part)
    assert again is not None
    assert again.groups == [[5], [2]]
    assert not queue.is_blocked


@pytest.mark.parametrize(
    ("looks", "had"),
    [
        ([], None),
        ([(0.0, 90), (1.1, 90), (1.5, 90)], None),  # not for long enough, in this call
        ([(1.1, 40), (1.4, 90), (1.7, 100)], None),  # it takes more still
        ([(1.1, 40), (1.4, 90), (1.7, 100), (2.0, 110)], 110),
        ([(1.1, 90), (1.7, 10)], 10),
    ],
)
def test_S56_what_a_task_has_is_told_once_its_process_has_had_about_the_same_for_half_a_second(
    looks: list[tuple[float, int]], had: int | None
) -> None:
    assert steady(looks, since=1.0) == had


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100)), min_size=1),
    st.integers(0, 100),
    st.integers(0, 100),
)
def test_S56_a_task_is_expected_to_need_what_one_of_its_size_or_less_had(
    seen: list[tuple[int, int]], size: int, more: int
) -> None:
    expected = Expected(seen)
    assert all(expected(known) >= peak for known, peak in seen)
    assert expected(0) == max(peak for _, peak in seen), "one that tells no size may be any"
    if size:
        assert expected(size) <= expected(size + more)


def test_S56_what_nobody_has_seen_is_expected_to_go_on_as_what_was_seen() -> None:
    expected = Expected([(1, 110), (10, 200), (5, 150)])
    assert [expected(size) for size in (0.5, 1, 3, 5, 10)] == [110, 110, 150, 150, 200]
    assert Expected([(10, 1000), (20, 2000)])(11) == 1.25 * 1100
    assert Expected([(10, 10**9)])(1) == 1.25 * 10**8, "less than the least goes down with the size"
    assert Expected([(10, 10**9)])(0.1) == PROCESS
    assert expected(20) == 1.25 * (110 + 2 * 90)
    assert Expected([(10, 1000)])(15) == 1.25 * 1500, "of one alone nobody knows what it would have had anyway"
    assert Expected([])(7) == Expected([])(0) == UNKNOWN


def test_S56_what_is_far_from_all_that_was_seen_is_a_guess_and_needs_what_an_unknown_one_does() -> None:
    nothing, little = Expected([], unknown=700), Expected([(1, 110), (10, 200)], unknown=700)
    assert nothing.is_guess(5)
    assert nothing(0) == nothing(5) == 700
    assert [little.is_guess(size) for size in (0, 5, 20, 21)] == [False, False, False, True]
    assert little(20) < 700 == little(21)
    assert little(100) == 1.25 * (110 + 10 * 90), "which is more than an unknown one needs"
