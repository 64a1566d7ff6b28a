"""Where two values that are JSON differ."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.tools.compare.differences import NOTHING, first_difference

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(JSON)
def test_S64_a_value_is_the_same_as_its_copy(value: Any) -> None:
    assert first_difference(value, copy.deepcopy(value)) is None


@given(JSON, JSON)
def test_S64_what_differs_does_so_both_ways_and_only_then(one: Any, other: Any) -> None:
    found, back = first_difference(one, other), first_difference(other, one)
    assert (found is None) == (back is None)
    if found is None:
        return
    assert json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)
    assert first_difference(found.a, found.b) is not None, "what stands there is not the same"


@pytest.mark.parametrize(
    ("one", "other", "path", "a", "b"),
    [
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, "a.b[1]", 2, 3),
        ([1], [1, 2], "[1]", NOTHING, 2),
        ({"x": 1}, {}, "x", 1, NOTHING),
        ({"x": None}, {}, "x", None, NOTHING),
        (1, True, "", 1, True),
        ("1", 1, "", "1", 1),
        ([], {}, "", [], {}),
        ({"b": 1, "a": 1}, {"a": 2, "b": 2}, "b", 1, 2),
    ],
)
def test_S64_the_first_place_is_named(one: Any, other: Any, path: str, a: Any, b: Any) -> None:
    assert first_difference(one, other) == (path, a, b)


def test_S64_numbers_are_the_same_within_the_tolerance() -> None:
    assert first_difference(1, 1.0) is None
    assert first_difference(100.0, 100.9, 0.01) is None
    assert first_difference(100.0, 102.0, 0.01) is not None
    assert first_difference(float("nan"), float("nan")) is None
    assert first_difference(float("nan"), 1.0, 0.5) is not None
    assert first_difference(10**400, 1.5, 0.1) is not None


def test_S64_what_was_saved_is_the_same_where_its_hash_is() -> None:
    saved = {"gf_saved": "npy", "path": "/a/1.npy", "bytes": 8, "sha256": "aa"}
    assert first_difference({"x": saved}, {"x": saved | {"path": "/b/2.npy"}}) is None
    found = first_difference({"x": saved}, {"x": saved | {"sha256": "bb"}})
    assert found is not None
    assert found.path == "x.sha256"


def test_S64_a_value_may_be_of_any_depth() -> None:
    deep: Any = 1
    other: Any = 2
    for _ in range(50_000):
        deep, other = [deep], [other]
    found = first_difference(deep, other)
    assert found is not None
    assert (found.a, found.b) == (1, 2)
