"""Jobs that are not needed any more: which they are, and with ``confirm`` they are removed, with what they have saved.

A job that somebody drives is never removed, and none that has changed since it was looked at. What others took over
stays theirs, with its files. Whoever is killed in the middle has removed some jobs whole, and the rest is as it was;
files that they had saved are then removed the next time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from geoflow.core.rows import SeenJob
from geoflow.engine.runtime import Runtime
from geoflow.errors import ParameterError, StoreError
from geoflow.render.report import Report, Table
from geoflow.stores import questions
from geoflow.stores.saved_files import saved_bytes, sweep
from geoflow.stores.store import Store
from geoflow.support import logs
from geoflow.support.masking import mask
from geoflow.support.text import count, human_bytes
from geoflow.views.chosen import Choice
from geoflow.views.model import JobView
from geoflow.views.snapshot import has_ended, listing

_SHOWN = 20
# While jobs run, a file that holds no more than this is made smaller all the same: they wait for a second or two.
_WAITED_FOR = 100_000_000  # bytes
_LEAST = 1_000_000  # bytes of room that are worth it
logger = logs.logger_of("geoflow.store")


class Removed(NamedTuple):
    """A job that is, or would be, removed. ``saved`` is how many bytes of files it has."""

    job_id: str
    job_type: str
    state: str
    created_at: float
    ended_at: float | None
    tasks: int
    saved: int


@dataclass(repr=False)
class Pruned(Report):
    """What is, or without ``confirm`` would be, removed; ``left`` are jobs that have changed in between.

    ``files`` and ``file_bytes`` are what was saved and is gone, ``store_bytes`` how large the store was and is.
    """

    jobs: tuple[Removed, ...]
    confirmed: bool
    secrets: tuple[str, ...]
    left: tuple[str, ...] = ()
    files: int = 0
    file_bytes: int = 0
    store_bytes: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()
    exit_status: int = 0  # for a shell

    @property
    def title(self) -> str:
        if not self.jobs:
            return "No job is meant: nothing was removed."
        number, tasks = count(len(self.jobs), "job"), count(sum(job.tasks for job in self.jobs), "task")
        if self.confirmed:
            return f"{number} with {tasks} {'was' if len(self.jobs) == 1 else 'were'} removed."
        return f"{number} with {tasks} would be removed: --confirm (confirm=True) does it."

    def parts(self) -> Iterator[str | Table]:
        heads = ("job", "type", "state", "submitted (UTC)", "tasks", "saved files")
        rows = [
            (job.job_id[:8], job.job_type, job.state, _minute(job.created_at), f"{job.tasks:,}", _size(job.saved))
            for job in self.jobs[:_SHOWN]
        ]
        if rows:
            yield [heads, *rows]
        if len(self.jobs) > _SHOWN:
            yield f"… and {count(len(self.jobs) - _SHOWN, 'more job')}."
        yield from self.notes

    def document(self) -> dict[str, Any]:
        """For programs: the jobs in rows, times as ISO 8601."""
        jobs = [
            job._asdict() | {name: _iso(getattr(job, name)) for name in ("created_at", "ended_at")} for job in self.jobs
        ]
        before, after = self.store_bytes
        told = {"confirmed": self.confirmed, "jobs": mask(jobs, self.secrets), "left": list(self.left)}
        removed = {"files": self.files, "file_bytes": self.file_bytes}
        return told | removed | {"store_bytes_before": before, "store_bytes_after": after, "notes": list(self.notes)}


def prune(
    runtime: Runtime, choice: Choice, *, before: float | None = None, keep: int | None = None, confirm: bool = False
) -> Pruned:
    """See `Session.prune`; *before* in seconds since the epoch."""
    if choice == Choice() and before is None and keep is None:
        raise ParameterError(
            "All jobs are meant, which may be a mistake: say which by before, state, job_type or keep. "
            "To remove all there are is reset."
        )
    if keep is not None and keep < 0:
        raise ParameterError(f"keep cannot be {keep}: it is the number of jobs that stay.")
    if "processing" in choice.states:
        raise ParameterError("A job that runs is not removed: cancel it first, or wait for its end.")
    views = [view for view in listing(runtime.store, runtime.clock.now(), None) if view.driver is None]
    meant = [view for view in views if choice.means(view) and (choice.states or has_ended(view))]
    meant = [view for view in meant[keep or 0 :] if before is None or _last_sign(runtime.store, view) < before]
    return _removed(runtime, meant, confirm)


def reset(runtime: Runtime, *, confirm: bool = False) -> Pruned:
    """See `Session.reset`."""
    views = listing(runtime.store, runtime.clock.now(), None)
    if not confirm:
        return _removed(runtime, views, False)
    before, _ = runtime.store.room()
    jobs = tuple(_row(runtime, view) for view in views)
    runtime.store.clear()
    return _tidied(runtime, Pruned(jobs, True, runtime.settings.secrets), before)


def _removed(runtime: Runtime, meant: Sequence[JobView], confirm: bool) -> Pruned:
    jobs = {view.job_id: _row(runtime, view) for view in meant}
    secrets = runtime.settings.secrets
    if not confirm or not jobs:
        return Pruned(tuple(jobs.values()), False, secrets, store_bytes=(runtime.store.room()[0],) * 2)
    before, _ = runtime.store.room()
    removed = []
    for ids in runtime.store.remove(
        SeenJob(view.job_id, view.status, view.ended_at, jobs[view.job_id].tasks) for view in meant
    ):
        removed += ids
        for job_id in ids:
            logger.info("removed", extra={"job_id": job_id, "job_type": jobs[job_id].job_type})
    left = tuple(jobs.keys() - set(removed))
    return _tidied(runtime, Pruned(tuple(jobs[job_id] for job_id in removed), True, secrets, left), before)


def _tidied(runtime: Runtime, pruned: Pruned, before: int) -> Pruned:
    """What is left of jobs that are gone is removed as well, and their room given back."""
    store, notes = runtime.store, []
    if pruned.left:
        shown = ", ".join(job_id[:8] for job_id in pruned.left[:5])
        notes.append(f"{count(len(pruned.left), 'job')} changed meanwhile and stayed: {shown}.")
    pruned.files, pruned.file_bytes = sweep(store, runtime.saved_files)
    if pruned.files:
        notes.append(f"{count(pruned.files, 'saved file')} of theirs went with them: {human_bytes(pruned.file_bytes)}.")
    if kept := sum(saved_bytes(runtime.saved_files, job.job_id) for job in pruned.jobs):
        notes.append(f"{human_bytes(kept)} that they had saved stay: other jobs have them by now.")
    if (why := _shrunk(runtime)) is not None:
        notes.append(why)
    pruned.store_bytes = (before, store.room()[0])
    if pruned.store_bytes[1] < before:
        notes.append(f"The store has {human_bytes(pruned.store_bytes[1])}, and had {human_bytes(before)}.")
    pruned.notes = tuple(notes)
    return pruned


def _shrunk(runtime: Runtime) -> str | None:
    """Give the room back to the disk; why it was not, if so."""
    size, free = runtime.store.room()
    if free < _LEAST:
        return None
    room = f"{human_bytes(free)} in the file are free now, for what comes"
    drives = (runtime.store.driver(row.job_key) is not None for row in runtime.store.unended())
    if size - free > _WAITED_FOR and any(drives):
        return f"{room}: while jobs run it is not made smaller. The next prune does that."
    try:
        runtime.store.shrink()
    except StoreError as exc:
        return f"{room}: it could not be made smaller. {exc}"
    return None


def _row(runtime: Runtime, view: JobView) -> Removed:
    tasks, saved = sum(stage.tasks for stage in view.stages), saved_bytes(runtime.saved_files, view.job_id)
    return Removed(view.job_id, view.job_type, view.state, view.created_at, view.ended_at, tasks, saved)


def _last_sign(store: Store, view: JobView) -> float:
    """When the job ended; of one that has not, when something last happened that the store knows of."""
    if view.ended_at is not None:
        return view.ended_at
    with store.reading() as connection:
        plans = questions.plans(connection, view.job_id)
        spans = [time for plan in plans for time in (plan.created_at, questions.span(connection, *plan[-2:])[1])]
    return max([view.created_at, *(time / 1e6 for time in spans if time is not None)])


def _minute(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


def _size(size: int) -> str:
    return human_bytes(size) if size else ""
