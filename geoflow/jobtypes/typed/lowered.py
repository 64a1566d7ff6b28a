"""What a `gf.JobType` becomes: a class and handlers as the contract wants them. This is what runs in workers."""

from __future__ import annotations

import hashlib
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from geoflow.core.models import JobExecutionContext, TaskContext
from geoflow.errors import ContractViolationError
from geoflow.jobtypes.contract import Handler, job_id_for
from geoflow.jobtypes.typed.crossing import FromJson, plain, validated
from geoflow.jobtypes.typed.foreign import Crossing, forms_with
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.text import shorten

Kind = Literal["stage", "each", "reduce", "finalize"]
Role = Literal["params", "item", "results", "context"]
Takes = dict[str, tuple[Role, FromJson]]
# What of the results before is handed on: the only one, all of them, or all that is in their lists.
Shape = Literal["whole", "all", "items"]
MAX_ID = 100
# Parameters no longer than this go with every task, so that a function mended between two attempts may ask for them.
# Longer ones go with those alone that ask: a hundred thousand copies of a long list would fill the disk.
SMALL = 2_000


@dataclass(frozen=True)
class Pick:
    """``over=``, ``key=`` and their like: the name of a field, or a function of what *taken* makes of the JSON."""

    what: str
    how: str | Callable[[Any], Any]
    taken: FromJson | None = None

    def __str__(self) -> str:
        return f"{self.what}={self.how.__name__ if hasattr(self.how, '__name__') else self.how!r}"

    def __call__(self, value: Any, whence: str) -> Any:
        """What it finds in *value*, as JSON."""
        if not isinstance(self.how, str):
            made = self.taken(value, f"{self} takes it as", whence) if self.taken else value
            return plain(self.how(made), self.what, self.taken.added if self.taken else {})
        if isinstance(value, dict) and self.how in value:
            return value[self.how]
        raise ContractViolationError(f"{self}: {whence} has no {self.how!r}; it is {_shown(value)}.")


@dataclass(frozen=True)
class OfItem:
    """What a stage's dict has to say of each task, which is made for one item: what *pick* finds in that."""

    pick: Pick
    previous: str

    def __call__(self, parameters: dict[str, Any]) -> Any:
        return self.pick(parameters["item"], f"an item of what {self.previous} returned")


@dataclass(frozen=True)
class Step:
    """One stage, or finalize: what its function is given, and how it hangs on the stage before.

    *returns* and the annotations are `typing.Any` where there are none. Without *function* it travels.
    """

    job: str
    kind: Kind
    name: str
    task_type: str
    function: Callable[..., Any]
    takes: Takes
    returns: Any
    previous: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    over: Pick | None = None
    key: Pick | None = None
    size: Pick | None = None
    memory: Pick | None = None
    shape: Shape = "whole"
    number: int = 1
    added: Mapping[str, Crossing] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "function": None, "returns": None}

    def __fingerprint__(self) -> list[Any]:
        """What of it counts as the code of its stage's handler: neither its options nor how its tasks are planned."""
        counts = [self.shape, self.over, {name: taken.annotation for name, (_, taken) in self.takes.items()}]
        return [*counts, *self.added.values()]

    @property
    def takes_context(self) -> bool:
        return any(role == "context" for role, _ in self.takes.values())

    def picks(self) -> dict[str, Callable[[Any], Any]]:
        """The functions that find its items, their keys, sizes and memory."""
        picks = (self.over, self.key, self.size, self.memory)
        return {pick.what: pick.how for pick in picks if pick and callable(pick.how)}

    @property
    def of_each(self) -> dict[str, OfItem]:
        """What is told of each of its tasks, for the stage's dict."""
        return {pick.what: OfItem(pick, str(self.previous)) for pick in (self.size, self.memory) if pick}

    def call(self, function: Callable[..., Any], values: Mapping[Role, Any]) -> Any:
        """Call *function* with what *values* has for each role."""
        arguments = {}
        for name, (role, taken) in self.takes.items():
            whence = "the parameters of the job" if role == "params" else f"what {self.previous} returned"
            arguments[name] = taken(values[role], f"{self.name} takes {name}", whence)
        return function(**arguments)

    def handed_on(self, results: list[Any]) -> Any:
        """What of the *results* of the stage before this one is given."""
        if self.shape == "whole":
            return results[0] if results else None
        return results if self.shape == "all" else [item for value in results for item in self._items(value)]

    def _items(self, value: Any) -> list[Any]:
        items = value if self.over is None else self.over(value, f"what {self.previous} returned")
        if isinstance(items, list):
            return items
        whose = f"{self.over} of {self.previous}" if self.over else self.previous
        raise ContractViolationError(
            f"{whose} gave {_shown(items)}, but each runs for the items of a list. Return one, or say with over= where."
        )

    def keyed(self, items: list[Any]) -> Iterator[tuple[str, Any]]:
        """Each item with the text that tells it from the others; ``ContractViolationError`` when two have the same."""
        seen: dict[str, int] = {}
        for index, item in enumerate(items):
            value = index if self.key is None else self.key(item, f"an item of what {self.previous} returned")
            key = value if isinstance(value, str) else to_json(value)
            if key in seen:
                raise ContractViolationError(
                    f"Items {seen[key]} and {index} of {self.previous} have the same key {shorten(key, 60)!r} by "
                    f"{self.key}: choose one that differs for every item, or leave the double out."
                )
            seen[key] = index
            yield key, item


