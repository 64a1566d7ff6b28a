"""What may be said to the verbs, in a terminal or in a notebook: the parser, and how values are written.

Nothing heavy is imported here: ``--help`` and a word that is wrong are answered at once.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from geoflow import __version__
from geoflow.errors import GeoflowError
from geoflow.support.text import shorten

EXAMPLES = """\
JOB_TYPE is a built-in job type (hello_world, list_container_contents), a
Python file such as jobs.py, one of several job types in it, as in
jobs.py:tile_stats, or a module such as package.module. A file or module has
its job types in the dict ALL_JOBS, and their handlers in ALL_HANDLERS.

A value is JSON where it can be read as JSON (n=3, strict=true, bands=[1,2]),
True, False, None or a list in Python's spelling, and text where it is none of
these (folder=data). """
IN_TERMINAL = """\
To have it taken as text all the same, put it into double
quotes that reach the command: 'name="3"'.
"""
IN_NOTEBOOK = """\
To have it taken as text all the same, quote it:
name="3". $name is the notebook's variable, the object itself: tile=$tile.
%%geoflow run JOB_TYPE takes parameters from the rest of the cell, as JSON or
YAML.
"""


class UsageError(GeoflowError, ValueError):
    """What was typed is not a command."""


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would end the process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        if wrong := re.match(r"argument VERB: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            known = re.findall(r"[\w-]+", wrong[2])
            near = get_close_matches(wrong[1], known, n=1)
            there = f"Did you mean {near[0]}?" if near else f"The verbs are {', '.join(known)}."
            raise UsageError(f"There is no verb {wrong[1]!r}. {there} See {self.prog} --help.")
        raise UsageError(f"{message}. See {self.prog} --help.")


def parser(prog: str = "geoflow", epilog: str = "", *, notebook: bool = False) -> Parser:
    """The parser of all verbs. The options that they have in common stand before the verb or after it."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    stays = "from now on; " if notebook else ""
    if not notebook:
        common.add_argument("--json", action="store_true", help="print one JSON document, or nothing after an error")
    common.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    common.add_argument("--store", metavar="PATH", help=f"{stays}default: GEOFLOW_STORE, or geoflow.db")
    common.add_argument("--workers", metavar="N", type=int, help=f"{stays}worker processes; 0 runs all in this one")
    top = Parser(prog=prog, description="Run staged jobs on this machine.", epilog=epilog, parents=[common])
    top.add_argument("--version", action="version", version=f"geoflow {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def part(name: str, **about: Any) -> Parser:
        found = Parser(add_help=False)
        found.add_argument(name, **about)
        return found

    def verb(name: str, text: str, *parts: Parser, epilog: str = "") -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, epilog=epilog, parents=[common, *parts])

    def latest_of(number: int) -> Parser:
        """A limit for what may be very long: so many are shown in a terminal, where no other number is given."""
        told = "only the last N" if notebook else f"only the last N; default: {number}, and with --json all"
        found = part("--limit", metavar="N", type=_number, help=told)
        found.set_defaults(shown=None if notebook else number)
        return found

    job = part("job", metavar="JOB", help="the beginning of its id")
    latest = part("job", metavar="JOB", nargs="?", help="the beginning of its id; without it, the latest job")
    stopped = part("job", metavar="JOB", nargs="?", help="the beginning of its id; without it, every interrupted job")
    task = part(
        "task",
        metavar="TASK",
        nargs="?",
        help="the beginning of its id, in the latest job, or JOB/TASK; without it, the first that failed",
    )
    brought = "the file or module with its job type; none is loaded by itself"
    code = part("--load", metavar="FILE", action="append", default=[], help=brought)
    first = part("--limit", metavar="N", type=_number, help="only the first N")
    last = part("--limit", metavar="N", type=_number, help="only the last N")
    work = part("job_type", metavar="JOB_TYPE", help="what to run; see below")
    work.add_argument("words", metavar="name=value", nargs="*", default=[], help="its parameters")
    work.add_argument("--params", metavar="FILE", help="a file with parameters, in JSON or YAML")
    existing = part(
        "--on-existing",
        choices=("return", "resume", "rerun", "raise"),
        default="return",
        help="look at a job that exists, go on, redo, fail",
    )
    examples = EXAMPLES + (IN_NOTEBOOK if notebook else IN_TERMINAL)
    verb("run", "Run a job and wait for its end.", work, existing, epilog=examples)
    if notebook:
        verb("submit", "Start a job, and return at once.", work, existing, epilog=examples)
    verb("plan", "Show what a job would be: its id, stages and first tasks. Nothing runs.", work, epilog=examples)
    probe = verb("probe", "Run a few tasks of each stage, and forecast the whole job.", work, epilog=examples)
    probe.add_argument("--items", metavar="N", type=int, default=3, help="how many tasks of each stage; default: 3")
    verb("jobs", "List the jobs of the store, oldest first.", latest_of(50))
    verb("status", "Show a job: its stages, its errors, its result.", latest)
    verb("watch", "Show a job while it runs, whoever runs it.", latest)
    tasks = verb("tasks", "List a job's tasks.", latest, first)
    states = ("queued", "processing", "completed", "failed", "cancelled")
    tasks.add_argument("--state", choices=states, help="only the tasks in this state")
    kinds = "" if notebook else "How many failed alike comes first; --json has the attempts alone, all of them."
    text = "List the attempts that failed in a job, newest last."
    errors = verb("errors", text, latest, latest_of(20), epilog=kinds)
    errors.add_argument("--traceback", action="store_true", help="with their tracebacks, each once")
    verb("logs", "List the log lines of a job, its handlers' included.", latest, last)
    verb("debug", "Run one task again, here, and open a debugger where it raises.", task, code)
    if notebook:
        verb("load", "Put a task's parameters, and a call of its handler, into the next cell.", task, code)
    verb("resume", "Go on with a job that is not at its end: what has not completed runs. See --load.", stopped, code)
    verb("retry", "Run a job's failed tasks again, and go on from there.", latest, code)
    again = verb("rerun", "Run a job, or a part of it, over again with the code of now.", latest, code)
    part_of_it = again.add_mutually_exclusive_group()
    part_of_it.add_argument("--stage", metavar="STAGE", help="only this stage, its number or name, and those behind it")
    part_of_it.add_argument(
        "--stale", action="store_true", help="only what ran with older code, and the stages behind it"
    )
    verb("refinalize", "Run a completed job's finalize again, over the results that are there.", latest, code)
    verb("cancel", "End a job; what runs is stopped, what waits will not run.", job)
    sql = verb("sql", "Ask about the tables jobs, stages, tasks, attempts and logs; result->>'$.result.x' reads JSON.")
    if notebook:
        sql.add_argument("-o", "--output", metavar="NAME", help="keep the answer in this variable, and show nothing")
    sql.add_argument(
        "query",
        metavar="QUERY",
        nargs="*" if notebook else "+",
        help='such as "select status, count(*) from tasks group by 1"',
    )
    export = verb("export", "Write a gf.JobType as a module for production, proved on its latest completed run.")
    export.add_argument(
        "job_type", metavar="FILE", help="the file or module with it; file.py:job_type for one of several"
    )
    export.add_argument("folder", metavar="FOLDER", help="where the module and its test are written, such as jobs/")
    export.add_argument("--job", metavar="JOB", help="the beginning of the id of the run that it is proved on")
    export.add_argument("--no-proof", action="store_true", help="do not run it")
    export.add_argument("--overwrite", action="store_true", help="replace the files that are there")
    check = verb("check", "Look for what is wrong with a job type, before production finds out.", work, epilog=examples)
    told = "so many tasks of each stage are tried, for real; 0 tries none; default: 3"
    check.add_argument("--run", metavar="N", type=_number, default=3, help=told)
    check.add_argument("--seconds", metavar="S", type=float, default=60.0, help="stop the trial then; default: 60")
    verb("doctor", "Look for what is wrong with this machine for this work, and say what to do.")
    convert = verb("convert", "Copy a store, from SQLite to DuckDB or back, and check the copy.")
    convert.add_argument("source", metavar="SOURCE")
    convert.add_argument("target", metavar="TARGET", help="a file that is not there yet; .duckdb makes it a DuckDB one")
    backup = verb("backup", "Copy the store and its log while jobs run, to a new file, and check the copy.")
    backup.add_argument("target", metavar="PATH", help="a file that is not there yet")
    restore = verb("restore", "Put a backup in the store's place; the store that is there gets another name.")
    restore.add_argument("source", metavar="BACKUP", help="what geoflow backup made; it stays as it is")
    return top


