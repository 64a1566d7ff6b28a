"""S13 to S38, whole jobs: the real loop and store, with a world that decides by script how every call ends.

A world is a job, what each of its tasks does in each charged attempt, and a schedule: which slot reports next, when a
process dies before it began, when the engine is killed or interrupted. What must come out is worked out beside it,
by reading the scripts one after another; nothing of the schedule may show in it.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.core.batch import Batch
from geoflow.core.models import Order
from geoflow.core.rows import Again
from geoflow.session import Session
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.opening import is_duckdb
from geoflow.stores.store import Store
from tests.helpers.sessions import leave_as_killed
from tests.helpers.worlds import (
    DEADLY,
    NOT_RETRIED,
    RETRIED,
    Event,
    Schedule,
    Script,
    StageScript,
    World,
    end_of,
)

pytestmark = pytest.mark.on_duckdb(seldom=True)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """The machine says every change of every job: too much to keep for a report."""
    before = logging.getLogger("geoflow").level
    logging.getLogger("geoflow").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("geoflow").setLevel(before)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without jobs, to be copied: making one takes as long as a whole small world."""
    path = tmp_path_factory.mktemp("empty") / "work.duckdb"
    store = DuckDbStore(path)
    store.open()
    store.close()
    return path


@pytest.fixture(autouse=True)
def worlds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_name: str, empty: Path) -> Iterator[None]:
    """Worlds have SQLite stores in memory unless it is DuckDB's turn: each life of an engine opens its file anew."""
    stores: list[DuckDbStore] = []

    def opened(path: Path) -> Store:
        stores.append(DuckDbStore(path))
        return stores[-1]

    def new_store() -> Store:
        return opened(Path(shutil.copy(empty, tmp_path / f"world-{len(stores)}.duckdb")))

    def after_a_kill(store: Store) -> Store:
        assert isinstance(store, DuckDbStore)
        leave_as_killed(store)
        return opened(Path(store.name))

    if is_duckdb(store_name):
        monkeypatch.setattr(World, "new_store", new_store)
        monkeypatch.setattr(World, "after_a_kill", after_a_kill)
    yield
    for store in stores:
        store.close()


# Worlds at random

steps = st.sampled_from((*RETRIED, *NOT_RETRIED, *DEADLY, "transient", "dies"))
gentle = st.sampled_from((*RETRIED, *DEADLY))
task_scripts = st.one_of(st.just(()), st.lists(gentle, max_size=3).map(tuple), st.lists(steps, max_size=4).map(tuple))
numbers = st.lists(st.integers(0, 719), min_size=1, max_size=40)


@st.composite
def stage_scripts(draw: st.DrawFn, *, first: bool) -> StageScript:
    most = draw(st.sampled_from((None, None, 0, 1, 2)))
    if not first and draw(st.integers(0, 3)) == 0:
        return StageScript((draw(task_scripts),), fan_in=True, max_retries=most)
    tasks = tuple(draw(st.lists(task_scripts, max_size=9)))
    order: Order = draw(st.sampled_from(("planned", "planned", "largest")))
    return StageScript(tasks, planned=draw(st.integers(0, 9)) > 0, max_retries=most, order=order)


@st.composite
def job_scripts(draw: st.DrawFn) -> Script:
    count = draw(st.integers(1, 4))
    stages = tuple(draw(stage_scripts(first=number == 0)) for number in range(count))
    return Script(stages, draw(st.sampled_from((3, 3, 0, 1))), draw(st.integers(0, 4)) > 0)


def schedules() -> st.SearchStrategy[Schedule]:
    return numbers.map(Schedule)


slot_counts = st.sampled_from((1, 2, 3))


@given(job_scripts(), schedules(), slot_counts)
def test_S29_S32_S36_every_job_ends_as_its_tasks_decide_in_any_order_of_completion(
    script: Script, schedule: Schedule, slots: int
) -> None:
    world = World([script], schedule, slots)
    world.drive()
    assert not world.unfinished()
    for job_id in world.by_id:
        assert world.end(job_id) == end_of(job_id, script)
        world.check_attempts(job_id)
        world.check_result(job_id)


