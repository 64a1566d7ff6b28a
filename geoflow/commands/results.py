"""What a verb comes to: its text for people, its JSON for programs, its exit status, and what a notebook has of it.

In a text everything that came from users or from a store is stripped of control characters and of secrets. In a
document results are as they are, since programs read them; so are they in the store and in DataFrames.
"""

from __future__ import annotations

import abc
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from geoflow.commands.grammar import COMPLETED, NOT_COMPLETED, WITH_ERRORS, Request
from geoflow.commands.hints import command
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import Runtime
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
from geoflow.views.model import JobView
from geoflow.views.rows import Row
from geoflow.views.snapshot import listing

if TYPE_CHECKING:
    import pandas as pd

UNBOUNDED = 100_000  # columns
_RESULT_LINES = 40

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
        return masked(every[start_of_last(every, self.limit) :], self.session.settings.secrets)

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
        return masked(self.rows(), self.secrets)


@dataclass(eq=False, repr=False)
class Frame(Table):
    """A DataFrame that there is already."""

    frame: pd.DataFrame

    def value(self) -> pd.DataFrame:
        return self.frame

    def rows(self) -> list[Row]:
        return records(self.frame)

    def lines(self, width: int) -> list[str]:
        return in_columns(list(map(str, self.frame.columns)), mask(self.document(), self.secrets), width)


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


def start_of_last(rows: Sequence[object], limit: int | None) -> int:
    """Where the last *limit* rows begin."""
    return 0 if limit is None else max(len(rows) - limit, 0)


def masked(rows: Iterable[Row], secrets: Sequence[str]) -> list[Row]:
    """The rows without secrets, but their results as they are."""
    return [
        mask(row, secrets) | ({"result": unless_fallback(row["result"], secrets)} if "result" in row else {})
        for row in rows
    ]


def _in_json(value: datetime | timedelta) -> str | float:
    """Times as ISO 8601, durations in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value.isoformat()


def in_columns(names: Sequence[str], rows: Sequence[Row], width: int, gives_way: str | None = None) -> list[str]:
    """Those columns of the *rows* in lines; where they are too wide, the widest gives way, or the one that is named."""
    which = None if gives_way is None else names.index(gives_way)
    ids = [place for place, name in enumerate(names) if name == "task_id"]
    heads = [f"{name} (UTC)" if any(isinstance(row[name], datetime) for row in rows) else name for name in names]
    cells = ([_cell(row[name]) for name in names] for row in rows)
    return aligned([heads, *cells], width, which, ends_differ=ids, longest=200 if width < UNBOUNDED else 4_000)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, timedelta):
        return human_duration(value.total_seconds())
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
