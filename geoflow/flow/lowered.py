"""What a `gf.JobType` becomes: a class and handlers as the contract wants them. This is what runs in workers.

Everything here is plain data, apart from the user's own functions: it travels to workers as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from geoflow.contract import Handler, job_id_for
from geoflow.errors import ContractViolationError
from geoflow.flow.annotations import same
from geoflow.flow.crossing import FromJson, plain
from geoflow.flow.params import validated
from geoflow.models import JobExecutionContext, TaskContext
from geoflow.text import shorten
from geoflow.values import to_json

Kind = Literal["stage", "each", "reduce"]
Role = Literal["params", "item", "results", "context"]
# What the results of the stage before are to a function: the only one, all of them, or all that are in their lists.
Shape = Literal["whole", "all", "flat"]
MAX_ID = 100
DEFAULT_RESULTS = 1000
# Parameters no longer than this go with every task, wanted or not, so that a function mended between two attempts may
# ask for them. Longer ones go with those alone that ask: a hundred thousand copies of a long list would fill the disk.
SMALL = 2_000


@dataclass(frozen=True)
class Given:
    """One parameter of a function, and what it is given."""

    name: str
    role: Role
    positional: bool
    from_json: FromJson


@dataclass(frozen=True)
class Signature:
    """What a function of the user's is called, and what its parameters are given."""

    name: str
    given: tuple[Given, ...]

    def takes(self, role: Role) -> bool:
        return any(given.role == role for given in self.given)

    def with_params(self, params: type | None) -> Signature:
        """The same with the class of the job's parameters as it is now: its cell may have been run again."""
        renewed = FromJson(params)
        return replace(
            self,
            given=tuple(
                replace(given, from_json=renewed) if same(given.from_json.annotation, params) else given
                for given in self.given
            ),
        )

    def call(self, function: Callable[..., Any], values: Mapping[Role, tuple[Any, str]]) -> Any:
        """Call *function* with what *values* has for each role; beside it stands where that came from, in words."""
        args, kwargs = [], {}
        for given in self.given:
            value, whence = values[given.role]
            if given.role != "context":
                value = given.from_json(value, f"{self.name} takes {given.name}", whence)
            if given.positional:
                args.append(value)
            else:
                kwargs[given.name] = value
        return function(*args, **kwargs)


@dataclass(frozen=True)
class Items:
    """Where the items of a stage come from, what they are called, and what makes models of them for *over* and *key*.

    ``split`` says of the results before: True, they are lists of items; False, each is one; None, if it is a list.
    """

    previous: str
    over: str | Callable[[Any], Any] | None
    key: str | Callable[[Any], Any] | None
    split: bool | None
    result: FromJson
    item: FromJson

    def of(self, previous_results: list[dict[str, Any]]) -> Iterator[Any]:
        for value in map(result_of, previous_results):
            found = value if self.over is None else self._picked(value, self.over)
            if self.split is not False and isinstance(found, list):
                yield from found
            elif self.split:
                what = self.previous if self.over is None else f"over={self._name(self.over)!r} of {self.previous}"
                raise ContractViolationError(
                    f"{what} gave {_shown(found)}: one task is made for each item of a list. Return a list, or say "
                    "with over= where it is."
                )
            else:
                yield found

    def keyed(self, items: Iterator[Any]) -> Iterator[tuple[str, Any]]:
        """Each item with the text that tells it from the others; ``ContractViolationError`` when two have the same."""
        seen: dict[str, int] = {}
        for index, item in enumerate(items):
            if self.key is None:
                yield str(index), item
                continue
            found = plain(self._key(item, self.key), "key")
            if found is None or isinstance(found, dict):
                raise ContractViolationError(
                    f"Item {index} of {self.previous} has the key {_shown(found)} by key={self._name(self.key)!r}: "
                    "a key is text, a number or a list of these."
                )
            key = found if isinstance(found, str) else to_json(found)
            if key in seen:
                raise ContractViolationError(
                    f"Items {seen[key]} and {index} of {self.previous} have the same key {shorten(key, 60)!r} by "
                    f"key={self._name(self.key)!r}: choose one that differs for every item, or leave the double out."
                )
            seen[key] = index
            yield key, item

    def _picked(self, value: Any, over: str | Callable[[Any], Any]) -> Any:
        whence = f"what {self.previous} returned"
        if isinstance(over, str):
            return _attribute(value, over, self.result, f"over={over!r}", whence)
        return plain(over(self.result(value, f"over= of {self.previous} takes it as", whence)), "items")

    def _key(self, item: Any, key: str | Callable[[Any], Any]) -> Any:
        whence = f"an item of what {self.previous} returned"
        if isinstance(key, str):
            return _attribute(item, key, self.item, f"key={key!r}", whence)
        return key(self.item(item, "key= takes it as", whence))

    @staticmethod
    def _name(given: str | Callable[[Any], Any]) -> str:
        return given if isinstance(given, str) else getattr(given, "__name__", "a function")


