"""DataFrames of jobs, stages, tasks, attempts, errors, events and logs, as they are at one moment.

Columns and dtypes are the same for no rows as for many: text is ``string``, states are categorical, times are
``datetime64[us, UTC]``, durations ``timedelta64[us]``, numbers ``int64``, or ``Int64`` where there may be none, and
parameters, results and metadata are objects: what the JSON says, or None. A frame is data: nothing in it is masked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geoflow.core.models import Category, Outcome, TaskStatus
from geoflow.core.rows import EventRow
from geoflow.errors import StoreError
from geoflow.stores import columnwise, questions
from geoflow.stores.columns import ATTEMPTS_PER_TASK, COLUMNS, KINDS
from geoflow.stores.questions import PlannedStage
from geoflow.stores.store import Store
from geoflow.stores.whole import MISSING, due
from geoflow.support.logs import FIELDS
from geoflow.views.lines import ALL, Wanted, lines
from geoflow.views.readable import Readable
from geoflow.views.rows import (
    ATTEMPTS,
    DERIVED,
    ERRORS,
    HISTORY,
    JOBS,
    STAGES,
    TASKS,
    at_once,
    failed_last,
    has_errors,
    lacks,
    planned,
    warnings_in,
    words,
)
from geoflow.views.tracebacks import cause

_KINDS: dict[str, Any] = COLUMNS | dict.fromkeys([*TaskStatus, "first", "last", "key"], "count")
for _name, _enum in {"status": TaskStatus, "outcome": Outcome, "error_category": Category}.items():
    _KINDS[_name] = pd.CategoricalDtype([str(word) for word in _enum])
_TEXT = pd.StringDtype("python")  # also where pyarrow is installed

# Columns that are mostly alike.
_ALIKE = words(
    "task_type status attempts retries attempt outcome error error_type error_category retryable traceback code",
    "not_before queued_at backoff",
)


def jobs(store: Store) -> pd.DataFrame:
    """All jobs, one row each, oldest first. ``tasks``, ``completed`` and ``failed`` are numbers of tasks."""
    with at_once(store) as connection:
        names = [name for name in JOBS if name not in ("duration", "with_errors")]
        columns = _read(connection, "jobs", names, [questions.job_keys(connection)])
    counts = (columns[name] for name in ("status", "tasks", "completed", "failed"))
    if any(lacking := [lacks(*row) for row in zip(*counts, strict=True)]):
        columns["error"][np.array(lacking)] = MISSING
    said = zip(columns["status"], columns["failed"], columns["result"], strict=True)
    return _frame(JOBS, columns | {"with_errors": np.array([has_errors(*row) for row in said], dtype="bool")})


def stages(store: Store, job_id: str) -> pd.DataFrame:
    """The job's stages in order, one row each; those to come have no ``planned_at`` and no tasks.

    Columns called like the states say how many tasks are in each; the times are of the first and the last attempt.
    """
    with at_once(store) as connection:
        rows = planned(connection, job_id)
    return _frame(STAGES, {name: _typed(_KINDS[name], [row.get(name) for row in rows]) for name in STAGES})


def tasks(
    store: Store,
    job_id: str,
    *,
    stage: int | None = None,
    flat: bool = False,
    history: bool = False,
    more: bool = False,
) -> pd.DataFrame:
    """The tasks of one job, or of one *stage* of it, one row each, in the order in which they were planned.

    ``error`` and what belongs to it, ``started_at``, ``ended_at`` and ``code`` are those of the last attempt that
    ended, until another one begins; ``result`` is all that the handler returned. *history* adds the tasks of plans that
    a rerun set aside, and a column ``superseded`` that tells them apart. With *more* there are ``reused_from``,
    the id of the job whose result a task has taken over, which may be this one, and ``warnings``, how many of Python's
    its last attempt has shown, as far as its output was kept.

    *flat* spreads dicts into columns ``parameters.x``, ``parameters.x.z`` and ``result.y``, at the end. Where a handler
    returned nothing but ``"success"`` and a dict ``"result"``, that dict is the result.
    """
    columns = _of_job(store, job_id, "tasks", TASKS, history=history, stage=stage)
    frame = _frame([*TASKS, "superseded"] if history else TASKS, columns)
    if more:
        last = columns["key"] * ATTEMPTS_PER_TASK + columns["attempts"]
        frame["reused_from"], frame["warnings"] = _reused_from(store, job_id, last), _warnings(store, job_id, last)
    if flat:
        results = [_contents(value) for value in columns["result"]]
        spread = _flat("parameters", columns["parameters"].tolist()) | _flat("result", results)
        frame = frame.drop(columns=["parameters", "result"]).join(pd.DataFrame(spread, index=frame.index))
    return frame


def _reused_from(store: Store, job_id: str, attempts: Any) -> Any:
    """For each of *attempts*, by their keys, the id of the job whose result it has."""
    found: dict[int, str] = {}
    if store.has("reused"):
        with at_once(store) as connection:
            for plan in questions.plans(connection, job_id, history=True):
                found |= questions.reused_from(connection, plan.first, plan.last)
    return _typed("text", [found.get(key) for key in attempts.tolist()])


def with_key(frame: pd.DataFrame, job_id: str) -> pd.DataFrame:
    """*frame* with a first column ``key``: the author's own part of ``task_id``, without what says of which job."""
    before, ids = f"{job_id[:8]}-", frame["task_id"].tolist()
    # In a third of the time that pandas takes for it.
    frame.insert(
        0, "key", _typed("text", [each.removeprefix(before) if isinstance(each, str) else None for each in ids])
    )
    return frame


