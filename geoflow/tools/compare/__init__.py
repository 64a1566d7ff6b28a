"""Two jobs, or two runs of one: parameters, code, files, outcomes and results task by task, time and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import unified_diff
from typing import Any

import pandas as pd

from geoflow.engine.runtime import Runtime
from geoflow.errors import ParameterError
from geoflow.render.report import records
from geoflow.support.text import shorten
from geoflow.tools.compare.differences import NOTHING, first_difference
from geoflow.tools.compare.found import Comparison
from geoflow.tools.compare.runs import WAYS, Run, run_of

TOLERANCE = 1e-9
_KINDS = {
    **{"tasks": "Int64", "completed": "Int64", "failed": "Int64"},
    **{"seconds": "Float64", "cpu": "Float64", "peak_memory": "Int64"},
}
_SIDES = {f"{name}_{side}": kind for name, kind in _KINDS.items() for side in "ab"}
_DTYPES = {"a": "object", "b": "object", **dict.fromkeys(("duration_a", "duration_b"), "timedelta64[us]"), **_SIDES}
_TASKS = (
    *("stage_name", "key", "outcome", "status_a", "status_b", "path", "a", "b", "duration_a", "duration_b"),
    *("task_id_a", "task_id_b"),
)


def compare(
    a: tuple[Runtime, str], b: tuple[Runtime, str] | None, on: str | None = None, tolerance: float = TOLERANCE
) -> Comparison:
    """The jobs *a* and *b*, each of a runtime; without *b* what *a* was before its last rerun or update, and is now.

    See `geoflow.session.Session.compare`.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < 1:
        raise ParameterError(f"tolerance cannot be {shorten(repr(tolerance), 40)}: give a share from 0.0 to below 1.0.")
    if b is None:
        one, other = run_of(*a, before=True, name=f"job {a[1][:8]} before"), run_of(*a, name="now")
    else:
        one, other = run_of(*a), run_of(*b)
        if (one.row.job_id, a[0].store.name) == (other.row.job_id, b[0].store.name):
            raise ParameterError(f"Job {one.row.job_id[:8]} was named twice: name it once for its earlier run and now.")
    paired, pairs = _pairs(one, other, on)
    return Comparison(
        one.name,
        other.name,
        paired,
        _parameters(one, other),
        _code(one, other),
        _files(one, other),
        _stages(one, other),
        _tasks(one, other, pairs, tolerance),
        a[0].settings.secrets,
    )


_Rows = dict[tuple[str, str], int]
Pair = tuple[tuple[str, str], int | None, int | None]


def _pairs(one: Run, other: Run, on: str | None) -> tuple[str, list[Pair]]:
    """By what the tasks are paired, and for each pair its stage and key, and the rows in both.

    Where nobody says by what, it is told for each stage: an id may be made of the job's, as that of a fan_in is.
    """
    chosen: dict[str, str] = {}
    found: dict[str, tuple[_Rows, _Rows]] = {}
    for way in WAYS if on is None else (on,):
        mine, theirs = one.by(way), other.by(way)
        if on is not None:
            _check(on, (one, mine), (other, theirs))
        if mine is None or theirs is None:
            continue
        met = {stage for stage, _ in mine.keys() & theirs.keys()}
        for stage in dict.fromkeys(stage for stage, _ in (*mine, *theirs)):
            if stage not in chosen and (on is not None or way == WAYS[-1] or stage in met):
                chosen[stage], found[stage] = way, (mine, theirs)
    pairs: list[Pair] = []
    for stage, (mine, theirs) in found.items():
        keys = dict.fromkeys(key for key in (*mine, *theirs) if key[0] == stage)
        pairs += [(key, mine.get(key), theirs.get(key)) for key in keys]
    return _ways(chosen), pairs


def _ways(chosen: Mapping[str, str]) -> str:
    """By what, in words: of most stages, and which others are paired otherwise."""
    words = [("their places" if way == "place" else way, stage) for stage, way in chosen.items()]
    most = Counter(way for way, _ in words).most_common(1)[0][0] if words else WAYS[0]
    others = dict[str, list[str]]()
    for way, stage in words:
        if way != most:
            others.setdefault(way, []).append(shorten(stage, 40))
    return "; ".join([most, *(f"in {', '.join(stages)} by {way}" for way, stages in others.items())])


def _check(on: str, *found: tuple[Run, Any]) -> None:
    for run, rows in found:
        if rows is None:
            what = f"Two tasks of one stage of {run.name} have the same {on}:"
            raise ParameterError(what, python="name another on=.", typed="name another --on.")
        if not rows and len(run.tasks):
            what, ways = (
                f"No task of {run.name} has a parameter {on!r}:",
                "names one that has, or is key, parameters or place.",
            )
            raise ParameterError(what, python=f"on= {ways}", typed=f"--on {ways}")


def _parameters(one: Run, other: Run) -> pd.DataFrame:
    mine, theirs = one.parameters, other.parameters
    rows = [
        (f"{name}{found.path and ('' if found.path.startswith('[') else '.')}{found.path}", found.a, found.b)
        for name in dict.fromkeys((*mine, *theirs))
        if (found := first_difference(mine.get(name, NOTHING), theirs.get(name, NOTHING)))
    ]
    return _frame(("parameter", "a", "b"), rows)


