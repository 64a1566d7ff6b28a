"""CoreMachine: the loop that drives jobs.

Each turn takes in what was reported, asks `next_step` what each job needs, and does it in at most one transaction.
What is sent to a slot was committed as started before; what came back is committed before anything follows from it.
There is no other way through a job: a resumed one enters the same loop, with its dead engine's attempts as lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from queue import Empty
from typing import Any

from geoflow.core.batch import NewTasks
from geoflow.core.chunking import PATIENCE
from geoflow.core.chunks import Report
from geoflow.core.models import Attempt, Failure, JobStatus, Outcome
from geoflow.core.payloads import fallback_result, fan_in_parameters, finalize_argument, plan_argument
from geoflow.core.transitions import (
    Cancel,
    Close,
    Ended,
    Fail,
    Finalize,
    Listen,
    Plan,
    Start,
    Work,
    failure_message,
    next_step,
)
from geoflow.engine.active_job import JobRun
from geoflow.engine.endings import Endings
from geoflow.engine.events import tell, tell_failure
from geoflow.engine.recovery import order_of, recover
from geoflow.engine.turns import NUDGE, Command
from geoflow.errors import DefinitionError
from geoflow.executors.base import Executor
from geoflow.jobtypes.contract import task_id
from geoflow.stores.base import Store
from geoflow.support.clock import Clock
from geoflow.support.jsonable import MAX_BYTES, to_json
from geoflow.support.parcel import packed
from geoflow.support.text import count, human_bytes

# How long the loop sleeps at most: timeouts and silent deaths are seen that late.
TICK_SECONDS = 0.1
FAN_IN_UNIT = "fan_in_aggregate"


class CoreMachine(Endings):
    """Drives jobs, in whichever one thread calls `drive`, with one store and one executor."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        clock: Clock,
        *,
        on_job_complete: Callable[..., object] | None = None,
        ran_at_death: Callable[[str, str], frozenset[int] | None] = lambda owner, job_id: None,
    ) -> None:
        super().__init__(store, executor, clock, on_job_complete)
        self._ran_at_death = ran_at_death
        self._chunks = 0
        executor.start(self._inbox)

    # The loop

    def turn(self) -> None:
        message = self._received()  # before any work that is done right here: it may be an interrupt
        if message is None and not self._commands:
            message = self._received() if self._executor.run_here() else self._next_message()
        while message is not None:
            if message is not NUDGE:
                for report in self._executor.collect(message):
                    self._settle(report)
            message = self._received()
        while (command := self._asked()) is not None:  # once all that has happened by now is taken in
            self._obey(command)
        for report in self._executor.check():
            self._settle(report)
        self._look_for_requests()
        for run in self._agenda.take(self._clock.now(), self._room()):
            if self._runs.get(run.job_id) is run:
                self._guarded(run, self._advance)

    def _room(self) -> int:
        """How much the first run in line can send."""
        run = self._agenda.first_in_line()
        reserve = run is not None and run.asked is None and run.pace.is_short()
        return 0 if run is None else self._executor.capacity(run.job_id, reserve=reserve)

    def _received(self) -> Any:
        try:
            return self._inbox.get_nowait()
        except Empty:
            return None

    def _next_message(self) -> Any:
        if self._executor.busy():
            # Work is out, so real time passes, whatever the clock of a test says.
            with contextlib.suppress(Empty):
                return self._inbox.get(timeout=TICK_SECONDS)
            return None
        due = self._agenda.due()
        if due is None:  # no run should be left then that nothing happened to
            self._agenda.touch(self._runs.values())
        seconds = max(due - self._clock.now(), 0.0) if due is not None else TICK_SECONDS
        return self._clock.wait(self._inbox, min(seconds, self._clock.tick))

    def _obey(self, command: Command) -> None:
        verb, run = command
        # A job of nobody's is taken up and cancelled in one go: in between, a lingering thread would begin to plan it.
        of_nobody = verb == "cancel" and run.job_id not in self._runs and not run.done.is_set()
        if verb == "start" or of_nobody:
            self._runs[run.job_id] = run
            self._agenda.touch([run])
            self._guarded(run, self._start)
        if verb == "start":
            return
        if run.job_id in self._runs:
            self._guarded(run, self._cancel if verb == "cancel" else self._interrupt)
        elif not run.done.is_set():  # an interrupt came before it could be taken up
            self._runs[run.job_id] = run
            self._guarded(run, self._let_go)

    def _advance(self, run: JobRun) -> None:
        """Do what comes next, until that is to wait."""
        while run.job_id in self._runs:
            match next_step(run.view()):
                case Start():
                    self._store.change_job(run.lease, "start", now=self._clock.now())
                    run.status = JobStatus.PROCESSING
                    tell(run, "started")
                case Plan(stage):
                    self._plan(run, stage)
                case Listen():
                    self._send_asked(run)
                    self._flush(run)
                    self._agenda.rest(run, to_send=run.to_send is not None)
                    return
                case Work(dispatch):
                    self._work(run, dispatch)
                    self._agenda.rest(run, to_send=dispatch and run.can_start(self._clock.now()))
                    return
                case Fail():
                    self._fail(run, failure_message(run.failures))
                case Cancel():
                    self._cancel(run, f"{count(run.counts['cancelled'], 'task')} of this stage stayed cancelled")
                case Finalize():
                    self._flush(run)
                    self._ask_finalize(run)
                case Close():
                    self._close(run)
                case Ended():
                    self._end(run)

    def _start(self, run: JobRun) -> None:
        recover(run, self._store, self._clock.now(), self._ran_at_death)
        if next_step(run.view()) == Ended():  # it ended between being looked at and being claimed
            self._let_go(run)

    # The steps

    def _plan(self, run: JobRun, number: int) -> None:
        self._flush(run)
        stage = run.job_type.stages[number - 1]
        before = run.planned
        if before is None or before.stage != number - 1:
            before = next((row for row in self._store.stages(run.row.job_key) if row.stage == number - 1), None)
        previous = self._store.results(before) if before is not None else iter(())
        if not stage.is_fan_in:
            self._ask(run, Plan(number), plan_argument(run.parameters), (results.text for results in previous))
            return
        size = self._store.results_bytes(before) if before is not None else 0
        if size + len(run.parameters) > MAX_BYTES:
            self._fail(
                run,
                f"Stage {number} ({stage.name}) is a fan_in over {human_bytes(size)} of results of stage {number - 1}, "
                f"and one task can be given {human_bytes(MAX_BYTES)}. Have the tasks of stage {number - 1} write files "
                f"and return their paths, then job.rerun(stage={number - 1}); or put a stage between that aggregates "
                "parts of them.",
            )
            return
        parameters = fan_in_parameters(stage, run.parameters, previous)
        if parameters is not None:
            unit = task_id(run.job_id, number, FAN_IN_UNIT)
            self._planned_as(run, number, NewTasks.of((unit, stage.task_type, parameters, None)))
        else:
            self._fail(
                run,
                f"Stage {number} ({stage.name}) is a fan_in and has nothing to aggregate: stage {number - 1} completed "
                "no task.",
            )

    def _planned_as(self, run: JobRun, number: int, tasks: NewTasks) -> None:
        try:
            planned = self._store.plan(run.lease, number, tasks, now=self._clock.now())
        except DefinitionError as exc:
            self._fail(run, str(exc))
            return
        run.begin(planned, {"queued": planned.task_count}, order=order_of(run, self._store, planned))
        tell(run, "planned", tasks=planned.task_count)

    def _ask(self, run: JobRun, step: Plan | Finalize, argument: str, results: Iterable[str]) -> None:
        """Send user code that is not a task's to a slot, as soon as one is free.

        What is long goes there and back by files, where there is a folder that this process shares with the slots.
        """
        self._chunks += 1
        folder = self._executor.where()
        given = answer = None
        if folder is not None:
            given, answer = (os.path.join(folder, f"{self._chunks}.{what}") for what in ("given", "answer"))
            run.files = [given, answer]
        try:
            texts = packed(results, given)
        except OSError as exc:
            what = (
                f"the results cannot be written to {folder}, for its process to read: {exc.strerror}. Free some space"
            )
            failure = Failure(
                f"{what} there, or have TMPDIR name another folder.", type(exc).__name__, "transient", True
            )
            self._heard(run, step, Attempt(0, 1, Outcome.FAILED, None, None, failure=failure), None)
            return
        run.ask(step, self._chunks, argument, texts, answer)
        self._send_asked(run)

    def _send_asked(self, run: JobRun) -> None:
        if run.to_send is not None and self._executor.capacity(run.job_id, reserve=False):
            self._executor.submit(run.to_send)
            run.to_send = None

    def _ask_finalize(self, run: JobRun) -> None:
        job = {
            "job_id": run.job_id,
            "job_type": run.job_type.name,
            "current_stage": run.stage_number,
            "total_stages": len(run.job_type.stages),
        }
        argument, results = finalize_argument(job, run.parameters), self._store.finalize_rows(run.row.job_key)
        self._ask(run, Finalize(), argument, results)

    def _work(self, run: JobRun, dispatch: bool) -> None:
        """Write all that happened and start what there is room for, in one transaction, then send that."""
        executor = self._executor
        room = executor.capacity(run.job_id, reserve=run.pace.is_short()) if dispatch else 0
        wish = run.wish(room, executor.slots, executor.chunk_seconds, self._clock.now())
        changes = run.take_changes()
        if wish is not None or any(changes):
            batches = self._store.commit(run.lease, *changes, wish)
            groups = chain(wish.groups if wish is not None else (), repeat(()))
            for batch, wished in zip(batches, groups, strict=False):
                self._chunks += 1
                executor.submit(run.started(self._chunks, batch, wished, PATIENCE * executor.chunk_seconds))

    def _fail(self, run: JobRun, error: str, traceback: str | None = None) -> None:
        changes = run.take_changes()._asdict()
        self._store.change_job(run.lease, "fail", now=self._clock.now(), error=error, traceback=traceback, **changes)
        run.status = JobStatus.FAILED
        tell(run, "failed", logging.WARNING, error_message=error)

    def _close(self, run: JobRun) -> None:
        self._flush(run)
        failed = self._store.failed(run.planned) if run.planned is not None else []
        # Named again now that all siblings have settled, so that the order in which they failed does not show.
        self._store.end_job(run.lease, error=failure_message(failed) if failed else None, now=self._clock.now())
        run.closed = True

    # What came back

    def _settle(self, report: Report) -> None:
        run = self._runs.get(report.chunk.job_id)
        if run is None:
            return
        self._agenda.touch([run])
        if report.broken is not None:
            self._guarded(run, lambda run: self._cannot_work(run, report))
        elif report.chunk.kind != "tasks":
            self._guarded(run, lambda run: self._answered(run, report))
        else:
            try:
                for attempt, task in run.settle(report, self._clock.now()):
                    tell_failure(run, attempt, task.task_id, task.task_type)
            except Exception as exc:
                tell(run, "stopped", logging.ERROR, error_message=str(exc), error_type=type(exc).__name__)
                self._drop(run, exc)

    def _answered(self, run: JobRun, report: Report) -> None:
        """A plan or a finalize came back, or died."""
        step, attempt = run.asked, report.attempts[0] if report.attempts else None
        assert step is not None, "an answer follows a question"
        if attempt is None or run.asks_again(attempt.failure):  # its process died
            self._chunks += 1
            run.to_send = report.chunk._replace(number=self._chunks)
            return
        run.asked = None
        self._heard(run, step, attempt, report.planned)

    def _heard(self, run: JobRun, step: Plan | Finalize, attempt: Attempt, planned: NewTasks | None) -> None:
        match step:
            case Finalize():
                self._finalized(run, attempt)
            case Plan(stage) if attempt.failure is None:
                self._planned_as(run, stage, planned or NewTasks.of())
                self._clear_up(run)
            case Plan(stage):
                self._clear_up(run)
                name, failure = run.job_type.stages[stage - 1].name, attempt.failure
                error = f"Stage {stage} ({name}) could not be planned: {failure.error_type}: {failure.error}"
                self._fail(run, error, failure.traceback)

    def _finalized(self, run: JobRun, attempt: Attempt) -> None:
        failure = attempt.failure
        if failure is None:
            result = attempt.result
        else:
            counts: Counter[str] = Counter()
            for stage in self._store.stages(run.row.job_key):
                counts.update(self._store.counts(stage))
            result = to_json(fallback_result(run.job_type.name, failure, counts))
            level = logging.WARNING
            tell(run, "finalize failed", level, error_type=failure.error_type, error_message=failure.error)
        event = "refinalize" if run.refinalizing else "complete"
        traceback = failure.traceback if failure else None
        self._store.change_job(run.lease, event, now=self._clock.now(), result=result, traceback=traceback)
        run.status = JobStatus.COMPLETED
        run.closed = True
        self._end(run)
