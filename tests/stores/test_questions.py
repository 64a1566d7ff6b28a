"""The questions that views ask have the same answers in both databases, and those that the store's own views give."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from geoflow.core.rows import Again, StageRow
from geoflow.stores import questions, task_lists
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.sqlite import SqliteStore
from geoflow.stores.task_lists import Wanted
from tests.stores.test_frames import BROKEN, NOW, ONE, TWO, WRONG, Engine

Filled = tuple[SqliteStore | DuckDbStore, StageRow]


@pytest.fixture(params=["work.db", "work.duckdb"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filled]:
    """Two jobs; the first was begun again, and its stage now has seven tasks of which one failed after a retry."""
    store = (DuckDbStore if request.param.endswith(".duckdb") else SqliteStore)(tmp_path / request.param)
    one = Engine(store, ONE)
    old = one.plan(1, [{}, {}])
    one.start(old.first_key)
    one.end("fail", old.first_key, failure=WRONG)
    store.change_job(one.lease, "rerun", now=NOW + 40, again=Again())
    store.change_job(one.lease, "start", now=NOW + 41)
    two = Engine(store, TWO)
    two.plan(1, [])
    plan = one.plan(1, [{"index": index} for index in range(7)], at=NOW + 42)
    one.run(plan.first_key, plan.first_key + 1, at=NOW + 50)
    one.start(plan.first_key + 2, plan.first_key + 3)
    one.end("retry", plan.first_key + 2, failure=BROKEN, at=NOW + 51, not_before=NOW + 52)
    one.end("retry", plan.first_key + 3, failure=BROKEN, at=NOW + 51, not_before=NOW + 52)
    one.start(plan.first_key + 2)
    one.end("fail", plan.first_key + 2, failure=WRONG, at=NOW + 53)
    yield store, plan
    store.close()


def ask(filled: Filled, question: Callable[..., Any], *values: Any, **more: Any) -> Any:
    with filled[0].reading() as connection:
        return question(connection, *values, **more)


def test_jobs_are_outlined_newest_first_without_what_may_be_long(filled: Filled) -> None:
    assert ask(filled, questions.number_of_jobs) == 2
    assert [(row.job_id, row.parameters) for row in ask(filled, questions.outlines, 9)] == [(TWO, "{}"), (ONE, "{}")]
    assert len(ask(filled, questions.outlines, 1)) == 1


def test_the_latest_completed_job_is_told_by_its_type(filled: Filled) -> None:
    assert ask(filled, questions.latest_completed, "tiles") is None
    for job_id in ("c" * 64, "d" * 64):
        filled[0].change_job(Engine(filled[0], job_id).lease, "complete", now=NOW + 60, result="{}")
    Engine(filled[0], "e" * 64)
    assert ask(filled, questions.latest_completed, "tiles") == "d" * 64
    assert ask(filled, questions.latest_completed, "others") is None


def test_current_plans_come_by_job_and_those_set_aside_do_not(filled: Filled) -> None:
    (one, two) = filled[0].jobs()
    assert ask(filled, questions.plans_of, 0, 9) == {
        one.job_key: filled[0].stages(one.job_key),
        two.job_key: filled[0].stages(two.job_key),
    }
    assert ask(filled, questions.plans_of, two.job_key, two.job_key).keys() == {two.job_key}


def test_what_has_not_completed_is_counted_by_state(filled: Filled) -> None:
    assert sorted(ask(filled, questions.not_completed, filled[1])) == [("failed", 1, 0), ("queued", 4, 1)]


def test_means_are_of_last_attempts_at_even_distances(filled: Filled) -> None:
    ran, waited, share = ask(filled, questions.means, filled[1], NOW + 52, 200)
    assert ran == pytest.approx(1.0)
    assert waited == pytest.approx((8 + 8 + 11 + 9) / 4)
    assert share == pytest.approx(2 / 4), "of those that have an attempt"
    assert ask(filled, questions.means, filled[1], NOW, 1)[0] == pytest.approx(1.0)


def test_tasks_are_found_by_id_beginning_and_state_in_current_plans_alone(filled: Filled) -> None:
    (one, _) = filled[0].jobs()
    places = [place.task_id for place in ask(filled, questions.places, one.job_key, 10)]
    assert places == [f"s1-{index}" for index in range(7)]
    assert [place.task_index for place in ask(filled, questions.places, one.job_key, 10, status="failed")] == [2]
    assert [place.task_id for place in ask(filled, questions.places, one.job_key, 10, task_id="s1-3")] == ["s1-3"]
    first, *others = ask(filled, questions.places, one.job_key, 3, begins="s1", failed_first=True)
    assert (first.task_id, [place.task_id for place in others]) == ("s1-2", ["s1-0", "s1-1"])
    assert ask(filled, questions.places, one.job_key, 10, begins="S1") == []
    assert [place.task_id for place in ask(filled, questions.places, one.job_key, 10, ends="-3")] == ["s1-3"]


def test_a_list_of_tasks_has_those_with_the_text_in_the_order_of_their_states(filled: Filled) -> None:
    states = ("failed", "processing", "cancelled", "queued", "completed")
    listed = ask(filled, task_lists.tasks, filled[1], Wanted(part="S1-"), 4, states)
    assert [(task.task_id, task.error_type) for task in listed] == [
        ("s1-2", "ValueError"),
        ("s1-3", "OSError"),
        ("s1-4", ""),
        ("s1-5", ""),
    ]
    assert ask(filled, task_lists.number, filled[1], Wanted(part="S1-")) == 7
    assert ask(filled, task_lists.number, filled[1], Wanted(error_type="OSError")) == 0, "that one is tried again"
    assert ask(filled, task_lists.error_types, filled[1]) == {"ValueError": 1}


def test_a_task_is_told_with_texts_of_a_bounded_length_and_only_of_its_own_job(filled: Filled) -> None:
    key = filled[1].first_key
    task = ask(filled, questions.task, ONE, key, 5)
    assert (task.task_id, task.status, task.parameters, len(task.result)) == ("s1-0", "completed", '{"ind', 5)
    assert ask(filled, questions.task, TWO, key, 5) is None
    last = ask(filled, questions.last_attempt, key)
    assert (last.status, last.attempts, json.loads(last.result)["success"]) == ("completed", 1, True)


def test_attempts_of_a_task_come_newest_first_and_failures_with_the_last_ones_error(filled: Filled) -> None:
    key = filled[1].first_key + 2
    attempts = ask(filled, questions.attempts_of, key, 5, 100)
    assert [(attempt.attempt, attempt.outcome, attempt.error) for attempt in attempts] == [
        (2, "failed", "ValueError: bad tile"),
        (1, "failed", "OSError: no such tile"),
    ]
    (failed,) = ask(filled, questions.failed_tasks, filled[1], 5)
    assert (failed.task_key, failed.retries, failed.error, failed.traceback) == (key, 1, "bad tile", "Traceback: there")


def test_all_attempts_that_failed_are_told_of_those_of_plans_set_aside_too(filled: Filled) -> None:
    with filled[0].reading() as connection:
        failed = list(questions.failed_attempts(connection, ONE))
        names = [questions.task_id(connection, attempt.task_key) for attempt in failed]
    assert names == ["s1-0", "s1-2", "s1-2", "s1-3"]
    assert [attempt.error_type for attempt in failed] == ["ValueError", "OSError", "ValueError", "OSError"]
