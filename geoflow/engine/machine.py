"""CoreMachine: the loop that drives jobs.

Each turn takes in what was reported, asks `next_step` what each job needs, and does it in at most one transaction.
What is sent to a slot was committed as started before; what came back is committed before anything follows from it.
There is no other way through a job: a resumed one enters the same loop, with its dead engine's attempts as lost.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from itertools import chain, repeat
from queue import Empty
from typing import Any

from geoflow.core.chunking import PATIENCE
from geoflow.core.chunks import Report
from geoflow.core.models import JobStatus
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
from geoflow.engine.asking import Asking
from geoflow.engine.events import tell, tell_failure
from geoflow.engine.recovery import recover
from geoflow.engine.turns import NUDGE, Command
from geoflow.executors.base import Executor
from geoflow.stores.tables import Store
from geoflow.support.clock import Clock
from geoflow.support.text import count

# How long the loop sleeps at most: timeouts and silent deaths are seen that late.
TICK_SECONDS = 0.1


class CoreMachine(Asking):
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
        reserve = run is not None and run.asked is None and run.tasks.pace.is_short()
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
                    self._agenda.rest(run, to_send=dispatch and run.tasks.can_start(self._clock.now()))
                    return
                case Fail():
                    self._fail(run, failure_message(run.tasks.failures))
                case Cancel():
                    self._cancel(run, f"{count(run.tasks.counts['cancelled'], 'task')} of this stage stayed cancelled")
                case Finalize():
                    self._finalize(run)
                case Close():
                    self._close(run)
                case Ended():
                    self._end(run)

    def _start(self, run: JobRun) -> None:
        recover(run, self._store, self._clock.now(), self._ran_at_death)
        if next_step(run.view()) == Ended():  # it ended between being looked at and being claimed
            self._let_go(run)

    def _work(self, run: JobRun, dispatch: bool) -> None:
        """Write all that happened and start what there is room for, in one transaction, then send that."""
        executor = self._executor
        room = executor.capacity(run.job_id, reserve=run.tasks.pace.is_short()) if dispatch else 0
        take = run.tasks.take(room, executor.slots, executor.chunk_seconds, self._clock.now())
        changes = run.tasks.take_changes()
        if take is not None or any(changes):
            batches = self._store.commit(run.lease, *changes, take)
            groups = chain(take.groups if take is not None else (), repeat(()))
            for batch, group in zip(batches, groups, strict=False):
                run.tasks.started(batch, group)
                executor.submit(run.chunk(self._number(), batch, PATIENCE * executor.chunk_seconds))

    def _fail(self, run: JobRun, error: str, traceback: str | None = None) -> None:
        changes = run.tasks.take_changes()._asdict()
        self._store.change_job(run.lease, "fail", now=self._clock.now(), error=error, traceback=traceback, **changes)
        run.status = JobStatus.FAILED
        tell(run, "failed", logging.WARNING, error_message=error)

    def _close(self, run: JobRun) -> None:
        self._flush(run)
        failed = self._store.failed(run.tasks.planned) if run.tasks.planned is not None else []
        # Named again now that all siblings have settled, so that the order in which they failed does not show.
        self._store.end_job(run.lease, error=failure_message(failed) if failed else None, now=self._clock.now())
        run.closed = True

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
                for attempt, task in run.tasks.settle(report, self._clock.now()):
                    tell_failure(run, attempt, task.task_id, task.task_type)
            except Exception as exc:
                tell(run, "stopped", logging.ERROR, error_message=str(exc), error_type=type(exc).__name__)
                self._drop(run, exc)
