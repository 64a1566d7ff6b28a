"""The line of a magic as words: split as a person means it, with quotes, brackets and comments. Pure."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from geoflow.commands.values import UsageError

_NAME = re.compile(r"[^\s\"'=()\[\]{}#-][^\s\"'=()\[\]{}]*=")
_QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""")
_MARK = re.compile(rf"{_QUOTED.pattern}|[()\[\]{{}}]")


class Word(NamedTuple):
    """One word, where it begins in the line, and where it ends."""

    text: str
    start: int
    end: int


def words(line: str) -> Iterator[Word]:
    """The words of *line*, each looked for when it is asked for.

    Quotes are taken away, except that a quoted value (``name="3"``) becomes a JSON text, and so stays a text. A value
    in brackets reaches to the closing one, as it stands. A word that begins with ``#`` is a comment, to the end.
    """
    end = 0
    while (rest := line[end:].lstrip()) and rest[0] != "#":
        start = len(line) - len(rest)
        text, end = _word(line, start)
        yield Word(text, start, end)


def _word(line: str, start: int) -> tuple[str, int]:
    name = _NAME.match(line, start)
    place = name.end() if name else start
    text = line[start:place]
    if line[place : place + 1] in ("(", "[", "{") and name:
        end = _closing(line, place)
        return line[start:end], end
    if line[place : place + 1] in ('"', "'"):
        quoted = _QUOTED.match(line, place)
        if quoted is None:
            raise UsageError(f"The quote {line[place]} is never closed: {line[start:]}")
        if name and line[quoted.end() : quoted.end() + 1].strip() == "":
            return text + json.dumps(_unquoted(quoted[0])), quoted.end()
    while place < len(line) and not line[place].isspace():
        quoted = _QUOTED.match(line, place)
        text += _unquoted(quoted[0]) if quoted else line[place]
        place = quoted.end() if quoted else place + 1
    return text, place


def _closing(line: str, start: int) -> int:
    """The place after the bracket that closes the one at *start*."""
    depth = 0
    for mark in _MARK.finditer(line, start):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(mark[0], 0)
        if depth == 0:
            return mark.end()
    raise UsageError(f"The bracket {line[start]} is never closed: {line[start:]}")


def _unquoted(quoted: str) -> str:
    """The text in quotes. Backslashes mean what they do in Python, or themselves where that is nothing."""
    with contextlib.suppress(ValueError, SyntaxError), warnings.catch_warnings():
        warnings.simplefilter("error")
        return str(ast.literal_eval(quoted))
    return quoted[1:-1]
