"""The contract between job types and the engine, and the registry that checks it.

A job type is a class that is never instantiated; handlers are plain functions. Everything that can be known about
them without running them is checked once, at registration, and told in one message.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol, TypeGuard, runtime_checkable

from geoflow.errors import DefinitionError
from geoflow.models import JobExecutionContext, Stage
from geoflow.transport import innermost, unshippable

Handler = Callable[..., Any]
METHODS = ("validate_job_parameters", "generate_job_id", "create_tasks_for_stage", "finalize_job")
PARALLELISM = ("single", "fan_out", "fan_in")
MAX_STAGES = 1000
MAX_RETRIES, MAX_WORKERS = 1000, 10_000


def task_id(job_id: str, stage: int, unit: str) -> str:
    """The id of the task that does *unit* in *stage* of a job: 16 hex digits, the same every time it is asked."""
    return hashlib.sha256(f"{job_id}|s{stage}|{unit}".encode()).hexdigest()[:16]


def job_id_for(job_type: str, parameters: Mapping[str, Any], exclude: Iterable[str] = ()) -> str:
    """SHA-256 over the job type and the canonical JSON of *parameters*, less those in *exclude*: 64 hex digits."""
    left_out = set(exclude)
    identity = {key: value for key, value in parameters.items() if key not in left_out}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{job_type}\n{canonical}".encode()).hexdigest()


def normalise(name: str) -> str:
    """The one spelling of a job or task type: lower-case, with ``_``."""
    return name.strip().lower().replace("-", "_")


class JobBase(ABC):
    """The contract as an abstract class, for editors and type checkers; inheriting from it is optional."""

    job_type: str
    description: str
    stages: list[dict[str, Any]]

    @staticmethod
    @abstractmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        """The parameters as the job will use them, or ``ValueError`` with every problem."""

    @staticmethod
    @abstractmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        """64 lower-case hex digits that are the same for the same work."""

    @staticmethod
    @abstractmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """The tasks of *stage*: dicts with ``task_id``, ``task_type`` and ``parameters``."""

    @staticmethod
    @abstractmethod
    def finalize_job(context: JobExecutionContext | None = None) -> dict[str, Any]:
        """The job's result, made from all task results."""


@runtime_checkable
class DefinesJob(Protocol):
    """What is no job class itself but makes one, as `gf.JobType` does; it may make another when it has changed."""

    name: str

    def contract(self) -> type:
        """The job class."""

    def handlers(self) -> Mapping[str, Handler]:
        """Its handlers by task type."""

    def newest(self) -> DefinesJob:
        """What has taken its place, or itself."""


def defines_job(target: Any) -> TypeGuard[DefinesJob]:
    return isinstance(target, DefinesJob) and not isinstance(target, type)


@dataclass(frozen=True, slots=True)
class JobType:
    """A registered job type: its checked stages, its class, and the handlers that its tasks may name."""

    name: str
    job_class: type
    stages: tuple[Stage, ...]
    handlers: Mapping[str, Handler]

    @property
    def non_identity(self) -> frozenset[str]:
        """Parameters that are declared as not part of the job's identity."""
        return frozenset(getattr(self.job_class, "non_identity_parameters", ()))


