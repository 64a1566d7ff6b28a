"""Draw jobs and tasks as HTML, and jobs as text. Pure: the same view gives the same drawing, and it has no scripts.

Text is escaped on its way into `Html`, and cut by `fit` for a terminal. HTML stays legible where a notebook strips
styles and drawings: what they show is there in words too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from itertools import starmap
from typing import NamedTuple

from geoflow.render.markup import (
    CELLS,
    Html,
    bar,
    block,
    element,
    faint,
    head,
    line,
    piece,
    source,
    state,
    table,
    title,
)
from geoflow.support.text import aligned, columns, first_lines, fit, last_lines, pad, plain, shorten
from geoflow.views.model import (
    GIVEN,
    LAST_TOLD,
    SYMBOLS,
    TASKS,
    WHOLE,
    ErrorGroup,
    JobView,
    RunningTask,
    TaskView,
    when,
)
from geoflow.views.stages import StageView, folded, took
from geoflow.views.tracebacks import NEWEST_FIRST

_ID = Html('<code title="{}">{}</code>')
_FROM_START = (GIVEN, "Message")  # details of which text has the first lines, not the last
# What stands for a task in a bar of a terminal, by its state.
_IN_TEXT = {"completed": "█", "failed": "✗", "cancelled": "⊘", "processing": "▒", "queued": "░"}
_ARROWS = {"fan_out": "M2 7L12 2M2 7h10M2 7l10 5", "fan_in": "M2 2L12 7M2 7h10M2 12l10-5"}


_STAGES = Html(
    '<table class="gf-stages"><thead><tr><th scope="col">Stage</th><th scope="col">Tasks</th><th scope="col">Time</th>'
    "</tr></thead><tbody>{}</tbody></table>"
)


class Parts(NamedTuple):
    """A job's drawing in parts, without the style; ``errors`` has of each group its key, how many, and the rest.

    What stands in one part changes together: so what one reads, and has opened, stays as it is while the rest moves.
    """

    head: str
    stages: str
    title: str
    errors: tuple[tuple[str, str, str], ...]
    more: str


def job_html(view: JobView, pictures: Iterable[tuple[str, str]] = ()) -> str:
    """The job as an element of its own, with its style in it; below it *pictures*, folded, each with its name."""
    folded = Html('<details class="gf-more"><summary>{}</summary>{}</details>')
    return str(element(_label(view), (*_top(view), *_rest(view), *starmap(folded.format, pictures))))


def job_halves(view: JobView) -> tuple[str, str]:
    """The same in two, for what stands between: its head, with the style, and the rest."""
    return str(element(_label(view), _top(view))), str(element(f"{_label(view)}, more", _rest(view), ""))


def job_parts(view: JobView) -> Parts:
    """The same in the parts of a live view."""
    errors = (
        (group.key, str(piece(_number(group))), str(piece(_group(_while_more_come(group), place == 0))))
        for place, group in enumerate(view.errors)
    )
    head = element(_label(view), _top(view), "")
    stages = element(f"{_label(view)}, stages", _stages(view), "")
    more = element(f"{_label(view)}, more", _more(view), "")
    return Parts(str(head), str(stages), str(piece(Html().join(_errors_title(view)))), tuple(errors), str(more))


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
    is_news = view.driver is None  # one that is live would be read again with each refresh
    return head(shorten(view.job_type, 60), beside, badge=state(view.state, kind="gf-badge"), is_news=is_news)


def _id(view: JobView) -> Html:
    return _ID.format(view.job_id, view.job_id[:8])


def _top(view: JobView) -> Iterator[Html]:
    parameter = Html('<span class="gf-param">{} = <code>{}</code></span>')
    yield _head(view, view.about)
    yield line(Html(" ").join(starmap(parameter.format, view.parameters)))
    yield line(view.past, "gf-faint")


def _rest(view: JobView) -> Iterator[Html]:
    yield from _stages(view)
    yield from _errors_title(view)
    for place, group in enumerate(view.errors):
        yield Html('<div class="gf-group">{}{}</div>').format(_number(group), _group(group, place == 0))
    yield from _more(view)


def _stages(view: JobView) -> Iterator[Html]:
    yield line(view.error if view.error != view.state else "")
    yield line(view.goes_without)
    yield block("Traceback", view.traceback)
    rows = Html().join(_row(stage, view.job_type) for stage in folded(view.stages))
    yield _STAGES.format(rows)


def _row(stage: StageView, job_type: str) -> Html:
    handler = ""
    if stage.task_type not in (stage.name, f"{job_type}_{stage.name}", ""):
        handler = Html("<code>{}</code>").format(shorten(stage.task_type, 40))
    tasks = faint(stage.facts[0])
    if stage.tasks:
        said = ", ".join(f"{number:,} {name}" for name, number in stage.counts.items())
        tasks = bar(f"Tasks: {said}", stage.shares(CELLS), [*stage.facts, *stage.remarks])
    times = Html('<span title="{}">{} {}</span>')
    return Html('<tr><th scope="row">{}{}{} {}</th><td>{}</td><td>{}</td></tr>').format(
        _fed(stage),
        state(stage.state, kind="gf-mark"),
        stage.label,
        handler,
        tasks,
        times.format(", ".join(stage.means), took(stage.elapsed), faint("".join(stage.means[:1]))),
    )


def _fed(stage: StageView) -> Html:
    """An arrow from what feeds it: lines that part or meet."""
    if stage.number == 1 or stage.until is not None:
        return Html('<span class="gf-fed"></span>')
    return Html(
        '<svg class="gf-fed" width="14" height="14" role="img" aria-label="{}"><path class="gf-arrow" d="{}"/></svg>'
    ).format(stage.shape, _ARROWS.get(stage.parallelism, "M7 1v11M3 8l4 4l4-4"))


def _running(view: JobView) -> Html:
    """What its workers are at, in rows."""
    tasks, others = view.shown_running
    drawn = table(("Running now", "How far, and what it printed last"), map(_running_cells, tasks)) if tasks else ""
    return Html("{}{}").format(drawn, line(others, "gf-faint"))


def _running_cells(task: RunningTask) -> Iterator[str]:
    yield Html("<code>{}</code><div>{}</div>").format(shorten(task.task_id, 40), faint(f"stage {task.stage}"))
    printed = Html("<code>{}</code>").format(shorten(task.last_line, 100)) if task.last_line else ""
    far = Html(" · ").join(task.facts)
    if task.share is not None:
        done = round(CELLS * task.share)
        far = bar(f"{100 * task.share:.0f} %", [("completed", done), ("queued", CELLS - done)], task.facts)
    yield Html("<div>{}</div>{}").format(far, printed)


def running_text(view: JobView) -> Iterator[str]:
    """The same in lines."""
    tasks, others = view.shown_running
    for task in tasks:
        said = " · ".join((shorten(task.task_id, 30), *task.facts))
        yield f"    {SYMBOLS['processing']} {said}"
        yield f"      {shorten(task.last_line, 200)}" if task.last_line else ""
    yield f"    {others}" if others else ""


def _more(view: JobView) -> Iterator[Html]:
    yield _running(view)
    yield block("Result", view.result_preview)
    yield line(view.hint and Html("Next: <code>{}</code>").format(view.hint))


def _errors_title(view: JobView) -> Iterator[Html]:
    if view.errors:  # not h4: a notebook would take it into its table of contents
        yield title(view.errors_title, 4)


def _number(group: ErrorGroup) -> Html:
    return Html('<div class="gf-count">{}</div>').format(state("failed", group.tasks))


def _while_more_come(group: ErrorGroup) -> ErrorGroup:
    """*group* without what changes with each failure: of its tasks only the one that all else is told of."""
    others = (detail for detail in group.details if detail[0] != TASKS)
    return group._replace(details=(("For one", group.example), *others))


def _group(group: ErrorGroup, is_open: bool) -> Html:
    """What went wrong and the line that raised it, then the user's frames, then, folded, all else."""
    parts = (
        line(group.cause and f"Caused by {shorten(group.cause, 300)}"),
        source(group.source),
        line(group.where and f"Raised by {shorten(group.where, 200)}", "gf-faint"),
        line(group.why),
        *(block(name, said, folded=name in LAST_TOLD) for name, said in group.details),
    )
    return Html('<details{}><summary><b>{}</b> {} {}</summary><div class="gf-body">{}</div></details>').format(
        Html(" open" if is_open else ""),
        shorten(group.error_type, 60),
        shorten(group.message, 200),
        faint(f"({group.fate})"),
        Html().join(parts),
    )


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
    yield from _wrapped(view.past, width)
    yield from _wrapped("  ".join(f"{name}={value}" for name, value in view.parameters), width, 4)
    yield from _wrapped(view.error or "", width, 4)
    yield from _wrapped(view.goes_without, width)
    yield _indented(view.traceback or "")
    for stage in folded(view.stages):
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
            yield _indented(group.source or "", from_start=True)
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
    cells, facts = max(width // 8, 4), stage.facts
    bar = "".join(_IN_TEXT[name] * number for name, number in stage.shares(cells)) if stage.tasks else ""
    parts = (pad(stage.label, width // 5), pad(stage.shape, 7), pad(took(stage.elapsed), 9), pad(bar, cells), "")
    head = " ".join((SYMBOLS[stage.state], *parts))
    while len(facts) > 1 and columns(head + " · ".join(facts)) > width:
        facts = facts[:-1]  # the counts come first
    return head + " · ".join(facts)


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
