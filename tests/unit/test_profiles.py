"""How much the suite tries, by its profile: examples, ways of failing, stores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import settings

from tests.helpers import profiles


def asked_for(profile: str | None) -> pytest.Config:
    """A run of pytest to which *profile* was given."""
    return cast(pytest.Config, SimpleNamespace(getoption=lambda name, default=None: profile))


@pytest.mark.parametrize(("profile", "thorough"), [(None, False), ("dev", False), ("ci", True), ("nightly", True)])
def test_a_sweep_takes_its_ways_in_turns_by_default_and_each_at_every_point_where_more_is_tried(
    profile: str | None, thorough: bool
) -> None:
    config = asked_for(profile)
    assert profiles.turns(config, "abc") == ([["a"], ["b"], ["c"]] if thorough else ["abc"])
    assert profiles.is_thorough(config) == thorough


def test_hypothesis_tries_as_many_examples_as_the_profile_says(pytestconfig: pytest.Config) -> None:
    profile = pytestconfig.getoption("hypothesis_profile") or "dev"
    assert settings().max_examples == profiles.EXAMPLES[profile]
    assert profiles.a_share(0.01).max_examples == max(5, profiles.EXAMPLES[profile] // 100)
    assert settings().deadline is None, "a machine may be busy"


@pytest.mark.parametrize(
    ("options", "marks"), [({}, ["duckdb"]), ({"seldom": True}, ["duckdb", "thorough"])], ids=["always", "seldom"]
)
def test_what_is_marked_runs_on_both_stores_and_what_says_little_of_one_does_so_where_more_is_tried(
    options: dict[str, Any], marks: list[str]
) -> None:
    sqlite, duckdb = profiles.stores(pytest.mark.on_duckdb(**options).mark)
    assert sqlite == "work.db"
    assert duckdb.values == ("work.duckdb",)
    assert [mark.name for mark in duckdb.marks] == marks


@pytest.mark.thorough
def test_what_is_thorough_is_left_out_by_default(pytestconfig: pytest.Config) -> None:
    assert profiles.is_thorough(pytestconfig)
