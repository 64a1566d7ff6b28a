"""What a task costs that does nothing, with all state kept."""

from functools import partial
from pathlib import Path

import geoflow as gf
from benchmarks import noop_job
from benchmarks.parts.run import Run
from benchmarks.tasks import WORKERS, alternated, mapped, noop, submit_rate, timed, warm_pool


def rate(path: Path, n: int, turn: int) -> float:
    """Tasks a second of a job of *n*, from submit to its result, in a new store with warm workers."""
    session = gf.open(path, workers=WORKERS, display="none")
    try:
        session.register(noop_job)
        session.run("noop", n=200 + turn)  # so that both workers have started and imported

        def whole() -> None:
            assert session.submit("noop", n=n).result() == {"tasks": n}

        return n / timed(whole)
    finally:
        session.close()
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()


def overhead(run: Run) -> None:
    """tasks a second that do nothing, beside a bare pool's submit and chunked map"""
    sizes = [1_000, 10_000] if run.quick else [1_000, 10_000, 100_000]
    with warm_pool() as pool:

        def map_rate(n: int) -> float:
            items = [{"index": index} for index in range(n)]
            return n / timed(lambda: mapped(pool, noop, items, 8))

        for turn in range(run.rounds):
            rates = {}
            for n in sizes:
                measures = {
                    "geoflow": partial(rate, run.folder / f"{n}-{turn}.db", n, turn),
                    "bare submit": partial(submit_rate, pool, n),
                    "chunked map": partial(map_rate, n),
                }
                found = alternated(turn, measures)
                rates[n] = found["geoflow"]
                for name, value in found.items():
                    run.figures.add("overhead", f"{n:,} tasks, {name}", value, "tasks/s")
                target = 10 if n >= 10_000 else None
                ratio = found["geoflow"] / found["bare submit"]
                run.figures.add("overhead", f"{n:,} tasks, geoflow / submit", ratio, at_least=target)
            if run.large:
                n = 1_000_000
                rates[n] = rate(run.folder / f"{n}-{turn}.db", n, turn)
                run.figures.add("overhead", f"{n:,} tasks, geoflow", rates[n], "tasks/s")
                run.figures.add("overhead", "a task at 1,000,000 / at 10,000", rates[10_000] / rates[n])


def store(run: Run) -> None:
    """the same tasks with the DuckDB store, beside the SQLite store"""
    for turn in range(run.rounds):
        for n in sorted({10_000, run.many}):
            found = alternated(
                turn,
                {
                    name: partial(rate, run.folder / f"{n}-{turn}{suffix}", n, turn)
                    for name, suffix in {"SQLite": ".db", "DuckDB": ".duckdb"}.items()
                },
            )
            for name, value in found.items():
                run.figures.add("store", f"{n:,} tasks, {name}", value, "tasks/s")
            ratio = found["DuckDB"] / found["SQLite"]
            run.figures.add("store", f"{n:,} tasks, DuckDB / SQLite", ratio, at_least=0.5)
