"""What a job type declares: all that registration refuses or warns of, and what else the class alone tells."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from geoflow.jobtypes.contract import METHODS, JobBase, JobType, accepts_context, normalise
from geoflow.jobtypes.registry import _check
from geoflow.tools.check.findings import Finding
from geoflow.tools.check.subject import Subject

# What registration says, as a code; a group's name and text are what it is about.
_SAID = (
    (r"(?P<method>\w+) (is missing\.$|is still abstract)", "GF101"),
    (r"(?P<method>\w+) (must be a @staticmethod|is async: the engine)", "GF103"),
    (r"job_type is .*: give it a name|is registered as ", "GF106"),
    (r"has no description", "GF109"),
    (r"stage (?P<stage>\d+) has task_type .* no handler", "GF112"),
    (r"stage (?P<stage>\d+) is fan_in", "GF113"),
    (r"stage (?P<stage>\d+) has (parallelism|\w+=)", "GF114"),
    (r"stage (?P<stage>\d+) |stages must be|stages are more than", "GF110"),
    (r"the handler of '(?P<handler>[^']+)' (is of the module|uses|takes|cannot travel)|the class ", "GF118"),
    (r"the handler of '(?P<handler>[^']+)'", "GF117"),
)


def declared(subject: Subject) -> tuple[list[Finding], JobType | None]:
    """What is found, and the job type as the registry has it, unless it refuses it."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        checked = _check(subject.job_class, subject.handlers, subject.key)
    refused = checked if isinstance(checked, list) else []
    found = [_said(subject, problem) or subject.found("GF100", problem) for problem in refused]
    for remark in remarks:
        if about := _said(subject, str(remark.message)):
            found.append(about)
        else:
            warnings.warn_explicit(remark.message, remark.category, remark.filename, remark.lineno)
    if isinstance(subject.job_class, type):
        found += [*_names(subject), *_signatures(subject), *_handlers(subject), *_total(subject)]
    return found, None if isinstance(checked, list) else checked


def _said(subject: Subject, text: str) -> Finding | None:
    for pattern, code in _SAID:
        if found := re.search(pattern, text):
            kind, name = next(((kind, name) for kind, name in found.groupdict().items() if name), ("class", ""))
            return subject.found(code, text, kind, name)
    return None


def _names(subject: Subject) -> Iterator[Finding]:
    named = [(getattr(subject.job_class, "job_type", None), "class", "")]
    for number, stage in enumerate(_stages(subject), start=1):
        named.append((stage.get("task_type") if isinstance(stage, dict) else None, "stage", str(number)))
    named += [(name, "handler", name) for name in subject.known]
    told: set[str] = set()
    for name, kind, place in named:
        if isinstance(name, str) and name != normalise(name) and name not in told:
            told.add(name)
            yield subject.found("GF108", f"{name!r} is taken as {normalise(name)!r} by geoflow.", kind, place)


def _stages(subject: Subject) -> Sequence[Any]:
    stages = getattr(subject.job_class, "stages", None)
    return stages if isinstance(stages, list | tuple) else ()


def _signatures(subject: Subject) -> Iterator[Finding]:
    for method in METHODS:
        found = inspect.getattr_static(subject.job_class, method, None)
        if subject.maker is not None or not isinstance(found, staticmethod | classmethod):
            continue
        signature = inspect.signature(getattr(subject.job_class, method))
        wanted = list(inspect.signature(getattr(JobBase, method)).parameters)
        try:
            bound = signature.bind(*wanted)
        except TypeError:
            text = f"{method} has the signature {signature}, and is called with {', '.join(wanted)}."
            yield subject.found("GF103", text, "method", method)
            continue
        names = [name for name in bound.arguments if signature.parameters[name].kind.name != "VAR_POSITIONAL"]
        other = [f"{mine} (for {its})" for mine, its in zip(names, wanted, strict=False) if mine.lstrip("_") != its]
        if other:
            text = f"{method} names its parameters otherwise: {', '.join(other)}."
            yield subject.found("GF104", text, "method", method)


def _handlers(subject: Subject) -> Iterator[Finding]:
    for name, handler in subject.known.items() if subject.maker is None else ():
        if isinstance(handler, functools.partial):
            yield subject.found("GF119", f"The handler of {name!r} is a functools.partial.", "handler", name)
        if callable(handler) and accepts_context(handler):
            second = list(inspect.signature(handler).parameters.values())[1]
            if second.default is second.empty:
                yield subject.found("GF120", f"The handler of {name!r} requires {second.name}.", "handler", name)


def _total(subject: Subject) -> Iterator[Finding]:
    total, stages = getattr(subject.job_class, "total_stages", None), len(_stages(subject))
    if isinstance(total, int) and total != stages:
        yield subject.found("GF116", f"total_stages is {total}, and there are {stages} stages.")
