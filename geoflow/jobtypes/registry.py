"""The job types that a session knows: each is checked whole when it is registered, and all its problems are listed."""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from geoflow.core.models import Stage
from geoflow.errors import DefinitionError
from geoflow.jobtypes.contract import (
    MAX_RETRIES,
    MAX_STAGES,
    MAX_WORKERS,
    METHODS,
    PARALLELISM,
    DefinesJob,
    Handler,
    JobType,
    defines_job,
    handler_problem,
    hides_its_arguments,
    normalise,
)
from geoflow.usercode.packing import unshippable


class Registry:
    """The job types that this session may run. Names registered again are replaced."""

    def __init__(self) -> None:
        self._types: dict[str, JobType] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._types))

    def __contains__(self, name: str) -> bool:
        return normalise(name) in self._types

    def get(self, name: str) -> JobType:
        """The job type *name*, or ``DefinitionError`` that lists those known and suggests the near one."""
        found = self._types.get(normalise(name))
        if found is None:
            raise DefinitionError(
                f"Unknown job type {name!r}.{_near(normalise(name), self._types)} Registered here: "
                f"{', '.join(self) or 'none'}.",
                python="Register it with session.register(JobClass, handlers={...}) or name its file or module.",
                typed="Name its file, such as path/to/jobs.py, or its module.",
            )
        if found.maker is not None and (newest := found.maker.newest()).contract() is not found.job_class:
            self.register(newest)
        return self._types[found.name]

    def register(
        self,
        target: type | DefinesJob | ModuleType,
        handlers: Mapping[str, Handler] | None = None,
        *,
        name: str | None = None,
    ) -> list[str]:
        """Check and register a job class with its *handlers*, or a module with ``ALL_JOBS`` and ``ALL_HANDLERS``.

        A `gf.JobType` brings its handlers with it; in a module it may stand in ``ALL_JOBS``, and is found without. It
        counts as it is when a job is run or taken up, also if it was changed after it was registered.

        Returns the names registered. Raises ``DefinitionError`` with every problem found; then nothing of *target*
        is registered.
        """
        targets: list[tuple[Any, Any]] = [(name, target)]
        if isinstance(target, ModuleType):
            jobs, known = jobs_of(target)
            targets, handlers = list(jobs.items()), {**known, **(handlers or {})}
        types: dict[str, JobType] = {}
        problems: list[str] = []
        for key, given in targets:  # in a plain loop: the warnings count the frames up to here
            maker = given if defines_job(given) else None
            known = {**maker.handlers(), **(handlers or {})} if maker else handlers or {}
            checked = _check(maker.contract() if maker else given, known, key)
            if isinstance(checked, JobType):
                types[checked.name] = replace(checked, maker=maker)
            else:
                problems += checked
        if problems:
            listed = f"{len(problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in problems)
            raise DefinitionError(listed if len(problems) > 1 else problems[0])
        self._types |= types
        return list(types)


def jobs_of(module: ModuleType) -> tuple[Mapping[Any, Any], Mapping[str, Handler]]:
    """The job types of *module* by name, and their handlers by task type; ``DefinitionError`` when it has no job types.

    They are its ``ALL_JOBS``, or else each `gf.JobType` that was made in it; the handlers are its ``ALL_HANDLERS``.
    """
    made = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    jobs = getattr(module, "ALL_JOBS", None) or {job.name: job for job in made if defines_job(job)}
    if not isinstance(jobs, Mapping) or not jobs:
        raise DefinitionError(
            f"Module {module.__name__!r} has no ALL_JOBS dict of job types by name. Add ALL_JOBS = {{...}} and "
            "ALL_HANDLERS = {...}, or a gf.JobType; or name its classes one by one."
        )
    return jobs, getattr(module, "ALL_HANDLERS", None) or {}


