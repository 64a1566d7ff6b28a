"""``%geoflow`` and ``%%geoflow``: the same verbs in a notebook. Errors are lines there, values values."""

from __future__ import annotations

import argparse
import keyword
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError as OneLine
from IPython.core.magic import no_var_expand

from geoflow import api as default
from geoflow.commands import completion, grammar, verbs
from geoflow.commands import terminal as output
from geoflow.commands.grammar import UsageError
from geoflow.commands.line import words
from geoflow.commands.snippets import cell_of
from geoflow.errors import GeoflowError
from geoflow.job_handle import JobHandle
from geoflow.jobtypes.contract import defines_job
from geoflow.session import Session
from geoflow.support.config import load_settings
from geoflow.support.masking import safe
from geoflow.task_handle import TaskHandle

if TYPE_CHECKING:
    import pandas as pd

NAME = "%geoflow"
RULES = """\
What a verb finds is its value: df = %geoflow tasks 3fa9. A job shows itself.
$name stands for a variable of the notebook, a job in one too: %geoflow errors
$job. A semicolon at the end shows nothing, and # begins a comment.

The verbs use the session that was opened last in this kernel, by geoflow.open
or by the first geoflow.run (on GEOFLOW_STORE, or geoflow.db). --store and
--workers change to a session on that store, or with so many workers, which
knows the same job types and is used from then on.
"""


class Jobs(list[JobHandle]):
    """Several jobs, which show themselves one below the other."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "No job is interrupted."

    def _repr_html_(self) -> str | None:
        return "".join(job._repr_html_() for job in self) or None


class Magic:
    """The magic of one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._kept: list[Session] = []  # those that --store and --workers chose: nobody else may hold them
        self._verbs = verbs.VERBS | {
            "jobs": self._jobs,
            "watch": self._watch,
            "errors": self._errors,
            "load": self._load,
        }

    def __call__(self, line: str, cell: str | None = None) -> Any:
        """Do what *line* says, with the rest of the cell; the value, or one line in place of a traceback."""
        __tracebackhide__ = True
        try:
            said, quiet = typed(line.rstrip())
            found = self._done(said, cell)
        except GeoflowError as exc:
            if "--debug" in line.split():
                raise
            # The class itself: of one derived from it, IPython shows the whole traceback.
            raise OneLine(safe(str(exc))) from None
        except SystemExit:  # after --help and --version
            return None
        return None if quiet else found

    def _done(self, said: Sequence[str], cell: str | None) -> Any:
        __tracebackhide__ = True
        args = grammar.parse(said, NAME, RULES, notebook=True)
        args.variables = self._shell.user_ns
        if cell is not None:
            _take_cell(args, cell)
        if args.output is not None and (not args.output.isidentifier() or keyword.iskeyword(args.output)):
            raise UsageError(f"{args.output} cannot be the name of a variable.")
        session = self._session(args)
        verbs.check_store(session, args)
        try:
            found = self._verbs[args.verb](session, args)
        except KeyboardInterrupt as exc:
            _shorten(exc, session, args)
            raise
        if args.store is not None or args.workers is not None:
            self._kept = [session, *(kept for kept in self._kept if kept is not session)]
            default.make_latest(session)
        if args.output is None:
            return Jobs(found) if isinstance(found, list) else found
        self._shell.user_ns[args.output] = found
        return None

    # The session

    def _session(self, args: argparse.Namespace) -> Session:
        """The session that is meant; see `RULES`. Words that are variables are replaced by what these hold."""
        held = [_look_up(args, name) for name in ("store", "job", "task", "job_type") if hasattr(args, name)]
        if getattr(args, "query", None):
            _look_up(args, "query")
        session = next((job._session for job in held if job is not None), default.latest_session())
        if args.store is None and args.workers is None:
            return session
        chosen = next((known for known in (session, *default.opened()) if _is_meant(known, args)), None)
        return _opened_as(session, args) if chosen is None else chosen

    # Verbs that a notebook has, or has in its own way

    def _jobs(self, session: Session, args: argparse.Namespace) -> pd.DataFrame:
        return verbs.jobs(session, args).frame()

    def _watch(self, session: Session, args: argparse.Namespace) -> Any:
        return verbs.status(session, args).watch()

    def _errors(self, session: Session, args: argparse.Namespace) -> pd.DataFrame:
        found = verbs.errors(session, args)
        if args.traceback:
            view = session._snapshot(verbs.status(session, args).id)
            print("\n".join(output.tracebacks(view, output.records(found, session.settings.secrets))))
        return found

    def _load(self, session: Session, args: argparse.Namespace) -> None:
        self._shell.set_next_input(cell_of(verbs.task(session, args), self._shell.user_ns))


