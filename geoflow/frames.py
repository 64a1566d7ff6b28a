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

import numpy as np

from geoflow.logs import read
from geoflow.models import Category, Outcome, TaskStatus
from geoflow.stores.sqlite import ATTEMPTS_PER_TASK
from geoflow.values import from_json

if TYPE_CHECKING:
    import os

    import pandas as pd

    from geoflow.stores.base import Store

MOST_FLAT_COLUMNS = 1_000


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

# What a column holds, and so how it is read and which dtype it gets. What is not here is text.
Kind: TypeAlias = str | type[StrEnum]
_KINDS: dict[str, Kind] = {"status": TaskStatus, "outcome": Outcome, "error_category": Category}
_KINDS |= dict.fromkeys(_words("parameters result metadata"), "json")
_KINDS |= dict.fromkeys(_words("created_at planned_at queued_at started_at ended_at not_before"), "time")
_KINDS |= dict.fromkeys(_words("duration cpu backoff"), "span")
_KINDS |= dict.fromkeys(_words("stage total_stages tasks completed failed queued processing cancelled"), "count")
_KINDS |= dict.fromkeys(_words("task_index attempts retries attempt attempt_key"), "count")
_KINDS |= dict.fromkeys(_words("slot pid peak_memory"), "number")
_KINDS |= {"retryable": "flag", "superseded": "bool"}
# Anyone may log anything, so here no number is sure to be there.
_LOG_KINDS = _KINDS | {"time": "time", "stage": "number", "attempt": "number", "duration_ms": "real"}
_LOG_KINDS |= {"error_category": "text"}
_LOG_TYPES: dict[Kind, tuple[type, ...]] = {"text": (str,), "number": (int,), "real": (int, float), "flag": (bool,)}

# A column before it gets its dtype: objects, codes of words, or numbers with _NOTHING where there is none.
Raw: TypeAlias = np.ndarray[Any, Any]
_NOTHING = -(2**63)  # which is NumPy's NaT
_CHUNK = 2_000  # keys that are read at a time: few enough for the processor's caches


def jobs(store: Store) -> pd.DataFrame:
    """All jobs, one row each, oldest first. ``tasks``, ``completed`` and ``failed`` are numbers of tasks."""
    with _snapshot(store) as connection:
        (last,) = connection.execute("SELECT coalesce(max(job_key), 0) FROM job").fetchone()
        names = [name for name in _JOBS if name != "duration"]
        columns = _read(connection, "jobs WHERE job_key", _chunks([(1, last)]), names)
    return _frame(_JOBS, columns)


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
                states = "SELECT status, count(*) FROM task WHERE task_key BETWEEN ? AND ? GROUP BY status"
                times = "SELECT min(started_at), max(ended_at) FROM attempt WHERE attempt_key BETWEEN ? AND ?"
                started_ended = map(_microseconds, connection.execute(times, *_of_attempts([keys])).fetchone())
                row |= connection.execute(states, keys).fetchall()
                row |= zip(("started_at", "ended_at"), started_ended, strict=True)
                row |= {"tasks": plan.last - plan.first + 1, "planned_at": _microseconds(plan.planned_at)}
            rows.append(row)
    return _frame(_STAGES, {name: _raw(_KINDS.get(name, "text"), [row.get(name) for row in rows]) for name in _STAGES})


def tasks(store: Store, job_id: str | None = None, *, flat: bool = False, history: bool = False) -> pd.DataFrame:
    """The tasks of one job, or of all, one row each, in the order in which they were planned.

    ``error`` and what belongs to it, ``started_at``, ``ended_at`` and ``code`` are those of the last attempt that
    ended, until another one begins; ``result`` is all that the handler returned.

    *history* adds the tasks of plans that a rerun set aside, and a column ``superseded`` that tells them apart.

    *flat* gives columns ``parameters.x`` and ``result.y``, at the end, in place of ``parameters`` and ``result``. Keys
    are joined by dots down to the third level; what is deeper, and lists, stay objects. Where a handler returned
    nothing but ``"success"`` and a dict ``"result"``, that dict is the result. Of two keys that come to the same name
    the later one counts. What would be more than `MOST_FLAT_COLUMNS` stays one column.
    """
    with _snapshot(store) as connection:
        plans = _plans(connection, job_id, history)
        chunks = _chunks((plan.first, plan.last) for plan in plans)
        names = _words("task_id task_type status retries parameters metadata not_before")
        columns = _read(connection, "task WHERE task_key", chunks, names, attempts="attempt")
        # Read apart from the tasks and put beside them here, which costs less than a join.
        names = _words("attempt_key result error error_type error_category started_at ended_at code")
        tried = _read(connection, "attempt WHERE attempt_key", _of_attempts(chunks), names)
    keys = np.concatenate([np.arange(0), *(np.arange(first, last + 1) for first, last in chunks)])
    columns |= _planned(plans, keys) | _beside(keys * ATTEMPTS_PER_TASK + columns["attempts"], tried)
    wanted = [*_TASKS, "superseded"] if history else _TASKS
    if not flat:
        return _frame(wanted, columns)
    more = _flat("parameters", columns["parameters"]) | _flat("result", map(_contents, columns["result"]))
    return _frame([name for name in wanted if name not in ("parameters", "result")], columns, more)


