"""What a verb comes to: its text for people, its JSON for programs, its exit status, and what a notebook has of it.

In a text everything that came from users or from a store is stripped of control characters and of secrets. In a
document results are as they are, since programs read them; so are they in the store and in DataFrames.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from geoflow.commands.grammar import COMPLETED, NOT_COMPLETED, WITH_ERRORS, Request
from geoflow.commands.hints import command
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import Runtime
from geoflow.errors import DefinitionError
from geoflow.job_handle import JobHandle
from geoflow.jobtypes.contract import PROBE_OF
from geoflow.render.drawing import job_text, jobs_text
from geoflow.render.report import Report, records
from geoflow.session import Session
from geoflow.stores.questions import number_of_jobs
from geoflow.support.jsonable import from_json
from geoflow.support.masking import mask, unless_fallback
from geoflow.support.text import aligned, count, first_lines, human_duration, plain
from geoflow.views import rows
from geoflow.views.chosen import Choice
from geoflow.views.failures import kinds
from geoflow.views.lines import Wanted
from geoflow.views.model import JobView
from geoflow.views.rows import Row
from geoflow.views.snapshot import listing

if TYPE_CHECKING:
    import pandas as pd

UNBOUNDED = 100_000  # columns
_RESULT_LINES = 40
_KINDS = 12  # of failures, the largest

# Each command makes these classes: what nobody uses of a dataclass (eq, repr, frozen) took a thirtieth of its start.


class Result(abc.ABC):
    """What a verb comes to, where it is no report of a tool's, which has all this but for its value: itself."""

    @property
    def exit_status(self) -> int:
        return COMPLETED

    @abc.abstractmethod
    def value(self) -> Any:
        """What it is worth in a notebook, where it shows itself."""

    @abc.abstractmethod
    def document(self) -> Any:
        """It for JSON, with secrets masked, except in results."""

    @abc.abstractmethod
    def lines(self, width: int) -> Iterable[str | bytes]:
        """It in lines of at most *width* columns; or the bytes of a file."""

    def to_json(self) -> str:
        return json.dumps(self.document(), indent=2, default=_in_json)


def lines_of(result: Result | Report, request: Request) -> Iterable[str | bytes]:
    """It in lines, as they are to be printed where standard output leads."""
    if request.json:
        return [result.to_json()]
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:  # for a pipe or a file nothing need be cut
        width = UNBOUNDED if isinstance(result, Table) else 160
    return result.lines(width)


# Jobs


@dataclass(eq=False, repr=False)
class Job(Result):
    """A job that a verb has shown or taken further."""

    job: JobHandle
    request: Request

    @property
    def exit_status(self) -> int:
        if self.request.verb == "status":
            return COMPLETED
        if self.job.status != ("cancelled" if self.request.verb == "cancel" else "completed"):
            return NOT_COMPLETED
        return WITH_ERRORS if self.job.with_errors else COMPLETED

    def value(self) -> JobHandle:
        return self.job

    def document(self) -> dict[str, Any]:
        job, runtime = self.job, self.job.runtime
        row, view, secrets = runtime.row(job.id), runtime.snapshot(job.id), runtime.settings.secrets
        return {
            "job_id": row.job_id,
            "job_type": row.job_type,
            "status": row.status,
            "state": view.state,
            "with_errors": view.with_errors,
            "failed": view.failed,
            "driver": view.driver,
            "stage": row.stage,
            "total_stages": len(view.stages),
            "parameters": mask(job.parameters, secrets),
            "result": unless_fallback(from_json(row.result or "null"), secrets),
            "error": mask(row.error, secrets),
            **{name: _time(getattr(row, name)) for name in ("created_at", "started_at", "ended_at")},
            "duration": view.elapsed,
            "stages": mask(rows.stages(runtime.store, job.id), secrets),
            "running": [task.document for task in view.running],
            "source": row.source,
            "receipt": job.receipt.model_dump(mode="json") if job.receipt else None,
        }

    def lines(self, width: int) -> Iterator[str]:
        runtime = self.job.runtime
        row, view = runtime.row(self.job.id), runtime.snapshot(self.job.id)
        yield from job_text(view._replace(hint=None, result_preview=None), width).splitlines()
        if row.result and view.result_preview:
            result = mask(from_json(row.result), runtime.settings.secrets)
            whole = plain(json.dumps(result, indent=2, ensure_ascii=False))
            shown = first_lines(whole, _RESULT_LINES, rest="; --json prints all.")
            yield from ("Result", *(f"  {line}" for line in shown.splitlines()))
        yield from self._next(row, view)

    def _next(self, row: JobRow, view: JobView) -> Iterator[str]:
        """What to type next. A probe's job type is known only where it was made: nothing goes on with it here."""
        job, request = self.job, self.request
        if view.driver is None and view.state == "completed" and job.receipt is not None and job.receipt.stale:
            rerun = command(request, "rerun", row)
            yield f"Next: {rerun} --stale   # what ran with older code, and what follows"
        elif view.driver is None and view.state == "completed" and view.inputs_changed:
            yield f"Next: {command(request, 'rerun', row)} --update   # what has changed, and what is behind it"
        if view.driver is not None or view.state == "completed" or view.job_type.startswith(PROBE_OF):
            return
        verb, why = "resume", "go on with what has not completed"
        if view.with_errors and not view.failed:
            verb, why = "refinalize", "finalize alone, over the results that are there"
        elif view.failed:
            verb, why = "retry", f"{count(view.failed, 'failed task')} again, then on"
        yield f"Next: {command(request, verb, row)}   # {why}"


