"""Draw footprints on a map of the coasts, as inline SVG. Pure but for the coastline, which is a file beside this one.

The map is in degrees, with a degree of longitude as short as it is in the map's middle. Each footprint can be reached
by the keyboard, and says then, as under the pointer, which task it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import NamedTuple

from geoflow.render.markup import Html, faint, head, line, state
from geoflow.render.pictures import WIDTH, Picture, nothing
from geoflow.support.text import count
from geoflow.views.footprints import Part, Point, window
from geoflow.views.located import Footprint, Located
from geoflow.views.stages import STATES

LEAST = 0.02  # degrees across: of a smaller window a coast tells nothing
POINTS = 8_000  # of all footprints
_SVG = Html(
    '<svg class="gf-picture gf-map" viewBox="0 0 {} {}" role="group" aria-label="{}"><rect class="gf-sea" width="{}" '
    'height="{}"/><path class="gf-coast" d="{}"/>{}{}</svg>'
)
_FOOTPRINT = Html(
    '<g class="gf-foot gf-{}" tabindex="0" role="img" aria-label="{}"><path d="{}"/>'
    '<text class="gf-small" x="4" y="{}">{}</text></g>'
)
_LABEL = Html('<text class="gf-small" x="{}" y="{}" text-anchor="{}">{}</text>')


class Frame(NamedTuple):
    """What is seen: degrees, and how many of the picture's units one of each is."""

    west: float
    south: float
    east: float
    north: float
    across: float
    down: float

    @property
    def height(self) -> int:
        return round((self.north - self.south) * self.down)


def map_picture(found: Located, name: str) -> Picture:
    """Where the tasks of the job *name* work, coloured by their state."""
    name = f"Map of {name}"
    notes = [f"{count(number, 'task')} not drawn: {why}." for why, number in found.unread.items()]
    if found.looked_at < found.tasks:
        notes.append(f"Of {count(found.tasks, 'task')}, {found.looked_at:,} are looked at: failed ones first.")
    if not found.footprints:
        why = "No footprint was found in parameters, metadata or results: a bbox in degrees, GeoJSON, a tile, a cell."
        return nothing(name, " ".join([*notes, *([] if found.unread else [why])]))
    if found.without:
        notes.append(f"{count(found.without, 'task')} without a footprint.")
    numbers = {each: sum(footprint.state == each for footprint in found.footprints) for each in reversed(STATES)}
    there = {each: number for each, number in numbers.items() if number}
    said = ", ".join(f"{number:,} {each}" for each, number in there.items())
    frame = frame_of(window(footprint.shape for footprint in found.footprints))
    about = f"{count(len(found.footprints), 'footprint')}: {said}"
    where = f"{_degrees(frame.west, 'EW')} to {_degrees(frame.east, 'EW')}, " + (
        f"{_degrees(frame.south, 'NS')} to {_degrees(frame.north, 'NS')}"
    )
    legend = line(Html().join(state(each, number) for each, number in there.items()))
    parts = (head(name, faint(f"{about} · {where}")), legend, _map(found.footprints, frame, about))
    failed = [each.said for each in found.footprints if each.state == "failed"][:10]
    return Picture(name, (*parts, line(" ".join(notes), "gf-faint")), (name, about, where, *failed, *notes))


def frame_of(seen: tuple[float, float, float, float]) -> Frame:
    """The frame with some room around what is to be *seen*, not too flat and not too high, within the poles."""
    west, south, east, north = seen
    middle = (south + north) / 2
    short = max(math.cos(math.radians(middle)), 0.2)
    wide, high = max((east - west) * 1.4, LEAST), max((north - south) * 1.4, LEAST)
    wide, high = max(wide, high / 0.6 / short), max(high, wide * short * 0.4)
    if wide >= 360:
        wide, short = 360.0, 1.0
        west, east = (-180.0, 180.0) if east - west > 300 else (west, east)
        high = min(max(high, 144.0), 180.0)
    centre = (west + east) / 2
    low = min(max(middle - high / 2, -90.0), 90.0 - min(high, 180.0))
    across = WIDTH / wide
    return Frame(centre - wide / 2, low, centre + wide / 2, low + min(high, 180.0), across, across / short)


