"""Turn what handlers and plans return into JSON text, or say exactly what in it has no JSON form.

The first rule that fits decides, and applies again to what comes out of it:

====================================================  ========================================================
value                                                 JSON
====================================================  ========================================================
``None``, ``bool``, ``str``                           as it is; text with a lone surrogate is refused
``int``                                               as it is, from -2**63 to 2**64 - 1; beyond is refused
``float``                                             as it is; NaN and the infinities become ``null``
enum                                                  its value
subclass of ``str``, ``int``, ``float``               as the type that it extends
``dict``                                              object; keys: see below
``list``, ``tuple``, named tuple                      array
``set``, ``frozenset``                                array, sorted; by JSON text if its items have no full order
``date``, ``time``, ``datetime``                      ISO 8601 text; ``pandas.NaT`` becomes ``null``
``timedelta``                                         seconds, a number
path, ``UUID``                                        text
``Decimal``                                           text, so that no digit is lost; NaN and infinities ``null``
pydantic model                                        object of ``model_dump()``; pydantic's URLs are text
dataclass                                             object of all its fields
anything with ``__geo_interface__``                   that dict
numpy scalar, array or tensor of no dimensions        its value; ``datetime64`` ISO text, ``timedelta64`` seconds,
                                                      a structured one an object; NaT and masked ones ``null``
``pandas.NA``                                         ``null``
anything else (bytes, an array, a frame, a dataset)   refused
====================================================  ========================================================

Keys are text. Numbers, booleans, ``None``, dates and enums of these become the text that `json` makes of them, other
keys are refused, and so are two keys that become equal, since one value would be lost. What contains itself, or nests
deeper than `MAX_DEPTH`, is refused. A refusal is an `UnstorableValue` that names the path to the culprit.
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Awaitable, Iterator, MappingView
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from math import isfinite
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType
from typing import Any
from uuid import UUID

import orjson

from geoflow.errors import UnstorableValue

MAX_DEPTH = 200

_LEAVES = frozenset({type(None), bool, int, float, str})
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
# A conversion may give something that is converted again (an enum of dates); more often than this is a loop.
_MAX_STEPS = 8

_TO_FILE = "write it to a file and return the path"
_AWAIT = "wait for it, and return what it gives"
_REMEDIES: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bytes, bytearray, memoryview), f"decode it to text, or {_TO_FILE}"),
    ((complex,), "return its real and its imaginary part"),
    ((BaseException,), "raise it, or return its text"),
    ((Awaitable,), _AWAIT),
    ((Iterator, MappingView, UserList, deque, range), "make it a list"),
    ((MappingProxyType, ChainMap, UserDict), "make it a dict"),
    ((FunctionType, MethodType, BuiltinFunctionType, type), "return its name"),
)


def to_json(value: object, *, where: str = "result") -> str:
    """Return *value* as JSON text by the rules of this module.

    *where* is the name that the value goes by in messages, as in ``result['stats']['ds'][3]``. Raises
    `UnstorableValue`, naming the path, the type and the remedy. Code of the value's own that runs on the way
    (properties, ``model_dump``) may raise anything: that too becomes an `UnstorableValue`, except `MemoryError`.
    """
    try:
        if _is_plain(value):
            return orjson.dumps(value).decode()
    except (TypeError, RuntimeError):
        # A key, a number or a text that the walk will convert or name; or another thread changed the value meanwhile.
        pass
    walk = _Walk(where)
    try:
        plain = walk.plain(value)
    except RecursionError:
        raise walk.refusal("is nested too deeply to be stored from here: flatten it") from None
    return orjson.dumps(plain).decode()


# The way back, from text or UTF-8 bytes; `ValueError` for what is not JSON. Not wrapped: the coordinator's hot path.
from_json = orjson.loads


def _is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Tell whether *value* is made of JSON's own types only, nested at most *depth* deep. Keys are not looked at.

    orjson is shown nothing else: on deeply nested tuples it corrupts memory, on an enum whose ``value`` raises it
    dereferences null, and it writes the text of an `orjson.Fragment` unchecked.
    """
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind in _LEAVES
    if not depth:
        return False
    for item in value:  # noqa: SIM110 - a generator for each container would cost more than the encoding does
        if type(item) not in _LEAVES and not _is_plain(item, depth - 1):
            return False
    return True


