"""Progress while something waits for a job: the live view in a notebook, one line a stage in a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from geoflow.text import plain, shorten

if TYPE_CHECKING:
    from geoflow.handle import JobHandle
    from geoflow.notebook.monitor import Monitor

logger = logging.getLogger("geoflow.progress")
SECONDS_BETWEEN = 0.25  # a person sees no more


@contextmanager
def watching(job: JobHandle, how: str) -> Iterator[Callable[[], None]]:
    """Show *job* in the way that the setting ``display`` says; the function that is yielded brings it up to date."""
    if _is_live(how):
        with _live(job):
            yield lambda: None
    elif how == "none" or (how == "auto" and not sys.stderr.isatty()):
        yield lambda: None
    else:
        with _in_terminal(job) as refresh:
            yield refresh


@contextmanager
def waiting(job: JobHandle) -> Iterator[None]:
    """Show *job* live, if this is a notebook, while there is something to wait for."""
    shown = _is_live(job._session.settings.display) and job._driver() is not None
    with _live(job) if shown else nullcontext():
        yield


def watch(job: JobHandle) -> None:
    """Show *job* live and return; where this is no notebook, print it as it is now."""
    is_shown = _in_notebook() and job._session.settings.display != "text"
    if not is_shown or not safely(lambda: _monitor(job).show(job, asked_for=True)):
        print(repr(job))


def shown_here(job: JobHandle) -> bool:
    """Whether the cell that runs now has shown *job* to its end."""
    return _in_notebook() and _monitor(job).shown_here()


def safely(draw: Callable[[], None]) -> bool:
    """A fault in drawing is logged, and never touches the job."""
    try:
        draw()
    except Exception:
        logger.exception("the job could not be drawn")
        return False
    return True


def _is_live(how: str) -> bool:
    return how in ("auto", "html") and _in_notebook()


def _in_notebook() -> bool:
    """Asked without importing IPython: whoever has not done so has no notebook."""
    if "IPython" not in sys.modules:
        return False
    from geoflow.notebook.outputs import shell

    return shell() is not None


def _monitor(job: JobHandle) -> Monitor:
    from geoflow.notebook.monitor import monitor_of

    return monitor_of(job)


@contextmanager
def _live(job: JobHandle) -> Iterator[None]:
    shown = safely(lambda: _monitor(job).show(job))
    try:
        yield
    finally:
        if shown:
            safely(lambda: _monitor(job).settle(job))


@contextmanager
def _in_terminal(job: JobHandle) -> Iterator[Callable[[], None]]:
    """One line for each stage that has been planned, on the standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    lines: dict[int, Any] = {}
    drawn = time.monotonic()

    def draw() -> None:
        for stage in job._session._snapshot(job.id).stages:
            if stage.planned and stage.number not in lines:
                label = shorten(plain(f"{stage.number} {stage.name}"), 28).ljust(28)
                lines[stage.number] = progress.add_task(label, note="")
            if stage.planned:
                failed = stage.counts.get("failed", 0)
                completed, note = stage.counts.get("completed", 0) + failed, f"{failed} failed" if failed else ""
                progress.update(lines[stage.number], total=stage.tasks, completed=completed, note=note)
        progress.refresh()

    def refresh() -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= SECONDS_BETWEEN:
            safely(draw)
            drawn = time.monotonic()

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        try:
            yield refresh
        finally:
            safely(draw)
