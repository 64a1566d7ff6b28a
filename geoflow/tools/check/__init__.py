"""What is wrong with a job type, before production finds out: its text is read, its code tried in a process aside."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from geoflow.errors import DefinitionError, ParameterError
from geoflow.jobtypes import loading
from geoflow.jobtypes.contract import Handler, defines_job, normalise
from geoflow.jobtypes.registry import Registry, jobs_of
from geoflow.tools.check.declared import declared
from geoflow.tools.check.findings import RULES, Finding, finding
from geoflow.tools.check.report import CheckReport
from geoflow.tools.check.subject import Subject
from geoflow.tools.check.text import written
from geoflow.tools.check.trial import trial

__all__ = ["RULES", "CheckReport", "Finding", "checked"]

TASKS = 3


def checked(
    target: Any,
    handlers: Mapping[str, Handler] | None,
    parameters: Mapping[str, Any] | None,
    run: int | bool,
    seconds: float,
    registry: Registry,
) -> CheckReport:
    """See `geoflow.api.check`; *parameters* are None where none are given, *registry* has the types known by name."""
    if run < 0 or seconds <= 0:
        raise ParameterError(f"run={run}, seconds={seconds}: give a number of tasks, or False, and a time for all.")
    names: list[str] = []
    findings: dict[Any, Finding] = {}  # what job types share is told once
    for name, subject in _subjects(target, handlers, registry):
        names.append(name)
        if isinstance(subject, DefinitionError):
            findings[name] = finding("GF110", name, str(subject))
            continue
        read, registered = declared(subject)
        is_whole = not any(fault.severity == "error" for fault in read)
        read += written(subject)
        tried: Iterable[Finding] = ()
        if registered is not None and is_whole:
            tried = trial(subject, registered, parameters, TASKS if run is True else int(run), seconds)
        known = {(fault.code, fault.where) for fault in read}
        for fault in (*read, *(fault for fault in tried if (fault.code, fault.where) not in known)):
            findings.setdefault((fault.code, fault.where or name, fault.what), fault)
    return CheckReport(names, findings.values())


def _subjects(
    target: Any, handlers: Mapping[str, Handler] | None, registry: Registry
) -> Iterator[tuple[str, Subject | DefinitionError]]:
    """The job types of *target* by name; in place of one that cannot be made, why."""
    only = ""
    if isinstance(target, os.PathLike):
        target = os.fspath(target)
    if isinstance(target, str):
        place, _, only = target.partition(":")
        if target not in registry and (place.endswith(".py") or "." in place):
            target = loading.load(place)
        else:
            known = registry if target in registry else Registry()
            registered = known.get(loading.find(known, target))
            target, only = registered.maker or registered.job_class, ""
            handlers = handlers or (None if registered.maker else registered.handlers)
    jobs: Mapping[Any, Any] = {None: target}
    if isinstance(target, ModuleType):
        jobs, own = jobs_of(target)
        handlers = handlers or own or None
    picked = {key: job for key, job in jobs.items() if not only or normalise(str(key)) == normalise(only)}
    if not picked:
        raise DefinitionError(f"There is no job type {only!r} in it; there is {', '.join(map(str, jobs))}.")
    for key, job in picked.items():
        yield _subject(key, job, handlers, registry)


def _subject(
    key: Any, job: Any, handlers: Mapping[str, Handler] | None, registry: Registry
) -> tuple[str, Subject | DefinitionError]:
    if defines_job(job):
        try:
            made = {**job.handlers(), **(handlers or {})}
            steps = {step.task_type: step for step in getattr(job.contract(), "flow_steps", ())}
            return job.name, Subject(job.name, job.contract(), made, key, job, steps)
        except DefinitionError as exc:
            return job.name, exc
    known: Any = handlers
    if known is None:
        known = getattr(sys.modules.get(getattr(job, "__module__", "")), "ALL_HANDLERS", None)
    if known is None:  # where this class is registered, they are known
        known = next((known.handlers for known in map(registry.get, registry) if known.job_class is job), {})
    name = getattr(job, "job_type", None)
    shown = name if isinstance(name, str) and name else getattr(job, "__name__", type(job).__name__)
    return shown, Subject(shown, job, known, key)
