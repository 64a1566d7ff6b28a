"""S19, S29, S32: which changes of state exist, and what the engine does next in every situation there is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.core.models import JobStatus, OnFailure, TaskStatus
from geoflow.core.next_step import (
    Cancel,
    Close,
    Ended,
    Fail,
    Finalize,
    Listen,
    Plan,
    Start,
    Step,
    View,
    Work,
    failure_message,
    next_step,
)
from geoflow.core.transitions import JOB_TRANSITIONS, MAX_LOSSES, TASK_TRANSITIONS, job_after, task_after
from geoflow.errors import GeoflowError, IllegalTransition
from geoflow.support.allowance import is_allowance, most

# Written out by hand, a line for each state: what may happen to it, and where that leads.
JOBS = {
    "queued": {"start": "processing", "cancel": "cancelled", "rerun": "queued"},
    "processing": {
        "complete": "completed",
        "fail": "failed",
        "interrupt": "queued",
        "cancel": "cancelled",
        "rerun": "queued",
    },
    "completed": {"refinalize": "completed", "rerun": "queued"},
    "failed": {"resume": "queued", "rerun": "queued"},
    "cancelled": {"resume": "queued", "rerun": "queued"},
}
TASKS = {
    "queued": {"start": "processing", "reuse": "completed", "cancel": "cancelled"},
    "processing": {
        "complete": "completed",
        "fail": "failed",
        "retry": "queued",
        "lose": "queued",
        "requeue": "queued",
        "release": "queued",
        "cancel": "cancelled",
    },
    "completed": {"redo": "queued"},
    "failed": {"reset": "queued"},
    "cancelled": {"reset": "queued"},
}
# Every event of either table, and some that no table has.
EVENTS = sorted(
    {event for table in (JOBS, TASKS) for events in table.values() for event in events} | {"", "START", "delete"}
)


# The tables


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("status", list(JobStatus))
def test_S19_every_pair_of_job_state_and_event_does_what_the_table_says(status: JobStatus, event: str) -> None:
    expected = JOBS[status].get(event)
    if expected is not None:
        assert job_after(status, event) == expected
        assert isinstance(job_after(status, event), JobStatus)
    else:
        with pytest.raises(IllegalTransition) as caught:
            job_after(status, event)
        assert str(caught.value) == f"A job that is {status.value} cannot {event}."


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("status", list(TaskStatus))
def test_S19_every_pair_of_task_state_and_event_does_what_the_table_says(status: TaskStatus, event: str) -> None:
    expected = TASKS[status].get(event)
    if expected is not None:
        assert task_after(status, event) == expected
        assert isinstance(task_after(status, event), TaskStatus)
    else:
        with pytest.raises(IllegalTransition) as caught:
            task_after(status, event)
        assert str(caught.value) == f"A task that is {status.value} cannot {event}."


def test_S19_the_tables_have_no_other_entries() -> None:
    assert sorted(JOB_TRANSITIONS) == sorted((state, event) for state, events in JOBS.items() for event in events)
    assert sorted(TASK_TRANSITIONS) == sorted((state, event) for state, events in TASKS.items() for event in events)


def test_S18_S19_the_states_are_five_lower_case_words_and_there_is_no_other_waiting_state() -> None:
    words = ["queued", "processing", "completed", "failed", "cancelled"]
    assert [str(status) for status in JobStatus] == words
    assert [str(status) for status in TaskStatus] == words


def test_S19_an_illegal_transition_is_a_geoflow_error_that_hides_the_lookup_behind_it() -> None:
    with pytest.raises(GeoflowError) as caught:
        job_after(JobStatus.COMPLETED, "start")
    assert caught.value.__suppress_context__


def test_S37_a_completed_task_runs_again_only_where_a_rerun_of_what_is_stale_asks_for_it() -> None:
    assert [event for state, event in TASK_TRANSITIONS if state == TaskStatus.COMPLETED] == ["redo"]


def test_S38_cancel_reaches_every_job_and_task_that_has_not_ended_and_no_other() -> None:
    assert {state for state, event in JOB_TRANSITIONS if event == "cancel"} == {"queued", "processing"}
    assert {state for state, event in TASK_TRANSITIONS if event == "cancel"} == {"queued", "processing"}


def test_S30_a_task_lost_with_its_engine_three_times_in_a_row_is_the_limit() -> None:
    assert MAX_LOSSES == 3


# What happens next, in every situation of a job with up to three stages


def views() -> Iterator[View]:
    few: tuple[tuple[OnFailure, int], ...] = (("drain", 0), ("stop", 0), ("continue", 1))
    for status, total in itertools.product(JobStatus, (1, 2, 3)):
        for stage, planned, (on_failure, may_fail), closed in itertools.product(
            range(1, total + 1), (False, True), few, (False, True)
        ):
            for queued, processing, failed in itertools.product((0, 1, 2), repeat=3):
                for completed, cancelled in itertools.product((0, 1), repeat=2):
                    yield View(
                        status,
                        stage,
                        total,
                        planned,
                        queued,
                        processing,
                        completed,
                        failed,
                        cancelled,
                        on_failure,
                        closed,
                        may_fail=may_fail,
                    )


ALL = [(view, next_step(view)) for view in views()]


def of(*kinds: type) -> list[tuple[View, Step]]:
    found = [(view, step) for view, step in ALL if isinstance(step, kinds)]
    assert found, "the situations asked for exist"
    return found


def has_ended(view: View) -> bool:
    return view.status in ("completed", "cancelled") or (view.status == "failed" and view.closed)


def test_S32_every_situation_has_a_step_and_always_the_same_one() -> None:
    assert {type(step) for _, step in ALL} == {Start, Plan, Work, Fail, Cancel, Finalize, Close, Ended}
    assert all(next_step(View(*view)) == step for view, step in ALL)


def test_S32_while_user_code_is_asked_for_a_plan_or_a_result_nothing_else_is_done_whatever_the_situation() -> None:
    for view, _ in ALL:
        for asked in (Plan(view.stage), Finalize()):
            for refinalizing in (False, True):
                assert next_step(view._replace(asked=asked, refinalizing=refinalizing)) == Listen()


def test_S34_a_job_that_is_refinalized_is_finalized_and_nothing_else_of_it_is_done() -> None:
    assert all(next_step(view._replace(refinalizing=True)) == Finalize() for view, _ in ALL)


def test_S36_a_job_is_ended_when_and_only_when_its_row_says_all_of_it() -> None:
    assert all(isinstance(step, Ended) == has_ended(view) for view, step in ALL)


def test_S19_a_queued_job_is_started_and_no_other() -> None:
    assert all(isinstance(step, Start) == (view.status == "queued") for view, step in ALL)


def test_S13_a_stage_is_planned_once_and_before_anything_else_of_it() -> None:
    for view, step in of(Plan):
        assert isinstance(step, Plan)
        assert view.status == "processing"
        assert step.stage == (view.stage + 1 if view.planned else view.stage)
        assert step.stage <= view.total_stages
    unplanned = [step for view, step in ALL if view.status == "processing" and not view.planned]
    assert all(isinstance(step, Plan) for step in unplanned)


def test_S29_S32_no_later_stage_and_no_finalize_before_every_task_of_this_one_has_ended_well() -> None:
    for view, step in of(Plan, Finalize):
        if isinstance(step, Finalize) or view.planned:
            assert (view.queued, view.processing) == (0, 0)
            assert view.failed <= (1 if view.on_failure == "continue" else 0)
    assert all(view.planned and view.stage == view.total_stages for view, _ in of(Finalize))


def test_S16_a_stage_without_tasks_is_passed() -> None:
    assert next_step(View(JobStatus.PROCESSING, 1, 3, planned=True)) == Plan(2)
    assert next_step(View(JobStatus.PROCESSING, 3, 3, planned=True)) == Finalize()


def test_S37_a_stage_in_which_tasks_stayed_cancelled_leads_to_no_other() -> None:
    for view, _ in of(Cancel):
        assert view.status == "processing"
        assert view.cancelled
        assert (view.queued, view.processing) == (0, 0)
        assert view.failed <= view.may_fail


def test_S29_S50_a_failed_task_or_one_more_than_may_fails_its_job_at_once_whatever_its_siblings_do() -> None:
    for view, step in ALL:
        at_once = view.status == "processing" and view.planned and view.failed > view.may_fail
        assert isinstance(step, Fail) == at_once


def test_S29_a_failed_job_drains_its_siblings_or_stops_as_it_was_told() -> None:
    for view, step in ALL:
        if view.status != "failed" or view.closed:
            continue
        if view.on_failure != "stop":
            busy = view.queued or view.processing
            assert step == (Work(dispatch=True) if busy else Close())
        else:
            assert step == (Work(dispatch=False) if view.processing else Close())


def test_S29_a_job_whose_policy_is_stop_sends_nothing_more_once_it_failed() -> None:
    assert not [
        view
        for view, step in of(Work)
        if isinstance(step, Work) and step.dispatch and view.status == "failed" and view.on_failure == "stop"
    ]


def test_S36_the_engine_waits_only_for_tasks_that_run_or_that_it_will_send() -> None:
    for view, step in of(Work):
        assert isinstance(step, Work)
        assert view.status in ("processing", "failed")
        assert view.processing or (step.dispatch and view.queued)


def test_S29_only_a_failed_job_is_closed_and_only_when_none_of_its_tasks_runs() -> None:
    for view, _ in of(Close):
        assert view.status == "failed"
        assert not view.closed
        assert view.processing == 0
        assert view.queued == 0 or view.on_failure == "stop"


def test_S29_S32_the_policy_for_failures_does_not_show_before_one_happened() -> None:
    for view, step in ALL:
        if view.status == "processing":
            assert next_step(view._replace(on_failure="drain")) == next_step(view._replace(on_failure="stop")) == step


# Walking: every way that a small job can go


def ways(view: View, step: Step) -> Iterator[View]:
    """All views that doing *step* can lead to, when a stage may have up to two tasks and nothing is retried."""
    match step if view.asked is None else view.asked:
        case Start():
            yield view._replace(status=JobStatus.PROCESSING)
        case Plan() | Finalize() as question if view.asked is None:
            yield view._replace(asked=question)
        case Plan(stage):
            yield View(JobStatus.FAILED, view.stage, view.total_stages, view.planned, completed=view.completed)
            for tasks in (0, 1, 2):
                about = {"on_failure": view.on_failure, "may_fail": view.may_fail}
                yield View(view.status, stage, view.total_stages, True, tasks, **about)  # type: ignore[arg-type]
        case Work(dispatch):
            if dispatch and view.queued:
                yield view._replace(queued=view.queued - 1, processing=view.processing + 1)
            if view.processing:
                yield view._replace(processing=view.processing - 1, completed=view.completed + 1)
                yield view._replace(processing=view.processing - 1, failed=view.failed + 1)
        case Fail():
            yield view._replace(status=JobStatus.FAILED)
        case Finalize():
            yield view._replace(status=JobStatus.COMPLETED, closed=True, asked=None, refinalizing=False)
        case Close():
            yield view._replace(closed=True)


@pytest.mark.parametrize(("on_failure", "may_fail"), [("drain", 0), ("stop", 0), ("continue", 1)])
def test_S32_S36_every_way_that_a_job_can_go_ends_and_never_comes_by_the_same_place_twice(
    on_failure: OnFailure, may_fail: int
) -> None:
    ends: set[JobStatus] = set()
    seen: set[View] = set()

    def walk(view: View, path: frozenset[View]) -> None:
        assert view not in path, "a step led back to where the job had been"
        if view in seen:
            return
        following = list(ways(view, next_step(view)))
        if not following:
            assert has_ended(view)
            ends.add(view.status)
        for after in following:
            walk(after, path | {view})
        seen.add(view)

    walk(View(JobStatus.QUEUED, 1, 3, on_failure=on_failure, may_fail=may_fail), frozenset())
    walk(View(JobStatus.COMPLETED, 3, 3, True, completed=2, closed=True, refinalizing=True), frozenset())
    assert ends == {JobStatus.COMPLETED, JobStatus.FAILED}
    assert len(seen) > 50


# How many may fail


@given(st.integers(1, 10_000), st.integers(0, 100))
def test_S50_a_share_allows_so_many_tasks_of_a_stage_to_the_task_and_never_all(tasks: int, percent: int) -> None:
    assert most(percent / 100, tasks) == min(percent * tasks // 100, tasks - 1)
    assert most(percent, tasks) == min(percent, tasks - 1)
    assert most(None, tasks) == tasks - 1


def test_S50_of_a_stage_without_tasks_none_may_fail() -> None:
    assert [most(allowed, 0) for allowed in (None, 0, 5, 0.5, 1.0)] == [0] * 5


@pytest.mark.parametrize("value", [1.5, -1, -0.1, True, False, "5", math.nan, math.inf, None, [1]])
def test_S50_what_is_neither_a_number_of_tasks_nor_a_share_is_no_allowance(value: object) -> None:
    assert not is_allowance(value)


def test_S50_the_message_says_how_many_may_fail_where_some_may() -> None:
    failed = [(4, "tile-5", "scan", 0, "OSError: gone"), (7, "tile-8", "scan", 0, "OSError: gone")]
    told = failure_message(failed, may_fail=1)
    assert told.endswith("OSError: gone (1 more failed); at most 1 of this stage may fail")


# Why a job failed


def test_S29_the_message_names_the_task_its_type_its_place_its_retries_and_the_error() -> None:
    assert failure_message([(4, "tile-5", "scan", 3, "OSError: disk gone")]) == (
        "Task 'tile-5' (scan, number 4) failed after 3 retries: OSError: disk gone"
    )


@pytest.mark.parametrize(
    ("retries", "words"),
    [(0, "failed without a retry: "), (1, "failed after 1 retry: "), (2, "failed after 2 retries: ")],
)
def test_S29_the_message_counts_retries_in_words_that_fit(retries: int, words: str) -> None:
    assert words in failure_message([(0, "a", "scan", retries, "ValueError: no")])


def test_S29_the_message_names_the_first_task_of_the_stage_and_counts_the_others() -> None:
    failed = [(7, "late", "scan", 0, "ValueError: b"), (2, "early", "scan", 1, "OSError: a"), (9, "x", "scan", 0, "c")]
    assert failure_message(failed) == "Task 'early' (scan, number 2) failed after 1 retry: OSError: a (2 more failed)"


rows = st.tuples(st.integers(0, 50), st.text(max_size=5), st.sampled_from("ab"), st.integers(0, 3), st.text(max_size=5))


@given(
    st.lists(rows, min_size=1, max_size=6, unique_by=lambda row: row[0]).flatmap(
        lambda r: st.tuples(st.just(r), st.permutations(r))
    )
)
def test_S29_the_message_does_not_depend_on_the_order_in_which_tasks_failed(
    orders: tuple[list[tuple[int, str, str, int, str]], list[tuple[int, str, str, int, str]]],
) -> None:
    one, other = orders
    assert failure_message(one) == failure_message(other)
    assert repr(min(one)[1]) in failure_message(other)
