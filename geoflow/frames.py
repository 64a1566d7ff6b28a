"""DataFrames of jobs, stages, tasks, attempts, errors and logs, as they are at one moment.

Others may be writing meanwhile, and are not held up. Columns and dtypes are the same for no rows as for many:

==============================================  =======================================================================
``status``, ``outcome``, ``error_category``     categorical, of all the words that there are
ids, names, types, errors, output, versions     ``string``
``parameters``, ``result``, ``metadata``        ``object``: what the JSON says, a dict of its own in each row, or None
times: ``…_at``, ``not_before``                 ``datetime64[us, UTC]``
``duration``, ``cpu``, ``backoff``              ``timedelta64[us]``
numbers                                         ``int64`` where there is always one, else ``Int64``
``retryable``, ``superseded``                   ``boolean``, ``bool``
==============================================  =======================================================================

A frame is data: parameters are in it as they are, also those that are masked wherever they are drawn, logged or told.
"""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from geoflow.logs import read
from geoflow.models import Category, Outcome, TaskStatus
from geoflow.values import from_json

if TYPE_CHECKING:
    import os

    import numpy as np
    import pandas as pd

    from geoflow.stores.base import Store

    # What a column is before it gets its dtype: objects, or numbers with `_NOTHING` for what is missing.
    Raw: TypeAlias = np.ndarray[Any, Any]

MOST_FLAT_COLUMNS = 1_000

_JOBS = [
    "job_id",
    "job_type",
    "status",
    "stage",
    "total_stages",
    "parameters",
    "result",
    "error",
    "created_at",
    "started_at",
    "ended_at",
    "duration",
    "tasks",
    "completed",
    "failed",
    "traceback",
    "source",
]
_STAGES = [
    "job_id",
    "stage",
    "stage_name",
    "task_type",
    "parallelism",
    "tasks",
    "queued",
    "processing",
    "completed",
    "failed",
    "cancelled",
    "planned_at",
    "started_at",
    "ended_at",
    "duration",
]
_TASKS = [
    "job_id",
    "task_id",
    "stage",
    "stage_name",
    "task_index",
    "task_type",
    "status",
    "attempts",
    "retries",
    "parameters",
    "result",
    "error",
    "error_type",
    "error_category",
    "created_at",
    "started_at",
    "ended_at",
    "duration",
    "code",
    "metadata",
    "not_before",
]
_ATTEMPTS = [
    "job_id",
    "task_id",
    "stage",
    "attempt",
    "outcome",
    "error",
    "error_type",
    "error_category",
    "retryable",
    "traceback",
    "output",
    "slot",
    "pid",
    "queued_at",
    "started_at",
    "ended_at",
    "duration",
    "cpu",
    "peak_memory",
    "stage_name",
    "task_index",
    "task_type",
    "backoff",
    "code",
    "superseded",
]
_LOGS = [
    "time",
    "level",
    "logger",
    "message",
    "job_id",
    "job_type",
    "stage",
    "task_id",
    "task_type",
    "attempt",
    "correlation_id",
    "operation",
    "error_type",
    "error_message",
    "error_category",
    "retryable",
    "duration_ms",
    "traceback",
]

# How a column is read, and which dtype it gets; what is not here is text.
Kind: TypeAlias = str | type[StrEnum]
_KINDS: dict[str, Kind] = {
    name: kind
    for kind, names in {
        "json": "parameters result metadata",
        "time": "time created_at planned_at queued_at started_at ended_at not_before",
        "span": "duration cpu backoff",
        "count": "stage total_stages tasks queued processing completed failed cancelled task_index attempts retries "
        "attempt task_key place recorded",
        "number": "slot pid peak_memory",
        "flag": "retryable",
        "bool": "superseded",
    }.items()
    for name in names.split()
}
_KINDS |= {"status": TaskStatus, "outcome": Outcome, "error_category": Category}
# Handlers write to the log what they like.
_LOG_KINDS = _KINDS | {"stage": "number", "attempt": "number", "error_category": "text", "duration_ms": "real"}
_LOG_TYPES: dict[Kind, tuple[type, ...]] = {"text": (str,), "number": (int,), "real": (int, float), "flag": (bool,)}

