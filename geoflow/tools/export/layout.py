"""Plain values as Python."""

from __future__ import annotations

import math
import pprint
from typing import Any

_PLAIN = (type(None), bool, int, str, bytes, float)


def is_data(value: Any) -> bool:
    """Whether *value* can be written as a literal."""
    if type(value) is dict:
        return all(map(is_data, (*value, *value.values())))
    return type(value) in _PLAIN or (type(value) in (list, tuple, set, frozenset) and all(map(is_data, value)))


class _Printer(pprint.PrettyPrinter):
    """That of the standard library, with double quotes, sets in order, and infinities that can be read again."""

    def format(self, value: Any, *how: Any) -> tuple[str, bool, bool]:
        text, *about = super().format(value, *how)
        if isinstance(value, float) and not math.isfinite(value):
            text = f'float("{value}")'
        elif isinstance(value, str) and '"' not in text:
            text = f'"{text[1:-1]}"'
        elif isinstance(value, set) and value:
            text = f"{{{', '.join(sorted(map(literal, value)))}}}"
        return text, about[0], about[1]


def literal(value: Any, indent: int = 0) -> str:
    """*value*, which `is_data`, as text that means it again. Its lines after the first are indented."""
    text = _Printer(width=100 - indent, compact=True, sort_dicts=False).pformat(value)
    return text.replace("\n", "\n" + " " * indent)
