"""Draw jobs and tasks as HTML, and jobs as text. Pure: the same view gives the same drawing, and it has no scripts.

Text is escaped on its way into `Html`, and cut by `fit` for a terminal. HTML stays legible where a notebook strips
styles and drawings: what they show is there in words too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, starmap

from geoflow.render.markup import Html, block, element, faint, head, line, state, table, title
from geoflow.support.text import aligned, columns, first_lines, fit, last_lines, pad, plain, shorten
from geoflow.views.model import (
    GIVEN,
    SYMBOLS,
    WHOLE,
    ErrorGroup,
    JobView,
    RunningTask,
    StageView,
    TaskView,
    took,
    when,
    worst,
)
from geoflow.views.tracebacks import NEWEST_FIRST

_ID = Html('<code title="{}">{}</code>')
_FROM_START = (GIVEN, "Message")  # details of which text has the first lines, not the last
_NODE, _GAP, _TOP, _HIGH = 150, 74, 16, 42
_BAR = Html(
    '<svg class="gf-strip" width="100" height="8" viewBox="0 0 100 8" role="img" aria-label="{} %">'
    '<path class="gf-cell gf-queued" stroke-width="2" d="M0 4h100"/>'
    '<path class="gf-cell gf-completed" stroke-width="8" d="M0 4h{}"/></svg>'
)
# Where a cell's bar has its middle, and how high it is, of ten: the strip can be read without its colours.
_BARS = {"failed": (5, 10), "processing": (5, 8), "completed": (5, 6), "cancelled": (5, 3), "queued": (7, 1)}


def job_html(view: JobView, pictures: Iterable[tuple[str, str]] = ()) -> str:
    """The job as an element of its own, with its style in it; below it *pictures*, folded, each with its name."""
    folded = Html('<details class="gf-more"><summary>{}</summary>{}</details>')
    return str(element(_label(view), (*_above(view), *_below(view), *starmap(folded.format, pictures))))


def job_parts(view: JobView) -> tuple[str, str]:
    """The same in two, without the style: what changes all the time, and errors and the like, which hardly do."""
    more = element(f"{_label(view)}, more", _below(view), "")
    return str(element(_label(view), _above(view), "")), str(more)


def job_line(view: JobView, note: str) -> str:
    """The job in one line, and a *note*."""
    return str(element(_label(view), [_head(view, [note])]))


def task_html(view: TaskView) -> str:
    """The task, without the style: its error first, then what it was given and what it gave."""
    parts = (
        head(view.task_id, faint(" · ".join(view.facts)), badge=state(view.state, kind="gf-badge"), level=4),
        line(view.error),
        line(view.why, "gf-faint"),
        *starmap(block, view.details),
    )
    return str(element(f"Task {view.task_id}: {view.state}", parts, ""))


def _label(view: JobView) -> str:
    return f"Job {shorten(view.job_type, 60)} {view.job_id[:8]}: {view.state}"


def _head(view: JobView, said: Iterable[str]) -> Html:
    beside = Html("{}{}").format(_id(view), faint(" · ".join(said)))
    return head(shorten(view.job_type, 60), beside, badge=state(view.state, kind="gf-badge"))


def _id(view: JobView) -> Html:
    return _ID.format(view.job_id, view.job_id[:8])


def _above(view: JobView) -> Iterator[Html]:
    parameter = Html('<span class="gf-param">{} = <code>{}</code></span>')
    yield _head(view, view.about)
    yield line(Html(" ").join(starmap(parameter.format, view.parameters)))
    yield line(view.error if view.error != view.state else "")
    yield line(view.goes_without)
    yield block("Traceback", view.traceback)
    yield _graph(view.stages)
    yield table(("Stage, handler", "Tasks made", "State", "Tasks, in order", "Time"), map(_cells, view.stages))
    yield _running(view)


def _below(view: JobView) -> Iterator[Html]:
    yield from _errors(view)
    yield block("Result", view.result_preview)
    yield line(view.hint and Html("Next: <code>{}</code>").format(view.hint))


def _cells(stage: StageView) -> Iterator[str]:
    name, task_type = shorten(stage.name, 40), shorten(stage.task_type, 40)
    yield Html("{} {}<div><code>{}</code></div>").format(stage.number, name, task_type)
    yield stage.shape
    yield state(stage.state)
    below = Html('<div class="gf-faint">{}</div>').format
    if counts := Html().join(starmap(state, stage.counts.items())):
        said = Html().join(map(below, stage.remarks))
        yield Html('<div class="gf-tasks">{}{}</div>{}').format(counts, _strip(stage), said)
    else:
        yield "none" if stage.planned else ""
    yield Html("{}{}").format(took(stage.elapsed), Html().join(map(below, stage.means)))


def _running(view: JobView) -> Html:
    """What its workers are at, in rows."""
    tasks, others = view.shown_running
    drawn = table(("Running now", "How far, and what it printed last"), map(_running_cells, tasks)) if tasks else ""
    return Html("{}{}").format(drawn, line(others, "gf-faint"))


def _running_cells(task: RunningTask) -> Iterator[str]:
    yield Html("<code>{}</code><div>{}</div>").format(shorten(task.task_id, 40), faint(f"stage {task.stage}"))
    bar = "" if task.share is None else _BAR.format(f"{100 * task.share:.0f}", f"{100 * task.share:.1f}")
    printed = Html("<code>{}</code>").format(shorten(task.last_line, 100)) if task.last_line else ""
    yield Html('<div class="gf-tasks">{}{}</div>{}').format(bar, " · ".join(task.facts), printed)


def running_text(view: JobView) -> Iterator[str]:
    """The same in lines."""
    tasks, others = view.shown_running
    for task in tasks:
        said = " · ".join((shorten(task.task_id, 30), *task.facts))
        yield f"    {SYMBOLS['processing']} {said}"
        yield f"      {shorten(task.last_line, 200)}" if task.last_line else ""
    yield f"    {others}" if others else ""


def _graph(stages: Sequence[StageView]) -> Html:
    """The stages as nodes in a row."""
    parts = Html().join(_node(stage, 1 + place * (_NODE + _GAP)) for place, stage in enumerate(stages))
    said = (f"{stage.number} {shorten(stage.name, 40)}, {stage.shape}, {stage.state}" for stage in stages)
    return Html(
        '<div class="gf-wide" tabindex="0" role="group" aria-label="Stages">'
        '<svg width="{width}" height="{height}" role="img" aria-label="{label}">{parts}</svg></div>'
    ).format(width=len(stages) * (_NODE + _GAP) - _GAP + 2, height=_TOP + _HIGH + 2, label="; ".join(said), parts=parts)


def _node(stage: StageView, x: int) -> Html:
    name, done = fit(f"{stage.number} {shorten(stage.name, 40)}", 20), stage.state
    if stage.planned:
        done = f"{stage.counts.get('completed', 0):,} / {stage.tasks:,}" if stage.tasks else "no tasks"
    box = Html('<rect class="gf-node gf-{}" x="{}" y="{}" width="{}" height="{}" rx="5"/>')
    return Html('{}{}<text x="{}" y="{}">{}</text><text class="gf-small" x="{}" y="{}">{} {}</text>').format(
        "" if stage.number == 1 else _arrow(stage, x),
        box.format(stage.state, x, _TOP, _NODE, _HIGH),
        *(x + 9, _TOP + 17, name),
        *(x + 9, _TOP + 33, SYMBOLS[stage.state], done),
    )


def _arrow(stage: StageView, x: int) -> Html:
    """To *stage* at *x* from the one before it: lines that part or meet, and the word for it."""
    start, end, y = x - _GAP + 2, x - 2, _TOP + _HIGH // 2
    parts, meets = stage.parallelism == "fan_out", stage.parallelism == "fan_in"
    spread = (-11, 0, 11) if parts or meets else (0,)
    lines = "".join(f"M{start} {y + meets * aside}L{end} {y + parts * aside}" for aside in spread)
    path = f"{lines}M{end - 6} {y - 4}L{end} {y}L{end - 6} {y + 4}"
    return Html(
        '<path class="gf-arrow" d="{}"/><text class="gf-small" x="{}" y="{}" text-anchor="middle">{}</text>'
    ).format(path, x - _GAP // 2, y - 17, fit(stage.shape, 11))


def _strip(stage: StageView) -> Html:
    """The stage's tasks in order, in cells whose colour and height say the state."""
    cells, place = len(stage.strip), 0
    lines = dict.fromkeys(stage.strip, "")
    for name, alike in groupby(stage.strip):
        length = len(list(alike))
        lines[name] += f"M{place} {_BARS[name][0]}h{length}"
        place += length
    bar = Html('<path class="gf-cell gf-{}" stroke-width="{}" d="{}"/>')  # as wide as the bars are high
    return Html(
        '<svg class="gf-strip" width="{width}" height="16" viewBox="0 0 {cells} 10"{apart} '
        'preserveAspectRatio="none" role="img" aria-label="Tasks in order: {said}">{bars}</svg>'
    ).format(
        width=min(200, 12 * cells),
        cells=cells,
        apart=Html(' stroke-dasharray="0.85 0.15"') if cells <= 40 else "",
        said=", ".join(f"{number:,} {name}" for name, number in stage.counts.items()),
        bars=Html().join(bar.format(name, _BARS[name][1], path) for name, path in lines.items()),
    )


