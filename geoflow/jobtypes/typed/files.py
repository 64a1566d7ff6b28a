"""Which values of typed functions are files: annotations that say so, and the names that these values have in JSON."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import core_schema

from geoflow.jobtypes.typed.annotations import is_model
from geoflow.jobtypes.typed.lowered import Step

Role = Literal["input", "output"]


@dataclasses.dataclass(frozen=True)
class FileRole:
    """Marks a text as the path or the address of a file that a task reads, or of one that it has written."""

    role: Role

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """As of the text, which is made of a `Path` where that is given: who has a file's name often has it so."""
        return core_schema.no_info_before_validator_function(_as_text, handler(source))


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


InputFile = Annotated[str, FileRole("input")]
"""The path or address of a file or folder that a function reads, as text; of a ``Path`` it is made. Where results are
reused, its state counts: its size and its times, or what is in it where the stage says ``inputs_by="content"``."""
OutputFile = Annotated[str, FileRole("output")]
"""The path of a file that a function has written, as text; of a ``Path`` it is made. Its result is reused only while
the file is there as it left it."""


def files_of(step: Step) -> dict[str, list[str]]:
    """The ``inputs`` and ``outputs`` of the stage, as patterns of the names of parameters, and of what it returns."""
    among = {"item": "item", "params": "params", "results": "previous_results.result", "context": ""}
    if step.kind == "reduce":
        among["params"] = "job_parameters"
    taken = ((among[role], made.annotation) for role, made in step.takes.values() if among[role])
    inputs = [name for prefix, annotation in taken for name in _named(annotation, "input", prefix)]
    outputs = list(_named(step.returns, "output", ""))
    return {name: list(dict.fromkeys(found)) for name, found in (("inputs", inputs), ("outputs", outputs)) if found}


def _named(annotation: Any, role: Role, name: str, above: tuple[Any, ...] = ()) -> Iterator[str]:
    """The names of what is marked with *role* in a value called *name*; the items of a list are called as it is."""
    kind, args = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        if FileRole(role) in args[1:]:
            yield name
        yield from _named(args[0], role, name, above)
    elif kind in (Union, types.UnionType):
        for arm in args:
            yield from _named(arm, role, name, above)
    elif is_model(kind) and kind not in above:
        for field, inner in _fields(kind).items():
            yield from _named(inner, role, f"{name}.{field}" if name else field, (*above, kind))
    elif isinstance(kind, type) and issubclass(kind, Mapping):
        for inner in args[1:]:
            yield from _named(inner, role, f"{name}.*" if name else "*", above)
    else:
        for inner in args:
            yield from _named(inner, role, name, above)


def _fields(kind: Any) -> dict[str, Any]:
    """The annotations of a model's or dataclass's fields, with what they are marked with."""
    if issubclass(kind, BaseModel):
        return {
            name: Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            for name, field in kind.model_fields.items()
        }
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # an annotation that is text may be any expression; what uses it will say so
        return {}
