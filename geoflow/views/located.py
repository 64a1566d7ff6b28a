"""The footprints of a job's tasks, few enough to be drawn: of many tasks those that failed, and some of the others."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from geoflow.stores import questions
from geoflow.stores.store import Store
from geoflow.support.jsonable import from_json
from geoflow.support.text import count, shorten
from geoflow.views.footprints import Boundary, Shape, Unread, footprint
from geoflow.views.rows import at_once
from geoflow.views.stages import worst

MOST = 400  # tasks that are looked at, half of them failed ones at most
LONGEST = 100_000  # characters of JSON that are looked into


class Footprint(NamedTuple):
    """A shape, and what there is to say of its tasks: the worst state, and a line of words."""

    shape: Shape
    state: str
    said: str


class Located(NamedTuple):
    """What of a job can be put on a map. ``unread`` says why some shapes are not there, with the number of tasks."""

    footprints: tuple[Footprint, ...]
    tasks: int
    looked_at: int
    without: int
    unread: dict[str, int]


def located(store: Store, job_id: str) -> Located:
    """The footprints of the job's tasks, of the plans that count now; of one shape, one for all of its tasks."""
    with at_once(store) as connection:
        plans = questions.plans(connection, job_id)
        tasks = sum(plan.last - plan.first + 1 for plan in plans)
        failed = [key for plan in plans for key in questions.failed_keys(connection, plan.first, plan.last, MOST // 2)]
        chosen = dict.fromkeys(failed[: MOST // 2])
        step = -(-tasks // (MOST - len(chosen)))
        every = (key for plan in plans for key in range(plan.first, plan.last + 1))
        chosen |= dict.fromkeys(key for place, key in enumerate(every) if place % step == 0)
        rows = questions.where_tasks_are(connection, list(chosen), LONGEST)
    boundary, found, without, unread = _boundary(), dict[Shape, list[questions.TaskWhere]](), 0, dict[str, int]()
    for row in rows:
        try:
            shape = footprint(_own(row), boundary)
        except Unread as exc:
            unread[str(exc)] = unread.get(str(exc), 0) + 1
            continue
        if shape is None:
            without += 1
        else:
            found.setdefault(shape, []).append(row)
    footprints = tuple(_footprint(shape, rows) for shape, rows in found.items())
    return Located(footprints, tasks, len(rows), without, unread)


def _own(row: questions.TaskWhere) -> Iterator[Any]:
    """What tells of the one task, and not of the job: a typed stage's tasks are given the job's parameters too."""
    for text in row.texts:
        value = from_json(text) if text else None
        yield {name: value[name] for name in value if name != "params"} if isinstance(value, dict) else value


def _footprint(shape: Shape, rows: list[questions.TaskWhere]) -> Footprint:
    state = worst(row.status for row in rows)
    row = next(row for row in rows if row.status == state)
    error = f": {shorten(row.error, 60)}" if row.error and state == "failed" else ""
    more = f" and {count(len(rows) - 1, 'task')} more" if len(rows) > 1 else ""
    return Footprint(shape, state, f"{shorten(row.task_id, 60)} {state}{error}{more}")


def _boundary() -> Boundary | None:
    """What knows the corners of an H3 cell, where h3 is installed."""
    try:
        h3: Any = importlib.import_module("h3")
    except ImportError:
        return None
    return lambda cell: h3.cell_to_boundary(cell) if h3.is_valid_cell(cell) else None