class JobList(list[JobHandle]):
    """Several jobs, which show themselves one below the other."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "No job is interrupted."

    def _repr_html_(self) -> str | None:
        return "".join(job._repr_html_() for job in self) or None


@dataclass(eq=False, repr=False)
class Jobs(Result):
    """The jobs that were interrupted, and have gone on."""

    jobs: Sequence[Job]

    @property
    def exit_status(self) -> int:
        statuses = [job.exit_status for job in self.jobs]
        return NOT_COMPLETED if NOT_COMPLETED in statuses else max(statuses, default=COMPLETED)

    def value(self) -> JobList:
        return JobList(job.job for job in self.jobs)

    def document(self) -> list[dict[str, Any]]:
        return [job.document() for job in self.jobs]

    def lines(self, width: int) -> list[str]:
        return [line for job in self.jobs for line in job.lines(width)] or ["No job is interrupted."]


@dataclass(eq=False, repr=False)
class Listing(Result):
    """The jobs of a store, or the last of them."""

    session: Session
    request: Request
    limit: int | None

    def value(self) -> pd.DataFrame:
        return self.session.jobs(**self._said, limit=self.limit)

    def document(self) -> list[Row]:
        every = rows.jobs(self.session.store)
        if self._choice != Choice():
            chosen = {view.job_id for view in self._views(None)}
            every = [row for row in every if row["job_id"] in chosen]
        return _masked(every[_last(every, self.limit) :], self.session.settings.secrets)

    def lines(self, width: int) -> list[str]:
        session = self.session
        asked = self._choice != Choice()
        views = self._views(self.limit)
        if not views:
            like = " like that" if asked else ""
            return [f"There are no jobs{like} in {plain(session.settings.store_name)}{' yet' * (not asked)}."]
        with session.store.reading() as connection:
            number = number_of_jobs(connection)
        more = [f"The last {len(views):,} of {number:,}; --limit {number} shows all."] if number > len(views) else []
        if asked:
            more = [f"The last {len(views):,} of these; --limit N shows more."] if len(views) == self.limit else []
        return more + jobs_text(reversed(views), width).splitlines()

    @property
    def _said(self) -> dict[str, Any]:
        return {name: getattr(self.request, name) for name in ("state", "job_type", "since")}

    @property
    def _choice(self) -> Choice:
        return self.session.choice(**self._said)

    def _views(self, limit: int | None) -> Sequence[JobView]:
        return listing(self.session.store, self.session.runtime.clock.now(), limit, self._choice.means)


# Tables


@dataclass(eq=False, repr=False)
class Table(Result):
    """Rows, which a notebook has as a DataFrame."""

    runtime: Runtime

    @abc.abstractmethod
    def rows(self) -> list[Row]: ...

    @property
    def secrets(self) -> Sequence[str]:
        return self.runtime.settings.secrets

    def document(self) -> list[Row]:
        return _masked(self.rows(), self.secrets)


@dataclass(eq=False, repr=False)
class Frame(Table):
    """A DataFrame that there is already."""

    frame: pd.DataFrame

    def value(self) -> pd.DataFrame:
        return self.frame

    def rows(self) -> list[Row]:
        return records(self.frame)

    def lines(self, width: int) -> list[str]:
        return _table(list(map(str, self.frame.columns)), mask(self.document(), self.secrets), width)


@dataclass(eq=False, repr=False)
class OfJob(Table):
    """What is listed of a job: all of it, or *limit* rows."""

    job: JobHandle
    limit: int | None


@dataclass(eq=False, repr=False)
class Tasks(OfJob):
    """The first tasks of a job, or of a *stage* of it, or of those in a *state*."""

    state: str | None
    stage: int | str | None

    # What a handler returns is {"success": true, "result": …}: the second is shown, called as SQL and JSON call it.
    _ENDED_AS = "error or $.result"

    def value(self) -> pd.DataFrame:
        tasks = self.job.tasks()
        if (number := self._number()) is not None:
            tasks = tasks[tasks["stage"] == number]
        return (tasks[tasks["status"] == self.state] if self.state else tasks)[: self.limit]

    def _number(self) -> int | None:
        stage = self.stage
        return None if stage is None else rows.planned_stage(self.runtime.store, self.job.id, stage)[0]

    def rows(self) -> list[Row]:
        which: dict[str, Any] = {"state": self.state, "limit": self.limit, "stage": self._number()}
        return rows.tasks(self.runtime.store, self.job.id, **which)

    def document(self) -> list[Row]:
        codes: dict[str, str] = {}
        with contextlib.suppress(DefinitionError):  # its type is not registered here, or cannot be at the moment
            codes = self.runtime.fingerprints(self.runtime.row(self.job.id))
        tasks = self.rows()
        reused, warned = (look(self.runtime.store, self.job.id) for look in (rows.reused_from, rows.warned))
        for row in tasks:
            last = row["stage"], row["task_index"], row["attempts"]
            row["reused_from"], row["warnings"] = reused.get(last), warned.get(last, 0)
            is_known = row["code"] is not None and row["task_type"] in codes
            row["stale"] = row["code"] != codes[row["task_type"]] if is_known else None
        return _masked(tasks, self.secrets)

    def lines(self, width: int) -> list[str]:
        tasks = mask(self.rows(), self.secrets)
        for row in tasks:
            returned = row["result"] or {}
            row[self._ENDED_AS] = row["error"] or returned.get("result", returned)
        return _table(("stage", "task_id", "status", "attempts", "duration", self._ENDED_AS), tasks, width)


@dataclass(eq=False, repr=False)
class Errors(OfJob):
    """The last attempts that failed in a job."""

    with_tracebacks: bool

    def value(self) -> pd.DataFrame:
        return self.job.errors(limit=self.limit)

    def rows(self) -> list[Row]:
        return rows.errors(self.runtime.store, self.job.id, self.limit)

    def lines(self, width: int) -> Iterator[str]:
        errors, view = self.document(), self.runtime.snapshot(self.job.id)
        if view.error:
            yield plain(view.error)
        with self.runtime.store.reading() as connection:
            alike = [mask(kind._asdict(), self.secrets) for kind in kinds(connection, self.job.id)]
        number = sum(kind["attempts"] for kind in alike)
        if number > len(alike):
            yield f"{count(number, 'attempt')} failed, in {count(len(alike), 'kind')}, each with its first task:"
            names = ("attempts", "tasks", "error_category", "error_type", "error", "task_id")
            yield from _table(names, alike[:_KINDS], width)
            if len(alike) > _KINDS:
                yield f"… and {count(len(alike) - _KINDS, 'kind')} more."
        if errors:
            if number > len(errors):
                yield f"The last {len(errors):,} of them; --limit {number} shows all."
            told = [
                row | {"error": f"{row['error']} (caused by {row['cause']})"} if row["cause"] else row for row in errors
            ]
            yield from _table(("task_id", "attempt", "error_category", "error_type", "error"), told, width)
        elif not number:
            yield "No attempt failed."
        if self.with_tracebacks:
            yield from self.tracebacks()

    def tracebacks(self) -> list[str]:
        """The traceback of the job's plan or finalize, and those of its attempts, each once."""
        view = self.runtime.snapshot(self.job.id)
        tracebacks = dict.fromkeys((view.traceback, *(row["traceback"] for row in self.document())))
        return [plain(traceback) for traceback in tracebacks if traceback]


