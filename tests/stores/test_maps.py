"""Maps: footprints are found where they are, stay in one piece over the antimeridian, and are said where not drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoflow as gf
from geoflow.render import maps
from geoflow.views.footprints import NO_H3, Part, Shape, Unread, footprint, tile_bounds, window
from geoflow.views.located import MOST, Footprint, Located, located
from geoflow.views.rows import words
from tests.helpers.drawn import HOSTILE, checked, text_of
from tests.helpers.stored import STORES
from tests.stores.test_frames import NOW, ONE, WRONG, Engine
from tests.stores.test_pictures import AStore

RING = [[[8, 47], [9, 47], [9, 48], [8, 47]]]
TRIANGLE = {"type": "Polygon", "coordinates": RING}


def bounds(shape: Shape | None) -> list[float]:
    """West, south, east, north."""
    assert shape is not None
    xs, ys = zip(*(point for part in shape for point in part.points), strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"bbox": [8, 47, 9, 48]}, [8, 47, 9, 48]),
        ({"bbox": [8, 47, 0, 9, 48, 300]}, [8, 47, 9, 48]),
        ({"bbox": [177, -20, -178, -14]}, [177, -20, 182, -14]),
        ({"scene": {"id": "a", "bbox": [8, 47, 9, 48]}}, [8, 47, 9, 48]),
        (TRIANGLE, [8, 47, 9, 48]),
        ({"type": "Feature", "geometry": TRIANGLE, "bbox": [0, 0, 50, 50]}, [8, 47, 9, 48]),
        ({"geometry": {"type": "MultiPolygon", "coordinates": [RING, RING]}}, [8, 47, 9, 48]),
        ({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": TRIANGLE}]}, [8, 47, 9, 48]),
        ({"type": "Point", "coordinates": [8, 47]}, [8, 47, 8, 47]),
        ({"type": "LineString", "coordinates": [[8, 47], [9, 48]]}, [8, 47, 9, 48]),
        ({"type": "MultiPoint", "coordinates": [[8, 47], [9, 48]]}, [8, 47, 9, 48]),
        ({"type": "Polygon", "coordinates": [[[179, 0], [-179, 0], [-179, 1], [179, 0]]]}, [179, 0, 181, 1]),
        ({"type": "Polygon", "coordinates": [[[-180, 0], [180, 0], [180, 1], [-180, 0]]]}, [-180, 0, 180, 1]),
        ({"z": 1, "x": 1, "y": 0}, [0, 0, 180, 85.0511288]),
        ({"quadkey": "1"}, [0, 0, 180, 85.0511288]),
        ({"quadkey": "213"}, [-45, -66.5132604, 0, -40.9798981]),  # tile 3/3/5, as the Bing Maps tile system has it
        ({"bbox": [8, 47, 9, 48], "crs": "EPSG:4326"}, [8, 47, 9, 48]),
    ],
)
def test_a_footprint_is_found_where_it_is(value: Any, expected: list[float]) -> None:
    assert bounds(footprint([None, {"id": "a"}, value])) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value",
    [
        {"bbox": [500_000, 0, 600_000, 100]},
        {"bbox": [8, 47, 9, 48], "crs": "EPSG:32632"},
        {"type": "Point", "coordinates": [500_000, 5_000_000]},
        {"cell": "8928308280fffff"},
    ],
)
def test_what_cannot_be_drawn_says_why(value: Any) -> None:
    with pytest.raises(Unread):
        footprint([value])


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], {}, "0123", 7, {"bbox": "all"}, {"bbox": [1, 2]}, {"bbox": [None] * 4}, {"z": 1, "x": 2, "y": 0}),
        *(
            {"type": "Polygon"},
            {"type": "Polygon", "coordinates": [[["a", "b"]]]},
            {"type": "Point", "coordinates": []},
        ),
        {"scenes": [{"bbox": [8, 47, 9, 48]}, {"bbox": [9, 47, 10, 48]}]},
        {"type": {"type": []}, "coordinates": []},
    ],
)
def test_what_is_no_footprint_is_none(value: Any) -> None:
    assert footprint([value]) is None


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(words("bbox type coordinates geometry features geometries z x y quadkey")),
            inner | st.sampled_from(["Polygon", "Feature", "FeatureCollection", "GeometryCollection", "MultiPoint"]),
        )
    ),
)


@given(json)
def test_whatever_a_value_is_it_has_a_footprint_or_none_or_says_why(value: Any) -> None:
    try:
        shape = footprint([value])
    except Unread:
        return
    if shape is not None:
        found = Located((Footprint(shape, "completed", "a"),), 1, 1, 0, {})
        assert "nan" not in maps.map_picture(found, "any").html


def test_an_h3_cell_is_drawn_by_its_corners_and_is_said_to_lack_h3_without() -> None:
    corners = [(0.0, 179.0), (1.0, -179.0), (-1.0, -179.0)]
    assert bounds(footprint([{"cell": "8928308280fffff"}], lambda cell: corners)) == [179, -1, 181, 1]
    assert footprint([{"cell": "8928308280fffff"}], lambda cell: None) is None
    with pytest.raises(Unread, match="h3"):
        footprint([{"cell": "8928308280fffff"}], None)


def test_an_h3_cell_is_where_h3_has_it() -> None:
    h3 = pytest.importorskip("h3", reason=NO_H3)
    south, west = map(min, zip(*h3.cell_to_boundary("8928308280fffff"), strict=True))
    assert bounds(footprint([{"cell": "8928308280fffff"}], h3.cell_to_boundary))[:2] == pytest.approx([west, south])


def test_a_ring_around_a_pole_is_led_along_it() -> None:
    ring = [[longitude, -70] for longitude in (-180, -60, 60, 180, -180)]
    across = [[longitude, -70] for longitude in (-120, 0, 120, -120)]
    assert bounds(footprint([{"type": "Polygon", "coordinates": [ring]}]))[1] == -70
    assert bounds(footprint([{"type": "Polygon", "coordinates": [across]}])) == [-120, -90, 240, -70]


@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(0, 200), st.floats(-80, 80)), min_size=1, max_size=8))
def test_the_window_has_all_shapes_in_one_piece(found: list[tuple[float, float, float]]) -> None:
    shapes = [(Part(((west, low), (west + wide, low + 1)), closed=True),) for west, wide, low in found]
    west, south, east, north = window(shapes)
    assert -180 <= west <= 180
    assert east - west <= 360 + 1e-9
    for shape in shapes:
        low, high = shape[0].points[0][0], shape[0].points[1][0]
        within = any(west - 1e-6 <= low + turn and high + turn <= east + 1e-6 for turn in (-360, 0, 360))
        assert within or east - west >= 360 - 1e-6
        assert south <= shape[0].points[0][1] <= north


def test_two_neighbours_across_the_antimeridian_are_seen_beside_each_other() -> None:
    shapes = [footprint([{"bbox": box}]) or () for box in ([178, -20, 179, -19], [-179, -20, -178, -19])]
    assert window(shapes) == (178, -20, 182, -19)
    frame = maps.frame_of(window(shapes))
    assert frame.east - frame.west < 10


@given(st.integers(0, 20).flatmap(lambda z: st.tuples(st.just(z), *[st.integers(0, 2**z - 1)] * 2)))
def test_a_quadkey_is_the_tile_that_it_names(tile: tuple[int, int, int]) -> None:
    z, x, y = tile
    key = "".join(str((x >> bit & 1) + 2 * (y >> bit & 1)) for bit in reversed(range(z)))
    if key:
        west, south, east, north = bounds(footprint([{"quadkey": key}]))
        assert (west, south, east, north) == pytest.approx(tile_bounds(z, x, y))


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AStore]:
    made = STORES[request.param](tmp_path)
    assert isinstance(made, AStore)
    yield made
    made.close()


def test_a_map_has_each_task_s_footprint_by_its_state_wherever_it_tells_it(store: AStore) -> None:
    job = Engine(store, ONE)
    given = [{"bbox": [n, 40, n + 1, 41]} for n in range(3)]
    others = [
        {"bbox": [0, 40, 1, 41]},
        {"id": "x"},
        {"bbox": [5e5, 0, 6e5, 9]},
        {"item": 1, "params": {"z": 0, "x": 0, "y": 0}},
    ]
    first = job.plan(1, [*given, *others]).first_key
    job.run(first)
    job.start(first + 1, first + 4)
    job.end("fail", first + 1, failure=WRONG)
    job.end("complete", first + 4, at=NOW + 9, result='{"success":true,"result":{"quadkey":"0"}}')

    found = located(store, ONE)

    said = {each.said: each.state for each in found.footprints}
    assert said == {
        "s1-3 queued and 1 task more": "queued",  # the first of the same shape has completed
        "s1-1 failed: ValueError": "failed",
        "s1-2 queued": "queued",
        "s1-4 completed": "completed",
    }
    assert (found.tasks, found.looked_at, found.without, sum(found.unread.values())) == (7, 7, 1, 1)
    html = maps.map_picture(found, "tiles").html
    assert "1 task not drawn: not in degrees" in text_of(html)
    shapes = [attributes for tag, attributes in checked(html).elements if tag == "g"]
    assert all(shape["tabindex"] == "0" and shape["aria-label"] for shape in shapes)
    assert len(shapes) == 4


def test_of_many_tasks_those_that_failed_are_there_and_the_picture_says_that_it_is_not_all(store: AStore) -> None:
    job = Engine(store, ONE)
    stage = job.plan(1, [{"bbox": [n % 90, n // 90, n % 90 + 1, n // 90 + 1]} for n in range(3_000)])
    job.start(stage.first_key + 1_234)
    job.end("fail", stage.first_key + 1_234, failure=WRONG)

    found = located(store, ONE)
    html = maps.map_picture(found, "tiles").html

    assert [each.said for each in found.footprints if each.state == "failed"] == ["s1-1234 failed: ValueError"]
    assert MOST * 0.9 < found.looked_at <= MOST
    assert "Of 3,000 tasks" in text_of(html)
    assert len(html.encode()) < 200_000


def test_shapes_of_many_points_stay_small() -> None:
    ring = tuple((n / 100, (n * 7919 % 1000) / 20) for n in range(1_000))
    footprints = tuple(Footprint((Part(ring, closed=True),), "completed", f"task-{n}") for n in range(MOST))
    assert len(maps.map_picture(Located(footprints, 9, 9, 0, {}), "many").html.encode()) < 200_000


def test_a_job_without_footprints_says_what_was_looked_for() -> None:
    with gf.open(":memory:", workers=0, display="none") as session:
        picture = session.run("hello_world", n=2).map()
        assert "No footprint was found" in str(picture)
        assert "No footprint was found" in text_of(picture._repr_html_())


@pytest.mark.parametrize("text", HOSTILE)
def test_S45_ids_are_text_on_a_map(text: str) -> None:
    shape = footprint([{"bbox": [8, 47, 9, 48]}]) or ()
    checked(maps.map_picture(Located((Footprint(shape, "failed", text),), 1, 1, 0, {text: 1}), text).html)


def test_the_coast_is_that_of_the_earth() -> None:
    points = [point for line in maps.coastline() for point in line]
    assert all(-180 <= longitude <= 180 and -90 <= latitude <= 84 for longitude, latitude in points)
    near = [point for point in points if abs(point[0] - 18.4) < 1 and abs(point[1] + 34) < 1]
    assert near  # the Cape of Good Hope
