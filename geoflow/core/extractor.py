"""Read a value out of the previous stage's results, or say exactly what was missing where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SHOWN_KEYS = 20


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
        dots, as in ``"result.items.0.name"``.

        What is missing (no results, no such task, no such key or position) raises `ValueError` when *required*, and
        gives *default* when not. A value that is there and is ``None`` is returned.
        """
        try:
            return _find(previous_results or (), task_index, result_path)
        except LookupError as missing:
            if not required:
                return default
            wanted = "the result" if result_path is None else repr(result_path)
            raise ValueError(
                f"Cannot read {wanted} of task {task_index}: {missing}. "
                "Look at what the previous stage's handler returns, and at its tasks that did not complete."
            ) from None


def _find(results: Sequence[Any], task_index: int, path: str | None) -> Any:
    if not results:
        raise LookupError("there are no previous results")
    if not 0 <= task_index < len(results):
        raise LookupError(f"the previous stage has results of {len(results)} completed task(s), counted from 0")
    value = results[task_index]
    parts = [] if path is None else path.split(".")
    for depth, part in enumerate(parts):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            place = repr(".".join(parts[:depth])) if depth else "the result"
            raise LookupError(f"there is nothing at {part!r} in {place}, which {_described(value)}")
    return value


def _described(value: Any) -> str:
    if isinstance(value, dict):
        keys = ", ".join(map(repr, list(value)[:_SHOWN_KEYS])) or "none"
        more = f" and {len(value) - _SHOWN_KEYS} more" if len(value) > _SHOWN_KEYS else ""
        return f"has these keys: {keys}{more}"
    if isinstance(value, list | tuple):
        return f"is a list of {len(value)}, counted from 0"
    return f"is of type {type(value).__name__}"
