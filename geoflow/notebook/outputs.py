"""The outputs of a cell in which a job is shown, and the notebook that they are in."""

from __future__ import annotations

import importlib
import sys
from contextvars import Context, ContextVar, copy_context
from typing import Any

from geoflow.notebook.display import job_html, job_text
from geoflow.notebook.views import JobView

NOTHING = {"text/plain": "", "text/html": ""}


def shell() -> Any:
    """The IPython of this notebook; None where there is no notebook."""
    ipython = sys.modules.get("IPython")
    found = ipython.get_ipython() if ipython is not None else None
    return found if hasattr(found, "kernel") else None


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


def static(view: JobView) -> dict[str, Any]:
    return {"text/plain": job_text(view), "text/html": job_html(view)}


def _widget(widget: Any) -> dict[str, Any]:
    about = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"application/vnd.jupyter.widget-view+json": about}


class Outputs:
    """One view of a job: an output with its drawing, and one with tools below it, which is empty at first.

    ``live`` is whether the drawing is a widget, ``asked_for`` whether the tools are wanted even of a job that is done.
    """

    def __init__(self, view: JobView, asked_for: bool) -> None:
        self.cell = cell()
        self.asked_for = asked_for
        self.live = False
        bundle = static(view)
        self._html = bundle["text/html"]
        self._tools: Any = None
        self._drawing, self._below = display(bundle), display(NOTHING)

    def draw(self, bundle: dict[str, Any], again: bool = False) -> None:
        """Have the drawing be this `static` one, if it is not yet, or once more."""
        if again or self.live or self._html != bundle["text/html"]:
            self._drawing.update(bundle, raw=True)
            self.live, self._html = False, bundle["text/html"]

    def go_live(self, widget: Any, view: JobView) -> None:
        """Have the drawing be *widget*, which says the same as *view*."""
        if not self.live:
            self._drawing.update(static(view) | _widget(widget), raw=True)
            self.live = True
            self.equip(None)

    def equip(self, tools: Any) -> None:
        """Have these *tools* below, a widget, or none. Where it cannot be shown, nothing is."""
        if self._tools is not tools:
            self._tools = tools
            self._below.update(NOTHING if tools is None else NOTHING | _widget(tools), raw=True)
