"""CoreMachine: the loop that drives jobs.

Each turn takes in what was reported, asks `next_step` what each job needs, and does it in at most one transaction.
What is sent to a slot was committed as started before; what came back is committed before anything follows from it.
There is no other way through a job: a resumed one enters the same loop, with its dead engine's attempts as lost.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from pathlib import Path
from queue import Empty
from typing import Any

from geoflow.core.chunking import PATIENCE
from geoflow.core.chunks import Report
from geoflow.core.models import JobStatus
from geoflow.core.next_step import (
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
from geoflow.engine.active_job import ActiveJob
from geoflow.engine.asking import Asking
from geoflow.engine.events import tell, tell_failure
from geoflow.engine.loop import NUDGE, Command
from geoflow.engine.recovery import recover, take_in
from geoflow.executors.base import Executor
from geoflow.executors.returned import Returned
from geoflow.stores.store import Store
from geoflow.support.admission import Place
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
        ran_at_death: Callable[[str, str], Mapping[int, str | None] | None] = lambda owner, job_id: None,
        returned_at_death: Callable[[str, str], Mapping[Path, Returned]] = lambda owner, job_id: {},
        logged: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        budget: int | None = None,
    ) -> None:
        super().__init__(store, executor, clock, on_job_complete, budget)
        self._logged = logged
        self._ran_at_death, self._returned_at_death = ran_at_death, returned_at_death
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
        self._agenda.touch(self._jobs_without_memory)  # nobody tells what of it has become free
        self._jobs_without_memory.clear()
        for job in self._agenda.take(self._clock.now(), self._room()):
            if self._jobs.get(job.job_id) is job:
                self._guarded(job, self._advance)
        self._executor.written()
        self._written_ends = self._sized_ends

    def _room(self) -> int:
        """How much the first job in line can send."""
        job = self._agenda.first_in_line()
        reserve = job is not None and job.asked is None and job.tasks.may_wait_behind()
        return 0 if job is None else self._executor.capacity(job.job_id, reserve=reserve)

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
        if due is None:  # no job should be left then that nothing happened to
            self._agenda.touch(self._jobs.values())
        seconds = max(due - self._clock.now(), 0.0) if due is not None else TICK_SECONDS
        return self._clock.wait(self._inbox, min(seconds, self._clock.tick))

    def _obey(self, command: Command) -> None:
        verb, job = command
        # A job of nobody's is taken up and cancelled in one go: in between, a lingering thread would begin to plan it.
        of_nobody = verb == "cancel" and job.job_id not in self._jobs and not job.done.is_set()
        if verb == "start" or of_nobody:
            self._jobs[job.job_id] = job
            self._agenda.touch([job])
            self._guarded(job, self._start)
        if verb == "start":
            return
        if job.job_id in self._jobs:
            self._guarded(job, self._cancel if verb == "cancel" else self._interrupt)
        elif not job.done.is_set():  # an interrupt came before it could be taken up
            self._jobs[job.job_id] = job
            self._guarded(job, self._let_go)

    def _advance(self, job: ActiveJob) -> None:
        """Do what comes next, until that is to wait."""
        while job.job_id in self._jobs:
            match next_step(job.view()):
                case Start():
                    self._store.change_job(job.lease, "start", now=self._clock.now())
                    job.status = JobStatus.PROCESSING
                    tell(job, "started")
                case Plan(stage):
                    self._plan(job, stage)
                case Listen():
                    self._send_asked(job)
                    self._flush(job)
                    self._agenda.rest(job, to_send=job.to_send is not None)
                    return
                case Work(dispatch):
                    self._work(job, dispatch)
                    to_send = dispatch and job.blocked_until is None and job.tasks.can_start(self._clock.now())
                    self._agenda.rest(job, to_send=to_send)
                    if job.tasks.queue.is_blocked:
                        self._jobs_without_memory.add(job)
                    return
                case Fail():
                    self._fail(job, failure_message(job.tasks.failures, job.may_fail))
                case Cancel():
                    self._cancel(job, f"{count(job.tasks.counts['cancelled'], 'task')} of this stage stayed cancelled")
                case Finalize():
                    self._finalize(job)
                case Close():
                    self._close(job)
                case Ended():
                    self._end(job)

    def _start(self, job: ActiveJob) -> None:
        returned = self._returned_at_death(job.row.owner or "{}", job.job_id)
        if returned:
            take_in(job, self._store, self._clock.now(), returned.values())
        recover(job, self._store, self._clock.now(), self._ran_at_death)
        for path in returned:
            with contextlib.suppress(OSError):
                path.unlink()
        if next_step(job.view()) == Ended():  # it ended between being looked at and being claimed
            self._let_go(job)

    def _work(self, job: ActiveJob, dispatch: bool) -> None:
        """Write all that happened and start what there is room for, in one transaction, then send that."""
        if job.tasks.has_outgrown or (job.tasks.queue.is_guessed and self._is_told_more(job)):
            self._line_up_anew(job)
        executor = self._executor
        room = executor.capacity(job.job_id, reserve=job.tasks.may_wait_behind()) if dispatch else 0
        now, places, limit = self._clock.now(), list[Place](), job.stage.limit
        job.blocked_until = None
        if limit is not None and room:
            places = job.admitted(limit, room, now)
            room = len(places)
        take = job.tasks.take(room, executor.slots, executor.chunk_seconds, now, self._part(job))
        changes = job.tasks.take_changes()
        if take is not None or any(changes):
            batches = self._store.commit(job.lease, *changes, take)
            groups = chain(take.groups if take is not None else (), repeat(()))
            for batch, group in zip(batches, groups, strict=False):
                job.tasks.started(batch, group)
                chunk = job.chunk(self._number(), batch, PATIENCE * executor.chunk_seconds)
                executor.submit(job.hold(chunk, places.pop()) if places else chunk)
        job.leave(*places)

    def _is_told_more(self, job: ActiveJob) -> bool:
        """Whether tasks that run tell what others need, or more have ended: asked while that is a guess."""
        before, job.tasks.sized_ends = job.tasks.sized_ends, self._written_ends.bit_length()  # twice as many
        return job.tasks.sees(self._executor.looks() or {}) or before != job.tasks.sized_ends

    def _fail(self, job: ActiveJob, error: str, traceback: str | None = None) -> None:
        changes = job.tasks.take_changes()._asdict()
        self._store.change_job(job.lease, "fail", now=self._clock.now(), error=error, traceback=traceback, **changes)
        job.status = JobStatus.FAILED
        tell(job, "failed", logging.WARNING, error_message=error)

    def _close(self, job: ActiveJob) -> None:
        self._flush(job)
        failed = self._store.failed(job.tasks.planned) if job.tasks.planned is not None else []
        # Named again now that all siblings have settled, so that the order in which they failed does not show.
        error = failure_message(failed, job.may_fail) if len(failed) > job.may_fail else None
        self._store.end_job(job.lease, error=error, now=self._clock.now())
        job.closed = True

    def _settle(self, report: Report) -> None:
        job = self._jobs.get(report.chunk.job_id)
        if self._memory is not None and report.chunk.kind == "tasks":
            self._memory.leave(report.chunk.batch.keys)
        if job is None:
            return
        self._sized_ends += job.stage.sized
        self._agenda.touch([job])
        job.is_back(report.chunk.number)
        if report.broken is not None:
            self._guarded(job, lambda job: self._cannot_work(job, report))
        elif report.chunk.kind != "tasks":
            self._guarded(job, lambda job: self._answered(job, report))
        else:
            try:
                for attempt, task in job.tasks.settle(report, self._clock.now()):
                    tell_failure(job, attempt, task.task_id, task.task_type)
            except Exception as exc:
                tell(job, "stopped", logging.ERROR, error_message=str(exc), error_type=type(exc).__name__)
                self._drop(job, exc)
