"""Jobs in a store, and a script of all that happens to them, for the tests of the loop that drives them.

A world is a job, what each of its tasks does in each charged attempt, and a schedule: which slot reports next, when a
process dies before it began, when the engine is killed or interrupted. What must come out is worked out beside it,
by reading the scripts one after another; nothing of the schedule may show in it.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, ClassVar, Literal

from geoflow.core.batch import Batch, Call, Completed, NewTasks
from geoflow.core.chunking import CHUNK_SECONDS
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Category, Failure, OnFailure, Order, Outcome, Stage
from geoflow.core.retry import RetryPolicy
from geoflow.core.rows import Again, NewJob
from geoflow.engine.active_job import CLASS, ActiveJob, Intent, Options
from geoflow.engine.machine import CoreMachine
from geoflow.jobtypes.contract import Registered, task_id
from geoflow.stores.sqlite import SqliteStore
from geoflow.stores.store import Store
from geoflow.support.allowance import most
from geoflow.support.jsonable import to_json
from geoflow.usercode.packing import Code
from tests.helpers.clocks import ManualClock

CODES = {name: Code(f"{name}-version", None, b"") for name in ("t0", "t1")}
RETRIED = ("transient", "business", "unknown", "timeout")
NOT_RETRIED = ("contract", "permanent")
# A process that dies while a task runs in it, and one that dies as it tells what it did.
DEADLY = ("dies", "dies telling")


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


def end_of(job_id: str, script: Script, may_fail: Callable[[int], int] = lambda tasks: 0) -> End:
    """S29, S50: what must come out of a job that drains or goes on, whatever happens on the way.

    *may_fail* says how many of so many tasks may.
    """
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
        if len(failed) > (most := may_fail(len(stage.tasks))):
            index, retries, error = failed[0]
            after = {0: "without a retry", 1: "after 1 retry"}.get(retries, f"after {retries} retries")
            what = f"{name_of(job_id, script, number, index)!r} ({type_of(script, number, index)}, number {index})"
            more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
            more += f"; at most {most} of this stage may fail" if most else ""
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

    def written(self) -> None:
        pass

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

    def looks(self) -> None:
        return None

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
    allow_failed: float | None = None
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
        self._ran: dict[int, str | None] | None = None
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

    def end_expected(self, job_id: str) -> End:
        """That of the job by its script, as the policy for failures has it."""
        goes_on = self.on_failure == "continue"
        return end_of(job_id, self.by_id[job_id], lambda tasks: most(self.allow_failed, tasks) if goes_on else 0)

    def failed(self, job_id: str, stage: int) -> list[str]:
        """The tasks of a stage that must have failed."""
        script, ends = self.by_id[job_id], self.end_expected(job_id).tasks
        places = [place for place, (status, *_) in ends.items() if place[0] == stage and status == "failed"]
        return [name_of(job_id, script, *place) for place in places]

    def plan(self, chunk: Chunk) -> Report:
        script = self.by_id[chunk.job_id]
        stage = script.stages[chunk.stage - 1]
        given = chunk.batch.calls()[0].parameters["previous_results"] or []
        previous = [*given, *(result for text in chunk.texts for result in json.loads(text or "[]"))] or None
        earlier = script.stages[chunk.stage - 2].tasks if chunk.stage > 1 else ()
        names = [name_of(chunk.job_id, script, chunk.stage - 1, index) for index in range(len(earlier))]
        missing = self.failed(chunk.job_id, chunk.stage - 1)
        names = [name for name in names if name not in missing]
        assert [task["task_id"] for task in chunk.batch.calls()[0].parameters.get("missing", [])] == missing
        assert previous == ([{"success": True, "result": name} for name in names] or None), "S14: all, in task order"
        if not stage.planned:
            why = Failure("no plan", "Scripted", Category.PERMANENT, False)
            return Report(chunk, (Attempt(0, 1, Outcome.FAILED, None, None, failure=why),))
        tasks = [
            (
                name_of(chunk.job_id, script, chunk.stage, index),
                type_of(script, chunk.stage, index),
                to_json({"n": index}),
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
        pieces = [json.loads(text) for text in chunk.texts if text]
        ids = [*given["task_results"][0], *(name for piece in pieces for name in piece[0])]
        errors = [error for piece in pieces for error in (piece[4] if len(piece) > 4 else [None] * len(piece[0]))]
        ends = self.end_expected(chunk.job_id).tasks.values()
        assert errors == [f"Scripted: {error}" if status == "failed" else None for status, _, error in ends], "S33"
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
        assert status == "processing" or (status == "failed" and self.on_failure != "stop"), "S29: it was to stop"
        with self.store.reading() as connection:
            for call in chunk.batch.calls():
                told = connection.execute(
                    "SELECT status, attempt, task_id, task_type FROM task WHERE task_key = ?", (call.key,)
                ).fetchone()
                assert told == ("processing", chunk.batch.attempt, call.task_id, chunk.batch.task_type)
                assert chunk.code == CODES[chunk.batch.task_type], "it goes with the code of its own handler"
                assert self.clock.now() >= self._not_before.get(call.key, 0.0), "S26: it started before its time"

    # Lives of the engine

    def drive(self, intent: Intent = "go on", again: Again | None = None) -> list[ActiveJob]:
        """One life: an engine takes up all jobs, and drives them until they are done or it is killed."""
        self.lives += 1
        if intent in ("resume", "rerun"):
            self._not_before.clear()
        executor = ScriptedExecutor(self)
        ran = self._ran
        machine = CoreMachine(self.store, executor, self.clock, ran_at_death=lambda owner, job_id: ran)
        runs = [self._run(job_id, intent, again) for job_id in self.by_id]
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
            self._ran = dict.fromkeys(executor.running()) if self.marks_survive else None
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

    def _run(self, job_id: str, intent: Intent, again: Again | None) -> ActiveJob:
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
        options = Options(RetryPolicy(max_retries=script.max_retries), self.on_failure, self.allow_failed)
        codes = {**CODES, CLASS: Code("class", None, b"")}
        registered = Registered("simulated", object, stages, handlers)
        return ActiveJob(row, lease, registered, codes, options, intent=intent, again=again)

    def check_counts(self, run: ActiveJob) -> None:
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