def _map(footprints: Sequence[Footprint], frame: Frame, said: str) -> Html:
    most = max(POINTS // len(footprints), 8)
    drawn = sorted(footprints, key=lambda each: -STATES.index(each.state))  # the worst last, above all others
    marks = Html().join(
        _FOOTPRINT.format(each.state, each.said, _outline(each.shape, frame, most), frame.height + 14, each.said)
        for each in drawn
    )
    west, east = _degrees(frame.west, "EW"), _degrees(frame.east, "EW")
    south, north = _degrees(frame.south, "NS"), _degrees(frame.north, "NS")
    labels = (
        _LABEL.format(3, 12, "start", f"{north} {west}"),
        _LABEL.format(WIDTH - 3, frame.height - 4, "end", f"{south} {east}"),
    )
    return _SVG.format(
        *(WIDTH, frame.height + 20, said, WIDTH, frame.height, _coast(frame), marks, Html().join(labels)),
    )


def _degrees(value: float, sides: str) -> str:
    value = (value + 180) % 360 - 180 if abs(value) > 180 else value
    digits = f"{abs(value):.2f}".rstrip("0").rstrip(".")
    return f"{digits}° {sides[value < 0]}" if digits != "0" else "0°"


def _outline(shape: Iterable[Part], frame: Frame, most: int) -> str:
    """The path of *shape*, each part where it is in the frame: also twice, where the frame is all of the world."""
    parts = list(shape)
    few = max(most // len(parts), 4)
    return "".join(
        _path([(longitude + shift, latitude) for longitude, latitude in points], frame, part.closed)
        for part in parts
        for points in [_thinned(part.points, few)]
        for shift in _shifts(points, frame)
    )


def _thinned(points: Sequence[Point], most: int) -> Sequence[Point]:
    return points[:: -(-len(points) // most)]


def _shifts(points: Sequence[Point], frame: Frame) -> Iterator[float]:
    """The whole turns that bring *points* into the frame."""
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    touch = 1e-9 * (high > low)  # what only touches the frame's side is not in it
    first, last = math.ceil((frame.west - high) / 360 + touch), math.floor((frame.east - low) / 360 - touch)
    yield from (360.0 * turn for turn in range(first, last + 1))


def _path(points: Sequence[Point], frame: Frame, closed: bool) -> str:
    """In tenths of a unit, from point to point by steps; what falls on one place is one point."""
    placed = [(round((x - frame.west) * frame.across, 1), round((frame.north - y) * frame.down, 1)) for x, y in points]
    (x, y), steps = placed[0], []
    for right, down in placed[1:]:
        if (right, down) != (x, y):
            steps.append(f"{right - x:.1f} {down - y:.1f}")
            x, y = right, down
    first = f"M{placed[0][0]:.1f} {placed[0][1]:.1f}"
    return f"{first}l{' '.join(steps)}{'z' * closed}" if steps else f"{first}h0"


def _coast(frame: Frame) -> str:
    """The coast within the frame, and a little beyond."""
    drawn = []
    for coast in coastline():
        for shift in _shifts(coast, frame):
            run: list[Point] = []
            for (x0, y0), (x1, y1) in pairwise(coast):
                seen = max(x0, x1) + shift >= frame.west and min(x0, x1) + shift <= frame.east
                if seen and max(y0, y1) >= frame.south and min(y0, y1) <= frame.north:
                    run = run or [(x0 + shift, y0)]
                    run.append((x1 + shift, y1))
                elif run:
                    drawn.append(_path(run, frame, closed=False))
                    run = []
            if run:
                drawn.append(_path(run, frame, closed=False))
    return "".join(drawn)


@cache
def coastline() -> tuple[tuple[Point, ...], ...]:
    """The coasts of the world as lines, in degrees."""
    text = resources.files("geoflow.render").joinpath("coastline.txt").read_text("utf-8")
    return tuple(_read(line) for line in text.splitlines() if not line.startswith("#"))


def _read(text: str) -> tuple[Point, ...]:
    x = y = 0
    points = []
    for step in text.split():
        right, up = step.split(",")
        x, y = x + int(right), y + int(up)
        points.append((x / 10, y / 10))
    return tuple(points)
