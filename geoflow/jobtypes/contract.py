"""The contract between job types and the engine: what a job class and a handler look like.

A job type is a class that is never instantiated; handlers are plain functions. What can be known about them without
running them is checked once, when `registry` takes them in, and told in one message.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

from geoflow.core.models import JobExecutionContext, Stage
from geoflow.usercode.references import innermost

Handler = Callable[..., Any]
METHODS = ("validate_job_parameters", "generate_job_id", "create_tasks_for_stage", "finalize_job")
PARALLELISM = ("single", "fan_out", "fan_in")
MAX_STAGES = 1000
MAX_RETRIES, MAX_WORKERS = 1000, 10_000
PROBE_OF = "probe_of_"  # so begin the names of job types that `Session.probe` makes


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
        """The tasks of the stage of that number (1, 2, …): dicts with ``task_id``, ``task_type`` and ``parameters``."""

    @staticmethod
    @abstractmethod
    def finalize_job(context: JobExecutionContext | None = None) -> dict[str, Any]:
        """The job's result, made from all task results."""


@runtime_checkable
class DefinesJob(Protocol):
    """What is no job class itself but makes one, as `gf.JobType` does; it may make another when it has changed.

    ``newest`` is what has taken its place, or itself.
    """

    name: str

    def contract(self) -> type: ...
    def handlers(self) -> Mapping[str, Handler]: ...
    def newest(self) -> DefinesJob: ...


def defines_job(target: Any) -> TypeGuard[DefinesJob]:
    return isinstance(target, DefinesJob) and not isinstance(target, type)


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered job type: its checked stages, its class, and the handlers that its tasks may name."""

    name: str
    job_class: type
    stages: tuple[Stage, ...]
    handlers: Mapping[str, Handler]
    maker: DefinesJob | None = None

    @property
    def non_identity(self) -> frozenset[str]:
        """Parameters that are declared as not part of the job's identity."""
        return frozenset(getattr(self.job_class, "non_identity_parameters", ()))


def handler_problem(handler: Any) -> str | None:
    """What keeps *handler* from being called with one argument, or None."""
    if not callable(handler):
        return f"is {type(handler).__name__}, which cannot be called."
    if problem := unfit_function(innermost(handler)):
        return problem
    signature = _signature(handler)
    if signature and not (_binds(signature, {}) or _binds(signature, {}, None)):
        return f"has the signature {signature}: it must be callable as handler(params) or handler(params, context)."
    return None


def unfit_function(function: Any, returns: str = "dict") -> str | None:
    """What keeps *function* from being called as a plain one that has a name, or None."""
    if getattr(function, "__name__", "") == "<lambda>":
        return "is a lambda: write it as a def, so that tracebacks, logs and code versions have a name to show."
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        return "is async: handlers are plain functions; use asyncio.run inside it."
    if inspect.isgeneratorfunction(call):
        return f"is a generator: return a {returns} instead of yielding."
    return None


def has_parameter(function: Callable[..., Any], name: str) -> bool:
    signature = _signature(function)
    return signature is not None and name in signature.parameters


def _signature(handler: Handler) -> inspect.Signature | None:
    try:
        return inspect.signature(handler)
    except (TypeError, ValueError):  # a builtin tells nothing of its arguments: the first call will
        return None


def _binds(signature: inspect.Signature, *arguments: Any) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def hides_its_arguments(handler: Handler) -> bool:
    """Whether nobody can see if *handler* wants a context: a decorator takes ``*args``, and says not for whom."""
    signature = _signature(handler)
    kinds = [parameter.kind for parameter in signature.parameters.values()] if signature else []
    return inspect.Parameter.VAR_POSITIONAL in kinds[:2]


def accepts_context(handler: Handler) -> bool:
    """Whether *handler* is to be given a context: its second argument is required, or is called ``context``."""
    signature = _signature(handler)
    if signature is None or not _binds(signature, {}, None):
        return False
    second = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][1:2]
    return bool(second) and (second[0].name in ("context", "ctx") or second[0].default is inspect.Parameter.empty)
