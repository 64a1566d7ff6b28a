"""What a job type declares: all that registration refuses or warns of, and what else the class alone tells."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from geoflow.jobtypes.contract import METHODS, JobBase, Registered, accepts_context, normalise
from geoflow.jobtypes.registry import examined
from geoflow.tools.check.findings import Finding
from geoflow.tools.check.subject import Subject
from geoflow.usercode.origin import stacklevel


def declared(subject: Subject) -> tuple[list[Finding], Registered | None]:
    """What is found, and the job type as the registry has it, unless it refuses it."""
    checked = examined(subject.job_class, subject.handlers, subject.key)
    for remark in checked.remarks:
        if not remark.code:  # it is about this geoflow, not about production
            warnings.warn(remark.text, stacklevel=stacklevel())
    said = (*checked.problems, *(remark for remark in checked.remarks if remark.code))
    findings = [subject.finding(problem.code, problem.text, problem.kind, problem.name) for problem in said]
    if isinstance(subject.job_class, type):
        findings += [*_names(subject), *_signatures(subject), *_handlers(subject), *_total(subject)]
    findings += [*_continuing(subject, checked.job_type), *_reusing(subject, checked.job_type)]
    return findings, checked.job_type


def _names(subject: Subject) -> Iterator[Finding]:
    named = [(getattr(subject.job_class, "job_type", None), "class", "")]
    for number, stage in enumerate(_stages(subject), start=1):
        named.append((stage.get("task_type") if isinstance(stage, dict) else None, "stage", str(number)))
    named += [(name, "handler", name) for name in subject.known]
    seen: set[str] = set()
    for name, kind, place in named:
        if isinstance(name, str) and name != normalise(name) and name not in seen:
            seen.add(name)
            yield subject.finding("GF108", f"{name!r} is taken as {normalise(name)!r} by geoflow.", kind, place)


def _stages(subject: Subject) -> Sequence[Any]:
    stages = getattr(subject.job_class, "stages", None)
    return stages if isinstance(stages, list | tuple) else ()


def _signatures(subject: Subject) -> Iterator[Finding]:
    for method in METHODS:
        held = inspect.getattr_static(subject.job_class, method, None)
        if subject.maker is not None or not isinstance(held, staticmethod | classmethod):
            continue
        signature = inspect.signature(getattr(subject.job_class, method))
        wanted = list(inspect.signature(getattr(JobBase, method)).parameters)
        try:
            bound = signature.bind(*wanted)
        except TypeError:
            text = f"{method} has the signature {signature}, and is called with {', '.join(wanted)}."
            yield subject.finding("GF103", text, "method", method)
            continue
        names = [name for name in bound.arguments if signature.parameters[name].kind.name != "VAR_POSITIONAL"]
        other = [f"{mine} (for {its})" for mine, its in zip(names, wanted, strict=False) if mine.lstrip("_") != its]
        if other:
            text = f"{method} names its parameters otherwise: {', '.join(other)}."
            yield subject.finding("GF104", text, "method", method)


def _handlers(subject: Subject) -> Iterator[Finding]:
    for name, handler in subject.known.items() if subject.maker is None else ():
        if isinstance(handler, functools.partial):
            yield subject.finding("GF119", f"The handler of {name!r} is a functools.partial.", "handler", name)
        if callable(handler) and accepts_context(handler):
            second = list(inspect.signature(handler).parameters.values())[1]
            if second.default is second.empty:
                yield subject.finding("GF120", f"The handler of {name!r} requires {second.name}.", "handler", name)


def _continuing(subject: Subject, job_type: Registered | None) -> Iterator[Finding]:
    # Of one task alone nobody goes on without.
    alone = ("fan_in",) if subject.maker is None else ("fan_in", "single")
    found = [stage for stage in (job_type.stages if job_type is not None else ()) if stage.on_failure == "continue"]
    if found := [stage for stage in found if stage.parallelism not in alone]:
        names = ", ".join(f"{stage.number} ({stage.name})" for stage in found)
        text = f"The job goes on without tasks that failed in {'stage' if len(found) == 1 else 'stages'} {names}."
        yield subject.finding("GF121", text, "stage", str(found[0].number))


def _reusing(subject: Subject, job_type: Registered | None) -> Iterator[Finding]:
    if found := [stage for stage in (job_type.stages if job_type is not None else ()) if stage.reuse]:
        names = ", ".join(f"{stage.number} ({stage.name})" for stage in found)
        text = f"Results are reused in {'stage' if len(found) == 1 else 'stages'} {names}."
        yield subject.finding("GF122", text, "stage", str(found[0].number))


def _total(subject: Subject) -> Iterator[Finding]:
    total, stages = getattr(subject.job_class, "total_stages", None), len(_stages(subject))
    if isinstance(total, int) and total != stages:
        yield subject.finding("GF116", f"total_stages is {total}, and there are {stages} stages.")
