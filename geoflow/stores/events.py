"""What happened to the jobs of a store: a row for each change of a job, written in the transaction that makes it.

An ordinary task has none: its attempts tell all of it. Where another geoflow, which does not know of this table, has
driven a job, nothing says so: what a change found (``was``) then is not what the one before it had left.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from geoflow.core.rows import EventRow
from geoflow.stores.checked import event_row
from geoflow.stores.made_later import TABLES, MadeLater
from geoflow.support.text import shorten

_OTHERS = TABLES["events"][1:]
_WRITTEN = (
    f"INSERT INTO events (event_key, {', '.join(_OTHERS)}) VALUES"
    f" ((SELECT coalesce(max(event_key), 0) + 1 FROM events), {', '.join(f'${name}' for name in _OTHERS)})"
)
_PRUNED = (
    "INSERT INTO events (event_key, job_id, happened_at, event, was, stage, tasks, session, pid, host)"
    " SELECT (SELECT coalesce(max(event_key), 0) FROM events) + row_number() OVER (ORDER BY job_key), job_id,"
    " $happened_at, 'pruned', status, stage, 0, $session, $pid, $host FROM job "
)
_WHY = 2_000  # characters
here = cache(socket.gethostname)


class Events(MadeLater):
    """The part of a `geoflow.stores.store.Store` that keeps its jobs' history."""

    # Whose changes these are: the name of a session, and its clock. A runtime says so when it opens the store.
    session: str = ""
    now: Callable[[], float] = staticmethod(time.time)

    def events(self, job_id: str, last: int = 1 << 62) -> list[EventRow]:
        """What happened to the job, in order, as far as it is known: all, or the *last* so many events."""
        if not self.has("events"):
            return []
        sql = f"SELECT {', '.join(EventRow._fields)} FROM events WHERE job_id = ? ORDER BY event_key DESC LIMIT ?"
        return list(map(event_row, reversed(self._rows(sql, job_id, last))))

    def note(
        self,
        connection: Any,
        job_id: str,
        event: str,
        *,
        at: float | None = None,
        was: str | None = None,
        status: str | None = None,
        stage: int = 0,
        tasks: int = 0,
        why: str | None = None,
    ) -> None:
        """Write an event within the transaction of what happened; see `EventRow`."""
        if not self.has("events"):
            self.make(connection, "events")
        what = {"job_id": job_id, "event": event, "was": was, "status": status, "stage": stage, "tasks": tasks}
        self._changed(connection, _WRITTEN, what | {"why": why and shorten(why, _WHY)} | self._signed(at))

    def note_pruned(self, connection: Any, which: str) -> None:
        """Have one event left of each of the jobs that meet *which*, a condition of SQL, and are to be removed."""
        if not self.has("events"):
            self.make(connection, "events")
        connection.execute(f"DELETE FROM events WHERE job_id IN (SELECT job_id FROM job {which})")
        self._changed(connection, _PRUNED + which, self._signed(None))

    def _signed(self, at: float | None) -> dict[str, Any]:
        at = self.now() if at is None else at
        return {"happened_at": at, "session": self.session, "pid": os.getpid(), "host": here()}
