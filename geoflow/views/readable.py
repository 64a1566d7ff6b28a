"""A DataFrame that shows itself within a terminal's width: what tells rows apart first, durations and ids in short.

It is a DataFrame in all else, and what pandas makes of it is one that shows itself alike.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, cast

import pandas as pd
from markupsafe import Markup

from geoflow.support.text import aligned, columns, count, human_duration, shorten

FEW = 8  # columns, or less, are what somebody has asked for: they are shown as they are
SHORT = 8  # characters of an id that is a hash; its beginning is enough to find what has it
_ANY, _HASH = re.compile(".*"), re.compile("[0-9a-f]{16,}")
_OURS = {"job_id", "job_type", "key", "task_id", "stage_name", "event"}
_IDS = {"job_id": _ANY, "reused_from": _ANY, "key": _HASH, "task_id": _HASH}  # and which of them are shown in short
# In which order they are shown where there are more: after what stands before all of them, and before all others.
_FIRST = (
    *("job_id", "job_type", "key", "task_id", "stage_name", "status", "outcome", "attempts", "attempt", "tasks"),
    *("completed", "failed", "duration", "error", "cause", "error_type"),
)
_OUT_IF_ALIKE = ("job_id", "code")
_LONG, _SHORTEST = 40, 20  # characters of a text in a terminal, and what of the last one there is worth its place
_IN_HTML = 80


class Readable(pd.DataFrame):
    """A frame of jobs or of what is in them."""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return Readable

    def __repr__(self) -> str:
        width = pd.get_option("display.width")
        if not width or not self._is_ours():
            return super().__repr__()
        if sys.stdout is not None and sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
        (rows, gap), (names, left_out) = self._rows(), self._chosen()
        cells = {name: _cells(rows[name], _LONG) for name in names}
        index = [str(label) for label in rows.index.tolist()]
        names, cut = _that_fit(cells, width - max(map(len, index), default=0) - 2)
        lines = aligned([["", *map(str, names)], *zip(index, *(cells[name] for name in names), strict=True)], width)
        if gap is not None:
            lines.insert(gap + 1, "…")
        also = ", ".join(map(str, (*cut, *left_out)))
        said = f"[{self._size()}{also and f'; also {also}'}]"
        return "\n".join([*lines, *textwrap.wrap(said, width, max_lines=3, placeholder=" …]")])

    def _repr_html_(self) -> str | None:
        if not self._is_ours() or not pd.get_option("display.notebook_repr_html"):
            return cast("str | None", super()._repr_html_())  # type: ignore[misc]
        (rows, gap), (names, left_out) = self._rows(), self._chosen()
        shown = pd.DataFrame({name: _cells(rows[name], _IN_HTML) for name in names}, index=rows.index.map(str))
        if gap is not None:
            shown = pd.concat([shown[:gap], pd.DataFrame("…", columns=shown.columns, index=["…"]), shown[gap:]])
        table: str = shown.to_html(border=0, notebook=True, show_dimensions=False)
        also = f"; the same in all rows, or empty: {', '.join(map(str, left_out))}" if left_out else ""
        return str(Markup("{}<p>{}{}</p>").format(Markup(table), self._size(), also))

    def _size(self) -> str:
        return f"{count(len(self), 'row')} × {count(len(self.columns), 'column')}"

    def _is_ours(self) -> bool:
        """Whether it is still of jobs or tasks, one a row, and no sums or groups of them."""
        is_plain = self.columns.is_unique and self.columns.nlevels == self.index.nlevels == 1 and not self.index.name
        return is_plain and not _OURS.isdisjoint(self.columns)

    def _rows(self) -> tuple[pd.DataFrame, int | None]:
        """The rows that are shown, as pandas has its options, and after how many of them there is a gap, if any."""
        most, fewest = pd.get_option("display.max_rows"), pd.get_option("display.min_rows")
        if not most or len(self) <= most:
            return self, None
        half = max((min(fewest or most, most)) // 2, 1)
        return pd.concat([self[:half], self[-half:]]), half

    def _chosen(self) -> tuple[list[Any], list[Any]]:
        """The columns to show, in order, and those that say nothing: all alike, all empty, or said by another."""
        names = list(self.columns)
        if len(names) <= FEW or self.empty:
            return names, []
        out = [name for name in names if self[name].isna().all() or (name == "task_id" and "key" in names)]
        out += [
            name
            for name in _OUT_IF_ALIKE
            if name in names and name not in out and self[name].nunique() == 1 and (len(self) > 1 or "key" in names)
        ]
        first = [] if "event" in names else list(_FIRST)  # events are told in the order that they have
        lead = names[: min((place for place, name in enumerate(names) if name in first), default=0)]
        if "error" in names and "error" in first and self["error"].notna().all():  # then it tells them apart
            first.remove("error")
            first.insert(first.index("tasks"), "error")
        rest = dict.fromkeys((*lead, *(name for name in first if name in names), *names))
        return [name for name in rest if name not in out], out


def _that_fit(cells: dict[Any, list[str]], width: int) -> tuple[list[Any], list[Any]]:
    """The first columns that have their place in *width*, and the others. The last one may be cut."""
    names, fitting = list(cells), list[Any]()
    for name in names:
        wanted = max(map(columns, (str(name), *cells[name]))) + 2
        if wanted > width and (width < _SHORTEST + 2 or wanted <= _SHORTEST):
            break
        fitting.append(name)
        width -= wanted
    fitting = fitting or names[:1]
    return fitting, names[len(fitting) :]


def _cells(column: pd.Series[Any], longest: int) -> list[str]:
    values: Iterable[Any] = column.tolist()
    if long := _IDS.get(str(column.name)):
        values = (value[:SHORT] if isinstance(value, str) and long.fullmatch(value) else value for value in values)
    return [_cell(value, longest) for value in values]


def _cell(value: Any, longest: int) -> str:
    if isinstance(value, str):
        return shorten(value, longest)
    if isinstance(value, dict | list):
        return shorten(json.dumps(value, ensure_ascii=False, default=str), longest)
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, timedelta):
        return human_duration(value.total_seconds())
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return shorten(f"{value:g}" if isinstance(value, float) else str(value), longest)
