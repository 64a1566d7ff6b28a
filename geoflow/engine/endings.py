"""How a job leaves the loop that drives it: ended, cancelled, put back to be resumed, or because something failed."""

from __future__ import annotations

import abc
import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

from geoflow.core.chunks import Report
from geoflow.core.memory import Memory, Part
from geoflow.core.models import JobStatus
from geoflow.core.rows import Changes
from geoflow.engine.active_job import ActiveJob
from geoflow.engine.events import stopped, tell, tell_end
from geoflow.engine.loop import Loop
from geoflow.errors import GeoflowError, TooLarge
from geoflow.executors.base import Executor
from geoflow.stores.store import Store
from geoflow.support.clock import Clock
from geoflow.support.logs import operation

# How often the store is asked whether another process wants the job cancelled.
REQUEST_SECONDS = 0.5


class Endings(Loop):
    """The loop of a machine, with all ways out of it."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        clock: Clock,
        on_job_complete: Callable[..., object] | None,
        budget: int | None = None,
    ) -> None:
        super().__init__()
        self._store = store
        self._executor = executor
        self._clock = clock
        self._on_job_complete = on_job_complete
        self._next_request = 0.0
        self._memory = None if budget is None else Memory(budget)
        self._sized_ends = 0  # so many chunks of tasks that tell their sizes have come back, of all jobs
        self._written_ends = 0  # and of so many the store tells
        self._jobs_without_memory: set[ActiveJob] = set()  # whose tasks wait for some

    def _part(self, job: ActiveJob) -> Part | None:
        """What the job has of the memory, where that is counted."""
        return None if self._memory is None else Part(self._memory, job.job_id, self._executor.busy)

    @abc.abstractmethod
    def _settle(self, report: Report) -> None:
        """Take in what became of a chunk, of whichever job."""

    @abc.abstractmethod
    def _fail(self, job: ActiveJob, error: str, traceback: str | None = None) -> None:
        """Write that the job failed, while its tasks may still run."""

    @abc.abstractmethod
    def _close(self, job: ActiveJob) -> None:
        """Write that nothing of a failed job runs any more."""

    # At its end, or put back

    def _end(self, job: ActiveJob) -> None:
        """The row says how the job ended: give it back, then tell the callback, in a thread of its own."""
        self._give_back(job)
        tell_end(job, self._store, self._on_job_complete)
        self._forget(job)

    def _let_go(self, job: ActiveJob) -> None:
        self._give_back(job)
        job.finish()
        self._forget(job)

    def _give_back(self, job: ActiveJob) -> None:
        self._clear_up(job)
        self._leave_all(job)
        self._store.release(job.lease)

    def _leave_all(self, job: ActiveJob) -> None:
        job.leave_limits()
        self._jobs_without_memory.discard(job)
        if self._memory is not None:
            self._memory.forget(job.job_id)

    def _clear_up(self, job: ActiveJob) -> None:
        for path in job.files:
            with contextlib.suppress(OSError):
                os.unlink(path)
        job.files = []

    def _flush(self, job: ActiveJob) -> None:
        changes = job.tasks.take_changes()
        if any(changes):
            self._store.commit(job.lease, *changes)

    # Because something failed

    def _guarded(self, job: ActiveJob, act: Callable[[ActiveJob], None]) -> None:
        """What fails for one job has it driven no more, and tells whoever waits for it; other jobs go on."""
        about: dict[str, Any] = {"job_id": job.job_id, "job_type": job.job_type.name, "stage": job.stage_number}
        try:
            with operation("drive the job", **about):
                try:
                    act(job)
                except TooLarge as exc:
                    self._end_for(job, str(exc))
        except Exception as exc:
            self._drop(job, exc)

    def _end_for(self, job: ActiveJob, error: str) -> None:
        """The job's own data cannot be stored: that would be so again with each resume."""
        changes = self._put_back(job)
        now = self._clock.now()
        self._store.change_job(job.lease, "fail", now=now, error=error, **changes._asdict())
        job.status = JobStatus.FAILED
        self._store.end_job(job.lease, error=None, now=now)
        tell(job, "failed", logging.WARNING, error_message=error)
        self._end(job)

    def _cannot_work(self, job: ActiveJob, report: Report) -> None:
        if report.chunk.kind == "tasks":
            job.tasks.settle(report, self._clock.now())
        self._store.commit(job.lease, *self._put_back(job))  # other slots may be at work on it
        if job.status == JobStatus.PROCESSING:
            self._fail(job, report.broken or "")
        self._store.end_job(job.lease, error=None, now=self._clock.now())
        self._end(job)

    def _drop(self, job: ActiveJob, error: Exception) -> None:
        """Drive *job* no more. Its row stays as it is: a resume finds it, and accounts for what ran."""
        job.error = error if isinstance(error, GeoflowError) else stopped(job, error)
        for report in self._executor.stop(job.job_id):
            if report.chunk.job_id != job.job_id:
                self._settle(report)
        self._let_go(job)

    def _give_up(self, jobs: list[ActiveJob], error: BaseException) -> None:
        # The state of the executor is not known: it ends what it has, and begins anew with the next chunk.
        with contextlib.suppress(BaseException):
            self._executor.close()
        for job in jobs:
            if not job.done.is_set():
                job.error = job.error or stopped(job, error)
                tell(job, "stopped", logging.ERROR, error_message=str(job.error), error_type=type(error).__name__)
            for act in (
                self._clear_up,
                self._leave_all,
                lambda job: self._store.release(job.lease),
                ActiveJob.finish,
            ):
                with contextlib.suppress(BaseException):
                    act(job)
            self._forget(job)

    # Cancelled or interrupted

    def _look_for_requests(self) -> None:
        now = self._clock.now()
        if self._jobs and now >= self._next_request:
            self._next_request = now + REQUEST_SECONDS
            jobs = {job.row.job_key: job for job in self._jobs.values()}
            try:
                asked = self._store.cancels_requested(list(jobs))
            except Exception as exc:
                for job in jobs.values():
                    self._drop(job, exc)
                return
            for job in [jobs[key] for key in asked if not jobs[key].refinalizing]:
                self._guarded(job, self._cancel)

    def _cancel(self, job: ActiveJob, error: str = "cancelled") -> None:
        if job.refinalizing:  # the job is complete, and stays so
            self._interrupt(job)
            return
        reports = self._stop(job)
        self._flush(job)  # so that the store's queue is the whole queue
        planned = job.tasks.planned
        queued = [key for key, _, _ in self._store.in_state(planned, "queued")] if planned is not None else []
        job.tasks.cancel(reports, queued)
        changes = job.tasks.take_changes()
        if job.status == JobStatus.FAILED:  # it has ended already; only its siblings were still running
            self._store.commit(job.lease, *changes)
            self._close(job)
        else:
            now = self._clock.now()
            self._store.change_job(job.lease, "cancel", now=now, error=error, **changes._asdict())
            job.status = JobStatus.CANCELLED
        self._end(job)

    def _interrupt(self, job: ActiveJob) -> None:
        changes = self._put_back(job)
        job.interrupted = True
        if job.status == JobStatus.PROCESSING:
            self._store.change_job(job.lease, "interrupt", now=self._clock.now(), **changes._asdict())
        else:
            self._store.commit(job.lease, *changes)
        tell(job, "interrupted")
        self._let_go(job)

    def _put_back(self, job: ActiveJob) -> Changes:
        """Stop what runs of it: what is to be written, then, is that it is queued again."""
        job.tasks.interrupt(self._stop(job))
        return job.tasks.take_changes()

    def _stop(self, job: ActiveJob) -> list[Report]:
        """End the job's processes, and settle what had ended by then: what there is to say of its other tasks."""
        reports = self._executor.stop(job.job_id)
        ours = [report for report in reports if report.chunk.job_id == job.job_id and report.chunk.kind == "tasks"]
        for report in reports:
            if report.chunk.job_id != job.job_id:
                self._settle(report)
        for report in ours:
            self._settle(report._replace(lost=(), unstarted=(), broken=None))
        job.asked = job.to_send = None
        return ours
