"""Where on the Earth a task works, as its parameters, its metadata or its result tell: the shapes of a map. Pure.

A shape is looked for in this order, and the first that is found counts: a GeoJSON object; a ``bbox`` of four or six
degrees; ``z``, ``x`` and ``y`` of a web map's tile; a ``quadkey``; an H3 cell. Longitudes of a shape run on over the
antimeridian, beyond 180, so that it stays in one piece. Lists are not looked into.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple

Point = tuple[float, float]  # longitude and latitude, degrees
DEEPEST, ITEMS = 6, 200  # how far is looked into a value, and at how many features of a collection
H3_CELL = re.compile(r"8[0-9a-f]{14}")
_QUADKEY = re.compile(r"[0-3]{1,30}")
_DEGREES = re.compile(r"4326|4979|CRS84|OGC84", re.IGNORECASE)
_POINTS = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}


class Part(NamedTuple):
    """A ring, a line, or a point, which is a line of one."""

    points: tuple[Point, ...]
    closed: bool


Shape = tuple[Part, ...]
Boundary = Callable[[str], Sequence[Point] | None]  # of an H3 cell: (latitude, longitude) each, None: it is no cell


class Unread(Exception):  # no failure: it says why there is no shape
    """There is something like a shape, which is not drawn for this reason."""


NO_H3 = "H3 cells are not drawn without h3: pip install 'geoflow[h3]'"
NOT_DEGREES = "not in degrees of longitude and latitude"


def footprint(values: Iterable[Any], boundary: Boundary | None = None, depth: int = DEEPEST) -> Shape | None:
    """The first shape in *values*, or None. `Unread` where there is one that cannot be drawn, and no other."""
    unread: Unread | None = None
    for value in values:
        try:
            if shape := _look(value, boundary, depth):
                return shape
        except Unread as exc:
            unread = exc
    if unread is not None:
        raise unread
    return None


def _look(value: Any, boundary: Boundary | None, depth: int) -> Shape | None:
    if isinstance(value, str):
        return _cell(value, boundary) if H3_CELL.fullmatch(value) else None
    if not depth or not isinstance(value, dict):  # a list is of many places: what a plan gives, what a fan-in gets
        return None
    return _of_dict(value) or footprint(value.values(), boundary, depth - 1)


def _of_dict(value: dict[str, Any]) -> Shape | None:
    said = next((value[name] for name in ("crs", "epsg", "srs") if value.get(name)), None)
    shape = _geojson(value) or _box(value.get("bbox")) or _tile(value) or _quadkey(value.get("quadkey"))
    if shape and said is not None and not _DEGREES.search(str(said)):
        raise Unread(NOT_DEGREES)
    return shape


def _geojson(value: dict[str, Any]) -> Shape | None:
    kind = str(value.get("type"))
    if kind == "Feature" and isinstance(value.get("geometry"), dict):
        return _geojson(value["geometry"])
    members = {"FeatureCollection": "features", "GeometryCollection": "geometries"}.get(kind)
    if members and isinstance(value.get(members), list):
        parts = (_geojson(each) for each in value[members][:ITEMS] if isinstance(each, dict))
        return tuple(chain.from_iterable(filter(None, parts))) or None
    if kind not in _POINTS or not isinstance(value.get("coordinates"), list):
        return None
    closed, depth = kind.endswith("Polygon"), _POINTS[kind]
    try:
        lines = [[_point(each) for each in part] for part in _lines(value["coordinates"], depth)]
    except (TypeError, ValueError, IndexError):
        return None
    if kind == "MultiPoint":
        lines = [[each] for line in lines for each in line]
    return tuple(_part(line, closed) for line in lines if line) or None


def _lines(coordinates: Any, depth: int) -> Iterator[Any]:
    if depth == 0:
        yield [coordinates]
    elif depth == 1:
        yield coordinates
    else:
        for each in coordinates:
            yield from _lines(each, depth - 1)


def _point(value: Any) -> Point:
    longitude, latitude = float(value[0]), float(value[1])
    if not (abs(longitude) <= 360 and abs(latitude) <= 90):
        raise Unread(NOT_DEGREES)
    return longitude, latitude


def _part(points: Sequence[Point], closed: bool) -> Part:
    """*points* in one piece: a step of more than half the world goes the other way round, over the antimeridian.

    But for one from -180 to 180: that is how all of the world is written. A ring around a pole is led along it.
    """
    run, shift = [points[0]], 0.0
    for (before, _), (longitude, latitude) in pairwise(points):
        if 180 < abs(longitude - before) < 360:
            shift += math.copysign(360, before - longitude)
        run.append((longitude + shift, latitude))
    if closed and shift:
        pole = math.copysign(90, sum(latitude for _, latitude in run))
        run += [(run[-1][0], pole), (run[0][0], pole)]
    return Part(tuple(run), closed)


def _box(value: Any) -> Shape | None:
    if not isinstance(value, list) or len(value) not in (4, 6):
        return None
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
        return None
    west, south, east, north = (value[place] for place in ((0, 1, 2, 3) if len(value) == 4 else (0, 1, 3, 4)))
    if not (abs(west) <= 360 and abs(east) <= 360 and -90 <= south <= north <= 90):
        raise Unread(NOT_DEGREES)
    return _rectangle(west, south, east + 360 if east < west else east, north)


def _rectangle(west: float, south: float, east: float, north: float) -> Shape:
    corners = ((west, south), (east, south), (east, north), (west, north), (west, south))
    return (Part(tuple((float(x), float(y)) for x, y in corners), closed=True),)


def _tile(value: dict[str, Any]) -> Shape | None:
    z, x, y = (value.get(name) for name in "zxy")
    if type(z) is not int or type(x) is not int or type(y) is not int:
        return None
    return _rectangle(*tile_bounds(z, x, y)) if 0 <= z <= 30 and 0 <= x < 2**z and 0 <= y < 2**z else None


def tile_bounds(z: int, x: int, y: int) -> tuple[float, float, float, float]:
    """West, south, east and north of a tile of the web's maps, in degrees; ``y`` counts from the north."""
    across = 2**z

    def latitude(row: int) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / across))))

    return x / across * 360 - 180, latitude(y + 1), (x + 1) / across * 360 - 180, latitude(y)