@dataclass(frozen=True)
class Step:
    """One stage: its function, and how it hangs on the one before."""

    job: str
    number: int
    kind: Kind
    task_type: str
    signature: Signature
    previous: str = ""
    items: Items | None = None
    shape: Shape = "all"

    @property
    def name(self) -> str:
        return self.signature.name

    def with_params(self, params: type | None) -> Step:
        return replace(self, signature=self.signature.with_params(params))


@dataclass(frozen=True)
class Ending:
    """What the finalize function is given."""

    signature: Signature
    shape: Shape

    def with_params(self, params: type | None) -> Ending:
        return replace(self, signature=self.signature.with_params(params))


def handler(step: Step, function: Callable[..., Any]) -> Handler:
    """The handler that calls *function* for the tasks of *step*."""

    def lowered(params: dict[str, Any], context: TaskContext | None = None) -> dict[str, Any]:
        return _handled(step, function, params, context)

    lowered.__name__ = function.__name__
    lowered.__doc__ = function.__doc__
    return lowered


def _handled(
    step: Step, function: Callable[..., Any], given: dict[str, Any], context: TaskContext | None
) -> dict[str, Any]:
    values: dict[Role, tuple[Any, str]] = {}
    if context is None:  # production gives none, but a function that asks for one logs with it
        logger = logging.getLogger(f"geoflow.task.{step.task_type}")
        context = TaskContext("", step.job, step.number, "", 0, step.task_type, 1, logger)
    values["context"] = context, ""
    if step.kind == "reduce":
        results = _shaped([result_of(one) for one in given["previous_results"]], step.shape)
        values["results"] = results, f"what {step.previous} returned"
    elif step.kind == "each":
        values["item"] = given["item"], f"what {step.previous} returned"
    parameters = given.get("job_parameters" if step.kind == "reduce" else "params")
    if parameters is None and step.signature.takes("params"):
        raise ContractViolationError(
            f"{step.name} takes the job's parameters, which these tasks were not given: it did not take them when they "
            'were planned. Run the job again with on_existing="rerun".'
        )
    values["params"] = parameters, "the parameters of the job"
    returned = step.signature.call(function, values)
    # As a handler of the contract says it: a failure that was returned must not count as a result.
    if isinstance(returned, dict) and (
        returned.get("success") is False or (returned.get("success") is True and "result" in returned)
    ):
        return returned
    return {"success": True, "result": plain(returned)}


def result_of(handled: Mapping[str, Any]) -> Any:
    return handled.get("result")


def _shaped(results: list[Any], shape: Shape) -> Any:
    if shape == "whole":
        return results[0] if results else None
    return results if shape == "all" else [item for result in results for item in result]


