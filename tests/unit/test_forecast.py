"""The forecast by itself: what the simulation makes of durations that are given."""

from __future__ import annotations

import pytest

from geoflow.tools.forecast.sampling import picked
from geoflow.tools.forecast.simulation import (
    STAGE_SECONDS,
    TASK_SECONDS,
    TRIP_SECONDS,
    Measured,
    Ran,
    Range,
    failures,
    forecast,
    grown,
    makespan,
    measured,
)


def exactly(number: float) -> Range:
    return Range(number, number, number)


@pytest.mark.parametrize(
    ("durations", "workers", "start", "ends"),
    [
        ([], 2, 1.0, 0.0),
        ([3, 3, 2, 2, 2], 1, 0.0, 12),
        ([3, 3, 2, 2, 2], 2, 0.0, 7),  # 3+2+2 and 3+2
        ([2, 2, 2, 3, 3], 2, 0.0, 7),  # 2+2+3 and 2+3
        ([1, 1, 1, 9], 2, 0.0, 10),  # the long one comes last
        ([9, 1, 1, 1], 2, 0.0, 9),  # and first
        ([4, 2], 8, 0.0, 4),
        ([4, 2, 1], 2, 0.5, 4.5),
    ],
)
def test_each_task_goes_to_the_worker_that_is_free_first(
    durations: list[float], workers: int, start: float, ends: float
) -> None:
    assert makespan(durations, workers, start) == ends


def test_a_stage_whose_tasks_all_ran_is_forecast_to_the_microsecond() -> None:
    of_all = Measured(exactly(4), (1.0, 1.0, 2.0, 1.0), planning=0.5)
    own = 2 * (TASK_SECONDS + TRIP_SECONDS)
    one, two, four = forecast([of_all], (1, 2, 4), processors=4)
    assert one == pytest.approx(exactly(5.0 + 0.5 + STAGE_SECONDS + 2 * own))
    assert two == pytest.approx(exactly(3.0 + 0.5 + STAGE_SECONDS + own))
    assert four == pytest.approx(exactly(2.0 + 0.5 + STAGE_SECONDS + own / 2))


def test_stages_come_one_after_another_and_an_empty_one_takes_no_tasks_time() -> None:
    stages = [Measured(exactly(1), (3.0,)), Measured(exactly(0), (9.0,)), Measured(exactly(1), (2.0,))]
    own = 3 * STAGE_SECONDS + 2 * (TASK_SECONDS + TRIP_SECONDS)
    assert forecast(stages, (8,), processors=8) == [pytest.approx(exactly(5.0 + own))]


def test_the_same_seed_gives_the_same_forecast_and_another_one_another() -> None:
    few = [Measured(exactly(100), (1.0, 3.0))]
    assert forecast(few, (1, 2), 2, seed=5) == forecast(few, (1, 2), 2, seed=5)
    assert forecast(few, (1, 2), 2, seed=5) != forecast(few, (1, 2), 2, seed=6)


def test_a_range_is_wide_for_one_measurement_and_narrow_for_many() -> None:
    (one,), (many,) = (forecast([Measured(exactly(1000), (1.0,) * number)], (1,), 1) for number in (1, 100))
    assert one.low < many.low < many.likely < many.high < one.high
    assert one.high / one.low > 3
    assert many.high / many.low < 1.3
    assert 900 < many.likely < 1100


def test_what_is_beyond_the_simulated_tasks_is_added_as_a_mean() -> None:
    ((low, likely, high),) = forecast([Measured(exactly(100_000), (0.1,) * 100)], (4,), 4)
    assert low < 2_500 < high
    assert likely == pytest.approx(2_500, rel=0.1)


def test_more_workers_never_take_longer_and_no_more_help_than_processors_tasks_and_the_stage_allow() -> None:
    busy, idle = (Measured(exactly(40), (1.0,) * 40, cpu=cpu) for cpu in (1.0, 0.0))
    ladder = (1, 2, 4, 8)
    at_work = [found.likely for found in forecast([busy], ladder, processors=2)]
    waiting = [found.likely for found in forecast([idle], ladder, processors=2)]
    limited = [found.likely for found in forecast([idle._replace(workers=2)], ladder, processors=2)]
    assert waiting == pytest.approx([40, 20, 10, 5], rel=0.01)
    assert at_work == limited == pytest.approx([40, 20, 20, 20], rel=0.01)


def test_a_long_task_at_the_end_costs_less_when_the_largest_start_first() -> None:
    skewed = Measured(exactly(9), (1.0,) * 8, largest=8.0)
    first = skewed._replace(largest_first=True)
    assert forecast([first], (2,), 2)[0].high == pytest.approx(8, rel=0.01)
    assert forecast([skewed], (2,), 2)[0].high == pytest.approx(12, rel=0.01)


