"""Progress while something waits for a job: the live view in a notebook, one line a stage in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from geoflow.support.logs import logger_of
from geoflow.support.masking import safe
from geoflow.support.text import columns, pad, shorten

if TYPE_CHECKING:
    from geoflow.job_handle import JobHandle
    from geoflow.notebook.monitor import Monitor

logger = logger_of("geoflow.progress")
SECONDS_BETWEEN = 0.25  # a person sees no more
LABEL = 20  # characters of a stage's number and name, so that a note has its place in 80 columns


@contextmanager
def watching(job: JobHandle, how: str) -> Iterator[Callable[[], None]]:
    """Show *job* in the way that the setting ``display`` says; the function that is yielded brings it up to date.

    Outside of a notebook an interrupt that put the job back says so, and how to go on.
    """
    if _is_live(how):
        with _live(job):
            yield lambda: None
    elif how == "none":
        yield lambda: None
    else:
        is_seen = sys.stderr is not None and (how != "auto" or _is_terminal())
        try:
            with _in_terminal(job) if is_seen else nullcontext(lambda: None) as refresh:
                yield refresh
        except KeyboardInterrupt as interrupt:
            stopped = interrupt
            safely(lambda: _say_how_to_go_on(job, stopped))
            raise


def _say_how_to_go_on(job: JobHandle, interrupt: KeyboardInterrupt) -> None:
    """Have the traceback of *interrupt* end with what became of *job*: whoever called has no handle of it."""
    from geoflow.jobtypes.contract import PROBE_OF

    view = job._session._snapshot(job.id)
    if view.state == "interrupted" and view.hint and not view.job_type.startswith(PROBE_OF):  # these are cancelled
        interrupt.add_note(f"Job {job.id[:8]} was put back. Next: {view.hint.partition('  #')[0]}")


def remark(said: Callable[[], str], how: str) -> None:
    """One line, in the caller's thread, where `watching` would show something. Asked for only there."""
    in_notebook = how in ("auto", "html", "text") and _in_notebook()
    is_shown = in_notebook or how in ("html", "text") or (how == "auto" and _is_terminal())

    def tell() -> None:
        if text := said():
            print(safe(text), file=sys.stdout if in_notebook else sys.stderr)

    if is_shown:
        safely(tell)


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
        print(job)


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


def _is_terminal() -> bool:
    """Whether the standard error is one: it may be none at all, or a program's own that cannot say."""
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError, OSError):
        return False


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
    from rich.table import Column

    from geoflow.views.wording import waits

    lines: dict[int, Any] = {}
    drawn = time.monotonic()

    def draw() -> None:
        stages = job._session._snapshot(job.id).stages
        labels = [shorten(f"{stage.number} {stage.name}", LABEL) for stage in stages]
        wide = max(map(columns, labels), default=0)
        for stage, label in zip(stages, labels, strict=True):
            if not stage.planned:
                continue
            failed = stage.counts.get("failed", 0)
            said: dict[str, Any] = {
                "total": stage.tasks,
                "completed": stage.counts.get("completed", 0) + failed,
                "note": ", ".join(filter(None, (f"{failed:,} failed" if failed else "", waits(stage)))),
            }
            if stage.number in lines:
                progress.update(lines[stage.number], **said)
            else:  # it is drawn at once
                lines[stage.number] = progress.add_task(pad(label, wide), **said)
        progress.refresh()

    def refresh() -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= SECONDS_BETWEEN:
            safely(draw)
            drawn = time.monotonic()

    parts = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        # The note has what is left of the width, and gives way alone.
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
    )
    with Progress(*parts, console=Console(stderr=True), auto_refresh=False, expand=True) as progress:
        try:
            yield refresh
        finally:
            safely(draw)