_NOTHING = -(2**63)  # NumPy's NaT is this number
_MOST_ATTEMPTS = 1 << 20  # of one task; a task's key and an attempt's number are one number, which costs less to read
_CHUNK = 2_000  # rows that are read at a time: few enough for the processor's caches


def jobs(store: Store) -> pd.DataFrame:
    """All jobs, one row each, oldest first. ``tasks``, ``completed`` and ``failed`` are numbers of tasks."""
    with _snapshot(store) as connection:
        (last,) = connection.execute("SELECT coalesce(max(job_key), 0) FROM job").fetchone()
        names = {name: name for name in _JOBS if name != "duration"}
        return _frame(_JOBS, _read(connection, "jobs", names, "job_key BETWEEN ? AND ?", _chunks([(1, last)])))


def stages(store: Store, job_id: str) -> pd.DataFrame:
    """The job's stages in order, one row each; those to come have no ``planned_at`` and no tasks.

    Columns called like the states say how many tasks are in each. ``started_at`` and ``ended_at`` are those of the
    first and of the last attempt so far.
    """
    rows: list[dict[str, Any]] = []
    with _snapshot(store) as connection:
        found = connection.execute("SELECT stages FROM job WHERE job_id = ?", (job_id,)).fetchone()
        plans = {plan.stage: plan for plan in _plans(connection, job_id)}
        for number, stage in enumerate(from_json(found[0]) if found else [], 1):
            row = {**stage, "job_id": job_id, "stage": number, "stage_name": stage["name"], "tasks": 0}
            row |= {str(status): 0 for status in TaskStatus}
            if plan := plans.get(number):
                keys = (plan.first, plan.last)
                where = "WHERE task_key BETWEEN ? AND ?"
                row |= {"tasks": plan.last - plan.first + 1, "planned_at": plan.planned_at}
                row |= connection.execute(f"SELECT status, count(*) FROM task {where} GROUP BY status", keys).fetchall()
                times = connection.execute(f"SELECT min(started_at), max(ended_at) FROM attempt {where}", keys)
                row["started_at"], row["ended_at"] = map(_microseconds, times.fetchone())
            rows.append(row)
    return _frame(_STAGES, {name: _raw(_KINDS.get(name, "text"), [row.get(name) for row in rows]) for name in _STAGES})


def tasks(store: Store, job_id: str | None = None, *, flat: bool = False, history: bool = False) -> pd.DataFrame:
    """The tasks of one job, or of all, one row each, stage by stage in the order of their plan.

    ``error`` and what belongs to it, ``started_at``, ``ended_at`` and ``code`` are those of the current attempt, or of
    the last one while a retry is waited for; ``result`` is what the handler returned.

    *history* adds the tasks of plans that a rerun set aside, and a column ``superseded`` that tells them apart.

    *flat* puts columns ``parameters.x`` and ``result.y`` at the end instead of ``parameters`` and ``result``, with
    names joined by dots down to the third level; what is deeper, and lists, stay objects. Of what a handler returned
    only its ``"result"`` is used where there is nothing else besides ``"success"``. Of two that get the same name the
    later one counts. Data that would make more than 1,000 columns keep their one column.
    """
    with _snapshot(store) as connection:
        plans = _plans(connection, job_id, history)
        chunks = _chunks((plan.first, plan.last) for plan in plans)
        names = {name: name for name in ("task_id", "task_type", "status", "retries")}
        names |= {"attempts": "attempt", "parameters": "parameters", "metadata": "metadata", "not_before": "not_before"}
        columns = _read(connection, "task", names, "task_key BETWEEN ? AND ?", chunks)
        # Read apart from the tasks and put beside them here, which costs half of what a join does.
        names = {name: name for name in ("result", "error", "error_type", "error_category", "started_at", "ended_at")}
        names |= {"code": "code", "place": f"task_key * {_MOST_ATTEMPTS} + attempt"}
        tried = _read(connection, "attempt", names, "task_key BETWEEN ? AND ?", chunks)
        keys = _keys(chunks)
        columns |= _of_plans(plans, keys) | _beside(keys * _MOST_ATTEMPTS + columns["attempts"], tried)
        wanted = [*_TASKS, "superseded"] if history else _TASKS
        if not flat:
            return _frame(wanted, columns)
        flattened = _flat("parameters", columns["parameters"])
        flattened |= _flat("result", [_contents(value) for value in columns["result"]])
        return _frame([name for name in wanted if name not in ("parameters", "result")], columns, flattened)


