"""Which tasks of a plan are complete already: those that another attempt, whose result they take over, has done.

When in doubt a task runs: it takes over a result only where its type, its parameters, the code of now and the state of
every file that its parameters name are known to be those that the result was made with.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from geoflow.core.batch import NewTasks
from geoflow.core.chunks import Look
from geoflow.core.models import Stage
from geoflow.core.rows import Keyed, TakenOver
from geoflow.engine.active_job import ActiveJob
from geoflow.jobtypes.contract import Registered, accepts_context, task_id
from geoflow.jobtypes.inputs import SAVED, Inputs, are_as_left, not_taken, outputs_of, saved_in
from geoflow.stores.store import Store
from geoflow.support.jsonable import canonical, from_json, to_json

FAN_IN_UNIT = "fan_in_aggregate"


def look_of(job: ActiveJob, stage: Stage) -> Look | None:
    """What is to be looked at as *stage* is planned, if anything is."""
    reusing = _reuses(job, stage)
    if not reusing and not stage.inputs:
        return None
    unit = (task_id(job.job_id, stage.number, FAN_IN_UNIT), stage.task_type, stage.number) if stage.is_fan_in else None
    ignored = not_taken(job.job_type.handlers[stage.task_type])
    return Look(stage.inputs, stage.inputs_by == "content", ignored, reusing, unit)


def _reuses(job: ActiveJob, stage: Stage) -> bool:
    mode = job.anew.mode if job.anew is not None else None
    if mode == "nothing":
        return False
    return stage.reuse if stage.reuse is not None else job.options.reuse or mode == "update"


class _Identity:
    """What a task is known by: its type and its parameters, and itself where its handler is told which one it is."""

    def __init__(self, job: ActiveJob) -> None:
        self._job_id = job.job_id
        handlers = job.job_type.handlers
        self._told_who = {name for name, handler in handlers.items() if accepts_context(handler)}
        self._ignored = {name: not_taken(handler) for name, handler in handlers.items()}

    def __call__(self, task_type: str, parameters: str, task_id: str, task_index: int) -> str:
        who = f"{self._job_id} {task_id} {task_index}" if task_type in self._told_who else ""
        if ignored := self._ignored.get(task_type):
            parameters = to_json({name: value for name, value in from_json(parameters).items() if name not in ignored})
        told = f"{task_type}\n{who}\n".encode() + canonical(parameters)
        return hashlib.blake2b(told, digest_size=16).hexdigest()


def taken_over(job: ActiveJob, store: Store, number: int, tasks: NewTasks) -> TakenOver:
    """What the tasks of the plan of stage *number* take over, and what they are known by."""
    is_repair = job.anew is not None and job.anew.mode == "repair"
    if not is_repair and not tasks.inputs:
        return TakenOver()
    stage, identity = job.job_type.stages[number - 1], _Identity(job)
    columns = zip(tasks.task_types, tasks.parameters, tasks.task_ids, range(len(tasks.task_ids)), strict=True)
    digests = [identity(*task) for task in columns]
    reused = dict(_repaired(job, store, number, identity, digests)) if is_repair else {}
    keyed = [
        Keyed(place, digest, inputs)
        for place, (digest, inputs) in enumerate(zip(digests, tasks.inputs, strict=False))
        if inputs is not None and place not in reused
    ]
    if _reuses(job, stage) and not _looks_at_the_world(job, stage):
        reused |= _unchanged(job, store, stage, tasks, keyed)
    return TakenOver(reused, [one for one in keyed if one.place not in reused])


def _repaired(
    job: ActiveJob, store: Store, stage: int, identity: _Identity, digests: list[str]
) -> Iterator[tuple[int, int]]:
    """What is the same as in the plans that the repair has set aside."""
    assert job.anew is not None
    known: dict[str, int] = {}
    for before in store.completed_before(job.row.job_key, stage, job.anew.since):
        if _is_of_now(job, before.task_type, before.code):
            same = identity(before.task_type, before.parameters, before.task_id, before.task_index)
            known[same] = before.attempt_key
    return ((place, known[digest]) for place, digest in enumerate(digests) if digest in known)


def _is_of_now(job: ActiveJob, task_type: str, version: str) -> bool:
    code = job.codes.get(task_type)
    return code is not None and bool(version) and code.fingerprint == version


def _is_fed_by_parameters_alone(stage: Stage) -> bool:
    """Whether nothing but the job's parameters goes into the stage: it may be there to look at the world (S2)."""
    return stage.number == 1 or stage.parallelism == "single"


def looking_again(job_type: Registered) -> set[int]:
    """The stages that an update has look again: what they look at, if at anything, is not declared."""
    return {stage.number for stage in job_type.stages if _is_fed_by_parameters_alone(stage) and not stage.inputs}


def _looks_at_the_world(job: ActiveJob, stage: Stage) -> bool:
    is_update = job.anew is not None and job.anew.mode == "update"
    return is_update and stage.number in looking_again(job.job_type)


def _unchanged(job: ActiveJob, store: Store, stage: Stage, tasks: NewTasks, keyed: list[Keyed]) -> dict[int, int]:
    """What is the same as a task of any job that has completed, with its files as they were."""
    candidates = {one.digest: one for one in keyed}
    folder = job.surroundings.folder if job.surroundings is not None else ""
    found: dict[str, int] = {}
    for before in store.reusable(list(candidates), with_results=bool(stage.outputs), naming=SAVED):
        one = candidates[before.digest]
        if before.digest in found or not _is_of_now(job, tasks.task_types[one.place], before.code):
            continue
        outputs = outputs_of(before.result, stage.outputs) if stage.outputs else []
        outputs = outputs and [os.path.abspath(os.path.join(folder, path)) for path in outputs]
        if outputs is None or not are_as_left([*outputs, *saved_in(before.result)], before.ended_at or 0.0):
            continue
        now, then = Inputs.of(one.inputs), Inputs.of(before.inputs)
        if now is None or then is None or not now.same_as(then, outputs):
            continue
        if not (now.unseen and stage.number in looking_again(job.job_type)):
            found[before.digest] = before.attempt_key
    return {one.place: found[one.digest] for one in keyed if one.digest in found}
