"""The outputs of a cell in which a job is shown, and the notebook that they are in."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar, copy_context
from typing import Any

from geoflow.render.drawing import job_html, job_text
from geoflow.support.ipython import shell
from geoflow.support.logs import logger_of
from geoflow.support.text import shorten
from geoflow.views.model import SYMBOLS, JobView

logger = logger_of("geoflow.progress")
SECONDS_BETWEEN = 0.25  # two drawings: a person sees no more
WIDGET = "application/vnd.jupyter.widget-view+json"
LONG = 10.0  # seconds that a job took whose end is announced: who waits for so long has gone to another tab
# A tab that is not seen has what became of the job before its title, until it is.
_TITLE = """(() => {
  if (!document.hidden) return;
  const title = document.title;
  document.title = %s + " · " + title;
  document.addEventListener("visibilitychange", () => { document.title = title; }, {once: true});
})()"""
NOTHING: dict[str, Any] = {"text/plain": "", "text/html": ""}


def cell() -> object:
    """What tells the cell that runs now, or whose context this is, from all others; None where there is none."""
    header = getattr(getattr(shell(), "display_pub", None), "parent_header", None) or {}
    return header.get("msg_id") or getattr(shell(), "execution_count", None)


def detached() -> Context:
    """The context of this cell, in which its outputs are sent, but what widgets send belongs to no cell.

    ipykernel brings a click to the thread that its widget last wrote from. Were that a cell's, a cell that waits would
    keep a click on Cancel waiting too; written from nowhere, it comes in a thread of its own where the kernel has them.
    """
    context = copy_context()
    parent = getattr(getattr(shell(), "kernel", None), "_shell_parent", None)
    if isinstance(parent, ContextVar):
        context.run(parent.set, {})
    return context


def display(bundle: dict[str, Any]) -> Any:
    """Show *bundle* as an output of this cell; what is returned can update it."""
    shows: Any = importlib.import_module("IPython.display").display
    return shows(bundle, raw=True, display_id=True)


def safely(draw: Callable[[], None]) -> bool:
    """A fault in drawing is logged, and never touches the job."""
    try:
        draw()
    except Exception:
        logger.exception("the job could not be drawn")
        return False
    return True


def static(view: JobView, pictures: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    return {"text/plain": job_text(view), "text/html": job_html(view, pictures)}


def _widget(widget: Any) -> dict[str, Any]:
    return NOTHING | {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}}


class Outputs:
    """One view of a job: an output with its drawing, and one with tools below it, which is empty at first.

    ``asked_for`` is whether the tools are wanted even of a job that is done, ``settled`` whether it shows how the job
    had stopped when its cell had waited for that: what becomes of the job in later cells is not for it to show.
    """

    def __init__(self, view: JobView, asked_for: bool) -> None:
        self.asked_for, self.settled = asked_for, False
        self._cell = cell()
        self._drawn, self._tools = static(view), NOTHING
        self._drawing, self._below = display(self._drawn), display(self._tools)

    @property
    def live(self) -> bool:
        """Whether the drawing is a widget."""
        return WIDGET in self._drawn

    def is_here(self) -> bool:
        """Whether it is in the cell that runs now."""
        return self._cell is not None and self._cell == cell()

    def draw(self, bundle: dict[str, Any], again: bool = False) -> None:
        """Have the drawing be this one, if it is not yet, or once more."""
        if again or (bundle != self._drawn and not self.settled):
            self._drawing.update(bundle, raw=True)
            self._drawn = bundle

    def announce(self, view: JobView) -> None:
        """Have the title of the page say what became of a long job; nothing of that stays in the notebook."""
        if (view.elapsed or 0) >= LONG:
            said = json.dumps(f"{SYMBOLS[view.state]} {shorten(view.job_type, 40)}").replace("<", "\\u003c")
            self._below.update(NOTHING | {"application/javascript": _TITLE % said}, raw=True)
            self._below.update(self._tools, raw=True)

    def go_live(self, widget: Any, view: JobView) -> None:
        """Have the drawing be *widget*, which says the same as *view*."""
        if not self.live and not self.settled:
            self.draw(_widget(widget) | static(view))
            self.equip(None)

    def equip(self, tools: Any) -> None:
        """Have these *tools* below, a widget, or none. Where it cannot be shown, nothing is."""
        bundle = NOTHING if tools is None else _widget(tools)
        if bundle != self._tools:
            self._below.update(bundle, raw=True)
            self._tools = bundle
