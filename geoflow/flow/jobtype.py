"""`gf.JobType`: a job type from typed functions, in a notebook or in a file."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload
from weakref import WeakValueDictionary

from geoflow.contract import MAX_RETRIES, MAX_WORKERS, Handler, normalise
from geoflow.errors import DefinitionError
from geoflow.flow.annotations import bare, is_object, same, show, without_none
from geoflow.flow.chain import Chain
from geoflow.flow.lowered import Lowered, handler
from geoflow.flow.params import as_dict, checked_class, non_identity, schema
from geoflow.flow.stage import Defined, Pick, defined, ending, step, stuck
from geoflow.models import OnFailure

if TYPE_CHECKING:
    from geoflow.handle import JobHandle
    from geoflow.session import OnExisting, Session

F = TypeVar("F", bound=Callable[..., Any])
_PARALLELISM = {"stage": "single", "each": "fan_out", "reduce": "fan_in"}
_IN_WORDS = {"stage": "one task", "each": "one task for each item of {}", "reduce": "one task over all of {}"}


class Lowering(NamedTuple):
    """What a `JobType` is for the engine: a class and, by the names of the stages, its handlers."""

    job: type
    tasks: SimpleNamespace


class JobType:
    """A job type whose stages are typed functions::

        tile_stats = gf.JobType("tile_stats", params=Params)

        @tile_stats.stage
        def scan(p: Params) -> list[Tile]: ...

        @tile_stats.each(scan, key="name")
        def stat(tile: Tile, p: Params) -> Stat: ...

        @tile_stats.reduce(stat)
        def merge(stats: list[Stat]) -> dict: ...

        job = tile_stats.run(folder="data")

    *params* is the class of its parameters, a pydantic model or a dataclass; without one they are a plain dict. The
    first function is decorated with `stage`, later ones with `each` or `reduce` and the stage they follow, and last, if
    need be, with `finalize`. The functions stay what they are and can be called as they are.

    The annotations decide what a function is given: the job's parameters (of the class *params*), an item of the stage
    before or all its results, and a context (``gf.TaskContext``; in finalize ``gf.JobExecutionContext``). What is
    returned crosses to the next stage as JSON, and becomes what the annotation there says. Without annotations it stays
    plain JSON, given in the order item or results, then parameters.

    A function that is decorated again replaces the stage of its name. Raises ``DefinitionError`` for what cannot work:
    types that do not fit from one stage to the next, or a variable that cannot travel to a worker process.
    """

    def __init__(self, name: str, *, params: type | None = None, description: str = "") -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", normalise(name)):
            raise DefinitionError(
                f"A job type cannot be called {name!r}: use letters, digits and '_', as in 'tile_stats'."
            )
        self.name = normalise(name)
        self.description = description
        self.params = checked_class(self.name, params)
        caller = sys._getframe(1)
        self.__module__ = _module(caller)
        self._stages = Chain(self.name)
        self._finalize: Defined | None = None
        self._amended = False
        self._lowering: Lowering | None = None
        self._of_module = caller.f_locals is caller.f_globals  # what a function makes may be one of several
        if self._of_module:
            _newest[self.__module__, self.name] = self

    def __repr__(self) -> str:
        lines = [
            f"  {number} {stage.name}: {_IN_WORDS[stage.kind].format(stage.previous)}"
            for number, stage in enumerate(self._stages, start=1)
        ]
        head = f"gf.JobType {self.name}({show(self.params) if self.params else ''})"
        return "\n".join([head, *(lines or ["  no stages yet"])])

    # Stages

    @overload
    def stage(self, function: F, /) -> F: ...

    @overload
    def stage(
        self,
        /,
        *,
        retries: int | None = None,
        timeout: float | None = None,
        workers: int | None = None,
        on_failure: OnFailure | None = None,
    ) -> Callable[[F], F]: ...

    def stage(
        self,
        function: Any = None,
        /,
        *,
        retries: int | None = None,
        timeout: float | None = None,
        workers: int | None = None,
        on_failure: OnFailure | None = None,
    ) -> Any:
        """The first stage: one task, which is given the job's parameters.

        *retries* of a failed task, *timeout* in seconds for each, how many *workers* may run tasks of this stage at
        once, and *on_failure* (``"drain"`` or ``"stop"``) overrule the session's.
        """
        options = {"retries": retries, "timeout": timeout, "workers": workers, "on_failure": on_failure}
        decorate = self._decorator(sys._getframe(1), "stage", options)
        return decorate if function is None else decorate(function)

    def each(
        self,
        previous: Callable[..., Any] | str,
        /,
        *,
        key: Pick = None,
        over: Pick = None,
        retries: int | None = None,
        timeout: float | None = None,
        workers: int | None = None,
        on_failure: OnFailure | None = None,
    ) -> Callable[[F], F]:
        """A stage of one task for each item of the stage *previous*. The options are those of `stage`.

        Items are what is in the list that *previous* returns; *over* names the field of its result where the list is,
        or is a function that finds it. Where *previous* is itself an `each`, each of its results is an item, unless it
        is a list, whose items then are: its annotation says which, as ``list[Tile]`` or ``Tile`` (a fixed
        ``tuple[float, float]`` is one item).

        *key* tells an item from the others: the name of a field of it, or a function of it. It becomes part of the
        task's id, which then stays the same when other items come or go. Without it, an item is known by its place.
        """
        options = {"retries": retries, "timeout": timeout, "workers": workers, "on_failure": on_failure}
        before = self._stages.known(previous, "each")
        return self._decorator(sys._getframe(1), "each", options, before, key=key, over=over)

    def reduce(
        self,
        previous: Callable[..., Any] | str,
        /,
        *,
        retries: int | None = None,
        timeout: float | None = None,
        workers: int | None = None,
        on_failure: OnFailure | None = None,
    ) -> Callable[[F], F]:
        """A stage of one task, which is given all results of the stage *previous* as a list.

        Where *previous* is one task by itself, its result is given as it is. The options are those of `stage`.
        """
        options = {"retries": retries, "timeout": timeout, "workers": workers, "on_failure": on_failure}
        return self._decorator(sys._getframe(1), "reduce", options, self._stages.known(previous, "reduce"))

    def finalize(self, function: F, /) -> F:
        """The function that makes the job's result: a dict, a model or a dataclass, when all stages are done.

        It is given the results of the last stage, the parameters and a ``gf.JobExecutionContext``, as its annotations
        ask. Without one, the result is that of the last stage: as it is, or, of an `each`, their ``count`` and
        ``results`` (the first 1,000).
        """
        caller = sys._getframe(1)
        made = self._checked(caller, function, "finalize")
        if bare(made.returns) is type(None) or not is_object(without_none(made.returns)):
            raise DefinitionError(
                f"{self.name}: {made.name} returns {show(made.returns)}, but the result of a job is a dict, a model or "
                "a dataclass: return one of these."
            )
        if order := self._stages.order():
            ending(self.name, made, order[-1])
        self._finalize = made
        self._changed(caller, made)
        return function

    # Running

    def run(
        self,
        params: Any = None,
        /,
        *,
        session: Session | None = None,
        on_existing: OnExisting = "return",
        **parameters: Any,
    ) -> JobHandle:
        """Run it as it is defined now, show its progress and wait; see `Session.run`.

        The parameters are given by name, as one dict, or as an object of the class *params*. Without a *session* it
        runs in the one that ``gf.run`` uses.
        """
        return _session(session).run(self, as_dict(params), on_existing=on_existing, **parameters)

    def submit(
        self,
        params: Any = None,
        /,
        *,
        session: Session | None = None,
        on_existing: OnExisting = "return",
        **parameters: Any,
    ) -> JobHandle:
        """Start it as it is defined now and return at once; see `Session.submit`, and `run` for the parameters."""
        return _session(session).submit(self, as_dict(params), on_existing=on_existing, **parameters)

    # What it is for the engine

    def contract(self) -> type:
        """The class that the contract asks for (S1). It is the same one until something is decorated again."""
        return self.lowered.job

    def handlers(self) -> dict[str, Handler]:
        """The handlers by task type, once it is sure that all which they use can travel to worker processes."""
        lowered = self.lowered
        if self._variable() is None:
            for made in (*self._stages, *([self._finalize] if self._finalize else [])):
                self._refuse_stuck(made)
        return {self._task_type(name): task for name, task in vars(lowered.tasks).items()}

    def newest(self) -> JobType:
        """The job type of this name that was made last in the same module: its cell may have been run again."""
        newest = _newest.get((self.__module__, self.name), self)
        return newest if self._of_module else self

    @property
    def lowered(self) -> Lowering:
        """The class and the handlers, made when they are first asked for."""
        if self._lowering is None:
            self._lowering = self._lower()
        return self._lowering

    # Defining

    def _decorator(
        self,
        caller: FrameType,
        kind: str,
        options: Mapping[str, Any],
        previous: Defined | None = None,
        key: Pick = None,
        over: Pick = None,
    ) -> Callable[[F], F]:
        for what, pick in (("key", key), ("over", over)):
            if pick is not None and not isinstance(pick, str) and not callable(pick):
                raise DefinitionError(f"{self.name}: {what}={pick!r} is neither the name of a field nor a function.")
        kept = _checked_options(f"{self.name}: @{self.name}.{kind}", options)

        def decorate(function: F) -> F:
            name = previous.name if previous else None
            try:
                made = self._checked(caller, function, kind, previous=name, options=kept, key=key, over=over)
                step(self.name, 1, "", made, previous)
                remarks = self._stages.take(made, in_file=_module(caller) == self.__module__ != "__main__")
            except DefinitionError as exc:
                raise exc.with_traceback(None) from None  # the message tells all; how it was found does not matter
            for remark in remarks:
                where, seen = caller.f_code.co_filename, caller.f_globals.setdefault("__warningregistry__", {})
                warnings.warn_explicit(remark, UserWarning, where, caller.f_lineno, registry=seen)
            self._changed(caller, made)
            return function

        return decorate

    def _checked(self, caller: FrameType, function: Any, kind: str, **about: Any) -> Defined:
        names = caller.f_locals if caller.f_locals is not caller.f_globals else {}
        made = defined(self.name, function, kind, params=self.params, names=names, **about)
        # A function of a module has no name there yet, and so would seem to travel by value; `handlers` looks at it.
        if function.__module__ == "__main__" or "<locals>" in function.__qualname__:
            self._refuse_stuck(made)
        return made

    def _refuse_stuck(self, made: Defined) -> None:
        for problem in stuck(made):
            raise DefinitionError(f"{self.name}: {problem}")

    def _changed(self, caller: FrameType, made: Defined) -> None:
        self._lowering = None
        self._amended = self._amended or _module(caller) != self.__module__
        for given in made.signature.given:
            # Where the cell of its class was run again, this function is the first that has seen the new one.
            if given.role == "params" and same(given.from_json.annotation, self.params):
                self.params = given.from_json.annotation

    # Lowering

    def _lower(self) -> Lowering:
        stages = self._stages.whole()
        steps = []
        for number, (previous, stage) in enumerate(zip([None, *stages], stages, strict=False), start=1):
            made = step(self.name, number, self._task_type(stage.name), stage, previous)
            steps.append(made.with_params(self.params))
        members: dict[str, Any] = {
            "job_type": self.name,
            "description": self.description,
            "stages": [
                {
                    "number": made.number,
                    "name": made.name,
                    "task_type": made.task_type,
                    "parallelism": _PARALLELISM[made.kind],
                    **stage.options,
                }
                for made, stage in zip(steps, stages, strict=True)
            ],
            "parameters_schema": schema(self.params),
            "non_identity_parameters": non_identity(self.params),
            "flow_steps": tuple(steps),
            "flow_params": self.params,
        }
        if self._finalize is not None:
            members["flow_ending"] = ending(self.name, self._finalize, stages[-1]).with_params(self.params)
            members["flow_finalize"] = staticmethod(self._finalize.function)
        for stage in stages:  # as members of the class, so that tracebacks show their lines
            picks = (("key", stage.key), ("over", stage.over))
            members |= {f"flow_{what}_{stage.name}": staticmethod(pick) for what, pick in picks if callable(pick)}
        camel = "".join(word.capitalize() for word in self.name.split("_"))
        job = self._named(type(camel, (Lowered,), members), "job", camel)
        tasks = {
            stage.name: self._named(handler(made, stage.function), f"tasks.{stage.name}", stage.name)
            for made, stage in zip(steps, stages, strict=True)
        }
        return Lowering(job, SimpleNamespace(**tasks))

    def _task_type(self, name: str) -> str:
        return normalise(f"{self.name}_{name}")

    def _variable(self) -> str | None:
        """The variable of its module by which a worker finds it, if it is all as the module defines it."""
        module = sys.modules.get(self.__module__)
        if self.__module__ == "__main__" or self._amended or module is None:
            return None
        return next((name for name, value in vars(module).items() if value is self), None)

    def _named(self, target: Any, path: str, name: str) -> Any:
        """*target* under the name by which it travels: what a worker can import, or what it cannot."""
        variable = self._variable()
        target.__module__ = self.__module__
        target.__qualname__ = f"JobType.<locals>.{name}" if variable is None else f"{variable}.lowered.{path}"
        return target


# What a cell or file made last, by module and name.
_newest: WeakValueDictionary[tuple[str, str], JobType] = WeakValueDictionary()


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "__main__"))


def _session(session: Session | None) -> Session:
    if session is not None:
        return session
    # By name: what runs jobs stands above what defines them, and a worker that defines one needs none of it.
    found: Session = importlib.import_module("geoflow.default").default_session()
    return found


def _checked_options(who: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given, under the names that the engine knows."""
    kept = {name: value for name, value in options.items() if value is not None}
    for name, least, most in (("retries", 0, MAX_RETRIES), ("workers", 1, MAX_WORKERS)):
        if name in kept and (type(kept[name]) is not int or not least <= kept[name] <= most):
            raise DefinitionError(f"{who} has {name}={kept[name]!r}: give a whole number from {least} to {most:,}.")
    timeout = kept.get("timeout", 1)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 1e9:
        raise DefinitionError(f"{who} has timeout={timeout!r}: give seconds, more than 0.")
    if kept.get("on_failure", "drain") not in ("drain", "stop"):
        raise DefinitionError(f"{who} has on_failure={kept['on_failure']!r}: give 'drain' or 'stop'.")
    if "retries" in kept:
        kept["max_retries"] = kept.pop("retries")
    return kept
