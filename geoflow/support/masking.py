"""What looks secret, masked for the eye, in texts and in values; the store keeps what the user gave. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from geoflow.support.text import plain

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
        text = _PAIR.sub(
            lambda two: f"{two['before']}{two[4]}{MASKED}{two[4]}" if looks_secret(two["name"], names) else two[0], text
        )
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
