"""Read a value out of the previous stage's results, or say exactly what was missing where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN_KEYS = 20
_LOOK = "Look at what the previous stage's handler returns"


class StageResultExtractor:
    """For plans and fan-in handlers: reads the ``previous_results`` that they are given."""

    @staticmethod
    def extract(
        previous_results: Sequence[Any] | None,
        task_index: int = 0,
        result_path: str | None = None,
        default: Any = None,
        required: bool = True,
    ) -> Any:
        """Return one task's whole result, or the value at *result_path* in it.

        *previous_results* is the list of what the previous stage's handlers returned, of its completed tasks, in
        task order; *task_index* is a position in it, from 0. *result_path* is keys and list positions joined by
        dots, as in ``"result.items.0.name"``. Keys that contain dots are found too, the longest first, where
        splitting at every dot leads nowhere.

        What is missing (no results, no such task, no such key or position) raises `ValueError` when *required*, and
        gives *default* when not. A value that is there and is ``None`` is returned. Arguments of a wrong type raise
        `TypeError` either way.
        """
        _check_types(previous_results, task_index, result_path)
        try:
            return _find(previous_results or (), task_index, result_path)
        except _Missing as missing:
            if not required:
                return default
            raise ValueError(str(missing)) from None


class _Missing(Exception):
    """There is nothing at that place; the text is for the user."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A place on the way: the value reached, and what of the path is still to go (None at its end)."""

    value: Any
    rest: str | None


def _check_types(previous_results: object, task_index: object, result_path: object) -> None:
    if previous_results is not None and not isinstance(previous_results, list | tuple):
        kind = type(previous_results).__name__
        raise TypeError(f"previous_results must be the list that the plan or handler was given, not a {kind}")
    if isinstance(task_index, bool) or not isinstance(task_index, int):
        raise TypeError(f"task_index must be an int, counted from 0, not {_shown(task_index)}")
    if result_path is not None and not isinstance(result_path, str):
        raise TypeError(f"result_path must be text such as 'result.items.0.name', not {_shown(result_path)}")


def _find(results: Sequence[Any], task_index: int, path: str | None) -> Any:
    wanted = "the result" if path is None else repr(path)
    if not results:
        raise _Missing(
            f"Cannot read {wanted} of task {task_index}: there are no previous results. A first stage has none, and a "
            f"later one has none when no task of the stage before it completed. {_LOOK}, and at its tasks."
        )
    count = f"{len(results)} completed {'task' if len(results) == 1 else 'tasks'}"
    if not 0 <= task_index < len(results):
        raise _Missing(
            f"Cannot read {wanted} of task {task_index}: the previous stage has results of {count}, counted from 0. "
            f"{_LOOK}, and at its tasks that did not complete."
        )
    if path is None:
        return results[task_index]
    start = _Step(results[task_index], path)
    plain = _follow(start, _child_at_dot)
    if plain.rest is None:
        return plain.value
    literal = _follow(start, _children_with_dots)
    if literal.rest is None:
        return literal.value
    furthest = min(plain, literal, key=lambda step: len(step.rest or ""))
    raise _Missing(
        f"Cannot read {wanted} of task {task_index} of {count} (counted from 0): {_obstacle(path, furthest)}. {_LOOK}."
    )


def _follow(start: _Step, children: Callable[[_Step], list[_Step]]) -> _Step:
    """Go down until the path ends, trying children in order; else return the step that got furthest."""
    furthest = start
    todo = [start]
    while todo:
        step = todo.pop()
        if step.rest is None:
            return step
        if len(step.rest) < len(furthest.rest or ""):
            furthest = step
        todo += reversed(children(step))
    return furthest


def _child_at_dot(step: _Step) -> list[_Step]:
    part, dot, after = (step.rest or "").partition(".")
    rest = after if dot else None
    if isinstance(step.value, Mapping):
        return [_Step(step.value[part], rest)] if part in step.value else []
    if isinstance(step.value, list | tuple) and _is_position(part) and int(part) < len(step.value):
        return [_Step(step.value[int(part)], rest)]
    return []


def _children_with_dots(step: _Step) -> list[_Step]:
    if not isinstance(step.value, Mapping):
        return _child_at_dot(step)
    path = f"{step.rest}."
    keys = [key for key in step.value if isinstance(key, str) and path.startswith(f"{key}.")]
    return [
        _Step(step.value[key], None if key == step.rest else path[len(key) + 1 : -1])
        for key in sorted(keys, key=len, reverse=True)
    ]


def _is_position(part: str) -> bool:
    # Ten digits are more than any list has; int() refuses thousands.
    return part.isascii() and part.isdecimal() and len(part) <= 10 and (part == "0" or part[0] != "0")


def _obstacle(path: str, step: _Step) -> str:
    rest = step.rest or ""
    part = rest.partition(".")[0]
    done = path[: len(path) - len(rest) - 1] if len(rest) < len(path) else None
    place = "the result" if done is None else repr(done)
    if isinstance(step.value, Mapping):
        return f"there is no key {_shown(part)} in {place}, {_keys(step.value)}"
    if isinstance(step.value, list | tuple):
        count = len(step.value)
        length = "which is an empty list" if not count else f"a list of {count}, with positions 0 to {count - 1}"
        return f"there is no position {_shown(part)} in {place}, {length}"
    kind = "null" if step.value is None else f"of type {type(step.value).__name__}"
    return f"{place} is {kind} and has nothing at {_shown(part)}"


def _keys(value: Mapping[Any, Any]) -> str:
    if not value:
        return "which is an empty dict"
    shown = ", ".join(_shown(key) for key in list(value)[:_SHOWN_KEYS])
    more = len(value) - _SHOWN_KEYS
    return f"which has the keys {shown}" + (f" and {more} more" if more > 0 else "")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}"