def test_the_largest_task_counts_once_and_not_for_others() -> None:
    (found,) = forecast([Measured(exactly(201), (1.0,) * 100, largest=50.0)], (1,), 1)
    assert found.low < 250 < found.high < 290


def test_counts_that_are_estimates_make_the_range() -> None:
    (found,) = forecast([Measured(Range(10, 20, 40), (1.0,) * 40)], (1,), 1)
    assert found == pytest.approx(Range(10, 20, 40), rel=0.01)


def test_a_workers_first_task_that_took_far_longer_is_its_start_and_no_measurement() -> None:
    cold = [Ran(2.0, first=True), Ran(0.1), Ran(0.2)]
    found = measured(cold, exactly(100))
    assert found.seconds == (0.1, 0.2)
    assert found.start == pytest.approx(1.85)
    usual = measured([Ran(0.3, first=True), Ran(0.1), Ran(0.2)], exactly(100))
    assert (usual.seconds, usual.start) == ((0.3, 0.1, 0.2), 0.0)
    assert measured([Ran(2.0, first=True)], exactly(100)).seconds == (2.0,), "there is nothing to compare it with"


def test_the_largest_and_the_failed_are_no_ordinary_tasks() -> None:
    ran = [Ran(0.1), Ran(5.0, largest=True), Ran(9.0, failed=True), Ran(0.3, cpu=2.7)]
    found = measured(ran, exactly(100))
    assert (found.seconds, found.largest) == ((0.1, 0.3), 5.0)
    assert found.cpu == pytest.approx(2.7 / 5.4)
    assert measured([Ran(9.0, failed=True)], exactly(1)).seconds == (9.0,), "there is nothing else"


def test_sizes_say_how_far_the_mean_lies_between_what_ran_and_the_largest() -> None:
    ran = [Ran(1.0), Ran(3.0), Ran(22.0, largest=True)]
    assert measured(ran, exactly(100), 0.1).seconds == (2.0, 6.0), "a mean of 4 is a tenth of the way from 2 to 22"
    assert measured([Ran(2.0), Ran(2.0, largest=True)], exactly(100), 0.9).seconds == (2.0,), "size costs no time"
    assert measured([Ran(2.0)], exactly(100), 0.9).seconds == (2.0,)


@pytest.mark.parametrize(
    ("planned", "results", "alone", "parents", "found"),
    [
        (7, 0, [], exactly(0), exactly(7)),  # a first stage
        (12, 1, [], exactly(1), exactly(12)),  # made from the one result there is
        (3, 3, [1, 1, 1], exactly(30), exactly(30)),  # one for each
        (6, 3, [1, 2, 3], exactly(30), Range(30, 60, 90)),  # some for each
        (1, 3, [1, 1, 1], exactly(30), Range(1, 1, 30)),  # one for all, or perhaps for every few
        (5, 1, [], exactly(30), Range(5, 150, 150)),  # of one nobody knows how many there are of thirty
        (0, 3, [0, 0, 0], exactly(30), exactly(0)),
        (4, 2, [2, 2], Range(5, 10, 20), Range(10, 20, 40)),  # an estimate of an estimate
    ],
)
def test_how_many_tasks_follow_from_all_parents_is_told_by_a_few(
    planned: int, results: int, alone: list[int], parents: Range, found: Range
) -> None:
    assert grown(planned, results, alone, parents) == pytest.approx(found)


def test_how_many_will_fail_is_known_once_all_ran_and_a_wide_guess_after_a_few() -> None:
    assert failures(1, 3, exactly(3)) == exactly(1)
    assert failures(1, 3, exactly(300)) == pytest.approx(Range(18.4, 100, 237.7), abs=0.5)
    assert failures(0, 3, exactly(100)) == pytest.approx(Range(0, 0, 56.15), abs=0.01)
    assert failures(100, 100, exactly(1000)) == pytest.approx(Range(963, 1000, 1000), abs=0.5)


def test_the_largest_the_first_and_the_last_are_picked_and_others_by_chance() -> None:
    sizes: list[float | None] = [1.0] * 100
    sizes[40] = 9.0
    assert picked(sizes, 1, "") == [40]
    assert picked(sizes, 3, "") == [0, 40, 99]
    assert picked([None] * 100, 2, "") == [0, 99]
    assert picked(sizes, 6, "a") == picked(sizes, 6, "a") != picked(sizes, 6, "b")
    assert len(picked(sizes, 6, "a")) == 6
    assert picked([None] * 4, 9, "") == [0, 1, 2, 3]
    assert picked([], 3, "") == []
