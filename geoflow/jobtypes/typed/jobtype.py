"""`gf.JobType`: a job type from typed functions, in a notebook or in a file."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Annotated, Any, TypeVar, Unpack, overload
from weakref import WeakValueDictionary

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic reads typing's own from Python 3.12 on only

from geoflow.core.models import InputsBy, Limit, OnFailure, Order
from geoflow.errors import DefinitionError
from geoflow.jobtypes.contract import MAX_RETRIES, MAX_WORKERS, Handler, normalise
from geoflow.jobtypes.typed.annotations import core, fields_of, form, is_model, older, same, show
from geoflow.jobtypes.typed.crossing import problems_of
from geoflow.jobtypes.typed.lowered import Kind, Pick, Step
from geoflow.jobtypes.typed.stage import defined, linked, lower, outdated
from geoflow.support.allowance import Allowance, AllowFailed
from geoflow.support.amount import Amounts
from geoflow.support.exception_names import Exceptions

F = TypeVar("F", bound=Callable[..., Any])
How = str | Callable[[Any], Any] | None
_ENGINES = {"retries": "max_retries"}
_BY_TYPE = {"inputs": "InputFile", "outputs": "OutputFile"}  # options of a contract's stages alone
_PARALLELISM = {"stage": "single", "each": "fan_out", "reduce": "fan_in"}
_IN_WORDS = {"stage": "one task", "each": "one task for each item of {}", "reduce": "one task over all of {}"}
# What a cell or file made last, by module and name.
_newest: WeakValueDictionary[tuple[str, str], TypedJob] = WeakValueDictionary()


@with_config(ConfigDict(strict=True, extra="forbid"))
class StageOptions(TypedDict, total=False):
    """What a stage may say otherwise than the session."""

    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES)] | None
    permanent: Exceptions
    transient: Exceptions
    timeout: Annotated[float, Field(gt=0, lt=1e9)] | None
    idle_timeout: Annotated[float, Field(gt=0, lt=1e9)] | None
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] | None
    limit: Limit | None
    order: Order | None
    memory: Amounts
    on_failure: OnFailure | None
    allow_failed: AllowFailed
    reuse: bool | None
    inputs_by: InputsBy | None


class TypedJob:
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
    first function is decorated with `stage`, later ones with `each` or `reduce` and the stage they follow, and one, if
    need be, with `finalize`. The functions stay what they are.

    The annotations decide what a function is given: the job's parameters (of the class *params*), an item of the stage
    before or all its results, and a context (``gf.TaskContext``; in finalize ``gf.JobExecutionContext``). What is
    returned crosses to the next stage as JSON, and becomes what the annotation there says. Without annotations it stays
    plain JSON, given in the order item or results, then parameters.

    *on_failure*, *allow_failed* and *reuse* hold for all of its stages that do not say otherwise; see `stage`.

    A function that is decorated again replaces the stage of its name. Raises ``DefinitionError`` for what cannot work:
    types that do not fit from one stage to the next, or a variable that cannot travel to a worker process.
    """

    def __init__(
        self,
        name: str,
        *,
        params: type | None = None,
        description: str = "",
        on_failure: OnFailure | None = None,
        allow_failed: Allowance | None = None,
        reuse: bool | None = None,
    ) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", normalise(name)):
            raise DefinitionError(f"A job type cannot be called {name!r}: use a letter, then letters, digits and '_'.")
        self.name = normalise(name)
        self.description = description
        self.params = params
        if params is not None and not is_model(core(params)):
            raise DefinitionError(f"{self.name}: params={params!r} is no pydantic model and no dataclass.")
        for field, kind in (fields_of(params) or {}).items():
            if hasattr(core(kind), "get_secret_value"):
                raise DefinitionError(
                    f"{self.name}: params={show(params)} has {field}: {show(kind)}, but parameters are stored as text "
                    "that can be read. Read the secret in the function that uses it, from os.environ, or annotate "
                    f"{field} as str: geoflow masks what is called so wherever it shows it."
                )
        options: StageOptions = {"on_failure": on_failure, "allow_failed": allow_failed, "reuse": reuse}
        self.options = self._options("gf.JobType", options, list(options))
        caller = sys._getframe(1)
        self.__module__ = str(caller.f_globals.get("__name__", "__main__"))
        self._stages: dict[str, Step] = {}
        self._finalize: Step | None = None
        self._made: tuple[type, dict[str, Handler]] | None = None
        self._of_module = caller.f_locals is caller.f_globals  # what a function makes may be one of several
        if self._of_module:
            _newest[self.__module__, self.name] = self

    def __repr__(self) -> str:
        steps = [f"{stage.name}: {_IN_WORDS[stage.kind].format(stage.previous)}" for stage in _ordered(self._stages)]
        lines = [f"  {number} {step}" for number, step in enumerate(steps, start=1)] or ["  no stages yet"]
        return "\n".join([f"gf.JobType {self.name}({show(self.params) if self.params else ''})", *lines])

    @overload
    def stage(self, function: F, /) -> F: ...

    @overload
    def stage(self, /, **options: Unpack[StageOptions]) -> Callable[[F], F]: ...

    def stage(self, function: Any = None, /, **options: Unpack[StageOptions]) -> Any:
        """The first stage: one task, which is given the job's parameters.

        *retries* of a failed task, *timeout* in seconds for each, *idle_timeout* in seconds for one that neither prints
        nor tells of its progress (``gf.progress``, ``gf.track``), how many *workers* may run tasks of this stage at
        once in each job, the *limit* (``gf.Limit``) that counts over all jobs of the store, the *memory* that each has
        to have (bytes, or text such as ``"8GB"``: no more tasks are out than there is memory for), and *on_failure*
        (``"drain"``, ``"stop"`` or ``"continue"``) overrule the session's; so do
        *permanent* and *transient*, exception classes or their names (``"rasterio.errors.RasterioIOError"``), which are
        not retried, and which are: see ``gf.RetryPolicy``. With
        ``"continue"`` the job goes on without tasks that failed, *allow_failed* of them at most: a number of tasks, or
        a share such as 0.05; all but one, where nothing is said. With *reuse* its tasks take over the results of equal
        ones that have completed; what is annotated as ``gf.InputFile`` then counts as it is by its size and times, or
        by what is in it with ``inputs_by="content"``, and what is annotated as ``gf.OutputFile`` has to be there still.
        """
        decorate = self._decorator("stage", options)
        return decorate if function is None else decorate(function)

    def each(
        self,
        previous: Callable[..., Any] | str,
        /,
        *,
        key: How = None,
        over: How = None,
        size: How = None,
        **options: Unpack[StageOptions],
    ) -> Callable[[F], F]:
        """A stage of one task for each item of the stage *previous*. The options are those of `stage`.

        Items are what is in the list that *previous* returns; *over* names the field of its result where the list is,
        or is a function that finds it. Where *previous* is itself an `each`, each of its results is an item, or, if its
        annotation says that it returns a list, what is in that.

        *key* tells an item from the others: the name of a field of it, or a function of it. It becomes part of the
        task's id, which then stays the same when other items come or go. Without it, an item is known by its place.

        *size* tells how large it is, in any unit: the name of a field that is a number, or a function of it. It is for
        *order* and for `Session.probe`. *memory* may be a function of the item here.
        """
        return self._decorator("each", options, previous, key=key, over=over, size=size)

    def reduce(self, previous: Callable[..., Any] | str, /, **options: Unpack[StageOptions]) -> Callable[[F], F]:
        """A stage of one task, which is given all results of the stage *previous* as a list.

        Where *previous* is one task by itself, its result is given as it is. The options are those of `stage`.
        """
        return self._decorator("reduce", options, previous)

    def finalize(self, function: F, /) -> F:
        """The function that makes the job's result: a dict, a model or a dataclass, when all stages are done.

        It is given the results of the last stage, the parameters and a ``gf.JobExecutionContext``, as its annotations
        ask. Without one, the result is that of the last stage; of an `each`, its ``count`` and 1,000 ``results``.
        """
        return self._decorator("finalize", {})(function)

    def contract(self) -> type:
        """The class that the contract asks for (S1). It is the same one until something is decorated again."""
        return self._lowered()[0]

    def handlers(self) -> dict[str, Handler]:
        """The handlers by task type."""
        return dict(self._lowered()[1])

    def newest(self) -> TypedJob:
        """The job type of this name that was made last in the same module: its cell may have been run again."""
        return _newest.get((self.__module__, self.name), self) if self._of_module else self

    def _lowered(self) -> tuple[type, dict[str, Handler]]:
        if self._made is None:
            self._made = made_anew(self)
        self._tell_of_older()
        return self._made

    def _tell_of_older(self) -> None:
        """Warn of functions that take a class as it was before its cell ran again: new fields are none to them."""
        for step in [*self._stages.values(), *([self._finalize] if self._finalize else [])]:
            for name, (_, taken) in step.takes.items():
                if older(taken.annotation, getattr(step.function, "__globals__", {})):
                    text = (
                        f"{self.name}: {step.name} takes {name}: {show(taken.annotation)} as it was before its cell "
                        f"ran again, without what is new in it. Run the cell of {step.name} again."
                    )
                    code = step.function.__code__
                    warnings.warn_explicit(text, UserWarning, code.co_filename, code.co_firstlineno)

    def _decorator(self, kind: Kind, options: StageOptions, previous: Any = None, **how: How) -> Callable[[F], F]:
        caller = sys._getframe(2)
        before = self._known(previous, kind) if kind in ("each", "reduce") else None
        known = [*how, *StageOptions.__annotations__]
        kept = {**self._options(kind, options, known), "parallelism": _PARALLELISM.get(kind)}
        if callable(kept.get("memory")):
            if kind != "each":
                must = "give an amount, such as '8GB': a function is given an item, and has one in each"
                raise DefinitionError(f"{self.name}: memory= of {kind} cannot be a function: {must}.")
            how["memory"] = kept.pop("memory")
        picks = {what: None if pick is None else Pick(what, pick) for what, pick in how.items()}

        def decorate(function: F) -> F:
            try:
                self._define(function, caller, kind, before, options=kept, **picks)
            except DefinitionError as exc:
                raise exc.with_traceback(None) from None  # the message tells all; how it was found does not matter
            return function

        return decorate

    def _options(self, what: str, options: StageOptions, known: list[str]) -> dict[str, Any]:
        """*options*, as the engine calls them, less those that are None. *known* are those that *what* has."""
        try:
            said = _checked_options().validate_python(options).items()
        except ValidationError as exc:
            there = f"{self.name}: {what} has the options {', '.join(known)}"
            by_type = "".join(
                f"\n  {name} are said by the type: a parameter, or what is returned, is gf.{marker}"
                for name, marker in _BY_TYPE.items()
                if name in options
            )
            raise DefinitionError(f"{there}, but:\n{problems_of(exc)}{by_type}") from None
        return {_ENGINES.get(name, name): value for name, value in said if value is not None}

    def _define(self, function: Any, caller: FrameType, kind: Kind, before: Step | None, **about: Any) -> None:
        names = caller.f_locals if caller.f_locals is not caller.f_globals else {}
        previous = normalise(before.name) if before else None
        new = defined(self.name, function, kind, self.params, names, previous=previous, **about)
        if kind != "finalize":
            linked(new, before)
            self._take(new, caller)
        elif form(new.returns) not in (None, "object"):
            raise DefinitionError(
                f"{self.name}: {new.name} returns {show(new.returns)}, but the result of a job is a dict, a model or a "
                "dataclass: return one of these."
            )
        else:
            linked(new, next(reversed(_ordered(self._stages)), None))
            self._finalize = new
        self._made = None
        for role, from_json in new.takes.values():
            # Where the cell of its class was run again, this function is the first that has seen the new one.
            if role == "params" and same(from_json.annotation, self.params):
                self.params = from_json.annotation

    def _known(self, previous: Any, kind: str) -> Step:
        """The stage that *previous*, a function or its name, means in ``@job.each(previous)``."""
        name = previous if isinstance(previous, str) else getattr(previous, "__name__", repr(previous))
        if (stage := self._stages.get(normalise(name))) is not None:
            return stage
        names = [stage.name for stage in _ordered(self._stages)]
        there = f"It has none yet: begin with @{self.name}.stage."
        if names:
            there = f"Its stages are {', '.join(names)}: write, say, @{self.name}.{kind}({names[-1]})."
        raise DefinitionError(f"{self.name}: {name} is no stage to follow. {there}")

    def _take(self, new: Step, caller: FrameType) -> None:
        """Put *new* in the place of the stage of its name, and, unless in a file, of another that followed the same."""
        name, job, remarks, kept = normalise(new.name), self.name, [], dict(self._stages)
        for key, old in self._stages.items():
            if old.previous == new.previous and key != name:
                place = f"both follow {new.previous}" if new.previous else "are both the first stage"
                again = f"@{job}.{'reduce' if old.kind == 'reduce' else 'each'}({new.name})"
                both = f"{job}: {new.name} and {old.name} {place}, but stages come one after another, so only"
                remarks.append(f"{both} {new.name} can stay: to keep both, decorate {old.name} with {again}.")
                if caller.f_globals.get("__name__") == self.__module__ != "__main__":
                    raise DefinitionError(remarks[0])
                del kept[key]
            elif old.previous == name:
                try:
                    linked(old, new)
                    remarks += [f"{why} Run the cell of {old.name} again." for why in [outdated(old, new)] if why]
                except DefinitionError as exc:
                    remarks.append(f"{exc} Run the cell of {old.name} again, made to fit; until then no job can run.")
        kept[name] = new
        if new not in _ordered(kept):
            raise DefinitionError(f"{job}: {new.name} cannot follow {new.previous}, which follows it or is gone.")
        for remark in remarks:
            warnings.warn_explicit(remark, UserWarning, caller.f_code.co_filename, caller.f_lineno)
        self._stages = kept


@cache
def _checked_options() -> TypeAdapter[StageOptions]:  # made by what is only defined, it would slow each start
    return TypeAdapter(StageOptions)


def made_anew(job_type: TypedJob) -> tuple[type, dict[str, Handler]]:
    """The class and the handlers of *job_type* as it is; those that it keeps may have travelled, without functions."""
    stages = _ordered(job_type._stages)
    if not stages:
        raise DefinitionError(f"{job_type.name} has no stages: run the cells of @{job_type.name}.stage and the rest.")
    for stage in job_type._stages.values():
        if stage not in stages:
            raise DefinitionError(
                f"{job_type.name}: {stage.name} follows {stage.previous}, which is no stage any more: run its cell "
                f"again with one that is there: {', '.join(known.name for known in stages)}."
            )
    about = (job_type.__module__, job_type.description, job_type.params)
    return lower(*about, stages, job_type._finalize, job_type.options)


def _ordered(stages: dict[str, Step]) -> list[Step]:
    """The stages from the first on, as far as each is followed by one."""
    following = {stage.previous: stage for stage in stages.values()}
    order: list[Step] = []
    while (stage := following.get(normalise(order[-1].name) if order else None)) is not None:
        order.append(stage)
    return order
