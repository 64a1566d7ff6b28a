"""Turn what handlers and plans return into JSON text, or say exactly what in it has no JSON form.

The first rule that fits decides, and applies again to what comes out of it:

====================================================  ========================================================
value                                                 JSON
====================================================  ========================================================
``None``, ``bool``, ``str``                           as it is; text with a lone surrogate is refused
``int``                                               as it is, from -2**63 to 2**64 - 1; beyond is refused
``float``                                             as it is; NaN and the infinities become ``null`` in a
                                                      result; `stored` refuses the infinities
enum                                                  its value
subclass of ``str``, ``int``, ``float``               as the type that it extends
``dict``                                              object; keys: see below
``list``, ``tuple``, named tuple                      array
``set``, ``frozenset``                                array of what its items become, sorted; by their JSON text if
                                                      they are of several types
``date``, ``time``, ``datetime``                      ISO 8601 text; ``pandas.NaT`` becomes ``null``
``timedelta``                                         seconds, a number
path, ``UUID``, pydantic's URLs                       text
``Decimal``                                           text, so that no digit is lost; NaN and infinities ``null``
pydantic model                                        object of ``model_dump()``
dataclass                                             object of all its fields
anything with ``__geo_interface__``                   that dict; refused where it has a CRS that the dict has not,
                                                      as a GeoDataFrame
numpy scalar, array or tensor of no dimensions        its value; ``datetime64`` ISO text, ``timedelta64`` seconds;
                                                      NaT and masked ones ``null``
``pandas.NA``                                         ``null``
anything else (bytes, an array, a frame, a dataset)   refused
====================================================  ========================================================

A key becomes the text of what these rules make of it (``1`` becomes ``"1"``, a date its ISO text). Arrays and objects
are refused as keys, and so are two keys that become equal, since one value would be lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from math import inf, isfinite, isnan, nan
from pathlib import PurePath
from typing import Any
from uuid import UUID

import orjson
from pydantic import AnyUrl, BaseModel

from geoflow.errors import UnstorableValue
from geoflow.support.text import cut, exact, human_bytes

MAX_DEPTH = 200
# SQLite holds up to 1,000,000,000 bytes in a row: this is for one value, the rest for what surrounds it.
MAX_BYTES = 900_000_000

_SAVED_WHOLE = ("ndarray", "DataFrame", "Series", "GeoDataFrame", "DataArray", "bytes")  # what `gf.save` takes
_LEAVES = frozenset({type(None), bool, int, float, str})
_HOLD = frozenset({dict, list, tuple})
# What a value became ``null`` for, and where it was.
Lost = list[tuple[str, float]]
# Says of a class what makes of its values something nearer to JSON, before the rules are asked; None where they decide.
Forms = Callable[[type], Callable[[Any], object] | None]


def to_json(value: object, *, where: str = "result", lost: Lost | None = None, forms: Forms | None = None) -> str:
    """Return *value* as JSON text by the rules of this module.

    *where* is the name that the value goes by in messages, as in ``result['stats']['ds'][3]``. Raises
    `UnstorableValue` that names the path to the culprit, its type and the remedy; also for more than `MAX_BYTES`. The
    numbers that became ``null`` are put into *lost*. *forms* says more of some classes than the rules do.
    """
    if _is_plain(value):
        try:
            found = orjson.dumps(value)
        except TypeError:
            pass  # A key, a number or a text that the walk will convert or name.
        else:
            if len(found) <= MAX_BYTES and (lost is None or b"null" not in found):
                return found.decode()
    found = orjson.dumps(_plain(value, where, 0, lost, forms))
    if len(found) > MAX_BYTES:
        size = f"{human_bytes(len(found))} of JSON, and no value may be more than {human_bytes(MAX_BYTES)}"
        raise _refusal(where, f"is {size}: write it to a file and return the path")
    return found.decode()


def stored(value: object, where: str, lost: Lost | None = None, forms: Forms | None = None) -> str:
    """`to_json` for what code is to be given again: an infinity, which it would get as None, is refused too."""
    lost = [] if lost is None else lost
    text = to_json(value, where=where, lost=lost, forms=forms)
    for place, number in lost:
        if not isnan(number):
            say = f"{_verb(place)} None where there is no limit, or a large number such as 1e308"
            raise _refusal(place, f"is {number}, which JSON has no number for: {say}")
    return text


def infinities_in(value: object, text: str, where: str = "result") -> list[str]:
    """The places in *value* of infinities, which are null in its *text* by `to_json`."""
    if "null" not in text or not _may_hold_infinity(value):
        return []
    lost: Lost = []
    to_json(value, where=where, lost=lost)
    return [place for place, number in lost if not isnan(number)]


def _may_hold_infinity(value: Any, infinite: float = inf) -> bool:
    left: list[Any] = [(value,)]
    for held in left:  # which grows
        for item in held.values() if type(held) is dict else held:
            kind = type(item)
            if kind is float:
                if item == infinite or item == -infinite:  # noqa: PLR1714 - a tuple takes longer
                    return True
            elif kind in _HOLD:
                left.append(item)
            elif kind not in _LEAVES:
                return True
    return False


# The way back, from text or UTF-8 bytes; `ValueError` for what is not JSON. Not wrapped: the coordinator's hot path.
from_json = orjson.loads


def canonical(text: str) -> bytes:
    """JSON *text* in the one way in which equal values are written."""
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS)


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


def _plain(value: Any, where: str, depth: int, lost: Lost | None, forms: Forms | None) -> object:
    """Copy *value* into plain dicts, lists and leaves. A conversion counts as one level of depth too."""
    if depth > MAX_DEPTH:
        raise _refusal(where, f"is nested deeper than {MAX_DEPTH} levels, or contains itself: flatten it")
    kind = type(value)
    if kind in _LEAVES:
        return _leaf(value, where, lost)
    if kind is dict:
        return _object(value, where, depth, lost, forms)
    if kind is list or kind is tuple:
        return [_plain(item, f"{where}[{index}]", depth + 1, lost, forms) for index, item in enumerate(value)]
    if kind is set or kind is frozenset:
        return _in_order([_plain(item, f"{where}[*]", depth + 1, lost, forms) for item in value])
    try:
        form = forms(kind) if forms else None
        simpler = form(value) if form else _simpler(value)
    except UnstorableValue as exc:
        if str(exc).endswith("."):  # whole sentences, with a remedy of their own
            raise UnstorableValue(f"{where}: {exc}") from None
        raise _refusal(where, f"{exc}: {_remedy(value, where)}") from None
    except Exception as exc:  # code of the value's own: a property, `model_dump`
        why = f"is of type {_type_name(value)}, and turning it into JSON failed with {type(exc).__name__}"
        raise _refusal(where, f"{why}: {exact(exc, 300)}: {_verb(where)} plain values instead") from exc
    return _plain(simpler, where, depth + 1, lost, forms)


def _verb(where: str) -> str:
    """What is done with a value of this name: parameters are given, results returned."""
    return "give" if where.startswith(("parameters", "metadata")) else "return"


def _remedy(value: object, where: str) -> str:
    verb, kind = _verb(where), type(value)
    if hasattr(kind, "get_secret_value"):
        return (
            f"what is stored is readable, so read a secret where it is used, from the environment, or {verb} it as text"
        )
    file = "a GeoPackage or GeoParquet file" if hasattr(kind, "iloc") and hasattr(kind, "to_crs") else "a file"
    if verb == "return" and kind.__name__ in _SAVED_WHOLE:
        return f"write it to {file} and return the path, or keep it by gf.save and return the reference"
    return f"write it to {file} and {verb} the path, or {verb} it as text, numbers, lists or dicts"


def _leaf(value: Any, where: str, lost: Lost | None = None) -> object:
    if type(value) is float:
        if isfinite(value):
            return value
        if lost is not None:
            lost.append((where, value))
        return None
    try:
        orjson.dumps(value)
    except TypeError:
        if type(value) is int:
            raise _refusal(where, f"is an integer of more than 64 bits: {_verb(where)} it as text") from None
        why = f"is text with a lone surrogate, {cut(repr(value), 80)}"
        raise _refusal(where, f"{why}: repair it with .encode('utf-8', 'replace').decode()") from None
    return value


def _object(value: dict[Any, Any], where: str, depth: int, lost: Lost | None, forms: Forms | None) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, item in value.items():
        text = _key(key, where, depth + 1, forms)
        if text in result:
            raise _refusal(where, f"has two keys that both become {text!r}: rename one of them")
        result[text] = _plain(item, f"{where}[{text!r}]", depth + 1, lost, forms)
    return result


def _key(key: Any, where: str, depth: int, forms: Forms | None) -> str:
    if type(key) is str and key.isascii():
        return key
    where = f"{where} has the key {exact(key, 80)}, which"
    plain = _plain(key, where, depth, None, forms)
    if isinstance(plain, list | dict):
        raise _refusal(where, f"is of type {_type_name(key)}: use str keys")
    return plain if isinstance(plain, str) else orjson.dumps(plain).decode()


def _in_order(items: list[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=orjson.dumps)


def _or_null(text: str) -> str | None:
    return None if text == "NaT" else text


_RULES: tuple[tuple[type | tuple[type, ...], Callable[[Any], object]], ...] = (
    (Enum, lambda value: value.value),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (dict, dict),
    ((list, tuple), list),
    ((set, frozenset), set),
    ((date, time), lambda value: _or_null(value.isoformat())),
    (timedelta, timedelta.total_seconds),
    ((PurePath, UUID, AnyUrl), str),
    (Decimal, lambda value: str(value) if value.is_finite() else nan if value.is_nan() else float(value)),
    (BaseModel, lambda value: value.model_dump()),
)


def _simpler(value: Any) -> object:
    """Bring *value* one rule nearer to JSON, or raise."""
    kind = type(value)
    for kinds, convert in _RULES:
        if issubclass(kind, kinds):
            return convert(value)
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if hasattr(kind, "__geo_interface__") and hasattr(kind, "iloc"):  # asked of its class: to make GeoJSON takes long
        raise UnstorableValue(f"is of type {_type_name(value)}, whose CRS and columns GeoJSON would lose")
    geo = getattr(value, "__geo_interface__", None)
    if isinstance(geo, dict):
        if "crs" not in geo and getattr(value, "crs", None) is not None:
            raise UnstorableValue(f"is of type {_type_name(value)}, whose CRS GeoJSON would lose")
        return geo
    if hasattr(kind, "dtype") and getattr(value, "ndim", None) == 0:
        return _array_scalar(value)
    if kind.__name__ == "NAType":
        return None
    raise UnstorableValue(f"is of type {_type_name(value)}, which has no JSON form")


def _array_scalar(value: Any) -> object:
    """The value of a numpy scalar, or of an array of no dimensions (numpy's, xarray's, a tensor)."""
    if hasattr(type(value), "mask") and value.mask:
        return None  # `item` would give whatever lies under the mask.
    match getattr(value.dtype, "kind", None):
        case "M":  # `item` would give bare nanoseconds here.
            return _or_null(str(value.__array__()[()]))
        case "m":
            span = value.__array__()[()]
            return float(span / type(span)(1, "s"))
        case "f":
            return float(value)  # `item` gives a longdouble back as it is.
    return value.item()


def _refusal(where: str, reason: str) -> UnstorableValue:
    return UnstorableValue(f"{cut(where, 200)} {reason}")


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
