"""What becomes of values in JSON; dicts that tell which key they lack; what a plan puts together. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from geoflow.jobtypes.answers import shown


class Lacking(KeyError):
    """A key that an `Asked` does not have."""

    there = ""  # it, and which keys there are


class Asked(dict[str, Any]):
    """A dict of JSON that raises `Lacking`, and notes what ``get`` did not find."""

    in_vain: list[str]

    def __missing__(self, key: Any) -> Any:
        error = Lacking(key)
        error.there = self._lacks(key)
        raise error

    def get(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self.in_vain.append(self._lacks(key))
        return super().get(key, default)

    def _lacks(self, key: Any) -> str:
        there = ", ".join(repr(name) for name in list(self)[:10] if not name.startswith("_")) or "none"
        return f"{key!r} of a dict whose keys are {there}."


def asked(value: Any, in_vain: list[str]) -> Any:
    """A copy of the JSON *value* whose dicts are `Asked`."""
    if isinstance(value, dict):
        made = Asked({key: asked(item, in_vain) for key, item in value.items()})
        made.in_vain = in_vain
        return made
    return [asked(item, in_vain) for item in value] if isinstance(value, list) else value


def lacks(exc: BaseException | None) -> str | None:
    """The key that *exc*, or what caused it, is about, and the keys that were there; or None."""
    while exc is not None and not isinstance(exc, Lacking):
        exc = exc.__cause__ or exc.__context__
    return None if exc is None else exc.there


def changes(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """What of *value*, which has a JSON form, becomes something else in it: the code, and what it is."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield "GF307", f"the key {key!r} of {where} is {type(key).__name__}"
            yield from changes(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        if isinstance(value, tuple):
            yield "GF309", f"{where} is a tuple"
        for place, item in enumerate(value):
            yield from changes(item, f"{where}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield "GF307", f"{where} is {value}"
    elif not isinstance(value, str | int | float | None):
        yield "GF307", f"{where} is {shown(value)}"


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
    together: set[tuple[Any, Any]] = set()
    for task in plan:
        there = list(_leaves(task["parameters"]))
        of_job = [leaf for leaf in there if isinstance(leaf, _Text | _Whole)]
        others = of_results.intersection(leaf for leaf in there if not isinstance(leaf, _Text | _Whole))
        together |= set(itertools.product(of_job, others))
    return together


def _leaves(value: Any) -> Iterator[Any]:
    """All texts and numbers in *value*."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value
