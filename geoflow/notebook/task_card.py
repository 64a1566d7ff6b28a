"""Draw one task as HTML. Pure, as `geoflow.notebook.display` is."""

from __future__ import annotations

from geoflow.notebook.markup import STYLE, details, element, line, state, text
from geoflow.notebook.views import TaskLine, TaskView
from geoflow.notebook.words import SYMBOLS
from geoflow.text import shorten


def task_html(view: TaskView, style: str = STYLE) -> str:
    """The task as an element of its own: its error first, then what it was given and what it gave."""
    parts = (
        f'<div class="gf-head">{state(view.state, badge="gf-badge")}',
        f'<span class="gf-name" role="heading" aria-level="4">{text(view.task_id)}</span>',
        f'<span class="gf-faint">{text(" · ".join(view.facts))}</span></div>',
        line(text(view.error or "")),
        line(text(view.why or ""), "gf-faint"),
        *details(view.details),
    )
    return element(f"Task {view.task_id}: {view.state}", parts, style)


def label(task: TaskLine) -> str:
    """The task in one line of a list."""
    words = (f"{SYMBOLS[task.state]} {task.state}", shorten(task.task_id, 60), f"stage {task.stage}", task.said)
    return shorten(" · ".join(filter(None, words)), 140)