def _attribute(value: Any, name: str, from_json: FromJson, what: str, whence: str) -> Any:
    """What *value* has under *name*: a key of its JSON, or else an attribute of the model that is made of it."""
    if isinstance(value, dict) and name in value:
        return value[name]
    with contextlib.suppress(ContractViolationError):  # then it has no attributes either
        made = from_json(value, "", "")
        if not isinstance(made, dict) and hasattr(made, name):
            return plain(getattr(made, name), name)
    has = f"it has {', '.join(map(str, value)) or 'nothing'}" if isinstance(value, dict) else f"it is {_shown(value)}"
    raise ContractViolationError(f"{what}: {whence} has no {name!r}; {has}.")


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {shorten(repr(value), 60)}"


def task_id(job_id: str, stage: str, key: str | None = None) -> str:
    """A name of at most 100 characters for the task of *stage* that *key* tells from the others.

    It begins with the job's id, since production keeps the tasks of all jobs in one table. What is not a letter, digit,
    ``.``, ``_`` or ``-`` is replaced, and a hash then keeps two keys apart.
    """
    if key is None:
        return f"{job_id[:8]}-{stage}"[:MAX_ID]
    safe = re.sub(r"[^\w.-]+", "-", key)
    name = f"{job_id[:8]}-{stage}-{safe}"
    if key and safe == key and len(name) <= MAX_ID:
        return name
    digest = hashlib.sha256(f"{stage}|{key}".encode(errors="backslashreplace")).hexdigest()[:12]
    return f"{name[: MAX_ID - 13].rstrip('-')}-{digest}"


class Lowered:
    """The base of the classes that `gf.JobType.contract` makes; see S1 for what each member is."""

    job_type: ClassVar[str]
    description: ClassVar[str]
    stages: ClassVar[list[dict[str, Any]]]
    parameters_schema: ClassVar[dict[str, Any]]
    non_identity_parameters: ClassVar[tuple[str, ...]] = ()
    flow_steps: ClassVar[tuple[Step, ...]]
    flow_params: ClassVar[type | None] = None
    flow_ending: ClassVar[Ending | None] = None

    @staticmethod
    def flow_finalize(*args: Any, **kwargs: Any) -> Any:
        """The user's own function, where there is one."""
        raise NotImplementedError

    @classmethod
    def validate_job_parameters(cls, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters with their defaults, as JSON; ``ValidationError`` with every problem, unknown names too."""
        return validated(cls.flow_params, params)

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
        goes_along = step.signature.takes("params") or len(to_json(job_params)) <= SMALL
        shared = {"params": job_params} if goes_along else {}
        if step.items is None:
            return [{"task_id": task_id(job_id, step.name), "task_type": step.task_type, "parameters": shared}]
        return [
            {
                "task_id": task_id(job_id, step.name, key),
                "task_type": step.task_type,
                "parameters": {"item": item, **shared},
            }
            for key, item in step.items.keyed(step.items.of(previous_results or []))
        ]

    @classmethod
    def finalize_job(cls, context: JobExecutionContext | None = None) -> dict[str, Any]:
        """What the finalize function makes of the results; without one, the last stage's."""
        assert context is not None, "the engine gives it"
        last = cls.flow_steps[-1]
        results = [
            result_of(task.result_data)
            for task in context.task_results
            if task.task_type == last.task_type and task.success
        ]
        if cls.flow_ending is None:
            return _told(results, last)
        ending = cls.flow_ending
        values: dict[Role, tuple[Any, str]] = {
            "context": (context, ""),
            "params": (context.parameters, "the parameters of the job"),
        }
        if ending.signature.takes("results"):
            values["results"] = _shaped(results, ending.shape), f"what {last.name} returned"
        made: Any = ending.signature.call(cls.flow_finalize, values)
        return made if isinstance(made, dict) else plain(made)


def _told(results: list[Any], last: Step) -> dict[str, Any]:
    if last.kind != "each":
        result = results[0] if results else None
        return result if isinstance(result, dict) else {"result": result}
    told: dict[str, Any] = {"count": len(results), "results": results[:DEFAULT_RESULTS]}
    if len(results) > DEFAULT_RESULTS:
        told["left_out"] = len(results) - DEFAULT_RESULTS
    return told
