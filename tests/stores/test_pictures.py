"""Timelines and histograms: nothing of the attempts is lost on the way into bins, and they stay small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoflow as gf
from geoflow.errors import StoreError
from geoflow.render.pictures import histogram_picture, memory_picture, over_time_picture, timeline_picture
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.questions import PlannedStage
from geoflow.stores.sqlite import SqliteStore
from geoflow.views import timing
from geoflow.views.timing import KINDS, Runs, Timing
from tests.helpers.drawn import HOSTILE, checked, text_of
from tests.helpers.stored import STORES
from tests.stores.test_frames import BROKEN, LOST, NOW, ONE, WRONG, Engine

AStore = SqliteStore | DuckDbStore
seconds = st.floats(0, 1e5, allow_subnormal=False)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AStore]:
    made = STORES[request.param](tmp_path)
    assert isinstance(made, AStore)
    yield made
    made.close()


def many(number: int, workers: int = 2, name: str = "cover", stages: int = 1) -> Runs:
    """*number* attempts of each kind in turn, one after the other by each worker."""
    keys = np.arange(number) * 4096 + 4097
    each = number // stages
    plans = [
        PlannedStage(ONE, n + 1, name, n * each / workers, False, n * each + 1, (n + 1) * each) for n in range(stages)
    ]
    begun = np.arange(number) // workers * 1.0
    took = np.random.default_rng(7).lognormal(-2, 1, number).clip(0, 1)
    waiting = np.where(np.arange(number) % 4 == 1, begun - 0.5, np.nan)
    peaks = np.where(np.arange(number) % 7 == 3, np.nan, 4e7 + 1e8 * took)
    return Runs(plans, keys, np.arange(number) % 4, np.arange(number) % workers, waiting, begun, begun + took, peaks)


@given(st.lists(st.tuples(seconds, seconds, st.integers(0, 3)), min_size=1, max_size=40), st.integers(1, 60))
def test_the_time_that_attempts_took_is_spread_over_the_bins_and_none_is_lost(
    found: list[tuple[float, float, int]], bins: int
) -> None:
    started, length, groups = (np.array(column) for column in zip(*found, strict=True))
    ended = started + length
    total = float(ended.max()) or 1.0

    drawn = timing.overlaps(started, ended, groups, 4, total, bins)

    assert drawn.shape == (4, bins)
    assert (drawn >= 0).all()
    for group in range(4):
        assert drawn[group].sum() * total / bins == pytest.approx(length[groups == group].sum(), rel=1e-6, abs=1e-3)


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=40))
def test_a_pause_in_which_nothing_ran_takes_no_room_and_no_attempt_gets_shorter(
    found: list[tuple[float, float]],
) -> None:
    started, length = (np.array(column) for column in zip(*found, strict=True))
    started[0] = 0.0
    starts, lengths = timing.gaps(started, started + length)

    begun, ended = (timing.worked(times, starts, lengths) for times in (started, started + length))

    assert ended - begun == pytest.approx(length, abs=1e-6)
    left = timing.gaps(begun, ended)[1]
    assert all(pause > timing.LONGEST_GAP for pause in lengths)
    assert len(left) == 0 or len(lengths) > 0  # with less to compare them with, more pauses are long: once is enough


def test_a_timeline_tells_what_ran_where_what_came_of_it_and_who_waited(store: AStore) -> None:
    job = Engine(store, ONE)
    first = job.plan(1, [{}] * 6).first_key
    job.run(first, at=NOW + 10, slot=0)
    job.start(first + 1, first + 2, first + 3, first + 4)
    job.end("retry", first + 1, failure=BROKEN, at=NOW + 10, not_before=NOW + 12)
    job.end("fail", first + 2, failure=WRONG, at=NOW + 11)
    job.end("lose", first + 3, failure=LOST, at=NOW + 12)
    job.end("complete", first + 4, started_at=None, ended_at=None)  # taken over: it did not run
    job.start(first + 1)
    job.end("complete", first + 1, at=NOW + 13, queued_at=NOW + 11, backoff=1.0)

    found = Timing.of(store, ONE).timeline()

    assert found.counts == {"completed": 1, "retried": 1, "failed": 2, "stopped": 1}
    assert found.seconds == pytest.approx(4, abs=1e-5)
    lanes = {lane.name: {kind: sum(bins) / len(bins) * 4 for kind, bins in lane.shares.items()} for lane in found.lanes}
    assert lanes["worker 1"] == pytest.approx({"completed": 1}, abs=0.02)
    assert lanes["worker 2"] == pytest.approx({"retried": 1, "failed": 2, "stopped": 1}, abs=0.02)
    assert lanes["waiting to retry"] == pytest.approx({"waiting": 2}, abs=0.02)
    assert found.planned == ((0.0, "scan"),)
    said = text_of(timeline_picture(found, "tiles").html)
    assert "5 attempts by 2 workers in 4.0 s: 1 completed, 1 completed on a retry, 2 failed, 1 stopped or lost" in said


def test_a_histogram_has_each_attempt_once_and_names_the_slowest(store: AStore) -> None:
    job = Engine(store, ONE)
    scan = job.plan(1, [{}] * 2).first_key
    job.run(scan, at=NOW + 10)
    job.start(scan + 1)
    job.end("fail", scan + 1, failure=WRONG, at=NOW + 10, ended_at=NOW + 10.01)
    stat = job.plan(2, [{}] * 5).first_key
    for place in range(5):
        job.run(stat + place, at=NOW + 20, ended_at=NOW + 20 + 10**place)

    found = Timing.of(store, ONE).histogram()

    assert [(stage.name, stage.attempts) for stage in found.stages] == [("1 scan", 2), ("2 stat", 5)]
    assert {kind: sum(number) for kind, number in found.stages[0].counts.items()} == {"completed": 1, "failed": 1}
    assert found.logarithmic
    assert found.stages[1].median == pytest.approx(100, abs=1e-5)
    assert [task for task, _ in found.stages[1].slowest] == ["s2-4", "s2-3", "s2-2"]
    assert "Slowest of 2 stat: s2-4 2 h 47 min, s2-3 16 min 40 s" in text_of(histogram_picture(found, "tiles").html)


def test_progress_and_memory_are_told_by_when_they_were_and_what_is_unknown_is_not_drawn(store: AStore) -> None:
    job = Engine(store, ONE)
    first = job.plan(1, [{}] * 4).first_key
    job.run(first, at=NOW + 10, slot=0, peak_memory=100)
    job.run(first + 1, at=NOW + 10, ended_at=NOW + 14, slot=1, peak_memory=400)
    job.run(first + 2, at=NOW + 15, slot=0, peak_memory=200)
    job.run(first + 3, at=NOW + 15, slot=2, peak_memory=None)

    found = Timing.of(store, ONE, peaks=True)

    (lane,) = found.over_time().lanes
    done = [round(4 * share) for share in lane.shares["completed"]]
    assert done == sorted(done)
    assert [done[int(seconds / found.over_time().seconds * len(done))] for seconds in (0.5, 2, 4.5)] == [0, 1, 2]
    assert done[-1] == 4
    assert "Half of them had ended after 4." in str(over_time_picture(found.over_time(), "tiles"))

    memory = found.memory()
    assert memory.most == 400
    by_name = {lane.name: lane.shares["peak"] for lane in memory.lanes}
    assert {name: sorted(set(shares)) for name, shares in by_name.items()} == {
        "worker 1": [0.0, 0.25, 0.5],
        "worker 2": [0.0, 1.0],
    }
    assert sum(map(bool, by_name["worker 2"])) == pytest.approx(len(by_name["worker 2"]) * 4 / memory.seconds, abs=2)
    assert "400 B, the most, of worker 2" in " ".join(str(memory_picture(memory, "tiles")).split())
    assert not memory_picture(memory._replace(lanes=()), "tiles")


def test_a_job_of_which_nothing_has_run_says_so(store: AStore) -> None:
    Engine(store, ONE).plan(1, [{}])
    for picture in (
        timeline_picture(Timing.of(store, ONE).timeline(), "tiles"),
        histogram_picture(Timing.of(store, ONE).histogram(), "tiles"),
        over_time_picture(Timing.of(store, ONE).over_time(), "tiles"),
    ):
        assert "No attempt has ended yet." in str(picture)
        assert "No attempt has ended yet." in text_of(picture.html)


@pytest.mark.parametrize(("number", "workers"), [(4, 1), (100_000, 2), (100_000, 500)])
def test_a_picture_of_many_is_no_larger_than_one_of_few_need_be(number: int, workers: int) -> None:
    runs = many(number, workers)
    ids = {key: f"task-{key}" for key in timing._slowest(runs)}
    for picture in (
        timeline_picture(timing.timeline_of(runs), "many"),
        histogram_picture(timing.histogram_of(runs, ids), "many"),
        over_time_picture(timing.over_time_of(runs), "many"),
        memory_picture(timing.memory_of(runs), "many"),
    ):
        checked(picture.html)
        assert len(picture.html.encode()) < 200_000
        assert max(map(len, str(picture).splitlines())) <= 80


def test_many_stages_are_drawn_within_bounds() -> None:
    runs = many(4_000, stages=100)
    ids = {key: f"task-{key}" for key in timing._slowest(runs)}
    picture = histogram_picture(timing.histogram_of(runs, ids), "many")
    assert "88 stages more" in text_of(picture.html)
    assert len(timeline_picture(timing.timeline_of(runs), "many").html.encode()) < 200_000


def test_what_failed_is_seen_among_a_hundred_thousand_that_did_not() -> None:
    runs = many(100_000)
    kinds = np.zeros(100_000, dtype=int)
    kinds[77] = KINDS.index("failed")
    html = timeline_picture(timing.timeline_of(runs._replace(kinds=kinds)), "many").html
    assert "gf-bar gf-failed" in html
    assert "gf-bar gf-failed" in over_time_picture(timing.over_time_of(runs._replace(kinds=kinds)), "many").html
    assert "gf-bar gf-cancelled" not in html


def test_a_job_has_its_pictures_as_a_cell_shows_them_and_as_text() -> None:
    with gf.open(":memory:", workers=0, display="none") as session:
        job = session.run("hello_world", n=3)
        for picture in (job.timeline(), job.histogram(), job.over_time()):
            assert f"hello_world {job.id[:8]}" in text_of(picture._repr_html_())
            assert "6 attempts" in text_of(picture._repr_html_())
            assert "6 attempts" in str(picture)
        assert "1 worker in " in str(job.memory())


def test_the_card_of_a_job_that_has_stopped_has_its_pictures_folded_and_no_empty_one() -> None:
    with gf.open(":memory:", workers=0, display="none") as session:
        job = session.run("hello_world", n=3)
        html = job._repr_html_()
        checked(html)
        folded = [part.partition("</summary>") for part in html.split('<details class="gf-more"><summary>')[1:]]
        assert [name for name, _, _ in folded] == ["Timeline", "Durations", "Progress", "Memory"]
        assert all("<svg" in drawn for _, _, drawn in folded)
        assert html.count("<style>") == 1


def test_a_picture_that_cannot_be_drawn_leaves_the_card_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with gf.open(":memory:", workers=0, display="none") as session:
        job = session.run("hello_world", n=3)

        def damaged(*_: object) -> None:
            raise StoreError("damaged")

        monkeypatch.setattr(timing, "histogram_of", damaged)
        html = job._repr_html_()
        assert "hello_world" in html
        assert "<summary>Timeline" in html
        assert "<summary>Durations" not in html


@pytest.mark.parametrize("text", HOSTILE)
def test_S45_names_are_text_in_pictures(text: str) -> None:
    runs = many(40, name=text)
    ids = dict.fromkeys(timing._slowest(runs), text)
    checked(timeline_picture(timing.timeline_of(runs), text).html)
    checked(histogram_picture(timing.histogram_of(runs, ids), text).html)
