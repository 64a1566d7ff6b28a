"""A session through any sequence of what may happen to it: whatever comes, the store stays right and jobs can be ended.

The session, its machine and its store (a file) are the real ones. The executor's processes are on paper: a rule says
what each reports and when, and reports come late, twice, or never since the engine was dropped.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import geoflow as gf
from geoflow.core.batch import Call, NewTasks
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Category, Failure, Outcome
from geoflow.errors import StoreBusy
from geoflow.jobtypes.contract import job_id_for, task_id
from geoflow.stores.store import Store
from geoflow.support.jsonable import to_json
from tests.helpers.clocks import ManualClock
from tests.helpers.profiles import a_share
from tests.helpers.sessions import leave_as_killed
from tests.helpers.worlds import Schedule, ScriptedExecutor, World

JOBS = 3
ENDED = ("completed", "failed", "cancelled")
steps = st.sampled_from(("ok", "ok", "ok", "transient", "permanent", "dies", "dies telling"))


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    before = logging.getLogger("geoflow").level
    logging.getLogger("geoflow").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("geoflow").setLevel(before)


class Ruled:
    """As many tasks in each of two stages as the parameters say, and a sum."""

    job_type = "ruled"
    description = "What its tasks do is ruled by the test."
    stages = [
        {"number": 1, "name": "first", "task_type": "t0", "parallelism": "single"},
        {"number": 2, "name": "second", "task_type": "t0", "parallelism": "fan_out"},
        {"number": 3, "name": "sum", "task_type": "t0", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        return job_id_for(cls.job_type, params)

    @staticmethod
    def create_tasks_for_stage(stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
        raise AssertionError("it is planned on paper")

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        raise AssertionError("it is finalized on paper")


def t0(params: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError("it runs on paper")


class StandingClock(ManualClock):
    """It moves when a rule says so, and not for those who wait."""

    def wait(self, inbox: Any, seconds: float) -> Any:
        try:
            return inbox.get_nowait()
        except Empty:
            return None


class Paper(World):
    """What the processes on paper do: as the rules say, otherwise well."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__([], Schedule([2]))
        self.store.close()
        self.clock = clock
        self.next_steps: list[str] = []

    def step(self, chunk: Chunk, call: Call) -> str:
        return self.next_steps.pop(0) if self.next_steps else "ok"

    def attempt(self, chunk: Chunk, call: Call, step: str) -> Attempt:
        now, number, version = self.clock.now(), chunk.batch.attempt, chunk.code.fingerprint
        if step == "ok":
            result = to_json({"success": True, "result": call.task_id})
            return Attempt(call.key, number, Outcome.COMPLETED, now, now, 0.0, result=result, code=version)
        category = Category.LOST if step in ("dies", "dies telling") else Category(step)
        why = Failure(f"{step} on purpose", "Ruled", category, step != "permanent")
        return Attempt(call.key, number, Outcome.FAILED, now, now, 0.0, failure=why, code=version)

    def told(self, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
        return attempts

    def report(self, chunk: Chunk, attempts: list[Attempt]) -> Report:
        return Report(chunk, attempts, unstarted=chunk.batch.keys[len(attempts) :])

    def plan(self, chunk: Chunk) -> Report:
        if self.step(chunk, chunk.batch.calls()[0]) == "permanent":
            why = Failure("no plan", "Ruled", Category.PERMANENT, False)
            return Report(chunk, (Attempt(0, 1, Outcome.FAILED, None, None, failure=why),))
        count = chunk.batch.calls()[0].parameters["job_params"]["sizes"][chunk.stage - 1]
        tasks = [(f"s{chunk.stage}-{index}", "t0", "{}", None) for index in range(count)]
        return Report(chunk, (Attempt(0, 1, Outcome.COMPLETED, None, None),), planned=NewTasks.of(*tasks))

    def finalize(self, chunk: Chunk) -> Report:
        given = chunk.batch.calls()[0].parameters
        ids = [name for text in chunk.texts for name in json.loads(text or "")[0]]
        assert len(ids) == sum(given["parameters"]["sizes"]) + 1, "S33: after the fan-in, when all is complete"
        result = to_json({"finalized": ids})
        return Report(chunk, (Attempt(0, 1, Outcome.COMPLETED, None, None, result=result),))

    def check_sent(self, chunk: Chunk, out: list[Chunk]) -> None:
        elsewhere = {key for other in out for key in other.batch.keys if other.kind == "tasks"}
        assert chunk.kind != "tasks" or elsewhere.isdisjoint(chunk.batch.keys), "a task is in two slots at once"


class PaperExecutor(ScriptedExecutor):
    """Slots that report when a rule says so. What was ever reported of tasks is kept, to be reported again."""

    def __init__(self, paper: Paper) -> None:
        super().__init__(paper)
        self.lied = False
        self.given: list[Report] = []
        self.out: list[Chunk] = []

    def submit(self, chunk: Chunk) -> None:
        super().submit(chunk)
        self.out.append(chunk)

    def written(self) -> None:
        pass

    def run_here(self) -> bool:
        return False

    def busy(self) -> bool:
        return False  # so that nobody waits for real time to pass

    def slots_with_work(self) -> list[int]:
        return [number for number, queue in enumerate(self._queues) if queue]

    def answer(self, slot: int) -> None:
        self._inbox.put(slot)

    def repeat(self, report: Report) -> None:
        self.lied = True
        self._inbox.put(report)

    def collect(self, message: Any) -> list[Report]:
        if isinstance(message, Report):
            return [message]
        found = super().collect(message)
        self.given.extend(report for report in found if report.chunk.kind == "tasks")
        return found


class SessionLife(RuleBasedStateMachine):
    """Up to three jobs in a store, and engine after engine that drives them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "work.db"
        self.clock = StandingClock()
        self.kept: dict[tuple[int, int], tuple[Any, ...]] = {}
        self.ran: dict[int, str | None] | None = None
        self.old: list[Report] = []
        self.open()

    # Lives of the engine

    def open(self) -> None:
        self.session = gf.Session(self.path, workers=0, clock=self.clock, display="none", log_level="CRITICAL")
        self.session.register(Ruled, {"t0": t0})
        self.paper = Paper(self.clock)
        self.executor = PaperExecutor(self.paper)
        engine = self.session.runtime
        engine.__dict__["executor"] = self.executor
        engine.__dict__["_in_background"] = lambda: None  # the rules turn the loop
        self.machine = engine.machine
        self.machine._ran_at_death = lambda owner, job_id, ran=self.ran: ran  # type: ignore[misc]

    @property
    def store(self) -> Store:
        return self.session.store

    def turn(self) -> None:
        """Turn until nothing happens by itself any more."""
        for _ in range(8):
            self.machine.turn()

    # Rules

    @initialize(sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=JOBS, max_size=JOBS))
    def plan_jobs(self, sizes: list[tuple[int, int]]) -> None:
        self.params: list[dict[str, Any]] = [{"n": n, "sizes": list(pair)} for n, pair in enumerate(sizes)]

    @rule(n=st.integers(0, JOBS - 1), on_existing=st.sampled_from(("return", "resume", "rerun")))
    def submit(self, n: int, on_existing: Any) -> None:
        before = {row.job_id for row in self.store.jobs()}
        try:
            job = self.session.submit("ruled", self.params[n], on_existing=on_existing)
        except StoreBusy:
            return  # a rerun of what runs here
        assert job.receipt is not None
        assert (job.receipt.status == "created") == (job.id not in before), "S9: one row"
        self.turn()

    @precondition(lambda self: self.executor.slots_with_work())
    @rule(which=st.integers(0, 5), steps=st.lists(steps, max_size=4))
    def answer(self, which: int, steps: list[str]) -> None:
        slots = self.executor.slots_with_work()
        self.paper.next_steps = steps
        self.executor.answer(slots[which % len(slots)])
        self.turn()

    @precondition(lambda self: self.executor.slots_with_work())
    @rule(slots=st.permutations((0, 1)))
    def answer_both_at_once(self, slots: list[int]) -> None:
        self.paper.next_steps = []
        for slot in slots:
            if slot in self.executor.slots_with_work():
                self.executor.answer(slot)
        self.turn()

    @precondition(lambda self: self.executor.given)
    @rule(which=st.integers(0, 9))
    def report_again(self, which: int) -> None:
        """As no executor should: the store must refuse what it has already, and lose nothing of it."""
        self.executor.repeat(self.executor.given[-1 - which % len(self.executor.given)])
        self.turn()

    @precondition(lambda self: self.executor.out)
    @rule(which=st.integers(0, 9), seed=st.integers(0, 1))
    def report_late(self, which: int, seed: int) -> None:
        """Of a chunk that was sent before, and perhaps stopped, or has long ended: it succeeded, or it failed."""
        chunk = self.executor.out[-1 - which % len(self.executor.out)]
        if chunk.kind == "tasks":
            calls = chunk.batch.calls()
            step = ("ok", "transient")[seed]
            self.executor.repeat(self.paper.report(chunk, [self.paper.attempt(chunk, call, step) for call in calls]))
            self.turn()

    @precondition(lambda self: self.old)
    @rule(which=st.integers(0, 9))
    def report_from_an_earlier_life(self, which: int) -> None:
        self.executor.repeat(self.old[-1 - which % len(self.old)])
        self.turn()

    @rule(marks_survive=st.booleans())
    def crash(self, marks_survive: bool) -> None:
        """The engine is dropped as it stands; the next one finds the store, and perhaps the marks of the slots."""
        self.ran = dict.fromkeys(self.executor.running()) if marks_survive else None
        self.old = self.executor.given[-5:]
        leave_as_killed(self.store)
        self.open()

    @rule()
    def resume_all(self) -> None:
        self.session.resume()
        self.turn()

    @precondition(lambda self: self.store.jobs())
    @rule(which=st.integers(0, 5), what=st.sampled_from(("cancel", "resume", "rerun", "interrupt", "request")))
    def touch(self, which: int, what: str) -> None:
        rows = self.store.jobs()
        job = self.session.job(rows[which % len(rows)].job_id)
        run = self.session.runtime.active.get(job.id)
        if what == "request":  # as another process does
            self.store.request_cancel(rows[which % len(rows)].job_key)
            self.clock.advance(0.6)
        elif what == "interrupt":
            if run is not None and not run.done.is_set():
                self.session.runtime.ask("interrupt", run)
                assert job.status in ("queued", *ENDED)
        else:
            before = job.status
            try:
                getattr(job, what)()
            except StoreBusy:
                assert what == "rerun"
            if what == "cancel":
                is_stopped = self.executor.lied and run is not None and run.error is not None  # S19
                assert is_stopped or job.status == (before if before in ENDED else "cancelled"), "S38"
        self.turn()

    @rule(seconds=st.sampled_from((0.5, 1.0, 4.0, 100.0, 86_400.0, -0.5, -60.0, -86_400.0)))
    def set_the_clock(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.turn()

    # What holds after each

    def rows(self, sql: str, *values: Any) -> list[Any]:
        with self.store.reading() as connection:
            return connection.execute(sql, values).fetchall()

    @invariant()
    def what_was_written_stays(self) -> None:
        """Attempts are only ever added."""
        found = {
            (key, number): rest
            for key, number, *rest in self.rows(
                "SELECT task_key, attempt, outcome, error, result, started_at FROM attempt"
            )
        }
        assert {key: found.get(key) for key in self.kept} == self.kept
        self.kept = found

    @invariant()
    def each_task_has_its_attempts(self) -> None:
        attempts: dict[int, list[tuple[int, str]]] = {}
        for key, number, outcome in self.rows("SELECT task_key, attempt, outcome FROM attempt ORDER BY attempt_key"):
            attempts.setdefault(key, []).append((number, outcome))
        for key, status, count, retries in self.rows("SELECT task_key, status, attempt, retries FROM task"):
            told = attempts.get(key, [])
            ended = count - (status == "processing")
            assert [number for number, _ in told] == list(range(1, ended + 1)), "all are accounted for"
            outcomes = [outcome for _, outcome in told]
            assert outcomes.count("completed") == (status == "completed"), "one success, and only of what completed"
            assert outcomes.count("failed") >= retries

    @invariant()
    def each_job_is_where_its_tasks_are(self) -> None:
        for row in self.store.jobs():
            counts: dict[str, int] = {}
            for stage in self.store.stages(row.job_key):
                for state, count in self.store.counts(stage).items():
                    counts[state] = counts.get(state, 0) + count
            if row.status == "completed":
                assert set(counts) <= {"completed"}
                assert row.result is not None
                assert row.ended_at is not None
            if row.status == "cancelled":
                assert not {"queued", "processing"} & set(counts)
            if row.status == "failed":
                assert row.error
                assert row.ended_at is None or "processing" not in counts
            if row.status in ("queued", "cancelled") and row.job_id not in self.machine._jobs:
                assert "processing" not in counts or row.status == "queued"

    @invariant()
    def nobody_waits_for_nobody(self) -> None:
        """S36: what is neither at its end nor driven is interrupted, and so it is found."""
        for row in self.store.jobs():
            driven = self.store.driver(row.job_key) is not None
            assert driven == (row.job_id in self.machine._jobs)
            run = self.session.runtime.active.get(row.job_id)
            assert run is None or run.done.is_set() != driven
        for run in self.machine._jobs.values():
            self.paper.store = self.store
            self.paper.check_counts(run)
        if self.machine.idle() and not self.executor.lied:
            assert not self.executor.slots_with_work()

    def teardown(self) -> None:
        """Whatever has happened, every job can be brought to its end, and then completed."""
        try:
            self.crash(True)
            for job_again in range(3):
                for row in self.store.jobs():
                    job = self.session.job(row.job_id)
                    if row.status in ("failed", "cancelled") or not job.ended:
                        job.resume()
                for _ in range(60):
                    self.turn()
                    if self.machine.idle():
                        break
                    self.clock.advance(1_000_000.0)
                    self.answer_both_at_once([0, 1])
                assert self.machine.idle()
                del job_again
            for row in self.store.jobs():
                assert self.session.job(row.job_id).ended
                self.check_ended(row)
            self.what_was_written_stays()
            self.each_task_has_its_attempts()
            assert self.rows("PRAGMA integrity_check") == [("ok",)]
        finally:
            self.session.close()
            self.folder.cleanup()

    def check_ended(self, row: Any) -> None:
        sizes = next(params["sizes"] for params in self.params if job_id_for("ruled", params) == row.job_id)
        if not sizes[1]:
            assert row.status == "failed"
            assert "has nothing to aggregate" in row.error
            return
        assert row.status == "completed", row.error
        names = [f"s{stage}-{n}" for stage, size in enumerate(sizes, start=1) for n in range(size)]
        assert row.result == to_json({"finalized": [*names, task_id(row.job_id, 3, "fan_in_aggregate")]})


TestSessionLife = SessionLife.TestCase
TestSessionLife.settings = settings(
    a_share(0.3), stateful_step_count=40, report_multiple_bugs=False, suppress_health_check=list(HealthCheck)
)
