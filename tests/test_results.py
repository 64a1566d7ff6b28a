"""S39: reading earlier results, and what is said when something is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geoflow.results import StageResultExtractor

extract = StageResultExtractor.extract
relaxed = settings(deadline=None)

RESULTS: list[dict[str, Any]] = [
    {"success": True, "result": {"items": [{"name": "a"}, {"name": "b"}], "none": None, "off": False, "empty": {}}},
    {"success": True, "result": {"items": [], "a.b": {"c.d": 1, "c": {"d": 2}}, "": {"": 3}, "7": "seven"}},
]

texts = st.text(max_size=4)
leaves = st.none() | st.booleans() | st.integers() | texts


def trees(keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=12,
    )


def results(keys: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.dictionaries(keys, trees(keys), max_size=3), min_size=1, max_size=3)


plain_keys = texts.filter(lambda key: "." not in key)
dotted_keys = st.text(alphabet="a.0", max_size=3)


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
        (1, "result.a.b", {"c.d": 1, "c": {"d": 2}}),
        (1, "result.a.b.c", {"d": 2}),
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
@given(results(plain_keys), st.data())
def test_S39_every_value_is_found_at_its_path(previous_results: list[dict[str, Any]], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(previous_results) - 1))
    for path, value in places(previous_results[index]):
        assert extract(previous_results, index, path) is value


@relaxed
@given(results(plain_keys), st.lists(texts | st.sampled_from(["0", "1", "-1", "00", "٣"]), min_size=1, max_size=4))
def test_S39_a_path_is_found_exactly_when_it_is_there(previous_results: list[dict[str, Any]], parts: list[str]) -> None:
    path = ".".join(parts)
    there = dict(places(previous_results[0]))
    if path in there:
        assert extract(previous_results, 0, path) is there[path]
    else:
        missing(previous_results, result_path=path)


# Keys with dots


def test_S39_a_plain_split_wins_over_keys_with_dots() -> None:
    assert extract([{"a.b": 1, "a": {"b": 2}}], result_path="a.b") == 2


def test_S39_of_keys_with_dots_the_longest_wins() -> None:
    value = {"a.b": {"c.d": "short first"}, "a.b.c": {"d": "long first"}, "a": {"x": 1}}
    assert extract([value], result_path="a.b.c.d") == "long first"


def test_S39_a_long_key_that_leads_nowhere_does_not_hide_a_shorter_one() -> None:
    value = {"a.b.c": {"x": 1}, "a.b": {"c": {"d": "here"}}, "a": 5}
    assert extract([value], result_path="a.b.c.d") == "here"


def test_S39_keys_with_dots_are_found_inside_lists_and_file_names_as_keys() -> None:
    value = {"files": [{"tile_0.0.tif": {"size": 9}}]}
    assert extract([value], result_path="files.0.tile_0.0.tif.size") == 9


@relaxed
@given(results(dotted_keys))
def test_S39_no_path_of_keys_with_dots_is_missing_and_what_is_found_lies_at_that_path(
    previous_results: list[dict[str, Any]],
) -> None:
    there = list(places(previous_results[0]))
    for path, _ in there:
        found = extract(previous_results, 0, path)
        assert any(found is value for other, value in there if other == path)


@relaxed
@given(results(dotted_keys), st.text(alphabet="a.0", max_size=6))
def test_S39_keys_with_dots_add_no_value_that_is_not_there(previous_results: list[dict[str, Any]], path: str) -> None:
    assume(path not in dict(places(previous_results[0])))
    missing(previous_results, result_path=path)


# What is missing


@pytest.mark.parametrize("previous_results", [None, [], ()])
def test_S39_no_previous_results_are_missing(previous_results: Any) -> None:
    for path in (None, "result.name"):
        assert "there are no previous results" in missing(previous_results, result_path=path)


@pytest.mark.parametrize("task_index", [2, 99, -1, -2, 10**30])
def test_S39_a_task_that_is_not_there_is_missing_and_minus_one_is_not_the_last(task_index: int) -> None:
    message = missing(RESULTS, task_index=task_index)
    assert message.startswith(f"Cannot read the result of task {task_index}: the previous stage has results of 2 ")
    assert "at its tasks that did not complete" in message
    assert "of 1 completed task," in missing(RESULTS[:1], task_index=task_index)


def test_S39_the_message_names_path_part_place_keys_and_task() -> None:
    assert missing(RESULTS, task_index=1, result_path="result.stats.mean") == (
        "Cannot read 'result.stats.mean' of task 1 of 2 completed tasks (counted from 0): there is no key 'stats' in "
        "'result', which has the keys 'items', 'a.b', '', '7'. Look at what the previous stage's handler returns."
    )


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("results", "there is no key 'results' in the result, which has the keys 'success', 'result'"),
        ("", "there is no key '' in the result"),
        (".", "there is no key '' in the result"),
        ("result.", "there is no key '' in 'result'"),
        ("result..x", "there is no key '' in 'result'"),
        ("result.empty.x", "there is no key 'x' in 'result.empty', which is an empty dict"),
        ("result.items.2", "there is no position '2' in 'result.items', a list of 2, with positions 0 to 1"),
        ("result.items.2.name", "there is no position '2' in 'result.items', a list of 2"),
        ("result.items.name", "there is no position 'name' in 'result.items', a list of 2"),
        ("result.items.-1", "there is no position '-1' in 'result.items'"),
        ("result.items.00", "there is no position '00' in 'result.items'"),
        ("result.items.+1", "there is no position '+1' in 'result.items'"),
        ("result.items.1_0", "there is no position '1_0' in 'result.items'"),
        ("result.items.١", "there is no position '١' in 'result.items'"),
        ("result.items.", "there is no position '' in 'result.items'"),
        ("result.items." + "9" * 5000, "there is no position '9999"),
        ("result.items.0.name.x", "'result.items.0.name' is of type str and has nothing at 'x'"),
        ("result.none.x", "'result.none' is null and has nothing at 'x'"),
        ("success.x", "'success' is of type bool and has nothing at 'x'"),
    ],
)
def test_S39_the_message_says_at_which_part_the_path_broke(path: str, words: str) -> None:
    message = missing(RESULTS, result_path=path)
    assert words in message
    assert repr(path) in message


def test_S39_an_empty_list_says_so() -> None:
    assert "'0' in 'result.items', which is an empty list" in missing(
        RESULTS, task_index=1, result_path="result.items.0"
    )


def test_S39_the_message_shows_the_place_where_the_path_got_furthest() -> None:
    value = {"a": {"x": 1}, "a.b": {"c.d": {"y": 1}}}
    message = missing([value], result_path="a.b.c.d.e.f")
    assert "there is no key 'e' in 'a.b.c.d', which has the keys 'y'" in message


@pytest.mark.parametrize(("count", "tail"), [(20, ". Look"), (21, " and 1 more. Look"), (1000, " and 980 more. Look")])
def test_S39_the_first_twenty_keys_are_shown(count: int, tail: str) -> None:
    message = missing([{f"k{n}": n for n in range(count)}], result_path="x")
    assert re.findall(r"'k(\d+)'", message) == [str(n) for n in range(20)]
    assert f"'k19'{tail}" in message


def test_S39_values_are_not_shown_and_long_keys_are_shortened() -> None:
    message = missing([{"k" * 5000: "s3cret", "token": "hunter2"}], result_path="token.x")
    assert "hunter2" not in message
    message = missing([{"k" * 5000: "s3cret", "token": "hunter2"}], result_path="x")
    assert "s3cret" not in message
    assert len(message) < 400


@pytest.mark.parametrize("entry", [None, "text", 5, [1, 2]])
def test_S39_a_result_that_is_no_dict_is_given_whole_and_has_no_keys(entry: Any) -> None:
    assert extract([entry]) is entry
    assert "the result" in missing([entry], result_path="name")


def test_S39_a_very_deep_or_long_path_ends_in_a_message() -> None:
    deep: Any = "end"
    for _ in range(5000):
        deep = [deep]
    assert extract([{"a": deep}], result_path="a" + ".0" * 5000) == "end"
    assert "has nothing at '0'" in missing([{"a": deep}], result_path="a" + ".0" * 5001)
    assert "there is no key 'x'" in missing(RESULTS, result_path="x" + ".x" * 50_000)


# What is wrong


@pytest.mark.parametrize("task_index", [True, False, "0", 0.0, None, [0]])
def test_S39_a_task_index_that_is_no_int_is_an_error_even_when_not_required(task_index: Any) -> None:
    for required in (True, False):
        with pytest.raises(TypeError, match="task_index must be an int, counted from 0, not "):
            extract(RESULTS, task_index, default=1, required=required)


@pytest.mark.parametrize("result_path", [0, ["result"], b"result", 1.5, True])
def test_S39_a_path_that_is_no_text_is_an_error_even_when_not_required(result_path: Any) -> None:
    for required in (True, False):
        with pytest.raises(TypeError, match="result_path must be text such as"):
            extract(RESULTS, 0, result_path, required=required)


@pytest.mark.parametrize("previous_results", [{"result": 1}, "text", 5, iter([{}]), {1}])
def test_S39_results_that_are_no_list_are_an_error_even_when_not_required(previous_results: Any) -> None:
    for required in (True, False):
        with pytest.raises(TypeError, match="previous_results must be the list that the plan or handler was given"):
            extract(previous_results, required=required)
