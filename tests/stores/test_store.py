"""What every store must do, whatever it is made of. Another store joins by a line in STORES."""

from __future__ import annotations

import json
import sqlite3
import threading
from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.core.batch import Call, Completed, NewTasks
from geoflow.core.models import Attempt, Failure, JobStatus, TaskStatus
from geoflow.core.rows import Again, FailedRow, Lease, Move, StageRow, Take
from geoflow.core.transitions import JOB_TRANSITIONS, TASK_TRANSITIONS
from geoflow.errors import DefinitionError, GeoflowError, IllegalTransition, LeaseLost, StoreBusy, StoreError
from geoflow.stores import columns, reading
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.ranges import as_ranges
from geoflow.stores.sqlite import SqliteStore
from geoflow.stores.store import Store
from geoflow.support.text import shorten
from tests.helpers.stored import (
    DUCKDB,
    NASTY,
    NOW,
    OWNER,
    STAGES,
    STORES,
    WRONG,
    again,
    complete,
    created,
    emptied,
    ended,
    everything,
    finalize_rows,
    finished,
    new_job,
    new_tasks,
    places,
    planned,
    results,
    select,
    started,
    take,
)


@pytest.fixture(scope="module")
def kept_open(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a DuckDB file that stays open from one test to the next."""
    folder = tmp_path_factory.mktemp("duckdb")
    store = STORES[DUCKDB](folder)
    store.open()
    yield folder
    store.close()


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path, kept_open: Path) -> Iterator[Store]:
    made = STORES[request.param](kept_open if request.param == DUCKDB else tmp_path)
    made.open()
    if isinstance(made, DuckDbStore):
        emptied(made)
    yield made
    made.close()


@pytest.fixture(params=list(STORES))
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """One whose file nobody else has open."""
    made = STORES[request.param](tmp_path)
    made.open()
    yield made
    made.close()


# Submitting and taking over


def test_S9_a_job_submitted_again_is_the_first_one_and_nothing_of_it_changes(store: Store) -> None:
    first, made = store.create(new_job("a" * 64, source="jobs.py"))
    second, made_again = store.create(new_job("a" * 64, job_type="other", parameters='{"n":2}', created_at=NOW + 9))
    assert (made, made_again) == (True, False)
    assert second == first
    assert store.jobs() == [first]
    assert first.status is JobStatus.QUEUED
    assert first[1:] == (
        *("a" * 64, "tiles", "queued", 1, STAGES, '{"folder":"data"}'),
        *(None, None, None, NOW, None, None, None, 0, "jobs.py"),
    )


def test_S9_threads_that_submit_one_job_at_the_same_time_make_one_row(store: Store) -> None:
    job, barrier, found = new_job(), threading.Barrier(8), []

    def submit() -> None:
        barrier.wait()
        found.append(store.create(job))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made for _, made in found) == [False] * 7 + [True]
    assert len({row.job_key for row, _ in found}) == 1


def test_S19_each_claim_ends_the_lease_before_it(store: Store) -> None:
    first, stage = planned(store)
    second = store.claim(first.job_key, OWNER)
    assert (second.job_id, second.epoch) == (first.job_id, first.epoch + 1)
    before = everything(store)
    writes: list[Callable[[], Any]] = [
        lambda: store.plan(first, 2, new_tasks("a"), now=NOW),
        lambda: store.change_job(first, "complete", now=NOW, result="{}"),
        lambda: store.end_job(first, error=None, now=NOW),
        lambda: store.commit(first, [], []),
        lambda: take(store, first, stage, 1),
    ]
    for write in writes:
        with pytest.raises(LeaseLost, match=first.job_id[:8]):
            write()
    assert everything(store) == before
    store.plan(second, 2, new_tasks("a"), now=NOW)
    assert len(take(store, second, stage, 1)) == 1


def test_S19_the_driver_is_named_while_the_job_is_held_and_no_longer(store: Store) -> None:
    row = created(store)
    assert store.driver(row.job_key) is None
    lease = store.claim(row.job_key, OWNER)
    assert store.driver(row.job_key) == "process 4242, since 2024-01-01T00:00:00+00:00"
    assert again(store, lease).owner == OWNER
    store.release(lease)
    assert store.driver(row.job_key) is None


def test_S19_giving_back_an_old_lease_leaves_the_claim_that_followed_it(store: Store) -> None:
    old = store.claim(created(store).job_key, OWNER)
    store.claim(old.job_key, OWNER)
    store.release(old)
    assert store.driver(old.job_key) is not None


def test_S36_a_store_that_is_shut_drives_nothing_and_opens_again(new_store: Store) -> None:
    store = new_store
    lease, stage = planned(store)
    store.close()
    assert store.driver(lease.job_key) is None
    if store.name == ":memory:":  # it ends when it is shut
        assert store.jobs() == []
        return
    assert store.counts(stage) == {"queued": 3}
    assert store.claim(lease.job_key, OWNER).epoch == lease.epoch + 1


def test_S38_a_wish_to_cancel_is_kept_until_the_job_is_taken_up_again(store: Store) -> None:
    lease = started(store)
    assert store.cancels_requested([lease.job_key]) == []
    store.request_cancel(lease.job_key)
    assert store.cancels_requested([lease.job_key, lease.job_key + 1]) == [lease.job_key]
    store.change_job(lease, "cancel", now=NOW)
    store.change_job(lease, "resume", now=NOW)
    assert store.cancels_requested([lease.job_key]) == []


# Changes of a job

JOB_EVENTS = sorted({event for _, event in JOB_TRANSITIONS})
WAY_TO = {
    JobStatus.QUEUED: [],
    JobStatus.PROCESSING: ["start"],
    JobStatus.COMPLETED: ["start", "complete"],
    JobStatus.FAILED: ["start", "fail"],
    JobStatus.CANCELLED: ["cancel"],
}


@pytest.mark.parametrize("event", JOB_EVENTS)
@pytest.mark.parametrize("status", JobStatus)
def test_S19_a_job_changes_as_the_table_says_and_in_no_other_way(store: Store, status: JobStatus, event: str) -> None:
    lease = started(store)
    stage = store.plan(lease, 1, new_tasks("a"), now=NOW)
    store.change_job(lease, "interrupt", now=NOW)
    for step in WAY_TO[status]:
        store.change_job(lease, step, now=NOW)
    before = everything(store)

    def change() -> None:
        store.change_job(
            lease,
            event,
            now=NOW + 5,
            error="why",
            moves=[Move("start", [stage.first_key])],
            attempts=[ended(stage.first_key)],
        )

    if (status, event) in JOB_TRANSITIONS:
        change()
        assert again(store, lease).status is JOB_TRANSITIONS[status, event]
        assert store.in_state(stage, "processing") == [(stage.first_key, 1, 0)]
    else:
        with pytest.raises(IllegalTransition, match=rf"{status} cannot {event}"):
            change()
        assert everything(store) == before


def test_S19_a_job_does_not_change_when_one_of_its_tasks_cannot(store: Store) -> None:
    lease, stage = planned(store)
    complete(store, lease, [stage.first_key])
    before = everything(store)
    with pytest.raises(IllegalTransition):
        store.change_job(lease, "fail", now=NOW, error="x", moves=[Move("fail", [stage.first_key])])
    assert everything(store) == before


def test_S28_a_job_that_completes_has_times_a_result_and_no_error(store: Store) -> None:
    lease = started(store)
    store.change_job(lease, "fail", now=NOW + 2, error="boom", traceback="here")
    store.end_job(lease, error=None, now=NOW + 3)
    failed = again(store, lease)
    assert (failed.error, failed.traceback, failed.ended_at) == ("boom", "here", NOW + 3)
    store.change_job(lease, "resume", now=NOW + 4)
    store.change_job(lease, "start", now=NOW + 5)
    store.change_job(lease, "complete", now=NOW + 9, result='{"a":1}')
    row = again(store, lease)
    assert (row.status, row.result, row.error, row.traceback) == (JobStatus.COMPLETED, '{"a":1}', None, None)
    assert (row.created_at, row.started_at, row.ended_at) == (NOW, NOW, NOW + 9)
    assert select(store, "SELECT status, duration, error FROM jobs") == [("completed", 9.0, None)]


def test_S34_a_completed_job_takes_the_result_of_another_finalize(store: Store) -> None:
    lease = started(store)
    store.change_job(lease, "complete", now=NOW + 1, result='{"fallback":true}', traceback="in finalize")
    assert again(store, lease).traceback == "in finalize"
    store.change_job(lease, "refinalize", now=NOW + 2, result='{"good":1}')
    row = again(store, lease)
    assert (row.status, row.result, row.traceback, row.ended_at) == ("completed", '{"good":1}', None, NOW + 1)


def test_S29_a_failed_job_has_no_end_before_its_siblings_have(store: Store) -> None:
    lease = started(store)
    store.change_job(lease, "fail", now=NOW + 1, error="the first")
    assert again(store, lease).ended_at is None
    store.end_job(lease, error="named again", now=NOW + 2)
    row = again(store, lease)
    assert (row.status, row.error, row.ended_at) == ("failed", "named again", NOW + 2)


@pytest.mark.parametrize("status", [status for status in JobStatus if status != JobStatus.FAILED])
def test_S19_only_a_failed_job_is_closed(store: Store, status: JobStatus) -> None:
    lease = store.claim(created(store).job_key, OWNER)
    for step in WAY_TO[status]:
        store.change_job(lease, step, now=NOW)
    before = everything(store)
    with pytest.raises(IllegalTransition):
        store.end_job(lease, error="late", now=NOW + 1)
    assert everything(store) == before


# Plans


def test_S13_a_plan_writes_all_tasks_in_their_order_and_makes_the_stage_current(store: Store) -> None:
    lease = started(store)
    tasks = NewTasks.of(
        ("b", "scan_it", '{"x":1}', '{"m":1}'), ("a", "stat_it", "{}", None), ("B", "scan_it", "{}", None)
    )
    first = store.plan(lease, 1, tasks, now=NOW + 1)
    assert (first.stage, first.task_count, first.end_key, first.planned_at) == (1, 3, first.first_key + 3, NOW + 1)
    shown = "task_id, task_index, task_type, status, attempts, retries, not_before, parameters"
    assert select(store, f"SELECT {shown} FROM tasks ORDER BY task_key") == [
        ("b", 0, "scan_it", "queued", 0, 0, None, '{"x":1}'),
        ("a", 1, "stat_it", "queued", 0, 0, None, "{}"),
        ("B", 2, "scan_it", "queued", 0, 0, None, "{}"),
    ]
    assert store.in_state(first, "queued") == [(key, 0, 0) for key in range(first.first_key, first.end_key)]
    assert store.tried_before(first) == []
    second = store.plan(lease, 2, new_tasks("c"), now=NOW + 2)
    assert second.first_key >= first.end_key
    assert store.stages(lease.job_key) == [first, second]
    assert again(store, lease).stage == 2
    assert select(store, "SELECT task_id, stage_name, metadata FROM tasks WHERE stage = 1 AND task_index = 0") == [
        ("b", "scan", '{"m":1}')
    ]


def test_S16_a_stage_without_tasks_is_planned_too(store: Store) -> None:
    lease = started(store)
    empty = store.plan(lease, 1, new_tasks(), now=NOW)
    assert (empty.task_count, store.counts(empty), store.in_state(empty, "queued")) == (0, {}, [])
    assert store.stages(lease.job_key) == [empty]
    assert finalize_rows(store, lease) == []
    following = store.plan(lease, 2, new_tasks("a", "b"), now=NOW)
    assert store.counts(empty) == {}
    assert store.tried_before(empty) == []
    with pytest.raises(IllegalTransition):
        take(store, lease, empty, 1)
    assert store.counts(following) == {"queued": 2}


@pytest.mark.parametrize("place", [1, 500, 999])
def test_S13_a_plan_that_fails_in_the_middle_leaves_nothing(store: Store, place: int) -> None:
    lease = started(store)
    before = everything(store)
    names = [f"t{n}" for n in range(1000)]
    names[place] = names[0]
    with pytest.raises(GeoflowError):
        store.plan(lease, 1, new_tasks(*names), now=NOW)
    assert everything(store) == before
    assert store.stages(lease.job_key) == []
    assert store.counts(store.plan(lease, 1, new_tasks(*set(names)), now=NOW)) == {"queued": 999}


def test_S17_a_task_id_of_an_earlier_stage_is_a_definition_error_and_nothing_is_planned(store: Store) -> None:
    lease = started(store)
    store.plan(lease, 1, new_tasks("it's", "b"), now=NOW)
    store.plan(lease, 2, new_tasks("c"), now=NOW)
    before = everything(store)
    with pytest.raises(DefinitionError, match='Stage 3 has the task id "it\'s"'):
        store.plan(lease, 3, new_tasks("new", "it's"), now=NOW)
    assert everything(store) == before


def test_S17_jobs_do_not_share_task_ids(store: Store) -> None:
    planned(store)
    _, other = planned(store)
    assert store.counts(other) == {"queued": 3}


def test_S32_a_stage_that_is_planned_is_not_planned_twice(store: Store) -> None:
    lease, _ = planned(store)
    before = everything(store)
    with pytest.raises(GeoflowError):
        store.plan(lease, 1, new_tasks("other"), now=NOW)
    assert everything(store) == before


@pytest.mark.parametrize("status", [status for status in JobStatus if status != JobStatus.PROCESSING])
def test_S19_only_a_job_that_is_processing_is_planned(store: Store, status: JobStatus) -> None:
    lease = store.claim(created(store).job_key, OWNER)
    for step in WAY_TO[status]:
        store.change_job(lease, step, now=NOW)
    before = everything(store)
    with pytest.raises(IllegalTransition):
        store.plan(lease, 1, new_tasks("a"), now=NOW)
    assert everything(store) == before


# Changes of tasks

TASK_EVENTS = sorted({event for _, event in TASK_TRANSITIONS})
TASK_WAY_TO = {
    TaskStatus.QUEUED: [],
    TaskStatus.PROCESSING: ["start"],
    TaskStatus.COMPLETED: ["start", "complete"],
    TaskStatus.FAILED: ["start", "fail"],
    TaskStatus.CANCELLED: ["cancel"],
}


@pytest.mark.parametrize("event", TASK_EVENTS)
@pytest.mark.parametrize("status", TaskStatus)
def test_S19_a_task_changes_as_the_table_says_and_nothing_of_a_batch_with_another_change_is_written(
    store: Store, status: TaskStatus, event: str
) -> None:
    lease, stage = planned(store, tasks=5)
    key = stage.first_key + 2  # in the middle, so that its neighbours could be hit
    for step in TASK_WAY_TO[status]:
        store.commit(lease, [Move(step, [key])], [])
    before = everything(store)
    batch = [Move("start", [stage.first_key]), Move(event, [key], NOW + 7), Move("start", [stage.first_key + 4])]
    if (status, event) in TASK_TRANSITIONS:
        store.commit(lease, batch, [ended(stage.first_key)])
        assert key in [found for found, _, _ in store.in_state(stage, TASK_TRANSITIONS[status, event])]
        assert len(store.in_state(stage, "processing")) >= 2
    else:
        with pytest.raises(IllegalTransition, match=rf"1 of \d tasks were not in the state that '{event}' leaves"):
            store.commit(lease, batch, [ended(stage.first_key)])
        assert everything(store) == before


def test_S19_one_task_in_the_wrong_state_stops_the_whole_range(store: Store) -> None:
    lease, stage = planned(store, tasks=6)
    keys = list(range(stage.first_key, stage.end_key))
    store.commit(lease, [Move("start", [keys[3]])], [])
    before = everything(store)
    with pytest.raises(IllegalTransition, match="1 of 6 tasks"):
        store.commit(lease, [Move("start", keys)], [])
    with pytest.raises(IllegalTransition):
        store.commit(lease, [Move("start", [keys[0], keys[0]])], [])  # the second time it is no longer queued
    with pytest.raises(IllegalTransition):
        store.commit(lease, [Move("start", [10**9])], [])  # no such task
    assert everything(store) == before


def test_S32_an_attempt_that_is_reported_twice_is_refused_with_all_that_came_with_it(store: Store) -> None:
    lease, stage = planned(store)
    key = stage.first_key
    complete(store, lease, [key])
    store.commit(lease, [Move("start", [key + 1])], [])
    before = everything(store)
    with pytest.raises(IllegalTransition, match="reported twice"):
        store.commit(lease, [Move("complete", [key + 1])], [ended(key + 1), ended(key)])
    assert everything(store) == before
    with pytest.raises(IllegalTransition, match="reported twice"):
        store.commit(lease, [Move("complete", [key + 1])], [ended(key + 1), ended(key + 1)])
    assert everything(store) == before
    store.commit(lease, [Move("complete", [key + 1])], [ended(key + 1)])


def test_S26_attempts_retries_and_losses_are_counted_as_each_event_means(store: Store) -> None:
    lease, stage = planned(store, tasks=1)
    key = stage.first_key

    def stands(*moves: Move) -> tuple[Any, ...]:
        store.commit(lease, moves, [])
        ((found, attempt, losses),) = store.in_state(stage, "queued")
        ((number, retries, not_before),) = select(store, "SELECT attempts, retries, not_before FROM tasks")
        assert (found, number) == (key, attempt)
        assert store.tried_before(stage) == ([(key, not_before)] if retries or losses else [])
        return attempt, retries, losses, not_before

    start = Move("start", [key])
    assert stands(start, Move("release", [key])) == (0, 0, 0, None)  # it had not begun
    assert stands(start, Move("lose", [key])) == (1, 0, 1, None)
    assert stands(start, Move("requeue", [key])) == (2, 0, 1, None)  # not to blame
    assert stands(start, Move("lose", [key])) == (3, 0, 2, None)
    assert stands(start, Move("retry", [key], NOW + 10)) == (4, 1, 0, NOW + 10)  # losses count only in a row
    assert stands(start, Move("lose", [key])) == (5, 1, 1, None)  # it has waited for its retry
    assert stands(start, Move("fail", [key]), Move("reset", [key])) == (6, 0, 0, None)
    assert stands(Move("cancel", [key]), Move("reset", [key])) == (6, 0, 0, None)


@given(st.lists(st.tuples(st.sampled_from(TASK_EVENTS), st.sets(st.integers(0, 7))), max_size=25))
def test_S19_any_sequence_of_changes_leaves_the_states_that_the_table_gives(
    changes: list[tuple[str, set[int]]],
) -> None:
    store = SqliteStore(":memory:")
    try:
        lease, stage = planned(store, tasks=8)
        states = [TaskStatus.QUEUED] * 8
        for event, places in changes:
            move = Move(event, [stage.first_key + place for place in places])
            if all((states[place], event) in TASK_TRANSITIONS for place in places):
                store.commit(lease, [move], [])
                for place in places:
                    states[place] = TASK_TRANSITIONS[states[place], event]
            else:
                with pytest.raises(IllegalTransition):
                    store.commit(lease, [move], [])
            found = {key - stage.first_key: state for state in TaskStatus for key, _, _ in store.in_state(stage, state)}
            assert [found[place] for place in range(8)] == states
            assert sum(store.counts(stage).values()) == 8
    finally:
        store.close()


# Starting tasks


def test_S18_queued_tasks_are_started_in_their_order_in_batches_of_the_sizes_asked_for(store: Store) -> None:
    planned(store)  # another job's tasks, which come before
    lease, stage = planned(store, tasks=10)
    planned(store)  # and such that follow
    batches = take(store, lease, stage, 4, 1, 3)
    assert places(stage, batches) == [[0, 1, 2, 3], [4], [5, 6, 7]]
    for batch in batches:
        assert (batch.task_type, batch.attempt, batch.retries, batch.losses) == ("scan_it", 1, 0, 0)
        assert batch.is_new
        assert batch.first_key == stage.first_key
    assert [call for batch in batches for call in batch.calls()] == [
        Call(stage.first_key + n, f"s1-{n}", n, {"name": f"s1-{n}"}) for n in range(8)
    ]
    assert [name for batch in batches for name in batch.names()] == [f"s1-{n}" for n in range(8)]
    assert store.in_state(stage, "processing") == [(stage.first_key + n, 1, 0) for n in range(8)]
    assert store.in_state(stage, "queued") == [(stage.first_key + n, 0, 0) for n in (8, 9)]
    assert select(store, "SELECT count(*) FROM tasks WHERE status = 'queued'") == [(2 + 6,)]
    assert places(stage, take(store, lease, stage, 7)) == [[8, 9]]  # no more than there are, and none of others


def test_S18_tasks_between_others_that_have_started_or_ended_are_found(store: Store) -> None:
    lease, stage = planned(store, tasks=12)
    first = stage.first_key
    complete(store, lease, [first + 1, first + 8])
    store.commit(lease, [Move("start", [first + 4]), Move("cancel", [first + 9])], [])
    batches = take(store, lease, stage, 2, 5, 9)
    assert places(stage, batches) == [[0, 2], [3, 5, 6, 7, 10], [11]]
    assert [call for batch in batches for call in batch.calls()] == [
        Call(first + n, f"s1-{n}", n, {"name": f"s1-{n}"}) for n in (0, 2, 3, 5, 6, 7, 10, 11)
    ]
    assert store.counts(stage) == {"completed": 2, "cancelled": 1, "processing": 9}


def test_S18_only_tasks_behind_a_given_one_are_started_and_the_others_when_asked_for(store: Store) -> None:
    lease, stage = planned(store, tasks=6)
    assert places(stage, take(store, lease, stage, 1, 9, after=stage.first_key + 2)) == [[3], [4, 5]]
    assert store.in_state(stage, "queued") == [(stage.first_key + n, 0, 0) for n in range(3)]
    assert places(stage, take(store, lease, stage, 9)) == [[0, 1, 2]]


def test_S18_a_batch_ends_before_a_task_of_another_type(store: Store) -> None:
    lease = started(store)
    kinds = ["scan_it", "scan_it", "stat_it", "scan_it", "stat_it", "stat_it", "stat_it"]
    made = [(f"t{n}", kind, json.dumps({"n": n}), None) for n, kind in enumerate(kinds)]
    stage = store.plan(lease, 1, NewTasks.of(*made), now=NOW)
    batches = take(store, lease, stage, 7, 1, 5)
    assert places(stage, batches) == [[0, 1], [2], [3]]
    assert [batch.task_type for batch in batches] == ["scan_it", "stat_it", "scan_it"]
    assert store.in_state(stage, "queued") == [(stage.first_key + n, 0, 0) for n in (4, 5, 6)]
    (last,) = take(store, lease, stage, 9)
    assert (last.task_type, last.names()) == ("stat_it", ["t4", "t5", "t6"])
    assert [call.parameters for call in last.calls()] == [{"n": 4}, {"n": 5}, {"n": 6}]


def test_S30_a_batch_ends_before_a_task_with_another_number_of_attempts(store: Store) -> None:
    lease, stage = planned(store, tasks=8)
    first = stage.first_key
    lost = [first + 2, first + 3, first + 7]
    store.commit(lease, [Move("start", lost), Move("requeue", lost)], [ended(key, 1, "lost") for key in lost])
    batches = take(store, lease, stage, 8, 8, 8, 8)
    assert places(stage, batches) == [[0, 1], [2, 3], [4, 5, 6], [7]]
    assert [batch.attempt for batch in batches] == [1, 2, 1, 2]
    assert all(batch.is_new for batch in batches), "no fault of theirs"
    assert [name for batch in batches for name in batch.names()] == [f"s1-{n}" for n in range(8)]
    assert store.in_state(stage, "processing") == [(first + n, 2 if n in (2, 3, 7) else 1, 0) for n in range(8)]


def test_S26_S30_tasks_that_failed_or_were_suspected_start_in_groups_and_never_among_the_new_ones(
    store: Store,
) -> None:
    lease, stage = planned(store, tasks=9)
    first = stage.first_key
    failed, killed = [first + 1, first + 6], [first + 3]
    store.commit(lease, [Move("start", [*failed, *killed])], [])
    store.commit(lease, [Move("retry", failed, NOW + 5), Move("lose", killed)], [])
    batches = take(store, lease, stage, 2, 9, groups=[[first + 6], [first + 3]])
    assert places(stage, batches) == [[6], [3], [0, 2], [4, 5, 7, 8]]
    assert [(batch.attempt, batch.retries, batch.losses) for batch in batches] == [
        (2, 1, 0),
        (2, 0, 1),
        (1, 0, 0),
        (1, 0, 0),
    ]
    assert [batch.is_new for batch in batches] == [False, False, True, True]
    assert batches[0].calls() == [Call(first + 6, "s1-6", 6, {"name": "s1-6"})]
    assert store.tried_before(stage) == [(first + 1, NOW + 5)]
    with pytest.raises(IllegalTransition):
        take(store, lease, stage, 1)
    assert places(stage, take(store, lease, stage, groups=[[first + 1]])) == [[1]]
    assert select(store, "SELECT task_index, not_before FROM tasks WHERE not_before IS NOT NULL") == []


def test_S26_S30_of_a_group_those_start_that_share_the_first_ones_history(store: Store) -> None:
    lease, stage = planned(store, tasks=10)
    first = stage.first_key
    failed, killed = [first + 2, first + 6], [first + 3, first + 7]
    store.commit(lease, [Move("start", failed + killed), Move("retry", failed, NOW), Move("lose", killed)], [])
    groups = [[first + 8, first + 1], [first + 5, first + 4, first + 2], [first + 7, first + 6]]
    batches = take(store, lease, stage, 1, groups=groups)
    assert places(stage, batches) == [[1, 8], [2], [6], [0]]
    assert [(batch.attempt, batch.retries, batch.losses) for batch in batches] == [
        (1, 0, 0),
        (2, 1, 0),
        (2, 1, 0),
        (1, 0, 0),
    ]
    left = {3: (1, 1), 4: (0, 0), 5: (0, 0), 7: (1, 1), 9: (0, 0)}
    assert store.in_state(stage, "queued") == [(first + place, *told) for place, told in left.items()]


def test_S18_what_a_change_gives_back_starts_again_in_the_same_transaction(store: Store) -> None:
    lease, stage = planned(store, tasks=4)
    (batch,) = take(store, lease, stage, 3)
    first, second, third = batch.keys
    wish = Take(stage, [[second]], sizes=[1, 1])
    moves = [Move("complete", [first]), Move("retry", [second], NOW), Move("release", [third])]
    batches = store.commit(lease, moves, [ended(second, 1, "failed", WRONG)], [finished([first])], wish)
    assert places(stage, batches) == [[1], [2], [3]]
    assert [batch.attempt for batch in batches] == [2, 1, 1]
    assert store.counts(stage) == {"completed": 1, "processing": 3}


@pytest.mark.parametrize(
    ("groups", "after", "sizes"),
    [
        ([[0]], -1, []),  # completed
        ([[1]], -1, []),  # processing
        ([[77]], -1, []),  # not there
        ([[2], [3], [2]], -1, []),  # twice
        ([], -1, [2, 1, 1]),  # all that are new have started by the third
        ([], 4, [1]),
        ([], -1, [1, 1, 1, 1]),
        ([[3]], -1, [1, 9, 1]),
    ],
)
def test_S19_a_wish_for_tasks_where_none_is_queued_is_refused_with_all_that_came_with_it(
    store: Store, groups: list[list[int]], after: int, sizes: list[int]
) -> None:
    lease, stage = planned(store, tasks=5)
    first = stage.first_key
    store.plan(lease, 2, new_tasks("a", "b"), now=NOW)  # queued, and of another stage
    complete(store, lease, [first])
    store.commit(lease, [Move("start", [first + 1, first + 3]), Move("retry", [first + 3], NOW)], [])
    before = everything(store)
    wish = Take(stage, [[first + place for place in group] for group in groups], first + after, sizes)
    moves, completed = [Move("complete", [first + 1])], [finished([first + 1])]
    with pytest.raises(IllegalTransition, match="No task of stage 1 is queued"):
        store.commit(lease, moves, [], completed, wish)
    assert everything(store) == before
    assert places(stage, store.commit(lease, moves, [], completed, Take(stage, sizes=[2]))) == [[2, 4]]


def test_S45_ids_types_and_parameters_of_any_kind_start_as_they_were_planned(store: Store) -> None:
    lease = started(store)
    made = [
        (f"{n} {text}", f"type {text}", json.dumps({text: [text, 1e300, 2**70]}), None) for n, text in enumerate(NASTY)
    ]
    stage = store.plan(lease, 1, NewTasks.of(*made), now=NOW)
    batches = take(store, lease, stage, *[9] * len(NASTY))
    assert [batch.task_type for batch in batches] == [f"type {text}" for text in NASTY]
    assert [call for batch in batches for call in batch.calls()] == [
        Call(stage.first_key + n, f"{n} {text}", n, {text: [text, 1e300, 2**70]}) for n, text in enumerate(NASTY)
    ]
    alike = [(f"again {n} {text}", NASTY[0], json.dumps([text]), None) for n, text in enumerate(NASTY)]
    stage = store.plan(lease, 2, NewTasks.of(*alike), now=NOW)
    (batch,) = take(store, lease, stage, 99)
    assert batch.names() == [task[0] for task in alike]
    assert [call.parameters for call in batch.calls()] == [[text] for text in NASTY]


HISTORIES = {"new": [], "lost": ["requeue"], "twice lost": ["requeue"] * 2, "suspected": ["lose"], "failed": ["retry"]}


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([*HISTORIES, "out", "done"])), max_size=12),
    st.lists(st.integers(1, 6), max_size=8),
    st.integers(-1, 12),
)
def test_S18_whatever_the_queue_is_like_batches_are_runs_of_new_tasks_that_are_alike(
    tasks: list[tuple[str, str]], sizes: list[int], after: int
) -> None:
    store = SqliteStore(":memory:")
    try:
        lease = started(store)
        stage = store.plan(
            lease, 1, NewTasks.of(*((f"t{n}", kind, "{}", None) for n, (kind, _) in enumerate(tasks))), now=NOW
        )
        for key, (_, history) in enumerate(tasks, stage.first_key):
            for event in HISTORIES.get(history, []):
                store.commit(lease, [Move("start", [key]), Move(event, [key], NOW)], [])
            if history in ("out", "done"):
                store.commit(lease, [Move("start", [key])], [])
            if history == "done":
                store.commit(lease, [Move("complete", [key])], [])
        left = [n for n, (_, history) in enumerate(tasks) if history in ("new", "lost", "twice lost") and n > after]
        expected: list[list[int]] = []
        for size in sizes:
            run = [n for n in left[:size] if all(tasks[m] == tasks[left[0]] for m in left[:size] if m <= n)]
            expected.append(run)
            left = left[len(run) :]
        before = everything(store)
        if [] in expected:
            with pytest.raises(IllegalTransition):
                take(store, lease, stage, *sizes, after=stage.first_key + after)
            assert everything(store) == before
            return
        batches = take(store, lease, stage, *sizes, after=stage.first_key + after)
        assert places(stage, batches) == expected
        for batch in batches:
            kind, history = tasks[batch.keys[0] - stage.first_key]
            assert (batch.task_type, batch.attempt, batch.is_new) == (kind, len(HISTORIES[history]) + 1, True)
            assert batch.names() == [f"t{key - stage.first_key}" for key in batch.keys]
        assert {key for batch in batches for key in batch.keys} <= {
            key for key, _, _ in store.in_state(stage, "processing")
        }
    finally:
        store.close()


def test_S18_S26_the_tasks_that_came_back_into_the_queue_are_told_with_their_waits(store: Store) -> None:
    other, others = planned(store)
    lease, stage = planned(store, tasks=8)
    first = stage.first_key
    store.commit(other, [Move("start", [others.first_key]), Move("retry", [others.first_key], NOW + 1)], [])
    assert store.tried_before(stage) == []
    _, waits, suspect, lost, runs, reset, ready, given_back = keys = range(first, stage.end_key)
    store.commit(lease, [Move("start", keys[1:])], [])
    store.commit(lease, [Move("retry", [waits, runs], NOW + 7.125), Move("retry", [ready], NOW - 1)], [])
    store.commit(lease, [Move("lose", [suspect]), Move("requeue", [lost]), Move("release", [given_back])], [])
    store.commit(lease, [Move("start", [runs]), Move("fail", [reset])], [])
    store.commit(lease, [Move("reset", [reset])], [])
    assert store.tried_before(stage) == [(waits, NOW + 7.125), (suspect, None), (ready, NOW - 1)]
    store.commit(lease, [Move("lose", [runs])], [])  # it has waited for its retry
    assert store.tried_before(stage) == [(waits, NOW + 7.125), (suspect, None), (runs, None), (ready, NOW - 1)]
    take(store, lease, stage, groups=[[waits], [suspect], [ready]])
    assert store.tried_before(stage) == [(runs, None)]
    assert store.tried_before(others) == [(others.first_key, NOW + 1)]


# What became of tasks that succeeded, by the batch


def test_S22_executions_that_are_told_together_are_what_they_are_one_by_one(store: Store) -> None:
    lease, stage = planned(store, tasks=6)
    first = stage.first_key
    store.commit(lease, [Move("start", range(first, first + 6)), Move("requeue", [first + 4, first + 5])], [])
    store.commit(lease, [Move("start", [first + 4, first + 5])], [])
    together = [finished([first, first + 1]), finished([first + 4], 2)]
    one_by_one = [ended(first + 2), ended(first + 3), ended(first + 5, 2)]
    store.commit(lease, [Move("complete", range(first, first + 6))], one_by_one, together)
    assert together[0].attempts() == [ended(first), ended(first + 1)]
    assert together[1].attempts() == [ended(first + 4, 2)]
    with store.reading() as connection:
        columns = [column[0] for column in connection.execute("SELECT * FROM attempts").description]
    told = ", ".join(column for column in columns if column not in ("task_id", "task_index", "task_key"))
    shown = select(store, f"SELECT {told} FROM attempts ORDER BY task_key")
    assert shown[:4] == [shown[0]] * 4
    assert shown[4:] == [shown[5]] * 2
    assert (
        select(store, "SELECT outcome, started_at, ended_at, cpu, peak_memory, slot, pid, code FROM attempts")
        == [("completed", NOW + 1, NOW + 3, 0.5, 10**8, 1, 77, "c1")] * 6
    )
    assert select(store, "SELECT attempt FROM attempts ORDER BY task_key") == [(1,)] * 4 + [(2,)] * 2
    assert results(store, stage) == [ended(first).result] * 6
    assert [row[2:] for row in finalize_rows(store, lease)] == [
        [{"success": True, "result": {"n": 1}}, (NOW + 3) * 1_000_000]
    ] * 6
    assert store.counts(stage) == {"completed": 6}


@pytest.mark.parametrize(
    ("lost", "where"),
    [
        ("attempt", "(attempt_key >> 12) = {}"),
        ("task", "task_key = {}"),
        ("stage", "stage = 1"),
    ],
)
@pytest.mark.parametrize("which", ["first", "last"])
def test_F089_what_is_missing_of_a_job_is_refused_and_not_left_out_of_what_finalize_is_given(
    store: Store, lost: str, where: str, which: str
) -> None:
    lease, stage = planned(store)
    keys = range(stage.first_key, stage.end_key)
    complete(store, lease, keys)
    assert len(list(store.finalize_rows(lease.job_key, done=1))) == 1
    with store._unchecked(), store._transaction() as connection:
        connection.execute(f"DELETE FROM {lost} WHERE {where.format(keys[0 if which == 'first' else -1])}")
    with pytest.raises(StoreError, match=r"is damaged, or another program changed it: .* cannot be found"):
        list(store.finalize_rows(lease.job_key, done=1))


def test_S45_results_of_any_kind_that_are_told_together_come_back_as_they_were(store: Store) -> None:
    lease, stage = planned(store, tasks=len(NASTY))
    keys = range(stage.first_key, stage.end_key)
    texts = [json.dumps({"success": True, "result": {text: [1e300, 2**70, text]}}) for text in NASTY]
    times = array("d", [NOW + key / 3 for key in keys])
    code = 'it\'s {0} {code} %s ?1 :name $x "quoted" \\ --'
    store.commit(
        lease,
        [Move("start", keys), Move("complete", keys)],
        [],
        [finished(keys, ended_at=times, results=texts, code=code)],
    )
    assert [some.text for some in store.results(stage)] == [f"[{','.join(texts)}]"]
    assert [row[2] for row in finalize_rows(store, lease)] == [json.loads(text) for text in texts]
    assert [row[3] for row in finalize_rows(store, lease)] == [round(time * 1e6) for time in times]
    assert select(store, "SELECT task_key, ended_at, code FROM attempts ORDER BY task_key") == [
        (key, NOW + key / 3, code) for key in keys
    ]


def test_S32_executions_told_together_are_refused_when_one_was_told_before(store: Store) -> None:
    lease, stage = planned(store, tasks=4)
    first = stage.first_key
    store.commit(lease, [Move("start", range(first, first + 4)), Move("complete", [first])], [], [finished([first])])
    before = everything(store)
    rest = [Move("complete", [first + 1, first + 2])]
    twice: list[tuple[list[Attempt], list[Completed]]] = [
        ([], [finished([first + 1, first + 2, first])]),
        ([], [finished([first + 1, first + 2]), finished([first + 1])]),
        ([], [finished([first + 1, first + 2, first + 2])]),
        ([ended(first + 2)], [finished([first + 1, first + 2])]),
        ([ended(first)], [finished([first + 1, first + 2])]),
    ]
    for attempts, completed in twice:
        with pytest.raises(IllegalTransition, match="reported twice"):
            store.commit(lease, rest, attempts, completed, Take(stage, sizes=[1]))
        with pytest.raises(IllegalTransition, match="reported twice"):
            store.change_job(lease, "fail", now=NOW, error="x", moves=rest, attempts=attempts, completed=completed)
        assert everything(store) == before
    with pytest.raises(IllegalTransition, match="1 of 2 tasks"):
        store.commit(lease, [Move("complete", [first, first + 1])], [], [finished([first + 1])])
    assert everything(store) == before
    store.change_job(lease, "fail", now=NOW, error="x", moves=rest, completed=[finished([first + 1, first + 2])])
    assert store.counts(stage) == {"completed": 3, "processing": 1}
    assert len(results(store, stage)) == 3


def test_S30_a_task_that_ran_more_often_than_can_be_counted_is_an_error_and_not_another_tasks_attempt(
    store: Store,
) -> None:
    lease, stage = planned(store, tasks=2)
    first = stage.first_key
    store.commit(lease, [Move("start", [first, first + 1])], [])
    before = everything(store)
    most = columns.ATTEMPTS_PER_TASK - 1
    for attempts, completed in (([ended(first, most + 1)], []), ([], [finished([first], most + 1)])):
        with pytest.raises(StoreError, match=f"run {most} times"):
            store.commit(lease, [Move("complete", [first])], attempts, completed)
        assert everything(store) == before
    store.commit(lease, [], [ended(first, most)], [finished([first + 1], most)])
    assert select(store, "SELECT task_index, attempt FROM attempts ORDER BY task_key") == [(0, most), (1, most)]


# A rerun


def test_S37_a_rerun_keeps_the_old_tasks_and_attempts_as_history(store: Store) -> None:
    lease, old = planned(store)
    complete(store, lease, range(old.first_key, old.end_key))
    store.plan(lease, 2, new_tasks("x"), now=NOW)
    store.change_job(lease, "complete", now=NOW + 5, result='{"old":1}')
    other = Again(parameters='{"folder":"data","failure_rate":0.5}')
    store.change_job(lease, "rerun", now=NOW + 6, again=other)
    row = again(store, lease)
    assert (row.status, row.stage, row.result, row.started_at, row.ended_at) == ("queued", 1, None, None, None)
    assert row.parameters == '{"folder":"data","failure_rate":0.5}'
    assert store.stages(lease.job_key) == []
    assert finalize_rows(store, lease) == []
    store.change_job(lease, "start", now=NOW + 7)
    new = store.plan(lease, 1, new_tasks("s1-0", "s1-1", "s1-2"), now=NOW + 7)  # the same ids are free again
    complete(store, lease, [new.first_key])
    assert len(results(store, new)) == 1
    assert [row[0] for row in finalize_rows(store, lease)] == ["s1-0"]
    assert select(store, "SELECT superseded, count(*) FROM attempts GROUP BY superseded ORDER BY superseded") == [
        (0, 1),
        (1, 3),
    ]
    assert select(store, "SELECT tasks, completed, failed FROM jobs") == [(3, 1, 0)]
    store.change_job(lease, "rerun", now=NOW + 8)
    assert again(store, lease).parameters == '{"folder":"data","failure_rate":0.5}'


def two_stages(store: Store) -> tuple[Lease, StageRow]:
    """A completed job of two stages with three tasks each; all but the last of the first ran with the code ``c1``."""
    lease, first = planned(store)
    complete(store, lease, range(first.first_key, first.end_key - 1))
    last = first.end_key - 1
    store.commit(lease, [Move("start", [last])], [])
    store.commit(lease, [Move("complete", [last])], [ended(last, code="c2")])
    second = store.plan(lease, 2, new_tasks("x", "y", "z"), now=NOW)
    complete(store, lease, range(second.first_key, second.end_key))
    store.change_job(lease, "complete", now=NOW + 5, result='{"old":1}')
    return lease, first


def test_a_rerun_from_a_stage_on_leaves_those_before_as_they_are(store: Store) -> None:
    lease, first = two_stages(store)
    store.change_job(lease, "rerun", now=NOW + 6, again=Again(2))
    row = again(store, lease)
    assert (row.status, row.stage, row.result) == ("queued", 2, None)
    assert store.stages(lease.job_key) == [first]
    assert store.counts(first) == {"completed": 3}


def test_a_rerun_of_what_ran_with_older_code_keeps_the_plan_and_the_other_tasks(store: Store) -> None:
    lease, first = two_stages(store)
    assert sorted(store.codes(first)) == [("scan_it", "c1", 2), ("scan_it", "c2", 1)]
    older = store.completed_with_other_code(first, {"scan_it": "c2"})
    assert older == [first.first_key, first.first_key + 1]
    assert store.completed_with_other_code(first, {}) == []
    store.change_job(lease, "rerun", now=NOW + 6, moves=[Move("redo", older)], again=Again(1, keep=True))
    assert again(store, lease).stage == 1
    assert store.stages(lease.job_key) == [first]
    assert store.counts(first) == {"queued": 2, "completed": 1}
    assert len(results(store, first)) == 1
    store.change_job(lease, "start", now=NOW + 7)
    complete(store, lease, older, 2)
    assert select(
        store, "SELECT attempts, retries FROM tasks WHERE stage = 1 AND NOT superseded ORDER BY task_key"
    ) == [
        (2, 0),
        (2, 0),
        (1, 0),
    ]
    with pytest.raises(IllegalTransition, match="were not in the state that 'redo' leaves"):
        store.change_job(lease, "rerun", now=NOW + 8, moves=[Move("redo", older)] * 2, again=Again(1, keep=True))


# Reading


def test_S45_jobs_are_found_by_the_beginning_of_their_id_and_nothing_else_has_a_meaning(store: Store) -> None:
    ids = ["ab" + "0" * 62, "ab" + "1" * 62, "b" * 64]
    rows = [store.create(new_job(job_id))[0] for job_id in ids]
    assert store.find("ab") == rows[:2]
    assert store.find("ab1") == [rows[1]]
    assert store.find(ids[2]) == [rows[2]]
    assert store.find("") == rows == store.jobs()
    assert store.job(ids[0]) == rows[0]
    for strange in ("%", "_b", "a%", "ab*", "ab' OR '1'='1", "'", "ab\\", "[a]b", "\x00", "b" * 65, "🌍", "\udc80"):
        assert store.find(strange) == []
        assert store.job(strange) is None


def test_S14_results_come_whole_and_in_task_order_from_completed_tasks_alone(store: Store) -> None:
    lease, stage = planned(store, tasks=4)
    first = stage.first_key
    texts = ['{"success":true,"result":"ü\\u0000"}', '{"success":true,"result":1e300}']
    store.commit(lease, [Move("start", [first + 3, first, first + 1])], [])
    store.commit(lease, [Move("complete", [first + 3])], [ended(first + 3, result=texts[0])])
    store.commit(lease, [Move("fail", [first + 1])], [ended(first + 1, 1, "failed", WRONG)])
    store.commit(lease, [Move("complete", [first])], [ended(first, result=texts[1])])
    assert [some.text for some in store.results(stage)] == [f"[{texts[1]},{texts[0]}]"]


def test_S14_a_result_is_that_of_the_last_attempt(store: Store) -> None:
    lease, stage = planned(store, tasks=1)
    key = stage.first_key
    store.commit(lease, [Move("start", [key]), Move("lose", [key]), Move("start", [key])], [ended(key, 1, "lost")])
    store.commit(lease, [Move("complete", [key])], [ended(key, 2, result='{"second":2}')])
    assert results(store, stage) == ['{"second":2}']


def test_S22_a_failed_task_shows_why_and_has_no_result(store: Store) -> None:
    lease, stage = planned(store, tasks=2)
    first = stage.first_key
    store.commit(lease, [Move("start", [first, first + 1]), Move("fail", [first])], [ended(first, 1, "failed", WRONG)])
    store.commit(lease, [Move("complete", [first + 1])], [ended(first + 1)])
    shown = "status, result, error, error_type, error_category, started_at, ended_at, duration, code"
    assert select(store, f"SELECT {shown} FROM tasks ORDER BY task_index") == [
        ("failed", None, "no such tile", "OSError", "transient", NOW + 1, NOW + 3, 2.0, "c1"),
        ("completed", ended(first + 1).result, None, None, None, NOW + 1, NOW + 3, 2.0, "c1"),
    ]
    assert store.failed(stage) == [FailedRow(0, "s1-0", "scan_it", 0, "OSError: no such tile")]
    assert finalize_rows(store, lease) == [
        ["s1-1", "scan_it", {"success": True, "result": {"n": 1}}, (NOW + 3) * 1_000_000]
    ]
    assert select(store, "SELECT retryable, traceback FROM attempts WHERE outcome = 'failed'") == [
        (1, "Traceback: here")
    ]


def test_S33_finalize_is_told_of_completed_tasks_in_columns_however_many_are_read_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, stage = planned(store, tasks=5)
    first = stage.first_key
    store.commit(lease, [Move("start", range(first, first + 4)), Move("cancel", [first + 4])], [])
    done, wrong = [first, first + 2], ended(first + 1, 1, "failed", WRONG)
    moves = [Move("complete", done), Move("fail", [first + 1]), Move("retry", [first + 3], NOW)]
    store.commit(lease, moves, [wrong, ended(first + 3, 1, "failed", WRONG)], [finished(done)])
    last = store.plan(lease, 2, new_tasks("x", "y", "z"), now=NOW)
    complete(store, lease, [last.first_key + 1])
    good = {"success": True, "result": {"n": 1}}
    whole = [[name, "scan_it", good, (NOW + 3) * 1_000_000] for name in ("s1-0", "s1-2", "y")]
    assert finalize_rows(store, lease) == whole
    for few in (1, 2, 3, 5):
        monkeypatch.setattr(reading, "_FIRST_AT_ONCE", few)
        monkeypatch.setattr(reading, "_RESULTS_AT_ONCE", few)
        assert finalize_rows(store, lease) == whole
        assert results(store, stage) == ['{"success":true,"result":{"n":1}}'] * 2


def test_S28_a_task_that_completes_after_a_retry_has_its_count_and_no_error(store: Store) -> None:
    lease, stage = planned(store, tasks=1)
    key = stage.first_key
    store.commit(lease, [Move("start", [key]), Move("retry", [key], NOW + 1)], [ended(key, 1, "failed", WRONG)])
    assert select(store, "SELECT status, error, not_before FROM tasks") == [("queued", "no such tile", NOW + 1)]
    store.commit(lease, [Move("start", [key])], [])
    store.commit(lease, [Move("complete", [key])], [ended(key, 2, queued_at=NOW + 1, backoff=1.0)])
    assert select(store, "SELECT status, attempts, retries, error, error_type, error_category FROM tasks") == [
        ("completed", 2, 1, None, None, None)
    ]
    assert select(store, "SELECT attempt, outcome, error, queued_at, backoff FROM attempts ORDER BY attempt") == [
        (1, "failed", "no such tile", NOW, None),  # a first attempt was queued when its stage was planned
        (2, "completed", None, NOW + 1, 1.0),
    ]


def test_S45_text_of_any_kind_comes_back_as_it_was(store: Store) -> None:
    lease = started(store)
    tasks = [
        (f"{n} {text}", f"type {text}", json.dumps({"v": text}), json.dumps({text: 1})) for n, text in enumerate(NASTY)
    ]
    stage = store.plan(lease, 1, NewTasks.of(*tasks), now=NOW)
    keys = range(stage.first_key, stage.end_key)
    store.commit(lease, [Move("start", keys)], [])
    reports = [
        ended(key, 1, "failed", Failure(text, "E" + text, "unknown", True, text), output=text)
        for key, text in zip(keys, NASTY, strict=True)
    ]
    store.commit(lease, [Move("fail", keys)], reports)
    written = select(store, "SELECT task_id, task_type, parameters, metadata FROM tasks ORDER BY task_key")
    assert written == tasks
    assert select(store, "SELECT error, error_type, traceback, output FROM attempts ORDER BY task_key") == [
        (text, "E" + text, text, text) for text in NASTY
    ]
    assert [(row.task_id, row.error) for row in store.failed(stage)] == [
        (task[0], f"E{text}: {text}") for task, text in zip(tasks, NASTY, strict=True)
    ]
    for text in NASTY:
        store.change_job(lease, "fail", now=NOW, error=text, traceback=text)
        store.end_job(lease, error=None, now=NOW)
        row = again(store, lease)
        assert (row.error, row.traceback) == (text, text)
        store.change_job(lease, "resume", now=NOW)
        store.change_job(lease, "start", now=NOW)


def test_S45_the_owner_and_the_source_of_a_job_are_text_too(store: Store) -> None:
    for text in NASTY:
        row, _ = store.create(new_job(job_type=text, source=text, parameters=json.dumps({"v": text})))
        lease = store.claim(row.job_key, json.dumps({"pid": text, "since": text}))
        found = again(store, lease)
        assert (found.job_type, found.source, json.loads(found.parameters)) == (text, text, {"v": text})
        since = f", since {shorten(text, 40)}" if text else ""
        assert store.driver(row.job_key) == f"process {shorten(text, 20)}{since}"


DOCUMENTED = {
    "jobs": "job_id, job_type, status, stage, total_stages, parameters, result, error, created_at, started_at, "
    "ended_at, duration, tasks, completed, failed",
    "tasks": "job_id, task_id, stage, stage_name, task_index, task_type, status, attempts, retries, parameters, "
    "result, error, error_type, error_category, created_at, started_at, ended_at, duration, code",
    "attempts": "job_id, task_id, stage, attempt, outcome, error, error_type, error_category, retryable, traceback, "
    "output, slot, pid, queued_at, started_at, ended_at, duration, cpu, peak_memory",
    "stages": "job_id, stage, stage_name, task_type, parallelism, tasks, planned_at",
}


@pytest.mark.parametrize("view", DOCUMENTED)
def test_the_views_give_the_documented_columns_in_their_order_also_when_there_is_nothing(
    store: Store, view: str
) -> None:
    documented = DOCUMENTED[view].split(", ")
    with store.reading() as connection:
        found = connection.execute(f"SELECT * FROM {view}")
        columns = [column[0] for column in found.description]
        assert found.fetchall() == []
    assert [column for column in columns if column in documented] == documented


def test_the_views_count_the_tasks_of_each_job_and_name_their_stages(store: Store) -> None:
    lease, stage = planned(store, tasks=3)
    other = created(store)
    store.commit(lease, [Move("start", [stage.first_key, stage.first_key + 1])], [])
    store.commit(lease, [Move("complete", [stage.first_key])], [ended(stage.first_key)])
    store.commit(lease, [Move("fail", [stage.first_key + 1])], [ended(stage.first_key + 1, 1, "failed", WRONG)])
    assert select(store, "SELECT job_id, total_stages, tasks, completed, failed FROM jobs ORDER BY job_key") == [
        (lease.job_id, 2, 3, 1, 1),
        (other.job_id, 2, 0, 0, 0),
    ]
    assert select(store, "SELECT stage, stage_name, task_type, parallelism, tasks, planned_at FROM stages") == [
        (1, "scan", "scan_it", "single", 3, NOW)
    ]
    assert select(store, "SELECT task_type, duration, cpu, peak_memory, slot, pid FROM attempts") == [
        ("scan_it", 2.0, 0.5, 10**8, 1, 77),
        ("scan_it", 2.0, 0.5, 10**8, 1, 77),
    ]


def test_S33_a_reader_that_stops_half_way_holds_nothing_up(store: Store) -> None:
    lease, stage = planned(store, tasks=2_500)
    keys = range(stage.first_key, stage.end_key)
    complete(store, lease, keys)
    with store.reading() as reader:
        found = reader.execute("SELECT result FROM tasks ORDER BY task_key")
        assert found.fetchone() == (ended(stage.first_key).result,)
        store.change_job(lease, "complete", now=NOW, result="{}")
        assert len(found.fetchall()) == 2_499
    assert len(finalize_rows(store, lease)) == 2_500


def test_S36_threads_may_read_while_another_writes(store: Store) -> None:
    lease, stage = planned(store, tasks=150)
    keys = range(stage.first_key, stage.end_key)
    problems: list[BaseException] = []
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                counts = store.counts(stage)
                assert sum(counts.values()) == 150
                (shown,) = select(store, "SELECT count(*), sum(status = 'processing') FROM tasks")
                assert shown == (150, 0)  # each batch starts and completes its tasks in one transaction
                seen.append(counts.get("completed", 0))
        except BaseException as exc:
            problems.append(exc)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for key in keys:
        store.commit(lease, [Move("start", [key]), Move("complete", [key])], [ended(key)])
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert seen
    assert store.counts(stage) == {"completed": 150}


# What the schema itself refuses, also from hands other than ours


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE job SET status = 'running'",
        "UPDATE job SET status = NULL",
        "UPDATE job SET job_id = 'short'",
        "UPDATE job SET parameters = '{bad'",
        "UPDATE job SET stages = 'NaN'",
        "UPDATE job SET result = 'not json'",
        "UPDATE job SET epoch = -1",
        "UPDATE job SET created_at = 'yesterday'",
        "INSERT INTO job (job_id, job_type, status, stages, parameters, created_at)"
        " SELECT job_id, job_type, status, stages, parameters, created_at FROM job",
        "UPDATE task SET status = 'pending'",
        "UPDATE task SET status = 'Completed'",
        "UPDATE task SET attempt = 'two'",
        "UPDATE task SET stage_key = 99",
        "UPDATE attempt SET outcome = 'running'",
        "UPDATE attempt SET ended_at = 'later'",
        "INSERT INTO attempt (attempt_key, outcome) SELECT attempt_key, outcome FROM attempt",
        "INSERT INTO stage (job_key, stage, first_key, task_count, planned_at) SELECT job_key, 1, 1, 1, 1 FROM job",
        "INSERT INTO stage (job_key, stage, first_key, task_count, planned_at) VALUES (99, 1, 1, 1, 1)",
        "DELETE FROM job",
        "DELETE FROM stage",
    ],
)
def test_S19_the_schema_refuses_rows_that_break_the_promises(statement: str) -> None:
    store = SqliteStore(":memory:")
    lease, stage = planned(store, tasks=2)
    complete(store, lease, [stage.first_key])
    store.commit(lease, [Move("start", [stage.first_key + 1])], [ended(stage.first_key, 2)])
    with store.reading() as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    store.close()


# In one process


def test_S9_a_second_store_object_of_the_same_file_is_told_who_drives_a_job(tmp_path: Path) -> None:
    first, second = SqliteStore(tmp_path / "work.db"), SqliteStore(tmp_path / "work.db")
    lease = first.claim(created(first).job_key, OWNER)
    with pytest.raises(StoreBusy, match="is driven by process 4242"):
        second.claim(lease.job_key, OWNER)
    assert second.driver(lease.job_key) is not None
    first.release(lease)
    assert second.claim(lease.job_key, OWNER).epoch == 2
    with pytest.raises(LeaseLost):
        first.commit(lease, [], [])
    first.close()
    second.close()


def test_S9_stores_in_memory_know_nothing_of_each_other(tmp_path: Path) -> None:
    for _ in range(20):
        store = SqliteStore(":memory:")
        store.claim(created(store).job_key, OWNER)
        del store  # not shut: a later object may lie in its place in memory


def test_S36_a_claim_that_could_not_be_written_leaves_the_job_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = SqliteStore(tmp_path / "work.db"), SqliteStore(tmp_path / "work.db")
    key = created(first).job_key
    monkeypatch.setattr("geoflow.stores.sqlite.BUSY_SECONDS", 0.01)
    second.open()
    with first._transaction(), pytest.raises(StoreBusy, match="locked by another process"):
        second.claim(key, OWNER)
    assert first.claim(key, OWNER).epoch == 1
    first.close()
    second.close()


def test_a_claim_of_a_job_that_is_not_there_is_a_store_error(store: Store) -> None:
    with pytest.raises(StoreError):
        store.claim(77, OWNER)


@given(
    st.lists(
        st.one_of(st.lists(st.integers(1, 30), unique=True), st.builds(range, st.integers(1, 30), st.integers(1, 30)))
    )
)
def test_runs_of_keys_have_each_key_of_all_moves_once_and_no_two_that_could_be_one(keys: list[Any]) -> None:
    moves = [Move("start", each) for each in keys]
    runs = list(as_ranges(moves))
    assert [key for first, last in runs for key in range(first, last + 1)] == [
        key for move in moves for key in sorted(move.keys)
    ]
    assert all(first <= last for first, last in runs)
    assert all(second[0] != first[1] + 1 for first, second in pairwise(runs))
