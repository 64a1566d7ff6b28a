"""Many rows into a table of SQLite's, several in one statement."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable
from functools import cache
from itertools import chain, count, islice
from typing import Any

# Many rows in one statement take two thirds of their time in one each. In these numbers, since each is parsed once.
_ROWS_AT_ONCE = (50, 10, 1)
# Whether a value is given once and named in each row, as ``?1``, for a fifth less time for all inserts. Python 3.12.0
# and some after it warn of each, which is an error where warnings are, and takes ten times the time where they are not.
_NUMBERED = sys.version_info[:2] != (3, 12)


def insert_many(connection: sqlite3.Connection, into: str, same: tuple[Any, ...], *columns: Iterable[Any]) -> None:
    """Insert what stands in *columns*, one row after another, and behind it in each row what is the *same* in all."""
    rows: Iterable[Iterable[Any]] = zip(*columns, strict=True)
    if not _NUMBERED:
        rows = ((*row, *same) for row in rows)
    width = len(columns) + (0 if _NUMBERED else len(same))
    # Some at a time, since columns may come from a file.
    values = chain.from_iterable(rows)
    while some := list(islice(values, _ROWS_AT_ONCE[0] * width)):
        begun = 0
        for lines in _ROWS_AT_ONCE:
            while begun + lines * width <= len(some):
                few = some if lines * width == len(some) else some[begun : begun + lines * width]
                sql = _insert_sql(into, len(columns), len(same), lines)
                connection.execute(sql, (*same, *few) if _NUMBERED else few)
                begun += lines * width


@cache
def _insert_sql(into: str, own: int, same: int, rows: int) -> str:
    if not _NUMBERED:
        row = f"({', '.join('?' * (own + same))})"
        return f"INSERT INTO {into} VALUES {', '.join([row] * rows)}"
    numbers, again = count(same + 1), [f"?{number}" for number in range(1, same + 1)]
    each = (", ".join([*(f"?{number}" for number in islice(numbers, own)), *again]) for _ in range(rows))
    return f"INSERT INTO {into} VALUES {', '.join(f'({row})' for row in each)}"
