"""What may be said to the verbs, in a terminal or in a notebook: one click command for each, and what was typed.

Nothing heavy is imported here: ``--help`` and a word that is wrong are answered at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import Exit

from geoflow import __version__
from geoflow.commands.help_texts import EXAMPLES, EXIT_CODES, IN_NOTEBOOK, IN_TERMINAL, RULES
from geoflow.commands.values import UsageError
from geoflow.support.moments import WORDS
from geoflow.views.chosen import STATES

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETED, NOT_COMPLETED, REFUSED, WITH_ERRORS = 0, 1, 2, 3
FORMATS = "print what one stage's tasks took and gave, a column for each field, for other programs"
SHOWN = {"jobs": 50, "errors": 20}  # so many rows of what may be very long, in a terminal, unless others are asked for
_FILE = click.Path(readable=False)  # it need not be one, nor be there: the verbs say what is wrong with it better


class Request(SimpleNamespace):
    """What was typed: the verb, how the program was called (``prog``), and the options and arguments by name.

    Whoever takes parameters from elsewhere puts them into ``given``, and variables to look words up into ``variables``.
    """


class _InOurWords(click.Command):
    """Raises `UsageError` where click would end the process."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as exc:
            raise _in_our_words(exc, ctx, words) from None


class Verb(_InOurWords):
    """What may follow one verb. To invoke it is to be told what was typed."""

    def __init__(self, name: str, text: str, *params: click.Parameter, epilog: str = "") -> None:
        super().__init__(name, params=list(params), help=text, short_help=text, epilog=epilog)
        self.allow_extra_args = True
        self.ignore_unknown_options = name == "sql"  # select -1

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if self.name == "sql":  # of a query, what looks like an option is as often a mistake as anywhere
            rest = [word for word in ctx.params["query"] if re.fullmatch(r"--?[A-Za-z][\w=-]*", word)]
        if rest and not ctx.resilient_parsing:
            raise _unknown(ctx, " ".join(rest))
        return rest

    def invoke(self, ctx: click.Context) -> Request:
        """The options that all verbs have in common stand before the verb or after it."""
        before = ctx.parent.params if ctx.parent else {}
        after = {name: value for name, value in ctx.params.items() if value is not None and value is not False}
        return Request(**{**ctx.params, **before, **after}, verb=self.name)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if arguments := [(each.make_metavar(ctx), each.about) for each in self.params if isinstance(each, Place)]:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        super().format_options(ctx, formatter)


class Verbs(_InOurWords, click.Group):
    """All verbs, in their order."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            near = get_close_matches(args[0], self.commands, n=1)
            there = f"Did you mean {near[0]}?" if near else f"The verbs are {', '.join(self.commands)}."
            raise UsageError(f"There is no verb {args[0]!r}. {there} {_see(ctx)}")
        return super().resolve_command(ctx, args)


class Place(click.Argument):
    """What stands in its place after a verb, and what its help says of it."""

    def __init__(self, name: str, metavar: str, about: str = "", **more: Any) -> None:
        super().__init__([name], metavar=metavar, shell_complete=None if "type" in more else _offered, **more)
        self.about = about

    def get_usage_pieces(self, ctx: click.Context) -> list[str]:
        text = self.make_metavar(ctx) + " ..." * (self.nargs < 0)
        return [text if self.required else f"[{text}]"]


def _for_shells(name: str, about: str) -> click.Option:
    """An option that does something of its own, for a shell that may be named."""

    def act(ctx: click.Context, param: click.Parameter, shell: str | None) -> None:
        if shell is not None and not ctx.resilient_parsing:
            from geoflow.commands import shells

            do = shells.install if name.startswith("--install") else shells.script
            click.echo(do(shell, ctx.command))
            ctx.exit()

    told = f"{about}, in SHELL or else in yours: bash, zsh, fish"
    how: dict[str, Any] = {"is_flag": False, "flag_value": "", "expose_value": False, "is_eager": True}
    return _option(name, metavar="[SHELL]", callback=act, help=told, **how)


def _print_schema(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import json

        from geoflow.commands.documents import schema

        click.echo(json.dumps(schema(str(ctx.command.name)), indent=2))
        ctx.exit()


def _option(*names: str, **about: Any) -> click.Option:
    return click.Option(names, **about)


def _offered(ctx: click.Context, param: click.Parameter, fragment: str) -> list[CompletionItem[str]]:
    from geoflow.commands.completion import offered

    return offered(ctx, param, fragment)


def _rows(text: str) -> int:
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is not a number of rows")
    return int(text)


def _alone(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Refuse --stage, --stale and --update beside each other."""
    if value and (other := next((name for name in ("stage", "stale", "update") if ctx.params.get(name)), None)):
        raise click.BadParameter(f"not allowed with argument --{other}", ctx, param)
    return value


