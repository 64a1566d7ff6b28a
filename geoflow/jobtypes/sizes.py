"""How large the tasks of a plan are, and how much memory they need, as their stage says: noted in their metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

from geoflow.errors import ContractViolationError
from geoflow.support.amount import bytes_of, is_number
from geoflow.support.text import exact, human_bytes, shorten

# Where the metadata of a task say its size, of any unit, and the bytes that it needs.
SIZE, MEMORY = "size", "memory"


def with_sizes(job_class: Any, number: int, tasks: Any, budget: int | None = None) -> Any:
    """The *tasks* that *job_class* plans for its stage *number*, with what the stage says of each in its metadata.

    ``ContractViolationError`` where that is no size, and no amount of memory, or more than the *budget*, in bytes. What
    is no task is left to who checks it.
    """
    stages = getattr(job_class, "stages", ())
    stage = stages[number - 1] if number <= len(stages) else {}
    asked = {what: ask for what in (SIZE, MEMORY) if (ask := _asking(what, stage.get(what))) is not None}
    if not asked or not isinstance(tasks, list):
        return tasks
    return [_noted(task, asked, f"Stage {number}, task {index}", budget) for index, task in enumerate(tasks)]


def too_much(needs: int, budget: int) -> str:
    """Why a task that *needs* more than the *budget* cannot run, as the end of a sentence, and what to do."""
    return (
        f"{human_bytes(needs)} of memory by what memory= says, and there are {human_bytes(budget)} for all tasks (the "
        "setting memory): have it do less at a time, or run the job on a machine that has more."
    )


def _asking(what: str, how: Any) -> Callable[[dict[str, Any]], Any] | None:
    """What tells it of a task's parameters; None where nothing does, or it is the same for all."""
    if callable(how):
        asking: Callable[[dict[str, Any]], Any] = how
        return asking
    return (lambda parameters: parameters[how]) if what == SIZE and isinstance(how, str) else None


def _noted(task: Any, asked: Mapping[str, Callable[[dict[str, Any]], Any]], place: str, budget: int | None) -> Any:
    parameters = task.get("parameters") if isinstance(task, dict) else None
    metadata = task.get("metadata") or {} if isinstance(task, dict) else None
    if not isinstance(parameters, dict) or not isinstance(metadata, dict):
        return task
    place = f"{place} ({task.get('task_id')!r})"
    notes = {what: _told(what, ask, parameters, place) for what, ask in asked.items()}
    if budget is not None and (needs := int(notes.get(MEMORY, 0))) > budget:
        raise ContractViolationError(f"{place} needs {too_much(needs, budget)}")
    return {**task, "metadata": {**metadata, **notes}}


def _told(what: str, ask: Callable[[dict[str, Any]], Any], parameters: dict[str, Any], place: str) -> float:
    try:
        value = ask(parameters)
    except Exception as exc:  # the author's own function, or a name that is none
        why = f"{type(exc).__name__}: {exact(exc, 300)}"
        raise ContractViolationError(f"{place}: its {what} cannot be asked for: {why}.") from exc
    if what == MEMORY:
        try:
            return bytes_of(value)
        except ValueError as exc:
            raise ContractViolationError(f"{place}: what memory= gives is no amount. {exc}.") from None
    if not is_number(value) or not math.isfinite(value) or value < 0:
        must = "it must be a number from 0 on, of any unit"
        raise ContractViolationError(f"{place}: size= gives {shorten(repr(value), 60)}: {must}.")
    return int(value) if isinstance(value, Integral) else float(value)
