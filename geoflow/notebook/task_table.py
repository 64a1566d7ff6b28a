"""The widgets in which the tasks of a job are looked for: chips, a search, an order, and a row for each task found.

Each control stays the same widget whatever becomes of the job: words change in place, and focus stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from geoflow.render.markup import Html
from geoflow.stores.task_lists import Wanted
from geoflow.support.text import shorten
from geoflow.views.model import SYMBOLS, Listing
from geoflow.views.stages import STATES
from geoflow.views.tasks import LISTED

_HIDDEN = {"display": "none"}
KINDS = 6  # types of errors that have a chip
ORDERS = (("worst first", "worst"), ("longest first", "longest"), ("as planned", "planned"))


class TaskTable:
    """*changed* is called, in whichever thread a click came in, when something else is to be shown.

    ``root`` is all of it but the task that was chosen, whose key is ``chosen``.
    """

    def __init__(self, widgets: Any, changed: Callable[[], None]) -> None:
        self._changed, self._widgets = changed, widgets
        self._filling = False
        self.chosen: int | None = None
        self._first = self._total = 0
        self._keys: list[int] = []
        self._picks = False  # the first of what was searched for is chosen
        self.states = {state: self._chip() for state in STATES}
        self.kinds = [self._chip() for _ in range(KINDS)]
        self._types: list[str] = []
        self.part = widgets.Text(
            description="Find:",
            placeholder="in ids, errors and parameters; then Enter",
            continuous_update=False,
            layout={"width": "360px"},
        )
        self.order = widgets.Dropdown(description="Order:", options=ORDERS, layout={"width": "210px"})
        for widget in (self.part, self.order):
            widget.observe(self._asked, "value")
        self.rows: list[Any] = []
        self._body = widgets.VBox()
        self.note = widgets.HTML(layout={"margin": "0"})
        self.before, self.after = self._turn("Before", -LISTED), self._turn("Next", LISTED)
        row = {"flex_flow": "row wrap"}
        chips = widgets.HBox([*self.states.values(), *self.kinds], layout=row)
        asked = widgets.HBox([self.part, self.order], layout=row)
        self.root = widgets.VBox([chips, asked, self._body, widgets.HBox([self.note, self.before, self.after])])

    @property
    def wanted(self) -> Wanted:
        """What is looked for."""
        state = next((name for name, chip in self.states.items() if chip.value), "")
        kind = next((name for name, chip in zip(self._types, self.kinds, strict=False) if chip.value), "")
        return Wanted(state, kind, self.part.value.strip(), self.order.value)

    @property
    def first(self) -> int:
        """The place of the first one that is shown."""
        return self._first

    def fill(self, listing: Listing, counts: Mapping[str, int]) -> None:
        """Show what was found; *counts* are all tasks of the job by their states."""
        self._filling, self._total = True, listing.total
        try:
            for state, chip in self.states.items():
                number = counts.get(state, 0)
                _say(chip, f"{SYMBOLS[state]} {number:,} {state}" if number or chip.value else "")
            self._types += [name for name, _ in listing.errors if name not in self._types]
            failed = dict(listing.errors)
            for name, chip in zip(self._types, self.kinds, strict=False):
                number = failed.get(name, 0)
                _say(chip, f"{number:,} {shorten(name, 40)}" if number or chip.value else "")
        finally:
            self._filling = False
        self._keys = [task.key for task in listing.tasks]
        if self._picks and self._keys:
            self.chosen = self._keys[0]
        self._picks = False
        if missing := len(self._keys) - len(self.rows):
            self._more_rows(missing)
        for place, button in enumerate(self.rows):
            task = listing.tasks[place] if place < len(listing.tasks) else None
            is_chosen = task is not None and task.key == self.chosen
            _say(button, f"{'▾' if is_chosen else ' '} {task.label}" if task else "")
        last = self._first + len(self._keys)
        self.note.value = Html('<div class="geoflow gf-faint" role="status">{}</div>').format(
            f"{self._first + 1:,} to {last:,} of {listing.total:,}" if self._keys else "There are none."
        )
        _show(self.before, self._first > 0)
        _show(self.after, last < listing.total)

    def _more_rows(self, number: int) -> None:
        for place in range(len(self.rows), len(self.rows) + number):
            button = self._widgets.Button(layout={**_HIDDEN, "width": "auto"})
            button.add_class("geoflow-row")
            button.on_click(lambda _, place=place: self._choose(place))
            self.rows.append(button)
        self._body.children = tuple(self.rows)  # those that are there stay where they are

    def _choose(self, place: int) -> None:
        key = self._keys[place] if place < len(self._keys) else None
        self.chosen = None if key == self.chosen else key
        self._changed()

    def _chip(self) -> Any:
        chip = self._widgets.ToggleButton(layout={**_HIDDEN, "width": "auto"})
        chip.add_class("geoflow-chip")
        chip.observe(self._asked, "value")
        return chip

    def _turn(self, words: str, by: int) -> Any:
        button = self._widgets.Button(description=words, layout={**_HIDDEN, "width": "auto"})
        button.on_click(lambda _: self._turned(by))
        return button

    def _turned(self, by: int) -> None:
        self._first = max(min(self._first + by, self._total - 1), 0)
        self._changed()

    def _asked(self, change: Any) -> None:
        if self._filling:
            return
        self._filling = True
        try:  # of the chips one is on at most: a state or a type of error
            for chip in (*self.states.values(), *self.kinds):
                if change.new is True and chip is not change.owner and chip.value:
                    chip.value = False
        finally:
            self._filling = False
        self._first, self._picks = 0, change.owner is self.part and bool(self.part.value)
        self._changed()


def _say(button: Any, words: str) -> None:
    """Have it say *words*, or be hidden where there are none."""
    if words and button.description != words:
        button.description = words
    _show(button, bool(words))


def _show(widget: Any, shown: bool) -> None:
    display = None if shown else "none"
    if widget.layout.display != display:
        widget.layout.display = display
