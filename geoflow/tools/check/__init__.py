"""What is wrong with a job type, before production finds out: its text is read, its code tried in a process aside."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from geoflow.errors import DefinitionError, ParameterError
from geoflow.jobtypes import loading
from geoflow.jobtypes.contract import defines_job, normalise
from geoflow.jobtypes.parameters import by_name
from geoflow.jobtypes.registry import Registry, jobs_of
from geoflow.tools.check.findings import RULES, Finding, finding
from geoflow.tools.check.report import CheckReport

if TYPE_CHECKING:
    from geoflow.jobtypes.contract import DefinesJob, Handler
    from geoflow.tools.check.subject import Subject

__all__ = ["RULES", "CheckReport", "Finding", "check"]

TASKS, SECONDS = 3, 60.0


def check(
    target: type | DefinesJob | ModuleType | str,
    handlers: Mapping[str, Handler] | None = None,
    *,
    params: object = None,
    run: int | bool = True,
    seconds: float = SECONDS,
    **parameters: Any,
) -> CheckReport:
    """Everything about a job type that can be known before it runs in production; nothing is stored.

    *target* is a job class (with its *handlers*, a dict by task type; those of its module's ``ALL_HANDLERS`` are found
    without), a `gf.JobType`, a module, a ``"file.py"``, ``"file.py:job_type"``, or the name of a type that is built in
    or registered. All that registration would refuse becomes findings too.

    Part of the check is a trial, with *params* or *parameters*, or else with the defaults and examples that the job
    type tells, or with none where it asks for none: in one process of its own, of at most *seconds*, the first three
    tasks of each stage are run **for real**, with all that their handlers do. *run* says another number; False leaves
    handlers and finalize out.

    Raises ``DefinitionError`` when there is no such job type, or its file cannot be imported.
    """
    from geoflow import api as default

    given = None if params is None and not parameters else by_name(params, parameters)
    registry = default._session.registry if default._session is not None else Registry()
    return checked(target, handlers, given, run, seconds, registry)


def checked(
    target: Any,
    handlers: Mapping[str, Handler] | None,
    parameters: Mapping[str, Any] | None,
    run: int | bool,
    seconds: float,
    registry: Registry,
) -> CheckReport:
    """`check` with the job types of *registry* known by their names; *parameters* are None where none are given."""
    from geoflow.tools.check.declared import declared
    from geoflow.tools.check.trial import trial
    from geoflow.tools.check.written import written

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
    from geoflow.tools.check.subject import Subject

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
