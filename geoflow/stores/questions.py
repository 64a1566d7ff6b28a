"""What is asked of a store in order to show it, by name: each question is one statement, the same for both databases.

All take a connection of `Store.reading`. How a task's and an attempt's keys hang together is known in `stores` alone.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from geoflow.core.rows import JobRow, StageRow
from geoflow.errors import StoreError
from geoflow.stores import columns
from geoflow.stores.checked import HIGHEST, job_row
from geoflow.stores.columns import ATTEMPTS_BETWEEN, ATTEMPTS_PER_TASK
from geoflow.stores.whole import MISSING, check_end, there

# Jobs

# Of a result, whether it is finalize's own: it may be long, and so may the rest.
_SHORT = "CASE WHEN substr(CAST(result AS VARCHAR), 1, 500) LIKE '%\"completed_with_errors\"%' THEN result END"
_IN_OUTLINE = {"parameters": "'{}'", "result": _SHORT, "error": "NULL", "traceback": "NULL", "owner": "NULL"}
_OUTLINE = ", ".join(_IN_OUTLINE.get(name, name) for name in JobRow._fields)


def number_of_jobs(connection: Any) -> int:
    return int(connection.execute("SELECT count(*) FROM job").fetchone()[0])


def outlines(connection: Any, limit: int | None = None, before: int = 1 << 62) -> list[JobRow]:
    """The last *limit* jobs *before* that key, or all of them, the newest first, without what may be long."""
    newest = f"SELECT {_OUTLINE} FROM job WHERE job_key < ? ORDER BY job_key DESC LIMIT ?"
    return [job_row(row) for row in connection.execute(newest, (before, limit or 1 << 62)).fetchall()]


def plans_of(connection: Any, first: int, last: int) -> dict[int, list[StageRow]]:
    """The current plans of each job from the key *first* to *last*, in the order of its stages."""
    plans: dict[int, list[StageRow]] = {}
    planned = f"SELECT job_key, {', '.join(StageRow._fields)} FROM stage"
    sql = f"{planned} WHERE job_key BETWEEN ? AND ? AND superseded = 0 ORDER BY job_key, stage"
    for key, *plan in connection.execute(sql, (first, last)).fetchall():
        plans.setdefault(key, []).append(StageRow._make(plan))
    return plans


def latest_completed(connection: Any, job_type: str) -> str | None:
    """The id of the job of that type that was submitted last among those all of whose tasks have completed."""
    which = "job_type = ? AND status = 'completed' AND failed = 0"
    sql = f"SELECT job_id FROM jobs WHERE {which} ORDER BY job_key DESC LIMIT 1"
    row = connection.execute(sql, (job_type,)).fetchone()
    return row and str(row[0])


def job_keys(connection: Any) -> tuple[int, int]:
    """From which to which there may be jobs."""
    sql = "SELECT 1, coalesce(max(job_key), 0) FROM job WHERE job_key < 1000000000"
    first, last = connection.execute(sql).fetchone()
    return first, last


def declared(connection: Any, job_id: str) -> tuple[str, str]:
    """The job's status, and its stages as JSON text."""
    row = connection.execute("SELECT status, stages FROM job WHERE job_id = ?", (job_id,)).fetchone()
    return (str(row[0]), str(row[1])) if row else ("", "[]")


# Stages


class PlannedStage(NamedTuple):
    """What the tasks of one planning of a stage share, and the keys of the first and the last; the time in µs."""

    job_id: str
    stage: int
    stage_name: str
    created_at: float
    superseded: bool
    first: int
    last: int


def plans(connection: Any, job_id: str, *, history: bool = False) -> list[PlannedStage]:
    """The job's plans in the order of their tasks' keys; with *history* those that were set aside too."""
    rows = connection.execute(
        "SELECT job_id, stage, stage_name, round(planned_at * 1e6), superseded, first_key, first_key + tasks - 1"
        " FROM stages WHERE job_id = ? AND superseded <= ? ORDER BY first_key, stage_key",
        (job_id, int(history)),
    )
    planned = list(map(PlannedStage._make, rows.fetchall()))
    (last,) = connection.execute("SELECT coalesce(max(task_key), 0) FROM task").fetchone()
    if any(plan.first <= plan.last and not 1 <= plan.first <= plan.last <= last for plan in planned):
        raise StoreError(MISSING)
    # One without tasks may begin behind them: those that were there have been removed.
    there = [plan for plan in planned if 1 <= plan.first <= (last if plan.first <= plan.last else HIGHEST)]
    ends = [plan.first - 1 for plan in there[1:]] + [last]  # whatever a plan of another program's making says
    return [
        plan._replace(last=max(min(plan.last, end), plan.first - 1)) for plan, end in zip(there, ends, strict=False)
    ]


