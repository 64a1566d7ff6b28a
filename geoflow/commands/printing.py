"""What is told while a job runs, in a terminal: what a task prints, and what is logged, as it comes, until the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from geoflow.commands.listed import Logs
from geoflow.commands.results import Result
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import Runtime
from geoflow.engine.tasks import output_of, outputs_of, task_row
from geoflow.stores.questions import TaskPlace
from geoflow.support.logs import read_on
from geoflow.support.masking import mask_text
from geoflow.support.text import overwritten, plain
from geoflow.views.lines import Wanted

SECONDS_BETWEEN = 0.3
_COLUMNS = ("time", "level", "task_id", "message")
MORE = "… more than can be followed: geoflow output TASK has its beginning and its end"


class Output(Result):
    """What the last attempt of a task has printed so far."""

    def __init__(self, runtime: Runtime, job: JobRow, place: TaskPlace, follow: bool) -> None:
        self._of, self._follow = (runtime, job, place), follow
        self._secrets = runtime.settings.secrets

    def value(self) -> str | None:
        return output_of(*self._of)

    def document(self) -> dict[str, Any]:
        runtime, job, place = self._of
        output, status = self.value(), task_row(runtime.store, job, place).status
        masked = None if output is None else mask_text(output, self._secrets)
        return {"job_id": job.job_id, "task_id": place.task_id, "status": status, "output": masked}

    def lines(self, width: int) -> Iterator[str]:
        for piece in self._followed() if self._follow else [self.value() or ""]:
            yield from plain(mask_text(overwritten(piece), self._secrets)).splitlines()

    def _followed(self) -> Iterator[str]:
        """What each attempt prints, from the last on that there is: whole lines while it runs, then the rest."""
        shown: dict[int, str | None] = {}  # None: more was printed than is kept of it
        while True:
            seen = outputs_of(*self._of)
            first = min(shown, default=max(seen.by_attempt, default=0))
            for attempt, text in sorted(seen.by_attempt.items()):
                before = shown.setdefault(attempt, "") if attempt >= first else None
                if before is None:
                    continue
                whole = text[: text.rfind("\n") + 1] if attempt == seen.running else text
                is_more = whole.startswith(before)
                shown[attempt] = whole if is_more else None
                yield whole[len(before) :] if is_more else MORE
            if not seen.goes_on:
                return
            sys.stdout.flush()
            time.sleep(SECONDS_BETWEEN)


class Followed(Logs):
    """The log lines of a job, those that there are and each one that comes, until nobody drives the job."""

    def lines(self, width: int) -> Iterator[str]:
        path, wanted = self.runtime.log_path, Wanted.of(self.job.id, **self.wanted)
        if path is None:
            return
        was_over = False  # then all that there is has been written, and is read once more
        for place, records in enumerate(read_on(path, self.job.id)):
            driven = self.runtime.driver(self.job.id) is not None
            told = sorted(filter(wanted.has, records), key=lambda record: str(record.get("time")))
            for record in told if place or self.limit is None else told[max(len(told) - self.limit, 0) :]:
                moment, level, *about = (str(record.get(name) or "") for name in _COLUMNS)
                said = (moment[:19].replace("T", " "), f"{level:7}", *filter(None, about))
                yield plain(mask_text("  ".join(said), self.secrets))
            if was_over:
                return
            was_over = not driven
            sys.stdout.flush()
            time.sleep(0.0 if was_over else SECONDS_BETWEEN)
