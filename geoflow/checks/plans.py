"""The trial of plans: asked once, asked again, for another job, of results in another order and of fewer."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from geoflow.checks.crossing import Log, marked, pairs
from geoflow.checks.outside import watching
from geoflow.checks.trying import Stop, Trial, missing, named
from geoflow.contract import normalise
from geoflow.errors import ContractViolationError
from geoflow.text import shorten
from geoflow.values import from_json, to_json
from geoflow.worker import MAX_TASK_ID, checked_plan


def plan_of(trial: Trial, stage: int, params: Any, job_id: str, results: Any) -> list[dict[str, Any]]:
    log = Log()
    made, failed = None, None
    with watching() as touched:
        try:
            made = _asked_plan(trial, stage, params, job_id, results, log)
        except Exception as exc:
            failed = exc
    for one in touched:
        trial.tell_touched("GF311", f"The plan of stage {stage}", one)
    if failed is not None:
        if (lacks := log.raised(failed)) is not None:
            trial.tell("GF328", f"The plan of stage {stage} reads {missing(*lacks)}", failed)
        else:
            told = f"The plan of stage {stage} raises {named(failed)}."
            trial.tell("GF329" if trial.whole else "GF902", told, failed)
        raise Stop
    tasks = _checked(trial, stage, made)
    if not tasks:
        if log.in_vain and results:
            trial.tell("GF328", f"The plan of stage {stage} makes no tasks, and reads {missing(*log.in_vain[0])}")
        elif trial.whole:
            trial.tell("GF326", f"Stage {stage} has no tasks with these parameters.")
        raise Stop
    _again(trial, stage, params, job_id, results, tasks)
    return tasks


def _checked(trial: Trial, stage: int, made: Any) -> list[dict[str, Any]]:
    known = tuple(trial.handlers)
    dicts = [task for task in made if isinstance(task, dict)] if isinstance(made, list) else []
    ids = [task.get("task_id") for task in dicts]
    for name, times in Counter(name for name in ids if isinstance(name, str)).items():
        if times > 1 or name in trial.ids:
            what = f"is there {times} times in stage {stage}" if times > 1 else f"of stage {stage} was in one before"
            trial.tell("GF321", f"The task_id {shorten(repr(name), 110)} {what}.")
            raise Stop
        if len(name) > MAX_TASK_ID:
            trial.tell("GF322", f"Stage {stage}: the task_id {shorten(repr(name), 60)} has {len(name)} characters.")
            raise Stop
        trial.ids.add(name)
    for task in dicts:
        kind = task.get("task_type")
        if isinstance(kind, str) and normalise(kind) not in known:
            trial.tell("GF112", f"A task of stage {stage} has the task_type {kind!r}; there are {', '.join(known)}.")
            raise Stop
        if isinstance(task.get("parameters"), dict):
            trial.as_json(task["parameters"], "parameters")
    try:
        texts = checked_plan(made, stage, known)
    except ContractViolationError as exc:
        trial.tell("GF320", str(exc))
        raise Stop from None
    return [
        {"task_id": name, "task_type": kind, "parameters": from_json(given)}
        for name, kind, given, _ in zip(*texts, strict=True)
    ]


def _again(trial: Trial, stage: int, params: Any, job_id: str, results: Any, tasks: list[dict[str, Any]]) -> None:
    """Ask for the same plan in other ways: twice, for another job, of results in another order, of fewer."""

    def other(results: Any, job_id: str = job_id) -> list[dict[str, Any]] | None:
        made = _asked_plan(trial, stage, params, job_id, results)
        return from_json(to_json(made)) if isinstance(made, list) else None

    def read(plan: list[dict[str, Any]] | None) -> list[str]:
        return [f"{task.get('task_id')} {task.get('parameters')}" for task in plan or ()]

    trial.let_clocks_go_on("create_tasks_for_stage")
    try:
        first, then = read(tasks), read(other(results))
        if first != then:
            one, two = next((pair for pair in zip(first, then, strict=False) if pair[0] != pair[1]), ("", ""))
            told = f"{shorten(one, 80)}, then {shorten(two, 80)}" if one else f"{len(first)} tasks, then {len(then)}"
            trial.tell("GF324", f"Asked twice, the plan of stage {stage} has {told}.")
            return
        ids = {task["task_id"] for task in tasks}
        if ids & {task.get("task_id") for task in other(results, "f" * 64) or ()}:
            trial.tell("GF327", f"Stage {stage}: {shorten(repr(tasks[0]['task_id']), 60)} is so in each job.")
    except Exception:  # another job's id, which a plan may refuse
        return
    if len(results or ()) < 2:
        return

    def put_together(results: list[Any]) -> set[tuple[Any, Any]]:
        return pairs(_asked_plan(trial, stage, marked(params), job_id, results), results)

    how = f"The plan of stage {stage} puts other results to the parameters of the job when"
    try:
        before = put_together(results)
        if put_together(results[::-1]) != before:
            trial.tell("GF325", f"{how} these come in another order.")
        elif put_together(results[1:]) - before:
            trial.tell("GF325", f"{how} one of these is missing.")
    except IndexError as exc:
        trial.tell("GF325", f"The plan of stage {stage} raises {named(exc)} when one result is missing.", exc)
    except Exception:  # to refuse what is not complete is a defence, and no defect
        return


def _asked_plan(trial: Trial, stage: int, params: Any, job_id: str, results: Any, log: Log | None = None) -> Any:
    given = log.of(results) if log else copy.deepcopy(results)
    return trial.call("method", "create_tasks_for_stage", stage, copy.deepcopy(params), job_id, given)