def _in_short(no_yaml: Any) -> str:
    mark = getattr(no_yaml, "problem_mark", None)
    return shorten(f"line {mark.line + 1}: {no_yaml.problem}" if mark else str(no_yaml), 200)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


def options(top: Parser, verb: str | None = None) -> dict[str, argparse.Action]:
    """The options of *verb*, or those that stand before it, by each of their names."""
    found = top if verb is None else verbs(top)[verb]
    return {name: action for action in found._actions for name in action.option_strings}


def positionals(top: Parser, verb: str) -> list[argparse.Action]:
    """What *verb* takes by its place, in order."""
    return [action for action in verbs(top)[verb]._actions if not action.option_strings]


def verbs(top: Parser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the verbs, by name."""
    return next(action.choices for action in top._actions if isinstance(action, argparse._SubParsersAction))


def parse(
    words: Sequence[str], prog: str = "geoflow", epilog: str = "", *, notebook: bool = False
) -> argparse.Namespace:
    """What was typed. ``UsageError`` when it is no command; ``SystemExit`` after ``--help`` and ``--version``.

    Whoever takes parameters from elsewhere puts them into ``given``, and variables to look words up into ``variables``.
    """
    # Not given as the parsers' defaults: a verb's own would hide what was said before the verb.
    unsaid = argparse.Namespace(
        prog=prog, json=False, debug=False, store=None, workers=None, given={}, variables=None, output=None
    )
    args, rest = parser(prog, epilog, notebook=notebook).parse_known_args(words, unsaid)
    if hasattr(args, "words"):  # argparse takes parameters in one piece; here they may stand between options
        args.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        raise UsageError(f"{prog} {args.verb} does not know {' '.join(rest)}. See {prog} {args.verb} --help.")
    return args


def parameters(words: Sequence[str], variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters in *words* of the form ``name=value``; ``UsageError`` names all those that are not."""
    pairs = [word.partition("=") for word in words]
    wrong = [repr("".join(pair)) for pair in pairs if not (pair[0] and pair[1])]
    if wrong:
        raise UsageError(f"A parameter is written name=value, such as n=3, and not {', '.join(wrong)}.")
    return _each_once(((name, _value(text, variables)) for name, _, text in pairs), "What was typed")


def _each_once(pairs: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(
                f"{where} has {name} twice, as {_brief(found[name])} and as {_brief(value)}: give it once."
            )
        found[name] = value
    return found


def _brief(value: Any) -> str:
    return shorten(repr(value), 40)


def _value(text: str, variables: Mapping[str, Any] | None) -> Any:
    if is_variable(text, variables):
        return variable(text, variables or {})
    with contextlib.suppress(ValueError):
        # NaN and Infinity are no JSON; the commit 980e663509 is no number that anything could hold.
        return json.loads(text, parse_constant=str, parse_float=_number_or_text, parse_int=_number_or_text)
    if text.startswith(("[", "(", "{")) or text in ("True", "False", "None"):
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(text)
    return text


def _number_or_text(text: str) -> int | float | str:
    """The number that *text* says, or *text* where that would be another: out of range, or nothing left of it."""
    if text.lstrip("-").isdecimal():
        return number if len(text) < 25 and -(2**63) <= (number := int(text)) < 2**64 else text
    value = float(text)
    vanished = not value and re.search("[1-9]", re.split("[eE]", text)[0])
    return text if vanished or not math.isfinite(value) else value


def is_variable(word: str | None, variables: Mapping[str, Any] | None) -> bool:
    """Whether *word* is ``$name``, where there are variables."""
    return variables is not None and word is not None and word.startswith("$") and word[1:].isidentifier()


def variable(word: str, variables: Mapping[str, Any]) -> Any:
    """What the variable ``$name`` holds."""
    if word[1:] not in variables:
        raise UsageError(f"There is no variable {word[1:]} here. To say {word} as it is, quote it.")
    return variables[word[1:]]


def written(text: str, where: str) -> dict[str, Any]:
    """The parameters in *text*, which is JSON, or YAML where PyYAML is installed; *where* says it in an error."""
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: _each_once(pairs, where))
    except UsageError:
        raise
    except ValueError as exc:
        try:
            yaml = importlib.import_module("yaml")
        except ImportError:
            raise UsageError(f"{where} is not JSON: {exc}. For YAML, install PyYAML.") from None
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as no_yaml:
            raise UsageError(f"{where} is neither JSON nor YAML: {_in_short(no_yaml)}.") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UsageError(f"{where} must say parameters by name, such as n: 3, and not {shorten(repr(found), 60)}.")
    return found
