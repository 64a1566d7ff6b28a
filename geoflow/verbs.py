"""The verbs that can be typed, in a terminal or in a notebook: what may be said to each, and what each one does.

A verb is a function of a session and its parsed arguments. It returns the job, the jobs or the rows that it is about;
whoever called shows them. Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from geoflow import __version__
from geoflow.errors import DefinitionError, GeoflowError, JobNotFound, ParameterError, StoreError
from geoflow.text import plain

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.handle import JobHandle
    from geoflow.session import Session
    from geoflow.stores.base import JobRow

STATES = ("queued", "processing", "completed", "failed", "cancelled")
ID = "the beginning of its id"
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
    common = Parser(add_help=False)
    # Suppressed, since a verb's own default would hide what was said before the verb; `parse` fills them in.
    group = common.add_argument_group("common options")
    for option, help_text in (
        ("--json", "print one JSON document, and nothing else"),
        ("--debug", "show the whole traceback of an error"),
    ):
        group.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=help_text)
    group.add_argument(
        "--store", metavar="PATH", default=argparse.SUPPRESS, help="default: GEOFLOW_STORE, or geoflow.db"
    )
    top = Parser(prog=prog, description="Run staged jobs on this machine.", epilog=epilog, parents=[common])
    top.add_argument("--version", action="version", version=f"geoflow {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    def verb(name: str, text: str, **options: Any) -> Parser:
        return verbs.add_parser(name, help=text[0].lower() + text[1:-1], description=text, parents=[common], **options)

    found = verb("run", "Run a job and wait for its end.", epilog=EXAMPLES)
    found.add_argument("job_type", metavar="JOB_TYPE", help="what to run; see below")
    found.add_argument("words", metavar="name=value", nargs="*", help="its parameters")
    found.add_argument("--params", metavar="FILE", help="a JSON object of parameters; - reads it from the input")
    found.add_argument(
        "--on-existing",
        choices=("return", "resume", "rerun", "raise"),
        default="return",
        help="if the job exists: look at it (the default), go on with it, do it all again, or fail",
    )
    verb("jobs", "List the jobs of the store, oldest first.")
    for name, text in (
        ("status", "Show a job: its stages, its errors, its result."),
        ("tasks", "List a job's tasks."),
        ("errors", "Show what failed in a job, and why."),
    ):
        found = verb(name, text)
        found.add_argument("job", metavar="JOB", nargs="?", help=f"{ID}; without it, the latest job")
        if name == "tasks":
            found.add_argument("--state", choices=STATES, help="only the tasks in this state")
            found.add_argument("--limit", type=_number, metavar="N", help="at most N tasks")
            found.add_argument("--flat", action="store_true", help="a column for each parameter and result")
        if name == "errors":
            found.add_argument("--traceback", action="store_true", help="with the traceback of each kind of failure")
    for name, text in (
        ("resume", "Go on with an interrupted, failed or cancelled job: what has not completed runs."),
        ("retry", "Run a job's failed tasks again, and go on from there."),
        ("refinalize", "Run a completed job's finalize again, over the results that are there."),
    ):
        found = verb(name, text)
        if name == "resume":
            found.add_argument("job", metavar="JOB", nargs="?", help=f"{ID}; without it, every interrupted job")
        else:
            found.add_argument("job", metavar="JOB", help=ID)
        found.add_argument(
            "--load",
            metavar="FILE",
            action="append",
            default=[],
            help="the Python file or module with its job type, which is never loaded from the store's word alone",
        )
    for name in ("run", "resume", "retry", "refinalize"):
        verbs.choices[name].add_argument(
            "--workers", type=_number, metavar="N", help="worker processes; 0 runs all in this one"
        )
    found = verb("cancel", "End a job; what runs is stopped, what waits will not run.")
    found.add_argument("job", metavar="JOB", help=ID)
    return top


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def parse(words: Sequence[str], prog: str = "geoflow", epilog: str = "") -> argparse.Namespace:
    """What was typed. ``UsageError`` when it is no command; ``SystemExit`` after ``--help`` and ``--version``."""
    args, rest = parser(prog, epilog).parse_known_args(words)
    if args.verb == "run":  # argparse takes parameters in one piece; here they may stand between options
        args.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        hint = f" (a parameter has no dashes: {rest[0].lstrip('-')})" if args.verb == "run" and "=" in rest[0] else ""
        raise UsageError(f"{prog} {args.verb} does not know {' '.join(rest)}{hint}. See {prog} {args.verb} --help.")
    for name, default in (("json", False), ("debug", False), ("store", None), ("workers", None)):
        setattr(args, name, getattr(args, name, default))
    args.prog = prog
    return args


def parameters(words: Iterable[str]) -> dict[str, Any]:
    """The parameters in *words* of the form ``name=value``; ``UsageError`` names all those that are not."""
    found: dict[str, Any] = {}
    problems = []
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or not key.strip():
            problems.append(f"{word!r} is not a parameter: write name=value, such as n=3.")
        elif key in found:
            problems.append(f"{key!r} is given twice.")
        else:
            found[key] = _value(text)
    if problems:
        raise UsageError("\n".join(problems))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError):
        return text


def _not_json(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity are Python's own


def parameters_from(place: str) -> dict[str, Any]:
    """The parameters in the JSON file *place*, or on the standard input for ``-``."""
    name = "The standard input" if place == "-" else place
    try:
        text = sys.stdin.read() if place == "-" else Path(place).read_text("utf-8-sig")
        found = json.loads(text, parse_constant=_not_json)
    except OSError as exc:
        raise ParameterError(f"{name} cannot be read: {exc.strerror}. --params is a file with a JSON object.") from None
    except (ValueError, RecursionError) as exc:
        raise ParameterError(f"{name} does not hold JSON: {exc}.") from None
    if not isinstance(found, dict):
        raise ParameterError(f"{name} holds a JSON {type(found).__name__}: --params needs an object, name to value.")
    return found


# What the verbs do


def run(session: Session, args: argparse.Namespace) -> JobHandle:
    given = parameters_from(args.params) if args.params else {}
    job = session._submit(args.job_type, {**given, **parameters(args.words)}, args.on_existing, here=True)
    return _followed(session, job)


def jobs(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    return session.jobs()


def status(session: Session, args: argparse.Namespace) -> JobHandle:
    return named(session, args)


def tasks(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    found = named(session, args).tasks(flat=args.flat)
    if args.state:
        found = found[found["status"] == args.state]
    return found if args.limit is None else found.head(args.limit)


def errors(session: Session, args: argparse.Namespace) -> pd.DataFrame:
    return named(session, args).errors()


def resume(session: Session, args: argparse.Namespace) -> JobHandle | list[JobHandle]:
    """Go on with one job, or with all that were interrupted; those whose code is not here are told of and left."""
    from geoflow.handle import JobHandle

    if args.job:
        return retry(session, args)
    load(session, args)
    found = [job for row in session.store.jobs() if (job := JobHandle(session, row.job_id)).interrupted]
    driven = []
    for job in found:
        row = job._row()
        try:
            check_code(session, row, args)
            driven.append(session._drive(row, session.registry.get(row.job_type), "go on"))
        except GeoflowError as exc:  # its code is missing or will not do, or another process was quicker
            tell(str(exc))
    for job in driven:
        _followed(session, job)
    return found


def retry(session: Session, args: argparse.Namespace) -> JobHandle:
    job = _with_code(session, args)
    return _followed(session, job.retry_failed())


def refinalize(session: Session, args: argparse.Namespace) -> JobHandle:
    return _with_code(session, args).refinalize()


def cancel(session: Session, args: argparse.Namespace) -> JobHandle:
    return named(session, args).cancel()


VERBS: dict[str, Callable[[Session, argparse.Namespace], Any]] = {
    verb.__name__: verb for verb in (run, jobs, status, tasks, errors, resume, retry, refinalize, cancel)
}


def open_session(args: argparse.Namespace, display: str | None) -> Session:
    """The session that the verb needs. Only ``run`` makes a store that is not there."""
    from geoflow.session import Session

    # To cancel takes no worker.
    session = Session(args.store, workers=0 if args.verb == "cancel" else args.workers, display=display)
    store = session.settings.store
    if args.verb != "run" and store != ":memory:" and not Path(store).exists():
        raise StoreError(f"There is no store {store} yet. {args.prog} run makes one; --store names another.")
    return session


def _followed(session: Session, job: JobHandle) -> JobHandle:
    if job.id not in session._runs and not job.ended and not job.interrupted:
        driver = session.store.driver(job._row().job_key) or "another process"
        tell(f"Job {job.id[:8]} is driven by {driver}; an interrupt ends the waiting here, not the job.")
    session.follow(job)
    return job


def tell(text: str) -> None:
    """One remark, beside the output."""
    with contextlib.suppress(BrokenPipeError):
        print(f"geoflow: {plain(text)}", file=sys.stderr)


# Which job, and its code


def named(session: Session, args: argparse.Namespace) -> JobHandle:
    """The job that was named, or the latest."""
    if args.job is not None:
        return session.job(args.job)
    found = session.store.jobs()
    if not found:
        raise JobNotFound(f"There are no jobs in {session.settings.store}. {args.prog} run hello_world makes one.")
    return session.job(found[-1].job_id)


def _with_code(session: Session, args: argparse.Namespace) -> JobHandle:
    load(session, args)
    job = session.job(args.job)
    check_code(session, job._row(), args)
    return job


def load(session: Session, args: argparse.Namespace) -> None:
    """Register the job types of the files and modules that the user names."""
    for place in args.load:
        session.register(place)


def check_code(session: Session, row: JobRow, args: argparse.Namespace) -> None:
    """See that the job's type is registered, or raise ``DefinitionError`` with the command that loads it.

    Only what the user names is loaded: neither the job's type nor its source is, since both are read from the store.
    """
    from geoflow import loading

    if row.job_type not in session.registry and is_built_in(row):
        loading.find(session.registry, row.job_type)
    if row.job_type not in session.registry:
        loaded = f"{', '.join(args.load)} does not have it." if args.load else "It is not loaded by itself."
        known = "" if row.source else " FILE is where it is defined; a notebook goes on with it by job.resume()."
        raise DefinitionError(
            f"Job {row.job_id[:8]} needs the code of its job type {row.job_type!r}. {loaded} "
            f"Type: {command(args, args.verb, row)}{known}"
        )


def is_built_in(row: JobRow) -> bool:
    """Whether the job ran with geoflow's own job type of this name, not with one that replaced it."""
    from geoflow import loading

    source = Path(row.source).parts[-3:-1] if row.source else ("geoflow", "builtin")
    return row.job_type in loading.BUILT_IN and source == ("geoflow", "builtin")


def command(args: argparse.Namespace, verb: str, row: JobRow, *options: str) -> str:
    """What to type for *verb* on this job: the same store, and the file that its code came from."""
    words = [verb, row.job_id[:8], *options]
    if verb in ("resume", "retry", "refinalize") and not is_built_in(row):
        words += ["--load", _place(row.source)]
    if args.store is not None:
        words += ["--store", args.store]
    return plain(f"{args.prog} {shlex.join(words)}")


def _place(source: str | None) -> str:
    """What ``--load`` is given for the file *source*: its path, or its dotted name when it is part of a package."""
    if source is None:
        return "FILE"
    names = [Path(source).stem]
    for folder in Path(source).parents:
        if not (folder / "__init__.py").is_file():
            break
        names.insert(0, folder.name)
    return source if len(names) == 1 else ".".join(names)