@given(job_scripts(), schedules(), schedules(), slot_counts, slot_counts)
def test_S29_two_runs_of_one_job_in_two_orders_leave_the_same_tasks_errors_and_result(
    script: Script, one: Schedule, other: Schedule, few: int, many: int
) -> None:
    worlds = World([script], one, few), World([script], other, many)
    found = []
    for world in worlds:
        world.drive()
        tasks = world.rows(
            "SELECT task_id, stage, task_index, task_type, status, retries, result, error, error_type, error_category,"
            " code FROM tasks ORDER BY task_key"
        )
        jobs = world.rows("SELECT job_id, status, stage, result, error, tasks, completed, failed FROM jobs")
        charged = world.rows(
            "SELECT task_key, error, error_category, retryable FROM attempts WHERE outcome = 'failed'"
            " ORDER BY task_key, attempt"
        )
        found.append((tasks, jobs, charged))
    assert found[0] == found[1]


@given(job_scripts(), schedules(), slot_counts)
def test_S29_a_job_that_stops_leaves_the_rest_queued_and_a_resume_with_mended_code_runs_just_that(
    script: Script, schedule: Schedule, slots: int
) -> None:
    world = World([script], schedule, slots, on_failure="stop")
    world.drive()
    assert not world.unfinished()
    ((job_id, before),) = ((job_id, world.end(job_id)) for job_id in world.by_id)
    drained = end_of(job_id, script)
    assert before.status == drained.status
    for place, (status, retries, error) in before.tasks.items():
        assert status in ("queued", "completed", "failed")
        assert retries <= drained.tasks[place][1]
        if status != "queued":
            assert (status, retries, error) == drained.tasks[place]
    if before.status == "completed":
        return
    world.check_attempts(job_id, charged_exactly=False)
    completed = world.rows("SELECT task_key, attempt FROM attempts WHERE outcome = 'completed'")
    mended = world.by_id[job_id] = script.mended()
    world.drive("resume")
    assert world.end(job_id).status == end_of(job_id, mended).status
    assert set(completed) <= set(world.rows("SELECT task_key, attempt FROM attempts WHERE outcome = 'completed'"))
    world.check_attempts(job_id, charged_exactly=False)
    world.check_result(job_id)


moments = st.integers(1, 40)


@st.composite
def disturbances(draw: st.DrawFn) -> dict[int, Event]:
    """Two kills at most: a third in a row would be the task's own fault (S30). Interrupts cost nothing."""
    kill: st.SearchStrategy[Event] = st.sampled_from(("kill", "kill before sending"))
    interrupt: st.SearchStrategy[Event] = st.sampled_from(("interrupt", "interrupt after"))
    kills, interrupts = st.dictionaries(moments, kill, max_size=2), st.dictionaries(moments, interrupt, max_size=3)
    return {**draw(interrupts), **draw(kills)}


def let_pass(world: World, job_id: str) -> list[int]:
    """The stages of which the store says that they were passed with failures."""
    row = world.store.job(job_id)
    assert row is not None
    return [plan.stage for plan in world.store.stages(row.job_key) if plan.stage_key in row.let_pass]


def check_goes_on(world: World) -> None:
    for job_id, script in world.by_id.items():
        end = world.end_expected(job_id)
        assert world.end(job_id) == end
        world.check_attempts(job_id)
        world.check_result(job_id)
        failed = sorted({stage for (stage, _), (status, *_) in end.tasks.items() if status == "failed"})
        left = failed if end.status == "completed" else [stage for stage in failed if stage < max(end.tasks)[0]]
        passed = let_pass(world, job_id)
        assert [stage for stage in passed if stage in left] == left
        assert set(passed) <= set(failed), script


allowances = st.one_of(st.none(), st.integers(0, 3), st.floats(0.0, 1.0))


@given(job_scripts(), schedules(), slot_counts, allowances)
def test_S50_a_job_that_goes_on_ends_as_its_tasks_decide_in_any_order_of_completion(
    script: Script, schedule: Schedule, slots: int, allowed: float | None
) -> None:
    world = World([script], schedule, slots, on_failure="continue", allow_failed=allowed)
    world.drive()
    assert not world.unfinished()
    check_goes_on(world)


