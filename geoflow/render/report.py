"""What a tool has to say, in one form for all of them: as text, as HTML, as JSON and as an exit status."""

from __future__ import annotations

import abc
import json
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from geoflow.render import markup
from geoflow.render.markup import Html
from geoflow.support.masking import mask
from geoflow.support.text import aligned, columns, plain, shorten

if TYPE_CHECKING:
    import pandas as pd

Table = list[tuple[str, ...]]  # its first row has the heads
Status = Literal["error", "problem", "warning", "note", "ok"]
# The states of jobs whose colours they have in a notebook.
_COLOURS = {"error": "failed", "problem": "failed", "warning": "interrupted", "note": "queued", "ok": "completed"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was found: a *badge* with its status, the *name* of what it is about, and what is *said* of it.

    What is said are texts with their labels. They stand in the column *margin*: beside the rest where that ends before
    it, else below.
    """

    status: Status
    badge: str
    name: str
    said: tuple[tuple[str, str], ...]
    where: str | None = None
    margin: int = 2

    def lines(self, width: int, most: int | None) -> Iterator[str]:
        head = plain("  ".join(filter(None, (self.badge, self.name, self.where))))
        is_above = columns(head) >= self.margin
        if is_above:
            yield head
        before = "" if is_above else f"{head:{self.margin}}"
        for label, text in self.said:
            wrapped = textwrap.wrap(
                plain(f"{label}{text}"),
                max(width - self.margin, 30),
                subsequent_indent="  " if label else "",
                break_long_words=False,  # paths and commands, to be copied
                break_on_hyphens=False,
                max_lines=most,
                placeholder=" … --json tells all of it.",
            )
            for line in wrapped:
                yield f"{before:{self.margin}}{line}"
                before = ""
        if is_above:
            yield ""

    def html(self) -> Html:
        where = Html(" <code>{}</code>").format(self.where) if self.where else ""
        badge = Html('<span class="gf-is gf-{} gf-badge">{}</span> {}{}')
        head = badge.format(_COLOURS[self.status], self.badge.strip(), self.name.strip(), where)
        said = (Html("{}{}").format(markup.faint(label) if label else "", text) for label, text in self.said)
        return Html().join(map(markup.line, (head, *said)))


class Report(abc.ABC):
    """Draws itself from a title and its `parts`: paragraphs, entries, tables, and pictures, which text leaves out.

    *titled* says whether its text begins with the title too, and *most_lines* how many each text of an entry may have.
    """

    titled: ClassVar[bool] = True
    most_lines: ClassVar[int | None] = None
    exit_status: int  # for a shell

    @property
    @abc.abstractmethod
    def title(self) -> str: ...

    @abc.abstractmethod
    def parts(self) -> Iterable[str | Entry | Table | Html]: ...

    def document(self) -> Any:
        """For programs: its fields as JSON has them, secrets masked: frames as lists of rows, a job as its id."""
        held = {name: value for name, value in vars(self).items() if name not in ("secrets", "exit_status")}
        for name, value in held.items():
            is_frame = hasattr(value, "to_json")
            held[name] = json.loads(value.to_json(orient="records")) if is_frame else getattr(value, "id", value)
        return mask(held, vars(self)["secrets"])

    def lines(self, width: int = 80) -> Iterator[str]:
        """For people, in *width* columns where the words of entries allow it."""
        width = max(width, 40)
        for part in [self.title] * self.titled + [*self.parts()]:
            if isinstance(part, Html):
                continue
            if isinstance(part, str):
                yield from textwrap.wrap(plain(part), width, subsequent_indent="  ")
            elif isinstance(part, Entry):
                yield from part.lines(width, self.most_lines)
            else:
                yield from (f"  {line}" for line in aligned(part, width - 2))

    def to_json(self) -> str:
        return json.dumps(self.document(), indent=2)

    def __repr__(self) -> str:
        return "\n".join(self.lines(min(shutil.get_terminal_size().columns, 80)))

    def _repr_html_(self) -> str:
        return str(markup.element(self.title, (markup.title(self.title, 3), *map(_drawn, self.parts()))))


def _drawn(part: str | Entry | Table | Html) -> Html:
    if isinstance(part, Html):
        return part
    if isinstance(part, str):
        return markup.line(shorten(part, 1000))
    if isinstance(part, Entry):
        return part.html()
    heads, *rows = ([shorten(cell, 100) for cell in row] for row in part)
    return markup.table(heads, rows)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows, with None for what is missing."""
    return cast(list[dict[str, Any]], frame.astype(object).where(frame.notna(), None).to_dict("records"))


def table(rows: pd.DataFrame, **shown: Callable[[Any], str]) -> Table:
    """The rows of a frame as a table of some of its columns, each cell as its column is *shown*, or empty."""
    head = tuple(name.replace("_", " ") for name in shown)
    cells = ([(row[name], show) for name, show in shown.items()] for row in records(rows))
    return [head, *(tuple("" if value is None else show(value) for value, show in row) for row in cells)]
