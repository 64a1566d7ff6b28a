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

DEFAULT_SECRETS: tuple[str, ...] = (
    *("password", "passwd", "pwd", "passphrase", "db_pass", "token", "secret", "credential", "cookie"),
    *("authorization", "sas", "sig", "signature", "connection_string", "conn_str"),
    # A bare key is data: of an S3 object, a table, a GeoTIFF.
    *(f"{of}_key" for of in ("api", "access", "account", "secret", "private", "shared", "storage", "subscription")),
    *(f"{of}_key" for of in ("auth", "encryption", "function", "host", "master", "service", "signing", "ssh")),
)
MASKED = "***"

# Where one word of a name ends and the next begins: api_key, accessKey, SASToken, x-amz-signature.
_WORD_ENDS = re.compile(r"[\W_]+|(?<=[^\W_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# What a short secret may be written together with: "dbpwd" is one, "kansas" is not.
_GLUED = "access|account|api|auth|client|db|master|private|service|shared|ssh|storage|user"
# Of URLs; elsewhere a signature is data, as that of a spectrum. 26 and 3f stand for & and ? in one that is escaped.
_OF_URLS = ("sig", "signature")
_IN_URLS = r"^(?:26|3f)?(?:x_)?(?:amz_|goog_|ms_|sas_|url_|request_|shared_access_)?"
_LONGEST_NAME = 100


@lru_cache(1000)
def looks_secret(name: str, secrets: tuple[str, ...] = DEFAULT_SECRETS) -> bool:
    """Whether a key or variable of this name holds a secret.

    It does when its last words are one of *secrets*, in any case and spelling, singular or plural, numbered or not:
    ``api_key``, ``accessKey``, ``AZURE_STORAGE_KEY``, ``token2``, ``ConnectionString``; but not ``key``, ``join_key``,
    ``token_count`` or ``password_file``. A secret of five letters or more also counts at the end of a longer word
    (``dbpassword``).
    """
    return bool(_endings(secrets).search(_WORD_ENDS.sub("_", name).strip("_")))


@lru_cache
def _endings(secrets: tuple[str, ...]) -> re.Pattern[str]:
    endings = []
    for secret in secrets:
        words = [re.escape(word) for word in _WORD_ENDS.split(secret)]
        before = rf"(?:^|[_\d]|{_GLUED})" if len(secret) < 5 else ""
        endings.append((_IN_URLS if secret in _OF_URLS else before) + "_?".join(words))
    return re.compile(rf"(?:{'|'.join(endings)})s?[_\d]*$", re.IGNORECASE)


def mask(value: Any, secrets: Sequence[str] = DEFAULT_SECRETS) -> Any:
    """A copy of *value* in which what secret-looking keys hold (see `looks_secret`) is ``"***"``, at any depth.

    Mappings become dicts; lists and tuples keep their kind. Of a pair of texts the first counts as a key. Strings
    anywhere else pass through `mask_text`. ``None``, ``True`` and ``False`` under a secret's name stay: that a password
    was not given is worth seeing.
    """
    if isinstance(value, str):
        return mask_text(value, secrets)
    if isinstance(value, Mapping):
        return {name: MASKED if _hidden(name, item, secrets) else mask(item, secrets) for name, item in value.items()}
    if isinstance(value, list | tuple):
        items = [mask(item, secrets) for item in value]
        if len(items) == 2 and isinstance(value[1], str) and _hidden(value[0], value[1], secrets):
            items[1] = MASKED
        return items if isinstance(value, list) else tuple(items)
    return value


def unless_fallback(result: Any, secrets: Sequence[str]) -> Any:
    """A job's *result* as its author made it; the one that stands for it where finalize failed is a message, masked."""
    return mask(result, secrets) if isinstance(result, dict) and result.get("fallback") is True else result


def _hidden(name: object, item: object, secrets: Sequence[str]) -> bool:
    return isinstance(name, str) and not (item is None or isinstance(item, bool)) and looks_secret(name, tuple(secrets))


# Before a colon and without quotes these are ordinary words: "unknown tokens: a, b", "signature: f(params)".
_ORDINARY_WORDS = frozenset(("tokens", "secrets", "passwords", "credentials", "cookies", "sig", "signature"))
_NOTHING_TO_HIDE = frozenset(("none", "null", "true", "false"))
# What is said of a field, after its name and a colon: its type, or what is wrong with it.
_TYPES = ("any", "anything", "bool", "bytes", "dict", "float", "int", "list", "secretbytes", "secretstr", "str")
_SAID = frozenset((*_TYPES, "assertion", "extra", "field", "input", "string", "there", "unexpected", "value"))

_LOGIN = re.compile(r"""://[^\s/?#"'<>]*@""")
_OPTION = re.compile(r"""(?<![\w.-])--(\w[\w-]*+)[ \t]++(?:"[^"\n]*"|'[^'\n]*'|[^\s"'-][^\s"']*)""")
_NAME = re.compile(
    r"""(?<![\w.-])(?<!//) (?P<name>[\w.-]++) (?P<quote>\\*["']?) [ \t]*+ (?P<sign>[:=]{1,2}>?|%3D) [ \t]*+""",
    re.VERBOSE | re.IGNORECASE,
)
_VALUE = re.compile(
    r"""
      (?:bearer|basic|token) [ \t]++ [^\s"',;]++                          # an Authorization header
    | [a-z]{0,2} (?: "(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+' )            # a quoted text, b"..." too
    | (?P<escaped>\\+["']) (?:(?!(?<!\\)(?P=escaped))[^\n])*+ (?P=escaped)  # one in a quoted text
    | ["'\\] [^\n]*+                                                      # one that is cut off
    | [^\s&;<>]* [^\s&;<>"',.:!?)\]}]                                     # a word, less the punctuation at its end
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_PAIR = re.compile(r"""(?<=[\[(])(?P<before>(["'])(?P<name>[\w.-]{1,100})\2,\s*)(["'])(?:[^"'\\\n]|\\.)*+\4(?=[\])])""")
_COOKIES = re.compile(r"(?:;[ \t]*+[\w.-]++=[^\s;\"']*+)*+")
_IN_BRACKETS = re.compile(r"""[\[({\])}\n]|"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+'""")


def mask_text(text: str, secrets: Sequence[str] = DEFAULT_SECRETS) -> str:
    """*text* with the secrets in it shown as ``***``.

    Found are ``password=...``, ``token: ...``, ``'api_key': '...'``, ``AccountKey=...;``, ``?sig=...``,
    ``Authorization: Bearer ...``, ``--password ...`` and the login of ``scheme://user:password@host``. A value ends
    with its word, its quotes or its brackets; where these are cut off, with the line.
    """
    # The regular expressions are asked where they may find something: most lines of a log have no such text.
    names = tuple(secrets)
    if "://" in text:
        text = _LOGIN.sub(f"://{MASKED}@", text)
    if "[" in text or "(" in text:
        text = _PAIR.sub(lambda pair: _masked_pair(pair, names), text)
    if "--" in text:
        text = _OPTION.sub(lambda one: f"--{one[1]} {MASKED}" if looks_secret(one[1], names) else one[0], text)
    if "=" not in text and ":" not in text and "%3" not in text:
        return text
    shown, done = [], 0
    for found in _NAME.finditer(text):
        name = found["name"][-_LONGEST_NAME:]
        if found.start() < done or not looks_secret(name, names):
            continue
        stands_alone = found["sign"] == ":" and not found["quote"]  # as what a sentence is about may
        if stands_alone and name.lower() in _ORDINARY_WORDS:
            continue
        end = _end_of_value(text, found.end(), is_cookie="cookie" in name.lower())
        value = text[found.end() : end]
        if not value or value.lower() in _NOTHING_TO_HIDE or (stands_alone and value.lower() in _SAID):
            continue
        quote = re.search(r"""\\*["']$""", value)
        shown += [text[done : found.end()], quote[0] if quote else "", MASKED, quote[0] if quote else ""]
        done = end
    return "".join([*shown, text[done:]])


def _masked_pair(pair: re.Match[str], secrets: tuple[str, ...]) -> str:
    if not looks_secret(pair["name"], secrets):
        return pair[0]
    return f"{pair['before']}{pair[4]}{MASKED}{pair[4]}"


def _end_of_value(text: str, start: int, *, is_cookie: bool) -> int:
    if text[start : start + 1] in ("[", "(", "{"):
        depth = 0
        for part in _IN_BRACKETS.finditer(text, start):
            if part[0] == "\n":
                return part.start()
            depth += (part[0] in "[({") - (part[0] in "])}")
            if not depth:
                return part.end()
        return len(text)
    value = _VALUE.match(text, start)
    end = value.end() if value else start
    return _COOKIES.match(text, end).end() if is_cookie and value else end  # type: ignore[union-attr]


def safe(text: str, secrets: Sequence[str] = DEFAULT_SECRETS) -> str:
    """*text* as it may be shown anywhere: `plain`, and then masked, since a control character may part a name."""
    return mask_text(plain(text), secrets)


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