def _warnings(store: Store, job_id: str, attempts: Any) -> Any:
    """For each of *attempts*, by their keys, how many warnings it has shown."""
    found: dict[int, int] = {}
    with at_once(store) as connection:
        for plan in questions.plans(connection, job_id, history=True):
            for key, output in questions.that_warned(connection, plan.first, plan.last):
                found[key] = warnings_in(output)
    return _typed("count", [found.get(key, 0) for key in attempts.tolist()])


def with_stale(frame: pd.DataFrame, codes: Mapping[str, str]) -> pd.DataFrame:
    """*frame* of tasks with a column ``stale``: whether the last attempt's code is not that of *codes*, by task type.

    NA for a task that has not run, or of whose type *codes* says nothing.
    """
    now = frame["task_type"].map(dict(codes))
    known = now.notna() & frame["code"].notna()
    frame["stale"] = (frame["code"] != now).astype("boolean").where(known)
    return frame


def attempts(store: Store, job_id: str, condition: str = "", *, reused_from: bool = False) -> pd.DataFrame:
    """The attempts of one job's tasks that meet a *condition*, one row each, task by task.

    Those of plans that a rerun set aside are there too: ``superseded`` tells them apart. ``queued_at`` of a first
    attempt is when its stage was planned. ``peak_memory`` is in bytes. For *reused_from* see `tasks`.
    """
    columns = _of_job(store, job_id, "attempts", ATTEMPTS, condition, history=True)
    queued_at = columns["queued_at"].where(columns["queued_at"].notna(), columns["created_at"])
    frame = _frame(ATTEMPTS, columns | {"queued_at": queued_at})
    if reused_from:
        frame["reused_from"] = _reused_from(store, job_id, columns["key"])
    return frame


