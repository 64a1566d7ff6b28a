"""The widgets of one job: its drawing, the buttons that apply to it, and a list of its tasks to look into.

ipywidgets alone, so that every front end which knows it can show them. Nothing here knows of threads or stores: who
makes a `Panel` says how to act and where tasks come from, and keeps it up to date.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from geoflow.notebook.task_table import TaskTable
from geoflow.render.drawing import job_parts, task_html
from geoflow.render.markup import STYLE, Html
from geoflow.support.text import shorten
from geoflow.views.model import ACTIONS, JobView, TaskView

_HIDDEN = {"display": "none"}


class Panel:
    """*act* is called with the name of an action, *browse* when the list of tasks or the task in it is to change.

    Both are called in the thread that a click came in, whichever that is, and are to return at once.
    """

    def __init__(self, act: Callable[[str], None], browse: Callable[[], None]) -> None:
        widgets: Any = importlib.import_module("ipywidgets")  # not imported by its name: it has no types

        def html(value: str = "") -> Any:
            return widgets.HTML(value, layout={"margin": "0"})

        self._html = html
        self._row = widgets.HBox
        self._top, self._stages, self._title, self._more = html(), html(), html(), html()
        self._errors = widgets.VBox()
        self._groups: dict[str, _Group] = {}
        self.buttons = {
            name: widgets.Button(description=words, tooltip=tip, layout=_HIDDEN)
            for name, (words, tip) in ACTIONS.items()
        }
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: act(name))
        self.opener = widgets.ToggleButton(description="Tasks", tooltip="Look at the tasks, one by one.")
        self.table = TaskTable(widgets, browse)
        self.card, self._said = html(), html()
        self._browser = widgets.VBox([self.table.root, self.card], layout=_HIDDEN)
        row = widgets.HBox([*self.buttons.values(), self.opener], layout={"flex_flow": "row wrap"})
        self.tools = widgets.VBox([row, self._said, self._browser], layout={"padding": "0 0 0 6px"})
        drawing = [self._stages, self._title, self._errors, self._more]
        self.root = widgets.VBox([html(STYLE), self._top, self.tools, *drawing])
        self._browse = browse
        self.opener.observe(self._opened, "value")

    def close(self) -> None:
        """Take all of it off the page, and out of the kernel's memory."""
        for widget in list(_all(self.root)):
            widget.close()

    # The job

    def draw(self, view: JobView) -> int:
        """Bring it up to date; how many characters had to be sent for that.

        What has not changed stays on the page as it is. So does a group of errors that is there already while the job
        runs, but for its number: who reads it, or has opened it, is not disturbed.
        """
        parts = job_parts(view)
        whole = (self._top, parts.head), (self._stages, parts.stages), (self._title, parts.title)
        sent = sum(_set(widget, html) for widget, html in (*whole, (self._more, parts.more)))
        new = [key for key, *_ in parts.errors if key not in self._groups]
        self._groups.update((key, _Group(self._row, self._html(), self._html())) for key in new)
        for key, number, rest in parts.errors:
            group = self._groups[key]
            sent += _set(group.number, number)
            if key in new or view.driver is None or not _is_shown(group.row):
                sent += _set(group.rest, rest)
        if new:  # those that are there already stay where they are
            self._errors.children = (*self._errors.children, *(self._groups[key].row for key in new))
        there = {key for key, *_ in parts.errors}
        for key, group in self._groups.items():
            _show(group.row, key in there)
        for name, button in self.buttons.items():
            _show(button, name in view.actions)
        return sent

    def disable(self, disabled: bool) -> None:
        for button in self.buttons.values():
            button.disabled = disabled

    def say(self, line: str = "") -> None:
        """One line below the buttons: what became of an action."""
        said = Html('<div class="geoflow" role="alert">{}</div>').format(shorten(line, 300))
        self._said.value = said if line else ""

    # The tasks

    @property
    def browsing(self) -> bool:
        """Whether the list of tasks is open."""
        return bool(self.opener.value)

    def _opened(self, change: Any) -> None:
        _show(self._browser, self.browsing)
        self._browse()

    def show_task(self, task: TaskView | None) -> None:
        html = task_html(task) if task else ""
        if html != self.card.value:
            self.card.value = html


class _Group:
    """A group of errors: how many there are, and beside it what they are."""

    def __init__(self, row: Callable[..., Any], number: Any, rest: Any) -> None:
        self.number, self.rest = number, rest
        rest.layout = {"margin": "0", "flex": "1 1 0", "min_width": "0"}
        self.row = row([number, rest], layout={"align_items": "flex-start"})


def _set(widget: Any, html: str) -> int:
    """Have it show *html*, if it does not; how many characters that takes."""
    if widget.value == html:
        return 0
    widget.value = html
    return len(html)


def _is_shown(widget: Any) -> bool:
    return bool(widget.layout.display != "none")


def _show(widget: Any, shown: bool) -> None:
    """Not by its parent's children: that would make all of them anew, and take the focus from them."""
    display = None if shown else "none"
    if widget.layout.display != display:
        widget.layout.display = display


def _all(widget: Any) -> Iterator[Any]:
    """*widget*, what is in it, and what says how they look, which are widgets too."""
    for child in getattr(widget, "children", ()):
        yield from _all(child)
    yield from (part for name in ("layout", "style") if (part := getattr(widget, name, None)) is not None)
    yield widget
