"""What annotations say: which are lists, which have fields, and which can follow which.

What is not annotated, or not understood here, is `typing.Any`: it fits everything, and the values decide.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time, timedelta
from pathlib import PurePath
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

import pydantic
from pydantic import BaseModel, RootModel

from geoflow.errors import DefinitionError

# Models are written to JSON by the names of their fields, so they are read by these too, whatever aliases they have.
_BOTH_NAMES = tuple(map(int, pydantic.VERSION.split(".")[:2])) >= (2, 11)
BY_NAME: dict[str, Any] = {"by_alias": True, "by_name": True} if _BOTH_NAMES else {}
# The names of classes that cross in a way of their own, which `foreign` knows: what they extend does not tell it.
OWN_WAY: set[str] = set()
# What classes are in JSON; the first that fits decides. An enum may be anything, and so may a Decimal.
_FORMS: dict[str, tuple[type, ...]] = {
    "text": (str, PurePath, UUID, date, time),
    "number": (int, float, timedelta),
    "object": (BaseModel, Mapping),
    "list": (Iterable,),
    "nothing": (type(None),),
}


def annotations_of(function: Callable[..., Any], names: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The annotations of *function*, resolved among its globals and *names*; *who* begins the error's message."""
    try:
        return typing.get_type_hints(function, localns=dict(names), include_extras=True)
    except Exception as exc:  # an annotation that is text may be any expression
        raise DefinitionError(
            f"{who} has an annotation that cannot be read ({exc}): define or import what it names before the function."
        ) from None


def show(annotation: Any) -> str:
    """An annotation as its author wrote it: ``list[Tile]``."""
    is_class = isinstance(annotation, type) and get_origin(annotation) is None
    text = annotation.__qualname__ if is_class else str(annotation)
    return "anything" if annotation is Any else re.sub(r"(?:[\w<>]+\.)+(?=\w)", "", text)


def core(annotation: Any) -> Any:
    """The class, perhaps with brackets, that an annotation stands for, less ``Annotated`` and ``| None``; else Any."""
    kind, args = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        return core(args[0])
    if kind in (Union, types.UnionType):
        arms = [arm for arm in args if arm is not type(None)]
        return core(arms[0]) if len(arms) == 1 else Any
    known = isinstance(kind, type) and kind is not object and not issubclass(kind, RootModel)
    return annotation if known else Any


def form(annotation: Any) -> str | None:
    """What values of it are in JSON: text, number, object, list or nothing; None where that is not known."""
    inner = core(annotation)
    kind: Any = get_origin(inner) or inner
    if is_model(kind) or hasattr(kind, "__geo_interface__"):
        return "object"
    if any(class_name(base) in OWN_WAY for base in kind.__mro__):
        return None
    return next((name for name, kinds in _FORMS.items() if issubclass(kind, kinds)), None)


def class_name(kind: type) -> str:
    """Its name with that of its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def is_model(kind: Any) -> bool:
    """Whether it is a pydantic model or a dataclass: an object of known fields."""
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))


def fields_of(annotation: Any) -> dict[str, Any] | None:
    """The annotations of the fields of a model or dataclass, by name; None for anything else."""
    kind = core(annotation)
    if not is_model(kind):
        return None
    if issubclass(kind, BaseModel):
        known = {**kind.model_fields, **kind.model_computed_fields}
        return {name: getattr(field, "annotation", Any) for name, field in known.items()}
    return {field.name: field.type for field in dataclasses.fields(kind)}


def items_of(annotation: Any) -> Any | None:
    """The annotation of the items of a list, a set and the like; None for what is none. A tuple of parts is none."""
    inner = core(annotation)
    if inner is Any:
        return Any
    kind, args = get_origin(inner) or inner, get_args(inner)
    if form(kind) != "list" or (issubclass(kind, tuple) and args[1:] != (...,)):
        return None
    return args[0] if args else Any


def same(one: Any, other: Any) -> bool:
    """Whether two classes are the same, or one was the other before its cell ran again."""
    return one is other or (is_model(one) and is_model(other) and repr(one) == repr(other))


def missed(given: Any, wanted: Any) -> list[str]:
    """What the class of *wanted*, older than that of *given* and of the same name, needs and the newer has not."""
    given, wanted = core(given), core(wanted)
    if given is not wanted and same(given, wanted):
        return [name for name in needed(wanted) if name not in (fields_of(given) or {})]
    items = items_of(given), items_of(wanted)
    return [] if None in items or Any in items else missed(*items)


def older(annotation: Any, names: dict[str, Any]) -> bool:
    """Whether its class is of a cell that ran again since, and has other fields where *names* are looked up now."""
    kind, items = core(annotation), items_of(annotation)
    if is_model(kind):
        now = names.get(kind.__qualname__)
        return now is not kind and is_model(now) and _told_of(now) != _told_of(kind)
    return items is not None and items is not Any and older(items, names)


def _told_of(kind: Any) -> str:
    if issubclass(kind, BaseModel):
        return repr(kind.model_fields)
    return repr([(field.name, field.type, field.default, field.default_factory) for field in dataclasses.fields(kind)])


def needed(kind: Any) -> list[str]:
    """The names of the fields of a model or dataclass that have no default."""
    if issubclass(kind, BaseModel):
        return [name for name, field in kind.model_fields.items() if field.is_required()]
    fields = dataclasses.fields(kind)
    return [field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING]


def fits(given: Any, wanted: Any) -> bool:
    """False where what is annotated as *given* can never, by way of JSON, become what is annotated as *wanted*."""
    given, wanted = core(given), core(wanted)
    if given == wanted or None in (forms := (form(given), form(wanted))):
        return True
    if is_model(given) and is_model(wanted):
        return same(given, wanted) or issubclass(given, wanted)
    if forms == ("list", "list"):
        items = items_of(given), items_of(wanted)
        return None in items or fits(*items)
    return forms[0] == forms[1]