@dataclass(eq=False, repr=False)
class Logs(OfJob):
    """The last log lines of a job that are wanted: of a level, with a text in them, of a task."""

    wanted: Mapping[str, Any]

    def value(self) -> pd.DataFrame:
        logs = self.job.logs(**self.wanted)
        return logs if self.limit is None else logs.tail(self.limit)

    def rows(self) -> list[Row]:
        lines = rows.logs(self.runtime.log_path, Wanted.of(self.job.id, **self.wanted))
        return lines[_last(lines, self.limit) :]

    def lines(self, width: int) -> Iterable[str]:
        return _table(("time", "level", "task_id", "message"), mask(self.rows(), self.secrets), width)


# The rest


@dataclass(eq=False, repr=False)
class Returned(Result):
    """What a task's handler returned here, or None when it raised."""

    returned: Any
    secrets: Sequence[str]

    @property
    def exit_status(self) -> int:
        is_success = isinstance(self.returned, dict) and self.returned.get("success") is True
        return COMPLETED if is_success else NOT_COMPLETED

    def value(self) -> Any:
        return self.returned

    def document(self) -> Any:
        return self.returned

    def lines(self, width: int) -> list[str]:
        if self.returned is None:
            return []
        return plain(json.dumps(mask(self.returned, self.secrets), indent=2, default=repr)).splitlines()


