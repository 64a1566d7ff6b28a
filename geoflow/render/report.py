"""Plans and probes as text, as HTML and as JSON, all from what they hold."""

from __future__ import annotations

import abc
import json
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from geoflow.render import markup
from geoflow.support.masking import mask
from geoflow.support.text import aligned, plain

if TYPE_CHECKING:
    import pandas as pd

Table = list[tuple[str, ...]]


class Drawn(abc.ABC):
    """Draws itself from its `parts`: a title, then lines, and tables whose first row has the heads."""

    @abc.abstractmethod
    def parts(self) -> Sequence[str | Table]: ...

    def lines(self, width: int = 80) -> list[str]:
        """It in lines of at most *width* columns."""
        found: list[str] = []
        for part in self.parts():
            if isinstance(part, str):
                found += textwrap.wrap(plain(part), width, subsequent_indent="  ")
            else:
                found += [f"  {line}" for line in aligned(part, width - 2)]
        return found

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        title, *parts = self.parts()
        drawn = [markup.title(str(title), 3)]
        for part in parts:
            if isinstance(part, str):
                drawn.append(markup.line(markup.text(part, 1000)))
            else:
                head, *rows = ([markup.text(cell, 100) for cell in row] for row in part)
                drawn.append(f'<div class="gf-wide">{markup.table(head, rows)}</div>')
        return markup.element(str(title), drawn)

    def document(self) -> Any:
        """It as JSON has it, with secrets masked: frames as lists of rows, a job as its id."""
        held = {name: value for name, value in vars(self).items() if name not in ("secrets", "exit_status")}
        for name, value in held.items():
            is_frame = hasattr(value, "to_json")
            held[name] = json.loads(value.to_json(orient="records")) if is_frame else getattr(value, "id", value)
        return mask(held, vars(self)["secrets"])


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows, with None for what is missing."""
    return cast(list[dict[str, Any]], frame.astype(object).where(frame.notna(), None).to_dict("records"))


def table(rows: pd.DataFrame, **shown: Callable[[Any], str]) -> Table:
    """The rows of a frame as a table of some of its columns, each cell as its column is *shown*, or empty."""
    head = tuple(name.replace("_", " ") for name in shown)
    cells = ([(row[name], show) for name, show in shown.items()] for row in records(rows))
    return [head, *(tuple("" if value is None else show(value) for value, show in row) for row in cells)]
