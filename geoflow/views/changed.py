"""What of a job's inputs is not as it was when its tasks were planned, and what nobody looked into."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice

from geoflow.core.rows import JobRow
from geoflow.jobtypes.inputs import Inputs, changed_since
from geoflow.stores.store import Store


def inputs_changed(store: Store, row: JobRow, most: int | None = None) -> int:
    """How many of the tasks that completed, of the first *most*, have declared files that are not the same by now."""
    known: dict[tuple[tuple[str, str], ...], bool] = {}
    changed = 0
    for _, inputs in islice(_inputs(store, row), most):
        if inputs.declared:
            same = tuple(sorted(inputs.declared.items()))
            if same not in known:
                known[same] = changed_since(inputs)
            changed += known[same]
    return changed


def unseen(store: Store, row: JobRow, looking_again: Container[int] = ()) -> list[str]:
    """The parameters of tasks that are folders or addresses and that nobody declared; not of stages that look again."""
    return sorted(
        {
            f"{name} of stage {stage}"
            for stage, inputs in _inputs(store, row)
            if stage not in looking_again
            for name in inputs.unseen
        }
    )


def _inputs(store: Store, row: JobRow) -> Iterator[tuple[int, Inputs]]:
    for stage in store.stages(row.job_key) if store.has("reusable") else ():
        for text in store.inputs(stage):
            if (inputs := Inputs.of(text)) is not None:
                yield stage.stage, inputs
