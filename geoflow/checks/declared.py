"""What a job type declares: all that registration refuses or warns of, and what else the class alone tells."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Iterator
from typing import Any

from geoflow.checks.findings import Finding, finding
from geoflow.checks.source import Subject
from geoflow.contract import JobBase, JobType, _check, accepts_context, normalise
from geoflow.errors import DefinitionError

# What registration says, as a code and as whose place is shown: that of a method, a stage or a handler.
_REFUSALS = (
    (r"(?P<method>\w+) is missing\.$", "GF101"),
    (r"(?P<method>\w+) is still abstract", "GF102"),
    (r"(?P<method>\w+) must be a @staticmethod", "GF103"),
    (r"(?P<method>\w+) is async: the engine", "GF105"),
    (r"job_type is .*: give it a name", "GF106"),
    (r"is registered as ", "GF107"),
    (r"stage (?P<stage>\d+) has number", "GF111"),
    (r"stage (?P<stage>\d+) has task_type .* no handler", "GF112"),
    (r"stage (?P<stage>\d+) is fan_in", "GF113"),
    (r"stage (?P<stage>\d+) ", "GF110"),
    (r"stages must be|stages are more than", "GF110"),
    (r"the handler of '(?P<handler>\w+)' (?:is of the module|uses|takes|cannot travel)", "GF118"),
    (r"the handler of '(?P<handler>\w+)'", "GF117"),
    (r"the class ", "GF118"),
)
_WARNINGS = (
    (r"has no description", "GF109"),
    (r"stage (?P<stage>\d+) has parallelism", "GF114"),
    (r"stage (?P<stage>\d+) has ", "GF115"),
)


def declared(subject: Subject) -> tuple[list[Finding], JobType | None]:
    """What is found, and the job type as the registry has it, unless it refuses it."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        checked = _check(subject.job_class, subject.handlers, subject.key)
    refused = checked if isinstance(checked, list) else []
    found = [_told(subject, problem, _REFUSALS, "GF100") for problem in refused]
    for remark in remarks:
        if isinstance(remark.message, UserWarning) and any(re.search(how, str(remark.message)) for how, _ in _WARNINGS):
            found.append(_told(subject, str(remark.message), _WARNINGS, "GF115"))
        else:
            warnings.warn_explicit(remark.message, remark.category, remark.filename, remark.lineno)
    if isinstance(subject.job_class, type):
        found += [*_names(subject), *_signatures(subject), *_handlers(subject), *_total(subject)]
    return found, None if isinstance(checked, list) else checked


def refused(name: str, exc: DefinitionError) -> Finding:
    """What a `gf.JobType` says when no class can be made of it."""
    return finding("GF110", name, str(exc))


def _told(subject: Subject, problem: str, rules: tuple[tuple[str, str], ...], otherwise: str) -> Finding:
    for pattern, code in rules:
        if found := re.search(pattern, problem):
            kind, name = next(iter(found.groupdict().items()), ("class", ""))
            return finding(
                code, subject.name, problem, subject.where(kind, normalise(name) if kind == "handler" else name)
            )
    return finding(otherwise, subject.name, problem, subject.where("class", ""))


def _names(subject: Subject) -> Iterator[Finding]:
    named: list[tuple[str, Any, tuple[str, str]]] = []
    named.append(("job_type", getattr(subject.job_class, "job_type", None), ("class", "")))
    for number, stage in enumerate(_stages(subject), start=1):
        named.append((f"the task_type of stage {number}", stage.get("task_type"), ("stage", str(number))))
    handlers = subject.handlers if isinstance(subject.handlers, dict) else {}
    named += [("a key of the handlers", name, ("handler", name)) for name in handlers]
    told: set[str] = set()
    for what, name, place in named:
        if isinstance(name, str) and name != normalise(name) and name not in told:
            told.add(name)
            text = f"{what} is {name!r}; geoflow takes it as {normalise(name)!r}."
            yield finding("GF108", subject.name, text, subject.where(*place))


def _stages(subject: Subject) -> list[dict[str, Any]]:
    stages = getattr(subject.job_class, "stages", None)
    return [stage if isinstance(stage, dict) else {} for stage in stages] if isinstance(stages, list | tuple) else []


_CALLS: dict[str, tuple[Any, ...]] = {
    "validate_job_parameters": ({},),
    "generate_job_id": ({},),
    "create_tasks_for_stage": (1, {}, "", None),
    "finalize_job": (None,),
}


def _signatures(subject: Subject) -> Iterator[Finding]:
    for method, arguments in _CALLS.items():
        found = inspect.getattr_static(subject.job_class, method, None)
        if subject.maker is not None or not isinstance(found, staticmethod | classmethod):
            continue
        signature = inspect.signature(getattr(subject.job_class, method))
        wanted = list(inspect.signature(getattr(JobBase, method)).parameters)
        try:
            bound = signature.bind(*arguments)
        except TypeError:
            text = f"{method} has the signature {signature}, and is called with {', '.join(wanted)}."
            yield finding("GF105", subject.name, text, subject.where("method", method))
            continue
        names = [name for name in bound.arguments if signature.parameters[name].kind.name != "VAR_POSITIONAL"]
        other = [f"{mine} (for {its})" for mine, its in zip(names, wanted, strict=False) if mine.lstrip("_") != its]
        if other:
            text = f"{method} names its parameters otherwise: {', '.join(other)}."
            yield finding("GF104", subject.name, text, subject.where("method", method))


def _handlers(subject: Subject) -> Iterator[Finding]:
    if not isinstance(subject.handlers, dict) or subject.maker is not None:
        return
    for name, handler in subject.handlers.items():
        where = subject.where("handler", name)
        if isinstance(handler, functools.partial):
            yield finding("GF119", subject.name, f"The handler of {name!r} is a functools.partial.", where)
        if callable(handler) and accepts_context(handler):
            second = list(inspect.signature(handler).parameters.values())[1]
            if second.default is second.empty:
                text = f"The handler of {name!r} requires {second.name}."
                yield finding("GF120", subject.name, text, where)


def _total(subject: Subject) -> Iterator[Finding]:
    total, stages = getattr(subject.job_class, "total_stages", None), len(_stages(subject))
    if isinstance(total, int) and total != stages:
        text = f"total_stages is {total}, and there are {stages} stages."
        yield finding("GF116", subject.name, text, subject.where("class", ""))
