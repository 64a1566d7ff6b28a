"""What the verbs found, for a terminal: as a document for machines, and as text of its width for people.

Everything that came from users or from a store is stripped of control characters and of secrets. In a document results
are as they are, since programs read them; so are they in the store and in DataFrames.
"""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from geoflow import verbs
from geoflow.text import count, exact, human_duration, mask, mask_text, plain, shorten

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.handle import JobHandle
    from geoflow.notebook.views import JobView
    from geoflow.session import Session
    from geoflow.stores.base import JobRow

_RESULT_LINES = 40
_JOBS_SHOWN = 50
# In columns: how wide one of a table may be, and what its last has at least.
_WIDEST = 30
_LAST = 20


def lines(found: Any, session: Session, args: argparse.Namespace) -> Iterable[str]:
    """What the verb *found*, as it is to be printed."""
    if args.json:
        return [json.dumps(document(found, session.settings.secrets), indent=2, default=_plain_value)]
    width = shutil.get_terminal_size().columns
    if args.verb == "jobs":
        return _job_lines(session, args, width)
    if args.verb == "tasks":
        return _task_lines(found, session, args, width)
    if args.verb == "errors":
        return _error_lines(found, verbs.named(session, args), args, width)
    if isinstance(found, list):
        return [line for job in found for line in (*_job_text(job, args, width), "")] or ["No job is interrupted."]
    return _job_text(found, args, width)


# For machines


def document(found: Any, secrets: Sequence[str]) -> Any:
    """What a verb found, for JSON: a job, a list of jobs, or a list of rows. Secrets are masked, except in results."""
    if isinstance(found, list):
        return [document(job, secrets) for job in found]
    return _job(found, secrets) if hasattr(found, "receipt") else _rows(found, secrets)


def _job(job: JobHandle, secrets: Sequence[str]) -> dict[str, Any]:
    from geoflow.values import from_json

    store, row, view = job._session.store, job._row(), job._session._snapshot(job.id)
    at = {name: _time(getattr(row, name)) for name in ("created_at", "started_at", "ended_at")}
    stages = [
        {
            "stage": stage.number,
            "stage_name": stage.name,
            "task_type": stage.task_type,
            "parallelism": stage.parallelism,
            "planned": stage.planned,
            "tasks": stage.tasks,
            **{state: stage.counts.get(state, 0) for state in verbs.STATES},
        }
        for stage in view.stages
    ]
    return {
        "job_id": row.job_id,
        "job_type": row.job_type,
        "status": row.status,
        "state": view.state,
        "with_errors": view.with_errors,
        "driver": store.driver(row.job_key),
        "stage": row.stage,
        "total_stages": len(stages),
        "parameters": mask(from_json(row.parameters), secrets),
        "result": from_json(row.result) if row.result else None,
        "error": mask_text(row.error, secrets) if row.error else None,
        **at,
        "duration": view.elapsed,
        "stages": stages,
        "source": row.source,
        "receipt": job.receipt.model_dump(mode="json") if job.receipt else None,
    }


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


def _rows(frame: pd.DataFrame, secrets: Sequence[str]) -> list[dict[str, Any]]:
    names = [str(name) for name in frame.columns]
    results = [name for name in names if name.startswith("result")]
    values = frame.astype(object).where(frame.notna(), None)
    rows = [dict(zip(names, row, strict=True)) for row in values.itertuples(index=False, name=None)]
    return [{**mask(row, secrets), **{name: row[name] for name in results}} for row in rows]


