"""The verbs that can be typed, in a terminal or in a notebook: what may be said to each, and what each one does.

A verb is a function of a session and its parsed arguments. It returns the job, the jobs or the rows that it is about;
whoever called shows them. Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from geoflow import __version__
from geoflow.errors import DefinitionError, GeoflowError, JobNotFound, StoreError
from geoflow.text import mask_text, plain

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.handle import JobHandle
    from geoflow.session import Session
    from geoflow.stores.base import JobRow

EXAMPLES = """\
JOB_TYPE is a built-in job type (hello_world, list_container_contents), a
Python file such as jobs.py, one of several job types in it, as in
jobs.py:tile_stats, or a module such as package.module. A file or module has
its job types in the dict ALL_JOBS, and their handlers in ALL_HANDLERS.

A value is JSON where it can be read as JSON (n=3, strict=true, bands=[1,2])
and text where it cannot (folder=data). To have it taken as text all the same,
put it into double quotes that reach the command: 'name="3"'.
"""


class UsageError(GeoflowError, ValueError):
    """What was typed is not a command."""


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would end the process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See {self.prog} --help.")


def parser(prog: str = "geoflow", epilog: str = "") -> Parser:
    """The parser of all verbs. The options that they have in common stand before the verb or after it."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print one JSON document, and nothing else")
    common.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    common.add_argument("--store", metavar="PATH", help="default: GEOFLOW_STORE, or geoflow.db")
    common.add_argument("--workers", metavar="N", type=int, help="worker processes; 0 runs all in this one")
    top = Parser(prog=prog, description="Run staged jobs on this machine.", epilog=epilog, parents=[common])
    top.add_argument("--version", action="version", version=f"geoflow {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def part(name: str, **about: Any) -> Parser:
        found = Parser(add_help=False)
        found.add_argument(name, **about)
        return found

    def verb(name: str, text: str, *parts: Parser, epilog: str = "") -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, epilog=epilog, parents=[common, *parts])

    job = part("job", metavar="JOB", help="the beginning of its id")
    latest = part("job", metavar="JOB", nargs="?", help="the beginning of its id; without it, the latest job")
    stopped = part("job", metavar="JOB", nargs="?", help="the beginning of its id; without it, every interrupted job")
    code = part("--load", metavar="FILE", action="append", default=[], help="the file or module with its job type")
    run = verb("run", "Run a job and wait for its end.", epilog=EXAMPLES)
    run.add_argument("job_type", metavar="JOB_TYPE", help="what to run; see below")
    run.add_argument("words", metavar="name=value", nargs="*", help="its parameters")
    ways = ("return", "resume", "rerun", "raise")
    run.add_argument(
        "--on-existing", choices=ways, default="return", help="look at a job that exists, go on, redo, fail"
    )
    verb("jobs", "List the jobs of the store, oldest first.")
    verb("status", "Show a job: its stages, its errors, its result.", latest)
    tasks = verb("tasks", "List a job's tasks.", latest)
    states = ("queued", "processing", "completed", "failed", "cancelled")
    tasks.add_argument("--state", choices=states, help="only the tasks in this state")
    errors = verb("errors", "List the attempts that failed in a job, newest last.", latest)
    errors.add_argument("--traceback", action="store_true", help="with their tracebacks, each once")
    verb("resume", "Go on with a job that is not at its end: what has not completed runs.", stopped, code)
    verb("retry", "Run a job's failed tasks again, and go on from there.", job, code)
    verb("refinalize", "Run a completed job's finalize again, over the results that are there.", job, code)
    sql = verb("sql", "Ask about the tables jobs, tasks, attempts and logs; result->>'$.x' reads JSON.")
    sql.add_argument("query", metavar="QUERY", help='such as "select status, count(*) from tasks group by 1"')
    convert = verb("convert", "Copy a store, from SQLite to DuckDB or back, and check the copy.")
    convert.add_argument("source", metavar="SOURCE")
    convert.add_argument("target", metavar="TARGET", help="a file that is not there yet; .duckdb makes it a DuckDB one")
    verb("cancel", "End a job; what runs is stopped, what waits will not run.", job).set_defaults(workers=0)
    return top


def parse(words: Sequence[str], prog: str = "geoflow", epilog: str = "") -> argparse.Namespace:
    """What was typed. ``UsageError`` when it is no command; ``SystemExit`` after ``--help`` and ``--version``."""
    # Not given as the parsers' defaults: a verb's own would hide what was said before the verb.
    unsaid = argparse.Namespace(prog=prog, json=False, debug=False, store=None, workers=None)
    args, rest = parser(prog, epilog).parse_known_args(words, unsaid)
    if args.verb == "run":  # argparse takes parameters in one piece; here they may stand between options
        args.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        raise UsageError(f"{prog} {args.verb} does not know {' '.join(rest)}. See {prog} {args.verb} --help.")
    return args


