"""What becomes of values in JSON; and dicts that remember which keys they were asked for in vain. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

MOST = 3


class Asked(dict[str, Any]):
    """A dict of JSON that remembers the `KeyError` that it raised, and the keys that ``get`` did not find."""

    def __init__(self, items: dict[str, Any], log: Log) -> None:
        super().__init__(items)
        self._log = log

    def __missing__(self, key: Any) -> Any:
        error = KeyError(key)
        self._log.missing.append((error, key, list(self)))
        raise error

    def get(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self._log.in_vain.append((key, list(self)))
        return super().get(key, default)

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        import copy

        return {key: copy.deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class Log:
    """What was asked of dicts in vain."""

    def __init__(self) -> None:
        self.missing: list[tuple[KeyError, Any, list[str]]] = []
        self.in_vain: list[tuple[Any, list[str]]] = []

    def of(self, value: Any) -> Any:
        """A copy of the JSON *value* that tells this log."""
        if isinstance(value, dict):
            return Asked({key: self.of(item) for key, item in value.items()}, self)
        return [self.of(item) for item in value] if isinstance(value, list) else value

    def raised(self, exc: BaseException | None) -> tuple[Any, list[str]] | None:
        """The key that *exc*, or what caused it, is about, and the keys that were there; or None."""
        while exc is not None:
            for error, key, keys in self.missing:
                if error is exc:
                    return key, keys
            exc = exc.__cause__ or exc.__context__
        return None


def changes(value: Any, where: str) -> tuple[list[str], list[str]]:
    """What of *value* becomes something else in JSON, and the tuples in it, which become lists; the first few."""
    hard: list[str] = []
    tuples: list[str] = []
    for place, what in _walked(value, where, 0):
        kept = tuples if what == "tuple" else hard
        if len(kept) < MOST:
            kept.append(f"{place} is {'a' if what[0] not in 'aeiouAEIOUN' else 'an' if what != 'NaN' else ''} {what}")
    return [text.replace("  ", " ") for text in hard], tuples


def _walked(value: Any, where: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > 50:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"the key {key!r} of {where}", type(key).__name__
            yield from _walked(item, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        if isinstance(value, tuple):
            yield where, "tuple"
        for place, item in enumerate(value):
            yield from _walked(item, f"{where}[{place}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield where, "NaN" if math.isnan(value) else "infinity"
    elif not isinstance(value, str | int | None):
        kind = type(value)
        yield where, kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


class _Text(str):
    """A text of the job's parameters, to be told from one of the results that is equal to it."""


class _Whole(int):
    """A whole number of the job's parameters."""


def marked(params: Any) -> Any:
    """A copy of the job's parameters whose texts and whole numbers are known again in a plan."""
    if isinstance(params, dict):
        return {key: marked(item) for key, item in params.items()}
    if isinstance(params, list):
        return [marked(item) for item in params]
    return _Text(params) if type(params) is str else _Whole(params) if type(params) is int else params


def pairs(plan: Any, results: list[Any]) -> set[tuple[Any, Any]]:
    """What of `marked` parameters stands in one task of *plan* with what of *results*: it is not to depend on places.

    Whole numbers among the results that may be places themselves do not count.
    """
    of_results = set(_leaves(results)) - set(range(len(results) + 2))
    found: set[tuple[Any, Any]] = set()
    for task in plan:
        there = list(_leaves(task["parameters"]))
        of_job = {leaf for leaf in there if isinstance(leaf, _Text | _Whole)}
        others = {leaf for leaf in there if not isinstance(leaf, _Text | _Whole)} & of_results
        found |= {(one, other) for one in of_job for other in others}
    return found


def _leaves(value: Any) -> Iterator[Any]:
    """All texts and numbers in *value*."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value
