"""The trial of plans: asked once, asked again, for another job, of results in another order and of fewer."""

from __future__ import annotations

import copy
from typing import Any

from geoflow.core.chunks import Look
from geoflow.errors import ContractViolationError
from geoflow.jobtypes.answers import checked_plan
from geoflow.jobtypes.inputs import Inputs, looked_at, not_taken
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.text import shorten
from geoflow.tools.check.places import gives_credentials, lacking, leaves
from geoflow.tools.check.trial_state import PLAN, Stop, Trial, named
from geoflow.tools.check.values import asked, lacks, marked, pairs


def plan_of(trial: Trial, stage: int, params: Any, job_id: str, results: Any) -> list[dict[str, Any]]:
    """The tasks of a stage, told what is wrong with them; ``Stop`` where it cannot be made."""
    in_vain: list[str] = []
    who = f"The plan of stage {stage}"
    made, failed = trial.watched(who, PLAN, stage, copy.deepcopy(params), job_id, asked(results, in_vain))
    if failed is not None:
        if key := lacks(failed):
            raise trial.stop("GF328", f"{who} reads {key}", failed)
        code = "GF332" if stage == 1 and trial.are_given else "GF331" if trial.whole else "GF902"
        raise trial.stop(code, f"{who} raises {named(failed)}.", failed)
    tasks = _checked(trial, stage, made)
    if not tasks and in_vain and results:
        raise trial.stop("GF328", f"{who} makes no tasks, and reads {in_vain[0]}")
    if not tasks:
        if trial.whole:
            trial.tell("GF326", f"Stage {stage} has no tasks with these parameters.")
        raise Stop
    _inputs(trial, stage, tasks)
    _again(trial, stage, params, job_id, results, tasks)
    return tasks


def _inputs(trial: Trial, number: int, tasks: list[dict[str, Any]]) -> None:
    """What of the stage's declared inputs no task has, and what is none and may change unseen where it is reused."""
    stage = trial.stages[number - 1]
    if not stage.reuse and not stage.inputs:
        return
    look = Look(stage.inputs, ignored=not_taken(trial.handlers[stage.task_type]), strict=True)
    try:
        found = looked_at((to_json(task["parameters"]) for task in tasks), look)
    except ContractViolationError as exc:
        trial.tell(exc.code, f"Stage {number} ({stage.name}): {exc}")
        return
    names = sorted({name for text in found if text and (inputs := Inputs.of(text)) for name in inputs.unseen})
    if stage.reuse and names:
        trial.tell("GF124", f"Stage {number} ({stage.name}) is given {', '.join(names)}, which may change unseen.")


def _checked(trial: Trial, stage: int, made: Any) -> list[dict[str, Any]]:
    try:
        ids, types, texts, _ = checked_plan(made, stage, tuple(trial.handlers))
    except ContractViolationError as exc:
        raise trial.stop(exc.code, str(exc)) from None
    if twice := trial.ids.intersection(ids):
        raise trial.stop("GF321", f"The task_id {min(twice)!r} of stage {stage} was in one before.")
    trial.ids.update(ids)
    for task, name, kind in zip(made, ids, types, strict=True):
        texts_in_it = leaves(trial.as_json(task["parameters"], "parameters"))
        told = next(filter(None, map(lacking, texts_in_it)), None)
        if told and not gives_credentials(trial.handlers[kind]):
            trial.tell("GF128", f"The task {name} of stage {stage} is given an address in {told}")
    return [
        {"task_id": name, "task_type": kind, "parameters": from_json(text)}
        for name, kind, text in zip(ids, types, texts, strict=True)
    ]


def _again(trial: Trial, stage: int, params: Any, job_id: str, results: Any, tasks: list[dict[str, Any]]) -> None:
    """Ask for the same plan in other ways: twice, for another job, of results in another order, of fewer."""
    first = [_shown(task) for task in tasks]
    trial.let_clocks_go_on(PLAN)
    try:
        then = [_shown(task) for task in from_json(to_json(plan(trial, stage, params, job_id, results)))]
        if first != then:
            differ = [f"{task}, then {again}" for task, again in zip(first, then, strict=False) if task != again]
            numbers = f"{len(first)} tasks, then {len(then)}"
            trial.tell("GF324", f"Asked twice, the plan of stage {stage} has {(differ or [numbers])[0]}.")
            return
        ids = {task["task_id"] for task in plan(trial, stage, params, "f" * 64, results)}
        if same := ids.intersection(task["task_id"] for task in tasks):
            trial.tell("GF327", f"Stage {stage}: {shorten(min(same), 60)!r} is so in each job.")
    except Exception:  # another job's id, which a plan may refuse
        return
    if len(results or ()) > 1:
        _by_position(trial, stage, params, job_id, results)


def _shown(task: dict[str, Any]) -> str:
    return shorten(f"{task['task_id']} {task['parameters']}", 200)


def _by_position(trial: Trial, stage: int, params: Any, job_id: str, results: list[Any]) -> None:
    def put_together(results: list[Any]) -> set[tuple[Any, Any]]:
        return pairs(plan(trial, stage, marked(params), job_id, results), results)

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


def plan(trial: Trial, stage: int, params: Any, job_id: str, results: Any) -> Any:
    """The plan as the job type makes it, of copies."""
    return trial.call(PLAN, stage, copy.deepcopy(params), job_id, copy.deepcopy(results))


def branch_for(trial: Trial, fan_in: int, params: Any, job_id: str, results: Any) -> None:
    """Tell where a plan makes tasks for a fan_in, which it is never asked for, and none such for an unknown stage."""
    made = []
    for stage in (fan_in, len(trial.stages) + 1):
        try:
            tasks = plan(trial, stage, params, job_id, results) or []
            made.append([(task["task_type"], task["parameters"]) for task in tasks])
        except IndexError:  # it looks into its stages, and makes tasks for all alike
            return
        except Exception:  # it refuses, or reads what is not there
            made.append([])
    if made[0] and made[0] != made[1]:
        trial.tell("GF208", f"The plan makes tasks for stage {fan_in}, which is a fan_in.")
