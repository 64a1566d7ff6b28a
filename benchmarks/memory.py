"""Skewed tasks on a machine with too little memory for as many as there are workers: how long, and how many die.

    python -m benchmarks.memory [tasks]

The tasks, 200 if nothing else is said, hold 10 to 400 MB each for a time that goes with it, in 4 workers that may have
`THERE` together. When they have more, this script does what the kernel would: it kills the largest, and counts, and
geoflow is told of that count as of a kernel's: not every machine lets one make a control group. Each way runs by
itself: fixed numbers of workers without a budget; then nothing said, sizes with what was learned from one run before,
and memory declared, the largest first.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

import geoflow as gf
from geoflow.support.memory import RESERVE, Kills

WORKERS, MB = 4, 1_000_000
THERE = 800 * MB
BUDGET = THERE - RESERVE  # as by default
OWN = 60 * MB  # of a worker without a task


def skewed(tasks: int) -> list[dict[str, Any]]:
    """Few large ones among many small ones, in an order by chance."""
    chance = random.Random(7)
    sizes = [int(10 * 40 ** chance.random() ** 2) for _ in range(tasks)]
    return [{"number": number, "megabytes": size, "seconds": 0.02 + size / 400} for number, size in enumerate(sizes)]


def hold(parameters: dict[str, Any]) -> dict[str, Any]:
    held = b"x" * (parameters["megabytes"] * MB)
    time.sleep(parameters["seconds"])
    return {"success": True, "result": {"held": len(held)}}


class Hold:
    """A stage of the tasks that it is given."""

    job_type = "hold"
    description = "Tasks that hold memory."
    stages: list[dict[str, Any]] = [{"number": 1, "name": "hold", "task_type": "hold"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return f"{params['run']:064x}"

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        return [
            {"task_id": f"{task['number']}", "task_type": "hold", "parameters": task} for task in job_params["tasks"]
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {"tasks": len(context.task_results)}


class Killer(threading.Thread):
    """Ends the largest child when all together have more than there is, and counts as a kernel does."""

    def __init__(self, counter: Path) -> None:
        super().__init__(daemon=True)
        self.kills, self.most, self.over = 0, 0, threading.Event()
        self._counter = counter
        self._tell()

    def _tell(self) -> None:
        draft = self._counter.with_suffix(".draft")
        draft.write_text(f"oom_kill {self.kills}\n")
        draft.replace(self._counter)

    def run(self) -> None:
        while not self.over.wait(0.004):
            weights = {}
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    weights[child] = child.memory_info().rss - child.memory_info().shared
            self.most = max(self.most, sum(weights.values()))
            if sum(weights.values()) > THERE:
                self.kills += 1
                self._tell()
                with contextlib.suppress(psutil.Error):
                    max(weights, key=weights.__getitem__).kill()
                time.sleep(0.02)


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Killer]:
    (folder / "proc").mkdir(exist_ok=True)
    killer = Killer(folder / "proc/vmstat")
    killer.start()
    try:
        yield killer
    finally:
        killer.over.set()
        killer.join()


def run(name: str, tasks: list[dict[str, Any]], said: dict[str, Any], workers: int, *, runs: int = 1) -> None:
    """The last of some *runs*: of those before it is learned."""
    budget = "none" if name.startswith("fixed") else BUDGET
    Hold.stages = [{"number": 1, "name": "hold", "task_type": "hold", **said}]
    with tempfile.TemporaryDirectory() as temp:
        with gf.open(f"{temp}/work.db", workers=workers, memory=budget, base_delay=0.05, display="none") as session:
            session.register(Hold, {"hold": hold})
            session.runtime.executor.where()
            for number in range(runs):
                with watched(Path(temp)) as killer:
                    vars(session.runtime.executor)["_kills"] = Kills(Path(temp))
                    for slot in vars(session.runtime.executor)["_slots"]:
                        vars(slot)["_kills"] = vars(session.runtime.executor)["_kills"]
                    began = time.monotonic()
                    job = session.run("hold", run=number, tasks=tasks)
                    took = time.monotonic() - began
            ends = job.attempts()["outcome"].value_counts()
        counts = ", ".join(f"{number} {outcome}" for outcome, number in ends.items() if number)
        print(
            f"{name:<32}{job.status:<11}{took:6.1f} s  {killer.kills:4} killed  {killer.most / MB:5.0f} MB  {counts}",
            flush=True,
        )


def main() -> int:
    tasks = skewed(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
    need = {"memory": lambda task: OWN + int(1.05 * MB) * task["megabytes"]}
    print(f"{len(tasks)} tasks, {sum(task['seconds'] for task in tasks):.1f} s of work, the largest ", end="")
    print(f"{max(task['megabytes'] for task in tasks)} MB, {os.cpu_count()} processors")
    for workers in (1, 2, 3, 4):
        run(f"fixed, {workers} workers", tasks, {}, workers)
    run("nothing said", tasks, {}, WORKERS)
    run("sizes, largest first", tasks, {"size": "megabytes", "order": "largest"}, WORKERS)
    run("sizes, largest first, learned", tasks, {"size": "megabytes", "order": "largest"}, WORKERS, runs=2)
    run("declared", tasks, need, WORKERS)
    run("declared, largest first", tasks, {**need, "size": "megabytes", "order": "largest"}, WORKERS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
