"""Which tasks of a job completed with code that is no longer the code of now, and where to begin to mend that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from geoflow.core.rows import Again, JobRow, StageRow
from geoflow.errors import GeoflowWarning, ParameterError
from geoflow.stores.store import Store
from geoflow.support.text import count
from geoflow.usercode.packing import Code


class Stale(NamedTuple):
    """So many *tasks* of a type and a stage completed with older code."""

    stage: int
    task_type: str
    tasks: int


def fingerprints(codes: Mapping[str, Code]) -> dict[str, str]:
    return {name: code.fingerprint for name, code in codes.items()}


def stale_tasks(store: Store, row: JobRow, codes: Mapping[str, str]) -> list[Stale]:
    """What of the job completed with other code than *codes*, fingerprints by task type; the first stage first."""
    found: dict[tuple[int, str], int] = {}
    for stage in store.stages(row.job_key):
        for task_type, code, tasks in store.codes(stage):
            if code != codes.get(task_type, code):
                found[stage.stage, task_type] = found.get((stage.stage, task_type), 0) + tasks
    return [Stale(stage, task_type, tasks) for (stage, task_type), tasks in found.items()]


def ran_with_older(row: JobRow, found: Sequence[Stale]) -> GeoflowWarning:
    """What to say of the job when it is submitted again, and what to do about it."""
    tasks = " and ".join(f"{count(one.tasks, 'task')} of {one.task_type!r}" for one in found)
    both = "{} runs them again, and all that follows; {} the whole job."
    return GeoflowWarning(
        f"Job {row.job_id[:8]} ({row.job_type}) is {row.status}, and {tasks} ran with older code:",
        python=both.format("job.rerun(stale=True)", "on_existing='rerun'"),
        typed=both.format(f"geoflow rerun {row.job_id[:8]} --stale", "--on-existing rerun"),
    )


def again_from(stage: int | str, names: Sequence[str], planned: Sequence[StageRow], short_id: str) -> Again:
    """Where a rerun of *stage*, its number or its name, begins; ``ParameterError`` when the job has not got there."""
    listed = ", ".join(f"{number} ({name})" for number, name in enumerate(names, 1))
    number = names.index(stage) + 1 if isinstance(stage, str) and stage in names else stage
    if not isinstance(number, int) or not 1 <= number <= len(names):
        raise ParameterError(f"Job {short_id} has no stage {stage!r}. Its stages are {listed}.")
    if number > 1 and number not in [row.stage for row in planned]:
        what, then = f"Job {short_id} has not come to stage {number} yet:", "goes on with it."
        raise ParameterError(what, python=f"job.resume() {then}", typed=f"geoflow resume {short_id} {then}")
    return Again(number)
