"""The verbs that can be typed, in a terminal or in a notebook, and what each one does.

A verb is a function of a session and its parsed arguments. It returns the job, the jobs or the rows that it is about;
whoever called shows them. What may be said to each verb is in `geoflow.commands.grammar`.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoflow.api import is_open
from geoflow.commands.grammar import UsageError, parameters, written
from geoflow.errors import DefinitionError, JobNotFound, StoreBusy, StoreError
from geoflow.support.masking import safe
from geoflow.support.text import plain

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.core.rows import JobRow
    from geoflow.job_handle import JobHandle
    from geoflow.session import Session
    from geoflow.task_handle import TaskHandle
    from geoflow.tools.check import CheckReport
    from geoflow.tools.doctor import DoctorReport
    from geoflow.tools.export import Export
    from geoflow.tools.forecast.plan import Plan
    from geoflow.tools.forecast.probe import Probe


def run(session: Session, args: argparse.Namespace) -> JobHandle:
    return session._run(args.job_type, _given(args), args.on_existing, _remark)


def submit(session: Session, args: argparse.Namespace) -> JobHandle:
    job = session._submit(args.job_type, _given(args), args.on_existing, here=False)
    _remark(job, args.on_existing)
    return job


def _remark(job: JobHandle, on_existing: str) -> None:
    if on_existing == "return" and (said := job._found_again("--on-existing {}")):
        tell(said)


def plan(session: Session, args: argparse.Namespace) -> Plan:
    return session.plan(args.job_type, _given(args))


def probe(session: Session, args: argparse.Namespace) -> Probe:
    return session.probe(args.job_type, _given(args), items=args.items)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters: what is typed counts more than the cell, and that more than the file."""
    of_file: dict[str, Any] = {}
    if args.params is not None:
        try:
            of_file = written(Path(args.params).read_text("utf-8"), args.params)
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"The parameters in {args.params} cannot be read: {exc}.") from None
    return {**of_file, **args.given, **parameters(args.words, args.variables)}


class Jobs:
    """The jobs of a session's store, for a terminal: lines are drawn without a DataFrame's being made."""

    exit_status = 0

    def __init__(self, session: Session, limit: int | None) -> None:
        self._session = session
        self._limit = limit

    def frame(self) -> pd.DataFrame:
        found = self._session.jobs()
        return found if self._limit is None else found.tail(self._limit)

    def lines(self, width: int) -> list[str]:
        from geoflow.render.display import jobs_text
        from geoflow.stores.questions import number_of_jobs
        from geoflow.views.snapshot import listing

        session = self._session
        found = listing(session.store, session.runtime.clock.now(), self._limit)
        if not found:
            return [f"There are no jobs in {plain(session.settings.store_name)} yet."]
        with session.store.reading() as connection:
            number = number_of_jobs(connection)
        more = [f"The last {len(found):,} of {number:,}; --limit {number} shows all."] if number > len(found) else []
        return more + jobs_text(reversed(found), width).splitlines()


def jobs(session: Session, args: argparse.Namespace) -> Jobs:
    """In a terminal the latest, unless more are asked for or a program reads them: there may be 10,000."""
    return Jobs(session, _limit(args))


def status(session: Session, args: argparse.Namespace) -> JobHandle:
    """The job that was named, or the latest."""
    if args.job is not None:
        return session.job(args.job)
    found = session.store.latest()
    if found is None:
        raise JobNotFound(f"There are no jobs in {session.settings.store_name}. {args.prog} run hello_world makes one.")
    return session.job(found.job_id)


def watch(session: Session, args: argparse.Namespace) -> JobHandle:
    """Returns when the job has ended, or when nobody drives it. An interrupt ends the watching alone."""
    job = status(session, args)
    session.follow(job)
    return job


