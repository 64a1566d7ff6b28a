"""Read from a store what can be seen of its tasks one by one: a list of some, the worst first, and all about one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from geoflow.stores import questions, task_lists
from geoflow.stores.store import Store
from geoflow.support.masking import DEFAULT_SECRETS, mask_text
from geoflow.support.text import aligned, cut, shorten
from geoflow.views.failures import history, why
from geoflow.views.model import READ, SYMBOLS, Listing, TaskLine, TaskView, readable, when
from geoflow.views.stages import STATES, took

_ALL, _NONE = task_lists.Wanted(), MappingProxyType[str, float]({})
LISTED, ATTEMPTS, LOGGED, LOG_BYTES = 20, 20, 40, 2_000_000
WIDE = 112  # characters of a line


def listed(
    store: Store,
    job_id: str,
    wanted: task_lists.Wanted = _ALL,
    first: int = 0,
    running: Mapping[str, float] = _NONE,
    secrets: Sequence[str] = DEFAULT_SECRETS,
) -> Listing:
    """*LISTED* of the tasks that are *wanted*, from the place *first* on; the worst first are of the last stage first.

    *running* are the seconds since tasks began that run now, by their ids.
    """
    row, found, total = store.job(job_id), list[tuple[task_lists.ListedTask, int]](), 0
    errors = Counter[str]()
    with store.reading() as connection:
        for plan in reversed(store.stages(row.job_key)) if row else ():
            tasks = task_lists.tasks(connection, plan, wanted, first + LISTED, STATES)
            found += ((task, plan.stage) for task in tasks)
            total += task_lists.number(connection, plan, wanted)
            errors.update(task_lists.error_types(connection, plan))
    found.sort(key=_ORDERS[wanted.order])
    page = found[first : first + LISTED]
    cells = [_cells(task, stage, job_id, running.get(task.task_id), secrets) for task, stage in page]
    labels = aligned(cells, WIDE, gives_way=4) if cells else ()
    lines = (TaskLine(task.task_key, task.task_id, label) for (task, _), label in zip(page, labels, strict=True))
    return Listing(tuple(lines), total, tuple(errors.most_common()))


_ORDERS: dict[str, Callable[[tuple[task_lists.ListedTask, int]], Any]] = {
    "worst": lambda found: (STATES.index(found[0].status), -found[1]),
    "longest": lambda found: -(found[0].duration or 0.0),
    "planned": lambda found: found[1],
}


def _cells(
    task: task_lists.ListedTask, stage: int, job_id: str, seconds: float | None, secrets: Sequence[str]
) -> tuple[str, ...]:
    """What a line says: state, id without the job's, stage, how long, and what went wrong."""
    error = f"{task.error_type}: {mask_text(task.error, secrets)}" if task.error_type else ""
    again = f"after {_retries(task.retries)}" if task.retries else ""
    return (
        f"{SYMBOLS[task.status]} {task.status}",
        shorten(task.task_id.removeprefix(f"{job_id[:8]}-"), 40),
        f"stage {stage}",
        took(task.duration) if seconds is None else f"for {took(seconds)}",
        ", ".join(filter(None, (error if task.status != "completed" else "", again))),
    )


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
