"""The verbs that can be typed, in a terminal or in a notebook, and what each one does.

A verb is a function of a session and of what was typed. What it returns knows how it is shown: one of `results`, or a
tool's report. What may be said to each verb is in `grammar`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoflow import api
from geoflow.commands.grammar import SHOWN, Request
from geoflow.commands.hints import command, tell
from geoflow.commands.listed import Errors, History, Logs, Tasks
from geoflow.commands.printing import Followed, Output
from geoflow.commands.results import Dumped, Frame, Job, Jobs, Listing, Result, Returned
from geoflow.commands.values import UsageError, parameters, written
from geoflow.core.models import Receipt
from geoflow.core.rows import JobRow
from geoflow.engine.tasks import named as named_task
from geoflow.errors import DefinitionError, JobNotFound, StoreBusy, StoreError
from geoflow.job_handle import JobHandle
from geoflow.notebook import progress
from geoflow.render.report import Report
from geoflow.session import Session

if TYPE_CHECKING:
    from geoflow.task_handle import TaskHandle  # with pdb, which is for who debugs


def run(session: Session, request: Request) -> Result:
    if getattr(request, "detach", False):
        from geoflow.commands.detached import detach

        return detach(request)
    if getattr(request, "quiet", False):
        from geoflow.commands.detached import Quiet

        receipt = session.runtime.submit(request.job_type, _given(request), request.on_existing)
        return Quiet(session, session.handle(receipt), request)

    def remark(receipt: Receipt) -> None:
        _remark(session, receipt, request)

    receipt = progress.run(session.runtime, request.job_type, _given(request), request.on_existing, remark)
    return Job(session.handle(receipt), request)


def submit(session: Session, request: Request) -> Job:
    receipt = session.runtime.submit(request.job_type, _given(request), request.on_existing)
    _remark(session, receipt, request)
    return Job(session.handle(receipt), request)


def _remark(session: Session, receipt: Receipt, request: Request) -> None:
    if request.on_existing == "return" and (said := session.runtime.found_again(receipt, "--on-existing {}")):
        tell(said)


def _given(request: Request) -> dict[str, Any]:
    """The parameters: what is typed counts more than the cell, and that more than the file."""
    of_file: dict[str, Any] = {}
    if request.params is not None:
        try:
            of_file = written(Path(request.params).read_text("utf-8"), request.params)
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"The parameters in {request.params} cannot be read: {exc}.") from None
    return {**of_file, **request.given, **parameters(request.words, request.variables)}


def named(session: Session, request: Request) -> JobHandle:
    """The job that was named, or the latest."""
    if request.job is not None:
        return session.job(request.job)
    latest = session.store.latest()
    if latest is None:
        makes_one = f"{request.prog} run hello_world makes one."
        raise JobNotFound(f"There are no jobs in {session.settings.store_name}. {makes_one}")
    return session.job(latest.job_id)


def _followed(session: Session, job: JobHandle, request: Request) -> Job:
    session.follow(job)
    return Job(job, request)


def _limit(request: Request) -> int | None:
    """In a terminal the last few, unless more are asked for or a program reads them: there may be 100,000."""
    everything = request.json or request.variables is not None  # a notebook has all as its value
    return request.limit if request.limit is not None or everything else SHOWN[request.verb]


def task(session: Session, request: Request) -> TaskHandle[JobHandle]:
    """The task that was named, once the code of its type is here."""
    _load(session, request)
    task = session.task(request.task)
    _check_code(session, request, session.runtime.row(task.job_id), f"{task.job_id[:8]}/{task.id}")
    return task


def resume(session: Session, request: Request) -> Job | Jobs:
    """Go on with one job, or with all that were interrupted; those whose code is not here are told of and left."""
    if request.job:
        return _followed(session, _with_code(session, request).resume(), request)
    _load(session, request)
    stopped = [job for row in session.store.unended() if (job := session.job(row.job_id)).interrupted]
    for job in session.resume():
        session.follow(job)
    return Jobs([Job(job, request) for job in stopped])


def rerun(session: Session, request: Request) -> Job:
    stage = _stage(request)
    job = _with_code(session, request)
    if request.stale and not job.stale:
        tell(f"Nothing of job {job.id[:8]} ran with older code: nothing was done.")
        return Job(job, request)
    job = job.update() if request.update else job.rerun(stage=stage, stale=request.stale)
    return _followed(session, job, request)


def cancel(session: Session, request: Request) -> Job:
    job = session.job(request.job)
    if job.ended:
        tell(f"There is nothing to cancel: job {job.id[:8]} has ended, as {job.status}.")
    return Job(job.cancel(), request)


def sql(session: Session, request: Request) -> Frame:
    if not request.query:
        raise UsageError(
            f"The query is missing, such as: {request.prog} sql select status, count(*) from tasks group by 1"
        )
    return Frame(session.runtime, session.sql(" ".join(request.query)))


def convert(session: Session, request: Request) -> Frame:
    """How many rows of each table were copied. The session's own store has no part in it."""
    import pandas as pd

    from geoflow.stores.convert import convert as copy

    copied = copy(request.source, request.target)
    log, new = (
        session.settings.model_copy(update={"store": store}).log_path for store in (request.source, request.target)
    )
    if log is not None and log != new and log.exists():
        tell(f"The log stays with {request.source}, in {log}: cp {shlex.join((str(log), str(new)))} takes it along.")
    return Frame(session.runtime, pd.DataFrame(list(copied.items()), columns=["table", "rows"]))


