"""What a submission would start: its id, and the tasks of its first stage. Nothing is run, and nothing stored."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from geoflow.core.batch import Batch, NewTasks
from geoflow.core.chunks import Chunk
from geoflow.core.chunks import Report as Answer
from geoflow.core.models import JobStatus
from geoflow.core.payloads import plan_argument
from geoflow.engine.existing import check_same_job
from geoflow.engine.runtime import Runtime
from geoflow.errors import DefinitionError
from geoflow.executors.base import Executor
from geoflow.jobtypes.contract import DefinesJob, Registered
from geoflow.jobtypes.parameters import job_id_of, validated
from geoflow.render.report import Report, Table, table
from geoflow.support.jsonable import from_json
from geoflow.support.masking import mask
from geoflow.support.text import count, human_bytes, shorten
from geoflow.usercode.packing import pack
from geoflow.views.tracebacks import place

if TYPE_CHECKING:
    import pandas as pd

_SHOWN, _TICK_SECONDS = 3, 0.1


@dataclass(frozen=True, repr=False)
class Plan(Report):
    """What ``session.submit`` would start now. ``exists`` is the status of the job of this id in the store, or None.

    ``stages`` has a row a stage, with no number of ``tasks`` where that depends on results; ``tasks`` a row for each
    task of the first one, with the ``bytes`` that its parameters take as JSON.
    """

    job_type: str
    job_id: str
    exists: JobStatus | None
    parameters: dict[str, Any]
    stages: pd.DataFrame
    tasks: pd.DataFrame
    secrets: tuple[str, ...]
    exit_status: int = 0  # for a shell

    @property
    def title(self) -> str:
        exists = f"submitted before, and {self.exists}" if self.exists else "not submitted yet"
        return f"Plan of {self.job_type}: job {self.job_id[:8]}, {exists}"

    def parts(self) -> list[str | Table]:
        def shown(value: Any) -> str:
            return shorten(json.dumps(mask(value, self.secrets), ensure_ascii=False), 100)

        size = f"{count(len(self.tasks), 'task')}, {human_bytes(self.tasks['bytes'].sum())} of parameters"
        others = "; plan.tasks, or --json, has them all" if len(self.tasks) > _SHOWN else ""
        first = "no tasks: it is passed" if self.tasks.empty else f"{size}{others}"
        known = self.stages["tasks"].astype(object).fillna("made from results")
        stages = table(
            self.stages.assign(tasks=known), stage=str, stage_name=str, task_type=str, parallelism=str, tasks=str
        )
        tasks = table(self.tasks.head(_SHOWN), task_id=str, task_type=str, parameters=shown)
        return [shown(self.parameters), stages, f"Stage 1 has {first}.", *([tasks] if tasks[1:] else [])]


def plan(runtime: Runtime, job_type: str | type | DefinesJob, parameters: dict[str, Any]) -> Plan:
    """See `Session.plan`."""
    import pandas as pd

    registered, secrets = runtime.registered(job_type), runtime.settings.secrets
    accepted = validated(registered, parameters, secrets)
    job_id = job_id_of(registered, accepted)
    for handler in registered.handlers.values():
        pack(handler)  # one that cannot travel is told as a submission would tell it
    row = runtime.store.job(job_id) if runtime.has_store else None
    if row is not None:
        check_same_job(row, registered, accepted, secrets)
    ids, types, texts, notes, _ = _made(runtime, registered, job_id, accepted)
    numbers = [len(ids), *(1 if stage.is_fan_in else None for stage in registered.stages[1:])]
    about = [stage.model_dump(include={"name", "task_type", "parallelism"}) for stage in registered.stages]
    stages = pd.DataFrame(about).rename(columns={"name": "stage_name"}).assign(tasks=pd.array(numbers, dtype="Int64"))
    stages.insert(0, "stage", range(1, len(about) + 1))
    tasks = pd.DataFrame({"task_id": [*ids], "task_type": [*types], "task_index": range(len(ids))})
    tasks["parameters"] = pd.Series(map(from_json, texts), dtype=object)
    tasks["metadata"] = pd.Series([note and from_json(note) for note in notes], dtype=object)
    tasks["bytes"] = pd.Series([len(text.encode()) for text in texts], dtype="int64")
    return Plan(registered.name, job_id, row and row.status, from_json(accepted), stages, tasks, secrets)


def _made(runtime: Runtime, registered: Registered, job_id: str, parameters: str) -> NewTasks:
    """The tasks of the first stage, made where a run would make them: in a worker, which ends with that."""
    options, known = runtime.options, tuple(registered.handlers)
    batch = Batch("plan", 1, 0, 0, 0, (0,), '["plan"]', f"[{plan_argument(parameters)}]")
    about = (job_id, registered.name, 1, pack(registered.job_class), batch, options.policy, options.plan_timeout)
    # The session's own slots are its driving thread's. Where there is no store, there is to be no log beside it either.
    changes = {"workers": 0 if runtime.is_inline else 1} | ({} if runtime.has_store else {"store": ":memory:"})
    own = Runtime(runtime.settings.model_copy(update=changes), runtime.clock, pool=runtime.pool)
    try:
        report = _answer(own.executor, Chunk(1, "plan", *about, known))
    finally:
        own.close()
    if report.broken is not None:
        raise DefinitionError(report.broken)
    failure = report.attempts[0].failure
    if failure is None:
        return report.planned or NewTasks.of()
    why = f"{failure.error_type}: {failure.error}"
    where = place(failure.traceback or "")
    refused = DefinitionError(
        f"Stage 1 ({registered.stages[0].name}) could not be planned: {why}{f' ({where})' if where else ''}"
    )
    if failure.traceback:
        refused.add_note(failure.traceback)
    raise refused


def _answer(executor: Executor, chunk: Chunk) -> Answer:
    """What became of *chunk*; it is sent again when its process died before it began."""
    inbox: SimpleQueue[Any] = SimpleQueue()
    executor.start(inbox)
    waits = True
    while True:
        if waits and executor.capacity(chunk.job_id, reserve=False):
            executor.submit(chunk)
            waits = False
        executor.run_here()
        reports = executor.check()
        with contextlib.suppress(Empty):
            reports += executor.collect(inbox.get(timeout=_TICK_SECONDS))
        for report in reports:
            if report.attempts or report.broken is not None:
                return report
            waits = True