class Registry:
    """The job types that this session may run. Names registered again are replaced."""

    def __init__(self) -> None:
        self._types: dict[str, JobType] = {}
        self._made_by: dict[str, DefinesJob] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._types))

    def __contains__(self, name: str) -> bool:
        return normalise(name) in self._types

    def get(self, name: str) -> JobType:
        """The job type *name*, or ``DefinitionError`` that lists those known and suggests the near one."""
        found = self._types.get(normalise(name))
        if found is None:
            known = sorted(self._types)
            near = difflib.get_close_matches(normalise(name), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DefinitionError(
                f"Unknown job type {name!r}.{hint} Registered here: {', '.join(known) or 'none'}. "
                "Register it with session.register(JobClass, handlers={...}) or name its file or module."
            )
        maker = self._made_by.get(found.name)
        if maker is not None and (newest := maker.newest()).contract() is not found.job_class:
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
        if isinstance(target, ModuleType):
            jobs = getattr(target, "ALL_JOBS", None) or {
                made.name: made
                for made in vars(target).values()
                if defines_job(made) and made.__module__ == target.__name__
            }
            handlers = {**(getattr(target, "ALL_HANDLERS", None) or {}), **(handlers or {})}
            if not isinstance(jobs, Mapping) or not jobs:
                raise DefinitionError(
                    f"Module {target.__name__!r} has no ALL_JOBS dict of job types by name. Add "
                    "ALL_JOBS = {...} and ALL_HANDLERS = {...}, or a gf.JobType; or register its classes one by one."
                )
            targets = list(jobs.items())
        else:
            targets = [(name, target)]
        checked = []  # in a plain loop: the warnings count the frames up to here
        makers: dict[str, DefinesJob] = {}
        for key, job_class in targets:
            known = handlers or {}
            if defines_job(job_class):
                makers[normalise(job_class.name)] = job_class
                known = {**job_class.handlers(), **known}
            checked.append(_check(job_class.contract() if defines_job(job_class) else job_class, known, key))
        problems = [problem for _, found in checked for problem in found]
        if problems:
            raise DefinitionError(_listing(problems))
        registered = [job_type for job_type, _ in checked if job_type is not None]
        for job_type in registered:
            self._types[job_type.name] = job_type
            self._made_by.pop(job_type.name, None)
        self._made_by.update(makers)
        return [job_type.name for job_type in registered]


def _listing(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} problems:\n" + "\n".join(f"  - {problem}" for problem in problems)


def _check(job_class: Any, handlers: Mapping[str, Handler], key: str | None) -> tuple[JobType | None, list[str]]:
    """The checked job type, or all that is wrong with it."""
    if not isinstance(job_class, type):
        return None, [f"{job_class!r} is not a class: register the job class itself, not an instance of it."]
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
    problems += _method_problems(job_class)
    known, handler_problems = _checked_handlers(handlers)
    problems += handler_problems
    stages, stage_problems = _checked_stages(job_class, known)
    problems += stage_problems
    if (held := unshippable(job_class)) is not None:
        problems.append(f"the class {held}")
    if problems:
        return None, [f"{label}: {p}" if not p.startswith(label) else p for p in problems]
    return JobType(normalise(job_type), job_class, stages, known), []


def _method_problems(job_class: type) -> list[str]:
    problems = []
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
    return problems


def _checked_handlers(handlers: Mapping[str, Handler]) -> tuple[dict[str, Handler], list[str]]:
    known: dict[str, Handler] = {}
    problems: list[str] = []
    if not isinstance(handlers, Mapping):
        return {}, [f"handlers is {type(handlers).__name__}: give a dict of functions by task type."]
    for name, handler in handlers.items():
        if not isinstance(name, str):
            problems.append(f"handlers has the key {name!r}: task types are strings.")
            continue
        if normalise(name) in known and known[normalise(name)] is not handler:
            problems.append(f"two handlers are called {normalise(name)!r}.")
        known[normalise(name)] = handler
        problem = handler_problem(handler)
        if problem:
            problems.append(f"the handler of {name!r} {problem}")
    return known, problems


def handler_problem(handler: Any) -> str | None:
    """What keeps *handler* from being called with one argument in another process, or None."""
    if not callable(handler):
        return f"is {type(handler).__name__}, which cannot be called."
    function = innermost(handler)
    if getattr(function, "__name__", "") == "<lambda>":
        return "is a lambda: write it as a def, so that tracebacks, logs and code versions have a name to show."
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        return "is async: handlers are plain functions; use asyncio.run inside it."
    if inspect.isgeneratorfunction(call):
        return "is a generator: return a dict instead of yielding."
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return unshippable(handler)  # a builtin tells nothing of its arguments: the first call will
    if not (_binds(signature, {}) or _binds(signature, {}, None)):
        return f"has the signature {signature}: it must be callable as handler(params) or handler(params, context)."
    return unshippable(handler)


def _binds(signature: inspect.Signature, *arguments: Any) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def accepts_context(handler: Handler) -> bool:
    """Whether *handler* is to be given a context: its second argument is required, or is called ``context``."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return False
    if not _binds(signature, {}, None):
        return False
    second = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][1:2]
    return bool(second) and (second[0].name in ("context", "ctx") or second[0].default is inspect.Parameter.empty)


def _checked_stages(job_class: type, handlers: Mapping[str, Handler]) -> tuple[tuple[Stage, ...], list[str]]:
    declared = getattr(job_class, "stages", None)
    if not isinstance(declared, list | tuple) or not declared:
        return (), ["stages must be a list of at least one dict with number, name and task_type."]
    if len(declared) > MAX_STAGES:
        return (), [f"{len(declared)} stages are more than the {MAX_STAGES} that one job may have."]
    stages: list[Stage] = []
    problems: list[str] = []
    for position, given in enumerate(declared, start=1):
        if not isinstance(given, Mapping):
            problems.append(f"stage {position} is {type(given).__name__}, not a dict.")
            continue
        number, name, task_type = given.get("number"), given.get("name"), given.get("task_type")
        if type(number) is not int or number != position:
            problems.append(f"stage {position} has number {number!r}: stages are numbered 1 to n in order.")
        if not isinstance(name, str) or not name:
            problems.append(f"stage {position} has no name.")
        if not isinstance(task_type, str) or not task_type:
            problems.append(f"stage {position} has no task_type.")
        elif normalise(task_type) not in handlers:
            near = difflib.get_close_matches(normalise(task_type), handlers, n=1)
            hint = (
                f" Did you mean {near[0]!r}?" if near else f" Handlers given: {', '.join(sorted(handlers)) or 'none'}."
            )
            problems.append(f"stage {position} has task_type {task_type!r}, which has no handler.{hint}")
        parallelism = given.get("parallelism", "single")
        if parallelism == "fan_in" and position == 1:
            problems.append("stage 1 is fan_in: there is no earlier stage whose results it could take.")
        if parallelism not in PARALLELISM:
            warnings.warn(
                f"{job_class.__name__}: stage {position} has parallelism {parallelism!r}; "
                "create_tasks_for_stage will be asked for its tasks, as for 'fan_out'.",
                stacklevel=4,
            )
        if not problems:
            stages.append(
                Stage(
                    number=position,
                    name=str(name),
                    task_type=normalise(str(task_type)),
                    parallelism=str(parallelism),
                    **_options(job_class, position, given),
                )
            )
    return tuple(stages), problems


def _options(job_class: type, position: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's own options among the stage's keys; the author's other values under these names are theirs."""
    options: dict[str, Any] = {}
    timeout, retries, on_failure = given.get("timeout"), given.get("max_retries"), given.get("on_failure")
    if isinstance(timeout, int | float) and not isinstance(timeout, bool) and 0 < timeout < 1e9:
        options["timeout"] = float(timeout)
    if type(retries) is int and 0 <= retries <= MAX_RETRIES:
        options["max_retries"] = retries
    if on_failure in ("drain", "stop"):
        options["on_failure"] = on_failure
    if type(given.get("workers")) is int and 1 <= given["workers"] <= MAX_WORKERS:
        options["workers"] = given["workers"]
    if given.get("order") in ("planned", "largest"):
        options["order"] = given["order"]
    for key in ("timeout", "max_retries", "on_failure", "workers", "order"):
        if given.get(key) is not None and key not in options:
            warnings.warn(
                f"{job_class.__name__}: stage {position} has {key}={given[key]!r}, which is not one that the engine "
                "knows; it is left to you.",
                stacklevel=5,
            )
    return options
