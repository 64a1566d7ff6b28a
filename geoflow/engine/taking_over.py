"""Which tasks of a plan are complete already: those that another attempt, whose result they take over, has done."""

from __future__ import annotations

import hashlib

from geoflow.core.batch import NewTasks
from geoflow.engine.active_job import ActiveJob
from geoflow.jobtypes.contract import accepts_context
from geoflow.stores.store import Store
from geoflow.support.jsonable import canonical


def taken_over(job: ActiveJob, store: Store, stage: int, tasks: NewTasks) -> dict[int, int]:
    """The tasks of the plan of *stage*, by their places, that take over results, and the keys of the attempts.

    A task is the same as another if it has its type and its parameters, and the code of now made the result. One whose
    handler takes a context is given its id and its place too, and may make something of them.
    """
    if job.anew is None or job.anew.mode != "repair":
        return {}
    told_who = {name for name, handler in job.job_type.handlers.items() if accepts_context(handler)}

    def identity(task_type: str, parameters: str, task_id: str, task_index: int) -> bytes:
        who = f"{task_id}\n{task_index}" if task_type in told_who else ""
        return hashlib.blake2b(f"{task_type}\n{who}\n".encode() + canonical(parameters), digest_size=16).digest()

    known: dict[bytes, int] = {}
    for before in store.completed_before(job.row.job_key, stage, job.anew.since):
        code = job.codes.get(before.task_type)
        if code is not None and code.fingerprint == before.code:
            same = identity(before.task_type, before.parameters, before.task_id, before.task_index)
            known[same] = before.attempt_key
    if not known:
        return {}
    columns = zip(tasks.task_types, tasks.parameters, tasks.task_ids, range(len(tasks.task_ids)), strict=True)
    same_as = (known.get(identity(*task)) for task in columns)
    return {place: key for place, key in enumerate(same_as) if key is not None}
