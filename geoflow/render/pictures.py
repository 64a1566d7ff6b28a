"""Draw when a job's attempts ran and how long, as inline SVG and as text. Pure; no scripts, as in `drawing`.

A picture is as wide as there is room, its lines and words take the theme's colours, and all that it tells by colour
stands in words beside it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from math import ceil, floor, log10
from textwrap import wrap

from geoflow.render.markup import Html, element, faint, head, line
from geoflow.support.text import count, fit, human_bytes, human_duration, pad, shorten
from geoflow.views.timing import KINDS, Histogram, Lane, StageTimes, Timeline

WIDTH, LEFT, RIGHT = 640, 104, 8  # in the picture's own units; it is stretched to the room that there is
INNER = WIDTH - LEFT - RIGHT
# The words of what is told by colour, and the class that has the colour.
WORDS = {
    "completed": ("completed", "gf-completed"),
    "retried": ("completed on a retry", "gf-processing"),
    "failed": ("failed", "gf-failed"),
    "stopped": ("stopped or lost", "gf-cancelled"),
    "waiting": ("waiting to retry", "gf-queued"),
    "peak": ("memory", "gf-processing"),
}
STAGES = 12  # of a histogram; of more, those that took longest in all
_BLOCKS = " ▁▂▃▄▅▆▇█"
_SVG = Html('<svg class="gf-picture" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
_TEXT = Html('<text class="gf-small{}" x="{}" y="{}" text-anchor="{}">{}</text>')
_BAR = Html('<path class="gf-bar {}" d="{}"/>')
_LINE = Html('<path class="gf-axis" d="{}"/>')
_BREAK = Html('<path class="gf-arrow" stroke-dasharray="3 3" d="M{} {}V{}"/>')
_KEY = Html('<span class="gf-is {}"><b aria-hidden="true">■</b> {}</span> ')


class Picture:
    """A picture of a job: a notebook shows it, ``print`` has it as text, ``html`` is an element to put into a page."""

    def __init__(self, name: str, html: Iterable[str], text: Iterable[str], *, empty: bool = False) -> None:
        self._name, self._parts, self._lines, self._empty = name, list(html), list(text), empty

    def __bool__(self) -> bool:
        """Whether there is anything to see."""
        return not self._empty

    @property
    def html(self) -> str:
        """The picture as HTML, with its style in it."""
        return str(element(self._name, self._parts))

    @property
    def part(self) -> Html:
        """The picture without the style, for an element that has it."""
        return Html().join(self._parts)

    def _repr_html_(self) -> str:
        return self.html

    def __str__(self) -> str:
        return "\n".join(fit(line.rstrip(), 80) for line in self._lines)

    __repr__ = __str__


def timeline_picture(found: Timeline, name: str) -> Picture:
    """When the workers of the job *name* were busy."""
    name = f"Timeline of {name}"
    if not sum(found.counts.values()):
        return nothing(name, "No attempt has ended yet.")
    said = _said(found)
    parts = (head(name, faint(said)), line(_legend(found.counts)), _timeline(found, said))
    return Picture(name, (*parts, line(_left_out(found), "gf-faint")), (name, said, *_lanes(found)))


def over_time_picture(found: Timeline, name: str) -> Picture:
    """How much of the job *name* was done by when."""
    name = f"Progress of {name}"
    if not found.most:
        return nothing(name, "No attempt has ended yet.")
    said = _said(found)
    half = next(place for place, done in enumerate(_total(found.lanes[0])) if done >= 0.5)
    when = f"Half of them had ended after {human_duration(found.seconds * (half + 1) / len(_total(found.lanes[0])))}."
    parts = (head(name, faint(said)), line(_legend(found.counts)), _timeline(found, said, high=96))
    left_out = line(_left_out(found), "gf-faint")
    return Picture(name, (*parts, line(when, "gf-faint"), left_out), (name, said, *_lanes(found), when))


def memory_picture(found: Timeline, name: str) -> Picture:
    """What the workers of the job *name* had in memory at most, and when."""
    name = f"Memory of {name}"
    if not found.lanes:
        return nothing(name, "Nobody knows what an attempt had in memory.")
    most = max(found.lanes, key=lambda lane: max(lane.shares["peak"]))
    by = f"as high as a line can be are {human_bytes(found.most)}, the most, of {most.name}"
    said = f"{count(found.workers, 'worker')} in {human_duration(found.seconds)}; {by}"
    also = "Of an attempt it is the most that its process had; short tasks that were sent together share it."
    parts = (head(name, faint(said)), _timeline(found, said))
    lines = (name, *wrap(said, 80), *_lanes(found), *wrap(also, 80))
    return Picture(name, (*parts, line(also, "gf-faint"), line(_left_out(found), "gf-faint")), lines)


def nothing(name: str, why: str) -> Picture:
    """A picture of which there is nothing to see."""
    return Picture(name, (head(name), line(why, "gf-faint")), (name, why), empty=True)


def _said(found: Timeline) -> str:
    number = count(sum(found.counts.values()), "attempt")
    by = f" by {count(found.workers, 'worker')}" if found.workers else ""
    some = ", ".join(f"{many:,} {WORDS[kind][0]}" for kind, many in found.counts.items() if many)
    return f"{number}{by} in {human_duration(found.seconds)}: {some}"


def _left_out(found: Timeline) -> str:
    if not found.breaks:
        return ""
    pauses = ", ".join(human_duration(seconds) for _, seconds in found.breaks[:10])
    return f"Dashed lines are pauses in which nothing ran, and which take no room: {pauses}."


def _legend(kinds: Mapping[str, int]) -> Html:
    return Html().join(
        _KEY.format(WORDS[kind][1], f"{many:,} {WORDS[kind][0]}") for kind, many in kinds.items() if many
    )


def _timeline(found: Timeline, said: str, high: int = 22) -> Html:
    high = high if len(found.lanes) <= 8 else 14
    top, parts = 16, list[Html]()
    for place, lane in enumerate(found.lanes):
        y = top + place * (high + 4)
        parts += [
            _TEXT.format("", LEFT - 6, y + high - 4, "end", lane.name),
            _LINE.format(f"M{LEFT} {y + high}h{INNER}"),
        ]
        parts += _stacked(lane.shares, y + high, high)
    bottom = top + len(found.lanes) * (high + 4)
    parts += (_BREAK.format(_x(at), top, bottom) for at, _ in found.breaks)
    parts += _planned(found.planned, bottom)
    ticks = [(place / 4, human_duration(found.seconds * place / 4) if place else "0") for place in range(5)]
    parts += _axis(ticks, bottom)
    return _SVG.format(WIDTH, bottom + 20, said, Html().join(parts))


def _planned(planned: Sequence[tuple[float, str]], bottom: int) -> Iterator[Html]:
    """A mark where each stage was planned, and its name where there is room for it."""
    free = 0.0
    for place, stage in sorted(planned):
        x = _x(place)
        yield Html('<path class="gf-arrow" d="M{} 12V{}"><title>{} was planned</title></path>').format(
            x, bottom, shorten(stage, 60)
        )
        label = fit(shorten(stage, 60), 16)
        if x >= free and x + 7 * len(label) < WIDTH:
            yield _TEXT.format("", x + 2, 10, "start", label)
            free = x + 7 * len(label)


def _x(place: float) -> float:
    return round(LEFT + place * INNER, 1)


def _axis(ticks: Iterable[tuple[float, str]], y: int) -> Iterator[Html]:
    for place, label in ticks:
        anchor = "start" if place < 0.02 else "end" if place > 0.98 else "middle"
        yield _LINE.format(f"M{_x(place)} {y}v4")
        yield _TEXT.format("", _x(place), y + 15, anchor, label)


def _stacked(shares: Mapping[str, Sequence[float]], base: int, high: int) -> Iterator[Html]:
    """Bars of several kinds, one kind upon the other, in the order of the kinds; what there is, is seen."""
    if not shares:
        return
    below = [0.0] * len(next(iter(shares.values())))
    width = INNER / len(below)
    for kind, share in shares.items():
        # A pixel at least, within the lane: of a thousand that failed, one is to be seen.
        heights = [max(value * high, 1.0) if value else 0.0 for value in share]
        tops = [min(low + height, high) for low, height in zip(below, heights, strict=True)]
        bars = [
            (round(min(low, top - height), 1), round(top, 1))
            for low, top, height in zip(below, tops, heights, strict=True)
        ]
        yield _BAR.format(WORDS[kind][1], "".join(_rectangles(bars, base, width)))
        below = tops


def _rectangles(bars: Sequence[tuple[float, float]], base: int, width: float) -> Iterator[str]:
    place = 0
    for (low, top), alike in groupby(bars):
        length = len(list(alike))
        if top > low:
            x, wide = LEFT + place * width, length * width
            yield f"M{x:.1f} {base - low:.4g}v{low - top:.3g}h{wide:.1f}v{top - low:.3g}z"
        place += length


def _lanes(found: Timeline) -> Iterator[str]:
    for lane in found.lanes:
        yield f"{pad(fit(lane.name, 16), 16)} {_blocks(_total(lane), 62)}"
    yield f"{pad('', 16)} 0{human_duration(found.seconds):>61}"


def _total(lane: Lane) -> list[float]:
    return [min(sum(shares), 1.0) for shares in zip(*lane.shares.values(), strict=True)]


def _blocks(values: Sequence[float], cells: int) -> str:
    """*values* of 0 to 1 in so many characters, each as high as the mean of those that it stands for."""
    bounds = [place * len(values) // cells for place in range(cells + 1)]
    parts = (values[low : max(high, low + 1)] for low, high in pairwise(bounds))
    return "".join(_BLOCKS[min(ceil(8 * sum(part) / len(part)), 8)] for part in parts)


def histogram_picture(found: Histogram, name: str) -> Picture:
    """How long the attempts of the job *name* ran, by stage."""
    name = f"Durations of {name}"
    if not found.stages:
        return nothing(name, "No attempt has ended yet.")
    shown = found.stages
    if len(shown) > STAGES:
        few = sorted(shown, key=lambda stage: -stage.median * stage.attempts)[:STAGES]
        shown = tuple(stage for stage in shown if stage in few)
    kinds = {kind: sum(sum(stage.counts.get(kind, ())) for stage in found.stages) for kind in KINDS}
    said = f"{count(sum(kinds.values()), 'attempt')}, {'logarithmic' if found.logarithmic else 'linear'} axis"
    rest = len(found.stages) - len(shown)
    more = f"{count(rest, 'stage')} more, which took less in all." if rest else ""
    slowest = [f"Slowest of {stage.name}: {_slowest(stage)}" for stage in shown]
    parts = (head(name, faint(said)), line(_legend(kinds)), _histogram(found, shown, said))
    wrapped = (part for each in (*slowest, more) for part in wrap(each, 80))
    lines = (name, said, *_rows(found, shown), *wrapped)
    return Picture(name, (*parts, *(line(each, "gf-faint") for each in (*slowest, more))), lines)


def _slowest(stage: StageTimes) -> str:
    return ", ".join(f"{shorten(task, 40)} {human_duration(seconds)}" for task, seconds in stage.slowest)


def _about(stage: StageTimes) -> str:
    return f"{stage.attempts:,}, median {_exactly(stage.median)}"


def _exactly(seconds: float) -> str:
    """A duration, of which many are below a millisecond."""
    return human_duration(seconds) if seconds >= 0.0095 else f"{seconds * 1e3:.2g} ms"


def _histogram(found: Histogram, shown: Sequence[StageTimes], said: str) -> Html:
    high, step, parts = 34, 54, list[Html]()
    for place, stage in enumerate(shown):
        base = 14 + place * step + high
        most = max(map(sum, zip(*stage.counts.values(), strict=True)))
        shares = {kind: [number / most for number in numbers] for kind, numbers in stage.counts.items()}
        parts.append(_TEXT.format("", LEFT - 6, base - 8, "end", fit(shorten(stage.name, 60), 16)))
        parts.append(_TEXT.format("", WIDTH - RIGHT, base - high - 3, "end", _about(stage)))
        parts.append(_LINE.format(f"M{LEFT} {base}h{INNER}"))
        parts += _stacked(shares, base, high)
    bottom = 14 + len(shown) * step - (step - high) + 2
    parts += _axis(_ticks(found), bottom)
    return _SVG.format(WIDTH, bottom + 20, said, Html().join(parts))


def _ticks(found: Histogram) -> list[tuple[float, str]]:
    """The ends of the axis, and what is round between them, where it stands apart."""
    low, high = found.edges[0], found.edges[-1]
    ends = [(0.0, _exactly(low) if low else "0"), (1.0, _exactly(high))]
    if not found.logarithmic:
        return [*ends, *((place / 4, _exactly(high * place / 4)) for place in (1, 2, 3))]
    span = log10(high / low)
    decades = (10.0**power for power in range(floor(log10(low)) + 1, ceil(log10(high))))
    between = ((log10(each / low) / span, _exactly(each)) for each in decades)
    return [*ends, *((place, label) for place, label in between if 0.14 < place < 0.84)]


def _rows(found: Histogram, shown: Sequence[StageTimes]) -> Iterator[str]:
    for stage in shown:
        numbers = list(map(sum, zip(*stage.counts.values(), strict=True)))
        bars = "".join(_BLOCKS[ceil(8 * number / max(numbers))] for number in numbers)
        yield f"{pad(fit(stage.name, 12), 12)} {bars} {_about(stage)}"
    low, high = (_exactly(found.edges[place]) if found.edges[place] else "0" for place in (0, -1))
    yield f"{pad('', 12)} {low}{high:>{len(found.edges) - 1 - len(low)}}"
