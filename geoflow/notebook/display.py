"""Draw jobs as HTML and as text. Pure: the same view gives the same drawing, and nothing in it is a script.

Everything that came from users is escaped by `_text` or `_line` on its way to HTML, and cut by `fit` for a terminal.
HTML stays legible where a notebook strips styles and drawings: what they show is there in words too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources

from geoflow.notebook.drawing import graph, strip
from geoflow.notebook.views import ErrorGroup, JobLine, JobView, StageView, narrow
from geoflow.notebook.words import (
    NO_JOBS,
    SYMBOLS,
    about,
    columns,
    errors_title,
    fate,
    fit,
    numbers,
    pad,
    parallelism,
    short_id,
    stage_time,
    took,
    ungrouped,
    waits,
    when,
    window,
)
from geoflow.text import count, plain, shorten

# How much HTML the details of all error groups but the first may take; of the others only the heads are shown.
_ROOM = 12_000
_GLYPHS = str.maketrans({"f": "✗", "p": "▸", "x": "⊘", "q": "·", "c": "█"})
# Of a traceback or a result in a terminal.
_LINES = 12


@cache
def _style() -> str:
    return resources.files("geoflow.notebook").joinpath("style.css").read_text("utf-8")


# HTML


def job_html(view: JobView) -> str:
    """The job as an element of its own, with its style in it."""
    title = f"Job {shorten(view.job_type, 60)} {short_id(view.job_id)}: {view.state}"
    facts = " · ".join(_text(part) for part in about(view))
    hint = view.hint and f'<div class="gf-next">Next: <code>{_text(view.hint)}</code></div>'
    return _element(
        title,
        f'<div class="gf-head">{_badge(view.state)}<span class="gf-name" role="heading" aria-level="3">'
        f'{_line(view.job_type, 60)}</span><code title="{_text(view.job_id)}">{_text(short_id(view.job_id))}</code>'
        f'<span class="gf-faint">{facts}</span></div>',
        _parameters(view),
        f'<div class="gf-line">{_text(view.error)}</div>' if view.error else "",
        _pre("Traceback", view.traceback),
        graph(view),
        _stages(view),
        _errors(view),
        view.result_preview and _heading("Result") + _pre("", view.result_preview),
        hint,
    )


def jobs_html(rows: Iterable[JobLine]) -> str:
    """A table of jobs."""
    lines = list(rows)
    if not lines:
        return _element("Jobs", f'<div class="gf-line">{NO_JOBS}</div>')
    heads = ("State", "Job type", "Job", "Stage", "Tasks", "Time", "Submitted")
    return _element(
        count(len(lines), "job"),
        _table(
            heads,
            (
                (
                    _state(row.state),
                    _line(row.job_type, 60),
                    f'<code title="{_text(row.job_id)}">{_text(short_id(row.job_id))}</code>',
                    f"{row.stage} of {row.total_stages}",
                    f"{row.completed:,} of {row.tasks:,} " + (_state("failed", row.failed) if row.failed else ""),
                    _text(took(row.elapsed)),
                    _text(when(row.created_at)),
                )
                for row in lines
            ),
        ),
    )


def _element(label: str, *parts: str | None) -> str:
    body = "\n".join(part for part in parts if part)
    return f'<div class="geoflow" role="region" aria-label="{_text(label)}"><style>{_style()}</style>\n{body}\n</div>'


def _text(text: str) -> str:
    return escape(plain(text))


def _line(text: str, width: int) -> str:
    return escape(shorten(text, width))


def _state(state: str, number: int | None = None, *, badge: str = "") -> str:
    symbol, name = SYMBOLS[state]
    words = state if number is None else f"{number:,} {state}"
    return f'<span class="gf-is gf-{name}{badge}"><b aria-hidden="true">{symbol}</b> {words}</span> '


def _badge(state: str) -> str:
    return _state(state, badge=" gf-badge")


def _heading(title: str) -> str:
    # Not h4: a notebook would take it into its table of contents.
    return f'<div class="gf-title" role="heading" aria-level="4">{_text(title)}</div>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="gf-table{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="gf-wide">{table}</div>'


def _pre(label: str, text: str | None) -> str:
    if not text:
        return ""
    title = f'<div class="gf-faint">{_text(label)}</div>' if label else ""
    # It scrolls, and must be within reach of the keyboard for that.
    return f'{title}<pre tabindex="0" role="group" aria-label="{_text(label or "Result")}">{_text(text)}</pre>'


def _parameters(view: JobView) -> str:
    pairs = (
        f'<span class="gf-param">{_text(name)} = <code>{_text(value)}</code></span>' for name, value in view.parameters
    )
    return f'<div class="gf-line">{" ".join(pairs)}</div>' if view.parameters else ""


def _errors(view: JobView) -> str:
    if not view.errors:
        return ""
    parts, room = [_heading(errors_title(view))], _ROOM
    for number, group in enumerate(view.errors):
        head = (
            f"{_state('failed', group.count)}<b>{_line(group.error_type, 60)}</b> {_line(group.message, 200)} "
            f'<span class="gf-faint">({_text(fate(group))})</span>'
        )
        body = _details(group)
        room -= len(body) if number else 0
        if room < 0:
            body = '<div class="gf-line">See job.errors().</div>'
        opened = " open" if number == 0 else ""
        parts.append(f'<details{opened}><summary>{head}</summary><div class="gf-body">{body}</div></details>')
    return "\n".join(parts) + f'<div class="gf-line gf-faint">{_text(ungrouped(view))}</div>'


def _details(group: ErrorGroup) -> str:
    more = f" and {group.count - len(group.tasks):,} more" if group.count > len(group.tasks) else ""
    tasks = ", ".join(f"<code>{_line(task, 100)}</code>" for task in group.tasks)
    whole = group.message if len(group.message) > 200 or "\n" in group.message else None
    attempts = _table(
        ("Attempt", "Waited", "Ended"), ([_text(cell) for cell in row] for row in waits(group)), " gf-prose"
    )
    return "".join(
        (
            f'<div class="gf-line">{_text(group.why)}</div>',
            f'<div class="gf-line gf-faint">Raised by {_line(group.where, 200)}</div>' if group.where else "",
            f'<div class="gf-line">Tasks: {tasks}{more}</div>',
            _pre("Message", whole),
            attempts if group.attempts else "",
            _pre("Traceback", group.traceback),
            _pre("Parameters of the task", group.parameters),
            _pre("What it printed", group.output),
        )
    )


def _stages(view: JobView) -> str:
    shown, others = window(view.stages)
    rows = (
        (
            f"{stage.number} {_line(stage.name, 40)}",
            f"<code>{_line(stage.task_type, 40)}</code>",
            _text(parallelism(stage)),
            _state(stage.state),
            f'<div class="gf-tasks">{_counts(stage)}{strip(stage)}</div>' if stage.planned else "",
            _text(stage_time(stage, view)),
        )
        for stage in shown
    )
    table = _table(("Stage", "Handler", "Tasks made", "State", "Tasks, in order", "Time"), rows)
    return table + (f'<div class="gf-line gf-faint">{_text(others)}</div>' if others else "")


def _counts(stage: StageView) -> str:
    return "".join(_state(state, number) for state, number in numbers(stage)) or "none"


# Text


def job_text(view: JobView, width: int = 80) -> str:
    """The job in lines of at most *width* columns."""
    head = "  ".join((SYMBOLS[view.state][0], view.state, shorten(view.job_type, 30), short_id(view.job_id)))
    lines = [head, "  " + ", ".join(about(view))]
    lines += _wrapped("  ".join(f"{name}={value}" for name, value in view.parameters), width)[:4]
    lines += _wrapped(view.error, width)[:4] + _block(view.traceback)
    shown, others = window(view.stages)
    lines += [_stage_text(stage, view, width) for stage in shown] + [others]
    if view.errors:
        lines.append(errors_title(view))
        for number, group in enumerate(view.errors):
            lines.append(f"✗ {group.count:,}× {shorten(group.error_type, 40)}: {shorten(group.message, 300)}")
            lines.append(f"    ({fate(group)})" + (f" {shorten(group.where, 200)}" if group.where else ""))
            lines += [] if number else _details_text(group, width)
        lines.append(ungrouped(view))
    lines += ["Result", *_block(view.result_preview)] if view.result_preview else []
    lines += [f"Next: {view.hint}"] if view.hint else []
    plainly = (line for part in lines for line in plain(part).expandtabs().splitlines())
    return "\n".join(fit(line, width) for line in plainly if line.strip())


def jobs_text(rows: Iterable[JobLine], width: int = 80) -> str:
    """Jobs, one in a line of at most *width* columns."""
    cells = [
        (
            f"{SYMBOLS[row.state][0]} {row.state}",
            short_id(row.job_id),
            shorten(row.job_type, 60),
            took(row.elapsed),
            f"{row.stage}/{row.total_stages}",
            _done(row.completed, row.tasks, row.failed),
        )
        for row in rows
    ]
    if not cells:
        return fit(NO_JOBS, width)
    widths = [max(sum(map(columns, cell)) for cell in column) for column in zip(*cells, strict=True)]
    widths[2] = max(8, min(widths[2], width - sum(widths) + widths[2] - 2 * len(widths) + 2))  # names give way
    return "\n".join(fit("  ".join(map(pad, row, widths)).rstrip(), width) for row in cells)


def _done(completed: int, tasks: int, failed: int) -> str:
    return f"{completed:,}/{tasks:,}" + (f", {failed:,} failed" if failed else "")


def _stage_text(stage: StageView, view: JobView, width: int) -> str:
    counts = stage.counts
    done = _done(counts.get("completed", 0), stage.tasks, counts.get("failed", 0)) if stage.planned else stage.state
    head = " ".join(
        (
            SYMBOLS[stage.state][0],
            pad(f"{stage.number} {shorten(stage.name, 60)}", width // 5),
            pad(parallelism(stage), 7),
            pad(done, 28),
            pad(stage_time(stage, view), 11),
        )
    )
    room = width - sum(map(columns, head)) - 1
    return f"{head} {narrow(stage.strip, room).translate(_GLYPHS)}" if room > 0 else head


def _details_text(group: ErrorGroup, width: int) -> list[str]:
    lines = [f"    {line}" for line in _wrapped(group.why, width - 4)]
    lines += [f"    attempt {number}, {before}: {shorten(ended, 200)}" for number, before, ended in waits(group)]
    lines.append(f"    tasks: {', '.join(shorten(task, 100) for task in group.tasks)}")
    lines.append(f"    parameters: {shorten(group.parameters, 200)}")
    return lines + _block(group.traceback) + [f"    printed: {shorten(group.output, 200)}" if group.output else ""]


def _block(text: str | None) -> list[str]:
    """The last lines of *text*, set in."""
    return ["    " + line for line in plain(text or "").expandtabs().splitlines()[-_LINES:]]


def _wrapped(text: str | None, width: int) -> list[str]:
    return textwrap.wrap(
        " ".join(plain(text or "").split()), max(width - 2, 20), initial_indent="  ", subsequent_indent="  "
    )
