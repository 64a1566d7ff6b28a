"""What a comparison of two runs has found: frames for programs, and in words what differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from geoflow.render.markup import Html
from geoflow.render.pictures import Picture
from geoflow.render.report import Entry, Report, Table, records, table
from geoflow.render.side_by_side import OUTCOMES, ComparedStage, side_by_side
from geoflow.support.masking import mask, mask_text
from geoflow.support.text import human_bytes, human_duration, shorten
from geoflow.tools.compare.differences import NOTHING

_SHOWN, _CELL, _LINES = 10, 20, 30


@dataclass(frozen=True, repr=False)
class Comparison(Report):
    """What differs between the runs *a* and *b*, as frames in which columns end in ``_a`` and ``_b``.

    ``parameters``, ``code`` and ``files`` have what differs alone. ``tasks`` has a row for each pair, *paired* by what:
    its ``outcome`` is ``same``, ``status`` (they ended otherwise), ``differs`` (what they gave, or their errors, first
    at ``path``), ``only_a`` or ``only_b``. ``stages`` has numbers of tasks, seconds from the first start to the last
    end, seconds of processors, and the largest memory in bytes. What is not known is missing. Frames are not masked.
    """

    a: str
    b: str
    paired: str
    parameters: pd.DataFrame
    code: pd.DataFrame
    files: pd.DataFrame
    stages: pd.DataFrame
    tasks: pd.DataFrame
    secrets: tuple[str, ...]
    exit_status: int = 0  # for a shell

    @property
    def title(self) -> str:
        return f"A is {self.a}, B is {self.b}"

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs of tasks there are of each outcome."""
        found = self.tasks["outcome"].value_counts().to_dict()
        return {outcome: int(found[outcome]) for outcome in OUTCOMES if outcome in found}

    def picture(self) -> Picture:
        """How long each stage took in A and in B, and how many of its tasks differ: what its HTML begins with."""
        by_stage = {name: rows.value_counts().to_dict() for name, rows in self.tasks.groupby("stage_name")["outcome"]}
        stages = (
            ComparedStage(
                str(row["stage_name"]),
                (row["seconds_a"], row["seconds_b"]),
                {str(outcome): int(number) for outcome, number in by_stage.get(row["stage_name"], {}).items()},
            )
            for row in records(self.stages)
        )
        return side_by_side(list(stages), self.title)

    def parts(self) -> Iterator[str | Entry | Table | Html]:
        yield self.picture().part
        said = ", ".join(f"{number:,} {OUTCOMES[outcome][0]}" for outcome, number in self.counts.items())
        yield f"Tasks, paired by {self.paired}: {said or 'there are none'}."
        differing = self.tasks[self.tasks["outcome"] != "same"]
        told = [_told(*row) for row in differing[["outcome", "status_a", "status_b"]].itertuples(index=False)]
        shown: dict[str, Callable[[Any], str]] = {
            "stage_name": _cell,
            "key": _cell,
            "outcome": str,
            "path": _cell,
            "a": str,
            "b": str,
        }
        yield from self._table(differing.assign(outcome=told), "tasks", **shown)
        yield "Parameters: the same." if self.parameters.empty else "Parameters that differ:"
        yield from self._table(self.parameters, "parameters", parameter=str, a=str, b=str)
        known = "Code of handlers: the same, as far as it is known."
        yield known if self.code.empty else "Handlers that ran with other code:"
        yield from self._table(self.code, "code", stage_name=_cell, task_type=_cell, code_a=str, code_b=str)
        for text in self.code["diff"].dropna().head(_SHOWN):
            lines = mask_text(text, self.secrets).splitlines()
            more = [f"… {len(lines) - _LINES} more lines in comparison.code"] * (len(lines) > _LINES)
            yield Entry("note", "diff", "", tuple(("", each) for each in [*lines[:_LINES], *more]))
        if len(self.files):
            yield "Files that tasks were given, and that are not the same:"
            yield from self._table(self.files, "files", file=lambda name: shorten(name, 56), differs=str)
        if len(self.stages):
            yield [("stage", "completed", "time", "processor", "memory"), *map(_stage, records(self.stages))]

    def _table(self, rows: pd.DataFrame, name: str, **shown: Callable[[Any], str]) -> Iterator[str | Table]:
        if len(rows):
            few = rows.head(_SHOWN)
            yield table(self._masked(few, self._short) if "a" in few else few, **shown)
        if len(rows) > _SHOWN:
            yield f"These are {_SHOWN} of {len(rows):,}; comparison.{name}, or --json, has all."

    def document(self) -> Any:
        """For programs; see `Report.document`."""
        parameters, tasks = (self._masked(rows, self._whole) for rows in (self.parameters, self.tasks))
        for side in "ab":
            tasks[f"duration_{side}"] = tasks[f"duration_{side}"].dt.total_seconds()
        return {"counts": self.counts, **Report.document(replace(self, parameters=parameters, tasks=tasks))}

    def _masked(self, rows: pd.DataFrame, shown: Callable[[str, Any], Any]) -> pd.DataFrame:
        """*rows* with their values ``a`` and ``b`` as they are *shown* under the name that they go by."""
        names, made = rows["parameter" if "parameter" in rows else "path"].tolist(), dict[str, Any]()
        for side in ("a", "b"):
            values = [shown(str(name), value) for name, value in zip(names, rows[side].tolist(), strict=True)]
            made[side] = pd.Series(values, rows.index, dtype=object)  # else whole numbers would become floats
        return rows.assign(**made)

    def _whole(self, name: str, value: Any) -> Any:
        last = name.rpartition(".")[2]
        return None if value is NOTHING else mask({last: value}, self.secrets)[last]

    def _short(self, name: str, value: Any) -> str:
        if value is NOTHING or value is None:
            return "" if value is None else repr(value)
        masked = self._whole(name, value)
        text = masked if isinstance(masked, str) else json.dumps(masked, ensure_ascii=False)
        return shorten(mask_text(text, self.secrets), _CELL)


def _told(outcome: str, a: str, b: str) -> str:
    return f"{a} → {b}" if outcome == "status" else "differs" if outcome == "differs" else OUTCOMES[outcome][0]


def _cell(value: Any) -> str:
    return shorten(str(value), _CELL)


def _stage(row: dict[str, Any]) -> tuple[str, ...]:
    done, there = ([row[f"{name}_{side}"] for side in "ab"] for name in ("completed", "tasks"))
    numbers = [None if of is None else f"{some:,}/{of:,}" for some, of in zip(done, there, strict=True)]
    return (
        _cell(row["stage_name"]),
        _both(*numbers, shown=str),
        _both(row["seconds_a"], row["seconds_b"], shown=human_duration),
        _both(row["cpu_a"], row["cpu_b"], shown=human_duration),
        _both(row["peak_memory_a"], row["peak_memory_b"], shown=human_bytes),
    )


def _both(a: Any, b: Any, *, shown: Callable[[Any], str]) -> str:
    told = ["–" if value is None else shown(value) for value in (a, b)]
    return told[0] if told[0] == told[1] else " → ".join(told)
