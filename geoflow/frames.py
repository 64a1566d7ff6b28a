"""DataFrames of jobs, stages, tasks, attempts, errors and logs, as they are at one moment, whoever writes meanwhile.

Columns and dtypes are the same for no rows as for many: text is ``string``, states are categorical, times are
``datetime64[us, UTC]``, durations ``timedelta64[us]``, numbers ``int64``, or ``Int64`` where there may be none, and
parameters, results and metadata are objects: what the JSON says, or None. A frame is data: nothing in it is masked.
"""

from __future__ import annotations

import gc
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from geoflow.logs import read
from geoflow.models import Category, Outcome, TaskStatus
from geoflow.stores.base import Store
from geoflow.values import from_json


def _words(*lines: str) -> list[str]:
    return " ".join(lines).split()


_JOBS = _words(
    "job_id job_type status stage total_stages parameters result error created_at started_at ended_at duration",
    "tasks completed failed traceback source",
)
_STAGES = _words(
    "job_id stage stage_name task_type parallelism tasks queued processing completed failed cancelled",
    "planned_at started_at ended_at duration",
)
_TASKS = _words(
    "job_id task_id stage stage_name task_index task_type status attempts retries parameters result",
    "error error_type error_category created_at started_at ended_at duration code metadata not_before",
)
_ATTEMPTS = _words(
    "job_id task_id stage attempt outcome error error_type error_category retryable traceback output slot pid",
    "queued_at started_at ended_at duration cpu peak_memory stage_name task_index task_type backoff code superseded",
)
_LOGS = _words(
    "time level logger message job_id job_type stage task_id task_type attempt correlation_id operation",
    "error_type error_message error_category retryable duration_ms traceback",
)
_PLAN = _words("job_id stage stage_name created_at superseded first last")  # what a plan's tasks share, and their keys

# The columns' dtypes: pandas' names, or a word for what is made in a way of its own.
_KINDS: dict[str, Any] = dict.fromkeys([*_JOBS, *_STAGES, *_TASKS, *_ATTEMPTS, *_PLAN], "text")
_KINDS |= dict.fromkeys(_words("parameters result metadata"), "object")
_KINDS |= dict.fromkeys(_words("created_at planned_at queued_at started_at ended_at not_before"), "time")
_KINDS |= dict.fromkeys(_words("duration cpu backoff"), "span")
_KINDS |= dict.fromkeys(_words("stage total_stages tasks completed failed queued processing cancelled"), "int64")
_KINDS |= dict.fromkeys(_words("first last task_key task_index attempts retries attempt"), "int64")
_KINDS |= dict.fromkeys(_words("slot pid peak_memory"), "Int64") | {"retryable": "boolean", "superseded": "bool"}
for _name, _enum in {"status": TaskStatus, "outcome": Outcome, "error_category": Category}.items():
    _KINDS[_name] = pd.CategoricalDtype([str(word) for word in _enum])
_LOG_DTYPES = dict.fromkeys(_LOGS, "string") | {"time": "datetime64[us, UTC]", "stage": "Int64", "attempt": "Int64"}
_LOG_DTYPES |= {"retryable": "boolean", "duration_ms": "Float64"}  # lines have what applies to them, no more

# Tasks with their last attempt, and attempts with their task: `stores/schema.sql` says how the keys hang together.
_TASK_ROWS = (
    "task LEFT JOIN attempt ON attempt_key = task.task_key * 4096 + task.attempt"
    " WHERE task.task_key BETWEEN $first AND $last"
)
_ATTEMPT_ROWS = "attempt JOIN task USING (task_key) WHERE attempt_key BETWEEN $first * 4096 AND $last * 4096 + 4095"
_SQL = {"task_key": "task.task_key", "attempts": "task.attempt", "attempt": "attempt.attempt"}
_CHUNK = 1_000  # keys that are read at a time: few enough for the processor's caches and for SQLite's longest text

Raw: TypeAlias = np.ndarray[Any, Any]  # a column before it has its dtype: objects, or floats; microseconds for times


def jobs(store: Store) -> pd.DataFrame:
    """All jobs, one row each, oldest first. ``tasks``, ``completed`` and ``failed`` are numbers of tasks."""
    with _snapshot(store) as connection:
        keys = connection.execute("SELECT 1, coalesce(max(job_key), 0) FROM job").fetchall()
        return _frame(_JOBS, _read(connection, _JOBS, "jobs WHERE job_key BETWEEN $first AND $last", keys))