def states(connection: Any, first: int, last: int) -> dict[str, int]:
    """How many of the tasks are in each state."""
    sql = "SELECT status, count(*) FROM task WHERE task_key BETWEEN ? AND ? GROUP BY status"
    return dict(connection.execute(sql, (first, last)).fetchall())


def span(connection: Any, first: int, last: int) -> tuple[float | None, float | None]:
    """When the first attempt of the tasks began, and the last one ended, in µs."""
    sql = f"SELECT round(min(started_at) * 1e6), round(max(ended_at) * 1e6) FROM attempt WHERE {ATTEMPTS_BETWEEN}"
    began, ended = connection.execute(sql, {"first": first, "last": last}).fetchone()
    return began, ended


class InState(NamedTuple):
    """So many tasks of a stage in one state, of which so many wait until they are tried again."""

    status: str
    tasks: int
    waiting: int


def not_completed(connection: Any, stage: StageRow) -> list[InState]:
    """The tasks that have not completed, counted by their state."""
    # The completed are left over: grouping them too takes six times as long.
    sql = (
        "SELECT status, count(*), count(not_before) FROM task"
        " WHERE task_key >= $first AND task_key < $end AND status <> 'completed' GROUP BY status"
    )
    bounds = {"first": stage.first_key, "end": stage.end_key}
    return list(map(InState._make, connection.execute(sql, bounds).fetchall()))


