"""A job type that plans a few tasks of each stage and notes how many all would be. This is what runs in workers."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import time
from collections.abc import Mapping, Sequence
from random import Random
from statistics import fmean
from typing import Any, ClassVar

from geoflow.jobtypes.answers import checked_plan
from geoflow.jobtypes.contract import PARALLELISM, PROBE_OF, Handler, Registered
from geoflow.jobtypes.registry import Registry
from geoflow.jobtypes.sizes import SIZE, with_sizes

MARK = "geoflow_probe"  # where the metadata of its tasks say what the whole would have been
ALONE = 10  # so many results, at most, are also planned for one by one


def picked(sizes: Sequence[float | None], items: int, seed: str) -> list[int]:
    """Which tasks to run, in order: the largest where sizes are known, the first, the last, and others by chance."""
    known = [(size, -place) for place, size in enumerate(sizes) if size is not None]
    wanted = [-max(known)[1]] if known else []
    wanted += [0, len(sizes) - 1, *Random(seed).sample(range(len(sizes)), min(items, len(sizes)))] if sizes else []
    return sorted([*dict.fromkeys(wanted)][:items])


class Sampled:
    """The base of the classes that `SampledType` makes. The class *of* does all, but for the id and which tasks run."""

    of: ClassVar[Any]
    items: ClassVar[int]
    seed: ClassVar[int]
    task_types: ClassVar[tuple[str, ...]]

    @classmethod
    def validate_job_parameters(cls, params: dict[str, Any]) -> Any:
        return cls.of.validate_job_parameters(params)

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        whole = cls.of.generate_job_id(params)
        return hashlib.sha256(f"probe|{whole}|{cls.items}|{cls.seed}".encode()).hexdigest()

    @classmethod
    def create_tasks_for_stage(cls, stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
        """A few of the tasks that *of* plans, once all of these have been checked."""
        singles = [copy.deepcopy((job_params, job_id, [result])) for result in (previous_results or [])[:ALONE]]
        began = time.perf_counter()
        made = with_sizes(cls.of, stage, cls.of.create_tasks_for_stage(stage, job_params, job_id, previous_results))
        note: dict[str, Any] = {"seconds": time.perf_counter() - began, "results": len(previous_results or [])}
        checked_plan(made, stage, cls.task_types)
        note["planned"] = len(made)
        with contextlib.suppress(Exception):  # it may rely on having all of them, and then nothing more is told
            if len(singles) > 1:
                note["alone"] = [len(cls.of.create_tasks_for_stage(stage, *single)) for single in singles]
        own = [metadata if isinstance(metadata := task.get("metadata"), dict) else {} for task in made]
        sizes = [size if isinstance(size := metadata.get(SIZE), int | float) else None for metadata in own]
        places = picked(sizes, cls.items, f"{cls.seed}|{stage}")
        largest = max((sizes[place] or 0 for place in places), default=0)
        # How far the mean of all tasks lies, by their sizes, on the way from those that run to the largest one.
        of_all, of_few = (
            [size for size in some if size and size < largest] for some in (sizes, [*map(sizes.__getitem__, places)])
        )
        few = fmean(of_few or [0])
        note["way"] = (fmean(of_all) - few) / (largest - few) if of_few else 0.0
        notes = {place: {**note, "largest": largest > 0 and sizes[place] == largest} for place in places}
        return [{**made[place], "metadata": {**own[place], MARK: notes[place]}} for place in places]

    @classmethod
    def finalize_job(cls, context: Any = None) -> Any:
        return cls.of.finalize_job(context)


class SampledType:
    """The job type ``probe_of_<name>`` of a registered one: the same handlers as that has at the time, and fewer tasks.

    It has a name of its own so that nobody goes on with a stored probe as if it were the whole job.
    """

    def __init__(self, registry: Registry, of: str, items: int, seed: int) -> None:
        self.name = PROBE_OF + of
        self._registry, self._of, self._items, self._seed = registry, of, items, seed
        self._made: tuple[Registered, type] | None = None

    def contract(self) -> type:
        """The class of the contract; another one once what it samples was registered again."""
        whole = self._registry.get(self._of)
        if self._made is None or self._made[0] is not whole:
            self._made = whole, self._class(whole)
        return self._made[1]

    def handlers(self) -> Mapping[str, Handler]:
        return self._registry.get(self._of).handlers

    def newest(self) -> SampledType:
        return self

    def _class(self, whole: Registered) -> type:
        name = whole.job_class.__name__
        # One task at a time: each is measured undisturbed, and all but the first in a process that is warm.
        stages = [stage.model_dump(exclude_none=True) | {"workers": 1, "reuse": False} for stage in whole.stages]
        for stage in stages:
            stage["parallelism"] = stage["parallelism"] if stage["parallelism"] in PARALLELISM else "fan_out"
        about = {"job_type": self.name, "description": f"At most {self._items} tasks of each stage of {whole.name}."}
        place = {"__module__": whole.job_class.__module__, "__qualname__": f"SampledType.<locals>.{name}"}  # by value
        few = {"of": whole.job_class, "items": self._items, "seed": self._seed, "task_types": tuple(whole.handlers)}
        own = {"stages": stages, "non_identity_parameters": tuple(whole.non_identity)}
        return type(name, (Sampled,), {**about, **place, **few, **own})
