"""In which order the tasks of a stage go out, and how much memory each is expected to need."""

from __future__ import annotations

from typing import Any

from geoflow.core.memory import ALONE, UNKNOWN, Expected
from geoflow.core.rows import StageRow
from geoflow.engine.active_job import ActiveJob
from geoflow.jobtypes.contract import PROBE_OF
from geoflow.stores.store import Store


def lined_up(job: ActiveJob, store: Store, planned: StageRow, *, has_outgrown: bool = False) -> dict[str, Any]:
    """The order that their stage wants the new tasks to start in, and the memory that each task needs, if that counts.

    No order is as they are planned. See `TaskQueue` for both. What a stage does not say is expected of what its tasks
    had at most before: where they tell their sizes, or one of them *has_outgrown* what there is for each. Where nobody
    has seen any, and the budget was said, the first one that goes out runs alone, and tells of the others.
    """
    stage, options, name = job.job_type.stages[planned.stage - 1], job.options, job.job_type.name
    order = store.largest_first(planned) if stage.order == "largest" else None
    is_said = bool(stage.memory) or stage.memory_differs
    if options.budget is None or not (is_said or stage.sized or has_outgrown):
        return {"order": order}
    new, told = store.told(planned, "memory" if is_said else "size")
    if is_said:
        needs = {key: stage.memory or need or UNKNOWN for key, need in told.items()}
    else:
        peaks = store.peaks(name, PROBE_OF + name, planned.stage)
        expected = Expected(peaks)
        needs = {key: expected(size) for key, size in told.items()}
        if not (peaks or has_outgrown) and options.careful and (first := order or new):
            return {"order": first, "needs": needs | {first[0]: ALONE}}
        if not has_outgrown and max(needs.values(), default=0) <= (options.share or 0):
            return {"order": order}  # as many as there are workers have room, also of the largest
    return {"order": order or new, "needs": needs}
