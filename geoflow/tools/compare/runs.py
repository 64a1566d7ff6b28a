"""One run of a job, as it is compared with another: its tasks, its stages, the code and the files that these had."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from geoflow.core.rows import JobRow, StageRow
from geoflow.engine.runtime import Runtime
from geoflow.errors import ParameterError
from geoflow.jobtypes.inputs import Inputs
from geoflow.stores import questions
from geoflow.support.jsonable import from_json
from geoflow.support.text import shorten
from geoflow.views import frames
from geoflow.views.rows import at_once

if TYPE_CHECKING:
    import pandas as pd

# What tells one task of a stage from another, in this order where nobody says what does.
WAYS = ("key", "parameters", "place")


class Run(NamedTuple):
    """A job's tasks and attempts, with the parameters that it has, by their paths the files that tasks had, and by its
    fingerprint the text of code."""

    name: str
    row: JobRow
    parameters: dict[str, Any]
    tasks: pd.DataFrame
    attempts: pd.DataFrame
    files: dict[str, str]
    sources: dict[str, str]

    def by(self, on: str) -> dict[tuple[str, str], int] | None:
        """The rows of the tasks by their stage's name and by what tells them apart; None where that does not."""
        stages, told = self.tasks["stage_name"].tolist(), list(_TOLD.get(on, _by_value(on))(self))
        found = {
            (str(stage), each): place
            for place, (stage, each) in enumerate(zip(stages, told, strict=True))
            if each is not None
        }
        return found if len(found) == len(stages) - told.count(None) else None


def _by_key(run: Run) -> Iterable[str]:
    # As `frames.with_key` has it: without what says of which job.
    return (str(task_id).removeprefix(f"{run.row.job_id[:8]}-") for task_id in run.tasks["task_id"].tolist())


def _by_parameters(run: Run) -> Iterable[str]:
    return (json.dumps(value, sort_keys=True) for value in run.tasks["parameters"].tolist())


def _by_place(run: Run) -> Iterable[str]:
    return map(str, run.tasks["task_index"].tolist())


_TOLD: dict[str, Callable[[Run], Iterable[str | None]]] = {
    "key": _by_key,
    "parameters": _by_parameters,
    "place": _by_place,
}


def _by_value(name: str) -> Callable[[Run], Iterable[str | None]]:
    """By the parameter *name*, or the field of that name of a parameter, as of the item of a typed stage."""

    def told(parameters: Any) -> str | None:
        if not isinstance(parameters, dict):
            return None
        for held in (parameters, *(value for value in parameters.values() if isinstance(value, dict))):
            if name in held:
                return json.dumps(held[name], sort_keys=True)
        return None

    return lambda run: map(told, run.tasks["parameters"].tolist())


def run_of(runtime: Runtime, job_id: str, *, before: bool = False, name: str | None = None) -> Run:
    """The job as it is now, or as it was *before* a rerun or an update set its plans aside last."""
    row, store = runtime.row(job_id), runtime.store
    with at_once(store) as connection:
        plans = questions.plans(connection, row.job_id, history=True)
    if before and not any(plan.superseded for plan in plans):
        raise ParameterError(
            f"Job {row.job_id[:8]} has run once, so there is no earlier run to compare it with: name another job."
        )
    now, aside = ({plan.stage: plan for plan in plans if plan.superseded == was} for was in (False, True))
    # Before: of each stage the plan that was set aside last, and where none was, the one that counts.
    chosen = sorted((now | aside if before else now).values(), key=lambda plan: plan.first)
    tasks, attempts = frames.of_plans(store, row.job_id, chosen)
    files = dict[str, str]()
    for plan in chosen:
        stage = StageRow(0, plan.stage, plan.first, plan.last - plan.first + 1, 0.0)
        for inputs in filter(None, map(Inputs.of, store.inputs(stage))):
            files |= {path: state.partition(" ")[0] for path, state in {**inputs.declared, **inputs.found}.items()}
    sources = store.sources(tasks["code"].dropna().unique().tolist())
    shown = name or f"{shorten(row.job_type, 40)} {row.job_id[:8]}"
    return Run(shown, row, from_json(row.parameters), tasks, attempts, files, sources)
