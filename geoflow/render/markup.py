"""Pieces of HTML that drawings are put together from. Pure; what came from users is escaped here, by `text`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources

from geoflow.support.text import plain, shorten
from geoflow.views.wording import SYMBOLS, WHOLE

STYLE = f"<style>{resources.files('geoflow.render').joinpath('style.css').read_text('utf-8')}</style>"


def text(given: str, width: int | None = None) -> str:
    """What is safe between tags and in attributes; on one line of at most *width* characters, when that is given."""
    return escape(plain(given) if width is None else shorten(given, width))


def element(label: str, parts: Iterable[str], style: str = STYLE) -> str:
    """An element of its own that says to a screen reader what it is; *style* is "" where the page has it already."""
    body = "\n".join(filter(None, parts))
    return f'<div class="geoflow" role="region" aria-label="{text(label)}">{style}{body}</div>' if body else ""


def head(name: str, said: str = "", *, badge: str = "", level: int = 3) -> str:
    """The line that begins a drawing: *badge* and *said*, which are HTML, and between them a heading."""
    heading = f'<span class="gf-name" role="heading" aria-level="{level}">{text(name, 120)}</span>'
    return f'<div class="gf-head">{badge}{heading}{said}</div>'


def title(words: str, level: int) -> str:
    return f'<div class="gf-title" role="heading" aria-level="{level}">{text(words)}</div>'


def faint(words: str) -> str:
    return f'<span class="gf-faint">{text(words)}</span>'


def line(html: str | None, kind: str = "") -> str:
    return f'<div class="gf-line {kind}">{html}</div>' if html else ""


def block(name: str, given: str | None) -> str:
    """Text that may be long. It scrolls, and must be within reach of the keyboard for that."""
    if not given:
        return ""
    scrolling = f'<pre tabindex="0" role="group" aria-label="{name}">{text(given)}</pre>'
    if name == WHOLE:
        return f'<details class="gf-more"><summary>{name}</summary>{scrolling}</details>'
    return f'<div class="gf-faint">{name}</div>{scrolling}'


def state(name: str, number: int | None = None, badge: str = "") -> str:
    words = name if number is None else f"{number:,} {name}"
    return f'<span class="gf-is gf-{name} {badge}"><b aria-hidden="true">{SYMBOLS[name]}</b> {words}</span> '


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """*rows* of HTML cells under *heads*."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="gf-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
