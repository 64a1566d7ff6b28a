"""DataFrames of jobs, stages, tasks, attempts, errors and logs, as they are at one moment.

Others may be writing meanwhile, and are not held up. Columns and dtypes are the same for no rows as for many:

============================================  =====================================================================
``status``, ``outcome``, ``error_category``   categorical, of all the words that there are
ids, names, types, errors, output, versions   ``string``
``parameters``, ``result``, ``metadata``      ``object``: what the JSON says, a dict of its own in each row, or None
times: ``…_at``, ``not_before``               ``datetime64[us, UTC]``
``duration``, ``cpu``, ``backoff``            ``timedelta64[us]``
numbers                                       ``int64`` where there is always one, else ``Int64``
``retryable``, ``superseded``                 ``boolean``, ``bool``
============================================  =====================================================================

A frame is data: parameters are in it as they are, also those that are masked wherever they are drawn, logged or told.
"""

from __future__ import annotations

import gc
import os
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
# What all tasks of a plan have in common, and their keys.
_PLAN = _words("job_id stage stage_name created_at superseded first last")

# What is not text: a dtype of pandas, or a word for what is read in a way of its own.
_KINDS: dict[str, Any] = dict.fromkeys(_words("parameters result metadata"), "json")
_KINDS |= dict.fromkeys(_words("created_at planned_at queued_at started_at ended_at not_before"), "time")
_KINDS |= dict.fromkeys(_words("cpu backoff"), "span")
_KINDS |= dict.fromkeys(_words("stage total_stages tasks completed failed queued processing cancelled"), "int64")
_KINDS |= dict.fromkeys(_words("task_key task_index attempts retries attempt"), "int64")
_KINDS |= dict.fromkeys(_words("slot pid peak_memory"), "Int64") | {"retryable": "boolean", "superseded": "bool"}
for _name, _enum in {"status": TaskStatus, "outcome": Outcome, "error_category": Category}.items():
    _KINDS[_name] = pd.CategoricalDtype([str(word) for word in _enum])
# Anyone may log anything, so here no number is sure to be there.
_LOG_KINDS = {"stage": "Int64", "attempt": "Int64", "retryable": "boolean", "duration_ms": "float64"}

# Tasks with their last attempt, and attempts with their task: `stores/schema.sql` says how the keys hang together.
_TASK_ROWS = (
    "task LEFT JOIN attempt ON attempt_key = task.task_key * 4096 + task.attempt"
    " WHERE task.task_key BETWEEN $first AND $last"
)
_ATTEMPT_ROWS = "attempt JOIN task USING (task_key) WHERE attempt_key BETWEEN $first * 4096 AND $last * 4096 + 4095"
_SQL = {"task_key": "task.task_key", "attempts": "task.attempt", "attempt": "attempt.attempt"}

_CHUNK = 1_000  # keys that are read at a time: few enough for the processor's caches and for SQLite's longest text

# A column before it has its dtype: floats, with NaN where there is no number, or else objects. Times are microseconds,
# which floats hold exactly until the year 2255.
Raw: TypeAlias = np.ndarray[Any, Any]


def jobs(store: Store) -> pd.DataFrame:
    """All jobs, one row each, oldest first. ``tasks``, ``completed`` and ``failed`` are numbers of tasks."""
    names = [name for name in _JOBS if name != "duration"]
    with _snapshot(store) as connection:
        keys = connection.execute("SELECT 1, coalesce(max(job_key), 0) FROM job").fetchall()
        return _frame(_JOBS, _read(connection, names, "jobs WHERE job_key BETWEEN $first AND $last", keys))


def stages(store: Store, job_id: str) -> pd.DataFrame:
    """The job's stages in order, one row each; those to come have no ``planned_at`` and no tasks.

    Columns called like the states say how many tasks are in each. ``started_at`` and ``ended_at`` are those of the
    first and of the last attempt so far.
    """
    with _snapshot(store) as connection:
        found = connection.execute("SELECT stages FROM job WHERE job_id = $job_id", {"job_id": job_id}).fetchone()
        rows: list[dict[str, Any]] = from_json(found[0]) if found else []
        for number, row in enumerate(rows, 1):
            row |= {"job_id": job_id, "stage": number, "stage_name": row["name"], "tasks": 0}
            row |= {str(status): 0 for status in TaskStatus}
        for plan in _plans(connection, job_id):
            keys = {"first": plan["first"], "last": plan["last"]}
            states = "SELECT status, count(*) FROM task WHERE task_key BETWEEN $first AND $last GROUP BY status"
            times = f"SELECT min(started_at) * 1e6, max(ended_at) * 1e6 FROM {_ATTEMPT_ROWS}"
            row = rows[plan["stage"] - 1]
            row |= {"planned_at": plan["created_at"], "tasks": plan["last"] - plan["first"] + 1}
            row |= connection.execute(states, keys).fetchall()
            row["started_at"], row["ended_at"] = connection.execute(times, keys).fetchone()
    return _frame(_STAGES, {name: _raw(name, [row.get(name) for row in rows]) for name in _STAGES})


