"""Read from a store what can be seen of its jobs at one moment, with secrets masked.

The cost hardly grows with the tasks: states are counted in SQL, and few of the failures are looked at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from geoflow.core.models import JobStatus, RunningCall
from geoflow.core.payloads import is_fallback
from geoflow.core.rows import JobRow, StageRow
from geoflow.errors import JobNotFound
from geoflow.jobtypes.contract import PROBE_OF
from geoflow.stores import questions
from geoflow.stores.events import here
from geoflow.stores.store import Store
from geoflow.support.ipython import shell
from geoflow.support.jsonable import from_json
from geoflow.support.masking import DEFAULT_SECRETS, mask, mask_text
from geoflow.support.text import cut, human_bytes, overwritten, plain, shorten
from geoflow.views.changed import inputs_changed
from geoflow.views.failures import groups
from geoflow.views.model import ACTIONS, READ, JobView, RunningTask, readable
from geoflow.views.past import LOOKED_AT as LAST_EVENTS
from geoflow.views.past import stopped
from geoflow.views.stages import STATES, StageView
from geoflow.views.tracebacks import fold

LISTED = 50
LOOKED_AT = 10_000  # tasks whose inputs are compared with those of now
SAMPLE = 200  # tasks of a stage whose times are looked at, however many it has


def snapshot(
    store: Store,
    job_id: str,
    now: float,
    secrets: Sequence[str] = DEFAULT_SECRETS,
    running: Callable[[JobRow], Sequence[RunningCall]] = lambda row: (),
) -> JobView:
    """The job as *store* has it, with what looks like *secrets* masked. ``JobNotFound`` when there is none.

    While somebody drives it, *running* is asked what its workers are at.
    """
    row = store.job(job_id)
    if row is None:
        raise JobNotFound(f"{store.name} has no job {shorten(job_id, 64)!r}: session.jobs() lists those it has.")
    driver = store.driver(row.job_key)
    row = store.job(job_id) or row  # again: it may have ended since, and must not be taken for interrupted
    plans = _known(row, store.stages(row.job_key))
    reusing = store.has("reused")
    calls = running(row) if driver and not has_ended(row) else ()
    with store.reading() as connection:
        outline = _outline(connection, row, plans, driver, now, reusing=reusing)
        view = _with_times(connection, outline, row, plans, now)
        at_work = _running(connection, view, plans, calls, secrets) if calls else ()
        errors = groups(connection, _with_failures(view, plans), secrets)
    error, fallback = row.error, _fallback(row.result)
    if fallback:
        error = f"finalize_job failed: {fallback.get('error_type')}: {fallback.get('finalization_error')}"
    view = view._replace(
        inputs_changed=0 if driver or view.status != "completed" else inputs_changed(store, row, LOOKED_AT)
    )
    return view._replace(
        running=at_work,
        parameters=_parameters(row.parameters, secrets),
        error=error and cut(mask_text(error, secrets), 1000),
        traceback=row.traceback and cut(fold(mask_text(row.traceback, secrets)), 2500),
        errors=errors,
        result_preview=readable(row.result, 1500, secrets) if row.result and not fallback else None,
        hint=None if driver else _hint(view),
        past="" if driver or view.status == "completed" else _past(store, view, now),
    )


def _past(store: Store, view: JobView, now: float) -> str:
    return stopped(store.events(view.job_id, LAST_EVENTS), view.stages, store.session, here(), now)


def _running(
    connection: Any, view: JobView, plans: Sequence[StageRow], calls: Sequence[RunningCall], secrets: Sequence[str]
) -> tuple[RunningTask, ...]:
    """Those of the *calls* that are tasks of the job."""
    found = questions.running_tasks(connection, plans, [call.key for call in calls])
    means = {stage.number: stage.ran for stage in view.stages}
    return tuple(
        RunningTask(
            *(found[call.key][0], found[call.key][1], call.seconds, call.memory, means.get(found[call.key][1])),
            *(call.progress and call.progress._replace(text=mask_text(call.progress.text, secrets)),),
            mask_text(overwritten(call.printed or ""), secrets),
        )
        for call in calls
        if call.key in found
    )


def _with_failures(view: JobView, plans: Sequence[StageRow]) -> list[StageRow]:
    return [plan for stage, plan in zip(view.stages, plans, strict=False) if stage.counts.get("failed")]


def listing(
    store: Store, now: float, limit: int | None = LISTED, chosen: Callable[[JobView], bool] = lambda view: True
) -> tuple[JobView, ...]:
    """The outlines of the last *limit* jobs of *store* that are *chosen*, or of all of them, newest first."""
    views: list[JobView] = []
    with store.reading() as connection:
        rows = questions.outlines(connection, limit)
        while rows:
            plans = questions.plans_of(connection, rows[-1].job_key, rows[0].job_key)
            # Who drives a job that has ended, to finalize it once more, is not told in a list.
            drivers = (None if has_ended(row) else store.driver(row.job_key) for row in rows)
            known = (_known(row, plans.get(row.job_key, [])) for row in rows)
            outlined = zip(rows, known, drivers, strict=True)
            views += filter(chosen, (_outline(connection, row, plans, driver, now) for row, plans, driver in outlined))
            if limit is None or len(views) >= limit:
                break
            rows = questions.outlines(connection, max(limit, LISTED), rows[-1].job_key)
    return tuple(views[:limit])


def outlined(store: Store, row: JobRow, now: float) -> JobView:
    """The outline of the job of that *row*."""
    driver = None if has_ended(row) else store.driver(row.job_key)
    if driver is None and not has_ended(row):
        row = store.job(row.job_id) or row  # it may have ended since, and must not be taken for interrupted
    with store.reading() as connection:
        return _outline(connection, row, _known(row, store.stages(row.job_key)), driver, now)


def has_ended(row: JobRow | JobView) -> bool:
    """Whether the job is at its end."""
    return row.ended_at is not None and row.status not in (JobStatus.QUEUED, JobStatus.PROCESSING)


def _with_times(connection: Any, view: JobView, row: JobRow, plans: Sequence[StageRow], now: float) -> JobView:
    """With how long its tasks take, and will take yet."""
    began, stages = _since(row), list(view.stages)
    limits = _limits(row) if view.driver and not has_ended(row) else {}
    for place, plan in enumerate(plans):
        # Machines' clocks differ, and none of them ran backwards.
        means = questions.means(connection, plan, began, SAMPLE) if plan.task_count else [None] * 3
        ran, waited, share = (mean and max(mean, 0.0) for mean in means)
        stages[place] = stages[place]._replace(ran=ran, waited=waited, limit=limits.get(plan.stage))
        if stages[place].at_work:
            stages[place] = _at_its_pace(stages[place], now - max(began, plan.planned_at), share)
    left = next((stage.left for stage in stages if stage.left is not None), None)
    return view._replace(stages=tuple(stages), remaining=left)


def _known(row: JobRow, plans: Sequence[StageRow]) -> list[StageRow]:
    """The plans of stages that the job has: a store of another program's making may tell of more."""
    declared = len(from_json(row.stages))
    return [plan for plan in plans if 1 <= plan.stage <= declared]