def means(connection: Any, stage: StageRow, since: float, sample: int) -> list[float | None]:
    """Of *sample* tasks at even distances: how long they ran and waited, and what part of them ended *since* then."""
    keys = range(stage.first_key, stage.end_key, -(-stage.task_count // sample))
    sql = (
        "SELECT avg(a.ended_at - a.started_at), avg(a.started_at - coalesce(a.queued_at, $planned)),"
        f" avg(CASE WHEN a.ended_at >= $since THEN 1.0 ELSE 0.0 END) FROM task t JOIN {columns.last_attempt()}"
        f" WHERE t.task_key IN ({', '.join(map(str, keys))})"
    )
    return list(connection.execute(sql, {"since": since, "planned": stage.planned_at}).fetchone())


# Reused results

_REUSED = (
    "FROM reused r JOIN task t ON t.task_key = r.attempt_key >> 12 AND t.attempt = r.attempt_key & 4095"
    " WHERE r.attempt_key BETWEEN $first * 4096 AND $last * 4096 + 4095"
)


def reused(connection: Any, stage: StageRow) -> int:
    """How many of the stage's tasks have taken over another one's result."""
    bounds = {"first": stage.first_key, "last": stage.end_key - 1}
    return int(connection.execute(f"SELECT count(*) {_REUSED}", bounds).fetchone()[0])


def reused_from(connection: Any, first: int, last: int) -> dict[int, str]:
    """The attempts of these tasks that have another one's result, by their keys, and the job that this was of.

    Without those whose results have become their own, since that job was removed.
    """
    sql = (
        "SELECT r.attempt_key, j.job_id FROM reused r JOIN task t ON t.task_key = r.source_key >> 12"
        " JOIN stage s ON s.stage_key = t.stage_key JOIN job j ON j.job_key = s.job_key"
        " WHERE r.attempt_key BETWEEN $first * 4096 AND $last * 4096 + 4095 AND r.source_key <> r.attempt_key"
    )
    return dict(connection.execute(sql, {"first": first, "last": last}).fetchall())


# Tasks


def that_warned(connection: Any, first: int, last: int) -> Iterator[tuple[int, str]]:
    """The attempts of these tasks whose output may have warnings in it, by their keys, with that."""
    sql = "SELECT attempt_key, output FROM attempt WHERE attempt_key BETWEEN $first * 4096 AND $last * 4096 + 4095"
    cursor = connection.execute(f"{sql} AND output LIKE '%Warning: %'", {"first": first, "last": last})
    while (row := cursor.fetchone()) is not None:
        yield row


class TaskPlace(NamedTuple):
    """Which task it is."""

    task_key: int
    task_id: str
    task_type: str
    stage: int
    task_index: int


class Task(NamedTuple):
    """A task with what its last attempt came to; its texts are cut."""

    task_id: str
    task_type: str
    status: str
    stage: int
    stage_name: str
    task_index: int
    retries: int
    not_before: float | None
    duration: float | None
    parameters: str
    result: str | None
    error: str
    error_type: str
    error_category: str


class LastAttempt(NamedTuple):
    """A task's state, and its last attempt, if that has ended; as they are."""

    status: str
    attempts: int
    parameters: str
    result: str | None
    error_type: str | None
    error: str | None
    output: str | None


def places(
    connection: Any,
    job_key: int,
    limit: int,
    *,
    status: str | None = None,
    task_id: str | None = None,
    begins: str | None = None,
    ends: str | None = None,
    failed_first: bool = False,
) -> list[TaskPlace]:
    """The first tasks of a job's current plans with this *status* or *task_id*, or an id that *begins* or *ends* so."""
    conditions: dict[str, dict[str, Any]] = {
        "status = $status": {"status": status},
        "task_id = $task_id": {"task_id": task_id},
        "substr(task_id, 1, $length) = $begins": {"begins": begins, "length": len(begins or "")},
        "substr(task_id, -$size) = $ends": {"ends": ends, "size": len(ends or "")},
    }
    meant = {condition: values for condition, values in conditions.items() if None not in values.values()}
    order = "status <> 'failed', task_key" if failed_first else "task_key"
    sql = (
        "SELECT task_key, task_id, task_type, stage, task_key - first_key FROM stage"
        " JOIN task ON task_key >= first_key AND task_key < first_key + task_count"
        f" WHERE {' AND '.join(('job_key = $job_key', 'superseded = 0', *meant))} ORDER BY {order} LIMIT $limit"
    )
    values: dict[str, Any] = dict(ChainMap({"job_key": job_key, "limit": limit}, *meant.values()))
    return list(map(TaskPlace._make, connection.execute(sql, values).fetchall()))


def running_tasks(connection: Any, stages: Sequence[StageRow], keys: Sequence[int]) -> dict[int, tuple[str, int]]:
    """The ids and stages of those of the *keys* that are tasks of the *stages* and count as running, by their keys."""
    found = {}
    for stage in stages:
        here = [key for key in keys if stage.first_key <= key < stage.end_key]
        if here:
            places = ", ".join("?" * len(here))
            sql = f"SELECT task_key, task_id FROM task WHERE status = 'processing' AND task_key IN ({places})"
            found.update({key: (task_id, stage.stage) for key, task_id in connection.execute(sql, here).fetchall()})
    return found


def task(connection: Any, job_id: str, key: int, longest: int) -> Task | None:
    """The task *key*, if the job has it, with as much of its parameters and its result as *longest* characters."""
    sql = (
        "SELECT task_id, task_type, status, stage, stage_name, task_index, retries, not_before, duration,"
        " substr(parameters, 1, $longest), substr(result, 1, $longest), coalesce(error, ''),"
        " coalesce(error_type, ''), coalesce(error_category, '') FROM tasks WHERE task_key = $key AND job_id = $job"
    )
    row = connection.execute(sql, {"longest": longest, "key": key, "job": job_id}).fetchone()
    return row and Task._make(row)


def last_attempt(connection: Any, key: int) -> LastAttempt:
    sql = (
        "SELECT t.status, t.attempt, t.parameters, a.result, a.error_type, a.error, a.output, j.status, s.superseded"
        f" FROM task t LEFT JOIN {columns.last_attempt()} JOIN stage s USING (stage_key) JOIN job j USING (job_key)"
        " WHERE t.task_key = ?"
    )
    *last, job, superseded = there(connection.execute(sql, (key,)).fetchone())
    check_end(last[0], last[3], is_over=job == "completed" and not superseded)
    return LastAttempt._make(last)


class TaskWhere(NamedTuple):
    """A task and what may tell where it works: parameters, metadata, result; None where such a text is long."""

    task_id: str
    status: str
    error: str
    texts: tuple[str | None, ...]


def failed_keys(connection: Any, first: int, last: int, limit: int) -> list[int]:
    """The first tasks of those that failed."""
    sql = "SELECT task_key FROM task WHERE task_key BETWEEN ? AND ? AND status = 'failed' ORDER BY task_key LIMIT ?"
    return [key for (key,) in connection.execute(sql, (first, last, limit)).fetchall()]


def where_tasks_are(connection: Any, keys: Sequence[int], longest: int) -> list[TaskWhere]:
    """The tasks with these *keys*, with their texts of at most *longest* characters."""
    texts = (f"CASE WHEN length({name}) <= $longest THEN {name} END" for name in ("parameters", "metadata", "result"))
    sql = (
        f"SELECT t.task_id, t.status, coalesce(a.error_type, ''), {', '.join(texts)} FROM task t"
        f" LEFT JOIN {columns.last_attempt()} WHERE t.task_key IN ({', '.join(map(str, keys))}) ORDER BY t.task_key"
    )
    rows = connection.execute(sql, {"longest": longest}).fetchall() if keys else []
    return [TaskWhere(task, status, error, tuple(texts)) for task, status, error, *texts in rows]


# Attempts


class FailedTask(NamedTuple):
    """A task that failed, with the error of its last attempt, and the end of its traceback; all, if it has a cause."""

    task_key: int
    task_id: str
    retries: int
    error_type: str
    error: str
    error_category: str
    traceback: str


class Attempted(NamedTuple):
    """An attempt, and the beginning of what its task was given."""

    attempt: int
    backoff: float | None
    outcome: str
    duration: float | None
    error: str
    traceback: str | None
    output: str | None
    parameters: str
    ended_at: float | None


class FailedAttempt(NamedTuple):
    """An attempt that failed, and the beginning of its error."""

    task_key: int
    error_category: str
    error_type: str
    error: str


def failed_tasks(connection: Any, stage: StageRow, limit: int) -> list[FailedTask]:
    """The first tasks of *stage* that failed."""
    sql = (
        "SELECT t.task_key, t.task_id, t.retries, coalesce(a.error_type, ''), coalesce(a.error, ''),"
        " coalesce(a.error_category, ''), coalesce(CASE WHEN a.traceback LIKE '%he above exception%'"
        " THEN a.traceback ELSE substr(a.traceback, -4000) END, '')"
        f" FROM task t JOIN {columns.last_attempt()}"
        " WHERE t.task_key >= ? AND t.task_key < ? AND t.status = 'failed' ORDER BY t.task_key LIMIT ?"
    )
    return list(map(FailedTask._make, connection.execute(sql, (stage.first_key, stage.end_key, limit)).fetchall()))


def attempts_of(connection: Any, key: int, limit: int, longest: int) -> list[Attempted]:
    """The last attempts of the task *key*, the newest first, with as much of its parameters as *longest* characters."""
    sql = (
        "SELECT a.attempt, backoff, outcome, duration, coalesce(error_type || ': ' || error, ''), traceback, output,"
        " substr(t.parameters, 1, ?), a.ended_at FROM attempts a JOIN task t ON t.task_key = a.task_key"
        " WHERE a.task_key = ? ORDER BY a.attempt DESC LIMIT ?"
    )
    return list(map(Attempted._make, connection.execute(sql, (longest, key, limit)).fetchall()))


def failed_attempts(connection: Any, job_id: str) -> Iterator[FailedAttempt]:
    """All attempts of the job that failed, those of plans that were set aside too."""
    plans = "SELECT first_key, tasks FROM stages WHERE job_id = ? AND tasks > 0 ORDER BY first_key"
    sql = (
        "SELECT attempt_key >> 12, coalesce(error_category, ''), coalesce(error_type, ''),"
        " coalesce(substr(error, 1, 300), '') FROM attempt"
        " WHERE attempt_key >= ? AND attempt_key < ? AND outcome = 'failed' ORDER BY attempt_key"
    )
    for first, tasks in connection.execute(plans, (job_id,)).fetchall():
        cursor = connection.execute(sql, (first * ATTEMPTS_PER_TASK, (first + tasks) * ATTEMPTS_PER_TASK))
        while rows := cursor.fetchmany(1_000):
            yield from map(FailedAttempt._make, rows)


def last_failures(connection: Any, job_id: str, limit: int) -> list[int]:
    """The keys of the job's attempts that failed last, and after these of those that nobody saw end."""
    sql = (
        f"SELECT ended_at IS NULL, coalesce(ended_at, 0.0), attempt_key FROM attempt WHERE {ATTEMPTS_BETWEEN}"
        " AND outcome = 'failed' ORDER BY 1 DESC, 2 DESC, 3 DESC LIMIT $limit"
    )
    failures: list[tuple[bool, float, int]] = []
    for plan in plans(connection, job_id, history=True):
        failures += connection.execute(sql, {"first": plan.first, "last": plan.last, "limit": limit}).fetchall()
    return [key for *_, key in sorted(failures)[max(len(failures) - limit, 0) :]]


def task_id(connection: Any, key: int) -> str:
    return str(there(connection.execute("SELECT task_id FROM task WHERE task_key = ?", (key,)).fetchone())[0])
