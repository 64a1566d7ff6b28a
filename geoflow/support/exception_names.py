"""Exceptions by their names, so that who says what is retried need not import the library that raises them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainValidator
from pydantic_core import PydanticCustomError

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_MUST = (
    "Input should be exception classes, or their names, such as 'OSError' or 'rasterio.errors.RasterioIOError', but "
    "{value} is none"
)


def name_of(exception: type) -> str:
    """The name of a class with its module, such as ``builtins.OSError``: two libraries may call theirs alike.

    What it is defined in besides is left out: a class that travelled by value has lost that.
    """
    return f"{exception.__module__}.{exception.__name__}"


def _named(value: Any) -> str:
    if isinstance(value, type) and issubclass(value, BaseException):
        return name_of(value)
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise PydanticCustomError("exceptions", _MUST, {"value": repr(value)})


def _all_named(value: Any) -> frozenset[str]:
    """One or several, as behind ``except``."""
    if not isinstance(value, list | tuple | set | frozenset):
        value = (value,)
    return frozenset(map(_named, value))


def are_exceptions(value: Any) -> bool:
    """Whether each of them is an exception class, or can be the name of one."""
    try:
        _all_named(value)
    except PydanticCustomError:
        return False
    return True


def _in_order(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(sorted(_all_named(value)))


ExceptionNames = Annotated[frozenset[str], BeforeValidator(_all_named)]
_Exception = type[BaseException] | str
# What an option may be given as, which becomes names in their order, or stays None.
Exceptions = Annotated[_Exception | Collection[_Exception] | None, PlainValidator(_in_order)]