def tasks(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    found = status(session, args).tasks()
    return (found[found["status"] == args.state] if args.state else found)[: args.limit]


def errors(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    """In a terminal the last few, unless more are asked for or a program reads them: there may be 100,000."""
    return status(session, args).errors(limit=_limit(args))


def _limit(args: argparse.Namespace) -> int | None:
    return args.shown if args.limit is None and not args.json else args.limit  # type: ignore[no-any-return]


def logs(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    found = status(session, args).logs()
    return found if args.limit is None else found.tail(args.limit)


def debug(session: Session, args: argparse.Namespace) -> Any:
    """What the task's handler returned, or None when it raised."""
    return task(session, args).debug()


def task(session: Session, args: argparse.Namespace) -> TaskHandle:
    """The task that was named, once the code of its type is here."""
    from geoflow.task_handle import find

    _load(session, args)
    found = find(session, args.task)
    _check_code(session, args, found.job._row(), f"{found.job.id[:8]}/{found.id}")
    return found


def resume(session: Session, args: argparse.Namespace) -> JobHandle | list[JobHandle]:
    """Go on with one job, or with all that were interrupted; those whose code is not here are told of and left."""
    if args.job:
        job = _with_code(session, args).resume()
        session.follow(job)
        return job
    _load(session, args)
    stopped = [job for row in session.store.unended() if (job := session.job(row.job_id)).interrupted]
    for job in session.resume():
        session.follow(job)
    return stopped


def retry(session: Session, args: argparse.Namespace) -> JobHandle:
    job = _with_code(session, args).retry_failed()
    session.follow(job)
    return job


def rerun(session: Session, args: argparse.Namespace) -> JobHandle:
    stage = int(args.stage) if args.stage and args.stage.isdecimal() else args.stage
    job = _with_code(session, args)
    if args.stale and not job.stale:
        tell(f"Nothing of job {job.id[:8]} ran with older code: nothing was done.")
        return job
    job.rerun(stage=stage, stale=args.stale)
    session.follow(job)
    return job


def refinalize(session: Session, args: argparse.Namespace) -> JobHandle:
    return _with_code(session, args).refinalize()


def cancel(session: Session, args: argparse.Namespace) -> JobHandle:
    job = session.job(args.job)
    if job.ended:
        tell(f"There is nothing to cancel: job {job.id[:8]} has ended, as {job.status}.")
    return job.cancel()


def sql(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    if not args.query:
        raise UsageError(
            f"The query is missing, such as: {args.prog} sql select status, count(*) from tasks group by 1"
        )
    return session.sql(" ".join(args.query))


def convert(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    """How many rows of each table were copied. The session's own store has no part in it."""
    import pandas as pd

    from geoflow.stores.convert import convert as copy

    copied = copy(args.source, args.target)
    log, new = (session.settings.model_copy(update={"store": store}).log_path for store in (args.source, args.target))
    if log is not None and log != new and log.exists():
        tell(f"The log stays with {args.source}, in {log}: cp {shlex.join((str(log), str(new)))} takes it along.")
    return pd.DataFrame(list(copied.items()), columns=["table", "rows"])


def backup(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    """What was made, and how large it is."""
    try:
        return session.backup(args.target)
    except StoreBusy as exc:
        there = f"session.backup({args.target!r})"
        raise StoreBusy(f"{exc} Or make the backup where it is held: {there}.") from None


def restore(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    """What was put in the store's place, and what has another name now. No session may have the store open."""
    from geoflow.stores.backup import restore as put_back
    from geoflow.views.frames import files

    settings = session.settings
    if settings.store == ":memory:":
        raise StoreError("A store in memory is its session's own: name a file with --store.")
    if is_open(settings.store):
        raise StoreBusy(f"{settings.store_name} is open in this process: close its session first.")
    restored, aside = put_back(Path(args.source), Path(settings.store), settings.log_path)
    return files(restored=restored, set_aside=aside)


def export(session: Session, args: argparse.Namespace) -> Export:
    """What was written of a job type that was made with `gf.JobType`, and what it was proved on."""
    from geoflow.tools.export import export as write

    registered = session._registered(args.job_type)
    job = None if args.job is None else session.job(args.job)
    target: Any = registered.maker or registered.job_class
    how: dict[str, Any] = {"prove": not args.no_proof, "overwrite": args.overwrite}
    return write(target, args.folder, job=job, session=session, **how)


def check(session: Session, args: argparse.Namespace) -> CheckReport:
    """What is found for a job type of the session, or of the file that is named. Nothing of it is stored."""
    from geoflow.tools.check import checked

    given: dict[str, Any] | None = _given(args)
    given = given if given or args.params else None
    return checked(args.job_type, None, given, args.run, args.seconds, session.registry)


def doctor(session: Session, args: argparse.Namespace) -> DoctorReport:
    """What is found for the session's settings. The session itself has no part in it."""
    from geoflow.tools.doctor import doctor as look

    return look(session.settings)


VERBS: dict[str, Callable[[Session, argparse.Namespace], Any]] = {
    verb.__name__: verb
    for verb in (
        *(run, submit, plan, probe, jobs, status, watch, tasks, errors, logs, debug),
        *(resume, retry, rerun, refinalize, cancel, sql, convert, backup, restore, export, check, doctor),
    )
}


def open_session(args: argparse.Namespace) -> Session:
    """The session that the verb needs, in a terminal."""
    from geoflow.session import Session

    # Cancelling and debugging need no other process; nobody is to wait for one to start.
    workers = 0 if args.verb in ("cancel", "debug") else args.workers
    session = Session(args.store, workers=workers, display="none" if args.json else None)
    check_store(session, args)
    return session


def check_store(session: Session, args: argparse.Namespace) -> None:
    """Only a submission makes a store that is not there; to look for jobs in a new one is a mistake."""
    store = session.settings.store
    needs_one = args.verb not in ("run", "submit", "plan", "probe", "convert", "restore", "export", "check", "doctor")
    if needs_one and store != ":memory:" and not Path(store).exists():
        where = f"{Path(store).name} in {Path(store).parent}"
        raise StoreError(f"There is no store {where} yet. {args.prog} run makes one; --store names another.")


def tell(text: str) -> None:
    """One remark, beside the output."""
    with contextlib.suppress(OSError):  # the terminal has gone, or the disk behind it is full
        print(f"geoflow: {safe(text)}", file=sys.stderr)


# The code of a job


def _with_code(session: Session, args: argparse.Namespace) -> JobHandle:
    """The job that was named, or the latest, once the code of its type is here; else the error says what to type."""
    _load(session, args)
    job = status(session, args)
    _check_code(session, args, job._row())
    return job


def _check_code(session: Session, args: argparse.Namespace, row: JobRow, what: str | None = None) -> None:
    try:
        session._registered_as(row)
    except DefinitionError as exc:
        raise DefinitionError(f"{exc.what or exc} Type: {command(args, args.verb, row, what)}") from None


def _load(session: Session, args: argparse.Namespace) -> None:
    """Register the job types of the files and modules that the user names, and of no others (S43)."""
    for place in args.load:
        session.register(place)


def command(args: argparse.Namespace, verb: str, row: JobRow, what: str | None = None) -> str:
    """What to type for *verb* on this job: the same store, and the file that its code came from."""
    from geoflow.jobtypes.loading import BUILT_IN

    words = [verb, what or row.job_id[:8]]
    if row.job_type not in BUILT_IN:
        words += ["--load", _place(row.source)]
    if args.store is not None:
        words += ["--store", args.store]
    return plain(f"{args.prog} {shlex.join(words)}")


def _place(source: str | None) -> str:
    """What ``--load`` is given for the file *source*: its path, or its dotted name when it is part of a package."""
    if source is None:
        return "FILE"
    packages = list(takewhile(lambda folder: (folder / "__init__.py").is_file(), Path(source).parents))
    names = (*(folder.name for folder in reversed(packages)), Path(source).stem)
    return ".".join(names) if packages else source
