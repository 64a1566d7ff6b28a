"""JSON values as code, written so that formatters leave it alone."""

from __future__ import annotations

from typing import Any

WIDTH = 88  # the narrowest of those in use: what is broken for it stays so where lines may be longer


def literal(value: Any, indent: int, before: int) -> str:
    """*value* as formatters write it, where *before* columns of its first line are taken."""
    line = _line(value)
    if not value or not isinstance(value, dict | list) or before + columns(line) <= WIDTH:
        return line
    named = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    lines = []
    for name, item in named:
        start = " " * (indent + 4) + ("" if name is None else f"{quoted(name)}: ")
        lines.append(f"{start}{literal(item, indent + 4, columns(start) + 1)},")
    start, end = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([start, *lines, " " * indent + end])


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{quoted(name)}: {_line(item)}' for name, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_line, value))}]"
    return quoted(value) if isinstance(value, str) else repr(value)


def quoted(value: str) -> str:
    """A string as code, in the quotes that formatters prefer."""
    inner = repr('"' + value)[2:-1]  # single quotes are escaped in it, double ones are not
    if value.count('"') > value.count("'"):
        return f"'{inner}'"
    return '"' + inner.replace('"', '\\"').replace("\\'", "'") + '"'


def columns(code: str) -> int:
    return len(code) + sum(not char.isascii() for char in code)  # at most: what is too wide is on lines of its own
