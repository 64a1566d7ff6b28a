"""How long a small job takes from submit to result, in a session that is warm."""

import statistics
from collections.abc import Callable
from functools import partial

import geoflow as gf
from benchmarks import noop_job
from benchmarks.parts.run import Run
from benchmarks.tasks import WORKERS, alternated, noop, submitted, timed, warm_pool

JOBS = 50


def latency(run: Run) -> None:
    """warm jobs of 1 and of 100 tasks, beside as many bare submits"""
    with warm_pool() as pool, gf.open(run.folder / "work.db", workers=WORKERS, display="none") as session:
        session.register(noop_job)
        serial = 0

        def geoflow(n: int) -> float:
            nonlocal serial
            serial += 1  # a job of the same parameters would be the same job
            return timed(lambda: session.submit("noop", n=n, serial=serial).result())

        def bare(n: int) -> float:
            return timed(lambda: submitted(pool, noop, [{"index": index} for index in range(n)]))

        def median(measure: Callable[[int], float], n: int) -> float:
            return statistics.median(measure(n) for _ in range(JOBS))

        geoflow(10)
        for turn in range(run.rounds):
            for n, most in ((1, 10), (100, 1)):
                measures = {"geoflow": partial(median, geoflow, n), "bare submit": partial(median, bare, n)}
                found = alternated(turn, measures)
                of = "1 task" if n == 1 else f"{n} tasks"
                for name, seconds in found.items():
                    run.figures.add("latency", f"{of}, {name}", seconds * 1_000, "ms")
                ratio = found["geoflow"] / found["bare submit"]
                run.figures.add("latency", f"{of}, geoflow / submit", ratio, at_most=most)