def attempts(store: Store, job_id: str | None = None) -> pd.DataFrame:
    """The attempts of one job's tasks, or of all, one row each, task by task.

    Those of plans that a rerun set aside are there too: ``superseded`` tells them apart. ``queued_at`` of a first
    attempt is when its stage was planned. ``peak_memory`` is in bytes.
    """
    return _frame(_ATTEMPTS, _attempts(store, job_id, ""))


def errors(store: Store, job_id: str | None = None) -> pd.DataFrame:
    """The attempts that failed, with the columns of `attempts`, newest last."""
    columns = _attempts(store, job_id, " AND outcome = 'failed'")
    order = columns["recorded"].argsort()
    return _frame(_ATTEMPTS, {name: raw[order] for name, raw in columns.items()})


def logs(path: str | os.PathLike[str] | None, job_id: str | None = None) -> pd.DataFrame:
    """The lines of the log at *path* that are about *job_id*, or all of them, oldest first.

    What else lines have follows in columns of its own. A value that is not what its column is for, such as a
    ``stage`` that is text, is in the column of that name with ``_`` at its end.
    """
    found = [line for line in read(path) if job_id in (None, line.get("job_id"))] if path is not None else []
    columns: dict[str, list[Any]] = {name: [None] * len(found) for name in _LOGS}
    for row, line in enumerate(found):
        for name, value in line.items():
            fitting = _fitting(_LOG_KINDS.get(name, "text"), value) if name in _LOGS else value
            if fitting is None:
                name, fitting = f"{name}_", value
            columns.setdefault(name, [None] * len(found))[row] = fitting
    raw = {name: _raw(_LOG_KINDS.get(name, "text"), columns.pop(name)) for name in _LOGS}
    return _frame(_LOGS, raw, {name: _inferred(values) for name, values in columns.items()}, _LOG_KINDS)


def _fitting(kind: Kind, value: Any) -> Any:
    """*value* as a column of the log takes it, or None when it is something else."""
    if kind == "time":
        try:
            return _microseconds(datetime.fromisoformat(value).timestamp())
        except (TypeError, ValueError, OverflowError):
            return None
    return value if type(value) in _LOG_TYPES[kind] and not (kind == "number" and abs(value) >= 2**63) else None


# Reading


@contextmanager
def _snapshot(store: Store) -> Iterator[Any]:
    """A connection that sees the store as it is now, whatever is written meanwhile."""
    # Nothing that is made here is garbage, and looking for some among so many dicts takes as long as making them.
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


class _Plan(NamedTuple):
    job_id: str
    stage: int
    stage_name: str
    planned_at: float
    superseded: int
    first: int
    last: int


def _plans(connection: Any, job_id: str | None, history: bool = False) -> list[_Plan]:
    """The plans that have tasks, in the order of their tasks' keys."""
    rows = connection.execute(
        "SELECT job_id, stage, stage_name, planned_at, superseded, first_key, first_key + tasks - 1 FROM stages"
        " WHERE job_id = coalesce(?, job_id) AND superseded <= ? AND tasks > 0 ORDER BY first_key",
        (job_id, int(history)),
    )
    return [_Plan(*row) for row in rows.fetchall()]


