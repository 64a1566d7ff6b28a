"""What annotations say: which are lists, which objects, and what fits from one stage to the next.

A missing annotation is `typing.Any`: it fits everything, and plain JSON passes through.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, Union
from uuid import UUID

from pydantic import BaseModel, RootModel

from geoflow.errors import DefinitionError

_LISTS = (list, set, frozenset, collections.deque, tuple)
_ABSTRACT_LISTS = (
    collections.abc.Collection, collections.abc.Iterable, collections.abc.MutableSequence,
    collections.abc.Sequence, collections.abc.Set,
)  # fmt: skip
# What is text in JSON, and made from it again.
_TEXTS = (str, PurePath, UUID, date, time, Decimal)


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
    if annotation is Any:
        return "anything"
    if not _is_class(annotation):
        annotation = bare(annotation)
    text = annotation.__qualname__ if _is_class(annotation) else str(annotation)
    return re.sub(r"(?:[\w<>]+\.)+(?=\w)", "", text)


def bare(annotation: Any) -> Any:
    """What an annotation stands for: without ``Annotated``, the name of an alias, or the root model around it."""
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        elif _is_class(annotation) and issubclass(annotation, RootModel):
            annotation = annotation.model_fields["root"].annotation
        elif isinstance(annotation, typing.TypeVar):
            return Any
        else:
            return type(None) if annotation is None else annotation


def is_model(annotation: Any) -> bool:
    """Whether it is a pydantic model or a dataclass: what JSON has as an object of known fields."""
    return _is_class(annotation) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation))


def is_object(annotation: Any) -> bool:
    """Whether values of it are objects in JSON, as far as the annotation tells."""
    kind = _kind(annotation)
    return kind is Any or kind is object or is_model(kind) or _is_mapping(kind) or hasattr(kind, "__geo_interface__")


def same(one: Any, other: Any) -> bool:
    """Whether two classes are the same, or one was the other before its cell ran again."""
    return one is other or (
        _is_class(one)
        and _is_class(other)
        and (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)
    )


def fields_of(annotation: Any) -> dict[str, Any] | None:
    """The annotations of the fields that values of it have in JSON, or None where they are not known."""
    kind = bare(annotation)
    if _is_class(kind) and issubclass(kind, BaseModel):
        computed = {name: field.return_type for name, field in kind.model_computed_fields.items()}
        return {name: field.annotation for name, field in kind.model_fields.items()} | computed
    if not dataclasses.is_dataclass(kind) and not typing.is_typeddict(kind):
        return None
    try:
        hints = typing.get_type_hints(kind)
    except Exception:  # as in `annotations_of`: its names may be local ones
        hints = dict.fromkeys(kind.__annotations__, Any)
    return {name: hints[name] for name in hints if typing.get_origin(hints[name]) is not ClassVar}


def items_of(annotation: Any) -> Any | None:
    """The annotation of the items of a list of any kind; None for what is none. A tuple of known parts is one value."""
    kind = bare(annotation)
    if kind is Any or kind is object:
        return Any
    if _is_union(kind):
        found = [items_of(arm) for arm in typing.get_args(kind) if arm is not type(None)]
        return None if any(item is None for item in found) else _union(found)
    origin, args = _kind(kind), typing.get_args(kind)
    if hasattr(origin, "_fields"):
        return None
    if origin is tuple and args:
        return args[0] if args[1:] == (...,) else None
    if not _is_class(origin) or not (issubclass(origin, _LISTS) or origin in _ABSTRACT_LISTS):
        return None
    return args[0] if args else Any


def lists_in(annotation: Any) -> list[str]:
    """The names of the fields that are lists."""
    known = fields_of(annotation) or {}
    return [name for name, kind in known.items() if kind is not Any and items_of(kind) is not None]


def fits(given: Any, wanted: Any) -> bool:
    """Whether what is annotated as *given*, once it went through JSON, can be what is annotated as *wanted*.

    In doubt it can: then values decide when the job runs.
    """
    given, wanted = bare(given), bare(wanted)
    if given is Any or wanted is Any or wanted is object or given == wanted:
        return True
    if _is_union(given):
        return all(fits(arm, wanted) for arm in typing.get_args(given))
    if _is_union(wanted):
        return any(fits(given, arm) for arm in typing.get_args(wanted))
    for one, other in ((given, wanted), (wanted, given)):
        if typing.get_origin(one) is Literal:
            return any(fits(type(value), other) for value in typing.get_args(one))
    kind, target = _kind(given), _kind(wanted)
    if not _is_class(kind) or not _is_class(target):
        return True
    items, taken = items_of(given), items_of(wanted)
    if items is not None and taken is not None:
        return fits(items, taken)
    if kind is tuple and taken is not None:  # one of known parts
        return all(fits(part, taken) for part in typing.get_args(given))
    if target is tuple and items is not None:
        return all(fits(items, part) for part in typing.get_args(wanted))
    if kind is tuple and target is tuple:
        parts, places = typing.get_args(given), typing.get_args(wanted)
        return len(parts) == len(places) and all(map(fits, parts, places))
    return _class_fits(given, wanted, kind, target)


def _class_fits(given: Any, wanted: Any, kind: type, target: type) -> bool:
    if _is_mapping(kind) and _is_mapping(target):
        values = [typing.get_args(annotation)[1:] for annotation in (given, wanted)]
        return not all(values) or fits(values[0][0], values[1][0])
    if _is_mapping(target):
        return is_object(kind)
    if _is_mapping(kind):
        return is_object(target)
    if issubclass(target, Enum) or issubclass(kind, Enum):
        return issubclass(kind, target) or not (issubclass(kind, Enum) and issubclass(target, Enum))
    try:
        if same(kind, target) or issubclass(kind, target):
            return True
    except TypeError:  # a protocol that does not allow to be asked
        return True
    if target is str or kind is str:  # text in JSON, that the other is made from
        return issubclass(kind, _TEXTS) and issubclass(target, _TEXTS)
    if kind is timedelta or target is timedelta:  # seconds
        return issubclass(kind if target is timedelta else target, int | float)
    if target is float:
        return issubclass(kind, numbers.Real)
    return target is int and issubclass(kind, numbers.Integral)


def classes_in(annotation: Any) -> Iterator[type]:
    """The classes that an annotation names, at any depth of its brackets."""
    if _is_class(annotation):
        yield annotation
    for part in typing.get_args(annotation):
        yield from classes_in(part)


def without_none(annotation: Any) -> Any:
    """The annotation without ``| None``."""
    kind = bare(annotation)
    if not _is_union(kind):
        return annotation
    return _union([arm for arm in typing.get_args(kind) if arm is not type(None)])


def _kind(annotation: Any) -> Any:
    """The class of an annotation: ``list`` of ``list[int]``."""
    kind = bare(annotation)
    return typing.get_origin(kind) or kind


def _is_class(annotation: Any) -> bool:
    return isinstance(annotation, type) and typing.get_origin(annotation) is None


def _is_mapping(kind: Any) -> bool:
    return _is_class(kind) and issubclass(kind, collections.abc.Mapping)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _union(arms: Sequence[Any]) -> Any:
    return Union[tuple(arms)] if arms else Any  # noqa: UP007 - of as many as there are
