"""What the history of jobs costs: the same jobs in turns with events and without, by the driver's own processor time.

    python -m benchmarks.events [ROUNDS]

A round runs each size of job once with and once without, in an order by chance, in one session; what is told is the
median of the rounds' ratios, and between which numbers it lies in 95 of 100 samples of them. Load beside widens that.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import geoflow as gf
from benchmarks import noop_job
from geoflow.stores.events import Events

# How many tasks, how many worker processes, which store, and how many jobs make one measurement.
SIZES = [(1, 0, "work.db", 10), (100, 0, "work.db", 3), (5_000, 2, "work.db", 1), (1, 0, "work.duckdb", 2)]
ROUNDS = 100


def driven(session: gf.Session, tasks: int, jobs: int) -> float:
    """The processor time of this process for so many new jobs of so many tasks."""
    gc.collect()
    began = time.process_time()
    for _ in range(jobs):
        session.run(noop_job.Noop.job_type, {"n": tasks, "salt": random.random()})
    return time.process_time() - began


def silent(*_: Any, **__: Any) -> None:
    """In place of `Events.note`."""


def ratios(tasks: int, workers: int, store: str, jobs: int, rounds: int) -> tuple[list[float], float]:
    """With over without, round by round; and the seconds of a job without."""
    note, found, without = Events.note, list[float](), list[float]()
    settings: dict[str, Any] = {"workers": workers, "display": "none", "log_level": "ERROR"}
    with tempfile.TemporaryDirectory() as folder, gf.open(Path(folder, store), **settings) as session:
        session.register(noop_job)
        for _ in range(2):
            driven(session, tasks, jobs)
        for _ in range(rounds):
            took = {}
            for way in random.sample([note, silent], 2):
                Events.note = way  # type: ignore[method-assign]
                took[way] = driven(session, tasks, jobs)
            found.append(took[note] / took[silent])
            without.append(took[silent] / jobs)
    Events.note = note  # type: ignore[method-assign]
    return found, statistics.median(without)


def main(rounds: int) -> None:
    for tasks, workers, store, jobs in SIZES:
        found, seconds = ratios(tasks, workers, store, jobs, rounds)
        samples = sorted(statistics.median(random.choices(found, k=len(found))) for _ in range(2_000))
        kind = f"{tasks:,} tasks, {workers} workers, {store}"
        print(
            f"{kind:36} {seconds * 1e3:8.2f} ms a job; with events {statistics.median(found):.3f}"
            f" ({samples[50]:.3f} to {samples[-51]:.3f}), {rounds} rounds",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