@given(
    job_scripts(),
    schedules(),
    slot_counts,
    disturbances(),
    disturbances(),
)
def test_S37_S50_a_job_that_goes_on_and_is_repaired_is_killed_and_interrupted_and_ends_as_if_it_had_not_been(
    script: Script, schedule: Schedule, slots: int, events: dict[int, Event], more: dict[int, Event]
) -> None:
    script = without_late_deaths(script)
    world = World([script], schedule, slots, on_failure="continue", events=events)
    world.drive_to_the_end()
    check_goes_on(world)
    ((job_id, passed),) = ((job_id, let_pass(world, job_id)) for job_id in world.by_id)
    if not passed:
        return
    before = dict(world.rows("SELECT attempt_key, result FROM attempt WHERE outcome = 'completed'"))
    world.by_id[job_id] = script.mended()
    world.moment, world.events = 0, more
    world.drive("rerun", Again(passed[0], keep=True, reuse="repair"))
    world.drive_to_the_end()
    world.check_attempts(job_id, charged_exactly=False)
    assert (world.end(job_id).status, let_pass(world, job_id)) == (world.end_expected(job_id).status, passed[:1])
    world.check_result(job_id)
    assert before.items() <= dict(world.rows("SELECT attempt_key, result FROM attempt")).items(), "all is kept"
    ran = world.rows(
        "SELECT t.stage_key, t.task_key, count(*) FROM task t JOIN attempt a USING (task_key)"
        " WHERE a.outcome = 'completed' AND a.started_at IS NOT NULL GROUP BY 1, 2"
    )
    assert all(count == 1 for *_, count in ran)


def without_late_deaths(script: Script) -> Script:
    """A task that is lost as a suspect once already has one loss less to go; that is another test's."""
    stages = tuple(
        replace(
            stage,
            tasks=tuple(tuple("dies" if step == "dies telling" else step for step in task) for task in stage.tasks),
        )
        for stage in script.stages
    )
    return Script(stages, script.max_retries, script.finalized)


@pytest.mark.on_duckdb
@given(job_scripts().map(without_late_deaths), schedules(), slot_counts, disturbances(), st.booleans())
def test_S30_S37_a_job_whose_engine_is_killed_and_interrupted_ends_as_if_it_had_not_been(
    script: Script, schedule: Schedule, slots: int, events: dict[int, Event], marks_survive: bool
) -> None:
    world = World([script], schedule, slots, events=events, marks_survive=marks_survive)
    world.drive_to_the_end()
    assert world.lives <= 1 + len(events)
    for job_id in world.by_id:
        assert world.end(job_id) == end_of(job_id, script)
        world.check_attempts(job_id)
        world.check_result(job_id)


@given(job_scripts(), schedules(), slot_counts, moments, st.booleans())
def test_S38_an_interrupted_job_has_no_running_task_and_is_charged_nothing(
    script: Script, schedule: Schedule, slots: int, moment: int, after: bool
) -> None:
    world = World([script], schedule, slots, events={moment: "interrupt after" if after else "interrupt"})
    (run,) = world.drive()
    assert world.rows("SELECT count(*) FROM tasks WHERE status = 'processing'") == [(0,)]
    assert {status for (status,) in world.rows("SELECT status FROM jobs")} <= {"queued", "completed", "failed"}
    assert run.interrupted == world.unfinished()
    assert world.rows("SELECT count(*) FROM attempts WHERE outcome = 'interrupted' AND error_category <> 'lost'") == [
        (0,)
    ]
    world.check_attempts(run.job_id)


@given(job_scripts(), schedules(), slot_counts, moments, st.booleans())
def test_S38_a_cancelled_job_has_no_task_left_to_run_and_can_be_resumed_to_the_end_it_would_have_had(
    script: Script, schedule: Schedule, slots: int, moment: int, after: bool
) -> None:
    world = World([script], schedule, slots, events={moment: "cancel after" if after else "cancel"})
    (run,) = world.drive()
    cancelled = world.end(run.job_id)
    assert not world.unfinished()
    assert {status for status, _, _ in cancelled.tasks.values()} <= {"completed", "failed", "cancelled"}
    world.check_attempts(run.job_id, charged_exactly=False)
    if cancelled.status == "cancelled":
        world.drive("resume")
        found, expected = world.end(run.job_id), end_of(run.job_id, script)
        assert found == expected
        world.check_attempts(run.job_id, charged_exactly=False)
        world.check_result(run.job_id)


