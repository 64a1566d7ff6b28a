"""Progress while a cell or a command waits: one line a stage in a terminal, the drawing in a notebook."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from geoflow.text import plain, shorten

if TYPE_CHECKING:
    from geoflow.handle import JobHandle

# A person sees no more; a drawing of a large job takes some milliseconds of the machine's.
logger = logging.getLogger("geoflow.progress")
SECONDS_BETWEEN = 0.25


@contextmanager
def watching(job: JobHandle, how: str) -> Iterator[Callable[[], None]]:
    """Show *job* (``auto``, ``html``, ``text`` or ``none``); the function that is yielded brings it up to date."""
    if how == "none":
        yield lambda: None
        return
    html = how == "html" or (how == "auto" and _in_notebook())
    if not html and how == "auto" and not sys.stderr.isatty():
        yield lambda: None
        return
    view = _Notebook(job) if html else _Terminal(job)
    drawn = time.monotonic()

    def refresh() -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= SECONDS_BETWEEN:
            _safely(view.draw)
            drawn = time.monotonic()

    try:
        yield refresh
    finally:
        _safely(view.end)


def _safely(draw: Callable[[], None]) -> None:
    """A fault in drawing is logged, and never touches the job."""
    try:
        draw()
    except Exception:
        logger.exception("the progress could not be drawn")


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None else None
    return found is not None and hasattr(found, "kernel")


class _Notebook:
    """The job's drawing, replaced in place."""

    def __init__(self, job: JobHandle) -> None:
        self._ipython: Any = importlib.import_module("IPython.display")
        self._job = job
        self._shown = self._ipython.display(self._drawing(), display_id=True)

    def _drawing(self) -> Any:
        return self._ipython.HTML(self._job._repr_html_())

    def draw(self) -> None:
        self._shown.update(self._drawing())

    def end(self) -> None:
        self.draw()


class _Terminal:
    """One line for each stage that has been planned, on the standard error."""

    def __init__(self, job: JobHandle) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._job = job
        self._lines: dict[int, Any] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._progress.start()

    def draw(self) -> None:
        view = self._job._session._snapshot(self._job.id)
        for stage in view.stages:
            if not stage.planned:
                continue
            if stage.number not in self._lines:
                label = shorten(plain(f"{stage.number} {stage.name}"), 28).ljust(28)
                self._lines[stage.number] = self._progress.add_task(label, total=stage.tasks, note="")
            failed = stage.counts.get("failed", 0)
            self._progress.update(
                self._lines[stage.number],
                total=stage.tasks,
                completed=stage.counts.get("completed", 0) + failed,
                note=f"{failed} failed" if failed else "",
            )
        self._progress.refresh()

    def end(self) -> None:
        self.draw()
        self._progress.stop()