def load(shell: Any) -> None:
    """Give *shell* the magic and its completions."""
    magic = Magic(shell)

    def geoflow(line: str, cell: str | None = None) -> Any:
        """Run, look at, debug and mend jobs. %geoflow --help lists the verbs, %geoflow run --help tells of one."""
        __tracebackhide__ = True
        return magic(line, cell)

    # The braces of JSON are to arrive as they are typed.
    shell.register_magic_function(no_var_expand(geoflow), "line_cell", "geoflow")
    completion.install(shell)


def typed(line: str) -> tuple[list[str], bool]:
    """The words of *line*, and whether a semicolon ends them, so that nothing is to be shown.

    The query of ``sql`` is one word, as it stands, whether it is quoted or not; a semicolon there is part of it.
    """
    found: list[str] = []
    options = grammar.options(grammar.parser(notebook=True), "sql")
    for word in words(line):
        is_value = bool(found) and found[-1] in options and options[found[-1]].nargs != 0
        if "sql" in found and not is_value and not word.text.startswith("-") and line[word.start] not in "\"'":
            return [*found, line[word.start :]], False
        found.append(word.text)
    quiet = bool(found) and found[-1].endswith(";") and "sql" not in found
    if quiet:
        found[-1] = found[-1][:-1]
    return [word for word in found if word], quiet


def _take_cell(args: argparse.Namespace, cell: str) -> None:
    if args.verb in ("run", "submit"):
        args.given = grammar.written(cell, "The cell")
    elif args.verb == "sql" and not args.query:
        args.query = [cell]
    else:
        raise UsageError(f"%{NAME} {args.verb} takes nothing from a cell: write {NAME} {args.verb}, with one %.")


def _look_up(args: argparse.Namespace, name: str) -> JobHandle | None:
    """Replace the argument *name*, where it is a variable, by what it holds; the job, if it is one or of one.

    A `gf.JobType` of the notebook is meant by its name alone.
    """
    word = getattr(args, name)
    if isinstance(word, list):
        word = word[0]
    job_type = args.variables.get(word) if name == "job_type" else None
    if not grammar.is_variable(word, args.variables) and not defines_job(job_type):
        return None
    value = job_type or grammar.variable(word, args.variables)
    said = value if isinstance(value, type) or defines_job(value) else str(value)
    job = None
    if isinstance(value, TaskHandle):
        job, said = value.job, f"{value.job.id}/{value.id}"
    elif isinstance(value, JobHandle):
        job, said = value, value.id + ("/" if name == "task" else "")
    setattr(args, name, [said] if isinstance(getattr(args, name), list) else said)
    return job


def _is_meant(session: Session, args: argparse.Namespace) -> bool:
    own = session.settings
    store = own.store if args.store is None else load_settings(store=args.store).store
    return Path(store).absolute() == Path(own.store).absolute() and args.workers in (None, own.workers)


def _opened_as(session: Session, args: argparse.Namespace) -> Session:
    """A session as *session*, with what is said otherwise."""
    if args.store is not None:
        opened = Session(args.store, workers=args.workers)
    elif session.settings.store == ":memory:":
        raise UsageError("The store is in memory, and its session's own: --workers would open another, empty one.")
    else:
        settings = session.settings.model_dump(exclude={"workers"})
        opened = Session(workers=args.workers, retry=session.runtime.retry, **settings)
    opened.registry = session.registry
    return opened


def _shorten(exc: KeyboardInterrupt, session: Session, args: argparse.Namespace) -> None:
    """Have IPython show one line for the interrupt, which says what became of the job."""
    stopped = [run for run in session.runtime.runs.values() if run.interrupted]
    text = "Interrupted."
    if args.verb in ("run", "resume", "retry") and stopped:
        job = f"Job {stopped[-1].job_id[:8]} was put back."
        text += f" {job} Next: {verbs.command(args, 'resume', stopped[-1].row)}"
    exc._render_traceback_ = lambda: [text]  # type: ignore[attr-defined]
