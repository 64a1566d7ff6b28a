"""Drawings of jobs, as a browser would read them, and the texts that must come out of them as text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from geoflow.core.models import Progress
from geoflow.views.model import ErrorGroup, JobView, RunningTask
from geoflow.views.stages import StageView

JOB = "3fa9" * 16


class Read(HTMLParser):
    """What a browser would make of it: elements with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.style = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text.append(data)


def text_of(html: str) -> str:
    return " ".join(" ".join(Read(html).text).split())


ELEMENTS = {
    *("div", "span", "b", "code", "pre", "style", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td", "svg", "path", "rect", "text", "title", "g"),
}
ATTRIBUTES = {
    *("class", "title", "tabindex", "scope", "open", "role", "aria-label", "aria-level", "aria-hidden"),
    *("width", "height", "viewbox", "preserveaspectratio", "d", "x", "y", "rx", "text-anchor"),
    *("stroke-width", "stroke-dasharray"),
}


def checked(html: str) -> Read:
    """*html*, which has only what is known to run nothing, fetch nothing and collide with nothing."""
    read = Read(html)
    assert {tag for tag, _ in read.elements} <= ELEMENTS
    assert {name for _, attributes in read.elements for name in attributes} <= ATTRIBUTES
    return read


def a_stage(text: str = "read", **changes: Any) -> StageView:
    counts = {"completed": 99_987, "queued": 1, "cancelled": 1, "processing": 1, "failed": 10}
    return StageView(2, text, text, text, True, 100_000, counts, 9.0)._replace(**changes)


def a_view(text: str, **changes: Any) -> JobView:
    details = tuple((title, text) for title in ("Tasks", "Message", "Attempts", "Traceback", "What it printed"))
    groups = tuple(ErrorGroup(n, text, text, text, text, text, details, text, text, f"{n}", f"t-{n}") for n in (7, 3))
    view = JobView(
        *(JOB, text, "failed", False, 100.0, 101.0, 160.0, 59.0, text, (a_stage(text),), ((text, text),)),
        error=text,
        traceback=text,
        errors=groups,
        result_preview=text,
        hint=text,
        running=(RunningTask(text, 2, 720.0, 5 << 20, 4.0, Progress(3, 10, text), text),),
    )
    return view._replace(**changes)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</pre></div><h1>gone</h1>",
    "<!-- gone",
    "&lt;b&gt;",
    "</title><text onclick=alert(1)>",
]
