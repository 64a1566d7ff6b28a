"""In a process of its own: try a job type as the engine and as production would, and tell what came of it as JSON.

Nothing but lines of JSON go back, one for each finding and for each call that begins, so that the other side knows
where a process ended that did not live to tell.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import signal
from typing import Any

from geoflow.core.models import JobExecutionContext, Stage, TaskContext, TaskResult, TaskStatus
from geoflow.core.payloads import fan_in_parameters
from geoflow.core.rows import Results
from geoflow.errors import ContractViolationError
from geoflow.jobtypes.answers import attempted, shown
from geoflow.jobtypes.contract import accepts_context, task_id
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.text import exact, shorten
from geoflow.tools.check.ids import identity_of, parameters_of
from geoflow.tools.check.plans import branch_for, plan_of
from geoflow.tools.check.trial_state import FINALIZE, Stop, Trial, is_mistake, named, place_of
from geoflow.tools.check.values import asked, lacks
from geoflow.usercode.packing import Code, unpack

TO_TASKS = {"_correlation_id": "check", "_processing_path": "queue"}
MAX_MESSAGE = 256 * 1024
# What Python says where the context or a task result is taken for a dict, or for one with other fields.
_AS_DICT = re.compile(
    r"'JobExecutionContext' object (is not subscriptable|has no attribute)|'TaskResult' object has no attribute"
    r"|^tuple indices must be integers or slices, not str"
)


def main(
    path: str, job: Code, handlers: dict[str, Code], ask: str, environment: dict[str, str], seconds: float
) -> None:
    """What the process does: *ask* is JSON of stages, parameters, and how many tasks of each stage to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, seconds + 5)  # should there be nobody left who could end it
    os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(environment)
    for target in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), target)
    own, messages = os.getpid(), os.open(path, os.O_WRONLY | os.O_APPEND)

    def say(**message: Any) -> None:
        if os.getpid() != own:  # a handler forked, and its child returned as well
            os._exit(0)
        os.write(messages, json.dumps(message, default=exact).encode() + b"\n")

    say(doing=["class", ""])
    try:
        functions = {name: unpack(code) for name, code in handlers.items()}
        job_class = unpack(job)
    except Exception as exc:  # whatever importing a user's module raises
        what = f"It cannot be loaded in another process: {named(exc)}."
        say(code="GF118", what=what, at=["class", ""], place=place_of(exc))
    else:
        _run(Trial(job_class, functions, json.loads(ask), say))
    say(done=True)
    os._exit(0)  # neither threads nor exit handlers of user code are waited for


def _run(trial: Trial) -> None:
    try:
        params = parameters_of(trial)
        job_id = identity_of(trial, params)
    except Stop:
        return
    results: list[dict[str, Any]] | None = None
    try:
        for stage in trial.stages:
            results = _stage(trial, stage, params, job_id, results)
    except Stop:
        results = None
    if trial.asked["run"]:
        _finalize(trial, params, job_id, came_through=results is not None)