@given(st.lists(job_scripts(), min_size=2, max_size=3), schedules(), slot_counts, moments)
def test_S30_S38_jobs_that_share_an_engine_do_not_share_their_fates(
    scripts: list[Script], schedule: Schedule, slots: int, moment: int
) -> None:
    world = World(scripts, schedule, slots, events={moment: "cancel"})
    first, *others = world.drive()
    assert not world.unfinished()
    for run, script in zip(others, scripts[1:], strict=True):
        assert world.end(run.job_id) == end_of(run.job_id, script)
        world.check_attempts(run.job_id)
        world.check_result(run.job_id)
    world.check_attempts(first.job_id, charged_exactly=False)


# Where there are no workers, the same loop runs the chunks itself

happening: Callable[[int], None] = print
ran: list[int] = []


class Counting:
    job_type = "counting"
    description = "thirty tasks, and something happens while they run"
    stages = [{"number": 1, "name": "count", "task_type": "count"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return "c" * 64

    @staticmethod
    def create_tasks_for_stage(stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
        return [{"task_id": f"t-{n}", "task_type": "count", "parameters": {"n": n}} for n in range(30)]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {"counted": len(context.task_results)}


def count(params: dict[str, Any]) -> dict[str, Any]:
    ran.append(params["n"])
    happening(params["n"])
    return {"success": True}


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_name: str) -> Iterator[Session]:
    monkeypatch.setattr(sys.modules[__name__], "ran", [])
    with Session(tmp_path / store_name, workers=0) as session:
        session.register(Counting, {"count": count})
        yield session


def check_inline(session: Session) -> None:
    """Each call that was made is on record, the completed ones as completed, and no task is left half-way."""
    with session.store.reading() as connection:
        tasks = connection.execute("SELECT task_index, status, attempts FROM tasks").fetchall()
        attempts = connection.execute("SELECT task_index FROM attempts").fetchall()
    assert sorted(n for (n,) in attempts) == sorted(ran)
    assert {status for _, status, _ in tasks} <= {"queued", "completed", "cancelled"}
    assert {n: ran.count(n) for n, _, _ in tasks} == {n: count for n, _, count in tasks}


@pytest.mark.parametrize("at", [0, 1, 7, 29])
def test_S38_a_cancel_that_comes_while_this_thread_runs_a_task_loses_nothing_that_it_did(
    inline: Session, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    def cancel(n: int) -> None:
        if n == at:  # as another thread would, at this moment
            inline.runtime.machine.ask("cancel", inline.runtime.active["c" * 64])

    monkeypatch.setattr(sys.modules[__name__], "happening", cancel)
    job = inline.run("counting")
    assert job.status == "cancelled"
    check_inline(inline)
    monkeypatch.setattr(sys.modules[__name__], "happening", lambda n: None)
    job.resume().wait()
    assert job.status == "completed"
    assert sorted(ran) == list(range(30)), "what had completed did not run again"
    check_inline(inline)


@pytest.mark.parametrize("at", [0, 1, 7, 29])
def test_S38_an_interrupt_while_this_thread_runs_a_task_costs_that_attempt_and_no_other(
    inline: Session, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    def interrupt(n: int) -> None:
        if n == at and ran.count(n) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[__name__], "happening", interrupt)
    with pytest.raises(KeyboardInterrupt):
        inline.run("counting")
    assert ran == list(range(at + 1))
    check_inline(inline)
    job = inline.job("c" * 64)
    job.resume().wait()
    assert job.status == "completed"
    assert sorted(ran) == sorted([*range(30), at])
    check_inline(inline)


# Single worlds


def short_tasks() -> Schedule:
    """Nothing happens but the tasks, and these take no time, so that several travel in one chunk."""
    return Schedule([2])


def fatal(*attempts: int, index: int = 0) -> Callable[[Batch], bool]:
    """Kills the engine whenever the task of this index runs in one of these attempts."""
    return lambda batch: batch.keys[0] - batch.first_key == index and batch.attempt in attempts


@pytest.mark.parametrize("marks_survive", [True, False])
@pytest.mark.parametrize("kills", [1, 2])
def test_S30_a_task_lost_with_its_engine_once_or_twice_runs_again_uncharged(kills: int, marks_survive: bool) -> None:
    world = World([Script((StageScript(((),)),))], Schedule([1]), 1, marks_survive=marks_survive)
    world.fatal = fatal(1, 2) if kills == 2 else fatal(1)
    world.drive_to_the_end()
    assert world.lives == kills + 1
    assert world.rows("SELECT status, attempts, retries FROM tasks") == [("completed", kills + 1, 0)]
    outcomes = world.rows("SELECT outcome, error_type, error_category FROM attempts ORDER BY attempt")
    assert outcomes == [("lost", "EngineLost", "lost")] * kills + [("completed", None, None)]


@pytest.mark.parametrize("marks_survive", [True, False])
def test_S30_a_task_lost_with_its_engine_three_times_in_a_row_fails_and_says_so(marks_survive: bool) -> None:
    world = World([Script((StageScript(((),)),))], Schedule([1]), 1, marks_survive=marks_survive)
    world.fatal = fatal(1, 2, 3)
    world.drive_to_the_end()
    assert world.rows("SELECT outcome FROM attempts ORDER BY attempt") == [("lost",), ("lost",), ("failed",)]
    ((status, error),) = world.rows("SELECT status, error FROM jobs")
    assert status == "failed"
    assert error.startswith(
        "Task 's1-0' (t0, number 0) failed without a retry: EngineLost: it ran each of the 3 last times"
    )


def test_S30_losses_count_only_in_a_row() -> None:
    """Two kills, an ordinary failure, two kills again: the failure showed that the task does not kill its engine."""
    world = World([Script((StageScript((("transient",),)),))], Schedule([1]), 1)
    world.fatal = fatal(1, 2, 4, 5)
    world.drive_to_the_end()
    assert world.rows("SELECT status, attempts, retries FROM tasks") == [("completed", 6, 1)]
    outcomes = [outcome for (outcome,) in world.rows("SELECT outcome FROM attempts ORDER BY attempt")]
    assert outcomes == ["lost", "lost", "failed", "lost", "lost", "completed"]


def test_S30_neighbours_in_the_chunk_of_a_task_that_kills_the_engine_are_not_suspected() -> None:
    world = World([Script((StageScript(((),) * 20),))], short_tasks(), 1)
    world.fatal = fatal(1, 2, 3, index=1)
    world.drive_to_the_end()
    assert world.rows("SELECT task_index FROM tasks WHERE status = 'failed'") == [(1,)]
    assert world.rows("SELECT count(*) FROM tasks WHERE status = 'completed'") == [(19,)]
    assert world.rows("SELECT count(*) FROM attempts WHERE outcome = 'lost' AND task_index <> 1") != [(0,)]


def test_S30_only_the_task_that_ran_when_its_engine_was_killed_comes_nearer_to_the_limit() -> None:
    world = World([Script((StageScript(((),) * 20),))], short_tasks(), 1)
    world.fatal = fatal(1, 2, index=1)
    world.drive()
    ((neighbours,),) = world.rows("SELECT count(*) FROM tasks WHERE status = 'processing' AND task_index <> 1")
    assert neighbours > 0
    world.drive()
    assert world.rows("SELECT task_index, losses FROM tasks JOIN task USING (task_key) WHERE losses > 0") == [(1, 1)]


def test_S18_tasks_of_two_types_that_start_largest_first_are_sent_only_as_there_is_room() -> None:
    world = World([Script((StageScript(((),) * 7, order="largest"),))], Schedule([0]), 1)
    world.drive()
    assert world.rows("SELECT task_type, count(*) FROM tasks WHERE status = 'completed' GROUP BY 1 ORDER BY 1") == [
        ("t0", 4),
        ("t1", 3),
    ]


def test_S26_S28_a_retry_waits_its_time_and_leaves_no_error_behind() -> None:
    world = World([Script((StageScript((("transient", "business", "unknown"),)),))], Schedule([1]), 1)
    world.drive()
    assert world.rows("SELECT status, retries, error, error_type, error_category FROM tasks") == [
        ("completed", 3, None, None, None)
    ]
    assert world.rows("SELECT backoff FROM attempts ORDER BY attempt") == [(None,), (1.0,), (2.0,), (4.0,)]
    (waits,) = (
        [started - queued for started, queued in pairs]
        for pairs in [world.rows("SELECT started_at, queued_at FROM attempts WHERE attempt > 1 ORDER BY attempt")]
    )
    assert waits == [1.0, 2.0, 4.0]
    assert world.clock.waits == [1.0, 2.0, 4.0]


def test_S26_a_wait_that_began_before_the_engine_was_killed_is_waited_out_after_it() -> None:
    world = World([Script((StageScript((("transient",) * 3, ())),))], Schedule([1]), 1)
    world.fatal = fatal(1, index=1)
    world.drive_to_the_end()
    assert world.lives == 2
    ((first, ended),) = world.rows("SELECT started_at, ended_at FROM attempts WHERE task_index = 0 AND attempt = 1")
    ((again,),) = world.rows("SELECT started_at FROM attempts WHERE task_index = 0 AND attempt = 2")
    assert again >= first + 1.0
    assert ended >= first
    assert world.rows("SELECT status, retries FROM tasks ORDER BY task_key") == [("completed", 3), ("completed", 0)]


def test_S16_a_job_without_any_task_is_finalized_with_an_empty_list() -> None:
    world = World([Script((StageScript(()), StageScript(()), StageScript(())))], Schedule([1]))
    world.drive()
    assert world.rows("SELECT status, stage, result FROM jobs") == [("completed", 3, '{"finalized":[]}')]


def test_S34_finalize_alone_runs_again_and_touches_no_task() -> None:
    world = World([Script((StageScript(((), ("transient",))),), finalized=False)], Schedule([1]))
    world.drive()
    ((job_id, script),) = world.by_id.items()
    before = world.rows("SELECT * FROM attempts"), world.rows("SELECT * FROM tasks")
    assert json.loads(world.rows("SELECT result FROM jobs")[0][0])["fallback"] is True
    world.by_id[job_id] = script.mended()
    world.drive("refinalize")
    world.check_result(job_id)
    assert (world.rows("SELECT * FROM attempts"), world.rows("SELECT * FROM tasks")) == before


def test_S34_a_cancel_while_finalize_runs_again_leaves_the_job_completed_as_it_was() -> None:
    world = World([Script((StageScript(((),)),))], Schedule([1]))
    world.drive()
    before = world.rows("SELECT status, result, ended_at FROM jobs")
    world.events = {world.moment + 1: "cancel"}
    (run,) = world.drive("refinalize")
    assert run.done.is_set()
    assert world.rows("SELECT status, result, ended_at FROM jobs") == before


def test_S34_a_cancel_that_came_too_late_for_the_job_does_not_keep_finalize_from_running_again() -> None:
    world = World([Script((StageScript(((),)),), finalized=False)], Schedule([1]))
    world.drive()
    ((job_id, script),) = world.by_id.items()
    world.store.request_cancel(1)  # by another process, which did not see yet that the job had ended
    world.by_id[job_id] = script.mended()
    world.drive("refinalize")
    world.check_result(job_id)


def test_S26_what_is_told_of_a_wait_that_was_over_before_the_engine_came_back_is_when_it_was_over() -> None:
    world = World([Script((StageScript((("transient",), ())),))], Schedule([1]), 1)
    world.fatal = fatal(1, index=1)
    world.drive()
    ((failed,),) = world.rows("SELECT ended_at FROM attempts")
    world.clock.advance(3_600.0)
    world.drive()
    ((queued, started),) = world.rows("SELECT queued_at, started_at FROM attempts WHERE task_index = 0 AND attempt = 2")
    assert failed <= queued <= started
    assert started >= failed + 1.0


def test_S15_a_fan_in_after_an_empty_stage_fails_the_job_and_says_so() -> None:
    world = World([Script((StageScript(()), StageScript(((),), fan_in=True)))], Schedule([1]))
    world.drive()
    assert world.rows("SELECT status, error FROM jobs") == [
        ("failed", "Stage 2 (n2) is a fan_in and has nothing to aggregate: stage 1 completed no task.")
    ]


def test_S30_a_process_that_dies_as_it_tells_what_it_did_is_laid_to_none_of_several_but_to_one_alone() -> None:
    tasks = ((),) * 10 + (("dies telling", "dies telling"),) + ((),) * 12
    world = World([Script((StageScript(tasks),))], short_tasks(), 1)
    world.drive()
    assert world.rows("SELECT DISTINCT status FROM jobs") == [("completed",)]
    assert world.rows("SELECT task_index, retries FROM tasks WHERE retries > 0") == [(10, 2)]
    assert world.rows("SELECT task_index FROM attempts WHERE outcome = 'failed'") == [(10,), (10,)]
    assert len(world.rows("SELECT task_index FROM attempts WHERE outcome = 'lost'")) > 1