def _chunks(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """*ranges* of keys, from first to last, in pieces of at most `_CHUNK` keys; neighbours are joined."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        if joined and joined[-1][1] == first - 1:
            first = joined.pop()[0]
        joined.append((first, last))
    return [(at, min(at + _CHUNK - 1, last)) for first, last in joined for at in range(first, last + 1, _CHUNK)]


def _read(
    connection: Any, source: str, names: Mapping[str, str], where: str, chunks: Sequence[tuple[int, int]]
) -> dict[str, Raw]:
    """Columns called *names*, which are these columns of *source*, of the keys in *chunks*, in order of the keys.

    This is for SQLite: it gives each column as one JSON text, at a third of the price of as many Python objects.
    Another store may have columns as such; what is given back is then made by `_raw` all the same.
    """
    import numpy as np

    kinds = {name: _KINDS.get(name, "text") for name in names}
    gathered = ", ".join(_gathered(kind, names[name]) for name, kind in kinds.items())
    query = f"SELECT {gathered} FROM {source} WHERE {where}"
    parts = {name: [_raw(kind, ())] for name, kind in kinds.items()}
    before: dict[str, str] = {}
    for chunk in chunks:
        for texts in _answers(connection, query, *chunk):
            for (name, kind), text in zip(kinds.items(), texts, strict=True):
                # Most columns say the same again and again. Dicts are made anew: each row has its own.
                if kind != "json" and before.get(name) == text:
                    parts[name].append(parts[name][-1])
                else:
                    parts[name].append(_raw(kind, from_json(f"[{text or ''}]" if kind == "json" else text)))
                    before[name] = text
    return {name: np.concatenate(several) for name, several in parts.items()}


def _gathered(kind: Kind, column: str) -> str:
    if kind == "json":
        return f"group_concat(coalesce({column}, 'null'))"
    if kind in ("time", "span"):
        return f"json_group_array(CAST({column} * 1e6 + 0.5 AS INTEGER))"
    return f"json_group_array({column})"


def _answers(connection: Any, query: str, first: int, last: int) -> Iterator[Sequence[str]]:
    """What *query* finds between these keys: one row, or more where it would be too long for SQLite, a gigabyte."""
    try:
        answer = connection.execute(query, (first, last)).fetchone()
    except sqlite3.DataError:
        if first == last:
            raise
        middle = (first + last) // 2
        yield from _answers(connection, query, first, middle)
        yield from _answers(connection, query, middle + 1, last)
    else:
        yield answer


def _attempts(store: Store, job_id: str | None, condition: str) -> dict[str, Raw]:
    with _snapshot(store) as connection:
        plans = _plans(connection, job_id, history=True)
        own = set(_ATTEMPTS) - {"job_id", "stage", "stage_name", "superseded", "duration"}
        names = {name: name for name in sorted(own)} | {"task_key": "attempt.task_key", "attempt": "attempt.attempt"}
        columns = _read(
            connection,
            "attempt CROSS JOIN task USING (task_key)",  # in SQLite the order of a CROSS JOIN stays as it is written
            names | {"recorded": "attempt.rowid"},
            f"attempt.task_key BETWEEN ? AND ?{condition}",
            _chunks((plan.first, plan.last) for plan in plans),
        )
        planned = _of_plans(plans, columns["task_key"])
        queued_at = columns["queued_at"]
        queued_at[:] = np.where(queued_at == _NOTHING, planned["created_at"], queued_at)
        return columns | planned


# Arranging


def _keys(chunks: Sequence[tuple[int, int]]) -> Raw:
    import numpy as np

    return np.concatenate([np.arange(0), *(np.arange(first, last + 1) for first, last in chunks)])


def _of_plans(plans: Sequence[_Plan], keys: Raw) -> dict[str, Raw]:
    """What tasks with these *keys* have from the plans that made them."""
    import numpy as np

    firsts = np.array([plan.first for plan in plans], dtype=np.int64)
    which = np.searchsorted(firsts, keys, side="right") - 1
    columns = {
        "job_id": _raw("text", [plan.job_id for plan in plans]),
        "stage": _raw("count", [plan.stage for plan in plans]),
        "stage_name": _raw("text", [plan.stage_name for plan in plans]),
        "created_at": _raw("time", [_microseconds(plan.planned_at) for plan in plans]),
        "superseded": _raw("bool", [plan.superseded for plan in plans]),
    }
    return {name: raw[which] for name, raw in columns.items()} | {"task_index": keys - firsts[which]}


def _beside(places: Raw, found: dict[str, Raw]) -> dict[str, Raw]:
    """What is *found* for each of *places*, or nothing; the places that something was found for are in order."""
    import numpy as np

    if np.array_equal(places, found["place"]):
        return found
    at = np.searchsorted(found["place"], places)
    padded = {name: np.concatenate([raw, _raw(_KINDS.get(name, "text"), [None])]) for name, raw in found.items()}
    at = np.where(padded["place"][at] == places, at, -1)
    return {name: raw[at] for name, raw in padded.items()}


def _contents(value: Any) -> Any:
    """What is worth columns in *value*, which a handler returned."""
    inner = value.get("result") if isinstance(value, dict) and value.keys() == {"success", "result"} else None
    return inner if isinstance(inner, dict) else value


def _flat(prefix: str, values: Iterable[Any]) -> dict[str, Any]:
    """Columns for the keys in *values*, in the order in which they are met."""
    values = list(values)
    columns: dict[str, list[Any]] = {}
    for row, value in enumerate(values):
        for name, leaf in _leaves(prefix, value, 3) if isinstance(value, dict) else ():
            if name not in columns:
                if len(columns) == MOST_FLAT_COLUMNS:
                    return {prefix: _raw("json", values)}
                columns[name] = [None] * len(values)
            columns[name][row] = leaf
    return {name: _inferred(column) for name, column in columns.items()}


def _leaves(prefix: str, value: dict[str, Any], depth: int) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item and depth > 1:
            yield from _leaves(f"{prefix}.{key}", item, depth - 1)
        else:
            yield f"{prefix}.{key}", item


# Giving dtypes


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e6 + 0.5)


def _raw(kind: Kind, values: Sequence[Any]) -> Raw:
    """*values* as they are before they get the dtype of their *kind*: times are in microseconds, None is missing."""
    import numpy as np

    if kind == "json":
        return np.fromiter(values, dtype=object, count=len(values))
    if kind == "text":
        return np.array(values, dtype=object)
    if kind == "real":
        return np.array(values, dtype=float)
    if isinstance(kind, str):
        return np.array([_NOTHING if value is None else value for value in values] if None in values else values, "i8")
    codes = {str(word): code for code, word in enumerate(kind)}
    return np.array([codes.get(value, -1) for value in values], dtype="i1")


def _finished(kind: Kind, raw: Raw) -> Any:
    import numpy as np
    import pandas as pd

    if not isinstance(kind, str):
        return pd.Categorical.from_codes(raw, dtype=pd.CategoricalDtype([str(word) for word in kind]))
    missing = raw == _NOTHING if kind in ("number", "flag") else raw
    match kind:
        case "text":
            return pd.arrays.StringArray(raw)  # not pyarrow's, where that is installed: one dtype for all
        case "time":
            return pd.DatetimeIndex(raw.view("M8[us]")).tz_localize("UTC")
        case "span":
            return raw.view("m8[us]")
        case "number":
            return pd.arrays.IntegerArray(np.where(missing, 0, raw), missing)
        case "flag":
            return pd.arrays.BooleanArray(raw == 1, missing)
        case "bool":
            return raw == 1
    return raw


def _inferred(values: list[Any]) -> Any:
    """*values* as what all of them are, or else as objects."""
    import pandas as pd

    dtypes = {str: "string", bool: "boolean", int: "Int64", float: "Float64"}
    types = {type(value) for value in values} - {type(None)}
    dtype = "Float64" if types == {int, float} else dtypes.get(next(iter(types), object)) if len(types) == 1 else None
    try:
        return pd.array(values, dtype=dtype) if dtype else _raw("json", values)
    except (OverflowError, TypeError):  # whole numbers of more than 63 bits
        return _raw("json", values)


def _frame(
    names: Sequence[str],
    columns: Mapping[str, Raw],
    more: Mapping[str, Any] | None = None,
    kinds: Mapping[str, Kind] = _KINDS,
) -> pd.DataFrame:
    import pandas as pd

    if "duration" in names:
        # Not as the store has it: so that it is the difference of the times in this frame, to the microsecond.
        span = columns["ended_at"].view("M8[us]") - columns["started_at"].view("M8[us]")
        columns = {**columns, "duration": span.view("i8")}
    data = {name: _finished(kinds.get(name, "text"), columns[name]) for name in names}
    return pd.DataFrame(data | dict(more or {}), copy=False)
