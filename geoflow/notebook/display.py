"""Draw jobs as HTML and as text. Pure: the same view gives the same drawing, and nothing in it is a script.

Everything that came from users is escaped by `_text` on its way to HTML, and cut by `fit` for a terminal. HTML stays
legible where a notebook strips styles and drawings: what they show is there in words too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources
from itertools import groupby

from geoflow.notebook.views import JobView, StageView, worst
from geoflow.notebook.words import SYMBOLS, about, columns, errors_title, fit, pad, parallelism, took
from geoflow.text import plain, shorten

_STYLE = resources.files("geoflow.notebook").joinpath("style.css").read_text("utf-8")
_NODE, _GAP, _TOP, _HIGH = 150, 74, 16, 42
# Where a cell's bar has its middle, and how high it is, of ten: the strip can be read without its colours.
_BARS = {"failed": (5, 10), "processing": (5, 8), "completed": (5, 6), "cancelled": (5, 3), "queued": (7, 1)}


def job_html(view: JobView) -> str:
    """The job as an element of its own, with its style in it."""
    label = _text(f"Job {shorten(view.job_type, 60)} {view.job_id[:8]}: {view.state}")
    parameters = (
        f'<span class="gf-param">{_text(name)} = <code>{_text(value)}</code></span>' for name, value in view.parameters
    )
    parts = (
        f'<div class="geoflow" role="region" aria-label="{label}"><style>{_STYLE}</style>',
        f'<div class="gf-head">{_state(view.state, badge="gf-badge")}',
        f'<span class="gf-name" role="heading" aria-level="3">{_text(view.job_type, 60)}</span>',
        f'<code title="{_text(view.job_id)}">{_text(view.job_id[:8])}</code>',
        f'<span class="gf-faint">{_text(" · ".join(about(view)))}</span></div>',
        _line(" ".join(parameters)),
        _line(_text(view.error or "")),
        _block("Traceback", view.traceback),
        _graph(view.stages),
        _table(view.stages),
        *_errors(view),
        _block("Result", view.result_preview),
        _line(view.hint and f"Next: <code>{_text(view.hint)}</code>"),
        "</div>",
    )
    return "\n".join(filter(None, parts))


def _text(text: str, width: int | None = None) -> str:
    return escape(plain(text) if width is None else shorten(text, width))


def _line(html: str | None, kind: str = "") -> str:
    return f'<div class="gf-line {kind}">{html}</div>' if html else ""


def _block(title: str, text: str | None) -> str:
    # It scrolls, and must be within reach of the keyboard for that.
    element = f'<pre tabindex="0" role="group" aria-label="{title}">{_text(text or "")}</pre>'
    return f'<div class="gf-faint">{title}</div>{element}' if text else ""


def _state(state: str, number: int | None = None, badge: str = "") -> str:
    words = state if number is None else f"{number:,} {state}"
    return f'<span class="gf-is gf-{state} {badge}"><b aria-hidden="true">{SYMBOLS[state]}</b> {words}</span> '


def _table(stages: Iterable[StageView]) -> str:
    heads = ("Stage", "Handler", "Tasks made", "State", "Tasks, in order", "Time")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _cells(stage))}</tr>" for stage in stages)
    table = f'<table class="gf-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="gf-wide">{table}</div>'


def _cells(stage: StageView) -> Iterator[str]:
    yield f"{stage.number} {_text(stage.name, 40)}"
    yield f"<code>{_text(stage.task_type, 40)}</code>"
    yield _text(parallelism(stage))
    yield _state(stage.state)
    counts = "".join(_state(state, number) for state, number in stage.counts.items())
    yield f'<div class="gf-tasks">{counts}{_strip(stage)}</div>' if counts else "none" if stage.planned else ""
    yield took(stage.elapsed)


def _graph(stages: Sequence[StageView]) -> str:
    """The stages as nodes in a row."""
    width = len(stages) * (_NODE + _GAP) - _GAP + 2
    parts = "".join(_node(stage, 1 + place * (_NODE + _GAP)) for place, stage in enumerate(stages))
    said = (f"{stage.number} {shorten(stage.name, 40)}, {parallelism(stage)}, {stage.state}" for stage in stages)
    label, size = _text("; ".join(said)), f'width="{width}" height="{_TOP + _HIGH + 2}"'
    return (
        '<div class="gf-wide" tabindex="0" role="group" aria-label="Stages">'
        f'<svg {size} role="img" aria-label="{label}">{parts}</svg></div>'
    )


def _node(stage: StageView, x: int) -> str:
    name, done = fit(f"{stage.number} {shorten(stage.name, 40)}", 20), stage.state
    if stage.planned:
        done = f"{stage.counts.get('completed', 0):,} / {stage.tasks:,}" if stage.tasks else "no tasks"
    return (
        f"{'' if stage.number == 1 else _arrow(stage, x)}"
        f'<rect class="gf-node gf-{stage.state}" x="{x}" y="{_TOP}" width="{_NODE}" height="{_HIGH}" rx="5"/>'
        f'<text x="{x + 9}" y="{_TOP + 17}">{escape(name)}</text>'
        f'<text class="gf-small" x="{x + 9}" y="{_TOP + 33}">{SYMBOLS[stage.state]} {done}</text>'
    )


def _arrow(stage: StageView, x: int) -> str:
    """To *stage* at *x* from the one before it: lines that part or meet, and the word for it."""
    start, end, y = x - _GAP + 2, x - 2, _TOP + _HIGH // 2
    parts, meets = stage.parallelism == "fan_out", stage.parallelism == "fan_in"
    spread = (-11, 0, 11) if parts or meets else (0,)
    lines = "".join(f"M{start} {y + meets * aside}L{end} {y + parts * aside}" for aside in spread)
    return (
        f'<path class="gf-arrow" d="{lines}M{end - 6} {y - 4}L{end} {y}L{end - 6} {y + 4}"/><text class="gf-small" '
        f'x="{x - _GAP // 2}" y="{y - 17}" text-anchor="middle">{escape(fit(parallelism(stage), 11))}</text>'
    )


def _strip(stage: StageView) -> str:
    """The stage's tasks in order, in cells whose colour and height say the state."""
    cells, place = len(stage.strip), 0
    lines = dict.fromkeys(stage.strip, "")
    for state, alike in groupby(stage.strip):
        length = len(list(alike))
        lines[state] += f"M{place} {_BARS[state][0]}h{length}"
        place += length
    paths = (  # as wide as the bars are high: half the length of rectangles
        f'<path class="gf-cell gf-{state}" stroke-width="{_BARS[state][1]}" d="{line}"/>'
        for state, line in lines.items()
    )
    said = ", ".join(f"{number:,} {state}" for state, number in stage.counts.items())
    apart = ' stroke-dasharray="0.85 0.15"' if cells <= 40 else ""
    return (
        f'<svg class="gf-strip" width="{min(200, 12 * cells)}" height="16" viewBox="0 0 {cells} 10"{apart} '
        f'preserveAspectRatio="none" role="img" aria-label="Tasks in order: {said}">{"".join(paths)}</svg>'
    )


