"""A session: the store, the workers and the job types that a notebook holds, opened when they are first needed."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from geoflow.core.models import Receipt
from geoflow.core.retry import RetryPolicy
from geoflow.core.rows import Again, JobRow, NewJob
from geoflow.engine.active_job import CLASS, Intent
from geoflow.engine.runtime import Runtime
from geoflow.engine.stale import fingerprints, ran_with_older, stale_tasks
from geoflow.engine.submission import check_same_job, keeps_its_own
from geoflow.errors import (
    DefinitionError,
    GeoflowWarning,
    JobExists,
    JobNotFound,
    ParameterError,
    StoreBusy,
    StoreError,
)
from geoflow.job_handle import JobHandle
from geoflow.jobtypes import loading
from geoflow.jobtypes.contract import DefinesJob, Handler, Registered, defines_job
from geoflow.jobtypes.parameters import by_name, job_id_of, validated
from geoflow.jobtypes.registry import Registry
from geoflow.stores.base import Store
from geoflow.support import logs
from geoflow.support.clock import Clock, SystemClock
from geoflow.support.config import Settings, load_settings
from geoflow.support.jsonable import to_json
from geoflow.support.text import shorten
from geoflow.usercode.origin import stacklevel
from geoflow.usercode.packing import Code, pack

if TYPE_CHECKING:
    import concurrent.futures

    import pandas as pd

    from geoflow.notebook.form import Form
    from geoflow.tools.forecast.plan import Plan
    from geoflow.tools.forecast.probe import Probe
    from geoflow.views.model import JobView

OnExisting = Literal["return", "resume", "rerun", "raise"]
# What is run in place of a job type's handlers: `geoflow.testing` sets it while a fault is to happen.
replace_handlers: Callable[[Session, Mapping[str, Handler]], Mapping[str, Handler]] | None = None
logger = logs.logger_of("geoflow.session")


class Session:
    """Runs job types on this machine and keeps all that happens in one store.

    *store* is a SQLite file, ``":memory:"``, or a DuckDB file that ends in ``.duckdb`` (``"duckdb"`` alone means
    ``geoflow.duckdb`` here); *workers* is the number of worker processes, 0 to run in this one, None for
    one a processor. *retry* and *on_failure* (``"drain"``: siblings of a failed task still run, or ``"stop"``) hold
    where a stage does not say otherwise. *on_job_complete* is called with ``job_id``, ``job_type``, ``status`` and
    ``result`` for every job that ends. *executor* is a pool to use instead of worker processes, any
    ``concurrent.futures.Executor``: a Dask client's ``get_executor()`` leads to other machines (see docs/scaling.md).
    It stays yours to shut down; *workers* is then how many chunks it is given at once, None for as many as it says it
    can run. Everything else is a setting of `geoflow.support.config.Settings`.
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
        self.settings: Settings = load_settings(store=path, workers=workers, **settings).in_place()
        self.registry = Registry()
        _check_preload(self.settings.preload)
        self.runtime = Runtime(self.settings, clock or SystemClock(), retry, executor, on_job_complete)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is None:
            for run in list(self.runtime.runs.values()):
                self.runtime.wait_for(run)
        self.close()

    def __repr__(self) -> str:
        return f"<geoflow session on {self.settings.store_name}>"

    def _repr_html_(self) -> str:
        """The last jobs of the store; one that is not there yet is not made for that."""
        from geoflow.render.display import jobs_html
        from geoflow.views.snapshot import LISTED, listing

        is_there = "store" in self.runtime.__dict__ or os.path.exists(self.settings.store)
        views = listing(self.store, self.runtime.clock.now()) if is_there else ()
        notes = {0: "There are none yet.", LISTED: f"These are the last {LISTED}; session.jobs() has all of them."}
        return jobs_html(views, f"Jobs in {self.settings.store_name}", notes.get(len(views), ""))

    @property
    def store(self) -> Store:
        """Where its jobs are kept, opened when it is first asked for."""
        return self.runtime.store

    def close(self) -> None:
        """Interrupt what runs, so that it can be resumed, end the workers and close the store. It may be used again."""
        self.runtime.close()

    # Job types

    def register(
        self,
        target: type | DefinesJob | ModuleType | str,
        handlers: Mapping[str, Handler] | None = None,
        *,
        name: str | None = None,
    ) -> list[str]:
        """Register a job class with its *handlers* (a dict by task type), or all of a module, or of a ``file.py``.

        A `gf.JobType` brings its own handlers. To submit or run one registers it too, as it is then.

        Returns the names registered. Raises ``DefinitionError`` with every problem found.
        """
        if isinstance(target, str):
            target = loading.load(target)
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
        stopped), ``"rerun"`` (all over again, the old attempts kept) or ``"raise"`` (``JobExists``). Raises
        ``ParameterError`` for parameters that the job type refuses; nothing is stored then.
        """
        job = self._submit(job_type, by_name(params, parameters), on_existing, here=False)
        self._remark(job, on_existing)
        return job

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
        return self._run(job_type, by_name(params, parameters), on_existing, self._remark)

    def _run(
        self,
        job_type: str | type | DefinesJob,
        given: dict[str, Any],
        on_existing: OnExisting,
        remark: Callable[[JobHandle, OnExisting], None],
    ) -> JobHandle:
        begun: list[JobRow] = []
        try:
            job = self._submit(job_type, given, on_existing, here=True, begun=begun)
            remark(job, on_existing)
            self.follow(job)
        except KeyboardInterrupt:  # wherever it came: nothing that was begun here goes on behind the user's back
            for row in begun:
                self.runtime.put_back(row)
            raise
        return job

    def follow(self, job: JobHandle) -> None:
        """Show the job's progress until it ends, or until nobody drives it. An interrupt puts it back to be resumed."""
        from geoflow.notebook.progress import watching

        run = self.runtime.runs.get(job.id)
        with watching(job, self.settings.display) as refresh:
            try:
                if run is None:
                    job.wait(_refresh=refresh)
                else:
                    self.runtime.wait_for(run, refresh=refresh)
            except KeyboardInterrupt:
                if run is not None:
                    self.runtime.ask("interrupt", run)
                raise
        if run is not None and run.error is not None:
            raise run.error

    def form(self, job_type: str | type | DefinesJob, /, **values: Any) -> Form:
        """A form for the parameters of *job_type*, filled with *values*: show it, fill it in, submit it there.

        Each change is checked by the job type's own ``validate_job_parameters``. Raises ``ParameterError`` for values
        that the job type has no parameter for.
        """
        from geoflow.notebook.form import Form

        return Form(self, self._registered(job_type).name, values)

    def plan(self, job_type: str | type | DefinesJob, params: object = None, **parameters: Any) -> Plan:
        """What `submit` would start: the job's id, its stages, the tasks of the first. Nothing is run or stored."""
        from geoflow.tools.forecast.plan import plan

        return plan(self, job_type, by_name(params, parameters))

    def probe(
        self,
        job_type: str | type | DefinesJob,
        params: object = None,
        *,
        items: int = 3,
        workers: int | Sequence[int] | None = None,
        seed: int = 0,
        **parameters: Any,
    ) -> Probe:
        """Run *items* tasks of each stage as a job of their own, and forecast the whole with so many *workers*.

        Parameters of the job type that are called like these are given in *params*.
        """
        from geoflow.tools.forecast.probe import probe

        given = by_name(params, parameters)
        return probe(self, job_type, given, items, workers, seed)

    def _submit(
        self,
        job_type: str | type | DefinesJob,
        given: dict[str, Any],
        on_existing: OnExisting,
        here: bool,
        begun: list[JobRow] | None = None,
    ) -> JobHandle:
        """Submit it; the row of what is then driven is put into *begun* before that."""
        if on_existing not in ("return", "resume", "rerun", "raise"):
            raise ParameterError(f"on_existing cannot be {on_existing!r}: use 'return', 'resume', 'rerun' or 'raise'.")
        self.runtime.check_can_drive()
        registered = self._registered(job_type)
        text = validated(registered, given, self.settings.secrets)
        job_id = job_id_of(registered, text)
        codes = self._packed(registered)  # a variable that cannot travel any more is told before anything is stored
        stages = [
            stage.model_dump(include={"number", "name", "task_type", "parallelism"}) for stage in registered.stages
        ]
        source = getattr(sys.modules.get(registered.job_class.__module__), "__file__", None)
        row, created = self.store.create(
            NewJob(job_id, registered.name, to_json(stages), text, self.runtime.clock.now(), source), hold=True
        )
        begun = [] if begun is None else begun
        if created:
            begun.append(row)
            try:
                receipt = Receipt(job_id=job_id, job_type=registered.name, status="created")
                return self._drive(row, registered, "go on", codes=codes, here=here, receipt=receipt)
            except BaseException:
                self.runtime.put_back(row)
                raise
        check_same_job(row, registered, text, self.settings.secrets)
        receipt = Receipt(
            job_id=job_id,
            job_type=registered.name,
            status="already_exists",
            existing_status=row.status,
            stage=row.stage,
            idempotent=True,
        )
        if on_existing == "raise":
            what = f"Job {job_id[:8]} ({registered.name}) exists and is {row.status};"
            raise JobExists(what, python="see session.job(…).", typed=f"see geoflow status {job_id[:8]}.")
        kept = keeps_its_own(row, registered, given, text, self.settings.secrets)
        if kept is not None and on_existing != "rerun":
            warnings.warn(kept, stacklevel=stacklevel())
        if on_existing == "return":
            if outdated := stale_tasks(self.store, row, fingerprints(codes)):
                receipt = receipt.model_copy(update={"stale": sum(one.tasks for one in outdated)})
                warnings.warn(ran_with_older(row, outdated), stacklevel=stacklevel())
            return JobHandle(self, job_id, receipt)
        begun.append(row)
        again = Again(parameters=text) if on_existing == "rerun" else None
        return self._drive(row, registered, on_existing, codes=codes, here=here, receipt=receipt, again=again)

    def _remark(self, job: JobHandle, on_existing: OnExisting) -> None:
        """Say in one line, where progress would be shown, that the job was there and was left as it is."""
        from geoflow.notebook.progress import remark

        if on_existing == "return":
            remark(lambda: job._found_again("on_existing={!r}"), self.settings.display)

    def _registered_as(self, row: JobRow) -> Registered:
        """The type of a stored job, from what is registered or built in: its name is never taken for a file's (S43)."""
        if row.job_type not in self.registry and row.job_type not in loading.BUILT_IN:
            where = f" Its code came from {row.source}." if row.source else ""
            raise DefinitionError(
                f"Job {row.job_id[:8]} is of type {row.job_type!r}, which is not registered in this session.{where}",
                python="Register it with session.register(...), then go on.",
                typed="No file is loaded by itself: name it with --load.",
            )
        return self._registered(row.job_type)

    def _registered(self, job_type: str | type | DefinesJob) -> Registered:
        if defines_job(job_type):
            return self.registry.get(self.registry.register(job_type)[0])
        if not isinstance(job_type, str | type):
            kind, also = type(job_type).__name__, ""
            if isinstance(getattr(job_type, "stages", None), list):
                also = f" {kind} is a job class: give the class itself, {kind}, and no object of it."
            elif callable(job_type):
                also = f" {getattr(job_type, '__name__', kind)} is a function; it runs as a stage or handler of one."
            raise DefinitionError(
                f"{shorten(repr(job_type), 60)} is no job type.{also} A job type is given as a gf.JobType, as a class, "
                "or as its name, its file or its module, a text."
            )
        name = str(getattr(job_type, "job_type", job_type.__name__)) if isinstance(job_type, type) else job_type
        return self.registry.get(loading.find(self.registry, name))

    # Driving

    def _drive(
        self,
        row: JobRow,
        registered: Registered,
        intent: Intent,
        *,
        codes: Mapping[str, Code] | None = None,
        here: bool = False,
        receipt: Receipt | None = None,
        again: Again | None = None,
    ) -> JobHandle:
        """Have this session's machine drive the job, with *codes*, or else the code of now."""
        running = self.runtime.runs.get(row.job_id)
        if running is not None and not running.done.is_set():
            if intent in ("go on", "resume", "retry"):
                return JobHandle(self, row.job_id, receipt)
            raise StoreBusy(f"Job {row.job_id[:8]} is running in this session: wait for it or cancel it first.")
        try:
            run = self.runtime.claim(row, registered, codes or self._packed(registered), intent, again)
            self.runtime.start(run, awaited=here)
        except BaseException:
            self.runtime.put_back(row)
            raise
        return JobHandle(self, row.job_id, receipt)

    def _packed(self, registered: Registered) -> dict[str, Code]:
        """The code of its handlers by task type, and of its class by an empty name."""
        handlers = registered.handlers if replace_handlers is None else replace_handlers(self, registered.handlers)
        return {name: pack(code) for name, code in {**handlers, CLASS: registered.job_class}.items()}

    def _fingerprints(self, row: JobRow) -> dict[str, str]:
        return fingerprints(self._packed(self._registered_as(row)))

    # Looking

    def _snapshot(self, job_id: str) -> JobView:
        from geoflow.views.snapshot import snapshot

        return snapshot(self.store, job_id, self.runtime.clock.now(), self.settings.secrets)

    def job(self, job_id: str) -> JobHandle:
        """The job whose id begins with *job_id*; ``JobNotFound`` when there is none, or more than one."""
        return JobHandle(self, self._row(job_id).job_id)

    def _row(self, job_id: str) -> JobRow:
        if not isinstance(job_id, str):
            raise ParameterError(
                f"A job is known by its id or the beginning of it, a text such as '4f23fe85': "
                f"{shorten(repr(job_id), 60)} is {type(job_id).__name__}. session.jobs() lists the ids."
            )
        found = self.store.find(job_id.strip().lower()) if job_id.strip() else []
        if not found:
            what = f"No job in {self.settings.store_name} has an id that begins with {job_id!r};"
            raise JobNotFound(what, python="see jobs().", typed="see geoflow jobs.")
        if len(found) > 1:
            several = ", ".join(f"{row.job_id[:12]} ({row.job_type})" for row in found[:5])
            raise JobNotFound(f"{len(found)} jobs have ids that begin with {job_id!r}: {several}. Give more of the id.")
        return found[0]

    def jobs(self) -> pd.DataFrame:
        """All jobs of the store, one row each, oldest first."""
        from geoflow.views import frames

        return frames.jobs(self.store)

    def sql(self, query: str) -> pd.DataFrame:
        """What *query* finds in the tables ``jobs``, ``stages``, ``tasks``, ``attempts`` and ``logs``, by DuckDB.

        The columns are those of the DataFrames; ``parameters``, ``result`` and ``metadata`` are JSON, to be asked as
        ``result->>'$.result.bytes'``. It may read files too, unless the setting ``sql_files`` is off; it writes none.
        Raises ``ParameterError`` for what is no query, or cannot be answered.
        """
        from geoflow.views import sql as queries

        return queries.answer(self.store, self.settings.log_path, query, files=self.settings.sql_files)

    def backup(self, path: str | os.PathLike[str]) -> pd.DataFrame:
        """Copy the store as it is at this moment to the new file *path*, and its log beside it, while jobs run.

        The copy is checked before it gets its name; what was made, and how many bytes. Raises ``StoreError`` where
        something is there already. ``geoflow restore`` puts it in the store's place again.
        """
        from geoflow.stores.backup import back_up
        from geoflow.views import frames

        logs.flush()
        if self.settings.store != ":memory:" and not os.path.exists(self.settings.store):
            raise StoreError(f"There is no store {self.settings.store_name} yet: nothing was copied.")
        return frames.files(copied=back_up(self.store, Path(path), self.settings.log_path))

    def resume(self) -> list[JobHandle]:
        """Go on with every job that was interrupted, or whose process ended; the jobs that were taken up.

        Jobs that another live process drives are left to it. Those whose type is not registered here are named in a
        warning and stay as they are.
        """
        resumed = []
        for row in self.store.unended():
            # A row that is not sound is read as that of a failed job, which has ended.
            ended = row.status == "failed" and row.ended_at is not None
            if ended or self.store.driver(row.job_key) is not None:
                continue
            try:
                resumed.append(self._drive(row, self._registered_as(row), "go on"))
            except StoreBusy:
                continue  # somebody else was a moment faster
            except DefinitionError as exc:
                warnings.warn(exc.as_warning(), stacklevel=2)
        return resumed


def _check_preload(names: Sequence[str]) -> None:
    """Say at once what workers would go without: what cannot be found here is not imported there either."""
    for name in names:
        try:
            found = importlib.util.find_spec(name.partition(".")[0])
        except (ImportError, ValueError):
            found = None
        if found is None:
            warnings.warn(
                f"preload names {name!r}, which is no module that can be imported here, so workers start without it: "
                "mend its name, or install it.",
                GeoflowWarning,
                stacklevel=stacklevel(),
            )
