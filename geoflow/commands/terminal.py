"""What the verbs found, for a terminal: as a document for machines, and as text of its width for people.

Everything that came from users or from a store is stripped of control characters and of secrets. In a document results
are as they are, since programs read them; so are they in the store and in DataFrames.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from geoflow.commands import verbs
from geoflow.commands.grammar import Request
from geoflow.support.masking import mask, unless_fallback
from geoflow.support.text import aligned, count, first_lines, human_duration, plain

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.job_handle import JobHandle
    from geoflow.session import Session
    from geoflow.views.model import JobView

_RESULT_LINES = 40
_KINDS = 12  # of failures, the largest
_ANY = 100_000  # columns
# What a handler returns is {"success": true, "result": …}: the second is shown, called as SQL and JSON call it.
_ENDED_AS = "error or $.result"
_LOGGED = ("time", "level", "task_id", "message")


def lines(found: Any, session: Session, request: Request) -> Iterable[str]:
    """What the verb *found*, as it is to be printed."""
    secrets = session.settings.secrets
    if request.json:
        return [json.dumps(document(found, secrets), indent=2, default=_in_json)]
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        width = _ANY if hasattr(found, "columns") else 160  # for a pipe or a file nothing need be cut
    if request.verb == "debug":
        return plain(json.dumps(mask(found, secrets), indent=2, default=repr)).splitlines() if found is not None else []
    if hasattr(found, "columns"):
        rows = records(found, secrets)
        if request.verb == "tasks":
            return _task_lines(mask(rows, secrets), width)
        if request.verb == "errors":
            return _error_lines(rows, verbs.status(session, request), request.traceback, width)
        return _table(_LOGGED if request.verb == "logs" else list(map(str, found.columns)), mask(rows, secrets), width)
    if hasattr(found, "lines"):
        return found.lines(width)  # type: ignore[no-any-return]
    jobs = found if isinstance(found, list) else [found]
    return [line for job in jobs for line in _job_text(job, request, width)] or ["No job is interrupted."]


# For machines


def document(found: Any, secrets: Sequence[str]) -> Any:
    """What a verb found, for JSON: a job, a list of jobs, or a list of rows. Secrets are masked, except in results."""
    if isinstance(found, list):
        return [_job(job, secrets) for job in found]
    if hasattr(found, "frame"):
        found = found.frame()
    if hasattr(found, "columns"):  # first: a frame has an attribute for each of its columns, whatever they are called
        return records(found, secrets)
    if hasattr(found, "document"):
        return found.document()
    return _job(found, secrets) if hasattr(found, "receipt") else found


def _job(job: JobHandle, secrets: Sequence[str]) -> dict[str, Any]:
    from geoflow.support.jsonable import from_json

    row, view = job.runtime.row(job.id), job.runtime.snapshot(job.id)
    return {
        "job_id": row.job_id,
        "job_type": row.job_type,
        "status": row.status,
        "state": view.state,
        "with_errors": view.with_errors,
        "driver": view.driver,
        "stage": row.stage,
        "total_stages": len(view.stages),
        "parameters": mask(job.parameters, secrets),
        "result": unless_fallback(from_json(row.result or "null"), secrets),
        "error": mask(row.error, secrets),
        **{name: _time(getattr(row, name)) for name in ("created_at", "started_at", "ended_at")},
        "duration": view.elapsed,
        "stages": records(job.stages(), secrets),
        "source": row.source,
        "receipt": job.receipt.model_dump(mode="json") if job.receipt else None,
    }


def _time(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def records(frame: pd.DataFrame, secrets: Sequence[str]) -> list[dict[str, Any]]:
    from geoflow.render.report import records as rows_of

    return [mask(row, secrets) | _result_of(row, secrets) for row in rows_of(frame)]


def _result_of(row: dict[str, Any], secrets: Sequence[str]) -> dict[str, Any]:
    return {"result": unless_fallback(row["result"], secrets)} if "result" in row else {}


def _in_json(value: datetime | timedelta) -> str | float:
    """Times as ISO 8601, durations in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value.isoformat()


