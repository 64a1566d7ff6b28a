"""Who drives a job of a store of tables: it is submitted, claimed by a lease, asked to end, and let go of."""

from __future__ import annotations

import abc
import contextlib
import json
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from geoflow.core.models import JobStatus
from geoflow.core.rows import JobRow, Lease, NewJob
from geoflow.errors import LeaseLost, StoreBusy, StoreError
from geoflow.stores.checked import job_row
from geoflow.stores.events import Events
from geoflow.stores.job_locks import Ownership
from geoflow.stores.reading import JOB_COLUMNS
from geoflow.support.text import shorten

# Of a claim, in the history of a job that nobody drives and that is not put back.
_LEFT = "what drove it had ended without a word"


class JobLeases(Events):
    """The part of a `geoflow.stores.store.Store` that says which session may change a job.

    Two things say so together: the job's lock, which ends with its process, and its epoch in the row, which tells the
    lease of now from all earlier ones.
    """

    def __init__(self, name: str, ownership: Ownership) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._ownership = ownership
        self._epochs: dict[int, int] = {}
        # Of jobs that are driven: how many current plans they have and the last one's key, hashes of the ids of all
        # but the last one, and its ids.
        self._ids: dict[int, tuple[Any, set[int], Sequence[str]]] = {}

    @abc.abstractmethod
    def _transaction(self, lease: Lease | None = None) -> AbstractContextManager[Any]:
        """One transaction, refused when *lease* is no longer the job's."""

    @abc.abstractmethod
    def _next_key(self, connection: Any, table: str) -> int:
        """The key of the next row of *table*, which no row has had before."""

    def create(self, job: NewJob, *, owner: str | None = None) -> tuple[JobRow, bool]:
        """The job's row, and whether this call made it: one row, however many submit at once.

        A job that this call makes is claimed for *owner*, see `claim`, before anyone else sees it: see `held`.
        """
        held: int | None = None
        try:
            with self._transaction() as connection:
                created = self._changed(
                    connection,
                    "INSERT INTO job (job_key, job_id, job_type, status, stages, parameters, created_at, source, epoch,"
                    " owner)"
                    " VALUES ($job_key, $job_id, $job_type, 'queued', $stages,"
                    " $parameters, $created_at, $source, $epoch, $owner) ON CONFLICT (job_id) DO NOTHING",
                    {
                        **job._asdict(),
                        "job_key": self._next_key(connection, "job"),
                        "epoch": 0 if owner is None else 1,
                        "owner": owner,
                    },
                )
                row = job_row(
                    connection.execute(f"SELECT {JOB_COLUMNS} FROM job WHERE job_id = ?", (job.job_id,)).fetchone()
                )
                if created:
                    about: dict[str, Any] = {"at": job.created_at, "status": row.status, "stage": row.stage}
                    self.note(connection, job.job_id, "submitted", **about)
                # Before anyone can see it: else it looks interrupted until it is claimed, and a resume may take it.
                if created and owner is not None and self._ownership.acquire(row.job_key):
                    held = row.job_key
        except BaseException:
            if held is not None:
                self._ownership.release(held)
            raise
        if held is not None:
            self._epochs[held] = row.epoch
        if not created:  # a store that cannot take that in, as on a full disk, is looked at all the same
            with contextlib.suppress(StoreError), self._transaction() as connection:
                self.note(connection, row.job_id, "found again", was=row.status, status=row.status, stage=row.stage)
        return row, created == 1

    def held(self, row: JobRow) -> Lease | None:
        """The lease of a job that this store object has claimed, as `create` does; None where it has not."""
        is_held = row.epoch > 0 and self._epochs.get(row.job_key) == row.epoch
        return Lease(row.job_key, row.job_id, row.epoch) if is_held else None

    def claim(self, job_key: int, owner: str) -> Lease:
        """Take the job for *owner* (JSON text with ``pid`` and ``since``); every earlier lease ends.

        ``StoreBusy`` when a live process, or another session of this one, drives it.
        """
        with self._lock:
            if not self._ownership.acquire(job_key):
                rows = self._rows("SELECT job_id FROM job WHERE job_key = ?", job_key)
                name, driver = rows[0][0][:8] if rows else job_key, self.driver(job_key) or "another process"
                raise StoreBusy(
                    f"Job {name} is driven by {driver}. Look at it from here, or cancel it or end that process first."
                )
            try:
                with self._transaction() as connection:
                    claimed = connection.execute(
                        "UPDATE job SET epoch = epoch + 1, owner = ? WHERE job_key = ?"
                        " RETURNING job_id, epoch, status, stage",
                        (owner, job_key),
                    ).fetchone()
                    if claimed is None:
                        raise StoreError(f"{self.name} has no job with the key {job_key}.")
                    job_id, epoch, status, stage = claimed
                    why = _LEFT if status == JobStatus.PROCESSING else None
                    self.note(connection, job_id, "claimed", was=status, status=status, stage=stage, why=why)
            except BaseException:
                if job_key not in self._epochs:
                    self._ownership.release(job_key)
                raise
            self._epochs[job_key] = epoch
        return Lease(job_key, job_id, epoch)

    def release(self, lease: Lease) -> None:
        """Give the job back; others may claim it at once."""
        with self._lock:
            if self._epochs.get(lease.job_key) == lease.epoch:
                del self._epochs[lease.job_key]
                self._ids.pop(lease.job_key, None)
                self._ownership.release(lease.job_key)

    def abandon(self, job_key: int) -> None:
        """Let go of a job that this store object may hold, and nobody drives."""
        with self._lock:
            self._epochs.pop(job_key, None)
            self._ids.pop(job_key, None)
            self._ownership.release(job_key)

    def driver(self, job_key: int) -> str | None:
        """Who drives the job now, in words, or None when no live process does."""
        with self._lock:
            if self._ownership.is_free(job_key):
                return None
            rows = self._rows("SELECT owner FROM job WHERE job_key = ?", job_key)
            pid, since = _owner(rows[0][0]) if rows else ("?", "")
            return f"process {pid}{since}"

    def request_cancel(self, job_key: int) -> None:
        """Ask whoever drives the job to cancel it."""
        with self._transaction() as connection:
            asked = connection.execute(
                "UPDATE job SET cancel_requested = 1 WHERE job_key = ? RETURNING job_id, status, stage", (job_key,)
            ).fetchone()
            if asked is not None:
                job_id, status, stage = asked
                self.note(connection, job_id, "cancel asked", was=status, status=status, stage=stage)

    def cancels_requested(self, job_keys: Sequence[int]) -> list[int]:
        """Those of the jobs that somebody wants cancelled."""
        among = f"job_key IN ({', '.join(map(str, job_keys))})"
        return [key for (key,) in self._rows(f"SELECT job_key FROM job WHERE {among} AND cancel_requested <> 0")]

    def _verify(self, connection: Any, lease: Lease) -> None:
        row = connection.execute("SELECT epoch FROM job WHERE job_key = ?", (lease.job_key,)).fetchone()
        if row is None or row[0] != lease.epoch:
            raise LeaseLost(
                f"Job {lease.job_id[:8]} was taken over by another session; this one has stopped driving it. "
                "Nothing was written: look at it with session.job(...)."
            )


def _owner(text: str | None) -> tuple[str, str]:
    """The process and the time that *text* (JSON text of a row) names, as far as it does."""
    try:
        owner = json.loads(text or "{}")
        pid, since = owner.get("pid", "?"), owner.get("since")
    except (ValueError, AttributeError, TypeError, RecursionError):
        return "?", ""
    return shorten(str(pid), 20), f", since {shorten(str(since), 40)}" if since else ""
