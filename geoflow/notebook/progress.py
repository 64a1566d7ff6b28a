"""Progress while something waits for a job: the live view in a notebook, one line a stage in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from geoflow.core.models import Receipt
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import OnExisting, Runtime
from geoflow.jobtypes.contract import PROBE_OF, DefinesJob
from geoflow.notebook.live import Drawn, Live
from geoflow.notebook.mistakes import show_as_a_line
from geoflow.notebook.outputs import SECONDS_BETWEEN, safely
from geoflow.render.drawing import job_html, job_text, running_text
from geoflow.support.ipython import shell
from geoflow.support.masking import safe
from geoflow.support.text import columns, fit, pad, plain, shorten
from geoflow.views.model import JobView

if TYPE_CHECKING:
    from geoflow.notebook.monitor import Monitor

LABEL = 20  # characters of a stage's number and name, so that a note has its place in 80 columns


def run(
    runtime: Runtime,
    job_type: str | type | DefinesJob,
    given: dict[str, Any],
    on_existing: OnExisting,
    remark: Callable[[Receipt], None],
) -> Receipt:
    """Submit a job, *remark* on what its receipt says, and `follow` it. An interrupt puts it back to be resumed."""
    begun: list[JobRow] = []
    try:
        receipt = runtime.submit(job_type, given, on_existing, here=True, begun=begun)
        remark(receipt)
        follow(runtime, receipt.job_id)
    except KeyboardInterrupt as interrupt:  # wherever it came: nothing that was begun here goes on behind one's back
        for row in begun:
            runtime.put_back(row)
            _say_it_was_put_back(interrupt, row.job_id)
        raise
    return receipt


def follow(runtime: Runtime, job_id: str) -> None:
    """Show the job's progress until it ends, or until nobody drives it. An interrupt puts it back to be resumed."""
    driven = runtime.active.get(job_id)
    with watching(runtime, job_id, runtime.settings.display) as refresh:
        try:
            if driven is None:
                runtime.wait(job_id, refresh=refresh)
            else:
                runtime.wait_for(driven, refresh=refresh)
        except KeyboardInterrupt as interrupt:
            if driven is not None:
                runtime.ask("interrupt", driven)
                _say_it_was_put_back(interrupt, job_id)
            raise
    if driven is not None and driven.error is not None:
        raise driven.error


@contextmanager
def watching(runtime: Runtime, job_id: str, how: str) -> Iterator[Callable[[], None]]:
    """Show the job in the way that the setting ``display`` says; the function that is yielded brings it up to date.

    Outside of a notebook an interrupt that put the job back says so, and how to go on.
    """
    if _is_live(how):
        with _live(runtime, job_id):
            yield lambda: None
    elif how == "none":
        yield lambda: None
    elif how in ("auto", "html") and (marimo := _marimo()) is not None:
        with _in_cell(runtime, job_id, marimo) as refresh:
            yield refresh
    else:
        is_seen = sys.stderr is not None and (how != "auto" or _is_terminal())
        try:
            with _in_terminal(runtime, job_id) if is_seen else nullcontext(lambda: None) as refresh:
                yield refresh
        except KeyboardInterrupt as interrupt:
            stopped = interrupt
            safely(lambda: _say_how_to_go_on(runtime, job_id, stopped))
            raise


def _say_it_was_put_back(interrupt: KeyboardInterrupt, job_id: str) -> None:
    show_as_a_line(interrupt, f'Interrupted. Job {job_id[:8]} was put back. Next: session.job("{job_id[:8]}").resume()')


def _say_how_to_go_on(runtime: Runtime, job_id: str, interrupt: KeyboardInterrupt) -> None:
    """Have the traceback of *interrupt* end with what became of the job: whoever called has no handle of it."""
    view = runtime.snapshot(job_id)
    if view.state == "interrupted" and view.hint and not view.job_type.startswith(PROBE_OF):  # these are cancelled
        interrupt.add_note(f"Job {job_id[:8]} was put back. Next: {view.hint.partition('  #')[0]}")


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
def waiting(runtime: Runtime, job_id: str) -> Iterator[None]:
    """Show the job live, if this is a notebook, while there is something to wait for."""
    shown = _is_live(runtime.settings.display) and runtime.driver(job_id) is not None
    try:
        with _live(runtime, job_id) if shown else nullcontext():
            yield
    except KeyboardInterrupt as interrupt:
        if runtime.driver(job_id) is not None:
            show_as_a_line(interrupt, f"Interrupted. Job {job_id[:8]} goes on: job.cancel() ends it.")
        raise


