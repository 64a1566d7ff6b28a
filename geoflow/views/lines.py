"""Which lines of a log are asked for: those of a job or a task, of a level, of late, with a text in them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from geoflow.errors import ParameterError
from geoflow.support.logs import read
from geoflow.support.text import shorten

# Where a text is looked for.
_TOLD = ("message", "error_type", "error_message", "traceback")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Wanted(NamedTuple):
    """The lines that are asked for; what is empty says nothing. ``level`` is a number of `logging`'s, ``since`` in
    seconds since the epoch, ``task`` the beginning of a task's id."""

    job_id: str = ""
    level: int = 0
    since: float | None = None
    contains: str = ""
    task: str = ""

    @classmethod
    def of(
        cls,
        job_id: str = "",
        *,
        level: str | None = None,
        since: datetime | timedelta | None = None,
        contains: str = "",
        task: str = "",
    ) -> Wanted:
        """What a person says of them. Raises ``ParameterError`` for what is no level, and no time."""
        number = 0
        if level is not None:
            if str(level).upper() not in _LEVELS:
                raise ParameterError(f"level cannot be {shorten(repr(level), 60)}: it is one of {', '.join(_LEVELS)}.")
            number = logging.getLevelNamesMapping()[level.upper()]
        if isinstance(since, timedelta):
            since = datetime.fromtimestamp(time.time() - since.total_seconds(), UTC)
        if not isinstance(since, datetime | None):  # a date too: at what time of the day?
            raise ParameterError(
                f"since cannot be {shorten(repr(since), 60)}: give a datetime, or a timedelta for so long ago."
            )
        for name, value in (("contains", contains), ("task", task)):
            if not isinstance(value, str):
                raise ParameterError(f"{name} cannot be {shorten(repr(value), 60)}: give a text.")
        moment = None if since is None else since.timestamp()
        return cls(job_id, number, moment, contains.casefold(), task)

    def has(self, line: dict[str, Any]) -> bool:
        """Whether this line is one of them."""
        return (
            (not self.job_id or line.get("job_id") == self.job_id)
            and (not self.task or self._is_of_task(line))
            and (not self.level or self.level <= _number(line.get("level")))
            and (not self.contains or any(self.contains in str(line.get(name, "")).casefold() for name in _TOLD))
            and (self.since is None or self.since <= _moment(line.get("time")))
        )

    def _is_of_task(self, line: dict[str, Any]) -> bool:
        """Whether the task's id begins so, with or without the short id of the job that it begins with as a rule."""
        task_id = str(line.get("task_id") or "")
        own = task_id.removeprefix(f"{str(line.get('job_id'))[:8]}-")
        return task_id.startswith(self.task) or own.startswith(self.task)


ALL = Wanted()


def lines(path: str | os.PathLike[str], wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Those lines of the log at *path*, in the order in which they were written."""
    return filter(wanted.has, read(path, having=wanted.job_id))


def _number(level: Any) -> int:
    """A level that is none of `logging`'s is of no less than all of them: it is somebody's own."""
    return logging.getLevelNamesMapping().get(str(level), logging.CRITICAL)


def _moment(text: Any) -> float:
    with suppress(ValueError, TypeError, OverflowError):
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    return float("-inf")
