"""Pieces of HTML that drawings are put together from. Pure; what came from users is escaped here, by `text`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources

from geoflow.notebook.words import SYMBOLS, WHOLE
from geoflow.text import plain, shorten

STYLE = f"<style>{resources.files('geoflow.notebook').joinpath('style.css').read_text('utf-8')}</style>"


def text(given: str, width: int | None = None) -> str:
    """What is safe between tags and in attributes; on one line of at most *width* characters, when that is given."""
    return escape(plain(given) if width is None else shorten(given, width))


def element(label: str, parts: Iterable[str], style: str = STYLE) -> str:
    """An element of its own that says to a screen reader what it is; *style* is "" where the page has it already."""
    body = "\n".join(filter(None, parts))
    return f'<div class="geoflow" role="region" aria-label="{text(label)}">{style}{body}</div>' if body else ""


def line(html: str | None, kind: str = "") -> str:
    return f'<div class="gf-line {kind}">{html}</div>' if html else ""


def block(title: str, given: str | None) -> str:
    """Text that may be long. It scrolls, and must be within reach of the keyboard for that."""
    return f'<div class="gf-faint">{title}</div>{_scrolling(title, given)}' if given else ""


def folded(title: str, given: str | None) -> str:
    """The same, out of sight until it is asked for."""
    return f'<details class="gf-more"><summary>{title}</summary>{_scrolling(title, given)}</details>' if given else ""


def _scrolling(title: str, given: str) -> str:
    return f'<pre tabindex="0" role="group" aria-label="{title}">{text(given)}</pre>'


def details(given: Iterable[tuple[str, str]]) -> Iterable[str]:
    """Titles and texts, as failures and tasks have them."""
    return (folded(title, said) if title == WHOLE else block(title, said) for title, said in given)


def state(name: str, number: int | None = None, badge: str = "") -> str:
    words = name if number is None else f"{number:,} {name}"
    return f'<span class="gf-is gf-{name} {badge}"><b aria-hidden="true">{SYMBOLS[name]}</b> {words}</span> '


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """*rows* of HTML cells under *heads*."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="gf-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
