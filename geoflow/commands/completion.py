"""What the Tab key offers after ``%geoflow``: verbs, options, job types, their parameters, jobs, tasks and variables.

It looks, and leaves everything as it is: no store is made, no file imported.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from geoflow import api as default
from geoflow.commands import grammar
from geoflow.commands.line import Word, words
from geoflow.errors import GeoflowError
from geoflow.jobtypes.contract import normalise
from geoflow.jobtypes.loading import BUILT_IN
from geoflow.jobtypes.schema import schema_of
from geoflow.jobtypes.typed import JobType
from geoflow.session import Session
from geoflow.stores.questions import places
from geoflow.support.jsonable import from_json

MOST = 100
_MAGIC = re.compile(r"\s*(?:[^%]*=\s*)?%%?geoflow\s(.*)", re.DOTALL)
_PATHS = ("store", "load", "params", "source", "target")


def install(shell: Any) -> None:
    """Have *shell* ask here; once, however often it is asked."""

    def matcher(context: CompletionContext) -> dict[str, Any]:
        found = _MAGIC.fullmatch(context.line_with_cursor[: context.cursor_position])
        in_body = context.cursor_line > 0 and context.full_text.lstrip().startswith("%%")
        if found is None or in_body:
            return {"completions": []}
        hidden = shell.user_ns_hidden
        own = {name: value for name, value in shell.user_ns.items() if name[0] != "_" and hidden.get(name) is not value}
        fragment, offered = candidates(found[1], own)
        completions = [SimpleCompletion(text=text, type=kind) for text, kind in offered]
        return {"completions": completions, "matched_fragment": fragment, "suppress": True, "ordered": True}

    matchers = shell.Completer.custom_matchers
    matchers[:] = [known for known in matchers if getattr(known, "matcher_identifier", None) != "geoflow"]
    matchers.append(context_matcher(identifier="geoflow")(matcher))


def candidates(line: str, variables: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """What may stand at the end of *line*: the part of it that is replaced, and (text, kind) of each."""
    try:
        typed = list(words(line))
    except GeoflowError:  # within quotes or brackets that are still open
        return "", []
    last = typed.pop() if typed and typed[-1].end == len(line) else Word("", len(line), len(line))
    fragment = line[last.start :]
    if "$" in fragment:
        before = fragment.rpartition("$")[0]
        found: Iterable[tuple[str, str]] = [(f"{before}${name}", "variable") for name in sorted(variables)]
    else:
        found = _at(typed, fragment, variables)
    offered = dict.fromkeys((text, kind) for text, kind in found if text.startswith(fragment))
    return fragment, list(offered)[:MOST]


def _at(typed: Sequence[Word], fragment: str, variables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What may follow the words *typed*, of which some may not begin with *fragment*."""
    top = grammar.parser(notebook=True)
    known = grammar.verbs(top)
    verb = next((word.text for word in typed if word.text in known), None)
    options = grammar.options(top, verb)
    if typed and (option := options.get(typed[-1].text)) is not None and option.nargs != 0:
        offered = _files(fragment) if option.dest in _PATHS else option.choices or ()
        return ((str(text), option.dest) for text in offered)
    if fragment.startswith("-"):
        return ((name, "option") for name in options if name.startswith("--"))
    if verb is None:
        return ((name, "verb") for name in known)
    said = list(_by_place(typed, options))[1:]
    places = grammar.positionals(top, verb)
    here = places[min(len(said), len(places) - 1)] if places else None
    if here is None or here.dest not in _OFFERS or (len(said) >= len(places) and here.nargs not in ("*", "+")):
        return ()
    # The default session is not made for this: that would start processes.
    session = next(iter(default.opened()), None) or Session()
    with contextlib.suppress(GeoflowError, OSError):  # a store that cannot be read offers nothing
        return [(text, here.dest) for text in _OFFERS[here.dest](_Place(session, fragment, said, variables))]
    return ()


def _by_place(typed: Iterable[Word], options: dict[str, argparse.Action]) -> Iterator[str]:
    is_value = False
    for word in typed:
        if not is_value and not word.text.startswith("-"):
            yield word.text
        option = options.get(word.text)
        is_value = option is not None and option.nargs != 0


class _Place(NamedTuple):
    """Where something is to be offered: after the words *said*, of which the verb is not one."""

    session: Session
    fragment: str
    said: Sequence[str]
    variables: Mapping[str, Any]


def _job_types(place: _Place) -> list[str]:
    made = [name for name, value in place.variables.items() if isinstance(value, JobType)]
    files = [path for path in _files(place.fragment) if path.endswith((".py", "/"))] if place.fragment else []
    return [*sorted({*place.session.registry, *BUILT_IN, *made}), *files]


def _files(fragment: str) -> list[str]:
    return [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(glob.escape(fragment) + "*"))]


def _parameters(place: _Place) -> list[str]:
    """The parameters that are not said yet: by what the job type tells of them, or else those of the last such job."""
    given = {word.partition("=")[0] for word in place.said[1:]}
    names = _names(place.session, place.said[0], place.variables)
    return [f"{name}=" for name in names if name not in given] if "=" not in place.fragment else []


def _names(session: Session, job_type: str, variables: Mapping[str, Any]) -> list[str]:
    name, made = normalise(job_type), variables.get(job_type)
    schema = None
    if isinstance(made, JobType):
        schema = schema_of(made.contract())
    elif name in session.registry or name in BUILT_IN:
        schema = schema_of(session._registered(name).job_class)
    if schema is not None:
        return list(schema["properties"])
    return next((list(from_json(row.parameters)) for row in _jobs(session) if row.job_type == name), [])


def _jobs(session: Session) -> list[Any]:
    """The rows of the jobs, newest first; none where there is no store yet."""
    store = session.settings.store
    return session.store.jobs()[::-1] if store == ":memory:" or Path(store).exists() else []


def _job_ids(place: _Place) -> list[str]:
    length = max(8, len(place.fragment))
    return [row.job_id[:length] for row in _jobs(place.session)]


def _task_ids(place: _Place) -> list[str]:
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
    return [before + task.task_id for task in tasks]


_OFFERS: dict[str, Callable[[_Place], list[str]]] = {
    "job_type": _job_types,
    "words": _parameters,
    "job": _job_ids,
    "task": _task_ids,
    **dict.fromkeys(_PATHS, lambda place: _files(place.fragment)),
    "query": lambda _: ["jobs", "stages", "tasks", "attempts", "logs"],
}