def backup(session: Session, request: Request) -> Frame:
    """What was made, and how large it is."""
    try:
        return Frame(session.runtime, session.backup(request.target))
    except StoreBusy as exc:
        there = f"session.backup({request.target!r})"
        raise StoreBusy(f"{exc} Or make the backup where it is held: {there}.") from None


def prune(session: Session, request: Request) -> Report:
    return session.prune(
        before=request.before,
        state=request.state,
        job_type=request.job_type,
        keep=request.keep,
        confirm=request.confirm,
    )


def size(session: Session, request: Request) -> Report:
    return session.size()


def dump(session: Session, request: Request) -> Dumped:
    job = session.job(request.job)
    return Dumped(session, job, None if request.target is None else session.dump(job, request.target))


def bundle(session: Session, request: Request) -> Report:
    """The task as it was written. Its code goes along where its type is known here, else see --load."""
    _load(session, request)
    task = session.task(request.task)
    how = {name: getattr(request, name) for name in ("inputs", "limit", "overwrite")}
    try:
        made = task.bundle(request.target, **how)
    except FileExistsError:
        raise UsageError(f"{request.target} is there already: give another name, or say --overwrite.") from None
    except FileNotFoundError as exc:
        raise UsageError(str(exc)) from None
    if made.told.code.place is None and not request.load:
        file = session.runtime.row(task.job_id).source or "FILE"
        tell(f"It can be read, but not run. --load {shlex.quote(file)} --overwrite has its code go along.")
    return made


def unbundle(session: Session, request: Request) -> Report:
    """What was sent, or what came of it here. The session itself has no part in it."""
    sent = api.unbundle(request.source)
    if request.words and not request.run:
        raise UsageError("--param is for --run.")
    try:
        if request.run:
            return sent.run(parameters(request.words, request.variables), folder=request.folder)
        if request.folder is not None:
            tell(f"It is written to {sent.unpack(request.folder)}: python run.py there calls its handler.")
    except (FileExistsError, FileNotFoundError) as exc:
        raise UsageError(str(exc)) from None
    return sent


def types(session: Session, request: Request) -> Report:
    _load(session, request)
    return session.types()


def config(session: Session, request: Request) -> Report:
    return session.config()


def reset(session: Session, request: Request) -> Report:
    return session.reset(confirm=request.confirm)


def restore(session: Session, request: Request) -> Frame:
    """What was put in the store's place, and what has another name now. No session may have the store open."""
    from geoflow.stores.backup import restore as put_back
    from geoflow.views.frames import files

    settings = session.settings
    if settings.store == ":memory:":
        raise StoreError("A store in memory is its session's own: name a file with --store.")
    if api.is_open(settings.store):
        raise StoreBusy(f"{settings.store_name} is open in this process: close its session first.")
    restored, aside = put_back(Path(request.source), Path(settings.store), settings.log_path)
    return Frame(session.runtime, files(restored=restored, set_aside=aside))


def export(session: Session, request: Request) -> Report:
    """What was written of a job type that was made with `gf.JobType`, and what it was proved on."""
    registered = session.runtime.registered(request.job_type)
    job = None if request.job is None else session.job(request.job)
    target: Any = registered.maker or registered.job_class
    how: dict[str, Any] = {"prove": not request.no_proof, "overwrite": request.overwrite}
    return api.export(target, request.folder, job=job, session=session, **how)


def check(session: Session, request: Request) -> Report:
    """What is found for a job type of the session, or of the file that is named. Nothing of it is stored."""
    from geoflow.tools.check import checked

    given: dict[str, Any] | None = _given(request)
    given = given if given or request.params else None
    return checked(request.job_type, None, given, request.run, request.seconds, session.registry)


