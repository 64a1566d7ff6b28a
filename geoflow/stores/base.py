"""What the engine needs of a store: the rows it reads, the changes it writes, and the protocol of both.

The store holds the truth. One process drives a job at a time, by a lease; every change is one transaction that
names the lease's epoch and the state that it leaves, and is refused when either is no longer so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from geoflow.core.batch import Batch, Completed, NewTasks
from geoflow.core.models import Attempt
from geoflow.core.rows import Again, FailedRow, JobRow, Lease, Move, NewJob, Results, StageRow, Take


class Store(Protocol):
    """A place that keeps jobs, tasks and attempts. Its methods may be called from any thread."""

    @property
    def name(self) -> str:
        """What to call it in messages: a path, or ``:memory:``."""

    def open(self) -> None:
        """Open it now; ``StoreError`` that names the file when that cannot be."""

    # Submitting and taking over

    def create(self, job: NewJob, *, hold: bool = False) -> tuple[JobRow, bool]:
        """The job's row, and whether this call made it: one row, however many submit at once.

        With *hold*, a job that this call makes is this store object's before anyone else sees it: `claim` it next.
        """

    def claim(self, job_key: int, owner: str) -> Lease:
        """Take the job for *owner* (JSON text with ``pid`` and ``since``); every earlier lease ends.

        ``StoreBusy`` when a live process, or another session of this one, drives it.
        """

    def release(self, lease: Lease) -> None:
        """Give the job back; others may claim it at once."""

    def abandon(self, job_key: int) -> None:
        """Let go of a job that this store object may hold, and nobody drives."""

    def driver(self, job_key: int) -> str | None:
        """Who drives the job now, in words, or None when no live process does."""

    def request_cancel(self, job_key: int) -> None:
        """Ask whoever drives the job to cancel it."""

    def cancels_requested(self, job_keys: Sequence[int]) -> list[int]:
        """Those of the jobs that somebody wants cancelled."""

    # Driving: each of these is one transaction, guarded by the lease

    def change_job(
        self,
        lease: Lease,
        event: str,
        *,
        now: float,
        result: str | None = None,
        error: str | None = None,
        traceback: str | None = None,
        moves: Sequence[Move] = (),
        attempts: Sequence[Attempt] = (),
        completed: Sequence[Completed] = (),
        again: Again | None = None,
    ) -> None:
        """Move the job by *event*, together with *moves* of its tasks and *attempts* that ended.

        A ``rerun`` sets the plans of all stages aside, as history, or those that *again* says.
        """

    def end_job(self, lease: Lease, *, error: str | None, now: float) -> None:
        """Write when a failed job's last sibling ended, and why the job failed."""

    def plan(self, lease: Lease, stage: int, tasks: NewTasks, *, now: float) -> StageRow:
        """Write a stage's tasks and make it the current stage; ``DefinitionError`` when a task id is taken."""

    def commit(
        self,
        lease: Lease,
        moves: Sequence[Move],
        attempts: Sequence[Attempt],
        completed: Sequence[Completed] = (),
        take: Take | None = None,
    ) -> list[Batch]:
        """Write what became of tasks, then start those to *take*: a batch for each of its groups and sizes, in order.

        A batch may have fewer tasks than wished for: it ends before the first one of another type or history. Nothing
        is written when a task is not in the state that it should leave, or none is queued where some were to start.
        """

    # Reading

    def job(self, job_id: str) -> JobRow | None: ...

    def find(self, prefix: str) -> list[JobRow]:
        """The jobs whose id begins with *prefix*."""

    def jobs(self) -> list[JobRow]:
        """All jobs, oldest first."""

    def unended(self) -> list[JobRow]:
        """Those of which something is still to be done, oldest first."""

    def latest(self) -> JobRow | None:
        """The job that was submitted last."""

    def stages(self, job_key: int) -> list[StageRow]:
        """The current plans of the job's stages, in order."""

    def counts(self, stage: StageRow) -> dict[str, int]:
        """How many of the stage's tasks are in each state."""

    def tried_before(self, stage: StageRow) -> list[tuple[int, float | None]]:
        """(key, not_before) of the queued tasks that are not new: they failed, or were lost, before."""

    def largest_first(self, stage: StageRow) -> list[int]:
        """The keys of the queued tasks that are new, by their size; see `geoflow.core.models.Stage`."""

    def codes(self, stage: StageRow) -> list[tuple[str, str, int]]:
        """(task type, fingerprint, how many) of the code that the stage's completed tasks ran with."""

    def completed_with_other_code(self, stage: StageRow, codes: Mapping[str, str]) -> list[int]:
        """The keys of the stage's completed tasks that ran with other code than *codes* has for their type."""

    def in_state(self, stage: StageRow, status: str) -> list[tuple[int, int, int]]:
        """(key, attempt, losses) of the stage's tasks that are *status*."""

    def results(self, stage: StageRow) -> Iterator[Results]:
        """The results of the stage's completed tasks, in task order, some at a time: no text is long."""

    def results_bytes(self, stage: StageRow) -> int:
        """How long these results are, all of them together."""

    def finalize_rows(self, job_key: int) -> Iterator[str]:
        """The completed tasks of all current stages in order, for finalize: JSON arrays of four columns of some each.

        They are the ids, the task types, the results, and when the tasks ended, in microseconds since the epoch.
        """

    def failed(self, stage: StageRow) -> list[FailedRow]:
        """The stage's failed tasks, in task order."""

    def reading(self) -> AbstractContextManager[Any]:
        """A connection to read the views with, which holds up nobody who writes."""

    def close(self) -> None:
        """Close every connection. The store can be opened again."""
