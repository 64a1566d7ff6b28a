"""How values cross: a job's parameters, and what goes from stage to stage, to JSON and back to what they were."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic_core import InitErrorDetails, PydanticCustomError

from geoflow.errors import ContractViolationError, DefinitionError, ParameterError, UnstorableValue
from geoflow.jobtypes.typed.annotations import BY_NAME, annotations_of, fields_of, is_model, show
from geoflow.jobtypes.typed.foreign import Crossing, forms_with, readable, used_by
from geoflow.support.jsonable import Lost, from_json, stored, to_json
from geoflow.support.masking import looks_secret, mask
from geoflow.support.text import shorten

# What production's submit adds to the parameters by itself.
ADDED = frozenset({"dataset_id", "resource_id", "version_id", "system", "use_service_bus"})


_NONE: Mapping[str, Crossing] = {}


def plain(value: Any, where: str = "result", added: Mapping[str, Crossing] = _NONE) -> Any:
    """*value* as JSON has it; `UnstorableValue` names what in it has no JSON form, as a part of *where*.

    *added* says of some classes how they cross, as `foreign` knows it of others.

    An infinity has none: it would come back as NaN, or as None. NaN comes back where a number has to be; where a field
    may be None too, it is refused.
    """
    lost: Lost = []
    text = stored(value, where, lost, forms_with(added))
    for place, _ in lost:
        if (field := _may_be_none(value, place.removeprefix(where))) is not None:
            raise UnstorableValue(
                f"{place} is NaN, which would come back as None, since {field} may be either: make it None, or "
                "annotate the field as float."
            )
    return from_json(text)


def _may_be_none(value: Any, path: str) -> str | None:
    """The field of a model or dataclass that *path* leads to in *value*, where None may be too."""
    field, annotation = "", Any
    for index, name in re.findall(r"\[(?:(\d+)|'([^']*)')\]", path):
        if not index and is_model(type(value)):
            field, annotation = f"{type(value).__name__}.{name}", (fields_of(type(value)) or {}).get(name, Any)
            value = getattr(value, name, None)
            continue
        try:
            value = value[int(index) if index else name]
        except (LookupError, TypeError):  # a set, or a key that is no text
            return None
    arms = get_args(annotation)
    return field if field and isinstance(value, float) and type(None) in arms else None


class FromJson:
    """Makes what an annotation says of plain JSON. It travels as its annotation, with how registered types cross."""

    def __init__(self, annotation: Any, who: str) -> None:
        """Raises a ``DefinitionError``, which begins with *who*, when nothing can be made of *annotation*."""
        self.annotation, self.added = annotation, used_by([annotation])
        try:
            _ = self._adapter
        except (PydanticUserError, NameError, RecursionError) as exc:
            raise DefinitionError(
                f"{who}: {show(annotation)}, which cannot be made from JSON ({str(exc).partition('. ')[0]}). Only "
                "JSON passes between stages: take a path, plain values, a pydantic model or a dataclass instead, or "
                "say with gf.register_type how it crosses."
            ) from None

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(readable(self.annotation, self.added))

    def __getstate__(self) -> dict[str, Any]:
        return {"annotation": self.annotation, "added": self.added}

    def __call__(self, value: Any, who: str, whence: str) -> Any:
        """What *who* takes, of the JSON *value*; ``ContractViolationError`` names each field that does not fit."""
        if self.annotation is Any:
            return value
        text = to_json(value)
        try:
            try:
                return self._adapter.validate_json(text, **BY_NAME)
            except ValidationError as exc:
                return self._adapter.validate_json(_with_nan(from_json(text), exc), **BY_NAME)
        except ValidationError as exc:
            raise ContractViolationError(
                f"{who}: {show(self.annotation)}. It cannot be made from {whence}:\n{problems_of(exc)}"
            ) from None


def _with_nan(value: Any, exc: ValidationError) -> str:
    """JSON of *value* with NaN where a null stands for a number, if nothing else is wrong with it; else *exc*.

    NaN became null on its way; where a number has to be, it can have been nothing else.
    """
    whole = [value]
    try:
        for problem in exc.errors(include_url=False, include_context=False):
            *path, last = 0, *problem["loc"]
            holder: Any = functools.reduce(operator.getitem, path, whole)
            if problem["type"] != "float_type" or holder[last] is not None:
                raise exc
            holder[last] = math.nan
    except (LookupError, TypeError):  # the arm of a union, and no place in the value
        raise exc from None
    return json.dumps(whole[0])


def problems_of(exc: ValidationError) -> str:
    """The first ten problems, one a line, with the field and what was given in it."""
    lines = []
    for problem in exc.errors(include_url=False, include_context=False)[:10]:
        line = ": ".join(filter(None, [".".join(map(str, problem["loc"])), problem["msg"]]))
        if problem["type"] != "missing" and not any(looks_secret(str(part)) for part in problem["loc"]):
            line += f" (got {shorten(repr(mask(problem['input'])), 60)})"
        lines.append(f"  - {line}")
    more = exc.error_count() - len(lines)
    return "\n".join([*lines, f"  - and {more:,} more"] if more else lines)


@dataclasses.dataclass(frozen=True)
class identity:
    """Mark a field of a job type's parameters: ``token: Annotated[str, gf.identity(False)] = ""``.

    With False its value is not part of the job's id: two submissions that differ in it alone are the same job.
    """

    counts: bool


def validated(params: type | None, values: Mapping[str, Any], added: Mapping[str, Crossing] = _NONE) -> dict[str, Any]:
    """The parameters with their defaults, as JSON has them. ``ValidationError`` tells every problem.

    Names that *params* does not have are problems too, unless it says itself what becomes of extra ones.
    """
    if params is None:
        return dict(values)
    known = accepted(params, values)
    problems: list[tuple[Any, Any, str, str]] = []
    for name in (name for name in values if name not in known and name not in ADDED):
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        problems.append(((name,), values[name], "unknown", f"there is no such parameter; {hint}"))
    made: Any = None
    try:
        adapter = TypeAdapter(readable(params, added))
        made = adapter.validate_python({name: values[name] for name in values if name in known}, **BY_NAME)
    except ValidationError as exc:
        problems += [(fault["loc"], fault["input"], fault["type"], fault["msg"]) for fault in exc.errors()]
    if problems:
        details = [
            InitErrorDetails(type=PydanticCustomError(kind, "{told}", {"told": text}), loc=place, input=value)
            for place, value, kind, text in problems
        ]
        raise ValidationError.from_exception_data(show(params), details)
    try:
        return plain(made, "parameters", added)  # type: ignore[no-any-return]
    except UnstorableValue as exc:
        raise ParameterError(str(exc)) from None


def accepted(params: type, given: Mapping[str, Any]) -> list[str]:
    """The names that parameters may have: all *given* ones, where the class says what becomes of those it has not."""
    if not issubclass(params, BaseModel):
        return list(fields_of(params) or ())
    aliases: list[Any] = [
        name for field in params.model_fields.values() for name in (field.alias, field.validation_alias)
    ]
    is_own = params.model_config.get("extra") or any(not isinstance(alias, str | None) for alias in aliases)
    return list(given) if is_own else [*params.model_fields, *filter(None, aliases)]


def as_dict(params: Any) -> Mapping[str, Any] | None:
    """The fields of an object of parameters; a dict stays one."""
    names = getattr(type(params), "model_fields", None) or fields_of(type(params))
    if names is None and not isinstance(params, Mapping | None):
        raise ParameterError(
            f"{shorten(repr(params), 60)} is {type(params).__name__}, and no parameters: give them by name, as in "
            "run(job, n=5), or as one dict or object of their class."
        )
    return params if names is None else {name: getattr(params, name) for name in names}


def schema(params: type | None) -> dict[str, Any]:
    """The JSON schema of the parameters, for forms and completion."""
    try:
        return {"type": "object"} if params is None else TypeAdapter(readable(params, used_by([params]))).json_schema()
    except PydanticInvalidForJsonSchema:  # a field of a type that JSON schema has no word for
        return {"type": "object"}


def non_identity(params: type | None) -> tuple[str, ...]:
    """The names of the fields that are marked with ``identity(False)``."""
    if params is None:
        return ()
    if issubclass(params, BaseModel):
        marks: dict[str, Any] = {name: field.metadata for name, field in params.model_fields.items()}
    else:
        marks = {name: get_args(hint) for name, hint in annotations_of(params, {}, show(params)).items()}
    return tuple(name for name, mark in marks.items() if identity(False) in mark)