def _since(row: JobRow) -> float:
    """When the job was last taken up, as far as its owner says: to the second."""
    try:
        return datetime.fromisoformat(json.loads(row.owner or "{}")["since"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return row.created_at


def _limits(row: JobRow) -> dict[int, str]:
    """By stage, the limits that whoever drives the job keeps to, by its own account."""
    try:
        told = json.loads(row.owner or "{}").get("limits", {})
        return {int(stage): plain(shorten(str(limit), 100)) for stage, limit in told.items()}
    except (AttributeError, ValueError):
        return {}


def _at_its_pace(stage: StageView, seconds: float, share: float | None) -> StageView:
    """With its pace, that of the *share* of its tasks that ended in this run, and how long the rest takes so."""
    ended = sum(stage.counts.get(state, 0) for state in ("completed", "failed"))
    left, lately = stage.tasks - ended, ended * (1.0 if share is None else share)
    if left <= 0 or lately <= 0 or seconds <= 0:
        return stage
    return stage._replace(rate=lately / seconds, left=seconds * left / lately)


def _outline(
    connection: Any,
    row: JobRow,
    plans: Sequence[StageRow],
    driver: str | None,
    now: float,
    *,
    reusing: bool = False,
) -> JobView:
    until = now if driver else None
    times = (row.created_at, row.started_at, row.ended_at, _elapsed(row.started_at, row.ended_at, until))
    stages = tuple(_stages(connection, row, plans, until, reusing))
    failed = any(stage.counts.get("failed") for stage in stages)
    with_errors = row.status == JobStatus.COMPLETED and (failed or bool(_fallback(row.result)))
    return JobView(row.job_id, row.job_type, str(row.status), with_errors, *times, _named(driver), stages)


def _named(driver: str | None) -> str | None:
    """Who drives a job, as who looks knows it: a number tells nobody that it is this very process."""
    who, since = driver.partition(",")[::2] if driver else ("", "")
    if who != f"process {os.getpid()}":
        return driver
    return f"this {'process' if shell() is None else 'notebook'}{since and f',{since}'}"


def _elapsed(started_at: float | None, ended_at: float | None, now: float | None) -> float | None:
    until = now if ended_at is None else ended_at
    return None if until is None or started_at is None else max(until - started_at, 0.0)


def _stages(
    connection: Any, row: JobRow, plans: Sequence[StageRow], now: float | None, reusing: bool
) -> Iterator[StageView]:
    for place, declared in enumerate(from_json(row.stages)):
        names = (place + 1, declared["name"], declared["task_type"], declared.get("parallelism", "single"))
        if place >= len(plans):
            yield StageView(*names, False, 0, {}, None)
            continue
        plan, following = plans[place], plans[place + 1] if place + 1 < len(plans) else None
        let_pass = plan.stage_key in row.let_pass
        # Else all tasks of a stage that the job has left are completed, and need not be counted.
        left = following or row.status == JobStatus.COMPLETED
        others = questions.not_completed(connection, plan) if let_pass or not left else []
        time = _elapsed(plan.planned_at, following.planned_at if following else row.ended_at, now)
        is_driven = now is not None
        yield StageView(*names, True, plan.task_count, counted(plan.task_count, others), time)._replace(
            waiting=sum(some.waiting for some in others) if is_driven else 0,
            let_pass=let_pass,
            reused=questions.reused(connection, plan) if reusing else 0,
            at_work=is_driven and following is None and not has_ended(row),
        )


def counted(tasks: int, others: Iterable[questions.InState]) -> dict[str, int]:
    """How many of so many *tasks* are in which state, best first; *others* has all but the completed ones."""
    counts = {some.status: some.tasks for some in others}
    counts["completed"] = tasks - sum(counts.values())
    return {state: counts[state] for state in reversed(STATES) if counts.get(state)}


def _fallback(result: str | None) -> Mapping[str, Any]:
    """The result, when it is what stands in for finalize's; that says so at its beginning."""
    value = from_json(result) if result and '"completed_with_errors"' in result[:500] else None
    return value if isinstance(value, dict) and is_fallback(value) else {}


def _hint(view: JobView) -> str | None:
    verb = next(iter(view.actions), None)
    is_probe = view.job_type.startswith(PROBE_OF)
    held = "probe.job" if is_probe else "job"  # what they are likely to have it as
    if view.ended_at is None or view.status in ("queued", "processing") or (is_probe and view.status == "cancelled"):
        # It was interrupted: the call that would have given them the job, or the probe, has never returned.
        held = f'session.job("{view.job_id[:8]}")'
    return verb and f"{held}.{verb}()  # {ACTIONS[verb][1]}"


def _parameters(text: str, secrets: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if len(text) >= READ:
        return (("parameters", f"{human_bytes(len(text))} of JSON: see job.parameters"),)
    masked = mask(from_json(text), secrets)
    shown = [(shorten(name, 60), shorten(json.dumps(value, ensure_ascii=False), 200)) for name, value in masked.items()]
    return (*shown[:20], ("…", f"{len(shown) - 20} more")) if len(shown) > 20 else tuple(shown)
