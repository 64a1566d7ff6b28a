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
from typing import Any

import numpy as np
import pandas as pd

from geoflow.logs import read
from geoflow.models import Category, Outcome, TaskStatus
from geoflow.stores.base import Store
from geoflow.values import from_json

_JOBS = """
    job_id job_type status stage total_stages parameters result error created_at started_at ended_at duration
    tasks completed failed traceback source
""".split()
_STAGES = """
    job_id stage stage_name task_type parallelism tasks queued processing completed failed cancelled
    planned_at started_at ended_at duration
""".split()
_TASKS = """
    job_id task_id stage stage_name task_index task_type status attempts retries parameters result
    error error_type error_category created_at started_at ended_at duration code metadata not_before
""".split()
_ATTEMPTS = """
    job_id task_id stage attempt outcome error error_type error_category retryable traceback output slot pid
    queued_at started_at ended_at duration cpu peak_memory stage_name task_index task_type backoff code superseded
""".split()
_LOGS = """
    time level logger message job_id job_type stage task_id task_type attempt correlation_id operation
    error_type error_message error_category retryable duration_ms traceback
""".split()

# The dtypes of the columns that are not text: pandas' names, or one of our own for what pandas needs help with.
_DTYPES: dict[str, Any] = {
    name: dtype
    for dtype, names in {
        "json": "parameters result metadata",
        "time": "created_at planned_at queued_at started_at ended_at not_before",
        "span": "cpu backoff",
        "int64": "stage total_stages tasks queued processing completed failed cancelled task_index attempts retries attempt",
        "Int64": "slot pid peak_memory",
        "boolean": "retryable",
        "bool": "superseded",
    }.items()
    for name in names.split()
} | {
    name: pd.CategoricalDtype([str(word) for word in words])
    for name, words in {"status": TaskStatus, "outcome": Outcome, "error_category": Category}.items()
}
# Anyone may log anything, so here no number is sure to be there.
_LOG_DTYPES = {"time": "iso", "stage": "Int64", "attempt": "Int64", "retryable": "boolean", "duration_ms": "float64"}

Raw = Any
_CHUNK = 1_000  # rows that are read at a time: few enough for the processor's caches, and for SQLite's longest text


def jobs(store: Store) -> pd.DataFrame:
    """All jobs, one row each, oldest first. ``tasks``, ``completed`` and ``failed`` are numbers of tasks."""
    with _snapshot(store) as connection:
        (last,) = connection.execute("SELECT coalesce(max(job_key), 0) FROM job").fetchone()
        columns = _read(connection, "jobs", "job_key", _stored(_JOBS), 1, last)
    return _frame(_JOBS, columns)


def stages(store: Store, job_id: str) -> pd.DataFrame:
    """The job's stages in order, one row each; those to come have no ``planned_at`` and no tasks.

    Columns called like the states say how many tasks are in each. ``started_at`` and ``ended_at`` are those of the
    first and of the last attempt so far.
    """
    states = [str(status) for status in TaskStatus]
    rows: list[dict[str, Any]] = []
    with _snapshot(store) as connection:
        found = connection.execute("SELECT stages FROM job WHERE job_id = ?", (job_id,)).fetchone()
        for number, stage in enumerate(from_json(found[0]) if found else [], 1):
            rows.append({**stage, "job_id": job_id, "stage": number, "stage_name": stage["name"]} | dict.fromkeys(["tasks", *states], 0))
    return _frame(_STAGES, {name: [row.get(name) for row in rows] for name in _STAGES})


def tasks(store: Store, job_id: str, *, flat: bool = False, history: bool = False) -> pd.DataFrame:
    """The tasks of one job, one row each, in the order in which they were planned.

    ``error`` and what belongs to it, ``started_at``, ``ended_at`` and ``code`` are those of the last attempt that
    ended, until another one begins; ``result`` is all that the handler returned.

    *history* adds the tasks of plans that a rerun set aside, and a column ``superseded`` that tells them apart.

    *flat* gives columns ``parameters.x`` and ``result.y``, at the end, in place of ``parameters`` and ``result``. Keys
    are joined by dots down to the third level; what is deeper, and lists, stay objects. Where a handler returned
    nothing but ``"success"`` and a dict ``"result"``, that dict is the result. Of two keys that come to the same name
    the later one counts.
    """
    names = [*_TASKS, "superseded"] if history else _TASKS
    columns = _of_job(store, job_id, "tasks", _stored(names), history)
    if not flat:
        return _frame(names, columns)
    wide = _flat("parameters", columns["parameters"]) | _flat("result", map(_contents, columns["result"]))
    return _frame([name for name in names if name not in ("parameters", "result")], columns).assign(**wide)


def attempts(store: Store, job_id: str) -> pd.DataFrame:
    """The attempts of one job's tasks, one row each, task by task.

    Those of plans that a rerun set aside are there too: ``superseded`` tells them apart. ``queued_at`` of a first
    attempt is when its stage was planned. ``peak_memory`` is in bytes.
    """
    return _frame(_ATTEMPTS, _of_job(store, job_id, "attempts", _stored(_ATTEMPTS), history=True))


