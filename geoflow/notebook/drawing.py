"""The SVG in a drawing: a node and an arrow for each stage, and a strip of its tasks. Pure.

Nothing here has an id: many drawings share a page.
"""

from __future__ import annotations

import re
from html import escape

from geoflow.notebook.views import LETTERS, JobView, StageView
from geoflow.notebook.words import SYMBOLS, fit, numbers, parallelism, window
from geoflow.text import count, shorten

_NODE, _GAP, _TOP, _HIGH = 150, 74, 16, 42
# Where a cell's bar has its middle, and how high it is, of ten: the strip can be read without its colours.
_BARS = {"f": (5, 10), "p": (5, 8), "c": (5, 6), "x": (5, 3), "q": (7, 1)}


def graph(view: JobView) -> str:
    """The stages as nodes in a row."""
    shown, _ = window(view.stages)
    width = len(shown) * (_NODE + _GAP) - _GAP + 2
    parts = [_node(stage, place, first=not place) for place, stage in enumerate(shown)]
    label = "; ".join(
        f"{stage.number} {shorten(stage.name, 40)}, {parallelism(stage)}, {stage.state}" for stage in shown
    )
    return (
        '<div class="gf-wide" tabindex="0" role="group" aria-label="Stages">'
        f'<svg width="{width}" height="{_TOP + _HIGH + 2}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg></div>"
    )


def _node(stage: StageView, place: int, *, first: bool) -> str:
    x, y = 1 + place * (_NODE + _GAP), _TOP
    symbol, name = SYMBOLS[stage.state]
    done = f"{stage.counts.get('completed', 0):,} / {stage.tasks:,}" if stage.tasks else "no tasks"
    return (
        f"{'' if first else _arrow(stage, x, y + _HIGH // 2)}"
        f'<rect class="gf-node gf-{name}" x="{x}" y="{y}" width="{_NODE}" height="{_HIGH}" rx="5"/>'
        f'<text x="{x + 9}" y="{y + 17}">{escape(fit(f"{stage.number} {shorten(stage.name, 40)}", 20))}</text>'
        f'<text class="gf-small" x="{x + 9}" y="{y + 33}">{symbol} {done if stage.planned else stage.state}</text>'
    )


def _arrow(stage: StageView, x: int, y: int) -> str:
    """To *stage* at *x* from the one before it: lines that part or meet, and the word for it."""
    start, end = x - _GAP + 2, x - 2
    parts, meets = stage.parallelism == "fan_out", stage.parallelism == "fan_in"
    spread = (-11, 0, 11) if parts or meets else (0,)
    lines = "".join(f"M{start} {y + meets * aside}L{end} {y + parts * aside}" for aside in spread)
    return (
        f'<path class="gf-arrow" d="{lines}M{end - 6} {y - 4}L{end} {y}L{end - 6} {y + 4}"/>'
        f'<text class="gf-small" x="{x - _GAP // 2}" y="{y - 17}" text-anchor="middle">'
        f"{escape(fit(parallelism(stage), 11))}</text>"
    )


def strip(stage: StageView) -> str:
    """The stage's tasks in order, in cells whose colour and height say the state."""
    cells = len(stage.strip)
    if not cells:
        return ""
    # A few cells stand apart; of many, those that are alike and side by side are one rectangle.
    few = cells <= 40
    paths = []
    for letter, (middle, high) in _BARS.items():
        runs = re.finditer(letter if few else letter + "+", stage.strip)
        # Lines as wide as the bar is high: half the length of rectangles.
        drawn = "".join(f"M{run.start()} {middle}h{len(run[0]) - 0.15 * few:g}" for run in runs)
        if drawn:
            state = LETTERS[letter]
            title = f"{count(stage.counts.get(state, 0), 'task')} {state}"
            about = f'class="gf-cell gf-{state}" stroke-width="{high}"'
            paths.append(f'<path {about} d="{drawn}"><title>{title}</title></path>')
    label = "Tasks in order: " + ", ".join(f"{number:,} {state}" for state, number in numbers(stage))
    return (
        f'<svg class="gf-strip" width="{min(200, 12 * cells)}" height="16" viewBox="0 0 {cells} 10" '
        f'preserveAspectRatio="none" role="img" aria-label="{label}">{"".join(paths)}</svg>'
    )