def watch(runtime: Runtime, job_id: str) -> None:
    """Show the job live and return; where this is no notebook, print it as it is now."""
    is_shown = _in_notebook() and runtime.settings.display != "text"
    if not is_shown or not safely(lambda: _monitor(runtime, job_id).show(runtime, asked_for=True)):
        print(job_text(runtime.snapshot(job_id)))


def watch_jobs(runtime: Runtime, limit: int) -> None:
    """Show the last *limit* jobs live and return; where this is no notebook, print them as they are now."""
    from geoflow.notebook import job_list  # with rendering and views that a terminal's jobs have no use for

    def show() -> None:
        job_list.JobList(runtime, limit).show()

    if not (_in_notebook() and runtime.settings.display != "text" and safely(show)):
        print(job_list.told(runtime, limit))


@contextmanager
def live(draw: Callable[[], Drawn], how: str, *, waits: bool) -> Iterator[bool]:
    """Show in a notebook what *draw* draws, again and again; and once more at the end, where this *waits* for it.

    Tells whether it is shown.
    """
    shown: list[Live] = []
    if _is_live(how):
        safely(lambda: shown.append(Live(draw)))
    try:
        yield bool(shown)
    finally:
        if shown and waits:
            safely(shown[0].settle)


def shown_here(runtime: Runtime, job_id: str) -> bool:
    """Whether the cell that runs now has shown the job to its end."""
    return _in_notebook() and _monitor(runtime, job_id).shown_here()


def _is_terminal() -> bool:
    """Whether the standard error is one: it may be none at all, or a program's own that cannot say."""
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def _is_live(how: str) -> bool:
    return how in ("auto", "html") and _in_notebook()


def _in_notebook() -> bool:
    return shell() is not None


def _marimo() -> Any:
    """The module, where a notebook of it runs."""
    marimo = sys.modules.get("marimo")
    return marimo if marimo is not None and marimo.running_in_notebook() else None


def _monitor(runtime: Runtime, job_id: str) -> Monitor:
    from geoflow.notebook.monitor import monitor_of  # with all that is of widgets, which a terminal has no use for

    return monitor_of(runtime, job_id)


@contextmanager
def _live(runtime: Runtime, job_id: str) -> Iterator[None]:
    shown = safely(lambda: _monitor(runtime, job_id).show(runtime))
    try:
        yield
    finally:
        if shown:
            safely(lambda: _monitor(runtime, job_id).settle(runtime))


@contextmanager
def _in_cell(runtime: Runtime, job_id: str, marimo: Any) -> Iterator[Callable[[], None]]:
    """The job's drawing as the output of a cell of marimo, which shows no widgets of Jupyter's."""

    def draw() -> None:
        marimo.output.replace(marimo.Html(job_html(runtime.snapshot(job_id))))

    safely(draw)
    try:
        yield _now_and_then(draw)
    finally:
        safely(draw)


def _now_and_then(draw: Callable[[], None]) -> Callable[[], None]:
    """Draws when it is called, but no more often than a person sees."""
    drawn = time.monotonic()

    def refresh() -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= SECONDS_BETWEEN:
            safely(draw)
            drawn = time.monotonic()

    return refresh


@contextmanager
def _in_terminal(runtime: Runtime, job_id: str) -> Iterator[Callable[[], None]]:
    """One line for each stage that has been planned, on the standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    lines: dict[int, Any] = {}
    view: JobView | None = None

    class Shown(Progress):
        """The stages, and below them what runs."""

        def get_renderables(self) -> Iterator[Any]:
            yield from super().get_renderables()
            lines = filter(None, running_text(view) if view is not None else ())
            yield from (Text(fit(plain(each), self.console.width), no_wrap=True) for each in lines)

    def draw() -> None:
        nonlocal view
        view = runtime.snapshot(job_id)
        stages = view.stages
        labels = [shorten(f"{stage.number} {stage.name}", LABEL) for stage in stages]
        wide = max(map(columns, labels), default=0)
        for stage, label in zip(stages, labels, strict=True):
            if not stage.planned:
                continue
            failed = stage.counts.get("failed", 0)
            said: dict[str, Any] = {
                "total": stage.tasks,
                "completed": stage.counts.get("completed", 0) + failed,
                "note": ", ".join(filter(None, (f"{failed:,} failed" if failed else "", *stage.remarks))),
            }
            if stage.number in lines:
                progress.update(lines[stage.number], **said)
            else:  # it is drawn at once
                lines[stage.number] = progress.add_task(pad(label, wide), **said)
        progress.refresh()

    parts = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        # The note has what is left of the width, and gives way alone.
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
    )
    with Shown(*parts, console=Console(stderr=True), auto_refresh=False, expand=True) as progress:
        try:
            yield _now_and_then(draw)
        finally:
            safely(draw)
