"""What the Tab key offers after ``geoflow`` and ``%geoflow``: verbs, options, job types, their parameters, jobs, tasks.

It looks, and leaves everything as it is: no store is made, no file imported.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem, ShellComplete

from geoflow import api
from geoflow.commands.line import Word, words
from geoflow.core.rows import JobRow
from geoflow.errors import GeoflowError
from geoflow.jobtypes.contract import normalise
from geoflow.jobtypes.loading import BUILT_IN
from geoflow.jobtypes.schema import schema_of
from geoflow.jobtypes.typed import TypedJob
from geoflow.session import Session
from geoflow.stores.questions import outlines, places
from geoflow.support.jsonable import from_json
from geoflow.support.text import shorten

MOST = 100


def candidates(line: str, command: click.Command, variables: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """What may stand at the end of a *line* of *command*: the part of it that is replaced, and (text, kind) of each."""
    try:
        typed = list(words(line))
    except GeoflowError:  # within quotes or brackets that are still open
        return "", []
    last = typed.pop() if typed and typed[-1].end == len(line) else Word("", len(line), len(line))
    fragment = line[last.start :]
    if "$" in fragment:
        before = fragment.rpartition("$")[0]
        offers = [(f"{before}${name}", "variable") for name in sorted(variables)]
    else:
        shell = ShellComplete(command, {"obj": variables}, "%geoflow", "")
        items = shell.get_completions([word.text for word in typed], fragment)
        offers = [offer for item in items for offer in _as_text(item)]
    return fragment, list(dict.fromkeys(offer for offer in offers if offer[0].startswith(fragment)))[:MOST]


# Where the name of a parameter may be typed in a cell: at a line's beginning in YAML, after { or a comma in JSON.
_IN_YAML, _IN_JSON = re.compile(r"\w*"), re.compile(r"(?:.*[{,])?\s*(\"?\w*)")
_NAMED = re.compile(r"[\s{,]*[\"']?(\w+)[\"']?\s*:")


def in_cell(
    head: str, body: str, place: int, command: click.Command, variables: Mapping[str, Any]
) -> tuple[str, list[tuple[str, str]]]:
    """The parameters that may be named at a *place* of the cell's *body*; *head* is its line, less the magic's name.

    What is returned is as of `candidates`. In a value, and where the head names no job type, there is nothing to offer.
    """
    before, after = body[:place], body[place:]
    lines, is_json = before.split("\n"), body.lstrip().startswith("{")
    found = (_IN_JSON if is_json else _IN_YAML).fullmatch(lines[-1])
    verb = next((word.text for word in words(head)), "")
    if found is None or verb not in ("run", "submit") or (not is_json and body.startswith("- ")):
        return "", []
    fragment = found[found.lastindex or 0]
    bare = fragment.lstrip('"')
    others = [line for number, line in enumerate(body.split("\n")) if number != len(lines) - 1] + [lines[-1]]
    given = {name for line in others for name in _NAMED.findall(line)}
    _, offers = candidates(f"{head.rstrip()} {bare}", command, variables)
    names = [text[:-1] for text, _ in offers if text.endswith("=") and text[:-1] not in given]
    if not is_json:
        return fragment, [(f"{name}: ", "words") for name in names]
    ends = "" if after.startswith('"') else '": '  # an editor closes quotes by itself
    return fragment, [(f'"{name}{ends}', "words") for name in names]


def _as_text(item: CompletionItem[str]) -> list[tuple[str, str]]:
    if item.type in ("file", "dir"):  # a shell looks for files itself
        return [(path, item.type) for path in _files(item.value)]
    return [(item.value, item.kind or ("option" if item.value.startswith("-") else "word"))]


def offered(ctx: click.Context, param: click.Parameter, fragment: str) -> list[CompletionItem[str]]:
    """What may stand for *param* where *fragment* is typed."""
    if param.name not in _OFFERS:
        return []
    # A store that cannot be read offers nothing.
    with contextlib.suppress(GeoflowError, OSError), _session(ctx) as session:
        offers = _OFFERS[param.name](_Place(session, fragment, ctx.params, ctx.obj or {}))
        items = (CompletionItem(text, help=shorten(about, 60) or None, kind=param.name) for text, about in offers)
        return [item for item in items if item.value.startswith(fragment)][:MOST]
    return []


@contextlib.contextmanager
def _session(ctx: click.Context) -> Iterator[Session]:
    """The session that the verb would use. The default one is not made for this: that would start processes."""
    store = ctx.params.get("store") or (ctx.parent or ctx).params.get("store")
    opened = None if store else next(iter(api.opened()), None)
    session = opened or Session(store, workers=0)
    try:
        yield session
    finally:
        if opened is None:
            session.close()


class _Place(NamedTuple):
    """Where something is to be offered: what is said already, by name, and the notebook's variables."""

    session: Session
    fragment: str
    said: Mapping[str, Any]
    variables: Mapping[str, Any]


