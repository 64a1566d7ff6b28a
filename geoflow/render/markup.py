"""Pieces of HTML that drawings are put together from. Pure; what is not marked as `Html` is escaped on its way in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup, escape

from geoflow.support.text import plain, shorten
from geoflow.views.model import HIT, SYMBOLS, WHOLE


class Html(Markup):
    """What may stand in a page as it is. ``format`` and ``join`` escape all else, and take control characters from it.

    It is made of literals, never of an f-string: ``Html("<b>{}</b>").format(name)``.
    """

    __slots__ = ()

    # Markup's own ways lead through `string.Formatter` and three more calls for each piece, which took five times as
    # long, and a live view draws all the time.

    def __new__(cls, html: str = "") -> Html:
        return str.__new__(cls, html)

    @classmethod
    def escape(cls, text: Any, /) -> Html:
        return cls(_safe(text))

    def format(self, *parts: Any, **named: Any) -> Html:
        return Html(str.format(self, *map(_safe, parts), **{name: _safe(part) for name, part in named.items()}))

    def join(self, parts: Iterable[Any], /) -> Html:
        return Html(str.join(self, map(_safe, parts)))


def _safe(text: Any) -> str:
    return text if type(text) is Html else escape(plain(str(text)))


_CSS = Html(resources.files("geoflow.render").joinpath("style.css").read_text("utf-8"))
STYLE = Html("<style>{}</style>").format(_CSS)


# Those that are used the most are made once.
_FAINT = Html('<span class="gf-faint">{}</span>')
_LINE = Html('<div class="gf-line {}">{}</div>')
_STATE = Html('<span class="gf-is gf-{} {}"><b aria-hidden="true">{}</b> {}</span> ')
CELLS = 250  # parts of a bar
_BAR = Html(
    '<div class="gf-far"><svg viewBox="0 0 250 20" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    "<span>{}</span></div>"
)
_SOURCE = Html('<pre tabindex="0" role="group" aria-label="Where it was raised">{}</pre>')
_SHARE = Html('<g class="gf-{}"><path d="{}"/><path d="{}"/></g>')
_HEAD, _ROW, _CELL = Html('<th scope="col">{}</th>'), Html("<tr>{}</tr>"), Html("<td>{}</td>")
_LONG = Html('<td class="gf-long">{}</td>')
_TABLE = Html('<div class="gf-wide"><table class="gf-table"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>')


def element(label: str, parts: Iterable[str], style: str = STYLE) -> Html:
    """An element of its own that says to a screen reader what it is; *style* is "" where the page has it already."""
    body = Html("\n").join(filter(None, parts))
    around = Html('<div class="geoflow" role="region" aria-label="{}">{}{}</div>')
    return around.format(label, style, body) if body else body


def piece(part: str) -> Html:
    """A part of an element that stands by itself on the page, but is no region of its own."""
    return Html('<div class="geoflow gf-piece">{}</div>').format(part) if part else Html()


def head(name: str, said: str = "", *, badge: str = "", level: int = 3, is_news: bool = False) -> Html:
    """The line that begins a drawing: a *badge*, a heading, what is *said* beside it; read aloud where it *is_news*."""
    heading = Html('<span class="gf-name" role="heading" aria-level="{}">{}</span>').format(level, shorten(name, 120))
    role = Html(' role="status"') if is_news else ""
    return Html('<div class="gf-head"{}>{}{}{}</div>').format(role, badge, heading, said)


def title(words: str, level: int) -> Html:
    return Html('<div class="gf-title" role="heading" aria-level="{}">{}</div>').format(level, words)


def faint(words: str) -> Html:
    return _FAINT.format(words)


def line(said: str | None, kind: str = "") -> Html:
    return _LINE.format(kind, said) if said else Html()


def block(name: str, said: str | None, *, folded: bool = False) -> Html:
    """Text that may be long. It scrolls, and must be within reach of the keyboard for that."""
    if not said:
        return Html()
    scrolling = Html('<pre tabindex="0" role="group" aria-label="{}">{}</pre>').format(name, said)
    if folded or name == WHOLE:
        return Html('<details class="gf-more"><summary>{}</summary>{}</details>').format(name, scrolling)
    return Html('<div class="gf-faint">{}</div>{}').format(name, scrolling)


def state(name: str, number: int | None = None, kind: str = "") -> Html:
    words = name if number is None else f"{number:,} {name}"
    return _STATE.format(name, kind, SYMBOLS[name], words)


def bar(name: str, shares: Iterable[tuple[str, int]], said: Iterable[str]) -> Html:
    """What is *said* on a bar whose parts, by their states, have so many of `CELLS`; *name* is for a screen reader."""
    place, drawn = 0, []
    for named, cells in shares:
        drawn.append(_SHARE.format(named, f"M{place} 10h{cells}", f"M{place} 19h{cells}"))
        place += cells
    return _BAR.format(name, Html().join(drawn), " · ".join(said))


def source(lines: str | None) -> Html:
    """Lines of code, the one that is meant in bold."""
    if not lines:
        return Html()
    hit = Html('<b class="gf-hit">{}</b>').format
    drawn = Html("\n").join(hit(each) if each.startswith(HIT) else each for each in lines.splitlines())
    return Html('<pre class="gf-code" tabindex="0" role="group" aria-label="Where it was raised">{}</pre>').format(
        drawn
    )


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Html:
    """*rows* of cells under *heads*, in what scrolls sideways."""
    head = Html().join(map(_HEAD.format, heads))
    body = Html().join(_ROW.format(Html().join(map(_CELL.format, row))) for row in rows)
    return _TABLE.format(head, body)


def told(heads: Iterable[str], rows: Iterable[Sequence[str]], long: int) -> Html:
    """The same for a page that is read and printed: the last so many columns are *long*, and wrap."""
    cells = (
        Html().join((_CELL if place < len(row) - long else _LONG).format(each) for place, each in enumerate(row))
        for row in rows
    )
    head, body = Html().join(map(_HEAD.format, heads)), Html().join(map(_ROW.format, cells))
    return Html('<div class="gf-told">{}</div>').format(_TABLE.format(head, body))
