"""A job as a notebook holds it: look at it, wait for it, take it further. It can be made again from its id."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from geoflow.errors import JobFailed, StoreBusy
from geoflow.models import JobStatus, Receipt
from geoflow.stores.base import JobRow
from geoflow.values import from_json

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.session import Session


class JobHandle:
    """One job of a session's store. What it shows is read anew each time."""

    def __init__(self, session: Session, job_id: str, receipt: Receipt | None = None) -> None:
        self._session = session
        self.id = job_id
        self.receipt = receipt

    def _row(self) -> JobRow:
        return self._session._row(self.id)

    @property
    def job_type(self) -> str:
        return self._row().job_type

    @property
    def status(self) -> JobStatus:
        return self._row().status

    @property
    def stage(self) -> int:
        """The number of the stage that the job is at, from 1."""
        return self._row().stage

    @property
    def parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = from_json(self._row().parameters)
        return found

    @property
    def error(self) -> str | None:
        """Why the job failed."""
        return self._row().error

    @property
    def with_errors(self) -> bool:
        """Whether the job completed, but with the fallback in place of finalize's result."""
        row = self._row()
        return row.status == JobStatus.COMPLETED and bool((from_json(row.result or "{}") or {}).get("fallback"))

    @property
    def ended(self) -> bool:
        """Whether nothing of the job will change any more by itself."""
        row = self._row()
        return row.ended_at is not None and row.status not in (JobStatus.QUEUED, JobStatus.PROCESSING)

    @property
    def interrupted(self) -> bool:
        """Whether the job is not at its end, and nobody drives it."""
        return not self.ended and self._session.store.driver(self._row().job_key) is None

    # Waiting

    def wait(self, timeout: float | None = None, *, _refresh: Callable[[], None] | None = None) -> JobHandle:
        """Wait until the job has ended, or until nobody drives it. ``TimeoutError`` after *timeout* seconds.

        An interrupt ends the waiting, not the job.
        """
        began = time.monotonic()

        def late() -> bool:
            return timeout is not None and time.monotonic() - began > timeout

        run = self._session._engine.runs.get(self.id)
        if run is not None:
            if not self._session._engine.wait_for(run, late, _refresh):
                raise TimeoutError(f"Job {self.id[:8]} has not ended after {timeout:g} s; it goes on.")
            if run.error is not None:
                raise run.error
            return self
        while not self.ended and not self.interrupted:  # another process drives it
            if late():
                raise TimeoutError(f"Job {self.id[:8]} has not ended after {timeout:g} s; it goes on elsewhere.")
            if _refresh is not None:
                _refresh()
            time.sleep(0.1)
        return self

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait, then finalize's dict. ``JobFailed`` with the first cause when the job has none."""
        row = self.wait(timeout)._row()
        if row.status == JobStatus.COMPLETED:
            found: dict[str, Any] = from_json(row.result or "{}")
            return found
        name = f"Job {self.id[:8]} ({row.job_type})"
        if row.status == JobStatus.FAILED:
            raise JobFailed(f"{name} failed: {row.error} Look at job.errors().", job_id=self.id, status="failed")
        if row.status == JobStatus.CANCELLED:
            raise JobFailed(f"{name} was cancelled; job.resume() goes on with it.", job_id=self.id, status="cancelled")
        raise JobFailed(
            f"{name} was interrupted at stage {row.stage}; job.resume() goes on with it.",
            job_id=self.id,
            status="interrupted",
        )

    # DataFrames

    def tasks(self, *, flat: bool = False, history: bool = False) -> pd.DataFrame:
        """One row a task. *flat* turns parameters and results into columns; *history* adds those of earlier runs."""
        from geoflow import frames

        return frames.tasks(self._session.store, self.id, flat=flat, history=history)

    def attempts(self) -> pd.DataFrame:
        """One row for each execution of a task, with its times, its output and its error."""
        from geoflow import frames

        return frames.attempts(self._session.store, self.id)

    def errors(self) -> pd.DataFrame:
        """The attempts that failed, newest last."""
        from geoflow import frames

        return frames.errors(self._session.store, self.id)

    def stages(self) -> pd.DataFrame:
        """One row a stage, with how many of its tasks are in each state."""
        from geoflow import frames

        return frames.stages(self._session.store, self.id)

    def logs(self) -> pd.DataFrame:
        """The log lines of this job, its handlers' included."""
        from geoflow import frames

        return frames.logs(self._session.settings.log_path, self.id)

    # Taking it further

    def cancel(self) -> JobHandle:
        """End the job: what runs is stopped within two seconds, what waits will not run. It can be resumed."""
        session, row = self._session, self._row()
        run = session._engine.runs.get(self.id)
        if run is not None and not run.done.is_set():
            session._engine.ask("cancel", run)
        elif not self.ended:
            try:
                session._cancel_here(row)
            except StoreBusy:
                session.store.request_cancel(row.job_key)
                deadline = time.monotonic() + 10.0
                while not self.ended and time.monotonic() < deadline:
                    time.sleep(0.05)
        return self

    def resume(self) -> JobHandle:
        """Go on where the job stopped, with the code of now: all tasks that have not completed run, in this session."""
        row = self._row()
        if row.status == JobStatus.COMPLETED:
            return self
        return self._session._drive(row, self._session._registered_as(row), "resume")

    def retry_failed(self) -> JobHandle:
        """Run the failed tasks again, with the code of now and all their retries; then go on from there."""
        return self.resume()

    def refinalize(self) -> JobHandle:
        """Run finalize again, with the code of now, over the results that are there; then wait for it."""
        row = self._row()
        if row.status != JobStatus.COMPLETED:
            raise JobFailed(
                f"Job {self.id[:8]} is {row.status}: only a completed job can be finalized again. Resume it first.",
                job_id=self.id,
                status=str(row.status),
            )
        self._session._drive(row, self._session._registered_as(row), "refinalize", here=True)
        return self.wait()

    def rerun(self) -> JobHandle:
        """Do all of it over again, with the code of now; the old attempts are kept as history."""
        row = self._row()
        return self._session._drive(row, self._session._registered_as(row), "rerun")

    # Drawing

    def __repr__(self) -> str:
        from geoflow.notebook.display import job_text

        return job_text(self._session._snapshot(self.id))

    def _repr_html_(self) -> str:
        from geoflow.notebook.display import job_html

        return job_html(self._session._snapshot(self.id))
