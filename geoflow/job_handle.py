"""A job as a notebook holds it: look at it, wait for it, take it further. It can be made again from its id."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoflow.core.models import JobStatus, Receipt
from geoflow.core.payloads import is_fallback
from geoflow.core.rows import JobRow
from geoflow.engine.following import FollowUp, Map
from geoflow.engine.runtime import SLICE_SECONDS, Runtime
from geoflow.errors import DefinitionError, JobFailed
from geoflow.jobtypes.parameters import by_name
from geoflow.notebook import progress
from geoflow.notebook.outputs import safely
from geoflow.notebook.pictured import Pictured
from geoflow.render.drawing import job_html, job_line, job_text
from geoflow.support.jsonable import from_json
from geoflow.support.masking import safe, unless_fallback
from geoflow.views.changed import inputs_changed
from geoflow.views.lines import Wanted

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.jobtypes.contract import DefinesJob
    from geoflow.task_handle import TaskHandle


class JobHandle(Pictured):
    """One job of a session's store. What it shows is read anew each time."""

    def __init__(self, runtime: Runtime, job_id: str, receipt: Receipt | None = None) -> None:
        self.runtime = runtime
        self.id = job_id
        self.receipt = receipt

    def _row(self) -> JobRow:
        return self.runtime.row(self.id)

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
        parameters: dict[str, Any] = from_json(self._row().parameters)
        return parameters

    @property
    def error(self) -> str | None:
        """Why the job failed, with secrets masked."""
        error = self._row().error
        return error and safe(error, self.runtime.settings.secrets)

    @property
    def with_errors(self) -> bool:
        """Whether the job completed without tasks that failed, or with the fallback in place of finalize's result."""
        row = self._row()
        if row.status != JobStatus.COMPLETED:
            return False
        return is_fallback(from_json(row.result or "null")) or bool(self.runtime.let_pass(row))

    @property
    def stale(self) -> int:
        """How many of its tasks completed with older code than that of their handlers now; see `rerun`."""
        return sum(kind.tasks for kind in self.runtime.stale(self.id))

    @property
    def inputs_changed(self) -> int:
        """How many of its completed tasks have declared inputs that are not as they were; see `update`."""
        return inputs_changed(self.runtime.store, self._row())

    @property
    def ended(self) -> bool:
        """Whether nothing of the job will change any more by itself."""
        return self._row().has_ended

    @property
    def interrupted(self) -> bool:
        """Whether the job is not at its end, and nobody drives it."""
        return not self.ended and self.runtime.driver(self.id) is None

    # Waiting

    def wait(self, timeout: float | None = None) -> JobHandle:
        """Wait until the job has ended, or until nobody drives it. ``TimeoutError`` after *timeout* seconds.

        A notebook shows it live meanwhile. An interrupt ends the waiting, not the job. ``await job`` waits too, and
        leaves the kernel free for what else there is to do, a click on Cancel for one.
        """
        with progress.waiting(self.runtime, self.id):
            self.runtime.wait(self.id, timeout)
        return self

    def __await__(self) -> Generator[Any, None, JobHandle]:
        return self._awaited().__await__()

    async def _awaited(self) -> JobHandle:
        import asyncio

        run = self.runtime.active.get(self.id)
        with progress.waiting(self.runtime, self.id):
            while not (run.done.is_set() if run is not None else self.runtime.has_stopped(self.id)):
                await asyncio.sleep(SLICE_SECONDS)
        if run is not None and run.error is not None:
            raise run.error
        return self

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait, then finalize's dict. ``JobFailed`` with the first cause when the job has none."""
        row = self.wait(timeout)._row()
        if row.status == JobStatus.COMPLETED:
            result: dict[str, Any] = unless_fallback(from_json(row.result or "{}"), self.runtime.settings.secrets)
            return result
        status, told = "interrupted", f"was interrupted at stage {row.stage}; job.resume() goes on with it."
        if row.status == JobStatus.CANCELLED:
            status, told = "cancelled", "was cancelled; job.resume() goes on with it."
        elif row.status == JobStatus.FAILED:
            error = str(self.error)
            space = "\n" if "\n" in error else " " if error.endswith((".", "!", "?")) else ". "
            status, told = "failed", f"failed: {error}{space}Look at job.errors()."
        raise JobFailed(f"Job {self.id[:8]} ({row.job_type}) {told}", job_id=self.id, status=status)

    # DataFrames

    def tasks(self, *, flat: bool = False, history: bool = False) -> pd.DataFrame:
        """One row a task. *flat* turns parameters and results into columns; *history* adds those of earlier runs.

        ``stale`` says whether a task ran with older code than its handler's of now, where that is known.
        ``reused_from`` is the id of the job, perhaps this one, whose result the task has taken over. ``key`` is
        ``task_id`` without the job's part, by which `task` finds it, too. Printed, a frame has what tells rows apart in
        80 columns, and names the other columns. ``warnings`` is how many of Python's its last attempt has shown; what
        they say is in its output.
        """
        from geoflow.views import frames

        row, now = self._row(), dict[str, str]()
        tasks = frames.tasks(self.runtime.store, self.id, flat=flat, history=history, more=True)
        with contextlib.suppress(DefinitionError):  # its type is not registered here, or cannot be at the moment
            now = self.runtime.fingerprints(row)
        return frames.with_key(frames.with_stale(tasks, now), self.id)

    def frame(self, stage: int | str | None = None) -> pd.DataFrame:
        """What the tasks of one stage took and gave, one row a task, for work with the results.

        *stage* is a name or a number; without it, the last that was planned. After ``task_id`` and ``status`` come the
        fields of the results, then the parameters (and fields of the item, in a typed stage), each under its name, or
        as ``parameters.name`` where a result is called so. Nothing is left out: who failed has no result. ValueError
        where there is no such stage.
        """
        from geoflow.views import spread

        return spread.frame(self.runtime.store, self.id, stage)

    def gdf(self, stage: int | str | None = None, *, geometry: str | None = None, crs: Any = None) -> Any:
        """`frame` as a GeoDataFrame of geopandas.

        The geometries are made of the column *geometry*, else of the only one that has GeoJSON or is called bbox, or
        bounds, with four numbers, and stand in its place; else of a tile's z, x and y, or of H3 cells, in a column
        ``geometry``. The CRS is *crs*, or that of a column ``crs``; else it is not known: None. ``ValueError`` says
        what does not fit, and of which task.
        """
        from geoflow.views import spread

        return spread.geometries(self.frame(stage), geometry, crs)

    def attempts(self) -> pd.DataFrame:
        """One row for each execution of a task, with its times, its output and its error.

        Those with a ``reused_from``, the id of a job, did not run: they have taken over what a task of that job made.
        """
        from geoflow.views import frames

        return frames.with_key(frames.attempts(self.runtime.store, self.id, reused_from=True), self.id)

    def errors(self, *, limit: int | None = None) -> pd.DataFrame:
        """The attempts that failed, newest last; with *limit* only the last so many.

        ``cause`` is the exception that began it, where another was raised from that: GDAL's own words, where rasterio
        says no more than "Read failed".
        """
        from geoflow.views import frames

        return frames.with_key(frames.errors(self.runtime.store, self.id, limit), self.id)

    def stages(self) -> pd.DataFrame:
        """One row a stage, with how many of its tasks are in each state."""
        from geoflow.views import frames

        return frames.stages(self.runtime.store, self.id)

    def history(self) -> pd.DataFrame:
        """What was done with the job, and what became of it: one row for each change, the oldest first.

        ``event`` says what (S63 has all words); ``tasks`` how many it was about, ``why`` its reason; ``was`` and
        ``status`` are the job's before and after it; ``session``, ``pid`` and ``host`` say whose doing it was. A task's
        own story is in `attempts`. Of what geoflow 0.1 did there is nothing.
        """
        from geoflow.views import frames

        return frames.history(self.runtime.store, self.id)

    def logs(
        self,
        *,
        level: str | None = None,
        since: datetime | timedelta | None = None,
        contains: str = "",
        task: str = "",
    ) -> pd.DataFrame:
        """The log lines of this job, its handlers' included; their times are in UTC.

        *level* is the lowest, such as ``"WARNING"``, *since* a time (local, where it has no zone) or how long ago.
        *contains* is a text in a line's message, error or traceback, in capitals or not; *task* the id of one, or its
        beginning. All lines of one run have one ``correlation_id``: a resume, a retry and a rerun have others.
        """
        from geoflow.views import frames

        wanted = Wanted.of(self.id, level=level, since=since, contains=contains, task=task)
        return frames.logs(self.runtime.log_path, wanted)

    # One task

    def task(self, task_id: str | None = None) -> TaskHandle[JobHandle]:
        """The task whose id is, begins with, or has as its last part *task_id*; without one, the first that failed."""
        from geoflow.engine.tasks import place_of
        from geoflow.task_handle import TaskHandle

        row = self._row()
        return TaskHandle(self.runtime, row, place_of(self.runtime.store, row, task_id), self)

    def debug(self, task_id: str | None = None) -> Any:
        """Call the task's handler here with its stored parameters, and open a debugger where it raises.

        Says what became of it, and returns what the handler returned, or None when it raised; see `TaskHandle.debug`.
        """
        return self.task(task_id).debug()

    # Taking it further

    def cancel(self) -> JobHandle:
        """End the job: what runs is stopped within two seconds, what waits will not run. It can be resumed."""
        self.runtime.cancel(self.id)
        return self

    def resume(self) -> JobHandle:
        """Go on where the job stopped, with the code of now: all tasks that have not completed run, in this session."""
        self.runtime.resume(self.id)
        return self

    def retry_failed(self) -> JobHandle:
        """Run the failed tasks again, with the code of now and all their retries; then go on from there.

        What was cancelled stays so, and with it the job: `resume` runs that too. Where the job went on without tasks
        that failed (``on_failure="continue"``), these run, and the stages behind the first of them are planned anew:
        in the end all is as if none had failed.
        """
        self.runtime.retry_failed(self.id)
        return self

    def refinalize(self) -> JobHandle:
        """Run finalize again, with the code of now, over the results that are there; then wait for it."""
        self.runtime.refinalize(self.id, here=True)
        return self.wait()

    def rerun(self, *, stage: int | str | None = None, stale: bool = False) -> JobHandle:
        """Do all of it over again, with the code of now; the old attempts are kept as history.

        With *stage*, a number or a name, only that stage and those behind it: its tasks are planned anew. With
        *stale*, only what completed with older code than its handler's of now, in the first stage that has such tasks,
        and all stages behind it; where nothing is out of date, nothing is done. What only the code that plans
        tasks has changed is not seen by that: give the stage.
        """
        self.runtime.rerun(self.id, stage, stale)
        return self

    def update(self) -> JobHandle:
        """Plan all stages anew, with the code of now, and run what is new or has changed, and what is behind it.

        A task takes over the result of a completed one of the same type, parameters and code, if the files that its
        parameters name are as they were, and those that its stage declares as outputs are there as it left them. A
        stage that is fed by nothing but the job's parameters runs, unless it declares its inputs: it may be what looks
        for new files. Tasks that are no longer planned stay as history. What ran before results were reused, or
        updated, for the first time is not known, and runs.
        """
        self.runtime.update(self.id)
        return self

    def then(
        self,
        job_type: str | type | DefinesJob,
        map: Map | None = None,
        params: object = None,
        *,
        name: str = "",
        **parameters: Any,
    ) -> FollowUp[JobHandle]:
        """Submit a job of that type once this one has completed: at once, or at its end while this session is open.

        It is given *parameters*, and those of the dict that *map* makes of this job's result. It is submitted once for
        each end of this job, whatever is killed: what it is given is noted first, and *map* is not called again. Where
        the process is killed before, say the same in the next session. A second one of the same type needs a *name*.
        """
        given = by_name(params, parameters)
        return FollowUp(
            self.runtime, self.id, job_type, map, given, name, lambda made: JobHandle(self.runtime, made.job_id, made)
        )

    # Drawing

    def watch(self) -> None:
        """Show the job live, with buttons for what can be done with it and a list of its tasks; return at once.

        Once it has stopped the drawing is plain HTML, which a saved notebook keeps. Where there is no notebook, print
        the job as it is now. A handle at the end of a cell draws the job too, as it is at that moment.
        """
        progress.watch(self.runtime, self.id)

    def save(
        self, path: str | os.PathLike[str], *, tasks: int = 1_000, lines: int = 1_000, overwrite: bool = False
    ) -> Path:
        """Write the job as one HTML file that can be sent: it needs no network, no script and no geoflow. Its path.

        It has what the job draws, its pictures, *tasks* tasks at most, those that failed first, the last log *lines*,
        and the versions of Python, geoflow and key packages that the job ran with. What looks secret is masked. Of a
        job that runs it shows this moment. Raises ``FileExistsError`` without *overwrite*.
        """
        from geoflow.tools.page import write

        return write(self.runtime, self.id, self.pictures(), path, tasks=tasks, lines=lines, overwrite=overwrite)

    def __repr__(self) -> str:
        """One line, as in a list of jobs; ``print(job)`` shows all, and so does a notebook."""
        row = self._row()
        state = "completed with errors" if self.with_errors else row.status
        if failed := sum(self.runtime.let_pass(row).values()):
            state = f"{state}, {failed:,} failed"
        return f"<job {self.id[:8]} {row.job_type}: {state}>"

    def __str__(self) -> str:
        return job_text(self.runtime.snapshot(self.id))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """By itself at the end of a cell, all; within a list or a dict, one line."""
        printer.text(repr(self) if len(printer.stack) > 1 else str(self))

    def _repr_html_(self) -> str:
        view = self.runtime.snapshot(self.id)
        if progress.shown_here(self.runtime, self.id):
            return job_line(view, "see above")
        pictures: list[tuple[str, str]] = []
        if view.driver is None:
            safely(lambda: pictures.extend(self.pictures()))  # what is damaged may be drawn in part
        return job_html(view, pictures)