def _errors(view: JobView) -> Iterator[Html]:
    if view.errors:  # not h4: a notebook would take it into its table of contents
        yield title(view.errors_title, 4)
    for group in view.errors:
        is_open = Html(" open" if group is view.errors[0] else "")
        yield Html("<details{}><summary>{}").format(is_open, state("failed", group.tasks))
        yield Html("<b>{}</b> {}").format(shorten(group.error_type, 60), shorten(group.message, 200))
        yield Html('{}</summary><div class="gf-body">').format(faint(f"({group.fate})"))
        yield line(group.cause and f"Caused by {shorten(group.cause, 300)}")
        yield line(group.why)
        yield line(group.where and f"Raised by {shorten(group.where, 200)}", "gf-faint")
        yield from starmap(block, group.details)
        yield Html("</div></details>")


def jobs_html(views: Iterable[JobView], name: str = "Jobs", note: str = "") -> str:
    """Jobs as a table, one in a row, under the title *name*; *note* stands below, or alone where there are none."""
    rows = [(state(view.state), _id(view), *_outline(view), when(view.created_at)) for view in views]
    heads = ("State", "Job", "Job type", "Time", "Stage", "Tasks completed", "Submitted")
    listed = table(heads, rows) if rows else ""
    return str(element(name, (title(name, 3), listed, line(note, "gf-faint"))))


