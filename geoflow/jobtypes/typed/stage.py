"""One stage as its author wrote it: what its function is given, and how it hangs on the stage before.

Pure: definitions go in, and what they become or a `DefinitionError` comes out.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args

from geoflow.core.models import JobExecutionContext, TaskContext
from geoflow.errors import DefinitionError
from geoflow.jobtypes.contract import Handler, normalise, unfit_function
from geoflow.jobtypes.typed.annotations import (
    annotations_of,
    core,
    fields_of,
    fits,
    form,
    is_model,
    items_of,
    missed,
    same,
    show,
)
from geoflow.jobtypes.typed.crossing import FromJson, non_identity, schema
from geoflow.jobtypes.typed.files import files_of
from geoflow.jobtypes.typed.foreign import used_by
from geoflow.jobtypes.typed.lowered import Kind, Lowered, Pick, Role, Shape, Step, Takes, handler
from geoflow.usercode.packing import unshippable

_MAIN: dict[str, Role] = {"each": "item", "reduce": "results", "finalize": "results"}


def defined(job: str, function: Any, kind: Kind, params: type | None, names: Mapping[str, Any], **about: Any) -> Step:
    """*function* as a stage, or what keeps it from being one. *names* are the local ones that annotations may use."""
    who = f"{job}: {getattr(function, '__name__', None) or repr(function)}"
    problem = unfit_function(function, "list")
    if not inspect.isfunction(function):
        problem = f"is {type(function).__name__}, not a function: decorate a def, with any other decorator below."
    if problem:
        raise DefinitionError(f"{who} {problem}")
    hints = annotations_of(function, names, who)
    name, takes = function.__name__, _taken(who, function, kind, hints, params)
    step = Step(
        job,
        kind,
        name,
        normalise(f"{job}_{name}"),
        function,
        takes,
        hints.get("return", Any),
        added=used_by(hints.values()),
        **about,
    )
    # A function of a module has no name there yet, and so would seem to travel by value; registering looks at it.
    if function.__module__ == "__main__" or "<locals>" in function.__qualname__:
        kinds = [kind for hint in hints.values() for kind in (hint, *get_args(hint)) if isinstance(kind, type)]
        parts: dict[str, Any] = {f"{kind.__name__}, in the annotations of {name},": kind for kind in kinds}
        parts |= {name: function} | {f"{what}= of {name}": how for what, how in step.picks().items()}
        for part in parts:
            if problem := unshippable(parts[part]):
                raise DefinitionError(f"{job}: {part} {problem}")
    return step


def _taken(who: str, function: Any, kind: Kind, hints: dict[str, Any], params: type | None) -> Takes:
    """What each parameter is given: by its annotation where that tells, in order where it does not."""
    main, context = _MAIN.get(kind), JobExecutionContext if kind == "finalize" else TaskContext
    gives = (
        f"It is given {f'its {main}, then ' if main else ''}the parameters of the job "
        f"({show(params) if params else 'a dict, as gf.JobType(...) has no params='}), and a context: "
        f"gf.{context.__name__} where it asks for one."
    )
    roles: dict[str, Role] = {}
    free = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise DefinitionError(
                f"{who} takes {parameter}: name all that it takes. A decorator needs functools.wraps."
            )
        kept = core(hints.get(name, Any))
        if kept is context or (kept is Any and name in ("context", "ctx")):
            roles[name] = "context"
        elif params is not None and same(kept, params):
            roles[name] = "params"
        elif parameter.default is parameter.empty:
            free.append(name)
    waiting: list[Role] = [role for role in (main, "params") if role and role not in roles.values()]
    for name in free:
        kept, role = core(hints.get(name, Any)), waiting.pop(0) if waiting else None
        no_dict = is_model(kept) or form(kept) not in (None, "object")
        if role is None or kept in (TaskContext, JobExecutionContext) or (role == "params" and no_dict):
            of = f"{name}: {show(kept)}" if name in hints else name
            raise DefinitionError(f"{who} takes {of}, which nothing is given for. {gives}")
        roles[name] = role
    taken = list(roles.values())
    if twice := [role for role in taken if taken.count(role) > 1]:
        raise DefinitionError(f"{who} takes its {twice[0]} twice: leave one out.")
    if kind in ("each", "reduce") and main not in taken:
        raise DefinitionError(f"{who} takes no {main}. {gives}")
    hints = {name: params for name, role in roles.items() if params and role == "params"} | hints
    made = {name: Any if role == "context" else hints.get(name, Any) for name, role in roles.items()}
    return {name: (roles[name], FromJson(hint, f"{who} takes {name}")) for name, hint in made.items()}


def linked(step: Step, previous: Step | None, number: int = 1) -> Step:
    """*step* as stage *number*, after *previous*; ``DefinitionError`` when what that returns does not fit."""
    if previous is None:
        return step
    who, returns = f"{step.job}: {step.name}", previous.returns
    over = step.over and _checked(who, step.over, returns)
    shape, given = _handed_on(who, step, previous)
    main = [(name, made.annotation) for name, (role, made) in step.takes.items() if role == _MAIN[step.kind]]
    name, wanted = main[0] if main else ("", Any)
    if not fits(given, wanted):
        raise DefinitionError(
            f"{who} takes {name}: {show(wanted)}, but {previous.name} gives it {show(given)} (it returns "
            f"{show(returns)}). Make the two annotations agree."
        )
    taken = given if core(wanted) is Any else wanted
    key, size, memory = (pick and _checked(who, pick, taken) for pick in (step.key, step.size, step.memory))
    more: dict[str, Any] = {"over": over, "key": key, "size": size, "memory": memory}
    return replace(step, number=number, previous=previous.name, shape=shape, **more)


def outdated(step: Step, previous: Step) -> str:
    """Why *step* cannot take what *previous* returns since the cell of its class ran again; empty where it can."""
    _, given = _handed_on(step.job, step, previous)
    for name, (role, made) in step.takes.items():
        if role == _MAIN[step.kind] and (fields := missed(given, made.annotation)):
            return (
                f"{step.job}: {step.name} takes {name}: {show(made.annotation)} as it was before its cell ran again, "
                f"and {previous.name} does not return {', '.join(fields)} any more."
            )
    return ""


def _handed_on(who: str, step: Step, previous: Step) -> tuple[Shape, Any]:
    """What of the results of *previous* each call of *step* is given, and its annotation."""
    returns, over, of_each = previous.returns, step.over, previous.kind == "each"
    if step.kind != "each":
        return ("all", list[returns]) if of_each else ("whole", returns)  # type: ignore[valid-type]
    fields = fields_of(returns) or {}
    listed = returns if over is None else fields.get(str(over.how), Any)
    item = items_of(listed)
    if over is None and of_each and (item is None or core(returns) is Any):
        return "all", returns
    if item is not None:
        return "items", item
    if over is not None:
        raise DefinitionError(f"{who}: {over} of {show(returns)} is {show(listed)}, no list.")
    lists = [name for name, kind in fields.items() if items_of(kind) is not None]
    raise DefinitionError(
        f"{who} runs for each item of what {previous.name} returns, which is {show(returns)} and no list. Return "
        f'one, or name the field that has it, as in @{step.job}.each({previous.name}, over="{[*lists, "…"][0]}"), or '
        f"take it as a whole with @{step.job}.reduce({previous.name})."
    )


def _checked(who: str, pick: Pick, annotation: Any) -> Pick:
    """*pick*, if it can find what it is to find in what is annotated so."""
    if callable(pick.how):
        return replace(pick, taken=FromJson(annotation, f"{who}, {pick} takes it as"))
    known, problem = fields_of(annotation), ""
    if not isinstance(pick.how, str):
        problem = "is neither the name of a field nor a function."
    elif known is None and form(annotation) not in (None, "object"):
        problem = f"names a field, but {show(annotation)} has none: give a function that finds it instead."
    elif known is not None and pick.how not in known:
        near = get_close_matches(pick.how, known, n=1)
        problem = f"is no field of {show(annotation)}: "
        problem += f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(known)}."
    if problem:
        raise DefinitionError(f"{who}: {pick} {problem}")
    return pick


def lower(
    module: str,
    description: str,
    params: type | None,
    stages: list[Step],
    finalize: Step | None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[type, dict[str, Handler]]:
    """The class and, by task type, the handlers of a job type that *module* defines, with *options* for all stages."""
    before, job = [None, *stages], stages[0].job
    steps = [linked(step, before[index], index + 1) for index, step in enumerate(stages)]
    camel = "".join(word.capitalize() for word in job.split("_"))
    members: dict[str, Any] = {
        "__module__": module,
        "__qualname__": f"JobType.<locals>.{camel}",  # no worker can import it
        "job_type": job,
        "description": description,
        "stages": [
            {"number": step.number, "name": step.name, "task_type": step.task_type}
            | {**files_of(step), **options, **step.options, **step.of_each}
            for step in steps
        ],
        "parameters_schema": schema(params),
        "non_identity_parameters": non_identity(params),
        "flow_steps": tuple(steps),
        "flow_params": params,
        "flow_added": used_by([params]),
    }
    if finalize is not None:
        members |= {"flow_ending": linked(finalize, stages[-1]), "flow_finalize": staticmethod(finalize.function)}
    for step in steps:  # as members of the class, so that tracebacks show their lines
        members |= {f"flow_{what}_{step.name}": staticmethod(how) for what, how in step.picks().items()}
    return type(camel, (Lowered,), members), {step.task_type: handler(step, step.function) for step in steps}
