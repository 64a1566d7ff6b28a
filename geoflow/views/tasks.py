"""Read from a store what can be seen of its tasks one by one: a list of some, the worst first, and all about one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from geoflow.stores.base import Store
from geoflow.support.masking import mask_text
from geoflow.support.text import cut, shorten
from geoflow.views.failures import ATTEMPTS_OF, told, why
from geoflow.views.model import STATES, TaskLine, TaskView
from geoflow.views.wording import READ, SYMBOLS, readable, took, when

LISTED, ATTEMPTS, LOGGED, LOG_BYTES = 200, 20, 40, 2_000_000
_WHENS = " ".join(f"WHEN '{state}' THEN {place}" for place, state in enumerate(STATES))
_LIST = (  # only what is listed is looked up among the attempts
    "SELECT f.task_key, f.task_id, f.status, f.retries, coalesce(a.error_type, '') FROM (SELECT * FROM task"
    " WHERE task_key >= $first AND task_key < $end AND instr(lower(task_id), $part) > 0"
    f" ORDER BY CASE status {_WHENS} END, task_key LIMIT $limit) f"
    " LEFT JOIN attempt a ON a.attempt_key = (f.task_key << 12) + f.attempt"
    f" ORDER BY CASE f.status {_WHENS} END, f.task_key"
)
_TASK = (
    "SELECT task_id, task_type, status, stage, stage_name, task_index, retries, not_before, duration,"
    " substr(parameters, 1, $read), substr(result, 1, $read), coalesce(error, ''), coalesce(error_type, ''),"
    " coalesce(error_category, '') FROM tasks WHERE task_key = $key AND job_id = $job"
)


def listed(store: Store, job_id: str, part: str = "", limit: int = LISTED) -> tuple[TaskLine, ...]:
    """Tasks of the job whose ids contain *part*: of the last stage first, and of each stage the worst first."""
    row = store.job(job_id)
    found: list[TaskLine] = []
    with store.reading() as connection:
        for plan in reversed(store.stages(row.job_key)) if row else ():
            bounds = {"first": plan.first_key, "end": plan.end_key, "part": part.lower(), "limit": limit - len(found)}
            found += (_line(task, plan.stage) for task in connection.execute(_LIST, bounds).fetchall())
            if len(found) >= limit:
                break
    return tuple(found)


def _line(task: Any, stage: int) -> TaskLine:
    key, task_id, state, retries, error_type = task
    error = error_type if state != "completed" else ""
    said = " ".join(filter(None, (error, retries and f"after {_retries(retries)}")))
    words = (f"{SYMBOLS[state]} {state}", shorten(task_id, 60), f"stage {stage}", said)
    return TaskLine(key, task_id, shorten(" · ".join(filter(None, words)), 140))


def _retries(number: int) -> str:
    return "1 retry" if number == 1 else f"{number} retries"


def task(store: Store, job_id: str, key: int, secrets: Sequence[str], log: Path | None = None) -> TaskView | None:
    """The task *key* of the job, with what looks like *secrets* masked and its lines of *log*; None if it is gone."""
    with store.reading() as connection:
        row = connection.execute(_TASK, {"read": READ, "key": key, "job": job_id}).fetchone()
        attempts = connection.execute(ATTEMPTS_OF, (READ, key, ATTEMPTS)).fetchall()
    if row is None:
        return None
    task_id, task_type, state, stage, name, index, retries, not_before, duration, *texts = row
    parameters, result, error, error_type, category = texts
    facts = (
        f"stage {stage} {shorten(name, 40)}",
        f"number {index}",
        shorten(task_type, 40),
        took(duration),
        _retries(retries) if retries else "",
        f"is tried again at {when(not_before)}" if state == "queued" and not_before else "",
    )
    details = {
        "Parameters": readable(parameters, 4000, secrets),
        "Result": readable(result, 4000, secrets) if result else "",
        **(told(attempts, secrets, limit=4000) if attempts else {}),
        "Log": "\n".join(_logged(log, job_id, task_id, secrets)) if log else "",
    }
    return TaskView(
        shorten(task_id, 120),
        state,
        tuple(filter(None, facts)),
        cut(mask_text(f"{error_type}: {error}", secrets), 1000) if error else None,
        why(error_type, category, retries) if error and state == "failed" else None,
        tuple((title, text) for title, text in details.items() if text),
    )


def _logged(log: Path, job_id: str, task_id: str, secrets: Sequence[str]) -> Iterator[str]:
    """The last lines about the task, of the end of the log: all of it may be tens of megabytes."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - LOG_BYTES, 0))
        lines = [line for line in file if orjson.dumps(task_id) in line and job_id.encode() in line]
        for line in lines[-LOGGED:]:
            with suppress(orjson.JSONDecodeError):
                record = orjson.loads(line)
                if isinstance(record, dict) and (record.get("job_id"), record.get("task_id")) == (job_id, task_id):
                    words = (str(record.get(name, "")) for name in ("time", "level", "logger", "message"))
                    yield f"{shorten(mask_text(' '.join(words), secrets), 500)} (attempt {record.get('attempt', '?')})"
