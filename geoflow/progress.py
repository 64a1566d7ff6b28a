"""Progress while something waits for a job: the live view in a notebook, one line a stage in a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from geoflow.text import plain, shorten

if TYPE_CHECKING:
    from geoflow.handle import JobHandle

logger = logging.getLogger("geoflow.progress")
SECONDS_BETWEEN = 0.25  # a person sees no more


@contextmanager
def watching(job: JobHandle, how: str) -> Iterator[Callable[[], None]]:
    """Show *job* in the way that the setting ``display`` says; the function that is yielded brings it up to date."""
    if in_notebook() and how in ("auto", "html"):
        with _live(job, widgets=how == "auto"):
            yield lambda: None
        return
    if how == "none" or (how == "auto" and not sys.stderr.isatty()):
        yield lambda: None
        return
    view, drawn = _Terminal(job), time.monotonic()

    def refresh() -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= SECONDS_BETWEEN:
            _safely(view.draw)
            drawn = time.monotonic()

    try:
        yield refresh
    finally:
        _safely(view.end)


@contextmanager
def waiting(job: JobHandle) -> Iterator[None]:
    """Show *job* live, if this is a notebook, while there is something to wait for."""
    how = job._session.settings.display
    if in_notebook() and how in ("auto", "html") and job._driver() is not None:
        with _live(job, widgets=how == "auto"):
            yield
    else:
        yield


def watch(job: JobHandle) -> None:
    """Show *job* live and return; where this is no notebook, print it as it is now."""
    how = job._session.settings.display
    if not in_notebook() or how == "text" or not _safely(lambda: _show(job, how != "html", asked_for=True)):
        print(repr(job))


@contextmanager
def _live(job: JobHandle, *, widgets: bool) -> Iterator[None]:
    shown = _safely(lambda: _show(job, widgets))
    try:
        yield
    finally:
        if shown:
            _safely(lambda: _settle(job))


def _show(job: JobHandle, widgets: bool, asked_for: bool = False) -> None:
    from geoflow.notebook.monitor import monitor_of

    monitor_of(job, widgets=widgets).show(job, asked_for=asked_for)


def _settle(job: JobHandle) -> None:
    from geoflow.notebook.monitor import monitor_of

    monitor_of(job).settle(job)


def _safely(draw: Callable[[], None]) -> bool:
    """A fault in drawing is logged, and never touches the job."""
    try:
        draw()
    except Exception:
        logger.exception("the progress could not be drawn")
        return False
    return True


def in_notebook() -> bool:
    """Asked without importing IPython: whoever has not done so has no notebook."""
    if "IPython" not in sys.modules:
        return False
    from geoflow.notebook.outputs import shell

    return shell() is not None


def shown_here(job: JobHandle) -> bool:
    """Whether the cell that runs now has shown *job* to its end."""
    if not in_notebook():
        return False
    from geoflow.notebook.monitor import shown_here as shown

    return shown(job)


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
