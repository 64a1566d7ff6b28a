"""The class of a job type's parameters: what it accepts, what counts for the job's id, what a form can know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from geoflow.errors import DefinitionError, ParameterError, UnstorableValue
from geoflow.flow.annotations import annotations_of, show
from geoflow.flow.crossing import BY_NAME, plain

# What production's submit adds to the parameters by itself.
ADDED = frozenset({"dataset_id", "resource_id", "version_id", "system", "use_service_bus"})


@dataclass(frozen=True)
class Identity:
    """The mark that `identity` makes."""

    counts: bool


def identity(counts: bool) -> Identity:
    """Mark a field of a job type's parameters: ``token: Annotated[str, gf.identity(False)] = ""``.

    With False its value is not part of the job's id: two submissions that differ in it alone are the same job.
    """
    return Identity(counts)


def checked_class(job: str, params: Any) -> type | None:
    """*params*, if it is a class of parameters; else ``DefinitionError``."""
    if params is None:
        return None
    is_class = isinstance(params, type) and get_origin(params) is None
    if is_class and (is_dataclass(params) or (issubclass(params, BaseModel) and not issubclass(params, RootModel))):
        return params  # type: ignore[no-any-return]
    raise DefinitionError(
        f"{job}: params={params!r} is no class of parameters: give a pydantic model or a dataclass, the class itself; "
        "or leave it out to take any."
    )


def validated(params: type | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with their defaults, as JSON has them. ``ValidationError`` tells every problem.

    Names that *params* does not have are problems too, unless it says itself what becomes of extra ones.
    """
    if params is None:
        return dict(given)
    known = _accepted_names(params)
    unknown = [] if known is None else [name for name in given if name not in known and name not in ADDED]
    kept = {name: value for name, value in given.items() if known is None or name in known}
    problems = [_unknown(name, given[name], known or []) for name in unknown]
    made: Any = None
    try:
        made = TypeAdapter(params).validate_python(kept, **BY_NAME)
    except ValidationError as exc:
        for problem in exc.errors(include_url=False, include_context=False):
            kind = PydanticCustomError(problem["type"], "{message}", {"message": problem["msg"]})
            problems.append(InitErrorDetails(type=kind, loc=problem["loc"], input=problem["input"]))
    if problems:
        raise ValidationError.from_exception_data(show(params), problems)
    try:
        accepted: dict[str, Any] = plain(made, "parameters")
    except UnstorableValue as exc:
        raise ParameterError(str(exc)) from None
    return accepted


def _accepted_names(params: type) -> list[str] | None:
    """The names that parameters may have, aliases included; None where the class says what becomes of any other."""
    config = getattr(params, "model_config", None) or getattr(params, "__pydantic_config__", None) or {}
    if config.get("extra") is not None:
        return None
    if not issubclass(params, BaseModel):
        return [field.name for field in fields(params) if field.init]  # type: ignore[arg-type]
    names = list(params.model_fields)
    for field in params.model_fields.values():
        for alias in (field.alias, *getattr(field.validation_alias, "choices", [field.validation_alias])):
            first = alias.path[0] if hasattr(alias, "path") else alias
            if isinstance(first, str):
                names.append(first)
    return names


def _unknown(name: str, value: Any, known: Sequence[str]) -> InitErrorDetails:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
    kind = PydanticCustomError("unknown_parameter", "there is no such parameter; {hint}", {"hint": hint})
    return InitErrorDetails(type=kind, loc=(name,), input=value)


def as_dict(params: Any) -> Mapping[str, Any] | None:
    """The fields of an object of parameters; a dict stays one."""
    if isinstance(params, BaseModel):
        return {name: getattr(params, name) for name in type(params).model_fields}
    if is_dataclass(params) and not isinstance(params, type):
        return {field.name: getattr(params, field.name) for field in fields(params) if field.init}
    return params  # type: ignore[no-any-return]


def schema(params: type | None) -> dict[str, Any]:
    """The JSON schema of the parameters, for forms and completion."""
    if params is None:
        return {"type": "object"}
    try:
        return TypeAdapter(params).json_schema()
    except PydanticInvalidForJsonSchema:  # a field of a type that JSON schema has no word for
        return {"type": "object"}


def non_identity(params: type | None) -> tuple[str, ...]:
    """The names of the fields that are marked with ``identity(False)``."""
    if params is None:
        return ()
    if issubclass(params, BaseModel):
        marks = {name: tuple(field.metadata) for name, field in params.model_fields.items()}
    else:
        hints = annotations_of(params, {}, show(params))
        marks = {name: get_args(hint)[1:] for name, hint in hints.items() if get_origin(hint) is Annotated}
    return tuple(name for name, found in marks.items() if any(isinstance(m, Identity) and not m.counts for m in found))
