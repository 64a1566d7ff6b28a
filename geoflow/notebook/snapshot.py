"""Read from a store what can be seen of its jobs at one moment, with secrets masked.

The cost hardly grows with the tasks: states are counted in SQL, and few of the failures are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from geoflow.errors import JobNotFound
from geoflow.models import JobStatus
from geoflow.notebook.failures import groups
from geoflow.notebook.views import (
    READ,
    AttemptView,
    ErrorGroup,
    JobLine,
    JobView,
    StageView,
    aggregate,
    cell_width,
    shown,
)
from geoflow.stores.base import JobRow, StageRow, Store
from geoflow.text import DEFAULT_SECRETS, count, cut, human_bytes, mask, mask_text, shorten
from geoflow.values import from_json

__all__ = ["AttemptView", "ErrorGroup", "JobLine", "JobView", "StageView", "listing", "snapshot"]

# What stands in for finalize's result holds one error message; all that is longer is a result.
_LONGEST_FALLBACK = 4 * READ
_COLUMNS = (
    *("job_id", "job_type", "status", "stage", "total_stages", "tasks", "completed", "failed"),
    *("created_at", "started_at", "ended_at"),
)


def snapshot(store: Store, job_id: str, now: float, secrets: Iterable[str] = DEFAULT_SECRETS) -> JobView:
    """The job as *store* has it, with what looks like *secrets* masked. ``JobNotFound`` when there is none."""
    names = (secrets,) if isinstance(secrets, str) else tuple(secrets)
    row = store.job(job_id)
    if row is None:
        raise JobNotFound(f"{store.name} has no job {shorten(job_id, 64)!r}: session.jobs() lists those it has.")
    driver = store.driver(row.job_key)
    if driver is None:
        row = store.job(job_id) or row  # it may have ended since, and must not be taken for interrupted
    planned = {stage.stage: stage for stage in store.stages(row.job_key)}
    with store.reading() as connection:
        stages = tuple(
            _stage(connection, number, declared, planned, row)
            for number, declared in enumerate(from_json(row.stages), start=1)
        )
        errors, examined = groups(connection, [(planned[s.number], s.strip) for s in stages if "f" in s.strip], names)
    fallback = _fallback(row.result if row.status == JobStatus.COMPLETED else None)
    error = row.error
    if fallback:
        error = f"finalize_job failed: {fallback.get('error_type')}: {fallback.get('finalization_error')}"
    return JobView(
        job_id=row.job_id,
        job_type=row.job_type,
        status=str(row.status),
        with_errors=bool(fallback),
        parameters=_parameters(row.parameters, names),
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        now=now,
        stages=stages,
        errors=errors,
        examined=examined,
        error=cut(mask_text(error, names), 1000) if error else None,
        traceback=cut(mask_text(row.traceback, names), 2500) if row.traceback else None,
        result_preview=shown(row.result, 1500, names) if row.result and not fallback else None,
        hint=None if driver else _hint(row, fallback, sum(stage.counts.get("failed", 0) for stage in stages)),
        driver=driver,
    )


def listing(store: Store, now: float, limit: int = 50) -> tuple[JobLine, ...]:
    """The last *limit* jobs of *store*, newest first."""
    with store.reading() as connection:
        found = connection.execute(
            f"SELECT {', '.join(_COLUMNS)}, CASE WHEN status = 'completed' AND length(result) < ? THEN result END,"
            " job_key FROM jobs ORDER BY job_key DESC LIMIT ?",
            (_LONGEST_FALLBACK, limit),
        ).fetchall()
    return tuple(
        JobLine(
            **dict(zip(_COLUMNS, columns, strict=True)),
            now=now,
            with_errors=bool(_fallback(result)),
            driver=store.driver(job_key),
        )
        for *columns, result, job_key in found
    )


def _fallback(result: str | None) -> Mapping[str, Any]:
    """The result, when it is what stands in for finalize's."""
    if result is None or len(result) >= _LONGEST_FALLBACK or '"completed_with_errors"' not in result:
        return {}
    found = from_json(result)
    return found if isinstance(found, dict) and found.get("fallback") is True else {}


def _hint(job: JobRow, fallback: Mapping[str, Any], failed: int) -> str | None:
    match job.status:
        case JobStatus.COMPLETED:
            return "job.refinalize()  # finalize alone again; all task results are kept" if fallback else None
        case JobStatus.FAILED if failed:
            return f"job.retry_failed()  # runs {count(failed, 'failed task')} again, then goes on from there"
        case JobStatus.FAILED:
            return "job.resume()  # plans this stage again; what is completed stays"
        case JobStatus.CANCELLED:
            return "job.resume()  # runs what has not completed"
        case _:
            return "job.resume()  # nobody drives this job: it goes on where it stopped"


# The completed are not counted but what is left over: grouping them would take six times as long.
_STATES = (
    "SELECT (task_key - ?) - (task_key - ?) % ?, status, count(*) FROM tasks"
    " WHERE task_key >= ? AND task_key < ? AND status <> 'completed' GROUP BY 1, 2"
)


def _stage(
    connection: Any, number: int, declared: Mapping[str, Any], planned: Mapping[int, StageRow], job: JobRow
) -> StageView:
    name, task_type = str(declared.get("name")), str(declared.get("task_type"))
    about = (number, name, task_type, str(declared.get("parallelism") or "single"))
    stage, following = planned.get(number), planned.get(number + 1)
    if stage is None:
        return StageView(*about, False, 0, {}, None, None, "")
    first, width = stage.first_key, cell_width(stage.task_count)
    others = connection.execute(_STATES, (first, first, width, first, stage.end_key)).fetchall()
    counts, strip = aggregate(stage.task_count, others)
    ended_at = following.planned_at if following else job.ended_at
    return StageView(*about, True, stage.task_count, counts, stage.planned_at, ended_at, strip)


def _parameters(text: str, secrets: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    if len(text) >= READ:
        return (("parameters", f"{human_bytes(len(text))} of JSON: see job.parameters"),)
    masked = mask(from_json(text), secrets)
    shown = [(shorten(name, 60), shorten(json.dumps(value, ensure_ascii=False), 200)) for name, value in masked.items()]
    return tuple(shown[:20]) + ((("…", f"{len(shown) - 20} more"),) if len(shown) > 20 else ())