def tasks(store: Store, job_id: str, *, flat: bool = False, history: bool = False) -> pd.DataFrame:
    """The tasks of one job, one row each, in the order in which they were planned.

    ``error`` and what belongs to it, ``started_at``, ``ended_at`` and ``code`` are those of the last attempt that
    ended, until another one begins; ``result`` is all that the handler returned.

    *history* adds the tasks of plans that a rerun set aside, and a column ``superseded`` that tells them apart.

    *flat* gives columns ``parameters.x`` and ``result.y``, at the end, in place of ``parameters`` and ``result``. Keys
    of dicts in dicts are joined by dots; lists stay objects. Where a handler returned nothing but ``"success"`` and a
    dict ``"result"``, that dict is the result.
    """
    names = [*_TASKS, "superseded"] if history else _TASKS
    columns = _of_job(store, job_id, names, _TASK_ROWS, history)
    if not flat:
        return _frame(names, columns)
    frame = _frame([name for name in names if name not in ("parameters", "result")], columns)
    more = _flat("parameters", columns["parameters"]) | _flat("result", map(_contents, columns["result"]))
    return frame.join(pd.DataFrame(more, index=frame.index))


def attempts(store: Store, job_id: str) -> pd.DataFrame:
    """The attempts of one job's tasks, one row each, task by task.

    Those of plans that a rerun set aside are there too: ``superseded`` tells them apart. ``queued_at`` of a first
    attempt is when its stage was planned. ``peak_memory`` is in bytes.
    """
    columns = _of_job(store, job_id, _ATTEMPTS, _ATTEMPT_ROWS, history=True)
    queued_at = np.where(np.isnan(columns["queued_at"]), columns["created_at"], columns["queued_at"])
    return _frame(_ATTEMPTS, columns | {"queued_at": queued_at})


def errors(store: Store, job_id: str) -> pd.DataFrame:
    """The attempts that failed, with the columns of `attempts`, newest last, and after these what nobody saw end."""
    found = attempts(store, job_id)
    return found[found["outcome"] == "failed"].sort_values("ended_at", kind="stable", ignore_index=True)


def logs(path: str | os.PathLike[str] | None, job_id: str | None = None) -> pd.DataFrame:
    """The lines of the log at *path* that are about *job_id*, or all of them, oldest first.

    What else lines have follows in columns of its own. Where something is not of its column's dtype, the column is
    ``object`` and has all of it as it is; but what is no time is NaT.
    """
    lines = [line for line in read(path) if job_id in (None, line.get("job_id"))] if path is not None else []
    names = dict.fromkeys(chain(_LOGS, *lines))
    return pd.DataFrame({name: _logged(name, _objects([line.get(name) for line in lines])) for name in names})


# Reading


@contextmanager
def _snapshot(store: Store) -> Iterator[Any]:
    """A connection that sees the store as it is now, whatever is written meanwhile."""
    # Nothing that is read is garbage, and looking for some among so many new dicts would take a third of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        with store.reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()
    finally:
        if collects:
            gc.enable()


def _plans(connection: Any, job_id: str, history: bool = False) -> list[dict[str, Any]]:
    """The job's plans in the order of their tasks' keys."""
    rows = connection.execute(
        "SELECT job_id, stage, stage_name, planned_at * 1e6, superseded, first_key, first_key + tasks - 1 FROM stages"
        " WHERE job_id = $job_id AND superseded <= $history ORDER BY first_key, stage_key",
        {"job_id": job_id, "history": int(history)},
    )
    return [dict(zip(_PLAN, row, strict=True)) for row in rows.fetchall()]