Offers = Iterable[tuple[str, str]]  # what may be typed, and what is said of it


def _job_types(place: _Place) -> Offers:
    made = [name for name, value in place.variables.items() if isinstance(value, TypedJob)]
    files = [path for path in _files(place.fragment) if path.endswith((".py", "/"))] if place.fragment else []
    return [(name, "") for name in (*sorted({*place.session.registry, *BUILT_IN, *made}), *files)]


def _files(fragment: str) -> list[str]:
    return [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(glob.escape(fragment) + "*"))]


def _parameters(place: _Place) -> Offers:
    """The parameters that are not said yet: by what the job type tells of them, or else those of the last such job."""
    given = {word.partition("=")[0] for word in place.said["words"]}
    if "=" in place.fragment or place.said.get("job_type") is None:
        return []
    names = _names(place.session, place.said["job_type"], place.variables)
    return [(f"{name}=", about) for name, about in names if name not in given]


def _names(session: Session, job_type: str, variables: Mapping[str, Any]) -> Offers:
    name, made = normalise(job_type), variables.get(job_type)
    schema = None
    if isinstance(made, TypedJob):
        schema = schema_of(made.contract())
    elif name in session.registry or name in BUILT_IN:
        schema = schema_of(session.runtime.registered(name).job_class)
    if schema is not None:
        return [(name, str(field.get("description", ""))) for name, field in schema["properties"].items()]
    before, _, part = job_type.partition(".py:")
    if part or job_type.endswith(".py"):  # a file, which is not imported for this
        source, name = os.path.abspath(f"{before.removesuffix('.py')}.py"), normalise(part)
        alike = (row for row in _jobs(session) if row.source == source and name in ("", row.job_type))
    else:
        alike = (row for row in _jobs(session) if row.job_type == name)
    row = next(alike, None)
    job = row and session.store.job(row.job_id)
    return [(name, "") for name in from_json(job.parameters)] if job else []


def _jobs(session: Session) -> list[JobRow]:
    """The outlines of the jobs, newest first; none where there is no store yet."""
    store = session.settings.store
    if store != ":memory:" and not Path(store).exists():
        return []
    with session.store.reading() as connection:
        return outlines(connection)


def _job_ids(place: _Place) -> Offers:
    length = max(8, len(place.fragment))
    return [(row.job_id[:length], f"{row.job_type}, {row.status}") for row in _jobs(place.session)]


def _task_ids(place: _Place) -> Offers:
    """Those of the latest job, the failed ones first; after ``JOB/`` those of that job."""
    session, jobs = place.session, _jobs(place.session)
    job_id, slash, begun = place.fragment.partition("/")
    of_job = [row for row in jobs if slash and row.job_id.startswith(job_id)]
    before, prefix = (f"{job_id}/", begun) if of_job else ("", place.fragment)
    if not jobs:
        return []
    job_key = (of_job or jobs)[0].job_key
    with session.store.reading() as connection:
        tasks = places(connection, job_key, MOST, begins=prefix, failed_first=True)
    return [(before + task.task_id, "") for task in tasks]


_OFFERS: dict[str | None, Callable[[_Place], Offers]] = {
    "job_type": _job_types,
    "words": _parameters,
    "job": _job_ids,
    "other": _job_ids,
    "task": _task_ids,
    "query": lambda _: [(name, "") for name in ("jobs", "stages", "tasks", "attempts", "events", "logs")],
}
