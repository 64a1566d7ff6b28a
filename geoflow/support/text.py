"""Text made readable: control characters gone, lengths, tables, numbers. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from unicodedata import combining, east_asian_width

# Colours and cursor moves, and titles and links, which end with a bell or a backslash.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# What is left of C0 and C1, the marks and overrides of text direction, and what takes no space at all. The joiners
# U+200C and U+200D stay: several scripts, and emoji, are misspelt without them.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def plain(text: str) -> str:
    r"""*text* for a terminal or a page: no escape sequences, no control characters but ``\n`` and ``\t``.

    A carriage return becomes a line end, so that a progress bar's steps stay apart and nothing is overwritten.
    Overrides of text direction and characters without width are removed; lone surrogates become ``\udc80``.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _encodable(UNSEEN.sub("", text))


def exact(value: object, limit: int = 16000) -> str:
    """``str(value)`` as a built-in string that can be stored, of any object whatever.

    One whose ``__str__`` raises gives a text that says so. NUL and lone surrogates, which no database and no UTF-8
    file takes, are written as backslash escapes. More than *limit* characters are cut in the middle (see `cut`).
    """
    try:
        text = str.__str__(value if isinstance(value, str) else str(value))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # even SystemExit: to show an object must never end a worker
        text = f"<{type(value).__name__} whose __str__ raised {type(error).__name__}>"
    return cut(_encodable(text).replace("\0", "\\x00"), limit)


def cut(text: str, limit: int) -> str:
    """*text* in at most *limit* characters: its beginning, how many characters were left out, its end."""
    if len(text) <= limit:
        return text
    half = max(limit - 50, 0) // 2  # the note between the halves takes up to 50
    end = len(text) - half
    return f"{text[:half]}\n[... {end - half:,} characters left out ...]\n{text[end:]}"


_LEFT_OUT = re.compile(r"\[\.\.\. [\d,]+ characters left out \.\.\.\]")
_MORE = re.compile(r"… ([\d,]+) more lines?")


def first_lines(text: str, lines: int | None = None, characters: int | None = None, rest: str = "") -> str:
    """The first *lines* of *text*, or those that have about so many *characters*; then how many more there are.

    *rest* follows that number. Where *characters* are too few, lines that take more than a quarter of them are cut. A
    text that is already such a beginning is cut further, and counts on.
    """
    found = text.splitlines()
    before = _MORE.fullmatch(found[-1]) if found else None
    if before:
        found.pop()
    kept = found
    if characters is not None and len(text) > characters:
        short = [line if len(line) <= characters // 4 else f"{line[: characters // 4]}…" for line in found]
        used = accumulate(len(line) + 1 for line in short)
        kept = [line for line, end in zip(short, used, strict=True) if end <= characters]
    kept = kept[:lines]
    left = len(found) - len(kept) + (int(before[1].replace(",", "")) if before else 0)
    return "\n".join([*kept, f"… {count(left, 'more line')}{rest}"] if left else kept)


def overwritten(text: str) -> str:
    """*text* as a terminal has it in the end: of a line that was written over, as bars of progress do, the last."""
    if "\r" not in text:
        return text
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(lines)


def last_lines(text: str, lines: int) -> str:
    """The last *lines* of *text*, and before them how many there were; of one that was `cut`, how many at least."""
    found = text.splitlines()
    left, kept = found[:-lines], found[-lines:]
    least = "more than " * any(map(_LEFT_OUT.fullmatch, left))
    return "\n".join([f"… {least}{count(len(left), 'line')} before", *kept] if left else kept)


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def shorten(text: str, width: int) -> str:
    """*text* on one line, `plain`, in at most *width* characters; ``…`` stands for what was cut off its end."""
    line = " ".join(plain(text).split())
    return line if len(line) <= width else line[: max(width - 1, 0)].rstrip() + "…"


_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def columns(text: str) -> int:
    """How many columns of a terminal *text* takes."""
    return len(text) if text.isascii() else len(text) + sum(_width(char) - 1 for char in _NOT_ASCII.findall(text))


@lru_cache(10_000)
def _width(char: str) -> int:
    return 0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1


def fit(line: str, width: int) -> str:
    """*line* in at most *width* `columns`."""
    if columns(line) <= width:
        return line
    kept = (char for char, used in zip(line, accumulate(map(columns, line)), strict=True) if used < width)
    return "".join(kept).rstrip() + "…"


def fit_middle(line: str, width: int) -> str:
    """*line* in at most *width* `columns`, with its end: what stands for the rest is in the middle."""
    if columns(line) <= width:
        return line
    end = fit(line[::-1], width // 2 + 1)[::-1]
    return fit(line, width - columns(end) + 1)[:-1] + end


def pad(text: str, width: int) -> str:
    """*text* in exactly *width* `columns`."""
    if text.isascii() and len(text) <= width:
        return text.ljust(width)
    return (fitted := fit(text, width)) + " " * (width - columns(fitted))


def aligned(
    rows: Iterable[Sequence[str]],
    width: int,
    gives_way: int | None = None,
    ends_differ: Sequence[int] = (),
    longest: int = 200,
) -> list[str]:
    """*rows* of cells as lines of at most *width* `columns`.

    Where there are more, with a margin of two, the widest column gives way, or that at *gives_way*, which has at least
    8; then the lines are cut. The columns *ends_differ* are cut in the middle.
    """
    cells = [[shorten(cell, longest) for cell in row] for row in rows]
    widths = [max(map(columns, column)) for column in zip(*cells, strict=True)]
    if gives_way is not None and cells:
        widths[gives_way] = max(widths[gives_way], 8)
    while sum(widths) + 2 * len(widths) > width:
        place = widths.index(max(widths)) if gives_way is None else gives_way
        if widths[place] <= 8:
            break
        widths[place] -= 1
    for row in cells:
        for place in ends_differ:
            row[place] = fit_middle(row[place], widths[place])
    return [fit("  ".join(map(pad, row, widths)).rstrip(), width) for row in cells]


def count(number: int, noun: str) -> str:
    """``1 task``, ``2 tasks``, ``10,000 tasks``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def human_bytes(number: float) -> str:
    """*number* of bytes in decimal units: ``999 B``, ``1.5 kB``, ``64.0 MB``."""
    if number < 1000:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:,.1f} TB"


def human_duration(seconds: float) -> str:
    """*seconds* as ``12 ms``, ``1.2 s``, ``3 min 04 s``, ``2 h 03 min`` or ``4 d 01 h``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours:02d} h"