def _of_job(store: Store, job_id: str, names: Iterable[str], source: str, history: bool) -> dict[str, Raw]:
    """The columns *names*, and those of `_PLAN`, of the rows of *source* that belong to the job, ordered by key."""
    wanted = [name for name in names if name not in (*_PLAN, "task_index", "duration")]
    with _snapshot(store) as connection:
        plans = _plans(connection, job_id, history)
        keys = [(plan["first"], plan["last"]) for plan in plans]
        columns = _read(connection, ["task_key", *wanted], source, keys)
    # What all tasks of a plan have in common is not read for each of them.
    which = np.searchsorted([first for first, _ in keys], columns["task_key"], side="right") - 1
    columns |= {name: _raw(name, [plan[name] for plan in plans])[which] for name in _PLAN}
    return columns | {"task_index": columns["task_key"] - columns["first"]}


def _read(connection: Any, names: Sequence[str], source: str, keys: Iterable[tuple[int, int]]) -> dict[str, Raw]:
    """The columns *names* of the rows of *source* with *keys*, each from a first to a last, ordered by key.

    From SQLite each column comes as one JSON text, at a third of the price of as many Python objects.
    """
    gathered = []
    for name in names:
        match _KINDS.get(name):
            case "json":
                gathered.append(f"'[' || coalesce(group_concat(coalesce({name}, 'null')), '') || ']'")
            case "time" | "span":
                gathered.append(f"json_group_array(CAST({name} * 1e6 + 0.5 AS INTEGER))")
            case _:
                gathered.append(f"json_group_array({_SQL.get(name, name)})")
    query = f"SELECT {', '.join(gathered)} FROM {source}"
    parts = {name: [_raw(name, [])] for name in names}
    for first, last in keys:
        for start in range(first, last + 1, _CHUNK):
            texts = connection.execute(query, {"first": start, "last": min(start + _CHUNK - 1, last)}).fetchone()
            for name, text in zip(names, texts, strict=True):
                parts[name].append(_raw(name, from_json(text)))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


# Arranging


def _contents(value: Any) -> Any:
    """Of what a handler returned, what is worth columns."""
    if value and value.keys() == {"success", "result"} and isinstance(value["result"], dict):
        return value["result"]
    return value


def _flat(prefix: str, values: Iterable[dict[str, Any] | None]) -> dict[str, Any]:
    """Columns for the keys in *values*, in the order in which they are met."""
    values = list(values)
    columns: dict[str, Raw] = {}
    for row, value in enumerate(values):
        for name, leaf in _leaves(prefix, value or {}):
            if name not in columns:
                columns[name] = np.full(len(values), None, dtype=object)
            columns[name][row] = leaf
    return {name: pd.array(column) for name, column in columns.items()}


def _leaves(prefix: str, value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _leaves(f"{prefix}.{key}", item)
        else:
            yield f"{prefix}.{key}", item


# Giving dtypes


def _objects(values: Sequence[Any]) -> Raw:
    return np.fromiter(values, dtype=object, count=len(values))


def _raw(name: str, values: Sequence[Any]) -> Raw:
    kind = _KINDS.get(name, "text")
    is_number = isinstance(kind, str) and kind not in ("text", "json")
    return np.array(values, dtype=float) if is_number else _objects(values)


def _typed(kind: Any, raw: Raw) -> Any:
    match kind:
        case "text":
            return pd.arrays.StringArray(raw)  # the same whether pyarrow is installed or not
        case "json":
            return raw
        case "time":
            return pd.DatetimeIndex(raw.round().astype("M8[us]"), tz="UTC")
        case "span":
            return raw.astype("m8[us]")
    return pd.array(raw, dtype=kind)


def _logged(name: str, objects: Raw) -> Any:
    if name == "time":
        return pd.DatetimeIndex(pd.to_datetime(objects, format="ISO8601", utc=True, errors="coerce")).as_unit("us")
    try:
        return _typed(_LOG_KINDS.get(name, "text"), objects) if name in _LOGS else pd.array(objects)
    except (TypeError, ValueError, OverflowError):
        return objects


def _frame(names: Iterable[str], columns: Mapping[str, Raw]) -> pd.DataFrame:
    data: dict[str, Any] = {}
    for name in names:
        if name == "duration":  # exactly the difference of the times in this frame
            data[name] = data["ended_at"] - data["started_at"]
        else:
            data[name] = _typed(_KINDS.get(name, "text"), columns[name])
    return pd.DataFrame(data, copy=False)
