"""Rows of jobs, stages, tasks, failures and log lines, as dicts, as they are at one moment: what a terminal lists.

Times are in UTC, durations `timedelta`; what is missing is None. A row is data: nothing in it is masked. There is no
pandas here, which takes longer to import than most lists to read: `geoflow.views.frames` has the same as DataFrames.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from geoflow.core.models import JobStatus, TaskStatus
from geoflow.core.payloads import is_fallback
from geoflow.core.rows import JobRow
from geoflow.errors import StoreError, TableError
from geoflow.stores import columnwise, questions
from geoflow.stores.columns import ATTEMPTS_PER_TASK, COLUMNS
from geoflow.stores.questions import PlannedStage
from geoflow.stores.store import Store
from geoflow.stores.whole import MISSING, due
from geoflow.support.jsonable import from_json
from geoflow.support.logs import FIELDS
from geoflow.views.lines import Wanted, lines
from geoflow.views.tracebacks import cause

Row = dict[str, Any]


def words(*lines: str) -> list[str]:
    return " ".join(lines).split()


# The job's 64 digits come last: a printed frame begins with what tells its rows apart.
JOBS = words(
    "job_type status stage total_stages parameters result error created_at started_at ended_at duration",
    "tasks completed failed with_errors traceback source job_id",
)
STAGES = words(
    "stage stage_name task_type parallelism tasks queued processing completed failed cancelled",
    "planned_at started_at ended_at duration job_id",
)
# What is looked for first stands first: of so many columns a notebook shows the first ten and the last.
TASKS = words(
    "task_id stage_name status attempts duration error error_type parameters result",
    "stage task_index task_type retries error_category created_at started_at ended_at metadata not_before code job_id",
)
ATTEMPTS = words(
    "task_id stage attempt outcome error error_type error_category retryable traceback output slot pid",
    "queued_at started_at ended_at duration cpu peak_memory stage_name",
    "task_index task_type backoff code superseded job_id",
)
ERRORS = [*ATTEMPTS[:5], "cause", *ATTEMPTS[5:]]
HISTORY = words("happened_at event stage tasks why was status session pid host")
DERIVED = (*PlannedStage._fields, "task_index", "duration")  # told by the plans and by other columns
# As the module warnings writes one: where, its class, what it says.
_WARNING = re.compile(r"^\S.*:\d+: [\w.]*Warning: ", re.MULTILINE)
_FEW = 1_000  # attempts that are looked for by their keys
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def jobs(store: Store) -> list[Row]:
    """All jobs, oldest first. ``tasks``, ``completed`` and ``failed`` are numbers of tasks."""
    with at_once(store) as connection:
        names = [name for name in JOBS if name != "with_errors"]
        rows = _rows(connection, "jobs", names, [questions.job_keys(connection)])
        return [{name: row[name] for name in JOBS} for row in map(_with_errors, rows)]


def _with_errors(row: Row) -> Row:
    lacking = lacks(row["status"], row["tasks"], row["completed"], row["failed"])
    error = {"error": MISSING} if lacking else {}
    return row | error | {"with_errors": has_errors(row["status"], row["failed"], row["result"])}


def lacks(status: str, tasks: int, completed: int, failed: int) -> bool:
    """Whether tasks of a job that has completed are neither completed nor failed: their rows are damaged."""
    return status == JobStatus.COMPLETED and completed + failed != tasks


def has_errors(status: str, failed: int, result: Any) -> bool:
    """Whether the job completed without tasks that failed, or with the fallback in place of finalize's result."""
    return status == JobStatus.COMPLETED and (failed > 0 or is_fallback(result))


def stages(store: Store, job_id: str) -> list[Row]:
    """The job's stages in order; those to come have no ``planned_at`` and no tasks."""
    with at_once(store) as connection:
        return [
            _shown(STAGES, {name: _value(name, row.get(name)) for name in STAGES})
            for row in planned(connection, job_id)
        ]


def whole(store: Store, job: JobRow) -> Iterator[tuple[str, Row | Iterable[Row]]]:
    """All that the store has of the *job* at one moment, by name: the job, its stages, its tasks, its attempts.

    Those of plans that were set aside are among them. Rows are read as they are asked for.
    """
    with at_once(store) as connection:
        names, keys = [name for name in JOBS if name != "with_errors"], (job.job_key, job.job_key)
        yield (
            "job",
            {name: row[name] for row in map(_with_errors, _rows(connection, "jobs", names, [keys])) for name in JOBS},
        )
        stages = planned(connection, job.job_id)
        yield "stages", [_shown(STAGES, {name: _value(name, row.get(name)) for name in STAGES}) for row in stages]
        yield "tasks", _of_job(connection, "tasks", [*TASKS, "superseded"], job.job_id, "", history=True)
        yield "attempts", _of_job(connection, "attempts", ATTEMPTS, job.job_id, "", history=True)