def stages(store: Store, job_id: str) -> pd.DataFrame:
    """The job's stages in order, one row each; those to come have no ``planned_at`` and no tasks.

    Columns called like the states say how many tasks are in each; the times are of the first and the last attempt.
    """
    states = "SELECT status, count(*) FROM task WHERE task_key BETWEEN $first AND $last GROUP BY status"
    times = f"SELECT round(min(started_at) * 1e6), round(max(ended_at) * 1e6) FROM {_ATTEMPT_ROWS}"
    with _snapshot(store) as connection:
        found = connection.execute("SELECT stages FROM job WHERE job_id = $job_id", {"job_id": job_id}).fetchone()
        declared = from_json(found[0]) if found else []
        rows = [stage | {"job_id": job_id, "stage": stage["number"], "stage_name": stage["name"]} for stage in declared]
        for plan in _plans(connection, job_id):
            keys = {"first": plan["first"], "last": plan["last"]}
            row = rows[plan["stage"] - 1]
            row |= {"planned_at": plan["created_at"], "tasks": plan["last"] - plan["first"] + 1}
            row |= connection.execute(states, keys).fetchall()
            row["started_at"], row["ended_at"] = connection.execute(times, keys).fetchone()
    none = dict.fromkeys(["tasks", *TaskStatus], 0)
    columns = {name: _raw(_KINDS[name], [row.get(name, none.get(name)) for row in rows]) for name in _STAGES}
    return _frame(_STAGES, columns)


def tasks(store: Store, job_id: str, *, flat: bool = False, history: bool = False) -> pd.DataFrame:
    """The tasks of one job, one row each, in the order in which they were planned.

    ``error`` and what belongs to it, ``started_at``, ``ended_at`` and ``code`` are those of the last attempt that
    ended, until another one begins; ``result`` is all that the handler returned. *history* adds the tasks of plans that
    a rerun set aside, and a column ``superseded`` that tells them apart.

    *flat* spreads dicts into columns ``parameters.x``, ``parameters.x.z`` and ``result.y``, at the end. Where a handler
    returned nothing but ``"success"`` and a dict ``"result"``, that dict is the result.
    """
    columns = _of_job(store, job_id, _TASKS, _TASK_ROWS, history)
    frame = _frame([*_TASKS, "superseded"] if history else _TASKS, columns)
    if flat:
        results = [_contents(value) for value in columns["result"]]
        more = _flat("parameters", columns["parameters"].tolist()) | _flat("result", results)
        frame = frame.drop(columns=["parameters", "result"]).join(pd.DataFrame(more, index=frame.index))
    return frame


def attempts(store: Store, job_id: str) -> pd.DataFrame:
    """The attempts of one job's tasks, one row each, task by task.

    Those of plans that a rerun set aside are there too: ``superseded`` tells them apart. ``queued_at`` of a first
    attempt is when its stage was planned. ``peak_memory`` is in bytes.
    """
    columns = _of_job(store, job_id, [*_ATTEMPTS, "task_key"], _ATTEMPT_ROWS, history=True)
    queued_at = np.where(np.isnan(columns["queued_at"]), columns["created_at"], columns["queued_at"])
    return _frame(_ATTEMPTS, columns | {"queued_at": queued_at})


def errors(store: Store, job_id: str) -> pd.DataFrame:
    """The attempts that failed, with the columns of `attempts`, newest last, and after these what nobody saw end."""
    failed = attempts(store, job_id).query("outcome == 'failed'")
    return failed.sort_values("ended_at", kind="stable", ignore_index=True)


def logs(path: str | os.PathLike[str] | None, job_id: str | None = None) -> pd.DataFrame:
    """The lines of the log at *path* that are about *job_id*, or all of them, oldest first.

    Further fields follow. A column with a value that is not of its dtype is left as it is; what is no time is NaT.
    """
    lines = [line for line in read(path) if job_id in (None, line.get("job_id"))] if path is not None else []
    names = dict.fromkeys(chain(_LOGS, *lines))
    frame = pd.DataFrame({name: _typed(None, _raw("object", [line.get(name) for line in lines])) for name in names})
    frame["time"] = pd.to_datetime(frame["time"], format="ISO8601", utc=True, errors="coerce")
    return frame.astype(_LOG_DTYPES, errors="ignore")


@contextmanager
def _snapshot(store: Store) -> Iterator[Any]:
    """A connection that sees the store as it is now, whatever is written meanwhile."""
    # Nothing that is read is garbage, and looking for some among so many new dicts would take a third of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        with store.reading() as connection, connection:
            connection.execute("BEGIN")
            yield connection
    finally:
        if collects:
            gc.enable()


def _plans(connection: Any, job_id: str, history: bool = False) -> list[dict[str, Any]]:
    """The job's plans in the order of their tasks' keys."""
    rows = connection.execute(
        "SELECT job_id, stage, stage_name, round(planned_at * 1e6), superseded, first_key, first_key + tasks - 1"
        " FROM stages WHERE job_id = $job_id AND superseded <= $history ORDER BY first_key, stage_key",
        {"job_id": job_id, "history": int(history)},
    )
    return [dict(zip(_PLAN, row, strict=True)) for row in rows.fetchall()]


