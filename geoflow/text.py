"""Text from users made safe to show: secrets masked, control characters gone, lengths and numbers readable.

Everything here is a pure function of its arguments, and none raises because of what a text or an object holds. What
is masked is masked for the eye; the store keeps what the user gave.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

DEFAULT_SECRETS: tuple[str, ...] = ("password", "token", "secret", "sas", "key", "connection_string")
MASKED = "***"

# Where one word of a name ends and the next begins: api_key, accessKey, SASToken, oauth2Token, x-amz-signature.
_WORD_ENDS = re.compile(
    r"[\W_]+|(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
)
# A secret of fewer than five letters that is written together with another word counts only after one of these:
# "apikey" and "accountkey" are secrets, "monkey", "turkey" and "kansas" are not.
_GLUED = frozenset({
    "access", "account", "admin", "api", "app", "auth", "client", "crypto", "db", "encryption", "host", "master",
    "private", "secret", "service", "shared", "signing", "ssh", "storage", "user",
})  # fmt: skip
_LONGEST_NAME = 200
_DEEPEST = 100


def looks_secret(name: str, secrets: Iterable[str] = DEFAULT_SECRETS) -> bool:
    """Whether a key or variable of this name holds a secret.

    The name is split into words at ``_``, ``-``, other punctuation, digits and capitals; numbers at its end are
    left out. It looks like a secret when its last word, or last words together, are one of *secrets*, in any case
    and in the singular or plural: ``key``, ``api_key``, ``accessKey``, ``AZURE_STORAGE_KEY``, ``primaryKeys``,
    ``key2``, ``ConnectionString``; but not ``keyword``, ``monkey``, ``key_count``, ``token_path``. A secret of five
    letters or more also counts at the end of a longer word (``dbpassword``), a shorter one only after a word that
    makes its meaning sure (``apikey``).
    """
    return _looks_secret(name[-_LONGEST_NAME:], _names(secrets))


def _names(secrets: Iterable[str]) -> tuple[str, ...]:
    return (secrets,) if isinstance(secrets, str) else tuple(secrets)


@lru_cache(maxsize=4096)
def _looks_secret(name: str, secrets: tuple[str, ...]) -> bool:
    words = [word.casefold() for word in _WORD_ENDS.split(name) if word]
    while words and words[-1].isdecimal():
        words.pop()
    return bool(words) and any(_end_with(words, "".join(_WORD_ENDS.split(secret)).casefold()) for secret in secrets)


def _end_with(words: list[str], secret: str) -> bool:
    if not secret:
        return False
    spoken = (secret, secret + "s")
    if any("".join(words[-n:]) in spoken for n in range(1, len(words) + 1)):
        return True
    for ending in spoken:
        before = words[-1].removesuffix(ending)
        if before != words[-1]:
            return len(secret) >= 5 or before in _GLUED
    return False


def mask(value: Any, secrets: Iterable[str] = DEFAULT_SECRETS) -> Any:
    """A copy of *value* in which what secret-looking keys hold (see `looks_secret`) is ``"***"``, at any depth.

    Mappings become dicts; lists and tuples keep their kind. Strings anywhere else pass through `mask_text`. ``None``,
    ``True`` and ``False`` under a secret's name stay: there is nothing in them to hide, and that a password was not
    given is worth seeing. What contains itself, or is nested deeper than 100, is shown as ``"..."`` there.
    """
    return _mask(value, _names(secrets), ())


def _mask(value: Any, secrets: tuple[str, ...], within: tuple[int, ...]) -> Any:
    if isinstance(value, str):
        return mask_text(value, secrets)
    if not isinstance(value, Mapping | list | tuple):
        return value
    if id(value) in within or len(within) >= _DEEPEST:
        return "..."
    within = (*within, id(value))
    if isinstance(value, Mapping):
        return {
            name: MASKED if _hidden(name, item, secrets) else _mask(item, secrets, within)
            for name, item in value.items()
        }
    items = [_mask(item, secrets, within) for item in value]
    return items if isinstance(value, list) else tuple(items)


def _hidden(name: object, item: object, secrets: tuple[str, ...]) -> bool:
    if item is None or isinstance(item, bool):
        return False
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return isinstance(name, str) and looks_secret(name, secrets)


# Only in running text: what URLs, HTTP headers and connection strings call their secrets.
_ONLY_IN_TEXT = ("sig", "signature", "authorization", "pwd", "passwd")
# Before a colon and without quotes these are ordinary words: "missing key: 'bands'", "signature: f(params)".
_ORDINARY_WORDS = frozenset(("key", "keys", "tokens", "secrets", "passwords", "sig", "signature"))
_NOTHING_TO_HIDE = frozenset(("none", "null", "true", "false"))

# `://user:password@`, and `://token@`. The scheme before it is not matched: a run of letters would be tried from
# each of its letters. For the same reason the repeats in all of these patterns are possessive.
_LOGIN = re.compile(r"""://(?P<user>[^\s/?\#@:"'<>]*+)(?P<password>:[^\s/?\#"'<>]*)?@""")
_NAME = re.compile(
    r"""(?<![\w.-]) (?P<name>[\w.-]++) (?P<close>\\*["']?) [ \t]*+ (?P<sign>=>|:=|==?|:|%3D) [ \t]*+""",
    re.VERBOSE | re.IGNORECASE,
)
_OPTION = re.compile(r"""(?<![\w-])--(?P<name>[\w-]++)(?:["'],[ ]?["']|[ \t]++)(?!-)(?P<value>[^\s"']++)""")
_VALUE = re.compile(
    r"""
      (?:bearer|basic|digest|negotiate|token|sharedkey|sharedaccesssignature) [ \t]++ [^\s"',;]++
    | (?:[a-z]{0,2} (?: "(?:[^"\\]|\\.)*+" | '(?:[^'\\]|\\.)*+' ))++    # a quoted text, b"..." and "a" "b" too
    | ["'\[({] [^\n]*+                                                  # one that is cut off, a list, a dict
    | (?: "(?:[^"\\\n]|\\.)*+"? | '(?:[^'\\\n]|\\.)*+'? | [^\s&;"'<>] )++
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_CLOSING = ",.:!?)]}"


def mask_text(text: str, secrets: Iterable[str] = DEFAULT_SECRETS) -> str:
    """*text* with the secrets in it shown as ``***``.

    Found are ``password=...``, ``token: ...``, ``'api_key': '...'``, ``AccountKey=...;``, ``?sig=...``,
    ``Authorization: Bearer ...``, ``--password ...`` and the password of ``scheme://user:password@host``. Where it
    is not sure how far a secret reaches, more is masked, not less. The bare word ``key`` before a colon stays an
    ordinary word, or no message about a missing key could be read.
    """
    text = exact_str(text)
    if "=" not in text and ":" not in text and "--" not in text and "%3" not in text:
        return text
    names = _names(secrets)
    text = _LOGIN.sub(_mask_login, text)
    text = _OPTION.sub(lambda found: _mask_option(found, names), text)
    return _mask_pairs(text, (*names, *_ONLY_IN_TEXT))


def _mask_login(found: re.Match[str]) -> str:
    if found["password"] and found["password"] != ":":
        return f"://{found['user']}:{MASKED}@"
    # With http, who logs in without a password does so with a token.
    before = found.string[max(0, found.start() - 5) : found.start()].lower()
    return f"://{MASKED}@" if before.endswith(("http", "https")) else found[0]


def _mask_option(found: re.Match[str], secrets: tuple[str, ...]) -> str:
    if not looks_secret(found["name"], secrets):
        return found[0]
    return found[0][: found.start("value") - found.start()] + MASKED


def _mask_pairs(text: str, secrets: tuple[str, ...]) -> str:
    pieces: list[str] = []
    done = 0
    for found in _NAME.finditer(text):
        if found.start() < done or not _holds_secret(found, secrets):
            continue
        value = _VALUE.match(text, found.end())
        shown = _masked_value(value[0]) if value else None
        if value and shown is not None:
            pieces += (text[done : found.end()], shown)
            done = value.end()
    return "".join((*pieces, text[done:])) if pieces else text


def _holds_secret(found: re.Match[str], secrets: tuple[str, ...]) -> bool:
    if not looks_secret(found["name"], secrets):
        return False
    if found["sign"] != ":":
        return True
    if found.string[max(0, found.start() - 2) : found.start()] == "//":  # the user or the host of a URL
        return False
    return bool(found["close"]) or found["name"].casefold() not in _ORDINARY_WORDS


def _masked_value(value: str) -> str | None:
    """What to show for *value*, with the quotes or the punctuation around it; None to leave it as it is."""
    if value[0] in "\"'" and value[-1] == value[0] and len(value) > 1:
        return value[0] + MASKED + value[0]
    bare = value.rstrip(_CLOSING) if value[0] not in "\"'[({" else value
    if not bare or bare.casefold() in _NOTHING_TO_HIDE:
        return None
    return MASKED + value[len(bare) :]


# CSI, then OSC and the other strings with their terminator, then the two-letter ones; each also in its one-character
# form. A string without its end loses only what introduces it: the rest is text that the user should see.
_ESCAPES = re.compile(
    r"""
      (?:\x1b\[|\x9b) [0-?]*+ [ -/]*+ [@-~]
    | (?:\x1b[]PX^_]|[\x90\x98\x9d\x9e\x9f]) [^\x00-\x1f\x7f-\x9f]*+ (?:\x07|\x1b\\|\x9c)
    | \x1b [ -/]*+ [0-~]
    """,
    re.VERBOSE,
)
# What is left of C0 and C1, the marks and overrides of text direction, and what takes no space at all. The joiners
# U+200C and U+200D stay: several scripts, and emoji, are misspelt without them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]",
)


def plain(text: str) -> str:
    r"""*text* for a terminal or a page: no escape sequences, no control characters but ``\n`` and ``\t``.

    A carriage return becomes a line end, so that a progress bar's steps stay apart and nothing is overwritten.
    Overrides of text direction and characters without width are removed; lone surrogates become ``\udc80``.
    """
    text = exact_str(text)
    if text.isascii() and text.isprintable():
        return text
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _encodable(_UNSEEN.sub("", text))


def exact(value: object, limit: int = 16000) -> str:
    """``str(value)`` as a built-in string that can be stored, of any object whatever.

    One whose ``__str__`` raises gives a text that says so. NUL and lone surrogates, which no database and no UTF-8
    file takes, are written as backslash escapes. More than *limit* characters are cut in the middle (see `cut`).
    """
    return cut(_encodable(exact_str(value)).replace("\0", "\\x00"), limit)


def exact_str(value: object) -> str:
    """``str(value)``, of the very type `str`, whatever the object does; not shortened, nothing escaped."""
    try:
        return str.__str__(value if isinstance(value, str) else str(value))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # even SystemExit: to show an object must never end a worker
        return f"<{type(value).__name__} whose __str__ raised {type(error).__name__}>"


def cut(text: str, limit: int) -> str:
    """*text* in at most *limit* characters: its beginning, how many characters were left out, its end.

    The note itself is never cut, so a *limit* below 60 may be passed.
    """
    if len(text) <= limit:
        return text
    # The note's own length depends on the number in it; a number of that many digits is reserved.
    room = max(0, limit - len(_left_out(len(text))))
    head, tail = room - room // 2, room // 2
    return text[:head] + _left_out(len(text) - head - tail) + text[len(text) - tail :]


def _left_out(number: int) -> str:
    return f"\n[... {number:,} characters left out ...]\n"


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def shorten(text: str, width: int) -> str:
    """*text* on one line, `plain`, in at most *width* characters; ``…`` stands for what was cut off its end."""
    line = " ".join(plain(text).split())
    if len(line) <= width:
        return line
    return line[: max(0, width - 1)].rstrip() + "…" if width > 0 else ""


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1 task``, ``2 tasks``, ``10,000 tasks``. *plural* is for nouns that do not follow the spelling rules."""
    if number == 1:
        return f"1 {noun}"
    if plural is None:
        if noun.endswith("y") and noun[-2:-1] not in "aeiou":
            plural = noun[:-1] + "ies"
        else:
            plural = noun + ("es" if noun.endswith(("s", "x", "sh", "ch")) else "s")
    return f"{number:,} {plural}"


def human_bytes(number: float) -> str:
    """*number* of bytes in decimal units: ``0 B``, ``999 B``, ``1.5 kB``, ``64.0 MB``; ``?`` for NaN."""
    if not math.isfinite(number):
        return "?"
    if abs(number) < 1000:
        return f"{number:.0f} B" if abs(number) < 999.5 else f"{number / 1000:.1f} kB"
    for unit in ("kB", "MB", "GB", "TB"):
        number /= 1000
        if abs(number) < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:,.1f} PB"


def human_duration(seconds: float) -> str:
    """*seconds* as ``12 ms``, ``1.2 s``, ``3 min 04 s``, ``2 h 03 min`` or ``4 d 01 h``; ``?`` for NaN."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 0:
        return "-" + human_duration(-seconds)
    if 0 < seconds < 0.0005:
        return "<1 ms"
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