def _code(one: Run, other: Run) -> pd.DataFrame:
    """The handlers that ran with other code, of those that ran in both; where their texts were kept, what differs."""
    mine, theirs = (_codes(run.tasks) for run in (one, other))
    rows = []
    for kind, code in mine.items():
        if code != theirs.get(kind, code):
            named = (", ".join(sorted(some)) for some in (code, theirs[kind]))
            rows.append((*kind, *named, _diff(one, code, other, theirs[kind])))
    return _frame(("stage_name", "task_type", "code_a", "code_b", "diff"), rows)


def _diff(one: Run, mine: set[str], other: Run, theirs: set[str]) -> str | None:
    """The texts as a unified diff, where there is one on each side."""
    if len(mine) != 1 or len(theirs) != 1:
        return None
    (left,), (right,) = mine, theirs
    if left not in one.sources or right not in other.sources:
        return None
    before, after = one.sources[left].splitlines(), other.sources[right].splitlines()
    return "\n".join(unified_diff(before, after, f"A {left}", f"B {right}", lineterm="", n=1)) or None


def _codes(tasks: pd.DataFrame) -> dict[tuple[str, str], set[str]]:
    known = tasks[tasks["code"].notna()]
    found: dict[tuple[str, str], set[str]] = {}
    for stage, task_type, code in known[["stage_name", "task_type", "code"]].drop_duplicates().itertuples(index=False):
        found.setdefault((str(stage), str(task_type)), set()).add(str(code))
    return found


def _files(one: Run, other: Run) -> pd.DataFrame:
    """The files that are not the same, where they are known of both."""
    if not one.files or not other.files:
        return _frame(("file", "differs"), [])
    paths = [path for path in dict.fromkeys((*one.files, *other.files)) if one.files.get(path) != other.files.get(path)]
    where = {(True, True): "changed", (True, False): "only in A", (False, True): "only in B"}
    rows = [(path, where[path in one.files, path in other.files]) for path in paths]
    return _frame(("file", "differs"), rows)


def _stages(one: Run, other: Run) -> pd.DataFrame:
    mine, theirs = (_measured(run) for run in (one, other))
    rows = [
        (stage, *(of.get(stage, {}).get(name) for name in _KINDS for of in (mine, theirs)))
        for stage in dict.fromkeys((*mine, *theirs))
    ]
    return _frame(("stage_name", *_SIDES), rows)


def _measured(run: Run) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for stage, tasks in run.tasks.groupby("stage_name", sort=False, observed=True):
        ran = run.attempts[(run.attempts["stage_name"] == stage) & run.attempts["started_at"].notna()]
        states = tasks["status"].astype(str)
        lasted = (ran["ended_at"].max() - ran["started_at"].min()).total_seconds() if len(ran) else None
        cpu, memory = ran["cpu"].dropna(), ran["peak_memory"].dropna()
        found[str(stage)] = {
            "tasks": len(tasks),
            "completed": int((states == "completed").sum()),
            "failed": int((states == "failed").sum()),
            "seconds": lasted,
            "cpu": float(cpu.dt.total_seconds().sum()) if len(cpu) else None,
            "peak_memory": int(memory.max()) if len(memory) else None,
        }
    return found


def _tasks(one: Run, other: Run, pairs: Iterable[Pair], tolerance: float) -> pd.DataFrame:
    wanted = ["status", "result", "error_type", "error", "duration", "task_id"]
    mine, theirs = (records(run.tasks[wanted]) for run in (one, other))
    rows = []
    for (stage, key), left, right in pairs:
        a, b = mine[left] if left is not None else {}, theirs[right] if right is not None else {}
        outcome, path, *values = _outcome(a, b, tolerance)
        others = (of.get(name) for name in ("duration", "task_id") for of in (a, b))
        rows.append((stage, key, outcome, a.get("status"), b.get("status"), path, *values, *others))
    return _frame(_TASKS, rows)


def _outcome(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float) -> tuple[str, str | None, Any, Any]:
    if not a or not b:
        return "only_a" if a else "only_b", None, None, None
    if a["status"] != b["status"]:
        errors = (a.get("error"), b.get("error"))
        return "status", "error" if any(errors) else None, *errors
    if a["status"] == "failed":
        one, other = ({"error_type": each["error_type"], "error": each["error"]} for each in (a, b))
        found = first_difference(one, other)
    else:
        found = first_difference(a["result"], b["result"], tolerance)
    return ("same", None, None, None) if found is None else ("differs", *found)


def _frame(names: tuple[str, ...], rows: list[Any]) -> pd.DataFrame:
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    kinds = (_DTYPES.get(name, "string[python]") for name in names)
    made = (pd.Series(list(values), dtype=kind) for values, kind in zip(columns, kinds, strict=True))
    return pd.DataFrame(dict(zip(names, made, strict=True)))