def of_plans(store: Store, job_id: str, plans: Sequence[PlannedStage]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tasks of these *plans* of the job, in order, and their attempts, as `tasks` and `attempts` have them."""
    tables = (("tasks", TASKS), ("attempts", [name for name in ATTEMPTS if name != "queued_at"]))
    made = (_frame(names, _of_job(store, job_id, table, names, history=True, only=plans)) for table, names in tables)
    return next(made), next(made)


def errors(store: Store, job_id: str, limit: int | None = None) -> pd.DataFrame:
    """The attempts that failed, with the columns of `attempts`, newest last, and after these what nobody saw end.

    ``cause`` is the exception that led to the error, where there was one. With *limit* only the last so many.
    """
    with at_once(store) as connection:
        condition = failed_last(connection, job_id, limit)
    failed = attempts(store, job_id, condition)
    failed = failed.sort_values("ended_at", kind="stable", ignore_index=True)
    found = failed["traceback"].map(cause, na_action="ignore").tolist()
    failed.insert(ERRORS.index("cause"), "cause", _typed("text", [None if pd.isna(one) else one for one in found]))
    return failed if limit is None else failed[max(len(failed) - limit, 0) :].reset_index(drop=True)


def history(store: Store, job_id: str) -> pd.DataFrame:
    """What happened to the job, one row for each change of it, the oldest first; see `geoflow.core.rows.EventRow`."""
    columns = dict(zip(EventRow._fields, zip(*store.events(job_id), strict=True), strict=False))
    times = [round(time * 1e6) for time in columns.pop("happened_at", ())]
    frame = {"happened_at": _typed("time", times)}
    frame |= {name: _typed(_KINDS[name], columns.get(name, ())) for name in EventRow._fields[1:]}
    return Readable(frame)[HISTORY]


def logs(path: str | os.PathLike[str] | None, wanted: Wanted = ALL) -> pd.DataFrame:
    """The lines of the log at *path* that are *wanted*, by their times.

    Further fields follow. A column with a value that is not of its dtype is left as it is; what is no time is NaT.
    """
    found = list(lines(path, wanted)) if path is not None else []
    names = dict.fromkeys(chain(FIELDS, *found))
    frame = pd.DataFrame({name: _typed(None, [line.get(name) for line in found]) for name in names})
    frame["time"] = pd.to_datetime(frame["time"], format="ISO8601", utc=True, errors="coerce")
    frame = frame.astype({name: KINDS[kind].dtype for name, kind in FIELDS.items()}, errors="ignore")
    # A worker writes its lines at once, and the session's own process a moment later.
    return Readable(frame.sort_values("time", kind="stable", ignore_index=True))


def files(**found: Iterable[str | os.PathLike[str]]) -> pd.DataFrame:
    """What was done with which files or folders, and how many bytes they have: ``files(copied=["work.db"])``."""
    rows = [
        (what.replace("_", " "), os.fspath(file), _size(Path(file)))
        for what, several in found.items()
        for file in several
    ]
    types = {"what": "string", "file": "string", "bytes": "int64"}
    return pd.DataFrame(rows, columns=[*types]).astype(types)


def _size(path: Path) -> int:
    return sum(map(_size, path.iterdir())) if path.is_dir() else path.stat().st_size


def _of_job(
    store: Store,
    job_id: str,
    table: str,
    names: Iterable[str],
    condition: str = "",
    *,
    history: bool,
    stage: int | None = None,
    only: Sequence[PlannedStage] | None = None,
) -> dict[str, Any]:
    """The columns *names*, and those of the plans, of the job's rows of *table*, all or those of some plans."""
    read_too = [name for name in names if name not in DERIVED]
    with at_once(store) as connection:
        plans = questions.plans(connection, job_id, history=history)
        keys = None if only is None else {(plan.first, plan.last) for plan in only}
        plans = [
            plan for plan in plans if stage in (None, plan.stage) and (keys is None or (plan.first, plan.last) in keys)
        ]
        columns = _read(connection, table, read_too, [(plan.first, plan.last) for plan in plans], condition)
        if table == "attempts" and not condition:
            wanted = [due(connection, table, plan.first, plan.last) for plan in plans]
            if not sum(each.start for each in wanted) <= len(columns["key"]) <= sum(each.stop - 1 for each in wanted):
                raise StoreError(MISSING)
    if table == "tasks" and "result" in columns and _is_lacking(columns["status"], columns["result"]):
        raise StoreError(MISSING)
    task_keys = columns["key"] if table == "tasks" else columnwise.task_key(columns["key"])
    which = np.searchsorted([plan.first for plan in plans], task_keys, side="right") - 1
    for name in PlannedStage._fields:
        columns[name] = _typed(_KINDS[name], [getattr(plan, name) for plan in plans]).take(which)
    return columns | {"task_index": task_keys - columns["first"]}


def _read(
    connection: Any, table: str, names: Sequence[str], keys: Sequence[tuple[int, int]], condition: str = ""
) -> dict[str, Any]:
    """The columns *names* of the rows of *table* with *keys*, each from a first to a last, ordered by ``key``."""
    alike = [name for name in names if name in _ALIKE]
    own = [name for name in names if name not in _ALIKE]
    if table != "tasks":  # else there is one row for each
        own.append("key")
    parts: list[list[list[Any]]] = [[] for _ in own]
    varied: list[list[Any]] = [[] for _ in ("key", *alike)]  # what is usual, after a -1, and all that is not
    which = [np.arange(0)]  # for each row that is read, its place in these
    for piece in columnwise.read(connection, table, own, alike, keys, condition):
        for part, column in zip(parts, piece.columns, strict=True):
            part.append(column)
        count = len(piece.columns[0])
        which.append(np.full(count, len(varied[0])))
        rows = [[-1, *piece.usual], *piece.unlike] if len(piece.unlike) < count else piece.unlike
        for values, more in zip(varied, zip(*rows, strict=True), strict=False):
            values.extend(more)
    columns = {name: _typed(_KINDS[name], *lists) for name, lists in zip(own, parts, strict=True)}
    if "key" not in columns:
        columns["key"] = np.concatenate([np.arange(0), *(np.arange(first, last + 1) for first, last in keys)])
    if len(columns["key"]) != sum(map(len, which)):
        raise StoreError(MISSING)
    places, told_keys = np.concatenate(which), np.array(varied.pop(0), dtype="int64")
    unusual = np.flatnonzero(told_keys >= 0)
    places[np.searchsorted(columns["key"], told_keys[unusual])] = unusual
    return columns | {
        name: _typed(_KINDS[name], column).take(places) for name, column in zip(alike, varied, strict=True)
    }


def _is_lacking(statuses: Any, results: Any) -> bool:
    """Whether a task has completed whose attempt, which has its result, is not there."""
    without = [value is None for value in results]
    return any(without) and bool((np.asarray(statuses)[without] == TaskStatus.COMPLETED).any())


def _contents(value: Any) -> Any:
    """Of what a handler returned, what is worth columns."""
    inner = value["result"] if value and value.keys() == {"success", "result"} else None
    return inner if isinstance(inner, dict) else value


def _flat(name: str, values: list[Any]) -> dict[str, Any]:
    """The column *name*; where all *values* are dicts or None, one column for each of their keys, as they are met."""
    if not any(values) or not all(isinstance(value, dict | None) for value in values):
        return {name: _typed(None, values)}
    columns: dict[str, Any] = {}
    for key in dict.fromkeys(chain.from_iterable(filter(None, values))):
        columns |= _flat(f"{name}.{key}", [value.get(key) if value else None for value in values])
    return columns


def column(values: Sequence[Any]) -> Any:
    """A column of the dtype that all *values* are of, None aside; of objects where there is none such."""
    return _typed(None, values)


def _typed(kind: Any, *values: Sequence[Any]) -> Any:
    """One column of all *values*, which are microseconds for times and durations."""
    raw = np.fromiter(chain.from_iterable(values), object, sum(map(len, values)))
    match kind:
        case "text":
            try:
                return pd.array(raw, dtype=_TEXT, copy=False)
            except (ValueError, TypeError):  # another program's: a name that is none
                texts = [None if value is None else str(value) for value in raw]
                return pd.array(np.array(texts, dtype=object), dtype=_TEXT, copy=False)
        case "time":
            times = raw.astype(float)
            times[~(np.abs(times) < 1e17)] = np.nan  # of another program's making: beyond the year 5138
            return pd.DatetimeIndex(times.astype("M8[us]"), tz="UTC")
        case "span":
            return pd.TimedeltaIndex(raw.astype(float).astype("m8[us]"))
    dtype: Any = KINDS[kind].dtype if isinstance(kind, str) else kind
    match kind:
        case "count" | "flag":
            return raw.astype(dtype)
        case "integer" | "truth":
            return pd.array(raw.astype(float), dtype=dtype)
    try:
        column = pd.array(raw, dtype=dtype, copy=False)  # for None, of the dtype that all of it is
        return column.astype(_TEXT, copy=False) if isinstance(column.dtype, pd.StringDtype) else column
    except OverflowError:  # pandas 2 has no place for whole numbers above 2**63
        return raw


def _frame(names: Iterable[str], columns: Mapping[str, Any]) -> pd.DataFrame:
    columns = {**columns, "duration": columns["ended_at"] - columns["started_at"]}
    return Readable({name: columns[name] for name in names}, copy=False)