def planned(connection: Any, job_id: str) -> list[Row]:
    """The job's stages in order, their times in µs; how many tasks are in each state, by its name."""
    none = dict.fromkeys(["tasks", *TaskStatus], 0)
    status, text = questions.declared(connection, job_id)
    declared = from_json(text)
    rows = [
        none | stage | {"job_id": job_id, "stage": stage["number"], "stage_name": stage["name"]} for stage in declared
    ]
    for plan in questions.plans(connection, job_id):
        if not 0 < plan.stage <= len(rows):  # another program's
            continue
        row, keys = rows[plan.stage - 1], (plan.first, plan.last)
        row |= {"planned_at": plan.created_at, "tasks": plan.last - plan.first + 1}
        row |= (counts := questions.states(connection, *keys))
        known = not counts.keys() - set(TaskStatus) and sum(counts.values()) == row["tasks"]
        if not known or lacks(status, *(row[name] for name in ("tasks", "completed", "failed"))):
            raise StoreError(MISSING)
        row["started_at"], row["ended_at"] = questions.span(connection, *keys)
    return rows


def planned_stage(store: Store, job_id: str, stage: int | str | None) -> tuple[int, str, int]:
    """The number and the name of a *stage* that was planned, by default the last; and how many were. `TableError`."""
    known = {row["stage"]: row["stage_name"] for row in stages(store, job_id) if row["planned_at"] is not None}
    if stage is None and known:
        stage = max(known)
    number = next((number for number, name in known.items() if stage in (number, name)), None)
    if number is None:
        listed = ", ".join(f"{name} ({number})" for number, name in known.items()) or "none yet"
        wanted = "" if stage is None else f" {stage!r}"
        raise TableError(f"There is no stage{wanted} that was planned: {listed}.")
    return number, known[number], len(known)


def tasks(
    store: Store, job_id: str, *, state: str | None = None, limit: int | None = None, stage: int | None = None
) -> list[Row]:
    """The tasks of one job in the order in which they were planned: the first *limit*, of those in that *state*.

    With *stage*, its number, those of that stage alone.
    """
    condition = "" if state is None else f" AND status = '{TaskStatus(state)}'"
    with at_once(store) as connection:
        return list(islice(_of_job(connection, "tasks", TASKS, job_id, condition, stage=stage), limit))


def reused_from(store: Store, job_id: str) -> dict[tuple[int, int, int], str]:
    """The id of the job whose result an attempt has taken over, by stage, task_index and the attempt's number."""
    found: dict[tuple[int, int, int], str] = {}
    if store.has("reused"):
        with at_once(store) as connection:
            for plan in questions.plans(connection, job_id):
                for key, source in questions.reused_from(connection, plan.first, plan.last).items():
                    task, attempt = divmod(key, ATTEMPTS_PER_TASK)
                    found[plan.stage, task - plan.first, attempt] = source
    return found


def warned(store: Store, job_id: str) -> dict[tuple[int, int, int], int]:
    """How many of Python's warnings an attempt has shown, by stage, task_index and the attempt's number."""
    found: dict[tuple[int, int, int], int] = {}
    with at_once(store) as connection:
        for plan in questions.plans(connection, job_id):
            for key, output in questions.that_warned(connection, plan.first, plan.last):
                task, attempt = divmod(key, ATTEMPTS_PER_TASK)
                found[plan.stage, task - plan.first, attempt] = warnings_in(output)
    return found


def warnings_in(output: str) -> int:
    """How many of Python's warnings are in what an attempt has printed, as far as it was kept."""
    return len(_WARNING.findall(str(output)))


def errors(store: Store, job_id: str, limit: int | None = None) -> list[Row]:
    """The attempts that failed, newest last, and after these what nobody saw end; with *limit* the last so many.

    Beside what attempts have they have a ``cause``: the exception that led to the error, where there was one.
    """
    with at_once(store) as connection:
        condition = failed_last(connection, job_id, limit)
        rows = list(_of_job(connection, "attempts", ATTEMPTS, job_id, condition, history=True))
    rows.sort(key=lambda row: (row["ended_at"] is None, row["ended_at"] or _EPOCH))
    last = rows if limit is None else rows[max(len(rows) - limit, 0) :]
    return [{name: row[name] if name in row else cause(row["traceback"]) for name in ERRORS} for row in last]


def attempts_of(store: Store, job_id: str, task_key: int, limit: int) -> list[Row]:
    """The last *limit* attempts of one task, in their order."""
    first = task_key * ATTEMPTS_PER_TASK
    with at_once(store) as connection:
        condition = f" AND attempt_key BETWEEN {first:d} AND {first + ATTEMPTS_PER_TASK - 1:d}"
        found = list(_of_job(connection, "attempts", ATTEMPTS, job_id, condition, history=True))
    return found[-limit:]