def _stage(
    trial: Trial, stage: Stage, params: Any, job_id: str, previous: list[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """The results of its tasks, or of the first of them."""
    number = stage.number
    if stage.is_fan_in:
        if not hasattr(trial.job, "flow_steps"):  # whose plan is geoflow's
            branch_for(trial, number, params, job_id, previous)
        trial.at = ["stage", str(number)]
        parameters = fan_in_parameters(stage.number, to_json(params), [Results(len(previous or ()), to_json(previous))])
        name = task_id(job_id, number, "fan_in_aggregate")
        tasks = [{"task_id": name, "task_type": stage.task_type, "parameters": from_json(parameters or "{}")}]
    else:
        tasks = plan_of(trial, number, params, job_id, previous)
    for task in tasks:
        if (size := len(json.dumps(task))) > MAX_MESSAGE:
            trial.tell("GF323", f"Stage {number}: the task {task['task_id']} is of {size // 1024:,} KB.")
    chosen = tasks[: trial.asked["run"]]
    trial.whole = trial.whole and len(chosen) == len(tasks)
    if not chosen:
        raise Stop
    for index, task in enumerate(chosen):
        name, kind = task["task_id"], task["task_type"]
        logger = logging.getLogger(f"geoflow.task.{kind}")
        context = TaskContext(job_id, trial.asked["job_type"], number, name, index, kind, 1, logger)
        result = _run_one(trial, task, context)
        trial.done.append(TaskResult(name, kind, TaskStatus.COMPLETED, result, None, 0.0))
    return [done.result_data for done in trial.done[-len(chosen) :]]


def _run_one(trial: Trial, task: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    kind, who = context.task_type, f"The handler of {context.task_type!r}"
    with_context = (context,) if accepts_context(trial.handlers[kind]) else ()

    def once(more: dict[str, Any]) -> tuple[Any, BaseException | None]:
        try:
            parameters = asked(copy.deepcopy(task["parameters"]) | more, [])
            return attempted(trial.call, kind, parameters, *with_context), None
        except (Exception, SystemExit) as exc:
            return None, exc

    returned, problem = once(TO_TASKS)
    answer = named(problem) if problem else shorten(exact(returned), 200)
    is_failure = problem is not None or (isinstance(returned, dict) and returned.get("success") is False)
    if is_failure and any(key in exact(problem or returned) for key in TO_TASKS):
        trial.tell("GF330", f"{who}, given these keys: {answer}.", problem)
        returned, problem = once({})
    if missing := lacks(problem):
        raise trial.stop("GF328", f"{who} reads {missing}", problem)
    if problem is not None:
        is_fan_in = "previous_results" in task["parameters"]
        code = "GF902" if is_fan_in and not trial.whole else "GF331"
        raise trial.stop(code, f"{who} raises {named(problem)} (task {context.task_id}).", problem)
    success = returned.get("success") if isinstance(returned, dict) else None
    if success is False:
        error = shorten(exact(returned.get("error") or "without an error"), 200)
        raise trial.stop("GF331", f"{who} fails: {error} (task {context.task_id}).")
    if success is not True:
        raise trial.stop("GF202", f"{who} returns {shown(returned)}.")
    return trial.as_json(returned, "result")  # type: ignore[no-any-return]


def _finalize(trial: Trial, params: dict[str, Any], job_id: str, came_through: bool) -> None:
    """With what was done, with one task failed, with none. Not all stages done: only what they would not change."""
    cases = [("With no tasks", "GF341", list[TaskResult]())]
    if trial.done:
        last = next(place for place, task in enumerate(trial.done) if task.task_type == trial.done[-1].task_type)
        failed = trial.done[last]._replace(status=TaskStatus.FAILED, result_data={}, error_details="it failed")
        cases.insert(0, ("With one task failed", "GF341", [*trial.done[:last], failed, *trial.done[last + 1 :]]))
        cases.insert(0, ("With its tasks completed", "GF340" if trial.whole else "GF902", trial.done))
    for how, usual, results in cases:
        try:
            trial.as_json(_finalized(trial, params, job_id, results), "result")
        except Stop:
            return
        except Exception as exc:
            if code := _code_of(exc) or (usual if came_through else None):
                trial.tell(code, f"{how} finalize raises {named(exc)}.", exc)
            if results is trial.done:
                return


def _code_of(exc: Exception) -> str | None:
    """The code of a mistake in finalize that can be told by what Python says of it."""
    if isinstance(exc, UnboundLocalError):
        return "GF207"
    if is_mistake(exc):
        return "GF333"
    is_mistaken = isinstance(exc, AttributeError | TypeError) and _AS_DICT.search(str(exc))
    return "GF205" if is_mistaken else None


def _finalized(trial: Trial, params: dict[str, Any], job_id: str, results: list[TaskResult]) -> Any:
    context = JobExecutionContext.model_construct(
        job_id=job_id,
        job_type=trial.asked["job_type"],
        current_stage=len(trial.stages),
        total_stages=len(trial.stages),
        parameters=copy.deepcopy(params),
        task_results=[result._replace(result_data=copy.deepcopy(result.result_data)) for result in results],
    )
    made = trial.call(FINALIZE, context)
    if not isinstance(made, dict):
        raise ContractViolationError(f"finalize_job must return a dict; it returned {shown(made)}")
    return made
