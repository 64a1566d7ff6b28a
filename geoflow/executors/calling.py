"""What a chunk calls in a worker: the handler of its tasks, the plan of a stage, or finalize."""

from __future__ import annotations

import contextlib
import gc
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

from geoflow.core.batch import Call, named
from geoflow.core.chunks import Chunk, Look
from geoflow.core.models import (
    Failure,
    JobExecutionContext,
    PlanContext,
    TaskContext,
    TaskResult,
    TaskStatus,
    as_spoken_by,
)
from geoflow.core.payloads import fan_in_parameters, missing_in
from geoflow.core.rows import Results
from geoflow.errors import ContractViolationError
from geoflow.executors.loaded_code import Codes
from geoflow.jobtypes.answers import checked_plan, outcome, remark_on_infinities, shown
from geoflow.jobtypes.contract import has_parameter
from geoflow.jobtypes.inputs import looked_at
from geoflow.jobtypes.sizes import with_sizes
from geoflow.support import logs
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.parcel import IN_MEMORY, Spool, Texts
from geoflow.support.progress import progress


class _Context(TaskContext):
    """It tells of the progress that only a task which runs has."""

    __slots__ = ()

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        progress(done, total, text)


def caller(chunk: Chunk, codes: Codes) -> Callable[[Call], tuple[Any, Failure | None]]:
    """Load the code of *chunk*: what makes one of its calls, and gives its result, or the failure that was returned.

    The result of a plan is its ids, types and what files its tasks name, then the other columns or the file that has
    them.
    """
    target, takes_context = codes.get(chunk.code)
    if chunk.kind == "plan":
        return lambda call: (_plan(chunk, target, call.parameters), None)
    if chunk.kind == "finalize":
        return lambda call: (_finalize(chunk, target, call.parameters), None)
    task_type, attempt, limit = chunk.batch.task_type, chunk.batch.attempt, chunk.result_limit
    if not takes_context:
        return lambda call: outcome(target(call.parameters), task_type, limit)
    logger, alone = logs.logger_of(f"geoflow.task.{task_type}"), len(chunk.batch.keys) == 1

    def run_task(call: Call) -> tuple[str | None, Failure | None]:
        about = (chunk.job_id, chunk.job_type, chunk.stage, call.task_id, call.task_index, task_type, attempt, logger)
        missing = missing_in(call.parameters.get("aggregation_metadata")) if alone else ()
        return outcome(target(call.parameters, _Context(*about, missing)), task_type, limit)

    return run_task


_patient, _threshold = 0, gc.get_threshold()
_changing = threading.Lock()


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for garbage less often: plan and finalize hold dicts by the hundred thousand, and to look through them again
    and again takes more time than to make them."""
    global _patient, _threshold  # noqa: PLW0603 - the process has one collector, and perhaps threads that plan at once
    with _changing:
        if not _patient:
            _threshold = gc.get_threshold()
            gc.set_threshold(max(_threshold[0], 100_000) if _threshold[0] else 0, *_threshold[1:])
        _patient += 1
    try:
        yield
    finally:
        with _changing:
            _patient -= 1
            if not _patient:
                gc.set_threshold(*_threshold)


def _plan(chunk: Chunk, job_class: Any, argument: dict[str, Any]) -> tuple[Any, ...]:
    if chunk.look is not None and chunk.look.fan_in is not None:
        return _fan_in(chunk, chunk.look, argument)
    with _rare_collections():
        previous = argument["previous_results"] or []
        for text in chunk.texts:
            previous.extend(from_json(text or "[]"))
        make, asked = job_class.create_tasks_for_stage, {}
        if has_parameter(make, "context"):
            asked["context"] = PlanContext(chunk.job_id, chunk.job_type, chunk.stage, missing_in(argument))
        tasks = make(chunk.stage, argument["job_params"], chunk.job_id, previous or None, **asked)
        tasks = with_sizes(job_class, chunk.stage, tasks, chunk.budget)
        spool = Spool(chunk.answer) if chunk.answer is not None else None
        columns = checked_plan(tasks, chunk.stage, chunk.task_types, spool)
    return _with_inputs(chunk, spool, columns)


def _fan_in(chunk: Chunk, look: Look, argument: dict[str, Any]) -> tuple[Any, ...]:
    """The plan of a fan-in, which nobody is asked for: its files are to be looked at from here."""
    assert look.fan_in is not None
    unit, task_type, number = look.fan_in
    previous = [Results(len(from_json(text or "[]")), text or "[]") for text in chunk.texts]
    parameters = fan_in_parameters(number, to_json(argument["job_params"]), previous, missing_in(argument))
    if parameters is None:
        return [], [], (), [], []
    spool = Spool(chunk.answer) if chunk.answer is not None else None
    if spool is not None and len(parameters) > IN_MEMORY:
        spool.take([parameters, None])
    return _with_inputs(chunk, spool, ([unit], [task_type], [parameters], [None]))


def _with_inputs(chunk: Chunk, spool: Spool | None, columns: tuple[Any, ...]) -> tuple[Any, ...]:
    """The answer to a plan of these *columns*, whose texts *spool* may have: with what its tasks' files are like."""
    ids, types, *texts = columns
    parameters: Iterable[str | None] = texts[0]
    if spool is not None and spool.used:
        spool.close()
        parameters, texts = Texts(file=spool.path, of=2), [spool.path]
    return ids, types, looked_at(parameters, chunk.look) if chunk.look is not None else (), *texts


def _finalize(chunk: Chunk, job_class: Any, argument: dict[str, Any]) -> str:
    with _rare_collections():
        columns = ids, types, results, ended = argument.pop("task_results")
        errors: dict[int, str] = {}
        for text in chunk.texts:
            told = from_json(text or "[]")
            if len(told) > len(columns):  # there are failed ones among them
                errors |= {place: error for place, error in enumerate(told.pop(), len(ids)) if error is not None}
            for column, more in zip(columns, told, strict=True):
                column.extend(more)
        # Finalize comes when all tasks are complete, so that is what each of them is, but for those that were let pass.
        speaker = getattr(job_class, "flow_finalize", job_class.finalize_job)
        same = repeat(as_spoken_by(speaker, TaskStatus.COMPLETED), len(ids)), results, repeat(None, len(ids))
        if errors:  # nobody saw some of them end
            ended = [math.nan if microseconds is None else microseconds for microseconds in ended]
        times = [microseconds / 1e6 for microseconds in ended]
        task_results = named(TaskResult, ids, types, *same, times)
        if errors:
            failed = as_spoken_by(speaker, TaskStatus.FAILED)
            for place, error in errors.items():
                seen = None if math.isnan(times[place]) else times[place]
                task_results[place] = task_results[place]._replace(status=failed, error_details=error, ended_at=seen)
        context = JobExecutionContext.model_construct(**argument, task_results=task_results)
        result = job_class.finalize_job(context)
        if not isinstance(result, dict):
            raise ContractViolationError(f"finalize_job must return a dict; it returned {shown(result)}.")
        text = to_json(result)
        if remark := remark_on_infinities(result, text):
            logs.logger_of("geoflow.finalize").warning("finalize: %s", remark)
        return text
