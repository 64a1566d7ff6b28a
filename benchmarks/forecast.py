"""How far the forecast of a probe is from what the whole job then takes, for three shapes of work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import geoflow as gf
from benchmarks.jobs import Job
from benchmarks.tasks import WORKERS, busy, calibrated, timed

if TYPE_CHECKING:  # workers import this module, and none of the parts
    from benchmarks.parts.run import Run

TASKS = 300
ITEMS = (3, 10)
SHAPES = ("even", "skewed", "two stages")


class Shapes(Job):
    """``TASKS`` tasks of ``loops`` each; or a few of them much longer; or made from the results of a first stage."""

    job_type = "shapes"
    description = "Tasks that keep a processor at work: evenly, unevenly, or in two stages."
    stages = [
        {"number": 1, "name": "first", "task_type": "work", "parallelism": "single", "order": "largest"},
        {"number": 2, "name": "second", "task_type": "work", "parallelism": "fan_out"},
        {"number": 3, "name": "gather", "task_type": "gather", "parallelism": "fan_in"},
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        shape, loops = job_params["shape"], job_params["loops"]
        if stage == 2:  # ten or so for each of the first, where there are to be two stages
            parents = [result["result"]["index"] for result in previous_results if shape == "two stages"]
            made = [(parent, part) for parent in parents for part in range(5 + parent % 11)]
            return [_task(f"second-{parent}-{part}", part, loops) for parent, part in made] or [_task("none", 0, 1)]
        if shape == "two stages":
            return [_task(f"first-{index}", index, loops) for index in range(TASKS // 10)]
        longer = [20 if index == 77 else 5 if index % 10 == 3 else 1 for index in range(TASKS)]
        times = longer if shape == "skewed" else [1] * TASKS
        return [_task(f"first-{index}", index, loops * many) for index, many in enumerate(times)]


def _task(name, index, loops):
    parameters = {"index": index, "loops": loops}
    return {"task_id": name, "task_type": "work", "parameters": parameters, "metadata": {"size": loops}}


def gather(params):
    return {"success": True, "result": {"count": len(params["previous_results"])}}


def forecast(run: Run) -> None:
    """what a probe of 3 and of 10 tasks a stage says a job will take, over what it takes"""
    loops = calibrated(0.005)
    with gf.open(run.folder / "work.db", workers=WORKERS, display="none") as session:
        session.register(Shapes, handlers={"work": busy, "gather": gather})
        session.run("shapes", shape="even", loops=1, turn=-1)  # the workers are warm, as they mostly are
        for turn in range(run.rounds):
            for shape in SHAPES:
                given = {"shape": shape, "loops": loops, "turn": turn}
                probes = {items: session.probe("shapes", given, items=items, workers=WORKERS) for items in ITEMS}
                seconds = timed(partial(session.run, "shapes", given))
                for items, probe in probes.items():
                    (low, likely, high) = probe.forecast.loc[0, ["low", "likely", "high"]]
                    run.figures.add("forecast", f"{shape}, {items}: forecast / real", likely / seconds)
                    run.figures.add(
                        "forecast", f"{shape}, {items}: real in range", float(low <= seconds <= high), "yes"
                    )
