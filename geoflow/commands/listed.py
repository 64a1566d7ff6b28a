"""What is listed of one job: its tasks, the attempts that failed, its log, its history."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoflow.commands.results import Table, in_columns, masked, start_of_last
from geoflow.errors import DefinitionError
from geoflow.job_handle import JobHandle
from geoflow.stores.events import here
from geoflow.support.masking import mask
from geoflow.support.text import count, plain
from geoflow.views import rows
from geoflow.views.failures import kinds
from geoflow.views.lines import Wanted
from geoflow.views.rows import Row

if TYPE_CHECKING:
    import pandas as pd

_KINDS = 12  # of failures, the largest


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
        return masked(tasks, self.secrets)

    def lines(self, width: int) -> list[str]:
        tasks = mask(self.rows(), self.secrets)
        for row in tasks:
            returned = row["result"] or {}
            row[self._ENDED_AS] = row["error"] or returned.get("result", returned)
        return in_columns(("stage", "task_id", "status", "attempts", "duration", self._ENDED_AS), tasks, width)


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
            yield from in_columns(names, alike[:_KINDS], width)
            if len(alike) > _KINDS:
                yield f"… and {count(len(alike) - _KINDS, 'kind')} more."
        if errors:
            if number > len(errors):
                yield f"The last {len(errors):,} of them; --limit {number} shows all."
            told = [
                row | {"error": f"{row['error']} (caused by {row['cause']})"} if row["cause"] else row for row in errors
            ]
            yield from in_columns(("task_id", "attempt", "error_category", "error_type", "error"), told, width)
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
        return lines[start_of_last(lines, self.limit) :]

    def lines(self, width: int) -> Iterable[str]:
        return in_columns(("time", "level", "task_id", "message"), mask(self.rows(), self.secrets), width)


@dataclass(eq=False, repr=False)
class History(OfJob):
    """The last events of a job: what was done with it, by whom."""

    def value(self) -> pd.DataFrame:
        history = self.job.history()
        return history if self.limit is None else history.tail(self.limit)

    def rows(self) -> list[Row]:
        events = rows.history(self.runtime.store, self.job.id)
        return events[start_of_last(events, self.limit) :]

    def lines(self, width: int) -> Iterator[str]:
        events = mask(self.rows(), self.secrets)
        if not events:
            yield "No event is known of this job: it is older than the table of events."
            return
        for row in events:
            elsewhere = "" if row["host"] == here() else f" on {row['host']}"
            row |= {"at": row["happened_at"], "tasks": row["tasks"] or None, "process": f"{row['pid']}{elsewhere}"}
        yield from in_columns(("at", "event", "stage", "tasks", "process", "why"), events, width, gives_way="why")