class _NoForm(Exception):
    """There is no rule for this value; the text says why, to follow the path."""


class _Walk:
    """One pass over a value: builds its copy of plain JSON types, and knows at each moment where it is."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.path: list[str | int | None] = []  # None stands for an item of a set, which has no place
        self.inside: set[int] = set()

    def plain(self, value: object) -> object:
        if type(value) in _LEAVES:
            return self._leaf(value)
        mark = id(value)
        if mark in self.inside:
            raise self.refusal("contains itself: leave the reference out, or return a key of it instead")
        if len(self.inside) == MAX_DEPTH:
            raise self.refusal(f"is nested deeper than {MAX_DEPTH} levels: flatten it")
        self.inside.add(mark)
        result = self._contents(value if type(value) in _CONTAINERS else self._converted(value))
        self.inside.remove(mark)
        return result

    def _leaf(self, value: object) -> object:
        if type(value) is str:
            if not _encodable(value):
                raise self.refusal(_surrogate("is text", value))
        elif type(value) is int and not -(2**63) <= value < 2**64:
            raise self.refusal(f"is an integer of {value.bit_length()} bits, and 64 can be stored: return it as text")
        return value

    def _converted(self, value: object) -> object:
        """Apply rules until what is left is a leaf or a container."""
        for _ in range(_MAX_STEPS):
            try:
                value = _step(value)
            except _NoForm as no:
                raise self.refusal(str(no)) from None
            except MemoryError:
                raise  # The machine's fault, not the value's: it may pass on another attempt.
            except Exception as exc:
                why = f"is of type {_type_name(value)}, and turning it into JSON failed with {_error_text(exc)}"
                raise self.refusal(f"{why}: return plain values instead") from exc
            if type(value) in _LEAVES or type(value) in _CONTAINERS:
                return value
        raise self.refusal(f"is of type {_type_name(value)}, which keeps turning into something else: {_TO_FILE}")

    def _contents(self, value: Any) -> object:
        kind = type(value)
        if kind is dict:
            return self._object(value)
        if kind is list or kind is tuple:
            return [self._at(index, item) for index, item in enumerate(tuple(value))]
        if kind is set or kind is frozenset:
            ordered = _in_order(value)
            items = [self._at(None, item) for item in (value if ordered is None else ordered)]
            return sorted(items, key=orjson.dumps) if ordered is None else items
        return self._leaf(value)

    def _object(self, value: dict[object, object]) -> dict[str, object]:
        result: dict[str, object] = {}
        came_from: dict[str, object] = {}
        for key, item in tuple(value.items()):
            text = self._key(key)
            if text in result:
                both = f"{_show(came_from[text])} and {_show(key)}"
                raise self.refusal(f"has two keys that both become {_show(text)}, {both}: rename one of them")
            result[text] = self._at(text, item)
            came_from[text] = key
        return result

    def _at(self, place: str | int | None, item: object) -> object:
        self.path.append(place)
        result = self.plain(item)
        self.path.pop()
        return result

    def _key(self, key: object) -> str:
        try:
            text = _key_text(key)
        except _NoForm as no:
            raise self.refusal(f"has the key {_show(key)} {no}") from None
        except MemoryError:
            raise
        except Exception as exc:
            why = f"has a key of type {_type_name(key)}, and turning it into text failed with {_error_text(exc)}"
            raise self.refusal(f"{why}: use str keys") from exc
        if not _encodable(text):
            raise self.refusal(_surrogate("has a key", text))
        return text

    def refusal(self, reason: str) -> UnstorableValue:
        places = ["[*]" if place is None else f"[{_show(place)}]" for place in self.path]
        if len(places) > 12:
            places[8:-4] = ["[...]"]
        message = f"{self.where}{''.join(places)} {reason}"
        return UnstorableValue(message.encode("utf-8", "backslashreplace").decode())


def _step(value: Any) -> object:
    """Bring *value* one rule nearer to JSON, or raise.

    Types are asked, not the value's ``__class__``, which a value may fake.
    """
    kind = type(value)
    if issubclass(kind, Enum):
        return value.value
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return int.__int__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, dict):
        return dict(value.items())
    if issubclass(kind, list | tuple):
        return list(value)
    if issubclass(kind, set | frozenset):
        return set(value)
    if issubclass(kind, date | time):
        return _unless_nat(value.isoformat())
    if issubclass(kind, timedelta):
        return value.total_seconds()
    if issubclass(kind, PurePath | UUID):
        return str(value)
    if issubclass(kind, Decimal):
        return str(value) if value.is_finite() else None
    if hasattr(kind, "model_dump"):
        return value.model_dump()
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if hasattr(kind, "__geo_interface__") or "__geo_interface__" in getattr(value, "__dict__", ()):
        return _geo_dict(value)
    if _is_array_scalar(value):
        return _array_scalar(value)
    if kind.__name__ == "NAType" and kind.__module__.startswith("pandas."):
        return None
    if hasattr(kind, "unicode_string") and kind.__module__.startswith("pydantic"):
        return value.unicode_string()
    raise _NoForm(f"is of type {_type_name(value)}, which has no JSON form: {_remedy(kind)}")


def _geo_dict(value: Any) -> object:
    geo = value.__geo_interface__
    if not isinstance(geo, dict):
        raise _NoForm(
            f"is of type {_type_name(value)}, whose __geo_interface__ is of type {_type_name(geo)} and not a dict: "
            f"return a dict of your own, or {_TO_FILE}"
        )
    return geo


def _is_array_scalar(value: Any) -> bool:
    """True for a numpy scalar, and for an array of no dimensions (numpy's, xarray's, a tensor)."""
    kind = type(value)
    return hasattr(kind, "dtype") and hasattr(kind, "item") and getattr(value, "ndim", None) == 0


def _array_scalar(value: Any) -> object:
    if hasattr(type(value), "mask") and bool(value.mask):
        return None  # `item` would give whatever lies under the mask.
    code = getattr(value.dtype, "kind", "")
    if code in ("M", "m"):
        # `item` would give bare nanoseconds here.
        moment = value.__array__()[()]
        return _unless_nat(str(moment)) if code == "M" else float(moment / type(moment)(1, "s"))
    if code == "f":
        return float(value)  # `item` gives a longdouble back as it is
    names = getattr(value.dtype, "names", None)
    return {name: value[name] for name in names} if names else value.item()


def _unless_nat(text: str) -> str | None:
    return None if text == "NaT" else text


def _in_order(values: Any) -> list[object] | None:
    """Return the items of a set in their own order, or None where they have no full one (mixed types, NaN, sets)."""
    try:
        ordered = sorted(values)
        return ordered if all(low < high for low, high in pairwise(ordered)) else None
    except Exception:
        return None


def _key_text(key: Any) -> str:
    kind = type(key)
    if kind is str:
        return str(key)
    if kind is bool:
        return "true" if key else "false"
    if key is None:
        return "null"
    if issubclass(kind, int) and not issubclass(kind, Enum):
        return int.__repr__(key)
    if issubclass(kind, float) and not issubclass(kind, Enum):
        if isfinite(key):
            return float.__repr__(key)
        raise _NoForm("which is no JSON number: use str keys")
    if issubclass(kind, Enum | str | date | time) or _is_array_scalar(key):
        simpler = _step(key)
        # A missing date is not the key that None is.
        if simpler is not None or issubclass(kind, Enum):
            return _key_text(simpler)
    raise _NoForm(f"of type {_type_name(key)}: use str keys")


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _surrogate(what: str, text: str) -> str:
    return (
        f"{what} with a lone surrogate, {_show(text)}, which is not Unicode: where it is a file name that cannot be "
        "decoded, rename the file; else repair it with .encode('utf-8', 'replace').decode()"
    )


def _remedy(kind: type) -> str:
    for types, remedy in _REMEDIES:
        if issubclass(kind, types):
            return remedy
    return _AWAIT if hasattr(kind, "add_done_callback") else _TO_FILE  # a future of any library


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _show(value: object) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{_type_name(value)}>"
    return text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}"


def _error_text(exc: Exception) -> str:
    try:
        text = str(exc)
    except Exception:
        text = "(its text cannot be shown)"
    return f"{type(exc).__name__}: {text[:300]}"
