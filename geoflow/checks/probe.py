"""In a process of its own: try a job type as the engine and as production would, and tell what came of it as JSON.

Nothing but JSON goes back, one message for each finding and for each call that begins, so that the other side knows
where a process ended that did not live to tell.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from geoflow.checks.crossing import Log
from geoflow.checks.ids import identity_of, parameters_of
from geoflow.checks.plans import plan_of
from geoflow.checks.trying import Stop, Trial, missing, named, place_of, shown
from geoflow.contract import accepts_context, task_id
from geoflow.errors import ContractViolationError
from geoflow.models import JobExecutionContext, TaskContext, TaskResult, TaskStatus
from geoflow.text import exact, shorten
from geoflow.transport import Code, unpack

TO_TASKS = {"_correlation_id": "check", "_processing_path": "queue"}
MAX_MESSAGE = 256 * 1024


def main(
    writer: Connection, job: Code, handlers: dict[str, Code], ask: str, environment: dict[str, str], seconds: float
) -> None:
    """What the process does: *ask* is JSON of stages, parameters, and how many tasks of each stage to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, seconds + 5)  # should there be nobody left who could end it
    os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    for target, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        os.dup2(os.open(os.devnull, mode), target)
    sys.stdin, sys.stdout, sys.stderr = (open(target, mode) for target, mode in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115

    own = os.getpid()

    def say(**message: Any) -> None:
        if os.getpid() != own:  # a handler forked, and its child returned as well
            os._exit(0)
        writer.send_bytes(json.dumps(message, default=exact).encode(errors="backslashreplace"))

    say(doing=["class", ""])
    try:
        functions = {name: unpack(code) for name, code in handlers.items()}
        job_class = unpack(job)
    except Exception as exc:  # whatever importing a user's module raises
        told = f"It cannot be loaded in another process: {named(exc)}."
        say(code="GF118", what=told, at=["class", ""], place=place_of(exc))
    else:
        try:
            _run(Trial(job_class, functions, json.loads(ask), say))
        except Exception as exc:
            say(broken=named(exc))
    say(done=True)
    os._exit(0)  # neither threads nor exit handlers of user code are waited for


def _run(trial: Trial) -> None:
    try:
        params = parameters_of(trial)
        job_id = identity_of(trial, params)
        _stages_of(trial, params, job_id)
        _finalize(trial, params, job_id)
    except Stop:
        return


def _stages_of(trial: Trial, params: dict[str, Any], job_id: str) -> None:
    results: list[dict[str, Any]] | None = None
    for stage in trial.stages:
        if stage["parallelism"] == "fan_in":
            tasks = [_fan_in(trial, stage, params, job_id, results or [])]
        else:
            tasks = plan_of(trial, stage["number"], params, job_id, results)
        for task in tasks:
            if len(json.dumps(task)) > MAX_MESSAGE:
                size = len(json.dumps(task)) // 1024
                trial.tell("GF323", f"Stage {stage['number']}: the task {task['task_id']} is of {size:,} KB.")
        results = _run_tasks(trial, stage, tasks, job_id)


def _fan_in(trial: Trial, stage: dict[str, Any], params: Any, job_id: str, results: list[Any]) -> dict[str, Any]:
    number = stage["number"]
    about = {"stage": number, "previous_stage": number - 1, "result_count": len(results), "pattern": "fan_in"}
    given = {"previous_results": results, "job_parameters": params, "aggregation_metadata": about}
    name = task_id(job_id, number, "fan_in_aggregate")
    trial.at = ["stage", str(number)]
    return {"task_id": name, "task_type": stage["task_type"], "parameters": given}


def _run_tasks(trial: Trial, stage: dict[str, Any], tasks: list[dict[str, Any]], job_id: str) -> list[dict[str, Any]]:
    chosen = tasks[: trial.asked["run"]]
    trial.whole = trial.whole and len(chosen) == len(tasks)
    results = []
    for index, task in enumerate(chosen):
        name, kind = task["task_id"], task["task_type"]
        logger = logging.getLogger(f"geoflow.task.{kind}")
        context = TaskContext(job_id, trial.asked["job_type"], stage["number"], name, index, kind, 1, logger)
        result = _run_one(trial, kind, task, context)
        results.append(result)
        trial.done.append(TaskResult(name, kind, TaskStatus.COMPLETED, result, None, 0.0))
    if not results:
        raise Stop
    return results


def _run_one(trial: Trial, kind: str, task: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    with_context = (context,) if accepts_context(trial.handlers[kind]) else ()
    log = Log()

    def once(more: dict[str, Any]) -> tuple[Any, BaseException | None]:
        given = log.of(copy.deepcopy(task["parameters"]) | more)
        try:
            return trial.call("handler", kind, given, *with_context), None
        except (Exception, SystemExit) as exc:
            return None, exc

    returned, problem = once(TO_TASKS)
    told = named(problem) if problem else shorten(exact(returned), 200)
    is_failure = problem is not None or (isinstance(returned, dict) and returned.get("success") is False)
    if is_failure and any(key in exact(problem or returned) for key in TO_TASKS):
        trial.tell("GF330", f"The handler of {kind!r}, given these keys: {told}.", problem)
        returned, problem = once({})
    if problem is not None:
        fan_in = task["parameters"] if "previous_results" in task["parameters"] else None
        if (lacks := log.raised(problem)) is not None:
            key, keys = lacks[0], [key for key in lacks[1] if key not in TO_TASKS]
            of_results = fan_in and set(keys) != set(fan_in["job_parameters"])
            told = f"The handler of {kind!r} reads {missing(key, keys)}"
            trial.tell("GF328" if of_results else "GF332", told, problem)
        else:
            code = "GF902" if fan_in and not trial.whole else "GF331"
            trial.tell(code, f"The handler of {kind!r} raises {named(problem)} (task {task['task_id']}).", problem)
        raise Stop
    success = returned.get("success") if isinstance(returned, dict) else None
    if success is False:
        error = returned.get("error")
        told = shorten(exact(error), 200) if error else "without an error"
        trial.tell("GF331" if error else "GF203", f"The handler of {kind!r} fails: {told} (task {task['task_id']}).")
        raise Stop
    if success is not True:
        trial.tell("GF202", f"The handler of {kind!r} returns {shown(returned)}.")
        raise Stop
    return trial.as_json(returned, "result")  # type: ignore[no-any-return]


def _finalize(trial: Trial, params: dict[str, Any], job_id: str) -> None:
    try:
        trial.as_json(_finalized(trial, params, job_id, trial.done), "result")
    except Exception as exc:
        if isinstance(exc, Stop):
            raise
        code = "GF207" if isinstance(exc, UnboundLocalError) else "GF340" if trial.whole else "GF902"
        trial.tell(code, f"With all tasks completed it raises {named(exc)}.", exc)
        return
    last = next(place for place, one in enumerate(trial.done) if one.task_type == trial.done[-1].task_type)
    failed = trial.done[last]._replace(status=TaskStatus.FAILED, result_data={}, error_details="it failed")
    one_failed = [*trial.done[:last], failed, *trial.done[last + 1 :]]
    for usual, results, how in (("GF341", one_failed, "With one task failed"), ("GF342", [], "With no tasks")):
        try:
            _finalized(trial, params, job_id, results)
        except Exception as exc:
            code = "GF207" if isinstance(exc, UnboundLocalError) else usual
            trial.tell(code, f"{how} it raises {named(exc)}.", exc)


def _finalized(trial: Trial, params: dict[str, Any], job_id: str, results: list[TaskResult]) -> Any:
    told = [result._replace(result_data=copy.deepcopy(result.result_data)) for result in results]
    context = JobExecutionContext.model_construct(
        job_id=job_id,
        job_type=trial.asked["job_type"],
        current_stage=len(trial.stages),
        total_stages=len(trial.stages),
        parameters=copy.deepcopy(params),
        task_results=told,
    )
    made = trial.call("method", "finalize_job", context)
    if not isinstance(made, dict):
        raise ContractViolationError(f"finalize_job must return a dict; it returned {shown(made)}")
    return made
