"""Draw two runs side by side, stage by stage: how long each took, and what became of their pairs of tasks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import NamedTuple

from geoflow.render.markup import Html, faint, head, line
from geoflow.render.pictures import INNER, LEFT, WIDTH, Picture, nothing
from geoflow.support.text import count, fit, human_duration, pad, shorten

# What became of a pair of tasks, the one that asks most for a look first: how it is told, and the class of its colour.
OUTCOMES = {
    "status": ("ended otherwise", "gf-failed"),
    "differs": ("gave something else", "gf-interrupted"),
    "only_a": ("only in A", "gf-queued"),
    "only_b": ("only in B", "gf-processing"),
    "same": ("the same", "gf-completed"),
}
STAGES = 12  # of more, those that took longest
_SIDES = {"A": "gf-queued", "B": "gf-processing"}
_BARS, _HIGH, _STEP, _CELLS = INNER - 124, 10, 50, 40  # how long a bar may be: behind it there is room for words
_SVG = Html('<svg class="gf-picture" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
_TEXT = Html('<text class="gf-small" x="{}" y="{}" text-anchor="{}">{}</text>')
_BAR = Html('<path class="gf-bar {}" d="M{} {}h{}v{}h-{}z"><title>{}</title></path>')
_KEY = Html('<span class="gf-is {}"><b aria-hidden="true">■</b> {}</span> ')


class ComparedStage(NamedTuple):
    """A stage of two runs: the seconds that it took in each, None where it did not run, and of its pairs of tasks how
    many there are of each outcome."""

    name: str
    seconds: tuple[float | None, float | None]
    outcomes: Mapping[str, int]


def side_by_side(stages: Sequence[ComparedStage], name: str) -> Picture:
    """The *stages* of the two runs that *name* tells of."""
    if not any(stage.outcomes for stage in stages):
        return nothing(name, "There are no tasks to compare.")
    shown = stages
    if len(shown) > STAGES:
        few = sorted(shown, key=lambda stage: -sum(seconds or 0.0 for seconds in stage.seconds))[:STAGES]
        shown = [stage for stage in shown if stage in few]
    longest = max((seconds or 0.0 for stage in shown for seconds in stage.seconds), default=0.0) or 1.0
    said = "; ".join(", ".join((stage.name, *_times(stage), _about(stage))) for stage in shown)
    totals = {outcome: sum(stage.outcomes.get(outcome, 0) for stage in stages) for outcome in OUTCOMES}
    told = {outcome: f"{number:,} {OUTCOMES[outcome][0]}" for outcome, number in totals.items() if number}
    keys = [_KEY.format(kind, f"{side}, its time") for side, kind in _SIDES.items()]
    keys += [_KEY.format(OUTCOMES[outcome][1], words) for outcome, words in told.items()]
    rest = len(stages) - len(shown)
    more = f"{count(rest, 'stage')} more, which took less." if rest else ""
    drawn = Html().join(part for place, stage in enumerate(shown) for part in _drawn(stage, place * _STEP, longest))
    svg = _SVG.format(WIDTH, len(shown) * _STEP, said, drawn)
    parts = (head("Time and tasks by stage", faint(name)), line(Html().join(keys)), svg, line(more, "gf-faint"))
    rows = [row for stage in shown for row in _rows(stage, longest)]
    return Picture(name, parts, (name, *wrap(", ".join(told.values()), 80), *rows, *filter(None, [more])))


def _drawn(stage: ComparedStage, top: int, longest: float) -> Iterator[Html]:
    yield _TEXT.format(LEFT - 6, top + 18, "end", fit(shorten(stage.name, 60), 16))
    for place, (time, kind, seconds) in enumerate(zip(_times(stage), _SIDES.values(), stage.seconds, strict=True)):
        y, wide = top + 4 + place * (_HIGH + 2), round(max((seconds or 0.0) / longest * _BARS, 1.0), 1)
        if seconds is not None:
            yield _BAR.format(kind, LEFT, y, wide, _HIGH, wide, time)
        yield _TEXT.format(LEFT + 6 + (wide if seconds is not None else 0), y + _HIGH - 1, "start", time)
    x, pairs, y = float(LEFT), sum(stage.outcomes.values()), top + 7 + 2 * (_HIGH + 2)
    for outcome, number in _in_order(stage):
        words, kind = OUTCOMES[outcome]
        wide = round(number / pairs * _BARS, 1)
        yield _BAR.format(kind, round(x, 1), y, wide, 6, wide, f"{number:,} {words}")
        x += wide
    yield _TEXT.format(LEFT + _BARS + 6, y + 7, "start", _about(stage))


def _rows(stage: ComparedStage, longest: float) -> Iterator[str]:
    for place, (time, seconds) in enumerate(zip(_times(stage), stage.seconds, strict=True)):
        cells = 0 if seconds is None else max(round(seconds / longest * _CELLS), 1)
        bar, name = "█" * cells, "" if place else stage.name
        yield f"{pad(fit(name, 16), 16)} {f'{bar} {time}' if bar else time}"
    yield f"{pad('', 16)} {_about(stage)}"


def _times(stage: ComparedStage) -> list[str]:
    told = ("did not run" if seconds is None else human_duration(seconds) for seconds in stage.seconds)
    return [f"{side} {time}" for side, time in zip(_SIDES, told, strict=True)]


def _about(stage: ComparedStage) -> str:
    """How many pairs are not the same, which the colours of the stage's strip tell apart."""
    pairs = sum(stage.outcomes.values())
    unlike = pairs - stage.outcomes.get("same", 0)
    return f"{unlike:,} of {pairs:,} differ" if unlike else f"{pairs:,} the same"


def _in_order(stage: ComparedStage) -> Iterator[tuple[str, int]]:
    return ((outcome, number) for outcome in OUTCOMES if (number := stage.outcomes.get(outcome, 0)))
