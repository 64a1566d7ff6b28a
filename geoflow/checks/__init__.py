"""What is wrong with a job type, before production finds out: its text is read, its code tried in a process aside."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from geoflow import loading
from geoflow.checks.findings import RULES, Finding
from geoflow.checks.report import Report
from geoflow.contract import Registry, defines_job, normalise
from geoflow.errors import DefinitionError, ParameterError

if TYPE_CHECKING:
    from geoflow.checks.source import Subject
    from geoflow.contract import DefinesJob, Handler

__all__ = ["RULES", "Finding", "Report", "check"]

TASKS, SECONDS = 3, 60.0
_OF_HANDLERS = ("GF117", "GF118", "GF119", "GF120", "GF201", "GF202", "GF203", "GF204")


def check(
    target: type | DefinesJob | ModuleType | str,
    handlers: Mapping[str, Handler] | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    run: int | bool = True,
    seconds: float = SECONDS,
    **parameters: Any,
) -> Report:
    """Everything about a job type that can be known before it runs in production; nothing is stored.

    *target* is a job class (with its *handlers*, a dict by task type; those of its module's ``ALL_HANDLERS`` are found
    without), a `gf.JobType`, a module, a ``"file.py"``, ``"file.py:job_type"``, or the name of a type that is built in
    or registered. All that registration would refuse becomes findings too.

    Part of the check is a trial, with *params* or *parameters*, or else with the defaults and examples that the job
    type tells: in one process of its own, of at most *seconds*, the first three tasks of each stage are run **for
    real**, with all that their handlers do. *run* says another number; False leaves handlers and finalize out.

    Raises ``DefinitionError`` when there is no such job type, or its file cannot be imported.
    """
    from geoflow import default

    given = None if params is None and not parameters else {**(params or {}), **parameters}
    registry = default._session.registry if default._session is not None else None
    return checked(target, handlers, given, run, seconds, registry)


def checked(
    target: Any,
    handlers: Mapping[str, Handler] | None,
    given: Mapping[str, Any] | None,
    run: int | bool,
    seconds: float,
    registry: Registry | None,
) -> Report:
    """`check` with the job types of *registry* known by their names; *given* is None where nothing is."""
    from geoflow.checks.declared import declared, refused
    from geoflow.checks.trial import trial, without_repeats
    from geoflow.checks.written import written

    if run < 0 or seconds <= 0:
        raise ParameterError(f"run={run}, seconds={seconds}: give a number of tasks, or False, and a time for all.")
    names: list[str] = []
    findings: list[Finding] = []
    for name, found in _subjects(target, handlers, registry):
        names.append(name)
        if isinstance(found, DefinitionError):
            findings.append(refused(name, found))
            continue
        told, registered = declared(found)
        is_whole = not any(one.severity == "error" for one in told)
        told += written(found)
        number = TASKS if run is True else int(run)
        tried = trial(found, registered, given, number, seconds) if registered is not None and is_whole else ()
        known = {(one.code, one.where) for one in findings if one.code in _OF_HANDLERS}  # which job types share
        findings += [one for one in without_repeats(told, tried) if (one.code, one.where) not in known]
    return Report(names, findings)


def _subjects(
    target: Any, handlers: Mapping[str, Handler] | None, registry: Registry | None
) -> Iterator[tuple[str, Subject | DefinitionError]]:
    """The job types of *target* by name; in place of one that cannot be made, why."""
    only = None
    if isinstance(target, str):
        target, known, only = _named(target, registry)
        handlers = handlers or known
    jobs: Mapping[Any, Any] = {None: target}
    if isinstance(target, ModuleType):
        own = [made for made in vars(target).values() if getattr(made, "__module__", "") == target.__name__]
        jobs = getattr(target, "ALL_JOBS", None) or {made.name: made for made in own if defines_job(made)}
        handlers = handlers or getattr(target, "ALL_HANDLERS", None)
        if not isinstance(jobs, Mapping) or not jobs:
            raise DefinitionError(
                f"Module {target.__name__!r} has no ALL_JOBS dict of job types by name, and no gf.JobType."
            )
    if only is not None:
        there = ", ".join(map(str, jobs))
        jobs = {key: job for key, job in jobs.items() if normalise(str(key)) == normalise(only)}
        if not jobs:
            raise DefinitionError(f"There is no job type {only!r} in it; there is {there}.")
    for key, job in jobs.items():
        yield _subject(key, job, handlers, registry)


def _named(name: str, registry: Registry | None) -> tuple[Any, Mapping[str, Handler] | None, str | None]:
    """What *name* means, its handlers where they are known, and the one job type of a module that is meant."""
    if registry is not None and name in registry:
        found = registry.get(name)
        return found.maker or found.job_class, None if found.maker else found.handlers, None
    place, _, picked = name.partition(":")
    if place.endswith(".py") or "." in place:
        return loading.load(place), None, picked or None
    known = Registry()
    found = known.get(loading.find(known, name))
    return found.job_class, found.handlers, None


def _subject(
    key: Any, job: Any, handlers: Mapping[str, Handler] | None, registry: Registry | None
) -> tuple[str, Subject | DefinitionError]:
    from geoflow.checks.source import Subject

    if defines_job(job):
        try:
            made = {**job.handlers(), **(handlers or {})}
            steps = {step.task_type: step for step in getattr(job.contract(), "flow_steps", ())}
            return job.name, Subject(job.name, job.contract(), made, key, job, steps)
        except DefinitionError as exc:
            return job.name, exc
    module = sys.modules.get(getattr(job, "__module__", None) or "")
    known: Any = handlers if handlers is not None else getattr(module, "ALL_HANDLERS", None)
    if known is None:  # where this class is registered, they are known
        found = [registry.get(name) for name in registry or ()]  # type: ignore[union-attr]
        known = next((one.handlers for one in found if one.job_class is job), {})
    name = getattr(job, "job_type", None)
    shown = name if isinstance(name, str) and name else getattr(job, "__name__", None) or type(job).__name__
    return shown, Subject(shown, job, dict(known) if isinstance(known, Mapping) else known, key)
