"""``%geoflow`` and ``%%geoflow``: the same verbs in a notebook. Errors are lines there, values values."""

from __future__ import annotations

import keyword
import pprint
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher
from IPython.core.error import UsageError as OneLine
from IPython.core.magic import no_var_expand

from geoflow import api as default
from geoflow.commands import completion, grammar, verbs
from geoflow.commands.grammar import Request
from geoflow.commands.hints import command
from geoflow.commands.line import words
from geoflow.commands.listed import Errors
from geoflow.commands.results import Result
from geoflow.commands.values import UsageError, is_variable, variable, written
from geoflow.errors import GeoflowError
from geoflow.job_handle import JobHandle
from geoflow.jobtypes.contract import Handler, accepts_context, defines_job
from geoflow.notebook.mistakes import show_whole
from geoflow.session import Session
from geoflow.support.masking import mask, mask_text, safe
from geoflow.support.settings import load_settings
from geoflow.support.text import shorten
from geoflow.task_handle import TaskHandle
from geoflow.usercode.packing import pack

NAME = "%geoflow"
_MAGIC = re.compile(r"\s*(?:[^%]*=\s*)?%%?geoflow\s(.*)", re.DOTALL)


class Magic:
    """The magic of one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._kept: list[Session] = []  # those that --store and --workers chose: nobody else may hold them

    def __call__(self, line: str, cell: str | None = None) -> Any:
        """Do what *line* says, with the rest of the cell; the value, or one line in place of a traceback."""
        __tracebackhide__ = True
        try:
            said, quiet = typed(line.rstrip())
            value = self._done(said, cell)
        except GeoflowError as exc:
            if "--debug" in line.split():
                show_whole(exc)
                raise
            # The class itself: of one derived from it, IPython shows the whole traceback.
            raise OneLine(safe(str(exc))) from None
        except SystemExit:  # after --help and --version
            return None
        return None if quiet else value

    def _done(self, said: Sequence[str], cell: str | None) -> Any:
        __tracebackhide__ = True
        request = grammar.parse(said, NAME, notebook=True)
        request.variables = self._shell.user_ns
        if cell is not None:
            _take_cell(request, cell)
        if request.output is not None and (not request.output.isidentifier() or keyword.iskeyword(request.output)):
            raise UsageError(f"{request.output} cannot be the name of a variable.")
        session = self._session(request)
        verbs.check_store(session, request)
        try:
            value = self._value(session, request)
        except KeyboardInterrupt as exc:
            _shorten(exc, session, request)
            raise
        if request.store is not None or request.workers is not None:
            self._kept = [session, *(kept for kept in self._kept if kept != session)]
            default.make_latest(session)
        if request.output is None:
            return value
        self._shell.user_ns[request.output] = value
        return None

    def _value(self, session: Session, request: Request) -> Any:
        """What the verb is worth. Some a notebook has alone, or in its own way."""
        if request.verb == "watch":
            return verbs.named(session, request).watch()
        if request.verb == "load":
            return self._shell.set_next_input(cell_of(verbs.task(session, request), self._shell.user_ns))
        result = verbs.VERBS[request.verb](session, request)
        if isinstance(result, Errors) and result.with_tracebacks:
            print("\n".join(result.tracebacks()))
        return result.value() if isinstance(result, Result) else result

    # The session

    def _session(self, request: Request) -> Session:
        """The session that is meant; see `grammar.RULES`. Words that are variables are replaced by what these hold."""
        held = [_look_up(request, name) for name in ("store", "job", "task", "job_type") if hasattr(request, name)]
        if getattr(request, "query", None):
            _look_up(request, "query")
        session = next((default.session_of(job.runtime) for job in held if job is not None), default.latest_session())
        if request.store is None and request.workers is None:
            return session
        chosen = next((known for known in (session, *default.opened()) if _is_meant(known, request)), None)
        return _opened_as(session, request) if chosen is None else chosen


def load(shell: Any) -> None:
    """Give *shell* the magic and its completions."""
    magic = Magic(shell)

    def geoflow(line: str, cell: str | None = None) -> Any:
        """Run, look at, debug and mend jobs. %geoflow --help lists the verbs, %geoflow run --help tells of one."""
        __tracebackhide__ = True
        return magic(line, cell)

    # The braces of JSON are to arrive as they are typed.
    shell.register_magic_function(no_var_expand(geoflow), "line_cell", "geoflow")
    matchers = shell.Completer.custom_matchers
    others = [matcher for matcher in matchers if getattr(matcher, "matcher_identifier", None) != "geoflow"]
    matchers[:] = [*others, context_matcher(identifier="geoflow")(_matcher(shell))]


def _matcher(shell: Any) -> Callable[[CompletionContext], dict[str, Any]]:
    """What the Tab key asks in *shell*."""

    def matcher(context: CompletionContext) -> dict[str, Any]:
        hidden, known = shell.user_ns_hidden, grammar.commands(notebook=True)
        own = {name: value for name, value in shell.user_ns.items() if name[0] != "_" and hidden.get(name) is not value}
        magic = _MAGIC.fullmatch(context.line_with_cursor[: context.cursor_position])
        head, _, body = context.full_text.lstrip().partition("\n")
        if head.startswith(f"%{NAME} ") and context.cursor_line > 0:
            lines = body.split("\n")[: context.cursor_line - 1]
            place = sum(len(line) + 1 for line in lines) + context.cursor_position
            fragment, offers = completion.in_cell(head.partition(" ")[2], body, place, known, own)
        elif magic is None or (context.cursor_line > 0 and head.startswith("%%")):
            return {"completions": []}
        else:
            fragment, offers = completion.candidates(magic[1], known, own)
        # Where there is nothing to offer, what is there already is: else IPython would offer all names of Python's.
        completions = [SimpleCompletion(text=text, type=kind) for text, kind in offers or [(fragment, "word")]]
        return {"completions": completions, "matched_fragment": fragment, "suppress": True, "ordered": True}

    return matcher


def typed(line: str) -> tuple[list[str], bool]:
    """The words of *line*, and whether a semicolon ends them, so that nothing is to be shown.

    The query of ``sql`` is one word, as it stands, whether it is quoted or not; a semicolon there is part of it.
    """
    found: list[str] = []
    options = grammar.options(grammar.commands(notebook=True).commands["sql"])
    for word in words(line):
        is_value = bool(found) and found[-1] in options and not options[found[-1]].is_flag
        if "sql" in found and not is_value and not word.text.startswith("-") and line[word.start] not in "\"'":
            return [*found, line[word.start :]], False
        found.append(word.text)
    quiet = bool(found) and found[-1].endswith(";") and "sql" not in found
    if quiet:
        found[-1] = found[-1][:-1]
    return [word for word in found if word], quiet


def _take_cell(request: Request, cell: str) -> None:
    if request.verb in ("run", "submit"):
        request.given = written(cell, "The cell")
    elif request.verb == "sql" and not request.query:
        request.query = (cell,)
    else:
        raise UsageError(f"%{NAME} {request.verb} takes nothing from a cell: write {NAME} {request.verb}, with one %.")


def _look_up(request: Request, name: str) -> JobHandle | None:
    """Replace the argument *name*, where it is a variable, by what it holds; the job, if it is one or of one.

    A `gf.JobType` of the notebook is meant by its name alone.
    """
    word = getattr(request, name)
    if isinstance(word, tuple):
        word = word[0]
    job_type = request.variables.get(word) if name == "job_type" else None
    if not is_variable(word, request.variables) and not defines_job(job_type):
        return None
    value = job_type or variable(word, request.variables)
    said = value if isinstance(value, type) or defines_job(value) else str(value)
    job = None
    if isinstance(value, TaskHandle):
        job, said = value.job, f"{value.job_id}/{value.id}"
    elif isinstance(value, JobHandle):
        job, said = value, value.id + ("/" if name == "task" else "")
    setattr(request, name, (said,) if isinstance(getattr(request, name), tuple) else said)
    return job


def _is_meant(session: Session, request: Request) -> bool:
    own = session.settings
    store = own.store if request.store is None else load_settings(store=request.store).store
    return Path(store).absolute() == Path(own.store).absolute() and request.workers in (None, own.workers)


def _opened_as(session: Session, request: Request) -> Session:
    """A session as *session*, with what is said otherwise."""
    if request.store is not None:
        opened = Session(request.store, workers=request.workers)
    elif session.settings.store == ":memory:":
        raise UsageError("The store is in memory, and its session's own: --workers would open another, empty one.")
    else:
        settings = session.settings.model_dump(exclude={"workers"})
        opened = Session(workers=request.workers, retry=session.runtime.retry, **settings)
    opened.runtime.registry = session.registry
    return opened


def _shorten(exc: KeyboardInterrupt, session: Session, request: Request) -> None:
    """Have IPython show one line for the interrupt, which says what became of the job."""
    stopped = [run for run in session.runtime.active.values() if run.interrupted]
    text = "Interrupted."
    if request.verb in ("run", "resume", "retry") and stopped:
        job = f"Job {stopped[-1].job_id[:8]} was put back."
        text += f" {job} Next: {command(request, 'resume', stopped[-1].row)}"
    exc._render_traceback_ = lambda: [text]  # type: ignore[attr-defined]


# A task as code: what to put into a cell so that its handler is called with its parameters

# Longer parameters are read from the store by the cell, not written into it: characters.
LONGEST = 10_000


def cell_of(task: TaskHandle[Any], names: Mapping[str, Any]) -> str:
    """Python that calls the task's handler with its parameters, as it stands, in a notebook with the variables *names*.

    Parameters that hold a secret, or are long, are not written into it, but read from the store when it runs.
    """
    secrets = task.runtime.settings.secrets
    error = task.error
    state = f"which failed: {mask_text(error, secrets)}" if error else f"which is {task.status}"
    imported, call = _callable(task.handler, names)
    parameters = task.parameters
    written = _literal(parameters)
    if mask(parameters, secrets) != parameters or len(written) > LONGEST:
        written = "task.parameters"
    takes_context = accepts_context(task.handler)
    lines = [shorten(f"# T{str(task)[1:]}, stage {task.stage}, {state}", 110), *imported]
    if takes_context or call == "task.handler" or written == "task.parameters":
        holder = _variable(task.runtime, names)
        if holder is None:
            lines.append("from geoflow.api import latest_session")
        lines.append(f"task = {holder or 'latest_session()'}.job({task.job_id[:16]!r}).task({task.id!r})")
    lines += [f"params = {written}", f"{call}(params{', task.context()' if takes_context else ''})"]
    return "\n".join(lines)


def _literal(parameters: Mapping[str, Any]) -> str:
    if len(line := repr(parameters)) <= 90:
        return line
    items = (f"{name!r}: {pprint.pformat(value, width=80, sort_dicts=False)}," for name, value in parameters.items())
    return "{\n    " + "\n".join(items).replace("\n", "\n    ") + "\n}"


def _callable(handler: Handler, names: Mapping[str, Any]) -> tuple[list[str], str]:
    """What is to be imported for *handler*, and an expression for it."""
    name = _variable(handler, names)
    if name is not None:
        return [], name
    module, _, path = (pack(handler).reference or "").partition(":")
    return ([f"from {module} import {path.partition('.')[0]}"], path) if path else ([], "task.handler")


def _variable(value: Any, names: Mapping[str, Any]) -> str | None:
    """A variable that has *value*, or a session of that runtime, if there is one that a person would have named so."""
    held = {name: what.runtime if isinstance(what, Session) else what for name, what in names.items()}
    found = [name for name, what in held.items() if what is value and name.isidentifier() and name[0] != "_"]
    own = [name for name in found if name == getattr(value, "__name__", None)]
    return next((name for name in own + found if not keyword.iskeyword(name)), None)
