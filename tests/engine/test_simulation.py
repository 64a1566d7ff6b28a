"""S13 to S38, whole jobs: the real loop and store, with a world that decides by script how every call ends.

A world is a job, what each of its tasks does in each charged attempt, and a schedule: which slot reports next, when a
process dies before it began, when the engine is killed or interrupted. What must come out is worked out beside it,
by reading the scripts one after another; nothing of the schedule may show in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import strategies as st

from geoflow.core.batch import Batch, Call, Completed, NewTasks
from geoflow.core.chunking import CHUNK_SECONDS
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Category, Failure, OnFailure, Order, Outcome, Stage
from geoflow.core.retry import RetryPolicy
from geoflow.core.rows import NewJob
from geoflow.engine.active_job import CLASS, Intent, JobRun, Options
from geoflow.engine.machine import CoreMachine
from geoflow.jobtypes.contract import Registered, task_id
from geoflow.session import Session
from geoflow.stores.base import Store
from geoflow.stores.sqlite import SqliteStore
from geoflow.support.clock import ManualClock
from geoflow.support.jsonable import to_json
from geoflow.usercode.packing import Code
from tests.helpers.examples import examples

CODES = {name: Code(f"{name}-version", None, b"") for name in ("t0", "t1")}
RETRIED = ("transient", "business", "unknown", "timeout")
NOT_RETRIED = ("contract", "permanent")
# A process that dies while a task runs in it, and one that dies as it tells what it did.
DEADLY = ("dies", "dies telling")


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """The machine says every change of every job: too much to keep for a report."""
    before = logging.getLogger("geoflow").level
    logging.getLogger("geoflow").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("geoflow").setLevel(before)


# Jobs


@dataclass(frozen=True)
class StageScript:
    """What the tasks of a stage do: for each the ways in which its charged attempts end, then it succeeds."""

    tasks: tuple[tuple[str, ...], ...]
    fan_in: bool = False
    planned: bool = True
    max_retries: int | None = None
    order: Order = "planned"


@dataclass(frozen=True)
class Script:
    stages: tuple[StageScript, ...]
    max_retries: int = 3
    finalized: bool = True

    def mended(self) -> Script:
        """The same job, with code that does not fail."""
        stages = tuple(replace(stage, tasks=tuple(() for _ in stage.tasks), planned=True) for stage in self.stages)
        return Script(stages, self.max_retries)

    def size(self) -> int:
        return sum(3 + len(stage.tasks) * (1 + self.most_retries(stage)) for stage in self.stages)

    def most_retries(self, stage: StageScript) -> int:
        return self.max_retries if stage.max_retries is None else stage.max_retries


def name_of(job_id: str, script: Script, stage: int, index: int) -> str:
    return task_id(job_id, stage, "fan_in_aggregate") if script.stages[stage - 1].fan_in else f"s{stage}-{index}"


def type_of(script: Script, stage: int, index: int) -> str:
    return "t0" if script.stages[stage - 1].fan_in else f"t{index // 3 % 2}"


def failure(step: str, stage: int, index: int) -> Failure:
    category = Category.LOST if step in DEADLY else Category(step)
    return Failure(f"{step} in {stage}.{index}", "Scripted", category, step not in NOT_RETRIED)


@dataclass(frozen=True)
class End:
    """How a job ends: its status and error, and of each task its status, retries and error."""

    status: str
    error: str | None
    tasks: Mapping[tuple[int, int], tuple[str, int, str | None]]


def end_of(job_id: str, script: Script) -> End:
    """S29: what must come out of a job that drains, whatever happens on the way."""
    tasks: dict[tuple[int, int], tuple[str, int, str | None]] = {}
    for number, stage in enumerate(script.stages, start=1):
        if stage.fan_in:
            if not script.stages[number - 2].tasks:
                why = f"has nothing to aggregate: stage {number - 1} completed no task."
                return End("failed", f"Stage {number} (n{number}) is a fan_in and {why}", tasks)
        elif not stage.planned:
            return End("failed", f"Stage {number} (n{number}) could not be planned: Scripted: no plan", tasks)
        failed = []
        for index, steps in enumerate(stage.tasks):
            tasks[number, index] = status, retries, error = task_end(steps, script.most_retries(stage), number, index)
            if status == "failed":
                failed.append((index, retries, error))
        if failed:
            index, retries, error = failed[0]
            after = {0: "without a retry", 1: "after 1 retry"}.get(retries, f"after {retries} retries")
            what = f"{name_of(job_id, script, number, index)!r} ({type_of(script, number, index)}, number {index})"
            more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
            return End("failed", f"Task {what} failed {after}: Scripted: {error}{more}", tasks)
    return End("completed", None, tasks)


def task_end(steps: Iterable[str], most_retries: int, stage: int, index: int) -> tuple[str, int, str | None]:
    for retries, step in enumerate(steps):
        if step in NOT_RETRIED or retries == most_retries:
            return "failed", retries, failure(step, stage, index).error
    return "completed", len(tuple(steps)), None


# The world around the engine


class Killed(BaseException):
    """The engine's process is gone, in the middle of whatever it did."""


