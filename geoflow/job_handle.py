"""A job as a notebook holds it: look at it, wait for it, take it further. It can be made again from its id."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from geoflow.core.models import JobStatus, Receipt
from geoflow.core.rows import Again, JobRow
from geoflow.engine.stale import Stale, again_from, stale_tasks
from geoflow.engine.submission import found_again
from geoflow.errors import DefinitionError, GeoflowWarning, JobFailed, ParameterError, StoreBusy
from geoflow.support.jsonable import from_json
from geoflow.support.masking import safe, unless_fallback

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.session import Session
    from geoflow.task_handle import TaskHandle


# A loop that sleeps is not woken by an interrupt of the kernel: it sleeps in short slices.
_SLICE_SECONDS = 0.1


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
        """Why the job failed, with secrets masked."""
        error = self._row().error
        return error and safe(error, self._session.settings.secrets)

    @property
    def with_errors(self) -> bool:
        """Whether the job completed, but with the fallback in place of finalize's result."""
        row = self._row()
        return row.status == JobStatus.COMPLETED and bool((from_json(row.result or "{}") or {}).get("fallback"))

    @property
    def stale(self) -> int:
        """How many of its tasks completed with older code than that of their handlers now; see `rerun`."""
        return sum(one.tasks for one in self._stale())

    def _stale(self) -> list[Stale]:
        row = self._row()
        return stale_tasks(self._session.store, row, self._session._fingerprints(row))

    @property
    def ended(self) -> bool:
        """Whether nothing of the job will change any more by itself."""
        row = self._row()
        return row.ended_at is not None and row.status not in (JobStatus.QUEUED, JobStatus.PROCESSING)

    @property
    def interrupted(self) -> bool:
        """Whether the job is not at its end, and nobody drives it."""
        return not self.ended and self._driver() is None

    def _driver(self) -> str | None:
        """Who drives it, in words."""
        return self._session.store.driver(self._row().job_key)

    def _found_again(self, spelt: str) -> str:
        """What to say when the submission found it; nothing where older code is all there is, which was warned of."""
        if self.receipt is None or self.receipt.status == "created":
            return ""
        view = self._session._snapshot(self.id)
        return "" if self.receipt.stale and view.status == JobStatus.COMPLETED else found_again(view, spelt)

    # Waiting

    def wait(self, timeout: float | None = None, *, _refresh: Callable[[], None] | None = None) -> JobHandle:
        """Wait until the job has ended, or until nobody drives it. ``TimeoutError`` after *timeout* seconds.

        A notebook shows it live meanwhile. An interrupt ends the waiting, not the job. ``await job`` waits too, and
        leaves the kernel free for what else there is to do, a click on Cancel for one.
        """
        if _refresh is not None:
            return self._wait(timeout, _refresh)
        from geoflow.notebook.progress import waiting

        with waiting(self):
            return self._wait(timeout, None)

    def _wait(self, timeout: float | None, refresh: Callable[[], None] | None) -> JobHandle:
        began = time.monotonic()

        def late() -> bool:
            return timeout is not None and time.monotonic() - began > timeout

        run = self._session.runtime.runs.get(self.id)
        if run is not None:
            if not self._session.runtime.wait_for(run, late, refresh):
                raise TimeoutError(f"Job {self.id[:8]} has not ended after {timeout:g} s; it goes on.")
            if run.error is not None and not self.ended:  # the store may have failed once the end was written
                raise run.error
            return self
        while not self.ended and not self.interrupted:  # another process drives it
            if late():
                raise TimeoutError(f"Job {self.id[:8]} has not ended after {timeout:g} s; it goes on elsewhere.")
            if refresh is not None:
                refresh()
            time.sleep(_SLICE_SECONDS)
        return self

    def __await__(self) -> Generator[Any, None, JobHandle]:
        return self._awaited().__await__()

    async def _awaited(self) -> JobHandle:
        import asyncio

        from geoflow.notebook.progress import waiting

        run = self._session.runtime.runs.get(self.id)
        with waiting(self):
            while not (run.done.is_set() if run is not None else self.ended or self.interrupted):
                await asyncio.sleep(_SLICE_SECONDS)
        if run is not None and run.error is not None:
            raise run.error
        return self

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait, then finalize's dict. ``JobFailed`` with the first cause when the job has none."""
        row = self.wait(timeout)._row()
        if row.status == JobStatus.COMPLETED:
            found: dict[str, Any] = unless_fallback(from_json(row.result or "{}"), self._session.settings.secrets)
            return found
        name = f"Job {self.id[:8]} ({row.job_type})"
        if row.status == JobStatus.FAILED:
            error = str(self.error)
            space = "\n" if "\n" in error else " " if error.endswith((".", "!", "?")) else ". "
            told = f"{name} failed: {error}{space}Look at job.errors()."
            raise JobFailed(told, job_id=self.id, status="failed")
        if row.status == JobStatus.CANCELLED:
            raise JobFailed(f"{name} was cancelled; job.resume() goes on with it.", job_id=self.id, status="cancelled")
        raise JobFailed(
            f"{name} was interrupted at stage {row.stage}; job.resume() goes on with it.",
            job_id=self.id,
            status="interrupted",
        )

    # DataFrames

    def tasks(self, *, flat: bool = False, history: bool = False) -> pd.DataFrame:
        """One row a task. *flat* turns parameters and results into columns; *history* adds those of earlier runs.

        ``stale`` says whether a task ran with older code than its handler's of now, where that is known.
        """
        from geoflow.views import frames

        row = self._row()
        found = frames.tasks(self._session.store, self.id, flat=flat, history=history)
        with contextlib.suppress(DefinitionError):  # its type is not registered here, or cannot be at the moment
            return frames.with_stale(found, self._session._fingerprints(row))
        return frames.with_stale(found, {})

    def attempts(self) -> pd.DataFrame:
        """One row for each execution of a task, with its times, its output and its error."""
        from geoflow.views import frames

        return frames.attempts(self._session.store, self.id)

    def errors(self, *, limit: int | None = None) -> pd.DataFrame:
        """The attempts that failed, newest last; with *limit* only the last so many."""
        from geoflow.views import frames

        return frames.errors(self._session.store, self.id, limit)

    def stages(self) -> pd.DataFrame:
        """One row a stage, with how many of its tasks are in each state."""
        from geoflow.views import frames

        return frames.stages(self._session.store, self.id)

    def logs(self) -> pd.DataFrame:
        """The log lines of this job, its handlers' included; their times are in UTC. A store in memory has none."""
        from geoflow.views import frames

        if self._session.settings.log_path is None:
            told = "A store in memory keeps no log, so there are no lines: give gf.open a file, or log_file=."
            warnings.warn(told, GeoflowWarning, stacklevel=2)
        return frames.logs(self._session.settings.log_path, self.id)

    # One task

    def task(self, task_id: str | None = None) -> TaskHandle:
        """The task whose id is, or begins with, *task_id*; without one, the first that failed."""
        from geoflow.task_handle import task_of

        return task_of(self, task_id)

    def debug(self, task_id: str | None = None) -> Any:
        """Call the task's handler here with its stored parameters, and open a debugger where it raises.

        Says what became of it, and returns what the handler returned, or None when it raised; see `TaskHandle.debug`.
        """
        return self.task(task_id).debug()

    # Taking it further

    def cancel(self) -> JobHandle:
        """End the job: what runs is stopped within two seconds, what waits will not run. It can be resumed."""
        session, row = self._session, self._row()
        run = session.runtime.runs.get(self.id)
        if run is not None and not run.done.is_set():
            session.runtime.ask("cancel", run)
        elif not self.ended:
            try:
                session.runtime.cancel_here(row)
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
        """Run the failed tasks again, with the code of now and all their retries; then go on from there.

        What was cancelled stays so, and with it the job: `resume` runs that too.
        """
        row = self._row()
        if row.status == JobStatus.CANCELLED:
            raise JobFailed(
                f"Job {self.id[:8]} was cancelled, so there is nothing that failed to run again;",
                python="job.resume() goes on with it.",
                typed=f"geoflow resume {self.id[:8]} goes on with it.",
                job_id=self.id,
                status="cancelled",
            )
        if row.status == JobStatus.COMPLETED:
            return self
        return self._session._drive(row, self._session._registered_as(row), "retry")

    def refinalize(self) -> JobHandle:
        """Run finalize again, with the code of now, over the results that are there; then wait for it."""
        self._refinalize(here=True)
        return self.wait()

    def _refinalize(self, *, here: bool) -> None:
        row = self._row()
        if row.status != JobStatus.COMPLETED:
            raise JobFailed(
                f"Job {self.id[:8]} is {row.status}: only a completed job can be finalized again. Resume it first.",
                job_id=self.id,
                status=str(row.status),
            )
        self._session._drive(row, self._session._registered_as(row), "refinalize", here=here)

    def rerun(self, *, stage: int | str | None = None, stale: bool = False) -> JobHandle:
        """Do all of it over again, with the code of now; the old attempts are kept as history.

        With *stage*, a number or a name, only that stage and those behind it: its tasks are planned anew. With
        *stale*, only what completed with older code than its handler's of now, in the first stage that has such tasks,
        and all stages behind it; where nothing is out of date, nothing is done. What only the code that plans
        tasks has changed is not seen by that: give the stage.
        """
        if stage is not None and stale:
            raise ParameterError("rerun takes stage= or stale=True: a stage is run again with all of its tasks.")
        row, session = self._row(), self._session
        registered, again = session._registered_as(row), None
        if stage is not None:
            names = [one["name"] for one in from_json(row.stages)]
            again = again_from(stage, names, session.store.stages(row.job_key), self.id[:8])
        elif stale:
            found = self._stale()
            if not found:
                return self
            again = Again(found[0].stage, keep=True)
        return session._drive(row, registered, "rerun", again=again)

    # Drawing

    def watch(self) -> None:
        """Show the job live, with buttons for what can be done with it and a list of its tasks; return at once.

        Once it has stopped the drawing is plain HTML, which a saved notebook keeps. Where there is no notebook, print
        the job as it is now. A handle at the end of a cell draws the job too, as it is at that moment.
        """
        from geoflow.notebook.progress import watch

        watch(self)

    def __repr__(self) -> str:
        """One line, as in a list of jobs; ``print(job)`` shows all, and so does a notebook."""
        row = self._row()
        state = "completed with errors" if self.with_errors else row.status
        return f"<job {self.id[:8]} {row.job_type}: {state}>"

    def __str__(self) -> str:
        from geoflow.render.display import job_text

        return job_text(self._session._snapshot(self.id))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """By itself at the end of a cell, all; within a list or a dict, one line."""
        printer.text(repr(self) if len(printer.stack) > 1 else str(self))

    def _repr_html_(self) -> str:
        from geoflow.notebook.progress import shown_here
        from geoflow.render.display import job_html, job_line

        view = self._session._snapshot(self.id)
        return job_line(view, "see above") if shown_here(self) else job_html(view)