def _quadkey(value: Any) -> Shape | None:
    if not isinstance(value, str) or not _QUADKEY.fullmatch(value):
        return None
    x, y = (int("".join(str(int(digit) >> bit & 1) for digit in value), 2) for bit in (0, 1))
    return _rectangle(*tile_bounds(len(value), x, y))


def _cell(value: str, boundary: Boundary | None) -> Shape | None:
    if boundary is None:
        raise Unread(NO_H3)
    corners = boundary(value)
    if not corners:
        return None
    points = [(longitude, latitude) for latitude, longitude in corners]
    return (_part([*points, points[0]], closed=True),)


def window(shapes: Iterable[Shape]) -> tuple[float, float, float, float]:
    """West, south, east and north of the least part of the world that has all *shapes*; east may be beyond 180."""
    spans, latitudes = [], []
    for shape in shapes:
        longitudes = [longitude for part in shape for longitude, _ in part.points]
        latitudes += [latitude for part in shape for _, latitude in part.points]
        spans.append(((min(longitudes) + 180) % 360 - 180, max(longitudes) - min(longitudes)))
    spans.sort()
    widest, west = -1.0, -180.0
    until = max(start + length for start, length in spans) - 360  # what reaches over the antimeridian covers the west
    for start, length in spans:
        if start - until > widest:
            widest, west = start - until, start
        until = max(until, start + length)
    if widest <= 0:
        return -180.0, min(latitudes), 180.0, max(latitudes)
    return west, min(latitudes), west + 360 - widest, max(latitudes)
