"""Pieces of HTML that drawings are put together from. Pure; what is not marked as `Html` is escaped on its way in."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Any

from markupsafe import Markup

from geoflow.support.text import plain, shorten
from geoflow.views.wording import SYMBOLS, WHOLE


class Html(Markup):
    """What may stand in a page as it is. ``format`` and ``join`` escape all else, and take control characters from it.

    It is made of literals alone: ``Html("<b>{}</b>").format(name)``, never of an f-string.
    """

    __slots__ = ()

    @classmethod
    def escape(cls, given: Any, /) -> Html:
        return super().escape(given if isinstance(given, Html) else plain(str(given)))


STYLE = Html(f"<style>{resources.files('geoflow.render').joinpath('style.css').read_text('utf-8')}</style>")


def element(label: str, parts: Iterable[str], style: str = STYLE) -> Html:
    """An element of its own that says to a screen reader what it is; *style* is "" where the page has it already."""
    body = Html("\n").join(filter(None, parts))
    around = Html('<div class="geoflow" role="region" aria-label="{}">{}{}</div>')
    return around.format(label, style, body) if body else body


def head(name: str, said: str = "", *, badge: str = "", level: int = 3) -> Html:
    """The line that begins a drawing: a *badge*, a heading, and what is *said* beside it."""
    heading = Html('<span class="gf-name" role="heading" aria-level="{}">{}</span>').format(level, shorten(name, 120))
    return Html('<div class="gf-head">{}{}{}</div>').format(badge, heading, said)


def title(words: str, level: int) -> Html:
    return Html('<div class="gf-title" role="heading" aria-level="{}">{}</div>').format(level, words)


def faint(words: str) -> Html:
    return Html('<span class="gf-faint">{}</span>').format(words)


def line(said: str | None, kind: str = "") -> Html:
    return Html('<div class="gf-line {}">{}</div>').format(kind, said) if said else Html()


def block(name: str, said: str | None) -> Html:
    """Text that may be long. It scrolls, and must be within reach of the keyboard for that."""
    if not said:
        return Html()
    scrolling = Html('<pre tabindex="0" role="group" aria-label="{}">{}</pre>').format(name, said)
    if name == WHOLE:
        return Html('<details class="gf-more"><summary>{}</summary>{}</details>').format(name, scrolling)
    return Html('<div class="gf-faint">{}</div>{}').format(name, scrolling)


def badge(name: str, words: str, symbol: str = "", kind: str = "") -> Html:
    """*words* in the colours of the state *name*."""
    sign = Html('<b aria-hidden="true">{}</b> ').format(symbol) if symbol else ""
    return Html('<span class="gf-is gf-{} {}">{}{}</span>').format(name, kind, sign, words)


def state(name: str, number: int | None = None, kind: str = "") -> Html:
    words = name if number is None else f"{number:,} {name}"
    return Html("{} ").format(badge(name, words, SYMBOLS[name], kind))


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Html:
    """*rows* of cells under *heads*, in what scrolls sideways."""
    head = Html().join(Html('<th scope="col">{}</th>').format(name) for name in heads)
    cells = (Html().join(Html("<td>{}</td>").format(cell) for cell in row) for row in rows)
    body = Html().join(Html("<tr>{}</tr>").format(row) for row in cells)
    whole = '<div class="gf-wide"><table class="gf-table"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    return Html(whole).format(head, body)
