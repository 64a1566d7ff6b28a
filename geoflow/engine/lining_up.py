"""In which order the tasks of a stage go out, and how much memory each is expected to need."""

from __future__ import annotations

from typing import Any

from geoflow.core.memory import CAREFUL, MARGIN, UNKNOWN, Expected
from geoflow.core.rows import StageRow
from geoflow.engine.active_job import ActiveJob
from geoflow.jobtypes.contract import PROBE_OF
from geoflow.stores.store import Store


def lined_up(job: ActiveJob, store: Store, planned: StageRow, *, anew: bool = False) -> dict[str, Any]:
    """The order that their stage wants the new tasks to start in, and the memory that each task needs, if that counts.

    No order is as they are planned; where they are lined up *anew*, there is one. See `TaskQueue` for all. What a stage
    does not say is expected of what its tasks had at most before, and those that run by now: where they tell their
    sizes, or are lined up *anew*, since one of them needed more than there is for each.
    """
    stage, options, name = job.job_type.stages[planned.stage - 1], job.options, job.job_type.name
    order = store.largest_first(planned) if stage.order == "largest" else None
    is_said = bool(stage.memory) or stage.memory_differs
    if options.budget is None or not (is_said or stage.sized or anew):
        return {"order": order}
    new, told = store.told(planned, "memory" if is_said else "size")
    if is_said:
        needs = {key: stage.memory or need or UNKNOWN for key, need in told.items()}
        return {"order": order or new, "needs": needs}
    seen = [(told[key], int(MARGIN * had)) for key, had in job.tasks.seen.items() if key in told] if anew else []
    unknown = CAREFUL * options.budget if options.careful and stage.sized and len(told) > 1 else UNKNOWN
    expected = Expected([*store.peaks(name, PROBE_OF + name, planned.stage), *seen], unknown)
    needs = {key: expected(size) for key, size in told.items()}
    if max(needs.values(), default=0) <= (options.share or 0):  # as many as there are workers have room
        return {"order": order or new if anew else order}
    is_guess = bool(seen) or any(expected.is_guess(size) for size in told.values())
    return {"order": order or new, "needs": needs, "guessed": unknown != UNKNOWN and is_guess}
