"""How well two processors are kept at work by tasks of 2 ms."""

from functools import partial

import geoflow as gf
from benchmarks import jobs
from benchmarks.parts.run import Run
from benchmarks.tasks import (
    WORKERS,
    alternated,
    calibrated,
    ideal_seconds,
    timed,
    two_stages_mapped,
    warm_pool,
)

TASKS = 1_000


def stages(run: Run) -> None:
    """list, 1,000 tasks of 2 ms, fan-in, beside chunked map and beside the ideal"""
    loops = calibrated()
    with warm_pool() as pool, gf.open(run.folder / "work.db", workers=WORKERS, display="none") as session:
        session.register(jobs)

        def whole(n: int, turn: int) -> None:
            result = session.submit("two_stages", n=n, loops=loops, turn=turn).result()
            assert result == {"sum": sum(range(n))}, result

        whole(10, -1)
        for turn in range(run.rounds):
            ideals = [ideal_seconds(pool, TASKS, loops)]
            found = alternated(
                turn,
                {
                    "geoflow": partial(timed, partial(whole, TASKS, turn)),
                    "chunked map": partial(timed, partial(two_stages_mapped, pool, TASKS, loops)),
                },
            )
            ideals.append(ideal_seconds(pool, TASKS, loops))
            for name, seconds in found.items():
                run.figures.add("stages", f"ideal time / {name}'s", sum(ideals) / 2 / seconds)
            ratio = found["chunked map"] / found["geoflow"]
            run.figures.add("stages", "chunked map's time / geoflow's", ratio, at_least=0.95)