@dataclass(eq=False, repr=False)
class Dumped(Result):
    """A job as one JSON document, or the file that it was written to."""

    session: Session
    job: JobHandle
    written: Any

    def value(self) -> Any:
        return self.written or self.session.dump(self.job)

    def document(self) -> Any:
        return {"file": str(self.written)}

    def lines(self, width: int) -> Iterable[str]:
        if self.written is not None:
            return [f"Job {self.job.id[:8]} is written to {self.written}."]
        from geoflow.tools.keeping.dump import pieces

        return "".join(pieces(self.session.runtime, self.job.id)).splitlines()

    def to_json(self) -> str:
        return "\n".join(self.lines(0)) if self.written is None else super().to_json()


def _time(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def _last(rows: Sequence[object], limit: int | None) -> int:
    """Where the last *limit* rows begin."""
    return 0 if limit is None else max(len(rows) - limit, 0)


def _masked(rows: Iterable[Row], secrets: Sequence[str]) -> list[Row]:
    """The rows without secrets, but their results as they are."""
    return [
        mask(row, secrets) | ({"result": unless_fallback(row["result"], secrets)} if "result" in row else {})
        for row in rows
    ]


def _in_json(value: datetime | timedelta) -> str | float:
    """Times as ISO 8601, durations in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value.isoformat()


def _table(names: Sequence[str], rows: Sequence[Row], width: int) -> list[str]:
    ids = [place for place, name in enumerate(names) if name == "task_id"]
    heads = [f"{name} (UTC)" if any(isinstance(row[name], datetime) for row in rows) else name for name in names]
    cells = ([_cell(row[name]) for name in names] for row in rows)
    return aligned([heads, *cells], width, ends_differ=ids, longest=200 if width < UNBOUNDED else 4_000)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return human_duration(value.total_seconds())
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
