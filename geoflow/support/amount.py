"""An amount of memory, as it is written: a number of bytes, or text such as ``"8GB"``."""

from __future__ import annotations

import re
from collections.abc import Callable
from numbers import Real
from typing import Annotated, Any

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from geoflow.support.text import shorten

# What programs call so by the SI, and what by powers of two.
_UNITS = {"k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS = {"": 1, **_UNITS, **{f"{unit}i": 1024**power for power, unit in enumerate(_UNITS, start=1)}}
_TEXT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)
# No process of Python has less: 8 is one that was meant to be "8GB".
LEAST = 1_000_000
MUST = "Input should be bytes, from a million on, or text such as '8GB' or '512MiB'"


def bytes_of(value: Any) -> int:
    """How many bytes *value* says; ``ValueError`` where it says none, or fewer than any process has."""
    if isinstance(value, str):
        found = _TEXT.fullmatch(value)
        unit = found and _UNITS.get(found[2].lower())
        number = float(found[1]) * unit if found and unit else None
    else:
        number = float(value) if is_number(value) else None
    if number is None or not LEAST <= number < 2**60:
        raise ValueError(f"{MUST} (got {shorten(repr(value), 60)})")
    return int(number)


def is_number(value: Any) -> bool:
    """Whether it is a real number, of numpy's too."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_amount(value: Any) -> bool:
    try:
        bytes_of(value)
    except ValueError:
        return False
    return True


def _checked(value: Any) -> Any:
    """In bytes; a function that tells it of an item stays one."""
    if value is None or callable(value):
        return value
    try:
        return bytes_of(value)
    except ValueError:
        raise PydanticCustomError("amount", MUST) from None


# What an option may be given as, which becomes bytes, or stays a function or None.
Amounts = Annotated[float | str | Callable[[Any], Any] | None, PlainValidator(_checked)]