def attempts(store: Store, job_id: str | None = None) -> pd.DataFrame:
    """The attempts of one job's tasks, or of all, one row each, task by task.

    Those of plans that a rerun set aside are there too: ``superseded`` tells them apart. ``queued_at`` of a first
    attempt is when its stage was planned. ``peak_memory`` is in bytes.
    """
    return _frame(_ATTEMPTS, _attempts(store, job_id, "attempt JOIN task USING (task_key) WHERE attempt_key"))


def errors(store: Store, job_id: str | None = None) -> pd.DataFrame:
    """The attempts that failed, with the columns of `attempts`, newest last, and after these what nobody saw end."""
    columns = _attempts(store, job_id, "attempt JOIN task USING (task_key) WHERE outcome = 'failed' AND attempt_key")
    order = columns["ended_at"].view("M8[us]").argsort(kind="stable")  # NumPy has NaT last
    return _frame(_ATTEMPTS, {name: raw[order] for name, raw in columns.items()})


def logs(path: str | os.PathLike[str] | None, job_id: str | None = None) -> pd.DataFrame:
    """The lines of the log at *path* that are about *job_id*, or all of them, oldest first.

    What else lines have follows in columns of its own. A value that is not what its column is for, such as a
    ``stage`` that is text, is in a column of that name with ``_`` at its end.
    """
    found = [line for line in read(path) if job_id in (None, line.get("job_id"))] if path is not None else []
    columns: dict[str, list[Any]] = {name: [None] * len(found) for name in _LOGS}
    for row, line in enumerate(found):
        for name, value in line.items():
            fitting = _fitting(_LOG_KINDS.get(name, "text"), value) if name in _LOGS else value
            if fitting is None and value is not None:
                name, fitting = f"{name}_", value  # noqa: PLW2901
            columns.setdefault(name, [None] * len(found))[row] = fitting
    raw = {name: _raw(_LOG_KINDS.get(name, "text"), columns.pop(name)) for name in _LOGS}
    return _frame(_LOGS, raw, {name: _inferred(values) for name, values in columns.items()}, _LOG_KINDS)


def _fitting(kind: Kind, value: Any) -> Any:
    """*value* as a log's column of this *kind* takes it, or None when it is something else."""
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
    """A planned stage, and the keys of its tasks."""

    job_id: str
    stage: int
    stage_name: str
    planned_at: float
    superseded: int
    first: int
    last: int


def _plans(connection: Any, job_id: str | None, history: bool = False) -> list[_Plan]:
    """The plans of one job or of all, in the order of their tasks' keys."""
    rows = connection.execute(
        "SELECT job_id, stage, stage_name, planned_at, superseded, first_key, first_key + tasks - 1 FROM stages"
        " WHERE job_id = coalesce(?, job_id) AND superseded <= ? ORDER BY first_key, stage_key",
        (job_id, int(history)),
    )
    return [_Plan(*row) for row in rows.fetchall()]


