"""Time as a driver holds it against a worker."""

from __future__ import annotations

import pytest

from geoflow.executors.watch import GAP_SECONDS, Watch


def test_S31_time_in_which_the_driver_stood_still_does_not_count() -> None:
    watch = Watch()
    for now in (100.0, 100.1, 100.2):
        watch.look(now)
    assert watch.spent(100.0) == pytest.approx(0.2)
    watch.look(104.2)  # the lid was closed
    assert watch.spent(100.0) == pytest.approx(0.2 + GAP_SECONDS)
    assert watch.spent(102.0) == pytest.approx(0.0), "it began while nobody looked"
    watch.look(104.4)
    assert watch.spent(100.0) == pytest.approx(0.4 + GAP_SECONDS)
    assert watch.spent(104.3) == pytest.approx(0.1)
    assert watch.spent(200.0) == 0.0


def test_S31_a_driver_that_is_always_late_still_counts_some_of_it() -> None:
    watch = Watch()
    for turn in range(20):
        watch.look(100.0 + 3.0 * turn)
    assert watch.spent(100.0) == pytest.approx(19 * GAP_SECONDS)
