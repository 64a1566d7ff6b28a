"""What plans, fan-ins and finalize are given, as JSON text put together from the store's own.

Results stay text on their way: parsing a hundred thousand of them here, only to write them again, would cost more
than the rest of the coordinator. Nor are they put together as one text, but for a fan-in, whose task has parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from geoflow.core.models import Category, Failure, MissingTask
from geoflow.core.rows import FailedRow, Results
from geoflow.support.jsonable import to_json


def plan_argument(job_parameters: str, missing: Sequence[FailedRow] = ()) -> str:
    """``job_params``, and ``previous_results`` without those that are told in texts of their own, which may be many.

    *missing* tasks of the stage before have no result.
    """
    told = f',"missing":{to_json(_missing(missing))}' if missing else ""
    return f'{{"job_params":{job_parameters},"previous_results":null{told}}}'


def _missing(failed: Sequence[FailedRow | MissingTask]) -> list[dict[str, Any]]:
    return [{"task_id": task.task_id, "task_index": task.task_index} for task in failed]


def missing_in(told: Any) -> tuple[MissingTask, ...]:
    """The tasks without a result, of what a plan is told, or a fan-in in its ``aggregation_metadata``."""
    missing = told.get("missing") if isinstance(told, dict) else None
    return tuple(MissingTask(task["task_id"], task["task_index"]) for task in missing or ())


def fan_in_parameters(
    number: int,
    job_parameters: str,
    previous: Iterable[Results],
    missing: Sequence[FailedRow | MissingTask] = (),
) -> str | None:
    """The parameters of the one task of a fan-in, stage *number*, or None when there is nothing to aggregate.

    For *missing* see `plan_argument`.
    """
    count, texts = 0, list[str]()
    for tasks, text in previous:
        count += tasks
        texts.append(text[1:-1])
    if not count:
        return None
    about: dict[str, Any] = {"stage": number, "previous_stage": number - 1, "result_count": count}
    about |= {"pattern": "fan_in"} | ({"missing": _missing(missing)} if missing else {})
    return (
        f'{{"previous_results":[{",".join(texts)}],"job_parameters":{job_parameters},'
        f'"aggregation_metadata":{to_json(about)}}}'
    )


def finalize_argument(job: Mapping[str, Any], job_parameters: str) -> str:
    """The fields of a `JobExecutionContext`, without the task results: they are columns in texts of their own."""
    return f'{to_json(job)[:-1]},"parameters":{job_parameters},"task_results":[[],[],[],[]]}}'


def is_fallback(result: Any) -> bool:
    """Whether *result* is what stands in for finalize's, which may say that word too."""
    told = isinstance(result, dict) and result.get("status") == "completed_with_errors"
    return told and result.get("fallback") is True


def fallback_result(job_type: str, failure: Failure, counts: Mapping[str, int]) -> dict[str, Any]:
    """The result of a job whose finalize failed: the tasks' results are all there, and it can be run again."""
    return {
        "job_type": job_type,
        "status": "completed_with_errors",
        "finalization_error": failure.error,
        "error_type": failure.error_type if failure.category != Category.CONTRACT else "ContractViolationError",
        "task_count": sum(counts.values()),
        "completed_tasks": counts.get("completed", 0),
        "failed_tasks": counts.get("failed", 0),
        "message": "finalize_job failed; all task results are kept. Mend it, then run it again with refinalize().",
        "fallback": True,
    }
