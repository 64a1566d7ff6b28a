"""A moment as people say it: a date, a time, or how long ago."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from geoflow.errors import ParameterError
from geoflow.support.text import shorten

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})")
Moment = str | datetime | timedelta
WORDS = "a date or time such as 2026-01-31 or 2026-01-31T12:00, or how long ago: 30d, 12h, 45min, 2w"


def moment(value: Moment, now: float, name: str) -> float:
    """*value* in seconds since the epoch: ``"30d"`` or a timedelta is so long before *now*.

    A date is its first moment; a time without a zone is local. Raises ``ParameterError`` that names *name*.
    """
    try:
        if isinstance(value, str) and (ago := _AGO.fullmatch(value.strip())):
            value = timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
        if isinstance(value, timedelta):
            return now - value.total_seconds()
        return (value if isinstance(value, datetime) else datetime.fromisoformat(value)).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        raise ParameterError(f"{name} cannot be {shorten(repr(value), 60)}: give {WORDS}.") from None
