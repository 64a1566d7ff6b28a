"""How much is tried: `dev` unless told, more with ``pytest --hypothesis-profile ci``, most with ``nightly``.

The profile is Hypothesis' own, and says how many examples it tries. Sweeps look at it too: in `dev` each of their
points is tried in one way, the ways taking turns; in the others each point is tried in every way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = {"dev": 15, "ci": 150, "nightly": 1_000}
T = TypeVar("T")

for name, number in EXAMPLES.items():
    settings.register_profile(
        name, max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
    )
settings.load_profile("dev")  # before pytest asks for another


def is_thorough(config: pytest.Config) -> bool:
    """Whether more than `dev` was asked for."""
    return (config.getoption("hypothesis_profile", None) or "dev") != "dev"


def a_share(of_examples: float) -> settings:
    """For a property whose every example is a whole job or more: so many of the profile's examples, at least five."""
    return settings(max_examples=max(round(settings().max_examples * of_examples), 5))


def turns(config: pytest.Config, ways: Sequence[T]) -> list[Sequence[T]]:
    """The values of a parameter of a sweep: all *ways*, to be taken in turns, or one at each point after the other."""
    return [[way] for way in ways] if is_thorough(config) else [ways]


def seldom(*values: object) -> Any:
    """Values of a parameter that the others stand for in `dev`."""
    return pytest.param(*values, marks=pytest.mark.thorough)


def stores(marker: pytest.Mark) -> list[Any]:
    """Those of a test that is marked `on_duckdb`, or ``on_duckdb(seldom=True)`` where it says little of a store."""
    marks = [pytest.mark.duckdb, *([pytest.mark.thorough] if marker.kwargs.get("seldom") else [])]
    return ["work.db", pytest.param("work.duckdb", marks=marks)]