def parameters(words: Sequence[str]) -> dict[str, Any]:
    """The parameters in *words* of the form ``name=value``; ``UsageError`` names all those that are not."""
    pairs = [word.partition("=") for word in words]
    wrong = [repr("".join(pair)) for pair in pairs if not (pair[0] and pair[1])]
    if wrong:
        raise UsageError(f"A parameter is written name=value, such as n=3, and not {', '.join(wrong)}.")
    return {name: _value(text) for name, _, text in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)  # NaN and Infinity are no JSON
    except ValueError:
        return text


# What the verbs do


def run(session: Session, args: argparse.Namespace) -> JobHandle:
    job = session._submit(args.job_type, parameters(args.words), args.on_existing, here=True)
    if job.id not in session._engine.runs:
        tell(f"Job {job.id[:8]} was submitted before, and is {job.status}. --on-existing rerun does all of it again.")
    session.follow(job)
    return job


def jobs(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    return session.jobs()


def status(session: Session, args: argparse.Namespace) -> JobHandle:
    """The job that was named, or the latest."""
    if args.job is not None:
        return session.job(args.job)
    found = session.store.jobs()
    if not found:
        raise JobNotFound(f"There are no jobs in {session.settings.store}. {args.prog} run hello_world makes one.")
    return session.job(found[-1].job_id)


def tasks(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    found = status(session, args).tasks()
    return found[found["status"] == args.state] if args.state else found


def errors(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    return status(session, args).errors()


def resume(session: Session, args: argparse.Namespace) -> JobHandle | list[JobHandle]:
    """Go on with one job, or with all that were interrupted; those whose code is not here are told of and left."""
    if args.job:
        return retry(session, args)
    _load(session, args)
    stopped = [job for row in session.store.jobs() if (job := session.job(row.job_id)).interrupted]
    for job in session.resume():
        session.follow(job)
    return stopped


def retry(session: Session, args: argparse.Namespace) -> JobHandle:
    job = _with_code(session, args).retry_failed()
    session.follow(job)
    return job


def refinalize(session: Session, args: argparse.Namespace) -> JobHandle:
    return _with_code(session, args).refinalize()


def cancel(session: Session, args: argparse.Namespace) -> JobHandle:
    return session.job(args.job).cancel()


def sql(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    return session.sql(args.query)


def convert(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    """How many rows of each table were copied. The session's own store has no part in it."""
    import pandas as pd

    from geoflow.stores.convert import convert as copy

    return pd.DataFrame(list(copy(args.source, args.target).items()), columns=["table", "rows"])


VERBS: dict[str, Callable[[Session, argparse.Namespace], Any]] = {
    verb.__name__: verb for verb in (run, jobs, status, tasks, errors, resume, retry, refinalize, cancel, sql, convert)
}


def open_session(args: argparse.Namespace) -> Session:
    """The session that the verb needs. Only ``run`` makes a store that is not there."""
    from geoflow.session import Session

    session = Session(args.store, workers=args.workers, display="none" if args.json else None)
    store = session.settings.store
    if args.verb not in ("run", "convert") and not Path(store).exists():
        raise StoreError(f"There is no store {store} yet. {args.prog} run makes one; --store names another.")
    return session


def tell(text: str) -> None:
    """One remark, beside the output."""
    print(f"geoflow: {plain(mask_text(text))}", file=sys.stderr)


# The code of a job


def _with_code(session: Session, args: argparse.Namespace) -> JobHandle:
    """The job that was named, once the code of its type is here; else the error says what to type."""
    _load(session, args)
    job = session.job(args.job)
    try:
        session._registered_as(job._row())
    except DefinitionError as exc:
        raise DefinitionError(f"{exc} Type: {command(args, args.verb, job._row())}") from None
    return job


def _load(session: Session, args: argparse.Namespace) -> None:
    """Register the job types of the files and modules that the user names, and of no others (S43)."""
    for place in args.load:
        session.register(place)


def command(args: argparse.Namespace, verb: str, row: JobRow) -> str:
    """What to type for *verb* on this job: the same store, and the file that its code came from."""
    from geoflow.loading import BUILT_IN

    words = [verb, row.job_id[:8]]
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
