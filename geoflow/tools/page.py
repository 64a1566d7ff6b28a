"""A job as one HTML file, to be sent: its drawing, its pictures, its tasks, its log, and what it ran with; masked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from geoflow.core.rows import JobRow
from geoflow.engine.runtime import Runtime
from geoflow.errors import ParameterError
from geoflow.render.drawing import job_html
from geoflow.render.markup import Html, element, faint, line, state, table, title, told
from geoflow.render.page import page
from geoflow.support.environment import sound
from geoflow.support.masking import mask
from geoflow.support.text import count, human_duration, shorten
from geoflow.views import rows
from geoflow.views.lines import Wanted
from geoflow.views.model import JobView, when

_CELL, _VALUE = 300, 100  # characters of a message, and of JSON


def write(
    runtime: Runtime,
    job_id: str,
    pictures: Iterable[tuple[str, str]],
    path: str | os.PathLike[str],
    *,
    tasks: int,
    lines: int,
    overwrite: bool,
) -> Path:
    """Write the page of the job, with these *pictures*, to *path*: whole, or not at all."""
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ParameterError(f"{str(target)!r} is no name of a page: give one that ends in .html.")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} is there already: give another name, or overwrite=True.")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.absolute().parent} to write {target.name} to.")
    for name, number in (("tasks", tasks), ("lines", lines)):
        if type(number) is not int or number < 0:
            raise ParameterError(f"{name} cannot be {shorten(repr(number), 60)}: give a whole number from 0 on.")
    row, view = runtime.row(job_id), runtime.snapshot(job_id)
    drawn = page(
        f"{shorten(view.job_type, 60)} {view.job_id[:8]}: {view.state}",
        (
            Html(job_html(view)),
            *(element(name, (picture,), "") for name, picture in pictures),
            _tasks(runtime, view, tasks),
            _log(runtime, job_id, lines),
            _environment(runtime, row),
        ),
    )
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(drawn, "utf-8")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _tasks(runtime: Runtime, view: JobView, most: int) -> Html:
    """The job's tasks, those that failed first, and how many there are where these are not all."""
    store, secrets = runtime.store, runtime.settings.secrets
    failed = rows.tasks(store, view.job_id, state="failed", limit=most)
    first = rows.tasks(store, view.job_id, limit=most)
    others = (row for row in first if row["status"] != "failed")
    chosen = failed + list(islice(others, max(most - len(failed), 0)))
    number = sum(stage.tasks for stage in view.stages)
    said = count(number, "task") if len(chosen) == number else f"{len(chosen):,} of {count(number, 'task')}"
    heads = ("Task", "Stage", "State", "Attempts", "Time", "Error, or result", "Parameters")
    short = f"{view.job_id[:8]}-"
    drawn = told(heads, [[*_task(mask(row, secrets), short)] for row in chosen], 2) if chosen else ""
    order = ", those that failed first" if view.failed else ""
    return element("Tasks", (title(f"Tasks: {said}{order}", 3), drawn), "")


def _task(row: Mapping[str, Any], short: str) -> Iterator[str]:
    result = row["result"]
    if isinstance(result, dict) and result.keys() == {"success", "result"}:
        result = result["result"]
    yield shorten(row["task_id"].removeprefix(short), 80)
    yield f"{row['stage']} {shorten(row['stage_name'], 40)}"
    yield state(row["status"])
    yield str(row["attempts"])
    yield _took(row["duration"])
    if row["error"]:  # which has no result
        yield shorten(f"{row['error_type']}: {row['error']}", _CELL)
    else:
        yield _json(result) if result is not None else ""
    yield _json(row["parameters"])


def _log(runtime: Runtime, job_id: str, most: int) -> Html:
    found = rows.logs(runtime.log_path, Wanted(job_id))
    last = found[max(len(found) - most, 0) :]
    said = f"{len(last):,}" if len(last) == len(found) else f"the last {len(last):,} of {len(found):,}"
    lines, short = [mask(each, runtime.settings.secrets) for each in last], f"{job_id[:8]}-"
    cells = [
        (
            *(_time(each["time"]), shorten(str(each["level"]), 20)),
            *(shorten(str(each["task_id"] or "").removeprefix(short), 60), _said(each)),
        )
        for each in lines
    ]
    drawn = told(("Time (UTC)", "Level", "Task", "Message"), cells, 1) if cells else ""
    return element("Log", (title(f"Log lines: {said}", 3), drawn), "")


def _said(each: Mapping[str, Any]) -> str:
    more = each.get("error_message")
    message = shorten(str(each["message"]), _CELL)
    return message if not more or str(more) in message else f"{message}: {shorten(str(more), _CELL)}"


def _environment(runtime: Runtime, job: JobRow) -> Html:
    """What the process had that drove the job last, and when this page was made."""
    owner = job.told_of_owner
    with_versions = sound(owner.get("ran_with"))
    drawn = table(("What", "Version"), with_versions.items()) if with_versions else ""
    unknown = "" if with_versions else "What it ran with was not recorded."
    where = f" on {shorten(str(owner['host']), 60)}" if owner.get("host") else ""
    made = f"This page was made at {when(runtime.clock.now())}; values whose names look like secrets are masked."
    parts = (title(f"Ran with{where}", 3), line(unknown), drawn, line(faint(made)))
    return element("Environment", parts, "")


def _json(value: Any) -> str:
    return Html("<code>{}</code>").format(shorten(json.dumps(value, ensure_ascii=False, default=str), _VALUE))


def _took(duration: timedelta | None) -> str:
    return "" if duration is None else human_duration(duration.total_seconds())


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"