# For people


def _job_text(job: JobHandle, request: Request, width: int) -> Iterator[str]:
    from geoflow.render.display import job_text
    from geoflow.support.jsonable import from_json

    row, view = job.runtime.row(job.id), job.runtime.snapshot(job.id)
    yield from job_text(replace(view, hint=None, result_preview=None), width).splitlines()
    if row.result and view.state == "completed":
        result = mask(from_json(row.result), job.runtime.settings.secrets)
        whole = plain(json.dumps(result, indent=2, ensure_ascii=False))
        shown = first_lines(whole, _RESULT_LINES, rest="; --json prints all.")
        yield from ("Result", *(f"  {line}" for line in shown.splitlines()))
    yield from _next(job, view, request)


def _next(job: JobHandle, view: JobView, request: Request) -> Iterator[str]:
    """What to type next. The type of a probe's job is known only where it was made: nothing goes on with it here."""
    from geoflow.jobtypes.contract import PROBE_OF

    if view.driver is None and view.state == "completed" and job.receipt is not None and job.receipt.stale:
        rerun = verbs.command(request, "rerun", job.runtime.row(job.id))
        yield f"Next: {rerun} --stale   # what ran with older code, and what follows"
    if view.driver is not None or view.state == "completed" or view.job_type.startswith(PROBE_OF):
        return
    verb, why = "resume", "go on with what has not completed"
    if view.with_errors:
        verb, why = "refinalize", "finalize alone, over the results that are there"
    elif view.failed:
        verb, why = "retry", f"{count(view.failed, 'failed task')} again, then on"
    yield f"Next: {verbs.command(request, verb, job.runtime.row(job.id))}   # {why}"


def _task_lines(rows: Sequence[dict[str, Any]], width: int) -> list[str]:
    for row in rows:
        returned = row["result"] or {}
        row[_ENDED_AS] = row["error"] or returned.get("result", returned)
    return _table(("stage", "task_id", "status", "attempts", "duration", _ENDED_AS), rows, width)


def _error_lines(rows: Sequence[dict[str, Any]], job: JobHandle, with_tracebacks: bool, width: int) -> Iterator[str]:
    from geoflow.views.failures import kinds

    view = job.runtime.snapshot(job.id)
    if view.error:
        yield plain(view.error)
    with job.runtime.store.reading() as connection:
        alike = [mask(kind._asdict(), job.runtime.settings.secrets) for kind in kinds(connection, job.id)]
    number = sum(kind["attempts"] for kind in alike)
    if number > len(alike):
        yield f"{count(number, 'attempt')} failed, in {count(len(alike), 'kind')}, each with its first task:"
        names = ("attempts", "tasks", "error_category", "error_type", "error", "task_id")
        yield from _table(names, alike[:_KINDS], width)
        if len(alike) > _KINDS:
            yield f"… and {count(len(alike) - _KINDS, 'kind')} more."
    if rows:
        if number > len(rows):
            yield f"The last {len(rows):,} of them; --limit {number} shows all."
        yield from _table(("task_id", "attempt", "error_category", "error_type", "error"), rows, width)
    elif not number:
        yield "No attempt failed."
    if with_tracebacks:
        yield from tracebacks(view, rows)


def tracebacks(view: JobView, rows: Sequence[dict[str, Any]]) -> list[str]:
    """The traceback of a job's plan or finalize, and those of its attempts, each once."""
    found = dict.fromkeys((view.traceback, *(row["traceback"] for row in rows)))
    return [plain(traceback) for traceback in found if traceback]


def _table(names: Sequence[str], rows: Sequence[dict[str, Any]], width: int) -> list[str]:
    ids = [place for place, name in enumerate(names) if name == "task_id"]
    heads = [f"{name} (UTC)" if any(isinstance(row[name], datetime) for row in rows) else name for name in names]
    cells = ([_cell(row[name]) for name in names] for row in rows)
    return aligned([heads, *cells], width, ends_differ=ids, longest=200 if width < _ANY else 4_000)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return human_duration(value.total_seconds())
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
