"""Failed tasks, put together by what their errors have in common: the type, the shape of the message, the place.

No more than `EXAMINED` of them are looked at, and of each group the first one closely.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from geoflow.models import Category
from geoflow.notebook.views import READ, AttemptView, ErrorGroup, cell_width, shown
from geoflow.retry import explain, is_retryable
from geoflow.stores.base import StageRow
from geoflow.text import cut, mask_text, shorten

EXAMINED = 200
GROUPS = 8
ATTEMPTS = 5


class _Failed(NamedTuple):
    key: int
    task_id: str
    retries: int
    error_type: str
    error: str
    category: str
    traceback_end: str


_FAILURES = (
    "SELECT t.task_key, t.task_id, t.retries, coalesce(a.error_type, ''), coalesce(a.error, ''),"
    " coalesce(a.error_category, ''), coalesce(substr(a.traceback, -4000), '')"
    " FROM tasks t JOIN attempts a ON a.task_key = t.task_key AND a.attempt = t.attempts"
    " WHERE t.task_key >= ? AND t.task_key < ? AND t.status = 'failed' ORDER BY t.task_key LIMIT ?"
)
_EXAMPLE = (
    "SELECT attempt, backoff, coalesce(error_type, ''), coalesce(error, ''), outcome, duration, traceback, output"
    " FROM attempts WHERE task_key = ? ORDER BY attempt DESC LIMIT ?"
)


def groups(
    connection: Any, stages: Sequence[tuple[StageRow, str]], secrets: tuple[str, ...]
) -> tuple[tuple[ErrorGroup, ...], int]:
    """The largest groups of failures in *stages* (with their strips), and how many failed tasks were looked at."""
    failed = _failed(connection, stages)
    return tuple(_group(connection, alike, secrets) for alike in _alike(failed)[:GROUPS]), len(failed)


def _failed(connection: Any, stages: Sequence[tuple[StageRow, str]]) -> list[_Failed]:
    """The first failed tasks; only the cells that have some are searched."""
    found: list[_Failed] = []
    for stage, strip in stages:
        width = cell_width(stage.task_count)
        first, end = stage.first_key + width * strip.index("f"), stage.first_key + width * (strip.rindex("f") + 1)
        rows = connection.execute(_FAILURES, (first, min(end, stage.end_key), EXAMINED - len(found))).fetchall()
        found += [_Failed(*row) for row in rows]
    return found


def _alike(failed: Sequence[_Failed]) -> list[list[_Failed]]:
    """The failures in groups, the largest first, then in the order of their first task."""
    groups: dict[tuple[str, str, str | None], list[_Failed]] = {}
    for task in failed:
        groups.setdefault((task.error_type, folded(task.error), place(task.traceback_end)), []).append(task)
    return sorted(groups.values(), key=len, reverse=True)


# What differs from task to task in a message: quoted parts, paths and URLs, and words with a digit in them.
_VARYING = re.compile(r"""'[^'\n]*+'|"[^"\n]*+"|(?<!\S)[^\s/\\]*+[/\\]\S*+|(?<!\w)(?=\w*\d)\w++""")
_FRAME = re.compile(r'^  File "([^"\n]+)", line (\d+)(?:, in (.+))?$', re.MULTILINE)
_LIBRARY = re.compile(r"^<frozen |[/\\](?:site-packages|dist-packages|lib[/\\]python3[^/\\]*)[/\\]")


def folded(message: str) -> str:
    """The shape of *message*: the same for messages that differ in names and numbers only."""
    return _VARYING.sub("*", message[:300])


def place(traceback: str) -> str | None:
    """The last frame of the user's own in *traceback*, in words; of a library, when there is none of the user's."""
    frames = _FRAME.findall(traceback)
    own = [frame for frame in frames if not _LIBRARY.search(frame[0])] or frames
    if not own:
        return None
    file, line, function = own[-1]
    name = PurePath(file).name
    return f"{function} in {name}, line {line}" if function else f"{name}, line {line}"


def _group(connection: Any, alike: Sequence[_Failed], secrets: tuple[str, ...]) -> ErrorGroup:
    task = alike[0]
    (parameters,) = connection.execute(
        "SELECT substr(parameters, 1, ?) FROM tasks WHERE task_key = ?", (READ, task.key)
    ).fetchone()
    attempts = connection.execute(_EXAMPLE, (task.key, ATTEMPTS)).fetchall()
    traceback, output = attempts[0][-2:]
    return ErrorGroup(
        error_type=task.error_type,
        message=cut(mask_text(task.error, secrets), 1000),
        category=task.category,
        count=len(alike),
        why=_why(task),
        where=place(task.traceback_end),
        tasks=tuple(each.task_id for each in alike[:5]),
        traceback=cut(mask_text(traceback, secrets), 2500) if traceback else None,
        parameters=shown(parameters, 600, secrets),
        output=cut(mask_text(output, secrets), 1000) if output else None,
        attempts=tuple(
            AttemptView(number, waited, shorten(mask_text(f"{kind}: {error}", secrets), 160), outcome, duration)
            for number, waited, kind, error, outcome, duration, *_ in reversed(attempts)
        ),
        retried=task.retries > 0,
    )


def _why(task: _Failed) -> str:
    if task.category == Category.LOST:
        return "A task that keeps ending with the process that drives it is not run again by itself."
    rule = explain(task.error_type, task.category)
    if is_retryable(task.category) and not task.retries:
        return f"{rule} Here the policy allowed no retry."
    return rule
