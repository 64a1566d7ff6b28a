"""One stage as its author wrote it: what its function is given, and how it hangs on the stage before.

Pure: a definition and the one before it go in, a step or a `DefinitionError` comes out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from geoflow.errors import DefinitionError
from geoflow.flow.annotations import (
    annotations_of,
    bare,
    classes_in,
    fields_of,
    fits,
    is_model,
    is_object,
    items_of,
    lists_in,
    same,
    show,
    without_none,
)
from geoflow.flow.crossing import FromJson
from geoflow.flow.lowered import Ending, Given, Items, Kind, Role, Shape, Signature, Step
from geoflow.models import JobExecutionContext, TaskContext
from geoflow.transport import unshippable

Pick = str | Callable[[Any], Any] | None
_MAIN: dict[str, Role] = {"each": "item", "reduce": "results", "finalize": "results"}
_TAKES = {
    "stage": "A first stage is given the parameters of the job",
    "each": "Each of its tasks is given an item, then the parameters of the job",
    "reduce": "It is given the results of the stage before, then the parameters of the job",
    "finalize": "It is given the results of the last stage, then the parameters of the job",
}


@dataclass(frozen=True)
class Defined:
    """A decorated function. *returns* and the annotations are `typing.Any` where there are none."""

    kind: str
    function: Callable[..., Any]
    previous: str | None
    options: Mapping[str, Any]
    signature: Signature
    returns: Any
    key: Pick = None
    over: Pick = None

    @property
    def name(self) -> str:
        return self.signature.name


def defined(
    who: str,
    function: Any,
    kind: str,
    *,
    params: type | None,
    names: Mapping[str, Any],
    previous: str | None = None,
    options: Mapping[str, Any] | None = None,
    key: Pick = None,
    over: Pick = None,
) -> Defined:
    """*function* as a stage, or what keeps it from being one. *names* are the local ones that annotations may use."""
    _check_function(who, function, kind)
    who = f"{who}: {function.__name__}"
    hints = annotations_of(function, names, who)
    signature = _signature(who, function, kind, hints, params)
    for given in signature.given:
        if given.role != "context":
            given.from_json.check(f"{who} takes {given.name}")
    return Defined(kind, function, previous, options or {}, signature, hints.get("return", Any), key, over)


def _check_function(who: str, function: Any, kind: str) -> None:
    name = getattr(function, "__name__", None) or repr(function)
    remedy = ""
    if not inspect.isfunction(function):
        remedy = f"is {type(function).__name__}, not a function: decorate a def, with any other decorator below"
    elif name == "<lambda>":
        remedy = "is a lambda: write it as a def, whose name the stage and its tasks are given"
    elif inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        remedy = "is async: stages are plain functions; use asyncio.run inside it"
    elif inspect.isgeneratorfunction(function):
        remedy = "is a generator: return a list instead of yielding"
    if remedy:
        raise DefinitionError(f"{who}: {name} {remedy}.")


def _signature(
    who: str, function: Callable[..., Any], kind: str, hints: Mapping[str, Any], params: type | None
) -> Signature:
    """What each parameter is given: by its annotation where that tells, in order where it does not."""
    roles: dict[str, Role] = {}
    free: list[inspect.Parameter] = []
    found = list(inspect.signature(function).parameters.values())
    for parameter in found:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise DefinitionError(
                f"{who} takes {parameter}, but what it is given is told by its parameters' names and annotations: "
                "write these out. A decorator around it needs functools.wraps."
            )
        role = _role(who, parameter.name, hints.get(parameter.name, Any), kind, params)
        if role is None:
            free.append(parameter)
        elif role in roles.values():
            raise DefinitionError(f"{who} takes its {_word(role, params)} twice: leave one out.")
        else:
            roles[parameter.name] = role
    waiting: list[Role] = [role for role in (_MAIN.get(kind), "params") if role and role not in roles.values()]
    for parameter in free:
        if waiting and (waiting[0] != "params" or parameter.default is parameter.empty):
            roles[parameter.name] = waiting.pop(0)
        elif parameter.default is parameter.empty:
            raise DefinitionError(f"{who} takes {parameter.name}, which nothing is given for. {_takes(kind, params)}")
    if kind in ("each", "reduce") and _MAIN[kind] not in roles.values():
        raise DefinitionError(f"{who} takes no {_MAIN[kind]}. {_takes(kind, params)}")
    given = []
    for parameter in found:
        if (role := roles.get(parameter.name)) is not None:
            annotation = hints.get(parameter.name, Any)
            if role == "params":
                annotation = _of_params(who, parameter.name, annotation, kind, params)
            given.append(Given(parameter.name, role, parameter.kind is parameter.POSITIONAL_ONLY, FromJson(annotation)))
    return Signature(function.__name__, tuple(given))


def _role(who: str, name: str, annotation: Any, kind: str, params: type | None) -> Role | None:
    """What an annotation says by itself, or the name ``context``."""
    kept = bare(without_none(annotation))
    if kept is TaskContext or kept is JobExecutionContext:
        wanted = JobExecutionContext if kind == "finalize" else TaskContext
        if kept is not wanted:
            raise DefinitionError(
                f"{who} takes {name}: {show(kept)}, but {kind} is given a gf.{wanted.__name__}: write that."
            )
        return "context"
    if kept is Any and name in ("context", "ctx"):
        return "context"
    return "params" if params is not None and same(kept, params) else None


def _of_params(who: str, name: str, annotation: Any, kind: str, params: type | None) -> Any:
    """What the job's parameters are made into for one of a function's."""
    if params is not None and annotation is Any:
        return params
    if params is not None and same(bare(without_none(annotation)), params):
        return bare(without_none(annotation))
    if is_model(bare(annotation)) and params is None:
        raise DefinitionError(
            f"{who} takes {name}: {show(annotation)}, but no such parameters were declared: write "
            f"gf.JobType(..., params={show(annotation)}), and run that cell and those of the stages again."
        )
    if is_model(bare(annotation)) or not is_object(annotation):
        raise DefinitionError(
            f"{who} takes {name}: {show(annotation)}, which nothing is given for. {_takes(kind, params)}"
        )
    return annotation


def _takes(kind: str, params: type | None) -> str:
    context = "JobExecutionContext" if kind == "finalize" else "TaskContext"
    return (
        f"{_TAKES[kind]} ({show(params) if params else 'a dict'}), and a context: gf.{context} where it asks for one."
    )


def _word(role: Role, params: type | None) -> str:
    return f"parameters ({show(params)})" if role == "params" and params else role


# How one stage hangs on the one before


def step(job: str, number: int, task_type: str, stage: Defined, previous: Defined | None) -> Step:
    """*stage* as stage *number* of *job*, after *previous*; ``DefinitionError`` when what that returns does not fit."""
    items: Items | None = None
    shape: Shape = "all"
    who = f"{job}: {stage.name}"
    if previous is not None and stage.kind == "each":
        items = _items(job, who, stage, previous)
    elif previous is not None:
        shape = _shape(who, stage.signature, previous)
    before = previous.name if previous is not None else ""
    return Step(job, number, cast(Kind, stage.kind), task_type, stage.signature, before, items, shape)


def ending(job: str, finalize: Defined, last: Defined) -> Ending:
    """The finalize function after the stage *last*."""
    return Ending(finalize.signature, _shape(f"{job}: {finalize.name}", finalize.signature, last))


def _wanted(signature: Signature, role: Role) -> tuple[str, Any]:
    for given in signature.given:
        if given.role == role:
            return given.name, given.from_json.annotation
    return "", Any


def _items(job: str, who: str, stage: Defined, previous: Defined) -> Items:
    returns, over = previous.returns, stage.over
    given: Any
    split: bool | None
    if over is None:
        item = items_of(returns)
        split = None if bare(returns) is Any and previous.kind == "each" else item is not None
        if item is None and previous.kind != "each":
            raise DefinitionError(
                f"{who} runs for each item of what {previous.name} returns, {_no_list(job, previous)}"
            )
        given = returns if split is False else item
    else:
        given, split = _items_over(who, over, previous), True
    name, wanted = _wanted(stage.signature, "item")
    if not fits(given, wanted):
        raise DefinitionError(
            f"{who} takes {name}: {show(wanted)}, but {previous.name} gives it {show(given)} (it returns "
            f"{show(returns)}). Make the two annotations agree."
        )
    # What the item is made into for key=, where it is needed: as the function sees it, else as it was made.
    made = wanted if wanted is not Any else given
    if isinstance(stage.key, str):
        _check_field(f"{who}, key={stage.key!r}", stage.key, made if is_model(bare(made)) else given)
    return Items(previous.name, over, stage.key, split, FromJson(_readable(returns)), FromJson(_readable(made)))


def _no_list(job: str, previous: Defined) -> str:
    lists = lists_in(previous.returns)
    hint = f'@{job}.each({previous.name}, over="{lists[0]}")' if lists else f'@{job}.each({previous.name}, over="…")'
    return (
        f"which is {show(previous.returns)} and no list. Return a list, or say where the items are, as in {hint}; or "
        f"have one task over it all with @{job}.reduce({previous.name})."
    )


def _items_over(who: str, over: str | Callable[[Any], Any], previous: Defined) -> Any:
    """The annotation of the items that *over* finds in what *previous* returns."""
    if callable(over):
        hints = annotations_of(over, {}, f"{who}, over={over.__name__}") if inspect.isfunction(over) else {}
        returns = hints.get("return", Any)
        item = items_of(returns)
        if item is None:
            raise DefinitionError(f"{who}: over= returns {show(returns)}, which is no list of items.")
        return item
    known = fields_of(without_none(previous.returns))
    _check_field(f"{who}, over={over!r}", over, previous.returns)
    if known is None or over not in known:
        return Any
    item = items_of(known[over])
    if item is None:
        raise DefinitionError(
            f"{who}: over={over!r} of {show(previous.returns)} is {show(known[over])}, no list of items."
        )
    return item


def _check_field(who: str, name: str, annotation: Any) -> None:
    known = fields_of(without_none(annotation))
    if known is None:
        if is_object(annotation):
            return
        raise DefinitionError(f"{who}: {show(annotation)} has no fields; give a function that finds it instead.")
    if name not in known and not hasattr(bare(annotation), name):
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(known) or 'none'}."
        raise DefinitionError(f"{who}: {show(annotation)} has no {name!r}; {hint}")


def _shape(who: str, signature: Signature, previous: Defined) -> Shape:
    """What all results before are to a function that takes them at once."""
    returns, (name, wanted) = previous.returns, _wanted(signature, "results")
    single = previous.kind != "each"
    item = items_of(returns)
    shapes: list[tuple[Shape, Any]] = [("all", list[returns])]  # type: ignore[valid-type]
    if single:
        shapes.insert(0, ("whole", returns))
    elif item is not None and bare(returns) is not Any:
        shapes.append(("flat", list[item]))  # type: ignore[valid-type]
    for shape, given in shapes:
        if fits(given, wanted):
            return shape
    gives = show(shapes[0][1])
    raise DefinitionError(
        f"{who} takes {name}: {show(wanted)}, but {previous.name} gives it {gives} ({'the' if single else 'each'} task "
        f"of it returns {show(returns)}). Make the two annotations agree."
    )


def _readable(annotation: Any) -> Any:
    """The annotation, if it can be made from JSON; else anything, and key= and over= see plain JSON."""
    try:
        FromJson(annotation).check("")
    except DefinitionError:
        return Any
    return annotation


def stuck(stage: Defined) -> list[str]:
    """What of a stage cannot travel to a worker process, each as a sentence."""
    parts: dict[str, Any] = {}
    for annotation in (stage.returns, *(given.from_json.annotation for given in stage.signature.given)):
        parts |= {f"{kind.__name__}, in the annotations of {stage.name},": kind for kind in classes_in(annotation)}
    parts[stage.name] = stage.function
    for what, pick in (("key", stage.key), ("over", stage.over)):
        if callable(pick):
            parts[f"{what}= of {stage.name}"] = pick
    return [f"{name} {problem}" for name, part in parts.items() if (problem := unshippable(part)) is not None]