_WITHOUT_CONTEXT = inspect.signature(lambda params: None)


def handler(step: Step, function: Callable[..., Any]) -> Handler:
    """The handler that calls *function* for the tasks of *step*."""

    def lowered(params: dict[str, Any], context: TaskContext | None = None) -> dict[str, Any]:
        return _handled(step, function, params, context)

    lowered.__name__, lowered.__doc__, lowered.__module__ = step.name, function.__doc__, function.__module__
    if not step.takes_context:  # then nobody gives it one: its result is the same wherever in the plan it stands
        vars(lowered)["__signature__"] = _WITHOUT_CONTEXT
    if "params" not in (role for role, _ in step.takes.values()):  # another job's may differ, for the same result
        vars(lowered)["parameters_not_taken"] = ("job_parameters" if step.kind == "reduce" else "params",)
    return lowered


def _handled(step: Step, function: Any, parameters: dict[str, Any], context: TaskContext | None) -> dict[str, Any]:
    if context is None and step.takes_context:  # production gives none, but a function that asks for one logs with it
        logger = logging.getLogger(f"geoflow.task.{step.task_type}")
        context = TaskContext("", step.job, step.number, "", 0, step.task_type, 1, logger)
    values: dict[Role, Any] = {"context": context, "item": parameters.get("item")}
    values["params"] = parameters.get("job_parameters" if step.kind == "reduce" else "params")
    if values["params"] is None and "params" in dict(step.takes.values()):
        raise ContractViolationError(
            f"{step.name} takes the job's parameters, but took none when these tasks were planned. Run the job again "
            'with on_existing="rerun".'
        )
    if step.kind == "reduce":
        values["results"] = step.handed_on([handled.get("result") for handled in parameters["previous_results"]])
    returned = step.call(function, values)
    # As a handler of the contract says it: a failure that was returned must not count as a result.
    said = returned.get("success") if isinstance(returned, dict) else None
    is_handled = said is False or (said is True and "result" in returned)
    return returned if is_handled else {"success": True, "result": plain(returned, added=step.added)}


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {shorten(repr(value), 60)}"


def task_id(job_id: str, stage: str, key: str | None = None) -> str:
    """A name of at most 100 characters for the task of *stage* that *key* tells from the others.

    It begins with the job's id, since production keeps the tasks of all jobs in one table. Where the key cannot be in
    it as it is, a hash keeps two keys apart.
    """
    parts = [job_id[:8], stage] if key is None else [job_id[:8], stage, re.sub(r"[^\w.-]+", "-", key)]
    name = "-".join(parts)
    if len(name) <= MAX_ID and key != "" and parts[-1] in (stage, key):
        return name
    digest = hashlib.sha256(f"{stage}|{key}".encode(errors="backslashreplace")).hexdigest()[:12]
    return f"{name[: MAX_ID - 13].rstrip('-')}-{digest}"


class Lowered:
    """The base of the classes that `gf.JobType.contract` makes; see S1 for what each member is."""

    job_type: ClassVar[str]
    non_identity_parameters: ClassVar[tuple[str, ...]] = ()
    flow_params: ClassVar[type | None] = None
    flow_added: ClassVar[Mapping[str, Crossing]] = {}
    flow_steps: ClassVar[tuple[Step, ...]]
    flow_ending: ClassVar[Step | None] = None
    flow_finalize: ClassVar[Callable[..., Any]]

    @classmethod
    def validate_job_parameters(cls, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters with their defaults, as JSON; ``ValidationError`` with every problem, unknown names too."""
        return validated(cls.flow_params, params, cls.flow_added)

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        """SHA-256 over the job type and the parameters, less those marked with ``gf.identity(False)``."""
        return job_id_for(cls.job_type, params, exclude=cls.non_identity_parameters)

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """One task for the first stage, and one for each item of the stage before for an ``each``."""
        step = cls.flow_steps[stage - 1]
        goes_along = "params" in dict(step.takes.values()) or len(to_json(job_params)) <= SMALL
        shared = {"params": job_params} if goes_along else {}
        if step.kind != "each":
            return [{"task_id": task_id(job_id, step.name), "task_type": step.task_type, "parameters": shared}]
        items = step.keyed(step.handed_on([handled.get("result") for handled in previous_results or []]))
        made = [(task_id(job_id, step.name, key), {"item": item, **shared}) for key, item in items]
        return [{"task_id": name, "task_type": step.task_type, "parameters": parameters} for name, parameters in made]

    @classmethod
    def finalize_job(cls, context: JobExecutionContext | None = None) -> dict[str, Any]:
        """What the finalize function makes of the results; without one, the last stage's."""
        assert context is not None, "the engine gives it"
        last, ending = cls.flow_steps[-1], cls.flow_ending
        done = [task for task in context.task_results if task.task_type == last.task_type and task.success]
        results = [task.result_data.get("result") for task in done]
        if ending is not None:
            handed_on = ending.handed_on(results)
            values: dict[Role, Any] = {"context": context, "params": context.parameters, "results": handed_on}
            returned = ending.call(cls.flow_finalize, values)
            made: dict[str, Any] = from_json(to_json(returned, forms=forms_with(ending.added)))
            return made  # it goes to no other stage: NaN and infinities are null, as S21 has it
        if last.kind == "each":
            return {"count": len(results), "results": results[:1000]}
        only = results[0] if results else None
        return only if isinstance(only, dict) else {"result": only}
