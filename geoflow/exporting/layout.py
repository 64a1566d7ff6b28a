"""Python as text, laid out as formatters of any width leave it: what does not fit in a line has an item a line."""

from __future__ import annotations

import math
from typing import Any

WIDTH = 88
_FAR = 1_000_000  # columns to the left, where everything fits in a line
_PLAIN = (type(None), bool, int, str, bytes, float)


def is_data(value: Any) -> bool:
    """Whether *value* can be written as a literal."""
    if type(value) is dict:
        return all(map(is_data, (*value, *value.values())))
    return type(value) in _PLAIN or (type(value) in (list, tuple, set, frozenset) and all(map(is_data, value)))


def literal(value: Any, head: str = "", indent: int = 0, room: int = 0) -> str:
    """*head*, then *value*, which `is_data`. *room* is what follows in its line."""
    if isinstance(value, str):
        return head + quoted(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f'{head}float("{value}")'
    if isinstance(value, frozenset):
        if "\n" not in (line := f"{head}frozenset({literal(set(value)) if value else ''})") and len(line) <= WIDTH:
            return line
        inside = literal(set(value), indent=indent + 4, room=WIDTH)
        return f"{head}frozenset(\n{' ' * (indent + 4)}{inside}\n{' ' * indent})"
    if not isinstance(value, dict | list | tuple | set) or not value:
        return head + repr(value)
    begin, end = {dict: ("{", "}"), list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}")}[type(value)]
    heads = [f"{literal(key)}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    ordered = list(value.values()) if isinstance(value, dict) else list(value)
    ordered = sorted(ordered, key=repr) if isinstance(value, set) else ordered
    pairs = list(zip(heads, ordered, strict=True))
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    inner = ", ".join(literal(item, key, -_FAR) for key, item in pairs)
    line = f"{head}{begin}{inner}{comma}{end}"
    if indent + len(line) + room <= WIDTH:
        return line
    inside = " " * (indent + 4)
    lines = [f"{inside}{literal(item, key, indent + 4, 1)}," for key, item in pairs]
    return "\n".join([head + begin, *lines, " " * indent + end])


def quoted(text: str) -> str:
    """*text* in double quotes, unless it has some and no single ones."""
    found = repr(text)
    return f'"{found[1:-1]}"' if found[0] == "'" and '"' not in text else found
