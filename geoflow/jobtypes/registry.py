"""The job types that a session knows: each is checked whole when it is registered, and all its problems are listed."""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import starmap
from types import ModuleType
from typing import Any, Literal, NamedTuple

from geoflow.core.models import Limit, Stage
from geoflow.errors import DefinitionError
from geoflow.jobtypes.contract import (
    MAX_RETRIES,
    MAX_STAGES,
    MAX_WORKERS,
    METHODS,
    PARALLELISM,
    DefinesJob,
    Handler,
    Registered,
    defines_job,
    handler_problem,
    hides_its_arguments,
    normalise,
)
from geoflow.support.allowance import is_allowance
from geoflow.support.amount import bytes_of, is_amount
from geoflow.support.exception_names import are_exceptions
from geoflow.support.text import shorten
from geoflow.usercode.origin import stacklevel
from geoflow.usercode.packing import unshippable

About = Literal["class", "method", "stage", "handler"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a job type: *text* tells a user, the rest tells a program.

    *code* is that of the catalogue of `gf.check`, or "" where it has none; *name* is that of the method or handler, the
    number of the stage, and "" where it is about the class.
    """

    code: str
    kind: About
    name: str
    text: str


class Examined(NamedTuple):
    """The job type, unless there are *problems* that keep it from being one; *remarks* do not."""

    job_type: Registered | None
    problems: tuple[Problem, ...]
    remarks: tuple[Problem, ...] = ()


class Registry:
    """The job types that this session may run. Names registered again are replaced."""

    def __init__(self) -> None:
        self._types: dict[str, Registered] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._types))

    def __contains__(self, name: str) -> bool:
        return normalise(name) in self._types

    def get(self, name: str) -> Registered:
        """The job type *name*, or ``DefinitionError`` that lists those known and suggests the near one."""
        known = self._types.get(normalise(name))
        if known is None:
            raise DefinitionError(
                f"Unknown job type {name!r}.{_near(normalise(name), self._types)} Registered here: "
                f"{', '.join(self) or 'none'}.",
                python="Register it with session.register(JobClass, handlers={...}) or name its file or module.",
                typed="Name its file, such as path/to/jobs.py, or its module.",
            )
        if known.maker is not None and (newest := known.maker.newest()).contract() is not known.job_class:
            self.register(newest)
        return self._types[known.name]

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
        types: dict[str, Registered] = {}
        problems: list[Problem] = []
        for key, job in targets:
            maker = job if defines_job(job) else None
            known = {**maker.handlers(), **(handlers or {})} if maker else handlers or {}
            checked = examined(maker.contract() if maker else job, known, key)
            for remark in checked.remarks:
                warnings.warn(remark.text, stacklevel=stacklevel())
            problems += checked.problems
            if checked.job_type is not None:
                types[checked.job_type.name] = replace(checked.job_type, maker=maker)
        if problems:
            listed = f"{len(problems)} problems:\n" + "\n".join(f"  - {problem.text}" for problem in problems)
            raise DefinitionError(listed if len(problems) > 1 else problems[0].text)
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


Said = tuple[str, About, str, str]  # a `Problem` in the making


def examined(job_class: Any, handlers: Mapping[str, Handler], key: str | None = None) -> Examined:
    """All that can be said of a job class and its *handlers*, registered as *key*, before anything of it runs."""
    if not isinstance(job_class, type):
        text = f"{job_class!r} is not a class: register the job class itself, not an instance of it."
        return Examined(None, (Problem("GF100", "class", "", text),))
    known: dict[str, Handler] = {}
    said = [*_methods(job_class), *_handlers(handlers, known), *_stages(job_class, known)]
    said += [("GF115", "class", "", text) for text in _not_allowed(_of_class(job_class))]
    if held := unshippable(job_class):
        said.append(("GF118", "class", "", f"the class {held}"))
    label = job_class.__name__
    problems = [Problem(code, kind, name, f"{label}: {text}") for code, kind, name, text in said]
    problems[:0] = starmap(Problem, _name(job_class, key))
    unfit = {problem.name for problem in problems if problem.kind == "handler"}
    remarks = tuple(starmap(Problem, _remarks(job_class, handlers, unfit)))
    if problems:
        return Examined(None, tuple(problems), remarks)
    cls: Any = job_class
    shared = _kept(_of_class(cls))
    stages = tuple(_stage(number, stage, shared) for number, stage in enumerate(cls.stages, start=1))
    return Examined(Registered(normalise(cls.job_type), cls, stages, known), (), remarks)


def _name(job_class: type, key: object) -> Iterator[Said]:
    label, job_type = job_class.__name__, getattr(job_class, "job_type", None)
    if not isinstance(job_type, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", normalise(job_type)):
        how = "give it a name of letters, digits and '_', such as 'tile_stats'."
        yield "GF106", "class", "", f"{label}.job_type is {job_type!r}: {how}"
    elif key is not None and (not isinstance(key, str) or normalise(key) != normalise(job_type)):
        text = f"{label} is registered as {key!r} but its job_type is {job_type!r}: make them the same."
        yield "GF106", "class", "", text


def _methods(job_class: type) -> Iterator[Said]:
    for name in METHODS:
        method = inspect.getattr_static(job_class, name, None)
        if method is None:
            yield "GF101", "method", name, f"the method {name} is missing."
        elif getattr(method, "__isabstractmethod__", False):
            yield "GF101", "method", name, f"the method {name} is still abstract: write it."
        elif not isinstance(method, staticmethod | classmethod):
            yield "GF103", "method", name, f"{name} must be a @staticmethod: job classes are never instantiated."
        elif inspect.iscoroutinefunction(method.__func__):
            yield "GF103", "method", name, f"{name} is async: the engine calls it as a plain function."


def _handlers(handlers: Mapping[str, Handler], known: dict[str, Handler]) -> Iterator[Said]:
    """What is wrong with *handlers*; on the way they become *known* as tasks name them."""
    if not isinstance(handlers, Mapping):
        yield "GF100", "class", "", f"handlers is {type(handlers).__name__}: give a dict of functions by task type."
        return
    for name, handler in handlers.items():
        if not isinstance(name, str):
            yield "GF100", "class", "", f"handlers has the key {name!r}: task types are strings."
            continue
        if known.setdefault(normalise(name), handler) is not handler:
            yield "GF100", "class", "", f"two handlers are called {normalise(name)!r}."
        if uncallable := handler_problem(handler):
            yield "GF117", "handler", name, f"the handler of {name!r} {uncallable}"
        elif held := unshippable(handler):
            yield "GF118", "handler", name, f"the handler of {name!r} {held}"


def _stages(job_class: type, handlers: Mapping[str, Handler]) -> Iterator[Said]:
    stages = getattr(job_class, "stages", None)
    if not isinstance(stages, list | tuple) or not stages:
        yield "GF110", "class", "", "stages must be a list of at least one dict with number, name and task_type."
    elif len(stages) > MAX_STAGES:
        yield "GF110", "class", "", f"{len(stages)} stages are more than the {MAX_STAGES} that one job may have."
    else:
        for position, stage in enumerate(stages, start=1):
            for code, text in _about(stage, position, handlers):
                yield code, "stage", str(position), f"stage {position} {text}"


def _about(stage: Any, position: int, handlers: Mapping[str, Handler]) -> Iterator[tuple[str, str]]:
    """What is wrong with one stage, as codes and the rests of sentences."""
    if not isinstance(stage, Mapping):
        yield "GF110", f"is {type(stage).__name__}, not a dict."
        return
    number, name, task_type = stage.get("number"), stage.get("name"), stage.get("task_type")
    if type(number) is not int or number != position:
        yield "GF110", f"has number {number!r}: stages are numbered 1 to n in order."
    if not isinstance(name, str) or not name:
        yield "GF110", "has no name."
    if not isinstance(task_type, str) or not task_type:
        yield "GF110", "has no task_type."
    elif (kind := normalise(task_type)) not in handlers:
        hint = _near(kind, handlers) or f" Handlers given: {', '.join(sorted(handlers)) or 'none'}."
        yield "GF112", f"has task_type {task_type!r}, which has no handler.{hint}"
    yield from (("GF115", text) for text in _not_allowed(stage))
    if position == 1 and stage.get("parallelism") == "fan_in":
        yield "GF113", "is fan_in: there is no earlier stage whose results it could take."


def _remarks(job_class: type, handlers: Mapping[str, Handler], unfit: set[str]) -> Iterator[Said]:
    """What is only warned of; nothing of handlers that are *unfit* as it is."""
    label, stages = job_class.__name__, getattr(job_class, "stages", None)
    if not isinstance(getattr(job_class, "description", None), str):
        yield "GF109", "class", "", f"{label} has no description (a string that says what it does)."
    for name, handler in handlers.items() if isinstance(handlers, Mapping) else ():
        if isinstance(name, str) and name not in unfit and hides_its_arguments(handler):
            why = "takes *args, so it is given its parameters alone and no context: put functools.wraps(function)"
            text = f"The handler of {name!r} {why} into its decorator, which tells what the function takes."
            yield "", "handler", name, text
    for key, why in _odd(_of_class(job_class)).items():
        yield "GF114", "class", "", f"{label} has {key}{why}"
    for position, stage in enumerate(stages if isinstance(stages, list | tuple) else (), start=1):
        for key, why in _odd(stage).items() if isinstance(stage, Mapping) else ():
            yield "GF114", "stage", str(position), f"{label}: stage {position} has {key}{why}"


def _odd(stage: Mapping[str, Any]) -> dict[str, str]:
    """The parallelism and the options that the engine does not know, and what it makes of them."""
    parallelism = stage.get("parallelism", "single")
    odd = {} if parallelism in PARALLELISM else {"parallelism": f" {parallelism!r}; {_ASKED}"}
    values = {key: stage[key] for key in _OPTIONS if key not in _REFUSED and stage.get(key) is not None}
    return odd | {key: f"={value!r}, {_UNKNOWN}" for key, value in values.items() if not _OPTIONS[key](value)}


def _kept(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's own options among the keys of *stage*."""
    odd = _odd(stage)
    return {key: stage[key] for key in _OPTIONS if key not in odd and stage.get(key) is not None}


def _of_class(job_class: type) -> dict[str, Any]:
    """The options that a job class may have for all of its stages; a function of that name is the author's."""
    values = {key: getattr(job_class, key, None) for key in _SHARED}
    return {key: value for key, value in values.items() if value is not None and not callable(value)}


def _not_allowed(stage: Mapping[str, Any]) -> list[str]:
    """What is wrong with the options that are not left to the author: to run on without what was meant does harm."""
    wrong = {key: stage[key] for key in _REFUSED if stage.get(key) is not None and not _OPTIONS[key](stage[key])}
    said = [f"has {key}={shorten(repr(value), 60)}: {_REFUSED[key]}." for key, value in wrong.items()]
    if stage.get("parallelism") == "fan_in" and callable(stage.get("memory")):
        said.append(f"is fan_in, and its memory is a function: {_REFUSED['memory']}.")
    return said


def _stage(number: int, stage: Mapping[str, Any], shared: Mapping[str, Any]) -> Stage:
    """The stage as the engine keeps it, with the options that it has not of its own from those that all *shared*."""
    kept = {**shared, **_kept(stage)}
    kept |= {"name": stage["name"], "task_type": normalise(stage["task_type"])}
    kept["sized"] = "size" in kept or kept.get("order") == "largest"
    if "memory" in kept:
        differs = callable(kept["memory"])
        kept |= {"memory": None if differs else bytes_of(kept["memory"]), "memory_differs": differs}
    return Stage(number=number, parallelism=str(stage.get("parallelism", "single")), **kept)


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _are_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9


_ASKED = "create_tasks_for_stage will be asked for its tasks, as for 'fan_out'."
_UNKNOWN = "which is not one that the engine knows; it is left to you."
# The engine's own options among a stage's keys. Other values under these names are the author's.
_OPTIONS: dict[str, Callable[[Any], bool]] = {
    "timeout": _are_seconds,
    "idle_timeout": _are_seconds,
    "max_retries": lambda value: type(value) is int and 0 <= value <= MAX_RETRIES,
    "permanent": are_exceptions,
    "transient": are_exceptions,
    "workers": lambda value: type(value) is int and 1 <= value <= MAX_WORKERS,
    "limit": lambda value: isinstance(value, Limit),
    "on_failure": lambda value: value in ("drain", "stop", "continue"),
    "allow_failed": is_allowance,
    "order": lambda value: value in ("planned", "largest"),
    "size": lambda value: isinstance(value, str) or callable(value),
    "memory": lambda value: is_amount(value) or callable(value),
    "reuse": lambda value: isinstance(value, bool),
    "inputs": _are_names,
    "inputs_by": lambda value: value in ("time", "content"),
    "outputs": _are_names,
}
# Of these a wrong one is no remark: with another number than the one that was meant, failures would be let pass.
_REFUSED = {
    "allow_failed": "give a number of tasks, such as 5, or a share of them from 0.0 to 1.0",
    "memory": "give bytes, from a million on, or text such as '8GB' or '512MiB'",
}
_SHARED = ("on_failure", "allow_failed", "reuse")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