def _outline(view: JobView) -> tuple[str, ...]:
    """What a table of jobs says of one: its type, its time, the stage that it is at, and its tasks."""
    at = max(1, sum(stage.planned for stage in view.stages))
    return shorten(view.job_type, 60), took(view.elapsed), f"{at}/{len(view.stages)}", _done(*view.stages)


def job_text(view: JobView, width: int = 80) -> str:
    """The job in lines of at most *width* columns."""
    lines = (each for part in _parts(view, width) for each in plain(part).expandtabs().splitlines())
    return "\n".join(fit(each.rstrip(), width) for each in lines if each.strip())


def _parts(view: JobView, width: int) -> Iterator[str]:
    yield "  ".join((SYMBOLS[view.state], view.state, shorten(view.job_type, 30), view.job_id[:8]))
    yield "  " + ", ".join(view.about)
    yield from _wrapped("  ".join(f"{name}={value}" for name, value in view.parameters), width, 4)
    yield from _wrapped(view.error or "", width, 4)
    yield from _wrapped(view.goes_without, width)
    yield _indented(view.traceback or "")
    for stage in view.stages:
        yield _stage(stage, width)
        yield from (f"    {remark}" for remark in stage.remarks)
    yield from running_text(view)
    yield view.errors_title if view.errors else ""
    for group in view.errors:
        summary = f"✗ {group.tasks:,}× {shorten(group.error_type, 40)}: {shorten(group.message, 300)}"
        yield summary
        yield from _wrapped(f"caused by {shorten(group.cause, 300)}" if group.cause else "", width)
        yield f"  ({group.fate}) {shorten(group.where or '', 200)}"
        if group is view.errors[0]:
            yield from _wrapped(group.why, width)
            yield from _details(group, columns(summary) > width, width)
    yield f"Result\n{_indented(view.result_preview, from_start=True)}" if view.result_preview else ""
    yield f"Next: {view.hint}" if view.hint else ""


def _details(group: ErrorGroup, is_cut: bool, width: int) -> Iterator[str]:
    """What is known of its first task. The message is told whole where it *is_cut* above."""
    details = {"Message": group.message} if is_cut else {}
    for name, said in {**details, **dict(group.details)}.items():
        if "\n" in said and name != WHOLE:
            yield f"  {name}\n{_indented(said, from_start=name in _FROM_START)}"
        elif name == "Message":
            yield from _wrapped(f"{name}: {said}", width)
        elif name != WHOLE:
            yield f"  {name}: {said}"


def jobs_text(views: Iterable[JobView], width: int = 80) -> str:
    """Jobs, one in a line of at most *width* columns."""
    rows = [(f"{SYMBOLS[view.state]} {view.state}", view.job_id[:8], *_outline(view)) for view in views]
    return "\n".join(fit(each, width) for each in aligned(rows, width + 2, gives_way=2))  # without their margin


def _done(*stages: StageView) -> str:
    completed, failed = (sum(stage.counts.get(name, 0) for stage in stages) for name in ("completed", "failed"))
    return f"{completed:,}/{sum(stage.tasks for stage in stages):,}" + (f", {failed:,} failed" if failed else "")


def _stage(stage: StageView, width: int) -> str:
    name, done = f"{stage.number} {shorten(stage.name, 60)}", _done(stage) if stage.planned else stage.state
    cells = (pad(name, width // 5), pad(stage.shape, 7), pad(done, 28), pad(took(stage.elapsed), 11))
    head = " ".join((SYMBOLS[stage.state], *cells, ""))
    return head + "".join(SYMBOLS[name] for name in narrow(stage.strip, width - columns(head)))


def narrow(strip: Sequence[str], cells: int) -> Iterator[str]:
    """*strip* in at most *cells* states, each the worst of those it stands for."""
    width = max(1, -(-len(strip) // max(cells, 1)))
    return (worst(strip[place : place + width]) for place in range(0, len(strip), width))


def _indented(text: str, *, from_start: bool = False) -> str:
    """A few lines of *text*, set in: the last, since these tell most of what was printed or raised."""
    few = first_lines(text, 12) if from_start or NEWEST_FIRST in text else last_lines(text, 12)
    return "\n".join(f"    {each}" for each in few.splitlines())


def _wrapped(text: str, width: int, lines: int | None = None) -> list[str]:
    """*text* in at most so many *lines*; a sign stands for what is cut off."""
    return textwrap.wrap(
        shorten(text, 1000),
        max(width - 2, 20),
        initial_indent="  ",
        subsequent_indent="  ",
        max_lines=lines,
        placeholder=" …",
    )
