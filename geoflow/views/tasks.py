"""Read from a store what can be seen of its tasks one by one: a list of some, the worst first, and all about one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from geoflow.stores import questions
from geoflow.stores.store import Store
from geoflow.support.masking import mask_text
from geoflow.support.text import cut, shorten
from geoflow.views.failures import history, why
from geoflow.views.model import READ, SYMBOLS, TaskLine, TaskView, readable, when
from geoflow.views.stages import STATES, took

LISTED, ATTEMPTS, LOGGED, LOG_BYTES = 200, 20, 40, 2_000_000


def listed(store: Store, job_id: str, part: str = "", limit: int = LISTED) -> tuple[TaskLine, ...]:
    """Tasks of the job whose ids contain *part*: of the last stage first, and of each stage the worst first."""
    row = store.job(job_id)
    lines: list[TaskLine] = []
    with store.reading() as connection:
        for plan in reversed(store.stages(row.job_key)) if row else ():
            tasks = questions.listed_tasks(connection, plan, part, limit - len(lines), STATES)
            lines += (_line(task, plan.stage) for task in tasks)
            if len(lines) >= limit:
                break
    return tuple(lines)


def _line(task: questions.ListedTask, stage: int) -> TaskLine:
    key, task_id, state, retries, error_type = task
    error = error_type if state != "completed" else ""
    said = " ".join(filter(None, (error, f"after {_retries(retries)}" if retries else "")))
    words = (f"{SYMBOLS[state]} {state}", shorten(task_id, 60), f"stage {stage}", said)
    return TaskLine(key, task_id, shorten(" · ".join(filter(None, words)), 140))


def _retries(number: int) -> str:
    return "1 retry" if number == 1 else f"{number} retries"


def task(store: Store, job_id: str, key: int, secrets: Sequence[str], log: Path | None = None) -> TaskView | None:
    """The task *key* of the job, with what looks like *secrets* masked and its lines of *log*; None if it is gone."""
    with store.reading() as connection:
        row = questions.task(connection, job_id, key, READ)
        attempts = questions.attempts_of(connection, key, ATTEMPTS, READ)
    if row is None:
        return None
    facts = (
        f"stage {row.stage} {shorten(row.stage_name, 40)}",
        f"number {row.task_index}",
        shorten(row.task_type, 40),
        took(row.duration),
        _retries(row.retries) if row.retries else "",
        f"is tried again at {when(row.not_before)}" if row.status == "queued" and row.not_before else "",
    )
    details = {
        "Parameters": readable(row.parameters, 4000, secrets),
        "Result": readable(row.result, 4000, secrets) if row.result else "",
        **(history(attempts, secrets, limit=4000) if attempts else {}),
        "Log": "\n".join(_logged(log, job_id, row.task_id, secrets)) if log else "",
    }
    return TaskView(
        shorten(row.task_id, 120),
        row.status,
        tuple(filter(None, facts)),
        cut(mask_text(f"{row.error_type}: {row.error}", secrets), 1000) if row.error else None,
        why(row.error_type, row.error_category, row.retries) if row.error and row.status == "failed" else None,
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