def _chunks(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """*ranges* of keys, each from its first to its last, in pieces of at most `_CHUNK`; neighbours are joined."""
    joined: list[tuple[int, int]] = []
    for first, last in ranges:
        start = joined.pop()[0] if joined and joined[-1][1] == first - 1 else first
        joined.append((start, last))
    return [(at, min(at + _CHUNK - 1, last)) for first, last in joined for at in range(first, last + 1, _CHUNK)]


def _of_attempts(chunks: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The keys of the attempts of the tasks with keys in *chunks*."""
    return [(first * ATTEMPTS_PER_TASK, (last + 1) * ATTEMPTS_PER_TASK - 1) for first, last in chunks]


def _read(
    connection: Any, source: str, chunks: Sequence[tuple[int, int]], names: Iterable[str], **renamed: str
) -> dict[str, Raw]:
    """The columns *names*, and *renamed* ones, of the rows of *source* with keys in *chunks*, ordered by key.

    *source* is what stands in SQL between ``FROM`` and ``BETWEEN``. From SQLite each column comes as one JSON text,
    at a third of the price of as many Python objects. Another store may have better, as long as the columns are what
    `_raw` makes of their values.
    """
    columns = {name: (_KINDS.get(name, "text"), sql) for name, sql in ({n: n for n in names} | renamed).items()}
    gathered = ", ".join(_gathered(kind, sql) for kind, sql in columns.values())
    query = f"SELECT {gathered} FROM {source} BETWEEN ? AND ?"
    parts = {name: [_raw(kind, ())] for name, (kind, _) in columns.items()}
    before: dict[str, str] = {}
    for first, last in chunks:
        for texts in _answers(connection, query, first, last):
            for (name, (kind, _)), text in zip(columns.items(), texts, strict=True):
                if kind == "json":
                    parts[name].append(_raw(kind, from_json(f"[{text or ''}]")))
                elif before.get(name) == text:  # most columns say the same all along
                    parts[name].append(parts[name][-1])
                else:
                    parts[name].append(_raw(kind, from_json(text)))
                    before[name] = text
    return {name: np.concatenate(several) for name, several in parts.items()}


def _gathered(kind: Kind, sql: str) -> str:
    if kind == "json":
        return f"group_concat(coalesce({sql}, 'null'))"
    if kind in ("time", "span"):
        return f"json_group_array(CAST({sql} * 1e6 + 0.5 AS INTEGER))"
    return f"json_group_array({sql})"


def _answers(connection: Any, query: str, first: int, last: int) -> Iterator[Sequence[str]]:
    """What *query* finds between these keys, in parts where it would be longer than SQLite's longest text."""
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


def _attempts(store: Store, job_id: str | None, source: str) -> dict[str, Raw]:
    names = set(_ATTEMPTS) - set(_words("job_id stage stage_name superseded duration attempt task_index"))
    with _snapshot(store) as connection:
        plans = _plans(connection, job_id, history=True)
        chunks = _chunks((plan.first, plan.last) for plan in plans)
        keys = {"attempt_key": "attempt_key", "attempt": "attempt.attempt"}
        columns = _read(connection, source, _of_attempts(chunks), sorted(names), **keys)
    columns |= _planned(plans, columns["attempt_key"] // ATTEMPTS_PER_TASK)
    first = columns["queued_at"] == _NOTHING
    return columns | {"queued_at": np.where(first, columns["created_at"], columns["queued_at"])}


# Arranging


def _planned(plans: Sequence[_Plan], keys: Raw) -> dict[str, Raw]:
    """What the tasks with these *keys* have from the plans that made them."""
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


def _beside(keys: Raw, found: dict[str, Raw]) -> dict[str, Raw]:
    """The attempts with these *keys* of those that were *found*, in the order of their keys; nothing for others."""
    if np.array_equal(keys, found["attempt_key"]):
        return found
    padded = {name: np.concatenate([raw, _raw(_KINDS.get(name, "text"), [None])]) for name, raw in found.items()}
    at = np.searchsorted(found["attempt_key"], keys)
    at = np.where(padded["attempt_key"][at] == keys, at, -1)
    return {name: raw[at] for name, raw in padded.items()}


def _contents(value: Any) -> Any:
    """Of what a handler returned, what is worth columns."""
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
    """*values* as they are before they get the dtype of their *kind*. Times are microseconds, None is missing."""
    if kind == "json":
        return np.fromiter(values, dtype=object, count=len(values))
    if kind == "text":
        return np.array(values, dtype=object)
    if kind == "real":
        return np.array(values, dtype=float)
    if isinstance(kind, str):
        return np.array([_NOTHING if v is None else v for v in values] if None in values else values, dtype=np.int64)
    codes = {str(word): code for code, word in enumerate(kind)}
    return np.array([codes.get(value, -1) for value in values], dtype=np.int8)


def _finished(kind: Kind, raw: Raw) -> Any:
    import pandas as pd

    if not isinstance(kind, str):
        return pd.Categorical.from_codes(raw, dtype=pd.CategoricalDtype([str(word) for word in kind]))
    missing = raw == _NOTHING if kind in ("number", "flag") else raw
    match kind:
        case "text":
            return pd.arrays.StringArray(raw)  # the same whether pyarrow is installed or not
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

    dtypes: dict[type, Any] = {str: "string", bool: "boolean", int: "Int64", float: "Float64"}
    types = {type(value) for value in values} - {type(None)}
    if types == {int, float}:
        types = {float}
    dtype = dtypes.get(types.pop()) if len(types) == 1 else None
    try:
        return pd.array(values, dtype=dtype) if dtype else _raw("json", values)
    except (OverflowError, TypeError):  # a whole number of more than 63 bits
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
        columns = {**columns, "duration": span.view(np.int64)}
    data = {name: _finished(kinds.get(name, "text"), columns[name]) for name in names}
    return pd.DataFrame(data | dict(more or {}), copy=False)