@cache
def commands(*, notebook: bool = False) -> Verbs:
    """The commands of a terminal, or those of a notebook."""
    stays = "from now on; " if notebook else ""
    json = _option("--json", is_flag=True, help="print one JSON document, or nothing after an error")
    common = [
        *([] if notebook else [json]),
        _option("--debug", is_flag=True, help="show the whole traceback of an error"),
        _option("--store", metavar="PATH", type=_FILE, help=f"{stays}default: GEOFLOW_STORE, or geoflow.db"),
        _option("--workers", metavar="N", type=int, help=f"{stays}worker processes; 0 runs all in this one"),
    ]

    def latest_of(verb: str) -> click.Option:
        """A limit for what may be very long."""
        default = "" if notebook else f"; default: {SHOWN[verb]}, and with --json all"
        return _option("--limit", metavar="N", type=_rows, help=f"only the last N{default}")

    begins = "the beginning of its id"
    job = Place("job", "JOB", begins)
    latest = Place("job", "JOB", f"{begins}; without it, the latest job", required=False)
    stopped = Place("job", "JOB", f"{begins}; without it, every interrupted job", required=False)
    which = f"{begins}, in the latest job, or JOB/TASK; without it, the first that failed"
    task = Place("task", "TASK", which, required=False)
    brought = "the file or module with its job type; none is loaded by itself"
    often = "so often a failed task is tried again, where its stage does not say; default: 3"
    retries = [] if notebook else [_option("--retries", metavar="N", type=click.IntRange(0, 1000), help=often)]
    code = _option("--load", metavar="FILE", type=_FILE, multiple=True, help=brought)
    work = (
        Place("job_type", "JOB_TYPE", "what to run; see below"),
        Place("words", "name=value", "its parameters", nargs=-1, required=False),
        _option("--params", metavar="FILE", type=_FILE, help="a file with parameters, in JSON or YAML"),
    )
    answers = click.Choice(("return", "resume", "rerun", "update", "raise"))
    again = "look at a job that exists, go on, redo, run what has changed, fail"
    existing = _option("--on-existing", type=answers, default="return", help=again)
    daily = "run what is new or has changed, take over the rest: --on-existing update"
    start = (*work, existing, _option("--update", "on_existing", flag_value="update", help=daily))
    states = click.Choice(("queued", "processing", "completed", "failed", "cancelled"))
    new = "a file that is not there yet"
    such = f"only those in this state, or one of these: {', '.join(STATES)}"
    of_type = _option("--type", "job_type", metavar="TYPE", help="only those of this job type")
    which_states = _option("--state", metavar="STATE", type=click.Choice(STATES), multiple=True, help=such)

    told: dict[str, Any] = {"is_flag": True, "expose_value": False, "is_eager": True, "callback": _print_schema}
    schema = [] if notebook else [_option("--json-schema", help="print the JSON Schema of what --json prints", **told)]

    def verb(name: str, text: str, *params: click.Parameter, epilog: str = "") -> None:
        of_json = schema if name != "mcp" else []
        top.add_command(Verb(name, text, *params, *common[:1], *of_json, *common[1:], epilog=epilog))

    top = Verbs(
        params=list(common),
        help="Run staged jobs on this machine.",
        epilog=RULES if notebook else EXIT_CODES,
        subcommand_metavar="VERB ...",
        no_args_is_help=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    click.version_option(__version__, message="geoflow %(version)s", help="print the version")(top)
    if not notebook:
        top.params.append(_for_shells("--install-completion", "complete words at the Tab key"))
        top.params.append(_for_shells("--show-completion", "print the script that does that"))
    examples = EXAMPLES + (IN_NOTEBOOK if notebook else IN_TERMINAL)
    says = (
        _option("--quiet", is_flag=True, help="print the job's id as it is submitted, and nothing else"),
        _option("--detach", is_flag=True, help="print its id and return; a process of its own runs it on"),
    )
    verb("run", "Run a job and wait for its end.", *start, *retries, *([] if notebook else says), epilog=examples)
    if notebook:
        verb("submit", "Start a job, and return at once.", *start, epilog=examples)
    verb("plan", "Show what a job would be: its id, stages and first tasks. Nothing runs.", *work, epilog=examples)
    few = _option("--items", metavar="N", type=int, default=3, help="how many tasks of each stage; default: 3")
    verb("probe", "Run a few tasks of each stage, and forecast the whole job.", *work, few, epilog=examples)
    from_then = _option("--since", metavar="WHEN", help=f"only those submitted since then: {WORDS}")
    verb("jobs", "List the jobs of the store, oldest first.", latest_of("jobs"), which_states, from_then, of_type)
    verb("status", "Show a job: its stages, its errors, its result.", latest)
    verb("watch", "Show a job while it runs, whoever runs it.", latest)
    first = _option("--limit", metavar="N", type=_rows, help="only the first N")
    state = _option("--state", type=states, help="only the tasks in this state")
    of_stage = _option("--stage", metavar="STAGE", help="only those of this stage, its number or name")
    forms = (
        _option("--format", type=click.Choice(("csv", "tsv", "geojson", "parquet")), help=FORMATS),
        _option("--geometry", metavar="COLUMN", help="with --format: the column that has the geometries"),
        _option("--crs", metavar="CRS", help="with --format: the CRS of these, such as EPSG:31985"),
    )
    verb("tasks", "List a job's tasks.", latest, first, state, of_stage, *(() if notebook else forms))
    kinds = "" if notebook else "How many failed alike comes first; --json has the attempts alone, all of them."
    whole = _option("--traceback", is_flag=True, help="with their tracebacks, each once")
    text = "List the attempts that failed in a job, newest last."
    verb("errors", text, latest, latest_of("errors"), whole, epilog=kinds)
    last = _option("--limit", metavar="N", type=_rows, help="only the last N")
    levels = click.Choice(("DEBUG", "INFO", "WARNING", "ERROR"), case_sensitive=False)
    level = _option("--level", type=levels, help="only those of this level and up")
    words = _option("--contains", metavar="TEXT", default="", help="only those with this text, in capitals or not")
    of_task = _option("--task", metavar="TASK", default="", help="only those of tasks whose ids begin so")
    narrowed = (latest, last, level, words, of_task)
    live = [] if notebook else [_option("--follow", is_flag=True, help="go on with what comes, until the end")]
    verb("logs", "List the log lines of a job, its handlers' included.", *narrowed, *live)
    verb("history", "List what was done with a job: when, by which process, and why.", latest, last)
    verb("output", "Show what a task has printed, also while it runs.", task, *live)
    verb("debug", "Run one task again, here, and open a debugger where it raises.", task, code)
    if notebook:
        verb("load", "Put a task's parameters, and a call of its handler, into the next cell.", task, code)
    text = "Go on with a job that is not at its end: what has not completed runs. See --load."
    verb("resume", text, stopped, code, *retries)
    verb("retry", "Run a job's failed tasks again, and go on from there.", latest, code, *retries)
    part = "only this stage, its number or name, and those behind it"
    older = "only what ran with older code, and the stages behind it"
    stage = _option("--stage", metavar="STAGE", callback=_alone, help=part)
    stale = _option("--stale", is_flag=True, callback=_alone, help=older)
    part = "only what is new or has changed, and what is behind it"
    update = _option("--update", is_flag=True, callback=_alone, help=part)
    text = "Run a job, or a part of it, over again with the code of now."
    verb("rerun", text, latest, code, stage, stale, update, *retries)
    verb("refinalize", "Run a completed job's finalize again, over the results that are there.", latest, code)
    verb("cancel", "End a job; what runs is stopped, what waits will not run.", job)
    begins_too = "the job to compare it with; without it, what the first was before its last rerun"
    on = _option("--on", metavar="WHAT", help="pair tasks by key, parameters, place, or a parameter of this name")
    share = "take numbers as the same that differ by this share; default: 1e-9"
    near = _option("--tolerance", metavar="SHARE", type=float, default=1e-9, help=share)
    text = "Show what differs between two jobs: parameters, code, results task by task, time, memory."
    verb("compare", text, job, Place("other", "OTHER", begins_too, required=False), on, near)
    keep = _option("-o", "--output", metavar="NAME", help="keep the answer in this variable, and show nothing")
    such = 'such as "select status, count(*) from tasks group by 1"'
    query = Place("query", "QUERY", such, nargs=-1, required=not notebook)
    text = "Ask about the tables jobs, stages, tasks, attempts, events and logs; result->>'$.result.x' reads JSON."
    verb("sql", text, *([keep] if notebook else []), query)
    proved = "the beginning of the id of the run that it is proved on"
    verb(
        "export",
        "Write a gf.JobType as a module for production, proved on its latest completed run.",
        Place("job_type", "FILE", "the file or module with it; file.py:job_type for one of several"),
        Place("folder", "FOLDER", "where the module and its test are written, such as jobs/", type=_FILE),
        _option("--job", metavar="JOB", shell_complete=_offered, help=proved),
        _option("--no-proof", is_flag=True, help="do not run it"),
        _option("--overwrite", is_flag=True, help="replace the files that are there"),
    )
    tried = "so many tasks of each stage are tried, for real; 0 tries none; default: 3"
    some = _option("--run", metavar="N", type=_rows, default="3", help=tried)
    seconds = _option("--seconds", metavar="S", type=float, default=60.0, help="stop the trial then; default: 60")
    text = "Look for what is wrong with a job type, before production finds out."
    verb("check", text, *work, some, seconds, epilog=examples)
    if not notebook:
        allowed = _option("--allow-run", is_flag=True, help="may run and retry jobs, and try tasks to check a job type")
        verb("mcp", "Answer a program's questions about jobs, on standard input (Model Context Protocol).", allowed)
    those = "files or modules with more job types"
    text = "Show what can be run: the job types that there are, with their parameters."
    verb("types", text, Place("load", "FILE", those, nargs=-1, required=False, type=_FILE))
    verb("config", "Show each setting, its value and where that comes from.")
    verb("doctor", "Look for what is wrong with this machine for this work, and say what to do.")
    source = Place("source", "SOURCE", type=_FILE)
    target = Place("target", "TARGET", f"{new}; .duckdb makes it a DuckDB one", type=_FILE)
    verb("convert", "Copy a store, from SQLite to DuckDB or back, and check the copy.", source, target)
    text = "Copy the store and its log while jobs run, to a new file, and check the copy."
    verb("backup", text, Place("target", "PATH", new, type=_FILE))
    ended = f"only those that ended before then: {WORDS}"
    kept = _option("--keep", metavar="N", type=_rows, help="keep the last N of them")
    sure = _option("--confirm", is_flag=True, help="remove them; else they are shown")
    until = _option("--before", metavar="WHEN", help=ended)
    text = "Show which jobs would be removed, with what they saved, and with --confirm remove them."
    verb("prune", text, until, which_states, of_type, kept, sure)
    text = "Print all that the store has of a job as one JSON document, or write it to a new file."
    verb("dump", text, job, Place("target", "PATH", new, type=_FILE, required=False))
    text = "Write a task as one file that can be sent: parameters, code, errors, log, versions."
    sent = _option("--inputs", metavar="NAME", multiple=True, help="send files too: a parameter, a pattern, or '*'")
    most = _option("--limit", metavar="MB", type=float, default=100.0, help="of so many megabytes; default: 100")
    anew = _option("--overwrite", is_flag=True, help="replace the file that is there")
    zipped = Place("target", "FILE.zip", new, type=_FILE)
    verb("bundle", text, zipped, task, sent, most, anew, code)
    text = "Show a task that somebody has sent; nothing of it is run, unless you say so."
    goes = _option("--run", is_flag=True, help="run its code, for real: look at it first")
    given = _option("--param", "words", metavar="NAME=VALUE", multiple=True, help="with --run: what was not sent")
    to = Place("folder", "FOLDER", "write its files to this new folder", type=_FILE, required=False)
    sent_file = Place("source", "FILE.zip", "what geoflow bundle made", type=_FILE)
    verb("unbundle", text, sent_file, to, goes, given)
    verb("size", "Show what takes the space of the store: which files, job types and jobs.")
    verb("reset", "Remove all jobs of the store, with what they saved; without --confirm they are shown.", sure)
    text = "Put a backup in the store's place; the store that is there gets another name."
    verb("restore", text, Place("source", "BACKUP", "what geoflow backup made; it stays as it is", type=_FILE))
    return top


def options(verb: click.Command) -> dict[str, click.Option]:
    """The options of *verb*, by each of their names."""
    return {name: option for option in verb.params if isinstance(option, click.Option) for name in option.opts}


def parse(words: Sequence[str], prog: str = "geoflow", *, notebook: bool = False) -> Request:
    """What was typed. ``UsageError`` when it is no command; ``SystemExit`` after ``--help`` and ``--version``."""
    top = commands(notebook=notebook)
    try:
        with top.make_context(prog, list(words)) as ctx:
            request: Request = top.invoke(ctx)
    except Exit as exc:
        raise SystemExit(exc.exit_code) from None
    except click.UsageError as exc:  # of all others the commands make our own
        raise UsageError(f"the following arguments are required: VERB. See {prog} --help.") from exc
    unsaid = {"json": False, "given": {}, "variables": None, "output": None}
    return Request(**{**unsaid, **vars(request)}, prog=prog)


def _in_our_words(exc: click.UsageError, ctx: click.Context, words: Sequence[str]) -> UsageError:
    said = exc.message.rstrip(".")
    if isinstance(exc, click.NoSuchOption):
        typed = next((word for word in words if word.partition("=")[0] == exc.option_name), exc.option_name)
        alike = get_close_matches(exc.option_name, options(ctx.command), n=1, cutoff=0.8)
        near = f" Did you mean {alike[0]}?" if alike else ""
        if "=" in typed and any(param.name == "words" for param in ctx.command.params):
            near = f" A parameter is written {typed.lstrip('-')}."
        return _unknown(ctx, typed, near)
    if isinstance(exc, click.MissingParameter):
        places = [param for param in ctx.command.params if isinstance(param, Place) and param.required]
        names = ", ".join(place.make_metavar(ctx) for place in places if ctx.params.get(place.name or "") is None)
        said = f"the following arguments are required: {names}"
    elif isinstance(exc, click.BadParameter) and exc.param is not None:
        said = f"argument {'/'.join(exc.param.opts)}: {said}"
    return UsageError(f"{said}. {_see(ctx)}")


def _unknown(ctx: click.Context, typed: str, near: str = "") -> UsageError:
    return UsageError(f"{ctx.command_path} does not know {typed}.{near} {_see(ctx)}")


def _see(ctx: click.Context) -> str:
    return f"See {ctx.command_path} --help."
