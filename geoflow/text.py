"""Text from users made safe to show: secrets masked, control characters gone, lengths, tables, numbers readable.

All of these are pure functions. What is masked is masked for the eye; the store keeps what the user gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any
from unicodedata import combining, east_asian_width

DEFAULT_SECRETS: tuple[str, ...] = ("password", "token", "secret", "sas", "key", "connection_string")
MASKED = "***"

# Where one word of a name ends and the next begins: api_key, accessKey, SASToken, x-amz-signature.
_WORD_ENDS = re.compile(r"[\W_]+|(?<=[^\W_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# What a short secret may be written together with: "apikey" is one, "monkey", "turkey" and "kansas" are not.
_GLUED = "access|account|api|auth|client|db|master|private|service|shared|ssh|storage|user"


@lru_cache
def looks_secret(name: str, secrets: tuple[str, ...] = DEFAULT_SECRETS) -> bool:
    """Whether a key or variable of this name holds a secret.

    It does when its last words are one of *secrets*, in any case and spelling, singular or plural, numbered or not:
    ``api_key``, ``accessKey``, ``AZURE_STORAGE_KEY``, ``key2``, ``ConnectionString``; but not ``keyword``,
    ``key_count`` or ``token_path``. A secret of five letters or more also counts at the end of a longer word
    (``dbpassword``).
    """
    return bool(_endings(secrets).search(_WORD_ENDS.sub("_", name)))


@lru_cache
def _endings(secrets: tuple[str, ...]) -> re.Pattern[str]:
    endings = []
    for secret in secrets:
        words = [re.escape(word) for word in _WORD_ENDS.split(secret)]
        before = rf"(?:^|[_\d]|{_GLUED})" if len(secret) < 5 else ""
        endings.append(before + "_?".join(words))
    return re.compile(rf"(?:{'|'.join(endings)})s?[_\d]*$", re.IGNORECASE)


def mask(value: Any, secrets: Sequence[str] = DEFAULT_SECRETS) -> Any:
    """A copy of *value* in which what secret-looking keys hold (see `looks_secret`) is ``"***"``, at any depth.

    Mappings become dicts; lists and tuples keep their kind. Strings anywhere else pass through `mask_text`. ``None``,
    ``True`` and ``False`` under a secret's name stay: that a password was not given is worth seeing.
    """
    if isinstance(value, str):
        return mask_text(value, secrets)
    if isinstance(value, Mapping):
        return {name: MASKED if _hidden(name, item, secrets) else mask(item, secrets) for name, item in value.items()}
    if isinstance(value, list | tuple):
        items = [mask(item, secrets) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


def _hidden(name: object, item: object, secrets: Sequence[str]) -> bool:
    return isinstance(name, str) and not (item is None or isinstance(item, bool)) and looks_secret(name, tuple(secrets))


# Only in running text: what URLs, HTTP headers and connection strings call their secrets.
_ONLY_IN_TEXT = ("sig", "signature", "authorization", "pwd", "passwd")
# Before a colon and without quotes these are ordinary words: "missing key: 'bands'", "signature: f(params)".
_ORDINARY_WORDS = frozenset(("key", "keys", "tokens", "secrets", "passwords", "sig", "signature"))
_NOTHING_TO_HIDE = frozenset(("none", "null", "true", "false"))

_LOGIN = re.compile(r"""://[^\s/?#"'<>]*@""")
_NAME = re.compile(
    r"""(?<![\w.-])(?<!//) (?P<name>[\w.-]++) (?P<quote>\\*["']?) [ \t]*+ (?P<sign>[:=]{1,2}>?|%3D) [ \t]*+""",
    re.VERBOSE | re.IGNORECASE,
)
_VALUE = re.compile(
    r"""
      (?:bearer|basic|token) [ \t]++ [^\s"',;]++                          # an Authorization header
    | [a-z]{0,2} (?: "(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+' )            # a quoted text, b"..." too
    | ["'\\\[({] [^\n]*+                                                  # one that is cut off, a list, a dict
    | [^\s&;<>]* [^\s&;<>"',.:!?)\]}]                                     # a word, less the punctuation at its end
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def mask_text(text: str, secrets: Sequence[str] = DEFAULT_SECRETS) -> str:
    """*text* with the secrets in it shown as ``***``.

    Found are ``password=...``, ``token: ...``, ``'api_key': '...'``, ``AccountKey=...;``, ``?sig=...``,
    ``Authorization: Bearer ...`` and the login of ``scheme://user:password@host``. Where it is not sure how far a
    secret reaches, more is masked, not less. The bare word ``key`` before a colon stays: "missing key: 'bands'".
    """
    text = _LOGIN.sub(f"://{MASKED}@", text)
    names = (*secrets, *_ONLY_IN_TEXT)
    shown, done = "", 0
    for found in _NAME.finditer(text):
        ordinary = found["sign"] == ":" and not found["quote"] and found["name"].lower() in _ORDINARY_WORDS
        if found.start() < done or ordinary or not looks_secret(found["name"], names):
            continue
        value = _VALUE.match(text, found.end())
        if value and value[0].lower() not in _NOTHING_TO_HIDE:
            quote = value[0][-1] if value[0][-1] in "\"'" else ""
            shown += text[done : found.end()] + quote + MASKED + quote
            done = value.end()
    return shown + text[done:]


# Colours and cursor moves, and titles and links, which end with a bell or a backslash.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# What is left of C0 and C1, the marks and overrides of text direction, and what takes no space at all. The joiners
# U+200C and U+200D stay: several scripts, and emoji, are misspelt without them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)


def plain(text: str) -> str:
    r"""*text* for a terminal or a page: no escape sequences, no control characters but ``\n`` and ``\t``.

    A carriage return becomes a line end, so that a progress bar's steps stay apart and nothing is overwritten.
    Overrides of text direction and characters without width are removed; lone surrogates become ``\udc80``.
    """
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _encodable(_UNSEEN.sub("", text))


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


def columns(text: str) -> int:
    """How many columns of a terminal *text* takes."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


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
    return (fitted := fit(text, width)) + " " * (width - columns(fitted))


def aligned(
    rows: Iterable[Sequence[str]], width: int, gives_way: int | None = None, ends_differ: Sequence[int] = ()
) -> list[str]:
    """*rows* of cells as lines of at most *width* `columns`.

    Where there are more, with a margin of two, the widest column gives way, or that at *gives_way*, which has at least
    8; then the lines are cut. The columns *ends_differ* are cut in the middle.
    """
    cells = [[shorten(cell, 200) for cell in row] for row in rows]
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
