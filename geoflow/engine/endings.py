"""How a job leaves the loop that drives it: ended, cancelled, put back to be resumed, or because something failed."""

from __future__ import annotations

import abc
import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

from geoflow.core.chunks import Report
from geoflow.core.models import JobStatus
from geoflow.core.rows import Changes
from geoflow.engine.active_job import JobRun
from geoflow.engine.events import stopped, tell, tell_end
from geoflow.engine.turns import Turns
from geoflow.errors import GeoflowError, TooLarge
from geoflow.executors.base import Executor
from geoflow.stores.tables import Store
from geoflow.support.clock import Clock
from geoflow.support.logs import operation

# How often the store is asked whether another process wants the job cancelled.
REQUEST_SECONDS = 0.5


class Endings(Turns):
    """The loop of a machine, with all ways out of it."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        clock: Clock,
        on_job_complete: Callable[..., object] | None,
    ) -> None:
        super().__init__()
        self._store = store
        self._executor = executor
        self._clock = clock
        self._on_job_complete = on_job_complete
        self._next_request = 0.0

    @abc.abstractmethod
    def _settle(self, report: Report) -> None:
        """Take in what became of a chunk, of whichever job."""

    @abc.abstractmethod
    def _fail(self, run: JobRun, error: str, traceback: str | None = None) -> None:
        """Write that the job failed, while its tasks may still run."""

    @abc.abstractmethod
    def _close(self, run: JobRun) -> None:
        """Write that nothing of a failed job runs any more."""

    # At its end, or put back

    def _end(self, run: JobRun) -> None:
        """The row says how the job ended: give it back, then tell the callback, in a thread of its own."""
        self._clear_up(run)
        self._store.release(run.lease)
        tell_end(run, self._store, self._on_job_complete)
        self._forget(run)

    def _let_go(self, run: JobRun) -> None:
        self._clear_up(run)
        self._store.release(run.lease)
        run.finish()
        self._forget(run)

    def _clear_up(self, run: JobRun) -> None:
        for path in run.files:
            with contextlib.suppress(OSError):
                os.unlink(path)
        run.files = []

    def _flush(self, run: JobRun) -> None:
        changes = run.tasks.take_changes()
        if any(changes):
            self._store.commit(run.lease, *changes)

    # Because something failed

    def _guarded(self, run: JobRun, act: Callable[[JobRun], None]) -> None:
        """What fails for one job stops its run and tells whoever waits for it; other jobs go on."""
        about: dict[str, Any] = {"job_id": run.job_id, "job_type": run.job_type.name, "stage": run.stage_number}
        try:
            with operation("drive the job", **about):
                try:
                    act(run)
                except TooLarge as exc:
                    self._end_for(run, str(exc))
        except Exception as exc:
            self._drop(run, exc)

    def _end_for(self, run: JobRun, error: str) -> None:
        """The job's own data cannot be stored: that would be so again with each resume."""
        changes = self._put_back(run)
        now = self._clock.now()
        self._store.change_job(run.lease, "fail", now=now, error=error, **changes._asdict())
        run.status = JobStatus.FAILED
        self._store.end_job(run.lease, error=None, now=now)
        tell(run, "failed", logging.WARNING, error_message=error)
        self._end(run)

    def _cannot_work(self, run: JobRun, report: Report) -> None:
        if report.chunk.kind == "tasks":
            run.tasks.settle(report, self._clock.now())
        self._store.commit(run.lease, *self._put_back(run))  # other slots may be at work on it
        if run.status == JobStatus.PROCESSING:
            self._fail(run, report.broken or "")
        self._store.end_job(run.lease, error=None, now=self._clock.now())
        self._end(run)

    def _drop(self, run: JobRun, error: Exception) -> None:
        """Drive *run* no more. Its row stays as it is: a resume finds it, and accounts for what ran."""
        run.error = error if isinstance(error, GeoflowError) else stopped(run, error)
        for report in self._executor.stop(run.job_id):
            if report.chunk.job_id != run.job_id:
                self._settle(report)
        self._let_go(run)

    def _give_up(self, runs: list[JobRun], error: BaseException) -> None:
        # The state of the executor is not known: it ends what it has, and begins anew with the next chunk.
        with contextlib.suppress(BaseException):
            self._executor.close()
        for run in runs:
            if not run.done.is_set():
                run.error = run.error or stopped(run, error)
                tell(run, "stopped", logging.ERROR, error_message=str(run.error), error_type=type(error).__name__)
            for act in (self._clear_up, lambda run: self._store.release(run.lease), JobRun.finish):
                with contextlib.suppress(BaseException):
                    act(run)
            self._forget(run)

    # Cancelled or interrupted

    def _look_for_requests(self) -> None:
        now = self._clock.now()
        if self._runs and now >= self._next_request:
            self._next_request = now + REQUEST_SECONDS
            runs = {run.row.job_key: run for run in self._runs.values()}
            try:
                asked = self._store.cancels_requested(list(runs))
            except Exception as exc:
                for run in runs.values():
                    self._drop(run, exc)
                return
            for run in [runs[key] for key in asked if not runs[key].refinalizing]:
                self._guarded(run, self._cancel)

    def _cancel(self, run: JobRun, error: str = "cancelled") -> None:
        if run.refinalizing:  # the job is complete, and stays so
            self._interrupt(run)
            return
        reports = self._stop(run)
        self._flush(run)  # so that the store's queue is the whole queue
        planned = run.tasks.planned
        queued = [key for key, _, _ in self._store.in_state(planned, "queued")] if planned is not None else []
        run.tasks.cancel(reports, queued)
        changes = run.tasks.take_changes()
        if run.status == JobStatus.FAILED:  # it has ended already; only its siblings were still running
            self._store.commit(run.lease, *changes)
            self._close(run)
        else:
            now = self._clock.now()
            self._store.change_job(run.lease, "cancel", now=now, error=error, **changes._asdict())
            run.status = JobStatus.CANCELLED
        self._end(run)

    def _interrupt(self, run: JobRun) -> None:
        changes = self._put_back(run)
        run.interrupted = True
        if run.status == JobStatus.PROCESSING:
            self._store.change_job(run.lease, "interrupt", now=self._clock.now(), **changes._asdict())
        else:
            self._store.commit(run.lease, *changes)
        tell(run, "interrupted")
        self._let_go(run)

    def _put_back(self, run: JobRun) -> Changes:
        """Stop what runs of it: what is to be written, then, is that it is queued again."""
        run.tasks.interrupt(self._stop(run))
        return run.tasks.take_changes()

    def _stop(self, run: JobRun) -> list[Report]:
        """End the job's processes, and settle what had ended by then: what there is to say of its other tasks."""
        reports = self._executor.stop(run.job_id)
        ours = [report for report in reports if report.chunk.job_id == run.job_id and report.chunk.kind == "tasks"]
        for report in reports:
            if report.chunk.job_id != run.job_id:
                self._settle(report)
        for report in ours:
            self._settle(report._replace(lost=(), unstarted=(), broken=None))
        run.asked = run.to_send = None
        return ours