def _plain_value(value: Any) -> Any:
    """Times as ISO 8601, durations in seconds."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else exact(value)


# For people


def _job_text(job: JobHandle, args: argparse.Namespace, width: int) -> Iterator[str]:
    from geoflow.notebook.display import job_text

    row, view = job._row(), job._session._snapshot(job.id)
    if job.receipt is not None and job.receipt.idempotent and args.on_existing == "return":
        yield from _wrapped(
            f"Job {row.job_id[:8]} was submitted before, and is {view.state}. Nothing of it ran now; "
            "with --on-existing rerun all of it runs again.",
            width,
            0,
        )
    yield from job_text(replace(view, hint=None, result_preview=None), width).splitlines()
    if row.status == "completed" and row.result and not view.with_errors:
        yield "Result"
        yield from _result(row.result, job._session.settings.secrets, width)
    yield from _next(view, row, args)


def _result(result: str, secrets: Sequence[str], width: int) -> Iterator[str]:
    from geoflow.notebook.words import fit
    from geoflow.values import from_json

    lines = json.dumps(mask(from_json(result), secrets), indent=2, ensure_ascii=False).splitlines()
    yield from (fit("  " + plain(line), width) for line in lines[:_RESULT_LINES])
    if len(lines) > _RESULT_LINES:
        yield f"  … {count(len(lines) - _RESULT_LINES, 'more line')}; --json prints all."


def _next(view: JobView, row: JobRow, args: argparse.Namespace) -> Iterator[str]:
    """What to type next."""
    if view.driver is not None or (view.status == "completed" and not view.with_errors):
        return
    if view.failed and args.verb != "errors":
        yield f"Next: {verbs.command(args, 'errors', row)}   # what failed, and why"
    if view.with_errors:
        yield f"Next: {verbs.command(args, 'refinalize', row)}   # finalize alone, over the results that are there"
    elif view.failed:
        yield f"Next: {verbs.command(args, 'retry', row)}   # {count(view.failed, 'failed task')} again, then on"
    else:
        yield f"Next: {verbs.command(args, 'resume', row)}   # go on with what has not completed"


def _job_lines(session: Session, args: argparse.Namespace, width: int) -> Iterator[str]:
    from geoflow.notebook.display import jobs_text
    from geoflow.notebook.snapshot import listing

    lines = listing(session.store, session._clock.now(), _JOBS_SHOWN + 1)
    if not lines:
        yield f"There are no jobs in {plain(session.settings.store)} yet."
        return
    yield from jobs_text(lines[:_JOBS_SHOWN], width).splitlines()
    if len(lines) > _JOBS_SHOWN:
        yield f"… and older ones; {args.prog} jobs --json has all."


def _task_lines(frame: pd.DataFrame, session: Session, args: argparse.Namespace, width: int) -> Iterator[str]:
    names = ["task_id", "status"] if args.flat else ["stage", "task_id", "status", "attempts", "duration"]
    flat = [str(name) for name in frame.columns if str(name).startswith(("parameters.", "result."))]
    rows = mask(_rows(frame, session.settings.secrets), session.settings.secrets)
    cells = [[*(_cell(row[name]) for name in (*names, *flat)), _cell(row["error"] or _returned(row))] for row in rows]
    yield from _table([*names, *flat, "error or result"], cells, width) if rows else ["There are no such tasks."]


def _returned(row: dict[str, Any]) -> Any:
    """What the handler returned, less the envelope."""
    result = row.get("result")
    return result["result"] if isinstance(result, dict) and result.keys() == {"success", "result"} else result


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return human_duration(value.total_seconds())
    return str(value) if isinstance(value, str) else json.dumps(value, default=exact, ensure_ascii=False)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Columns as wide as they need, up to a limit; the last takes what is left, and what has no room is named."""
    from geoflow.notebook.words import columns, fit, pad

    def wide(text: str) -> int:
        return len(text) if text.isascii() else sum(map(columns, text))

    table = [heads, *([shorten(cell, 200) for cell in row] for row in rows)]
    widths = [min(max(map(wide, column)), _WIDEST) for column in list(zip(*table, strict=True))[:-1]]
    shown = used = 0
    while shown < len(widths) and used + widths[shown] + 2 <= width - _LAST:
        used += widths[shown] + 2
        shown += 1
    for row in table:
        yield fit("  ".join((*map(pad, row[:shown], widths), row[-1])).rstrip(), width)
    if shown < len(widths):
        yield fit(f"No room for {', '.join(heads[shown:-1])}; --json has all.", width)


def _error_lines(frame: pd.DataFrame, job: JobHandle, args: argparse.Namespace, width: int) -> Iterator[str]:
    from geoflow.notebook.failures import folded
    from geoflow.notebook.words import SYMBOLS, when

    view, row = job._session._snapshot(job.id), job._row()
    yield f"{SYMBOLS[view.state][0]} {view.state}  {shorten(view.job_type, 40)}  {view.job_id[:8]}"
    if view.error:
        yield from _wrapped(view.error, width, 2)
        yield from _traceback(view.traceback, args, width)
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for attempt in _rows(frame, job._session.settings.secrets):
        kind = (attempt["stage"], attempt["error_type"], attempt["error_category"], folded(attempt["error"] or ""))
        alike.setdefault(kind, []).append(attempt)
    for (stage, error_type, category, _), attempts in sorted(alike.items(), key=lambda item: -len(item[1])):
        tasks = list(dict.fromkeys(str(attempt["task_id"]) for attempt in reversed(attempts)))
        last = attempts[-1]
        head = f"{count(len(attempts), 'failed attempt')} of {count(len(tasks), 'task')} in stage {stage}"
        again = "retryable" if last["retryable"] else "not retryable"
        yield from _wrapped(f"✗ {head}: {shorten(str(error_type), 60)} ({category}, {again})", width, 0)
        yield from _wrapped(last["error"] or "", width, 4)
        ended = when(last["ended_at"].timestamp()) if last["ended_at"] is not None else "an unknown time"
        yield from _wrapped(f"the last: task {tasks[0]}, attempt {last['attempt']}, at {ended}", width, 4)
        if len(tasks) > 1:
            more = f" and {len(tasks) - 6:,} more" if len(tasks) > 6 else ""
            yield from _wrapped(f"also: {', '.join(tasks[1:6])}{more}", width, 4)
        yield from _traceback(last["traceback"], args, width)
    if not alike:
        yield "No attempt of a task has failed."
    yield from _next(view, row, args)


def _traceback(text: str | None, args: argparse.Namespace, width: int) -> Iterator[str]:
    from geoflow.notebook.words import fit

    if args.traceback:
        yield from (fit("    " + line.expandtabs(), width) for line in plain(text or "").splitlines())


def _wrapped(text: str, width: int, indent: int, lines: int = 6) -> list[str]:
    """*text* in at most *lines* lines."""
    before = " " * indent
    wrapped = textwrap.wrap(
        " ".join(plain(text).split()), max(width, 40), initial_indent=before, subsequent_indent=before or "  "
    )
    return wrapped if len(wrapped) <= lines else [*wrapped[: lines - 1], before + "…"]