def _of_job(store: Store, job_id: str, names: Iterable[str], source: str, history: bool) -> dict[str, Raw]:
    """The columns *names*, and those of `_PLAN`, of the rows of *source* that belong to the job, ordered by key."""
    read_too = [name for name in names if name not in (*_PLAN, "task_index", "duration")]
    with _snapshot(store) as connection:
        plans = _plans(connection, job_id, history)
        keys = [(plan["first"], plan["last"]) for plan in plans]
        columns = _read(connection, read_too, source, keys)
    task_keys = columns.get("task_key", np.concatenate([[], *(np.arange(first, last + 1) for first, last in keys)]))
    which = np.searchsorted([first for first, _ in keys], task_keys, side="right") - 1
    columns |= {name: _raw(_KINDS[name], [plan[name] for plan in plans])[which] for name in _PLAN}
    return columns | {"task_index": task_keys - columns["first"]}


def _read(connection: Any, names: Sequence[str], source: str, keys: Iterable[tuple[int, int]]) -> dict[str, Raw]:
    """The columns *names* of the rows of *source* with *keys*, each from a first to a last, ordered by key."""
    # Each column comes as one JSON text, at a third of the price of as many Python objects. SQLite reads by the key,
    # and so in order; DuckDB is to be told.
    if isinstance(connection, sqlite3.Connection):
        every, joined = "json_group_array({})", "'[' || coalesce(group_concat(coalesce({}, 'null')), '') || ']'"
    else:
        key = {"task": "task.task_key", "attempt": "attempt_key", "jobs": "job_key"}[source.split(maxsplit=1)[0]]
        every = f"coalesce(CAST(to_json(list({{}} ORDER BY {key})) AS VARCHAR), '[]')"
        joined = every.format("CAST({} AS JSON)")
    rounded = every.format("CAST(round({} * 1e6) AS BIGINT)")
    forms = {"object": joined, "time": rounded, "span": rounded}
    texts = [forms.get(_KINDS[name], every).format(_SQL.get(name, name)) for name in names]
    parts = {name: [_raw(_KINDS[name], [])] for name in names}
    before: dict[str, str] = {}
    for first, last in keys:
        for start in range(first, last + 1, _CHUNK):
            chunk = {"first": start, "last": min(start + _CHUNK - 1, last)}
            row = connection.execute(f"SELECT {', '.join(texts)} FROM {source}", chunk).fetchone()
            for name, text in zip(names, row, strict=True):
                # Most columns say the same all along; but each row gets a dict of its own.
                same = text == before.get(name) and _KINDS[name] != "object"
                parts[name].append(parts[name][-1] if same else _raw(_KINDS[name], from_json(text)))
                before[name] = text
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _contents(value: Any) -> Any:
    """Of what a handler returned, what is worth columns."""
    inner = value["result"] if value and value.keys() == {"success", "result"} else None
    return inner if isinstance(inner, dict) else value


def _flat(name: str, values: list[Any]) -> dict[str, Any]:
    """The column *name*; where all *values* are dicts or None, one column for each of their keys, as they are met."""
    if not any(values) or not all(isinstance(value, dict | None) for value in values):
        return {name: _typed(None, _raw("object", values))}
    columns: dict[str, Any] = {}
    for key in dict.fromkeys(chain.from_iterable(filter(None, values))):
        columns |= _flat(f"{name}.{key}", [value.get(key) if value else None for value in values])
    return columns


def _raw(kind: Any, values: Sequence[Any]) -> Raw:
    if isinstance(kind, str) and kind not in ("text", "object"):
        return np.array(values, dtype=float)
    return np.fromiter(values, dtype=object, count=len(values))


def _typed(kind: Any, raw: Raw) -> Any:
    if kind == "text":
        return pd.arrays.StringArray(raw)  # the same whether pyarrow is installed or not
    if kind == "time":
        return pd.DatetimeIndex(raw.astype("M8[us]"), tz="UTC")
    if kind == "span":
        return raw.astype("m8[us]")
    try:
        return pd.array(raw, dtype=kind)  # for None, of the dtype that all of it is
    except OverflowError:  # pandas 2 has no place for whole numbers above 2**63
        return raw


def _frame(names: Iterable[str], columns: Mapping[str, Raw]) -> pd.DataFrame:
    columns = {**columns, "duration": columns["ended_at"] - columns["started_at"]}
    return pd.DataFrame({name: _typed(_KINDS[name], columns[name]) for name in names}, copy=False)
