"""Two runs in one picture: how long each stage took in each, and what became of the tasks."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from geoflow.render.side_by_side import OUTCOMES, STAGES, ComparedStage, side_by_side

NAMES = st.text(max_size=20)
SECONDS = st.none() | st.floats(0, 1e9)
COUNTS = st.dictionaries(st.sampled_from(sorted(OUTCOMES)), st.integers(1, 10**9), min_size=1)
COMPARED = st.lists(st.builds(ComparedStage, NAMES, st.tuples(SECONDS, SECONDS), COUNTS), min_size=1, max_size=15)


def drawing(html: str) -> ElementTree.Element:
    found = re.search(r"<svg.*?</svg>", html, re.DOTALL)
    assert found is not None
    return ElementTree.fromstring(found.group(0))


@given(COMPARED)
def test_S64_every_number_of_a_comparison_is_drawn_within_the_picture_and_said_in_words(
    stages: list[ComparedStage],
) -> None:
    picture = side_by_side(stages, "A is <one>, B is two")
    svg = drawing(picture.html)
    wide, high = map(float, svg.attrib["viewBox"].split()[2:])
    for bar in svg.findall("path"):
        x, y, long, down = map(float, re.findall(r"-?[\d.]+(?:e-?\d+)?", bar.attrib["d"])[:4])
        assert 0 <= x <= x + long <= wide
        assert 0 <= y <= y + down <= high
    ran = [seconds for stage in stages for seconds in stage.seconds if seconds is not None]
    if len(stages) <= STAGES:
        assert len(svg.findall("path")) == len(ran) + sum(len(stage.outcomes) for stage in stages)
    totals = {kind: sum(stage.outcomes.get(kind, 0) for stage in stages) for kind in OUTCOMES}
    for kind, number in totals.items():
        for told in (picture.html, " ".join(str(picture).splitlines())):
            assert not number or f"{number:,} {OUTCOMES[kind][0]}" in told
    assert "A is &lt;one&gt;, B is two" in picture.html


def test_S64_a_stage_that_ran_in_one_of_the_runs_alone_has_one_bar_and_says_so() -> None:
    picture = side_by_side([ComparedStage("tiles", (12.0, None), {"only_a": 3, "same": 1})], "A is one, B is two")
    assert [line.strip() for line in str(picture).splitlines()[2:]] == [
        f"tiles            {'█' * 40} A 12.0 s",
        "B did not run",
        "3 of 4 differ",
    ]
    assert [text.text for text in drawing(picture.html).findall("text")] == [
        *("tiles", "A 12.0 s", "B did not run", "3 of 4 differ")
    ]


def test_S64_of_many_stages_those_that_took_longest_are_drawn_and_the_others_are_counted() -> None:
    stages = [ComparedStage(f"s{number}", (float(number), 1.0), {"same": 1}) for number in range(STAGES + 2)]
    picture = side_by_side(stages, "A is one, B is two")
    assert "2 stages more, which took less." in picture.html
    assert "s0" not in str(picture)
    assert f"s{STAGES + 1}" in str(picture)
    assert not side_by_side([], "A is one, B is two")