def _errors(view: JobView) -> Iterator[str]:
    if view.errors:  # not h4: a notebook would take it into its table of contents
        yield f'<div class="gf-title" role="heading" aria-level="4">{errors_title(view)}</div>'
    for group in view.errors:
        yield f"<details{' open' if group is view.errors[0] else ''}><summary>{_state('failed', group.count)}"
        yield f"<b>{_text(group.error_type, 60)}</b> {_text(group.message, 200)}"
        yield f'<span class="gf-faint">({_text(group.fate)})</span></summary><div class="gf-body">'
        yield _line(_text(group.why))
        yield _line(group.where and f"Raised by {_text(group.where, 200)}", "gf-faint")
        yield from (_block(title, text) for title, text in group.details)
        yield "</div></details>"


def job_text(view: JobView, width: int = 80) -> str:
    """The job in lines of at most *width* columns."""
    lines = (line for part in _parts(view, width) for line in plain(part).expandtabs().splitlines())
    return "\n".join(fit(line.rstrip(), width) for line in lines if line.strip())


def _parts(view: JobView, width: int) -> Iterator[str]:
    yield "  ".join((SYMBOLS[view.state], view.state, shorten(view.job_type, 30), view.job_id[:8]))
    yield "  " + ", ".join(about(view))
    yield from _wrapped("  ".join(f"{name}={value}" for name, value in view.parameters), width)[:4]
    yield from _wrapped(view.error or "", width)[:4]
    yield _indented(view.traceback or "")
    yield from (_stage(stage, width) for stage in view.stages)
    yield errors_title(view) if view.errors else ""
    for group in view.errors:
        yield f"✗ {group.count:,}× {shorten(group.error_type, 40)}: {shorten(group.message, 300)}"
        yield f"  ({group.fate}) {shorten(group.where or '', 200)}"
        if group is view.errors[0]:
            yield from _wrapped(group.why, width)
            for title, text in group.details:
                yield f"  {title}\n{_indented(text)}" if "\n" in text else f"  {title}: {text}"
    yield f"Result\n{_indented(view.result_preview)}" if view.result_preview else ""
    yield f"Next: {view.hint}" if view.hint else ""


def jobs_text(views: Iterable[JobView], width: int = 80) -> str:
    """Jobs, one in a line of at most *width* columns."""
    rows = [
        (
            f"{SYMBOLS[view.state]} {view.state}",
            view.job_id[:8],
            shorten(view.job_type, 60),
            took(view.elapsed),
            f"{max(1, sum(stage.planned for stage in view.stages))}/{len(view.stages)}",
            _done(*view.stages),
        )
        for view in views
    ]
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    if rows:  # names give way
        widths[2] = max(8, min(widths[2], width - sum(widths) + widths[2] - 2 * len(widths) + 2))
    return "\n".join(fit("  ".join(map(pad, row, widths)).rstrip(), width) for row in rows)


def _done(*stages: StageView) -> str:
    completed, failed = (sum(stage.counts.get(state, 0) for stage in stages) for state in ("completed", "failed"))
    return f"{completed:,}/{sum(stage.tasks for stage in stages):,}" + (f", {failed:,} failed" if failed else "")


def _stage(stage: StageView, width: int) -> str:
    name, done = f"{stage.number} {shorten(stage.name, 60)}", _done(stage) if stage.planned else stage.state
    cells = (pad(name, width // 5), pad(parallelism(stage), 7), pad(done, 28), pad(took(stage.elapsed), 11))
    head = " ".join((SYMBOLS[stage.state], *cells, ""))
    return head + "".join(SYMBOLS[state] for state in narrow(stage.strip, width - columns(head)))


def narrow(strip: Sequence[str], cells: int) -> Iterator[str]:
    """*strip* in at most *cells* states, each the worst of those it stands for."""
    width = max(1, -(-len(strip) // max(cells, 1)))
    return (worst(strip[place : place + width]) for place in range(0, len(strip), width))


def _indented(text: str) -> str:
    """The last lines of *text*, set in."""
    return "\n".join(f"    {line}" for line in text.splitlines()[-12:])


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(shorten(text, 1000), max(width - 2, 20), initial_indent="  ", subsequent_indent="  ")
