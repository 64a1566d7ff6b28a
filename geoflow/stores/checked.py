"""Rows as they are read: typed and bounded, since a file may come from anywhere.

What is not sound in a job's row is replaced, and the row then is that of a failed job whose error says what is wrong:
it is shown as such, it stops no listing of the others, and nothing of it is run by a resume.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from geoflow.core.models import JobStatus, Stage
from geoflow.core.rows import EventRow, JobRow, StageRow
from geoflow.support.jsonable import from_json

_LATEST = 1e11  # seconds: the year 5138
HIGHEST = 1 << 50  # of a task's key; an attempt's is 4,096 times that
_MOST_STAGES, _NAME = 10_000, 1_000
_PARSED = 100_000  # characters of a JSON text that is parsed for the check
_STAGES = '[{"number":1,"name":"?","task_type":"?","parallelism":"single"}]'


def job_row(row: Sequence[Any]) -> JobRow:
    """The job's row, sound in any case."""
    read = JobRow(*row)
    wrong = [name for name, is_sound in _unsound(read) if not is_sound]
    if not wrong:
        return read._replace(status=JobStatus(read.status))
    created = read.created_at if _is_time(read.created_at) else 0.0
    ended = read.ended_at if read.ended_at is not None and _is_time(read.ended_at) else created
    reasons = ", ".join(wrong)
    return JobRow(
        job_key=read.job_key if _is_key(read.job_key) else 0,
        job_id=str(read.job_id)[:64],
        job_type=str(read.job_type)[:_NAME],
        status=JobStatus.FAILED,
        stage=read.stage if "stage" not in wrong and "stages" not in wrong else 1,
        stages=read.stages if "stages" not in wrong else _STAGES,
        parameters="{}",
        result=None,
        error=f"The row of this job in the store is damaged, or another program changed it: {reasons}. It is not run.",
        traceback=None,
        created_at=created,
        started_at=None,
        ended_at=ended,
        owner=None,
        epoch=read.epoch if _is_key(read.epoch) else 0,
        source=None,
    )


def _unsound(row: JobRow) -> Iterable[tuple[str, bool]]:
    stages = _number_of_stages(row.stages) if isinstance(row.stages, str) else 0
    yield "job_key", _is_key(row.job_key) and row.job_key > 0
    yield "job_id", isinstance(row.job_id, str) and len(row.job_id) == 64 and not set(row.job_id) - _HEX
    yield "job_type", isinstance(row.job_type, str) and len(row.job_type) <= _NAME
    yield "status", row.status in _STATES
    yield "stages", stages > 0
    yield "stage", isinstance(row.stage, int) and (1 <= row.stage <= stages or not stages)
    yield "parameters", _is_object(row.parameters)
    yield "result", row.result is None or _is_object(row.result)
    for name in ("error", "traceback", "owner", "source"):
        yield name, isinstance(getattr(row, name), str | None)
    yield "created_at", _is_time(row.created_at)
    for name in ("started_at", "ended_at"):
        yield name, getattr(row, name) is None or _is_time(getattr(row, name))
    yield "epoch", _is_key(row.epoch)


_HEX = set("0123456789abcdef")
_STATES = {str(state) for state in JobStatus}


def stage_rows(rows: Iterable[Sequence[Any]], last_key: int) -> list[StageRow]:
    """The plans of a job's stages, with no more tasks than there may be in a store whose last one is *last_key*."""
    plans = []
    for stage_key, stage, first_key, count, planned_at in rows:
        if all(isinstance(number, int) for number in (stage_key, stage, first_key, count)):
            first = first_key if 1 <= first_key <= HIGHEST else last_key + 1
            there = max(0, min(count, last_key - first + 1))
            plans.append(StageRow(stage_key, stage, first, there, planned_at if _is_time(planned_at) else 0.0))
    return plans


def event_row(row: Sequence[Any]) -> EventRow:
    """The row of an event, with nothing where it is not sound."""
    at, event, was, status, stage, tasks, why, session, pid, host = row
    return EventRow(
        happened_at=at if _is_time(at) else 0.0,
        event=_text(event) or "?",
        was=_text(was),
        status=_text(status),
        stage=_number(stage),
        tasks=_number(tasks),
        why=_text(why),
        session=_text(session) or "",
        pid=_number(pid),
        host=_text(host) or "",
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int:
    return value if isinstance(value, int) and _is_key(value) else 0


@lru_cache(maxsize=256)
def _number_of_stages(text: str) -> int:
    """How many stages *text* declares, or 0 where it is not what a job type declares."""
    try:
        stages = [Stage(**stage) for stage in from_json(text)][:_MOST_STAGES]
    except (ValueError, TypeError, ValidationError):
        return 0
    in_order = all(stage.number == number for number, stage in enumerate(stages, start=1))
    return len(stages) if in_order and all(len(stage.name) <= _NAME for stage in stages) else 0


def _is_object(text: object) -> bool:
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return False
    try:
        return len(text) > _PARSED or isinstance(from_json(text), dict)
    except ValueError:
        return False


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= _LATEST


def _is_key(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= HIGHEST
