"""Where two values that are JSON are not the same: the first place, in the order of the first of them. Pure."""

from __future__ import annotations

from math import isclose, isnan
from typing import Any, NamedTuple

SAVED, HASH = "gf_saved", "sha256"  # of the reference of what `gf.save` was given: equal objects have equal hashes


class Missing:
    """What stands where only the other value has something."""

    def __repr__(self) -> str:
        return "(nothing)"


NOTHING = Missing()


class Difference(NamedTuple):
    """At this *path*, as ``result.bands[2].mean``, stand *a* and *b*; `NOTHING` is where one has no such place."""

    path: str
    a: Any
    b: Any


def first_difference(a: Any, b: Any, tolerance: float = 0.0) -> Difference | None:
    """The first place at which they differ; None where they are the same.

    Numbers are the same that differ by no more than *tolerance* times the larger of them; no number is NaN but NaN.
    """
    left: list[tuple[str, Any, Any]] = [("", a, b)]  # no recursion: a value may be of any depth
    while left:
        path, one, other = left.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if SAVED in one and one.get(SAVED) == other.get(SAVED) and HASH in one:
                one, other = ({HASH: each.get(HASH)} for each in (one, other))
            names = dict.fromkeys((*one, *other))
            inner = [(_joined(path, name), one.get(name, NOTHING), other.get(name, NOTHING)) for name in names]
        elif isinstance(one, list) and isinstance(other, list):
            longest = max(len(one), len(other))
            inner = [(f"{path}[{place}]", _at(one, place), _at(other, place)) for place in range(longest)]
        elif _same(one, other, tolerance):
            continue
        else:
            return Difference(path, one, other)
        left += reversed(inner)
    return None


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _at(values: list[Any], place: int) -> Any:
    return values[place] if place < len(values) else NOTHING


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, int | float) or not isinstance(b, int | float):
        return type(a) is type(b) and bool(a == b)
    try:
        return a == b or (isnan(a) and isnan(b)) or isclose(a, b, rel_tol=tolerance)
    except OverflowError:  # a whole number that is no float
        return False
