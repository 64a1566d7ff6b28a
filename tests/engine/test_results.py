"""S39: reading earlier results, and what is said when something is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoflow.core.extractor import StageResultExtractor

extract = StageResultExtractor.extract
relaxed = settings(deadline=None)

RESULTS: list[dict[str, Any]] = [
    {"success": True, "result": {"items": [{"name": "a"}, {"name": "b"}], "none": None, "off": False, "empty": {}}},
    {"success": True, "result": {"items": [], "": {"": 3}, "7": "seven"}},
]

texts = st.text(max_size=4)


keys = texts.filter(lambda key: "." not in key)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)
results = st.lists(st.dictionaries(keys, trees, max_size=3), min_size=1, max_size=3)


def places(value: Any, path: str | None = None) -> Iterator[tuple[str, Any]]:
    """Every path in *value* with what lies there."""
    if path is not None:
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, str(key) if path is None else f"{path}.{key}")


def missing(previous_results: Any, **given: Any) -> str:
    """The message when it is required; and it is the default when it is not."""
    with pytest.raises(ValueError) as caught:
        extract(previous_results, **given)
    default = object()
    assert extract(previous_results, **given, default=default, required=False) is default
    assert extract(previous_results, **given, required=False) is None
    message = str(caught.value)
    assert "Look at what the previous stage's handler returns" in message
    assert f"task {given.get('task_index', 0)}" in message
    return message


# What is there


@pytest.mark.parametrize(
    ("task_index", "path", "value"),
    [
        (0, "success", True),
        (0, "result.items.0.name", "a"),
        (0, "result.items.1.name", "b"),
        (0, "result.items.1", {"name": "b"}),
        (0, "result.none", None),
        (0, "result.off", False),
        (0, "result.empty", {}),
        (1, "result.items", []),
        (1, "result.7", "seven"),
        (1, "result.", {"": 3}),
        (1, "result..", 3),
    ],
)
def test_S39_a_dotted_path_leads_through_keys_and_positions(task_index: int, path: str, value: object) -> None:
    assert extract(RESULTS, task_index, path) == value
    assert extract(RESULTS, task_index, path, default="not this", required=False) == value


def test_S39_without_a_path_it_is_the_whole_result_of_the_first_task_or_of_the_one_asked_for() -> None:
    assert extract(RESULTS) is RESULTS[0]
    assert extract(RESULTS, 1) is RESULTS[1]
    assert extract(previous_results=tuple(RESULTS), task_index=1) is RESULTS[1]


def test_S39_the_arguments_have_productions_names_and_order() -> None:
    by_name = extract(previous_results=RESULTS, task_index=0, result_path="x", default=5, required=False)
    assert by_name == extract(RESULTS, 0, "x", 5, False) == 5
    assert StageResultExtractor().extract(RESULTS, result_path="success") is True


@relaxed
@given(results, st.data())
def test_S39_every_value_is_found_at_its_path(previous_results: list[dict[str, Any]], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(previous_results) - 1))
    for path, value in places(previous_results[index]):
        assert extract(previous_results, index, path) is value


@relaxed
@given(results, st.lists(texts | st.sampled_from(["0", "1", "-1"]), min_size=1, max_size=4))
def test_S39_a_path_is_found_exactly_when_it_is_there(previous_results: list[dict[str, Any]], parts: list[str]) -> None:
    path = ".".join(parts)
    there = dict(places(previous_results[0]))
    if path in there:
        assert extract(previous_results, 0, path) is there[path]
    else:
        missing(previous_results, result_path=path)


# What is missing


@pytest.mark.parametrize("previous_results", [None, [], ()])
def test_S39_no_previous_results_are_missing(previous_results: Any) -> None:
    for path in (None, "result.name"):
        assert "there are no previous results" in missing(previous_results, result_path=path)


@pytest.mark.parametrize("task_index", [2, 99, -1, -2, 10**30])
def test_S39_a_task_that_is_not_there_is_missing_and_minus_one_is_not_the_last(task_index: int) -> None:
    message = missing(RESULTS, task_index=task_index)
    assert "the previous stage has results of 2 completed task(s), counted from 0" in message


def test_S39_the_message_names_path_part_place_keys_and_task() -> None:
    assert missing(RESULTS, task_index=1, result_path="result.stats.mean") == (
        "Cannot read 'result.stats.mean' of task 1: there is nothing at 'stats' in 'result', which has these keys: "
        "'items', '', '7'. Look at what the previous stage's handler returns, and at its tasks that did not complete."
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("results", "nothing at 'results' in the result, which has these keys: 'success', 'result'."),
        ("", "nothing at '' in the result"),
        ("result.", "nothing at '' in 'result'"),
        ("result.empty.x", "nothing at 'x' in 'result.empty', which has these keys: none."),
        ("result.items.2.name", "nothing at '2' in 'result.items', which is a list of 2, counted from 0"),
        ("result.items.name", "nothing at 'name' in 'result.items', which is a list of 2"),
        ("result.items.-1", "nothing at '-1' in 'result.items'"),
        ("result.items.0.name.x", "nothing at 'x' in 'result.items.0.name', which is of type str"),
        ("result.none.x", "nothing at 'x' in 'result.none', which is of type NoneType"),
    ],
)
def test_S39_the_message_says_at_which_part_the_path_broke(path: str, words: str) -> None:
    message = missing(RESULTS, result_path=path)
    assert words in message
    assert repr(path) in message


@pytest.mark.parametrize(("count", "tail"), [(20, ". Look"), (21, " and 1 more. Look"), (1000, " and 980 more. Look")])
def test_S39_the_first_twenty_keys_are_shown(count: int, tail: str) -> None:
    message = missing([{f"k{n}": n for n in range(count)}], result_path="x")
    assert re.findall(r"'k(\d+)'", message) == [str(n) for n in range(20)]
    assert f"'k19'{tail}" in message


@pytest.mark.parametrize("entry", [None, "text", 5, [1, 2]])
def test_S39_a_result_that_is_no_dict_is_given_whole_and_has_no_keys(entry: Any) -> None:
    assert extract([entry]) is entry
    assert "nothing at 'name' in the result" in missing([entry], result_path="name")