def errors(store: Store, job_id: str) -> pd.DataFrame:
    """The attempts that failed, with the columns of `attempts`, newest last, and after these what nobody saw end."""
    found = attempts(store, job_id)
    return found[found["outcome"] == "failed"].sort_values("ended_at", kind="stable", ignore_index=True)


def logs(path: str | os.PathLike[str] | None, job_id: str | None = None) -> pd.DataFrame:
    """The lines of the log at *path* that are about *job_id*, or all of them, oldest first.

    What else lines have follows in columns of its own.
    """
    return pd.DataFrame()


# Reading


@contextmanager
def _snapshot(store: Store) -> Iterator[Any]:
    """A connection that sees the store as it is now, whatever is written meanwhile."""
    # Looking for garbage among so many new dicts takes a third of the time, and there is none.
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


def _stored(names: Iterable[str]) -> list[str]:
    return [name for name in names if name != "duration"]


def _of_job(store: Store, job_id: str, view: str, names: Sequence[str], history: bool) -> dict[str, Raw]:
    """The columns *names* of a view's rows that belong to the job, in the order of its tasks' keys."""
    parts = [{name: _raw(name, []) for name in names}]
    with _snapshot(store) as connection:
        plans = connection.execute(
            "SELECT stage, stage_name, planned_at, superseded, first_key, tasks FROM stages"
            " WHERE job_id = ? AND superseded <= ? ORDER BY first_key",
            (job_id, int(history)),
        ).fetchall()
        for stage, stage_name, planned_at, superseded, first, count in plans:
            # What is the same for all tasks of a plan is not read for each of them.
            shared = {"job_id": job_id, "stage": stage, "stage_name": stage_name, "superseded": superseded}
            shared["created_at"] = round(planned_at * 1e6)
            found = _read(connection, view, "task_key", [name for name in names if name not in shared], first, first + count - 1)
            rows = len(found["task_id"])
            parts.append(found | {name: np.repeat(_raw(name, [value]), rows) for name, value in shared.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _read(connection: Any, view: str, key: str, names: Sequence[str], first: int, last: int) -> dict[str, Raw]:
    """The columns *names* of the view's rows with a *key* from *first* to *last*, in its order.

    From SQLite each column comes as one JSON text, at a third of the price of as many Python objects.
    """
    query = f"SELECT {', '.join(map(_gathered, names))} FROM {view} WHERE {key} BETWEEN ? AND ?"
    parts = {name: [_raw(name, [])] for name in names}
    for start in range(first, last + 1, _CHUNK):
        texts = connection.execute(query, (start, min(start + _CHUNK - 1, last))).fetchone()
        for name, text in zip(names, texts, strict=True):
            parts[name].append(_raw(name, from_json(text)))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _gathered(name: str) -> str:
    match _DTYPES.get(name):
        case "json":
            return f"'[' || coalesce(group_concat(coalesce({name}, 'null')), '') || ']'"
        case "time" | "span":
            return f"json_group_array(CAST({name} * 1e6 + 0.5 AS INTEGER))"
    return f"json_group_array({name})"


# Arranging


def _contents(value: Any) -> Any:
    """Of what a handler returned, what is worth columns."""
    inner = value.get("result") if isinstance(value, dict) and value.keys() == {"success", "result"} else None
    return inner if isinstance(inner, dict) else value


def _flat(prefix: str, values: Iterable[Any]) -> dict[str, Any]:
    """Columns for the keys in *values*, in the order in which they are met."""
    rows = [dict(_leaves(prefix, value, 3)) for value in values]
    names = dict.fromkeys(chain.from_iterable(rows))
    return {name: _inferred([row.get(name) for row in rows]) for name in names}


def _leaves(prefix: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    for key, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, dict) and item and depth > 1:
            yield from _leaves(f"{prefix}.{key}", item, depth - 1)
        else:
            yield f"{prefix}.{key}", item


# Giving dtypes


def _objects(values: Sequence[Any]) -> Raw:
    return np.fromiter(values, dtype=object, count=len(values))


def _raw(name: str, values: Sequence[Any]) -> Raw:
    dtype = _DTYPES.get(name, "text")
    return _objects(values) if dtype in ("text", "json") or not isinstance(dtype, str) else np.array(values, dtype=float)


def _inferred(values: list[Any]) -> Any:
    return pd.array(_objects(values))


def _typed(dtype: Any, raw: Raw) -> Any:
    match dtype:
        case "text":
            return pd.arrays.StringArray(raw)
        case "json":
            return raw
        case "time":
            return pd.DatetimeIndex(raw.astype("M8[us]"), tz="UTC")
        case "span":
            return raw.astype("m8[us]")
    return pd.array(raw, dtype=dtype)


def _frame(names: Sequence[str], columns: Mapping[str, Raw]) -> pd.DataFrame:
    data: dict[str, Any] = {}
    for name in names:
        data[name] = data["ended_at"] - data["started_at"] if name == "duration" else _typed(_DTYPES.get(name, "text"), columns[name])
    return pd.DataFrame(data, copy=False)
