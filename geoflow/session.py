"""A session: the store, the workers and the job types that a notebook holds, opened when they are first needed."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from types import ModuleType
from typing import TYPE_CHECKING, Any

from geoflow.batch_handle import Batch, submit_all
from geoflow.core.models import Receipt
from geoflow.core.retry import RetryPolicy
from geoflow.engine.runtime import OnExisting, Runtime
from geoflow.errors import GeoflowWarning, ParameterError
from geoflow.housekeeping import Housekeeping
from geoflow.job_handle import JobHandle
from geoflow.jobtypes import loading
from geoflow.jobtypes.contract import DefinesJob, Handler
from geoflow.jobtypes.parameters import by_name
from geoflow.jobtypes.registry import Registry
from geoflow.notebook import mistakes, progress
from geoflow.render.drawing import jobs_html
from geoflow.support.clock import Clock, SystemClock
from geoflow.support.settings import load_settings
from geoflow.usercode.origin import stacklevel
from geoflow.views.lines import Wanted
from geoflow.views.snapshot import LISTED, listing

if TYPE_CHECKING:
    import concurrent.futures

    import pandas as pd

    from geoflow.notebook.form import Form
    from geoflow.task_handle import TaskHandle
    from geoflow.tools.compare.found import Comparison
    from geoflow.tools.forecast.plan import Plan
    from geoflow.tools.forecast.probe import Probe

mistakes.show_in_cells_as_text()


class Session(Housekeeping):
    """Runs job types on this machine and keeps all that happens in one store.

    *store* is a SQLite file, ``":memory:"``, or a DuckDB file that ends in ``.duckdb`` (``"duckdb"`` alone means
    ``geoflow.duckdb`` here); *workers* is the number of worker processes, 0 to run in this one, None for
    one a processor. *retry* and *on_failure* hold where a job type or a stage does not say otherwise: ``"drain"``
    (siblings of a failed task still run, then the job has failed), ``"stop"``, or ``"continue"``: the job goes on
    without what failed, if that is no more of a stage's tasks than *allow_failed*, a number such as 5, or a share such
    as 0.05; all but one, where nothing is said. *on_job_complete* is called with ``job_id``, ``job_type``, ``status``
    and ``result`` for every job that ends. *executor* is a pool to use instead of worker processes, any
    ``concurrent.futures.Executor``: a Dask client's ``get_executor()`` leads to other machines (see docs/scaling.md).
    It stays yours to shut down; *workers* is then how many chunks it is given at once, None for as many as it says it
    can run. With ``reuse=True`` tasks take over the results of equal ones in the store (see docs/reuse.md). Everything
    else is a setting of `geoflow.support.settings.Settings`.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | None = None,
        *,
        workers: int | None = None,
        retry: RetryPolicy | None = None,
        on_job_complete: Callable[..., object] | None = None,
        clock: Clock | None = None,
        executor: concurrent.futures.Executor | None = None,
        **settings: Any,
    ) -> None:
        path = None if store is None else os.fspath(store)
        if executor is not None:
            from geoflow.executors.futures import slots_of

            workers = slots_of(executor) if workers is None else workers
            if workers == 0:
                raise ParameterError("workers=0 runs everything in this process: leave it out, or executor=.")
        chosen = load_settings(store=path, workers=workers, **settings).in_place()
        _check_preload(chosen.preload)
        self.runtime = Runtime(chosen, clock or SystemClock(), retry, executor, on_job_complete)

    @classmethod
    def of(cls, runtime: Runtime) -> Session:
        """The session whose runtime that is, once more: it has nothing else."""
        session = cls.__new__(cls)
        session.runtime = runtime
        return session

    def __enter__(self) -> Session:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is None:
            self.runtime.wait_for_all()
        self.close()

    def __eq__(self, other: object) -> bool:
        """Whether it is the same session, though perhaps another object."""
        return isinstance(other, Session) and other.runtime is self.runtime

    def __hash__(self) -> int:
        return hash(self.runtime)

    def __repr__(self) -> str:
        return f"<geoflow session on {self.settings.store_name}>"

    def _repr_html_(self) -> str:
        """The last jobs of the store; one that is not there yet is not made for that."""
        views = listing(self.store, self.runtime.clock.now()) if self.runtime.has_store else ()
        notes = {0: "There are none yet.", LISTED: f"These are the last {LISTED}; session.jobs() has all of them."}
        return jobs_html(views, f"Jobs in {self.settings.store_name}", notes.get(len(views), ""))

    @property
    def registry(self) -> Registry:
        """The job types that it knows."""
        return self.runtime.registry

    def close(self) -> None:
        """Interrupt what runs, so that it can be resumed, end the workers and close the store. It may be used again."""
        self.runtime.close()

    # Job types

    def register(
        self,
        target: type | DefinesJob | ModuleType | str | os.PathLike[str],
        handlers: Mapping[str, Handler] | None = None,
        *,
        name: str | None = None,
    ) -> list[str]:
        """Register a job class with its *handlers* (a dict by task type), or all of a module, or of a ``file.py``.

        A `gf.JobType` brings its own handlers. To submit or run one registers it too, as it is then.

        Returns the names registered. Raises ``DefinitionError`` with every problem found.
        """
        if isinstance(target, (str, os.PathLike)):
            target = loading.load(os.fspath(target))
        return self.registry.register(target, handlers, name=name)

    # Submitting

    def submit(
        self,
        job_type: str | type | DefinesJob,
        params: object = None,
        *,
        on_existing: OnExisting = "return",
        **parameters: Any,
    ) -> JobHandle:
        """Start a job, and return at once; a job that was submitted before is found again.

        *on_existing* says what then happens: ``"return"`` (nothing: look at it), ``"resume"`` (go on where it
        stopped), ``"rerun"`` (all over again, the old attempts kept), ``"update"`` (plan all anew, run what is new or
        has changed, take over the rest; see `JobHandle.update`) or ``"raise"`` (``JobExists``). Raises
        ``ParameterError`` for parameters that the job type refuses; nothing is stored then.
        """
        receipt = self.runtime.submit(job_type, by_name(params, parameters), on_existing)
        self._remark(receipt, on_existing)
        return self.handle(receipt)

    def run(
        self,
        job_type: str | type | DefinesJob,
        params: object = None,
        *,
        on_existing: OnExisting = "return",
        **parameters: Any,
    ) -> JobHandle:
        """Submit a job, show its progress, and wait for its end; see `submit`.

        An interrupt ends what runs and puts the job back, to be resumed. A job that fails does not raise here:
        ``job.result()`` does, and the job draws itself with its errors.
        """
        given = by_name(params, parameters)
        receipt = progress.run(self.runtime, job_type, given, on_existing, lambda it: self._remark(it, on_existing))
        return self.handle(receipt)

    def map(
        self,
        job_type: str | type | DefinesJob,
        params: Iterable[Mapping[str, Any]],
        *,
        tag: str,
        on_existing: OnExisting = "return",
    ) -> Batch:
        """Submit a job of that type for each of *params*, and return at once: many jobs, which `batch` finds by *tag*.

        All parameters are checked first: where one is refused nothing is submitted, and ``ParameterError`` lists those
        that are. The same again, after an interrupt for one, submits what is missing; a list with more of them, the
        rest. A tag that other jobs have is refused. For *on_existing* see `submit`.
        """
        return submit_all(self.runtime, job_type, list(params), tag, on_existing)

    def batch(self, tag: str) -> Batch:
        """The jobs that `map` has submitted under that *tag*, from whichever process."""
        return Batch.found(self.runtime, tag)

    def handle(self, receipt: Receipt) -> JobHandle:
        """The job that was submitted with that receipt."""
        return JobHandle(self.runtime, receipt.job_id, receipt)

    def _remark(self, receipt: Receipt, on_existing: OnExisting) -> None:
        """Say in one line, where progress would be shown, that the job was there and was left as it is."""
        if on_existing == "return":
            spelt = "on_existing={!r}"
            progress.remark(lambda: self.runtime.found_again(receipt, spelt), self.settings.display)

    def follow(self, job: JobHandle) -> None:
        """Show the job's progress until it ends, or until nobody drives it. An interrupt puts it back to be resumed."""
        progress.follow(self.runtime, job.id)

    def form(self, job_type: str | type | DefinesJob, /, **values: Any) -> Form[JobHandle]:
        """A form for the parameters of *job_type*, filled with *values*: show it, fill it in, submit it there.

        Each change is checked by the job type's own ``validate_job_parameters``. Raises ``ParameterError`` for values
        that the job type has no parameter for.
        """
        from geoflow.notebook.form import Form

        return Form(self.runtime, job_type, values, self.handle)

    def plan(self, job_type: str | type | DefinesJob, params: object = None, **parameters: Any) -> Plan:
        """What `submit` would start: the job's id, its stages, the tasks of the first. Nothing is run or stored."""
        from geoflow.tools.forecast.plan import plan

        return plan(self.runtime, job_type, by_name(params, parameters))

    def probe(
        self,
        job_type: str | type | DefinesJob,
        params: object = None,
        *,
        items: int = 3,
        workers: int | Sequence[int] | None = None,
        seed: int = 0,
        **parameters: Any,
    ) -> Probe[JobHandle]:
        """Run *items* tasks of each stage as a job of their own, and forecast the whole with so many *workers*.

        Parameters of the job type that are called like these are given in *params*.
        """
        from geoflow.tools.forecast.probe import probe

        given = by_name(params, parameters)
        return probe(self.runtime, job_type, given, items, workers, seed, self.handle)

    # Looking

    def job(self, job_id: str) -> JobHandle:
        """The job whose id begins with *job_id*; ``JobNotFound`` when there is none, or more than one."""
        return JobHandle(self.runtime, self.runtime.row(job_id).job_id)

    def task(self, name: str | None = None) -> TaskHandle[JobHandle]:
        """The task called *name*: an id, or its beginning, in the latest job, or ``JOB/TASK``. None: its first failed.

        Raises ``TaskNotFound`` that lists those it may be, or ``JobNotFound``.
        """
        from geoflow.engine.tasks import named
        from geoflow.task_handle import TaskHandle

        row, place = named(self.runtime, name)
        return TaskHandle(self.runtime, row, place, JobHandle(self.runtime, row.job_id))

    def compare(
        self,
        a: JobHandle | str,
        b: JobHandle | str | None = None,
        *,
        on: str | None = None,
        tolerance: float = 1e-9,
    ) -> Comparison:
        """What differs between two jobs, handles (of any session) or ids, or between the last two runs of one.

        Parameters, code, files, outcomes and results task by task, time and memory. *on* says what pairs the tasks of
        a stage: ``"key"`` (their ids, without what names the job), ``"parameters"``, ``"place"``, or a parameter's
        name; left out, the first of the three that fits. Numbers that differ by no more than *tolerance* of the larger
        are the same. With *b* left out, what *a* was before its last rerun or update is compared with what it is now.
        Raises ``ParameterError`` where tasks cannot be told apart, or where there is no earlier run.
        """
        from geoflow.tools.compare import compare

        one = self.job(a) if isinstance(a, str) else a
        other = self.job(b) if isinstance(b, str) else b
        return compare((one.runtime, one.id), None if other is None else (other.runtime, other.id), on, tolerance)

    def sql(self, query: str) -> pd.DataFrame:
        """What *query* finds in ``jobs``, ``stages``, ``tasks``, ``attempts``, ``events`` and ``logs``, by DuckDB.

        The columns are those of the DataFrames; ``parameters``, ``result`` and ``metadata`` are JSON, to be asked as
        ``result->>'$.result.bytes'``. It may read files too, unless the setting ``sql_files`` is off; it writes none.
        Raises ``ParameterError`` for what is no query, or cannot be answered.
        """
        from geoflow.views import sql as queries

        return queries.answer(self.store, self.runtime.log_path, query, files=self.settings.sql_files)

    def logs(
        self,
        *,
        level: str | None = None,
        since: datetime | timedelta | None = None,
        contains: str = "",
        task: str = "",
    ) -> pd.DataFrame:
        """The log lines of all jobs, and of the session itself, of all sessions that have written the log.

        For *level*, *since*, *contains* and *task* see `JobHandle.logs`; ``session.sql`` joins the table ``logs`` with
        the others.
        """
        from geoflow.views import frames

        wanted = Wanted.of(level=level, since=since, contains=contains, task=task)
        return frames.logs(self.runtime.log_path, wanted)

    def resume(self) -> list[JobHandle]:
        """Go on with every job that was interrupted, or whose process ended; the jobs that were taken up.

        Jobs that another live process drives are left to it. Those whose type is not registered here are named in a
        warning and stay as they are.
        """
        return [JobHandle(self.runtime, job_id) for job_id in self.runtime.resume_all()]


def _check_preload(names: Sequence[str]) -> None:
    """Say at once what workers would go without: what cannot be found here is not imported there either."""
    for name in names:
        if not _can_be_found(name):
            warnings.warn(
                f"preload names {name!r}, which is no module that can be imported here, so workers start without it: "
                "mend its name, or install it.",
                GeoflowWarning,
                stacklevel=stacklevel(),
            )


def _can_be_found(name: str) -> bool:
    """Whether there is a module of that name. It is not imported, and nor is what it is in."""
    within: Sequence[str] | None = None
    for part in accumulate(name.split("."), "{}.{}".format):
        if (known := sys.modules.get(part)) is not None:
            within = getattr(known, "__path__", [])
            continue
        try:
            spec = next((found for finder in sys.meta_path if (found := finder.find_spec(part, within))), None)
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        within = spec.submodule_search_locations or []
    return True
