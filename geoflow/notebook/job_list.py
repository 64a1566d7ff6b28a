"""A list of jobs in a notebook that keeps itself up to date: a row a job, which opens it below, and closes it again.

The rows are widgets while the session is open, so that nothing moves and focus stays; plain HTML from then on.
"""

from __future__ import annotations

import importlib
import threading
import weakref
from typing import Any

from geoflow.engine.runtime import Runtime
from geoflow.errors import JobNotFound
from geoflow.notebook.outputs import WIDGET, detached, display, safely
from geoflow.render.drawing import job_html
from geoflow.render.markup import STYLE, Html, element, line, table, title
from geoflow.support.text import aligned, shorten
from geoflow.views.job_list import HEADS, ListedJob, listed_jobs

SECONDS_BETWEEN = 1.0  # two looks
WIDE = 104  # columns of a row: what a page of JupyterLab has room for beside its files


def text_of(jobs: list[ListedJob], width: int) -> list[str]:
    """The heads, and a row a job, in lines of at most *width* columns; the parameters give way."""
    rows = [HEADS, *(job.words for job in jobs)]
    if width < WIDE:
        rows = [(*row[:2], shorten(row[2], 16), *row[3:5], row[6]) for row in rows]
    return aligned(rows, width, gives_way=HEADS.index("Parameters"))


def html_of(jobs: list[ListedJob], name: str) -> str:
    """The same as a table; the exact time is shown where the pointer stands on how long ago it was."""
    rows = ((*job.words[:-1], Html('<span title="{}">{}</span>').format(job.at, job.words[-1])) for job in jobs)
    return str(element(name, (title(name, 3), table(HEADS, rows) if jobs else line("There are none yet."))))


def told(runtime: Runtime, limit: int) -> str:
    """The jobs as they are now, as text."""
    jobs = listed_jobs(runtime.store, runtime.clock.now(), limit, runtime.settings.secrets)[::-1]
    return "\n".join(text_of(jobs, 80)) if jobs else "There are no jobs yet."


class JobList:
    """The last *limit* jobs of a session's store, and those that come, until the session is closed.

    New ones come below the others: whatever is submitted, a row stays the same job's, and is where it was.
    """

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._runtime, self._limit = weakref.ref(runtime), limit
        self._name = f"Jobs of {runtime.store.name}"
        self._known: dict[str, ListedJob] = {}  # by their ids; one that is there keeps its place
        self.rows: list[Any] = []
        self.chosen: str | None = None
        self._poke = threading.Event()
        self._context = detached()
        self._context.run(self._make, runtime)

    def _make(self, runtime: Runtime) -> None:
        widgets: Any = importlib.import_module("ipywidgets")
        self._widgets = widgets
        self._heads, self._card, self._body = widgets.HTML(), widgets.HTML(), widgets.VBox()
        self.root = widgets.VBox([widgets.HTML(STYLE), self._heads, self._body, self._card])
        self._look(runtime)

    def show(self) -> None:
        """Show it in the cell that runs now, and keep it up to date from now on."""
        model = {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": self.root.model_id}}
        self._output = display(self._static() | model)
        threading.Thread(target=self._context.run, args=(self._follow,), name="geoflow-view", daemon=True).start()

    def _static(self) -> dict[str, Any]:
        return {"text/plain": "\n".join(text_of(self._jobs, 80)), "text/html": html_of(self._jobs, self._name)}

    def _follow(self) -> None:
        while (runtime := self._runtime()) is not None and runtime.open_store is not None:
            safely(lambda runtime=runtime: self._look(runtime))  # type: ignore[misc]
            del runtime  # a session that nobody else has is closed
            self._poke.wait(SECONDS_BETWEEN)
            self._poke.clear()
        self._output.update(self._static(), raw=True)

    @property
    def _jobs(self) -> list[ListedJob]:
        return list(self._known.values())

    def _look(self, runtime: Runtime) -> None:
        store = runtime.open_store
        if store is None:
            return
        newest = listed_jobs(store, runtime.clock.now(), self._limit, runtime.settings.secrets)
        self._known |= {job.view.job_id: job for job in reversed(newest)}
        jobs = self._jobs
        head, *lines = text_of(jobs, WIDE)
        said = Html('<div class="geoflow gf-piece"><b>{}</b><div class="gf-heads">  {}</div></div>')
        _set(self._heads, "value", said.format(self._name, head if jobs else "There are none yet."))
        for _ in range(len(jobs) - len(self.rows)):
            self._add_row(len(self.rows))
        for place, button in enumerate(self.rows):
            job = jobs[place]
            mark = "▾" if job.view.job_id == self.chosen else " "
            _set(button, "description", f"{mark} {lines[place]}")
            _set(button, "tooltip", f"Submitted {job.at}. Open it, or close it.")
        try:
            _set(self._card, "value", job_html(runtime.snapshot(self.chosen)) if self.chosen else "")
        except JobNotFound:  # it was removed meanwhile
            self.chosen = None

    def _add_row(self, place: int) -> None:
        button = self._widgets.Button(layout={"width": "auto"})
        button.add_class("geoflow-row")
        button.on_click(lambda _: self._choose(place))
        self.rows.append(button)
        self._body.children = tuple(self.rows)

    def _choose(self, place: int) -> None:
        job_id = self._jobs[place].view.job_id
        self.chosen = None if job_id == self.chosen else job_id
        self._poke.set()


def _set(widget: Any, name: str, value: Any) -> None:
    if getattr(widget, name) != value:
        setattr(widget, name, value)