def _check(job_class: Any, handlers: Mapping[str, Handler], key: str | None) -> JobType | list[str]:
    """The checked job type, or all that is wrong with it."""
    if not isinstance(job_class, type):
        return [f"{job_class!r} is not a class: register the job class itself, not an instance of it."]
    label = job_class.__name__
    problems: list[str] = []
    job_type = getattr(job_class, "job_type", None)
    if not isinstance(job_type, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", normalise(job_type)):
        problems.append(
            f"{label}.job_type is {job_type!r}: give it a name of letters, digits and '_', such as 'tile_stats'."
        )
        job_type = label
    elif key is not None and (not isinstance(key, str) or normalise(key) != normalise(job_type)):
        problems.append(f"{label} is registered as {key!r} but its job_type is {job_type!r}: make them the same.")
    if not isinstance(getattr(job_class, "description", None), str):
        warnings.warn(f"{label} has no description (a string that says what it does).", stacklevel=3)
    for name in METHODS:
        found = inspect.getattr_static(job_class, name, None)
        if found is None:
            problems.append(f"the method {name} is missing.")
        elif getattr(found, "__isabstractmethod__", False):
            problems.append(f"the method {name} is still abstract: write it.")
        elif not isinstance(found, staticmethod | classmethod):
            problems.append(f"{name} must be a @staticmethod: job classes are never instantiated.")
        elif inspect.iscoroutinefunction(found.__func__):
            problems.append(f"{name} is async: the engine calls it as a plain function.")
    known = _checked_handlers(handlers, problems)
    stages = _checked_stages(job_class, known, problems)
    if held := unshippable(job_class):
        problems.append(f"the class {held}")
    if problems:
        return [problem if problem.startswith(label) else f"{label}: {problem}" for problem in problems]
    return JobType(normalise(job_type), job_class, stages, known)


def _checked_handlers(handlers: Mapping[str, Handler], problems: list[str]) -> dict[str, Handler]:
    known: dict[str, Handler] = {}
    if not isinstance(handlers, Mapping):
        problems.append(f"handlers is {type(handlers).__name__}: give a dict of functions by task type.")
        return known
    for name, handler in handlers.items():
        if not isinstance(name, str):
            problems.append(f"handlers has the key {name!r}: task types are strings.")
            continue
        if known.setdefault(normalise(name), handler) is not handler:
            problems.append(f"two handlers are called {normalise(name)!r}.")
        if problem := handler_problem(handler):
            problems.append(f"the handler of {name!r} {problem}")
        elif hides_its_arguments(handler):
            warnings.warn(
                f"The handler of {name!r} takes *args, so it is given its parameters alone and no context: put "
                "functools.wraps(function) into its decorator, which tells what the function takes.",
                stacklevel=5,
            )
    return known


def _checked_stages(job_class: type, handlers: Mapping[str, Handler], problems: list[str]) -> tuple[Stage, ...]:
    declared = getattr(job_class, "stages", None)
    if not isinstance(declared, list | tuple) or not declared:
        problems.append("stages must be a list of at least one dict with number, name and task_type.")
        return ()
    if len(declared) > MAX_STAGES:
        problems.append(f"{len(declared)} stages are more than the {MAX_STAGES} that one job may have.")
        return ()
    stages = []
    for position, given in enumerate(declared, start=1):
        if not isinstance(given, Mapping):
            problems.append(f"stage {position} is {type(given).__name__}, not a dict.")
            continue
        number, name, task_type = given.get("number"), given.get("name"), given.get("task_type")
        kind, parallelism = normalise(str(task_type)), given.get("parallelism", "single")
        told = []
        if type(number) is not int or number != position:
            told.append(f"has number {number!r}: stages are numbered 1 to n in order.")
        if not isinstance(name, str) or not name:
            told.append("has no name.")
        if not isinstance(task_type, str) or not task_type:
            told.append("has no task_type.")
        elif kind not in handlers:
            hint = _near(kind, handlers) or f" Handlers given: {', '.join(sorted(handlers)) or 'none'}."
            told.append(f"has task_type {task_type!r}, which has no handler.{hint}")
        if parallelism == "fan_in" and position == 1:
            told.append("is fan_in: there is no earlier stage whose results it could take.")
        problems += [f"stage {position} {problem}" for problem in told]
        options = {key: given[key] for key in _OPTIONS if given.get(key) is not None}
        odd = {} if parallelism in PARALLELISM else {"parallelism": f" {parallelism!r}; {_ASKED}"}
        odd |= {key: f"={value!r}, {_UNKNOWN}" for key, value in options.items() if not _OPTIONS[key](value)}
        for key, why in odd.items():
            warnings.warn(f"{job_class.__name__}: stage {position} has {key}{why}", stacklevel=4)
        if not problems:
            kept: dict[str, Any] = {key: value for key, value in options.items() if key not in odd}
            kept |= {"name": name, "task_type": kind, "parallelism": str(parallelism)}
            stages.append(Stage(number=position, **kept))
    return tuple(stages)


_ASKED = "create_tasks_for_stage will be asked for its tasks, as for 'fan_out'."
_UNKNOWN = "which is not one that the engine knows; it is left to you."
# The engine's own options among a stage's keys. Other values under these names are the author's.
_OPTIONS: dict[str, Callable[[Any], bool]] = {
    "timeout": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9,
    "max_retries": lambda value: type(value) is int and 0 <= value <= MAX_RETRIES,
    "workers": lambda value: type(value) is int and 1 <= value <= MAX_WORKERS,
    "on_failure": lambda value: value in ("drain", "stop"),
    "order": lambda value: value in ("planned", "largest"),
}


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
