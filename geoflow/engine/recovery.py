"""A job is taken up: what a dead engine left is accounted for, then it stands where the store and the caller say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from geoflow.core.models import JobStatus
from geoflow.core.rows import JobRow, Move, StageRow
from geoflow.core.stage import lost_with_engine
from geoflow.engine.active_job import ActiveJob
from geoflow.engine.events import tell_failure
from geoflow.engine.lining_up import lined_up
from geoflow.executors.returned import Returned
from geoflow.stores.store import Store


def recover(
    job: ActiveJob, store: Store, now: float, ran_at_death: Callable[[str, str], Mapping[int, str | None] | None]
) -> None:
    """Make *job*, which is claimed, ready for the loop.

    *ran_at_death* is asked with the last owner (JSON text) and the job's id which tasks ran, and what they had printed.
    """
    ran = ran_at_death(job.row.owner or "{}", job.job_id)
    row, planned = job.row, _planned(store, job.row)
    if planned is not None:
        left = store.in_state(planned, "processing")
        if left:
            store.commit(job.lease, *lost_with_engine(left, ran))
    if job.intent in ("resume", "retry") and job.row.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        states = ("failed",) if job.intent == "retry" else ("failed", "cancelled")
        moves = [] if planned is None else _resets(store, planned, states)
        told = "retried" if job.intent == "retry" else None
        store.change_job(job.lease, "resume", now=now, moves=moves, told=told)
    elif job.intent == "rerun":
        moves = _to_do_over(store, job) if job.again.keep else []
        store.change_job(job.lease, "rerun", now=now, moves=moves, again=job.again)
    if job.lease.epoch > 1 or job.intent == "rerun":  # else it is new
        job.anew = store.anew(job.row.job_key)
        row = store.job(job.job_id) or row
        planned = _planned(store, row)
    job.stand_at(row)
    if planned is None:
        job.begin(None)
        return
    counts, tried = store.counts(planned), store.tried_before(planned)
    failures = store.failed(planned) if counts.get("failed") else []
    alone = store.crowded(planned) if tried and job.options.budget is not None else []
    state = {"counts": counts, "tried": tried, "alone": alone, "failures": failures}
    job.begin(planned, **state, **lined_up(job, store, planned))


def take_in(job: ActiveJob, store: Store, now: float, returned: Iterable[Returned]) -> None:
    """Write what calls of *job* had *returned* to an engine that is gone: that of attempts that are still out."""
    planned = _planned(store, job.row)
    if planned is None or planned.stage > len(job.job_type.stages):  # to be set aside
        return
    out = {key: attempt for key, attempt, _ in store.in_state(planned, "processing")}
    job.begin(planned, counts={"processing": len(out)})
    for chunk in returned:
        keys = frozenset(each.key for each in chunk.attempts if out.get(each.key) == each.attempt)
        if keys and chunk.job_id == job.job_id and chunk.epoch < job.lease.epoch:
            for attempt, task in job.tasks.settle(chunk.report(keys), now):
                tell_failure(job, attempt, task.task_id, task.task_type)
            for key in keys:
                del out[key]
    changes = job.tasks.take_changes()
    if any(changes):
        store.commit(job.lease, *changes)


def _planned(store: Store, row: JobRow) -> StageRow | None:
    """The plan of the stage that the job is at, where there is one."""
    return next((stage for stage in store.stages(row.job_key, whole=True) if stage.stage == row.stage), None)


def _resets(store: Store, planned: StageRow, states: Sequence[str] = ("failed", "cancelled")) -> list[Move]:
    ended = (store.in_state(planned, state) for state in states)
    return [Move("reset", [key for key, _, _ in tasks]) for tasks in ended]


def _to_do_over(store: Store, job: ActiveJob) -> list[Move]:
    """What puts back the tasks of the stage to do over: all that did not complete, or not with the code of now."""
    planned = next(row for row in store.stages(job.row.job_key, whole=True) if row.stage == job.again.stage)
    if job.again.reuse == "repair":  # which tasks are stale is no matter of it
        return _resets(store, planned)
    codes = {name: code.fingerprint for name, code in job.codes.items()}
    return [*_resets(store, planned), Move("redo", store.completed_with_other_code(planned, codes))]
