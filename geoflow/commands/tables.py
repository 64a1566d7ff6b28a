"""A stage's tasks in the form of a file: what ``geoflow tasks --format`` prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from geoflow.commands.grammar import Request
from geoflow.commands.hints import tell
from geoflow.commands.results import Result
from geoflow.commands.values import UsageError
from geoflow.job_handle import JobHandle
from geoflow.support.text import plain
from geoflow.views import spread, tables
from geoflow.views.rows import planned_stage

SEPARATORS = {"csv": ",", "tsv": "\t"}


class Written(Result):
    """What the tasks of one stage took and gave, as `JobHandle.frame` has it, with its parameters masked."""

    def __init__(self, job: JobHandle, stage: int | str | None, request: Request) -> None:
        self._job, self._stage, self._request = job, stage, request

    def value(self) -> Any:
        job, request = self._job, self._request
        number, name, planned = planned_stage(job.runtime.store, job.id, self._stage)
        if self._stage is None and planned > 1:
            tell(f"this is stage {number}, {name}, the last that was planned; --stage names another.")
        table = spread.frame(job.runtime.store, job.id, number, job.runtime.settings.secrets)
        return (table[table["status"] == request.state] if request.state else table)[: request.limit]

    def document(self) -> Any:
        raise UsageError("--json is a form of its own: leave it out beside --format.")

    def lines(self, width: int) -> Sequence[str | bytes]:
        table, request = self.value(), self._request
        if request.format == "parquet":
            if sys.stdout.isatty():
                raise UsageError("Parquet is not for a terminal: lead it to a file, with > tasks.parquet")
            return [tables.parquet(table, request.geometry, request.crs)]
        lines: list[str]
        if request.format == "geojson":
            lines = list(tables.features(table, request.geometry, request.crs))
        else:
            lines = list(tables.separated(table, SEPARATORS[request.format]))
        return [plain(line) for line in lines] if sys.stdout.isatty() else lines