def history(store: Store, job_id: str) -> list[Row]:
    """What happened to the job, the oldest first; see `geoflow.core.rows.EventRow`."""
    told = (event._asdict() for event in store.events(job_id))
    return [{name: row[name] for name in HISTORY} | {"happened_at": _at(row["happened_at"])} for row in told]


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def attempts_ended_after(store: Store, job_id: str, stage: int, moment: float) -> Iterator[Row]:
    """The attempts of one stage that ended after *moment*, in seconds since the epoch."""
    with at_once(store) as connection:
        condition = f" AND attempt.ended_at > {moment!r}"
        yield from _of_job(connection, "attempts", ATTEMPTS, job_id, condition, history=True, stage=stage)


def failed_last(connection: Any, job_id: str, limit: int | None) -> str:
    """The condition that holds for attempts that failed; where a few are asked for, for the last *limit* of them."""
    condition = " AND outcome = 'failed'"
    if limit is None or limit > _FEW:
        return condition
    keys = questions.last_failures(connection, job_id, limit)
    return f"{condition} AND attempt_key IN ({', '.join(map(str, keys))})"


def logs(path: str | os.PathLike[str] | None, wanted: Wanted) -> list[Row]:
    """The lines of the log at *path* that are *wanted*, by their times; further fields follow those of each line."""
    found = list(lines(path, wanted)) if path is not None else []
    names = dict.fromkeys((*FIELDS, *(name for line in found for name in line)))
    told = [{name: line.get(name) for name in names} | {"time": _moment(line.get("time"))} for line in found]
    return sorted(told, key=lambda line: (line["time"] is None, line["time"] or _EPOCH))


@contextmanager
def at_once(store: Store) -> Iterator[Any]:
    """A connection that sees the store as it is now, whatever is written meanwhile."""
    # Nothing that is read is garbage, and looking for some among so many new dicts would take a third of the time: all
    # that is there goes to where it is looked for last.
    collects = gc.isenabled()
    gc.disable()
    try:
        with store.reading() as connection, connection:
            connection.execute("BEGIN")
            yield connection
    finally:
        if collects:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _of_job(
    connection: Any,
    table: str,
    names: Sequence[str],
    job_id: str,
    condition: str,
    *,
    history: bool = False,
    stage: int | None = None,
) -> Iterator[Row]:
    """The job's rows of *table*, or those of a *stage*, in the order of their keys."""
    for plan in questions.plans(connection, job_id, history=history):
        if stage not in (None, plan.stage):
            continue
        of_plan = {name: _value(name, value) for name, value in plan._asdict().items()}
        number = 0
        for row in _rows(connection, table, names, [(plan.first, plan.last)], condition, of_plan):
            number += 1
            if table == "tasks" and row["status"] == TaskStatus.COMPLETED and row["result"] is None:
                raise StoreError(MISSING)
            yield row
        if not condition and number not in due(connection, table, plan.first, plan.last):
            raise StoreError(MISSING)


def _rows(
    connection: Any,
    table: str,
    names: Sequence[str],
    keys: Sequence[tuple[int, int]],
    condition: str = "",
    of_plan: Row | None = None,
) -> Iterator[Row]:
    derived = ("duration",) if of_plan is None else DERIVED
    own = [name for name in names if name not in derived]
    for piece in columnwise.read(connection, table, [*own, "key"], (), keys, condition):
        columns = [
            [_value(name, value) for value in column] if COLUMNS.get(name) in _MADE else column
            for name, column in zip((*own, "key"), piece.columns, strict=True)
        ]
        for values in zip(*columns, strict=True):
            row = dict(zip((*own, "key"), values, strict=True))
            if of_plan is not None:
                task = columnwise.task_key(row["key"]) if table == "attempts" else row["key"]
                row |= of_plan | {"task_index": task - of_plan["first"]}
                if row.get("queued_at", "") is None:
                    row["queued_at"] = of_plan["created_at"]
            yield _shown(names, row)


def _shown(names: Iterable[str], row: Row) -> Row:
    began, ended = row["started_at"], row["ended_at"]
    row["duration"] = None if began is None or ended is None else ended - began
    return {name: row[name] for name in names}


def _value(name: str, value: Any) -> Any:
    make = _MADE.get(COLUMNS.get(name, ""))
    return value if value is None or make is None else make(value)


def _time(microseconds: float) -> datetime | None:
    # Beyond the year 5138: of another program's making.
    return _EPOCH + timedelta(microseconds=microseconds) if abs(microseconds) < 1e17 else None


def _moment(text: Any) -> datetime | None:
    with suppress(ValueError, TypeError):
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    return None


_MADE: dict[str, Any] = {
    "time": _time,
    "span": lambda microseconds: timedelta(microseconds=microseconds),
    "truth": bool,
    "flag": bool,
}