class Schedule:
    """Numbers to decide by, again from the beginning when they are used up."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = list(numbers) or [0]
        self._used = 0

    def below(self, n: int) -> int:
        self._used += 1
        return self._numbers[self._used % len(self._numbers)] % n


Event = Literal["kill", "kill before sending", "interrupt", "cancel", "interrupt after", "cancel after"]


class ScriptedExecutor:
    """Slots whose processes exist on paper only. What each does is the script's, when it does it the schedule's."""

    chunk_seconds = 0.05

    def __init__(self, world: World) -> None:
        self.slots = world.slots
        self.chunk_seconds = CHUNK_SECONDS
        self._world = world
        self._queues: list[deque[Chunk]] = [deque() for _ in range(world.slots)]
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._dying = False
        self.command: Callable[[Literal["interrupt", "cancel"]], object] = lambda verb: None

    def start(self, inbox: SimpleQueue[Any]) -> None:
        self._inbox = inbox

    def capacity(self, job_id: str, *, reserve: bool) -> int:
        idle = sum(not queue for queue in self._queues)
        behind = sum(len(queue) == 1 and queue[0].job_id == job_id for queue in self._queues)
        return idle * 2 + behind if reserve else idle

    def submit(self, chunk: Chunk) -> None:
        if self._dying:
            raise Killed
        assert self.capacity(chunk.job_id, reserve=True), "there is no room for it"
        self._world.check_sent(chunk, [out for queue in self._queues for out in queue])
        ours = [queue for queue in self._queues if all(out.job_id == chunk.job_id for out in queue)]
        min(ours, key=len).append(chunk)

    def run_here(self) -> bool:
        """A moment of the outside world: at least one of the slots that have work tells something."""
        schedule = self._world.schedule
        event = self._world.next_event()
        heads = [queue[0].batch for queue in self._queues if queue and queue[0].kind == "tasks"]
        if event == "kill" or any(map(self._world.fatal, heads)):
            raise Killed
        self._dying = event == "kill before sending"
        if event in ("interrupt", "cancel"):
            self.command(event)
            return False  # nothing else happens at that moment
        busy = [number for number, queue in enumerate(self._queues) if queue]
        for left in range(1 + schedule.below(len(busy)) if busy else 0, 0, -1):
            self._inbox.put(busy.pop(schedule.below(len(busy))))
            if left > 1 and schedule.below(2):
                break
        if event in ("interrupt after", "cancel after"):
            self.command("interrupt" if event == "interrupt after" else "cancel")
        if schedule.below(4) == 0:
            self._world.clock.advance((0.01, 0.3, 5.0)[schedule.below(3)])
        return False

    def collect(self, message: Any) -> list[Report]:
        queue = self._queues[message]
        if not queue:
            return []  # stopped meanwhile
        chunk = queue.popleft()
        keys = tuple(chunk.batch.keys)
        if self._world.dies_early():
            return [Report(chunk, unstarted=keys), *self._all_unstarted(queue)]
        if chunk.kind == "plan":
            return [self._world.plan(chunk)]
        if chunk.kind == "finalize":
            return [self._world.finalize(chunk)]
        attempts: list[Attempt] = []
        for position, call in enumerate(chunk.batch.calls()):
            step = self._world.step(chunk, call)
            if step == "dies" or (step == "dies telling" and len(keys) == 1):
                blamed = self._world.attempt(chunk, call, step)
                report = Report(
                    chunk, self._world.told((blamed,)), lost=keys[:position], unstarted=keys[position + 1 :]
                )
                return [report, *self._all_unstarted(queue)]
            if step == "dies telling":
                told = Report(chunk, lost=keys[: position + 1], unstarted=keys[position + 1 :], suspects=True)
                return [told, *self._all_unstarted(queue)]
            attempts.append(self._world.attempt(chunk, call, step))
            if self._world.schedule.below(5) == 0:
                break  # it took long: the rest did not begin
        return [self._world.report(chunk, attempts)]

    def _all_unstarted(self, queue: deque[Chunk]) -> list[Report]:
        found = [Report(chunk, unstarted=chunk.batch.keys) for chunk in queue]
        queue.clear()
        return found

    def check(self) -> list[Report]:
        return []

    def stop(self, job_id: str) -> list[Report]:
        reports: list[Report] = []
        for queue in self._queues:
            for chunk in [chunk for chunk in queue if chunk.job_id == job_id]:
                queue.remove(chunk)
                keys = tuple(chunk.batch.keys)
                begun = 0 if reports else self._world.schedule.below(len(keys) + 1)
                reports.append(Report(chunk, lost=keys[:begun], unstarted=keys[begun:]))
        return reports

    def busy(self) -> bool:
        return any(self._queues)

    def where(self) -> str | None:
        return None

    def close(self) -> None:
        for queue in self._queues:
            queue.clear()

    def running(self) -> frozenset[int]:
        """The tasks at the head of each slot's first chunk: those that the slots' marks would name."""
        return frozenset(queue[0].batch.keys[0] for queue in self._queues if queue and queue[0].kind == "tasks")


@dataclass
class World:
    """Jobs in a store, and all that happens to them."""

    # An empty store, and what the next process finds of it when this one was killed; a module may say others.
    new_store: ClassVar[Callable[[], Store]] = lambda: SqliteStore(":memory:")
    after_a_kill: ClassVar[Callable[[Store], Store]] = lambda store: store

    scripts: list[Script]
    schedule: Schedule
    slots: int = 2
    on_failure: OnFailure = "drain"
    events: dict[int, Event] = field(default_factory=dict)
    marks_survive: bool = True
    fatal: Callable[[Batch], bool] = lambda batch: False

    def __post_init__(self) -> None:
        self.store = type(self).new_store()
        self.clock = ManualClock()
        self.by_id: dict[str, Script] = {}
        self.moment = 0
        self.lives = 0
        self.turns = 0
        self._deaths_left = 4
        self._ran: frozenset[int] | None = None
        self._not_before: dict[int, float] = {}
        for number, script in enumerate(self.scripts):
            job_id = hashlib.sha256(b"%d" % number).hexdigest()
            declared = {"task_type": "t0", "parallelism": "single"}
            stages = [{"number": n, "name": f"n{n}", **declared} for n in range(1, len(script.stages) + 1)]
            self.store.create(NewJob(job_id, "simulated", to_json(stages), "{}", self.clock.now()))
            self.by_id[job_id] = script

    # What the executor asks

    def next_event(self) -> Event | None:
        self.moment += 1
        return self.events.get(self.moment)

    def dies_early(self) -> bool:
        """Whether a process dies before it begins its chunk: now and then, and not for ever."""
        if self._deaths_left and self.schedule.below(9) == 8:
            self._deaths_left -= 1
            return True
        return False

    def step(self, chunk: Chunk, call: Call) -> str:
        """How this call ends by its script, which is read at the place that the store's count of retries says."""
        retries = self.retries(call.key)
        steps = self.by_id[chunk.job_id].stages[chunk.stage - 1].tasks[call.task_index]
        return steps[retries] if retries < len(steps) else "ok"

    def retries(self, key: int) -> int:
        ((retries,),) = self.rows("SELECT retries FROM task WHERE task_key = ?", key)
        return int(retries)

    def told(self, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        """*attempts* are reported: their retries must wait."""
        for attempt in attempts:
            if attempt.failure is not None and attempt.failure.retryable:
                self._not_before[attempt.key] = self.clock.now() + min(2.0 ** self.retries(attempt.key), 10.0)
        return attempts

    def attempt(self, chunk: Chunk, call: Call, step: str) -> Attempt:
        started = self.clock.now()
        self.clock.advance((0.0001, 0.5)[self.schedule.below(2)])
        times = started, self.clock.now(), 0.0
        version = chunk.code.fingerprint
        if step == "ok":
            result = to_json({"success": True, "result": call.task_id})
            return Attempt(call.key, chunk.batch.attempt, Outcome.COMPLETED, *times, result=result, code=version)
        why = failure(step, chunk.stage, call.task_index)
        return Attempt(call.key, chunk.batch.attempt, Outcome.FAILED, *times, failure=why, code=version)

    def report(self, chunk: Chunk, attempts: list[Attempt]) -> Report:
        """The first calls of *chunk* ended as *attempts* say. Of those that succeeded, most are told together."""
        quiet = [attempt for attempt in attempts if attempt.failure is None and self.schedule.below(4)]
        others = tuple(attempt for attempt in attempts if attempt not in quiet)
        completed = None
        if quiet:
            columns = zip(*((one.key, one.started_at, one.ended_at, one.cpu, one.result) for one in quiet), strict=True)
            completed = Completed(chunk.batch.attempt, 0, 1, chunk.code.fingerprint, 0, *columns)
            assert [one._replace(slot=0, pid=1, peak_memory=0) for one in quiet] == completed.attempts()
        seconds = (attempts[-1].ended_at or 0.0) - (attempts[0].started_at or 0.0)
        unstarted = chunk.batch.keys[len(attempts) :]
        return Report(chunk, self.told(others), unstarted=unstarted, completed=completed, seconds=seconds)

    def plan(self, chunk: Chunk) -> Report:
        script = self.by_id[chunk.job_id]
        stage = script.stages[chunk.stage - 1]
        given = chunk.batch.calls()[0].parameters["previous_results"] or []
        previous = [*given, *(result for text in chunk.texts for result in json.loads(text or "[]"))] or None
        earlier = script.stages[chunk.stage - 2].tasks if chunk.stage > 1 else ()
        names = [name_of(chunk.job_id, script, chunk.stage - 1, index) for index in range(len(earlier))]
        assert previous == ([{"success": True, "result": name} for name in names] or None), "S14: all, in task order"
        if not stage.planned:
            why = Failure("no plan", "Scripted", Category.PERMANENT, False)
            return Report(chunk, (Attempt(0, 1, Outcome.FAILED, None, None, failure=why),))
        tasks = [
            (
                name_of(chunk.job_id, script, chunk.stage, index),
                type_of(script, chunk.stage, index),
                "{}",
                to_json({"size": self.schedule.below(5)}) if stage.order == "largest" else None,
            )
            for index in range(len(stage.tasks))
        ]
        return Report(chunk, (Attempt(0, 1, Outcome.COMPLETED, None, None),), planned=NewTasks.of(*tasks))

    def finalize(self, chunk: Chunk) -> Report:
        given = chunk.batch.calls()[0].parameters
        if not self.by_id[chunk.job_id].finalized:
            why = Failure("no result", "Scripted", Category.UNKNOWN, True)
            return Report(chunk, (Attempt(0, 1, Outcome.FAILED, None, None, failure=why),))
        ids = [*given["task_results"][0], *(name for text in chunk.texts for name in json.loads(text or "[[]]")[0])]
        result = to_json({"finalized": ids})
        return Report(chunk, (Attempt(0, 1, Outcome.COMPLETED, None, None, result=result),))

    def check_sent(self, chunk: Chunk, out: list[Chunk]) -> None:
        """What is sent was committed as started, is nowhere else, and has waited as long as it must."""
        if chunk.kind != "tasks":
            return
        keys = list(chunk.batch.keys)
        elsewhere = {key for other in out for key in other.batch.keys if other.kind == "tasks"}
        assert len(set(keys)) == len(keys)
        assert elsewhere.isdisjoint(keys), "a task is in two slots at once"
        ((status,),) = self.rows("SELECT status FROM job WHERE job_id = ?", chunk.job_id)
        assert status == "processing" or (status, self.on_failure) == ("failed", "drain"), "S29: it was to stop"
        with self.store.reading() as connection:
            for call in chunk.batch.calls():
                told = connection.execute(
                    "SELECT status, attempt, task_id, task_type FROM task WHERE task_key = ?", (call.key,)
                ).fetchone()
                assert told == ("processing", chunk.batch.attempt, call.task_id, chunk.batch.task_type)
                assert chunk.code == CODES[chunk.batch.task_type], "it goes with the code of its own handler"
                assert self.clock.now() >= self._not_before.get(call.key, 0.0), "S26: it started before its time"

    # Lives of the engine

    def drive(self, intent: Intent = "go on") -> list[JobRun]:
        """One life: an engine takes up all jobs, and drives them until they are done or it is killed."""
        self.lives += 1
        if intent == "resume":
            self._not_before.clear()
        executor = ScriptedExecutor(self)
        ran = self._ran
        machine = CoreMachine(self.store, executor, self.clock, ran_at_death=lambda owner, job_id: ran)
        runs = [self._run(job_id, intent) for job_id in self.by_id]
        executor.command = lambda verb: machine.ask(verb, runs[0])
        for run in runs:
            machine.ask("start", run)
        try:
            while not machine.idle():
                self.turns += 1
                assert self.turns <= 100 + 10 * sum(script.size() for script in self.scripts), "it does not end"
                machine.turn()
                for run in runs:
                    self.check_counts(run)
        except Killed:
            self._ran = executor.running() if self.marks_survive else None
            for run in runs:
                self.store.release(run.lease)
            self.store = type(self).after_a_kill(self.store)
        else:
            assert all(run.done.is_set() for run in runs)
        for run in runs:
            if run.error is not None:
                raise run.error
        return runs

    def drive_to_the_end(self) -> None:
        """Life after life, until every job has ended."""
        while self.unfinished():
            self.drive()

    def unfinished(self) -> bool:
        """Whether `resume` would find something to do."""
        return any(row.status in ("queued", "processing") or row.ended_at is None for row in self.store.jobs())

    def _run(self, job_id: str, intent: Intent) -> JobRun:
        script = self.by_id[job_id]
        stages = tuple(
            Stage(
                number=number,
                name=f"n{number}",
                task_type="t0",
                parallelism="fan_in" if stage.fan_in else "fan_out",
                max_retries=stage.max_retries,
                order=stage.order,
            )
            for number, stage in enumerate(script.stages, start=1)
        )
        row = self.store.job(job_id)
        assert row is not None
        lease = self.store.claim(row.job_key, '{"pid": 1}')
        handlers = dict.fromkeys(CODES, print)
        options = Options(RetryPolicy(max_retries=script.max_retries), self.on_failure)
        codes = {**CODES, CLASS: Code("class", None, b"")}
        return JobRun(row, lease, Registered("simulated", object, stages, handlers), codes, options, intent=intent)

    def check_counts(self, run: JobRun) -> None:
        if run.tasks.planned is None or run.done.is_set():
            return
        states = ("queued", "processing", "completed", "failed", "cancelled")
        stored = self.store.counts(run.tasks.planned)
        view = run.view()._asdict()
        assert {state: view[state] for state in states} == {state: stored.get(state, 0) for state in states}

    # What is in the store at last

    def rows(self, sql: str, *values: Any) -> list[Any]:
        with self.store.reading() as connection:
            return connection.execute(sql, values).fetchall()

    def end(self, job_id: str) -> End:
        ((status, error),) = self.rows("SELECT status, error FROM jobs WHERE job_id = ?", job_id)
        tasks = {
            (stage, index): (state, retries, why)
            for stage, index, state, retries, why in self.rows(
                "SELECT stage, task_index, status, retries, error FROM tasks WHERE job_id = ?", job_id
            )
        }
        return End(status, error, tasks)

    def check_attempts(self, job_id: str, *, charged_exactly: bool = True) -> None:
        """Every attempt is on record: numbered without a hole, one success if completed, failures as charged."""
        tasks = self.rows("SELECT task_key, status, attempts, retries FROM tasks WHERE job_id = ?", job_id)
        for key, status, count, retries in tasks:
            attempts = self.rows("SELECT attempt, outcome FROM attempts WHERE task_key = ? ORDER BY attempt", key)
            outcomes = [outcome for _, outcome in attempts]
            assert [number for number, _ in attempts] == list(range(1, count + 1))
            assert outcomes.count("completed") == (status == "completed"), "no task is completed twice"
            if status == "completed":
                assert outcomes[-1] == "completed"
            if charged_exactly:
                assert outcomes.count("failed") == retries + (status == "failed")

    def check_result(self, job_id: str) -> None:
        """S33, S34: finalize was told of all tasks of all stages in order, or there is the fallback."""
        script = self.by_id[job_id]
        ((status, result),) = self.rows("SELECT status, result FROM jobs WHERE job_id = ?", job_id)
        if status != "completed":
            assert result is None
        elif script.finalized:
            names = [
                name_of(job_id, script, stage, index)
                for stage, tasks in enumerate((stage.tasks for stage in script.stages), start=1)
                for index in range(len(tasks))
            ]
            assert json.loads(result) == {"finalized": names}
        else:
            assert json.loads(result)["fallback"] is True
            assert json.loads(result)["finalization_error"] == "no result"


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


@examples(150, job_scripts(), schedules(), slot_counts)
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


@examples(150, job_scripts(), schedules(), schedules(), slot_counts, slot_counts)
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


@examples(150, job_scripts(), schedules(), slot_counts)
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


@examples(150, job_scripts().map(without_late_deaths), schedules(), slot_counts, disturbances(), st.booleans())
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


@examples(150, job_scripts(), schedules(), slot_counts, moments, st.booleans())
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


@examples(150, job_scripts(), schedules(), slot_counts, moments, st.booleans())
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


@examples(80, st.lists(job_scripts(), min_size=2, max_size=3), schedules(), slot_counts, moments)
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
            inline.runtime.machine.ask("cancel", inline.runtime.runs["c" * 64])

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
