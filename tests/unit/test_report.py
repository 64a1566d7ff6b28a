"""Reports of tools, and the HTML that they and all drawings are put together from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from markupsafe import Markup

import geoflow
from geoflow.render.markup import Html, element, line
from geoflow.render.report import Entry, Report, Table

HOSTILE = "<i onclick='x()'>\x1b[31m\u202e"
SAFE = "&lt;i onclick=&#39;x()&#39;&gt;"


class _Said(Report):
    title = HOSTILE
    exit_status = 0
    most_lines: ClassVar[int | None] = 2

    def __init__(self, *parts: str | Entry | Table) -> None:
        self._parts = parts

    def parts(self) -> Iterator[str | Entry | Table]:
        yield from self._parts

    def document(self) -> Any:
        return [str(part) for part in self._parts]


class _Claims(str):
    def __html__(self) -> str:
        return HOSTILE


@pytest.mark.parametrize(
    "given", [HOSTILE, Markup(HOSTILE), _Claims(HOSTILE)], ids=["text", "another's markup", "a claim"]
)
def test_S45_what_is_not_our_own_html_is_escaped_wherever_it_is_put_in(given: Any) -> None:
    assert Html("<b>{}</b>").format(given) == f"<b>{SAFE}</b>"
    assert Html("<br>").join([given, Html("<b>")]) == f"{SAFE}<br><b>"
    assert isinstance(line(given), Html)
    assert HOSTILE not in element(given, [given])


def test_S45_no_html_is_put_together_by_an_f_string_which_escapes_nothing() -> None:
    by_hand = [
        f"{path.name}:{node.lineno}"
        for path in Path(geoflow.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.JoinedStr) and re.search(r"</[a-z]+>|<[a-z]+ [a-z-]+=", ast.unparse(node))
    ]
    assert by_hand == []


def test_S45_html_that_was_escaped_once_is_not_escaped_again() -> None:
    once = Html("{}").format("<&>")
    assert Html("{}{}").format(once, line(once)) == '&lt;&amp;&gt;<div class="gf-line ">&lt;&amp;&gt;</div>'


def test_an_entry_stands_beside_its_name_where_that_ends_before_the_margin_and_below_it_otherwise() -> None:
    said = (("", "All is well. " * 3), ("To do: ", "nothing " * 30))
    beside, below = Entry("ok", "ok", "disk", said, margin=12), Entry("error", "error GF1", "tiles", said, "t.py:3")
    shown = list(_Said(beside, below, "In the end, all.").lines(60))[1:]
    assert shown[:2] == [
        "ok  disk    All is well. All is well. All is well.",
        " " * 12 + "To do: " + "nothing " * 4 + "nothing",
    ]
    assert shown[2].endswith("… --json tells all of it.")
    assert shown[3:5] == ["error GF1  tiles  t.py:3", "  All is well. All is well. All is well."]
    assert shown[-2:] == ["", "In the end, all."]
    assert max(map(len, shown)) <= 60


def test_S45_all_parts_of_a_report_are_safe_in_html_and_in_a_terminal() -> None:
    entry = Entry("warning", HOSTILE, HOSTILE, (("", HOSTILE), ("To do: ", HOSTILE)), HOSTILE)
    report = _Said(HOSTILE, entry, [(HOSTILE,), (HOSTILE,)])
    html = report._repr_html_()
    assert type(html) is str, "who puts it into a text of their own finds it unchanged"
    assert html.count(SAFE) == 10  # the title twice
    assert "<i" not in html
    assert not {"\x1b", "\u202e"} & {*html, *repr(report)}