def _doctor(session: Session, request: Request) -> Report:
    from geoflow.tools.doctor import doctor

    return doctor(session.settings)  # the session itself has no part in it


def tasks(session: Session, request: Request) -> Result:
    job, stage = named(session, request), _stage(request)
    form = getattr(request, "format", None)  # a notebook has frames
    if form not in ("geojson", "parquet") and (getattr(request, "geometry", None) or getattr(request, "crs", None)):
        raise UsageError("--geometry and --crs are for --format geojson and --format parquet.")
    if form is None:
        return Tasks(session.runtime, job, request.limit, request.state, stage)
    from geoflow.commands.tables import Written

    return Written(job, stage, request)


def _stage(request: Request) -> int | str | None:
    """The stage that was typed: a number, or a name."""
    stage: str | None = request.stage
    return int(stage) if stage and stage.isdecimal() else stage


_KEEPING = (convert, backup, restore, prune, reset, size, dump, types, config)
_NAMED = (run, submit, resume, rerun, cancel, tasks, sql, *_KEEPING, export, check, bundle, unbundle)
VERBS: dict[str, Callable[[Session, Request], Result | Report]] = {
    **{verb.__name__: verb for verb in _NAMED},
    "plan": lambda session, request: session.plan(request.job_type, _given(request)),
    "probe": lambda session, request: session.probe(request.job_type, _given(request), items=request.items),
    "jobs": lambda session, request: Listing(session, request, _limit(request)),
    "status": lambda session, request: Job(named(session, request), request),
    # Until the job has ended, or nobody drives it. An interrupt ends the watching alone.
    "watch": lambda session, request: _followed(session, named(session, request), request),
    "errors": lambda session, request: Errors(
        session.runtime, named(session, request), _limit(request), request.traceback
    ),
    "logs": lambda session, request: (Followed if getattr(request, "follow", False) else Logs)(
        session.runtime,
        named(session, request),
        request.limit,
        {name: getattr(request, name) for name in ("level", "contains", "task")},
    ),
    "history": lambda session, request: History(session.runtime, named(session, request), request.limit),
    "compare": lambda session, request: session.compare(
        request.job, request.other, on=request.on, tolerance=request.tolerance
    ),
    "output": lambda session, request: Output(
        session.runtime, *named_task(session.runtime, request.task), getattr(request, "follow", False)
    ),
    "debug": lambda session, request: Returned(task(session, request).debug(), session.settings.secrets),
    "retry": lambda session, request: _followed(session, _with_code(session, request).retry_failed(), request),
    "refinalize": lambda session, request: Job(_with_code(session, request).refinalize(), request),
    "doctor": _doctor,
}


_WITHOUT_STORE = frozenset(
    ("run", "submit", "plan", "probe", "convert", "restore", "export", "check", "doctor", "types", "config", "unbundle")
)


def open_session(request: Request) -> Session:
    """The session that the verb needs, in a terminal. Cancelling and debugging need no other process."""
    workers = 0 if request.verb in ("cancel", "debug", "bundle", "unbundle") else request.workers
    display, retries = "none" if request.json else None, getattr(request, "retries", None)
    session = Session(request.store, workers=workers, display=display, max_retries=retries)
    check_store(session, request)
    return session


def check_store(session: Session, request: Request) -> None:
    """Only a submission makes a store that is not there; to look for jobs in a new one is a mistake."""
    store = session.settings.store
    needs_one = request.verb not in _WITHOUT_STORE
    if needs_one and store != ":memory:" and not Path(store).exists():
        where = f"{Path(store).name} in {Path(store).parent}"
        raise StoreError(f"There is no store {where} yet. {request.prog} run makes one; --store names another.")


# The code of a job


def _with_code(session: Session, request: Request) -> JobHandle:
    """The job that was named, or the latest, once the code of its type is here; else the error says what to type."""
    _load(session, request)
    job = named(session, request)
    _check_code(session, request, session.runtime.row(job.id))
    return job


def _check_code(session: Session, request: Request, row: JobRow, what: str | None = None) -> None:
    try:
        session.runtime.registered_as(row)
    except DefinitionError as exc:
        raise DefinitionError(f"{exc.what or exc} Type: {command(request, request.verb, row, what)}") from None


def _load(session: Session, request: Request) -> None:
    """Register the job types of the files and modules that the user names, and of no others (S43)."""
    for place in request.load:
        session.register(place)
