"""What a new process costs: until the first result, for its imports, and in memory."""

import subprocess
from functools import partial
from pathlib import Path

from benchmarks.parts.run import CHECKOUT, Run, first_line, python
from benchmarks.tasks import alternated, timed

COLD = """
import sys
import geoflow as gf
from benchmarks import noop_job
session = gf.open(sys.argv[1], workers=2, display="none")
session.register(noop_job)
print(session.run("noop", n=1).result(), flush=True)
session.close()
"""
COLD_POOL = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from benchmarks.tasks import noop
pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
print(pool.submit(noop, {"index": 0}).result(), flush=True)
pool.shutdown()
"""
MEMORY = """
import sys
import geoflow as gf
from benchmarks import noop_job
from benchmarks.tasks import peak_memory_mb
n = int(sys.argv[2])
session = gf.open(sys.argv[1], workers=2, display="none")
session.register(noop_job)
assert session.submit("noop", n=n).result() == {"tasks": n}
print(peak_memory_mb(), flush=True)
session.close()
"""


def cold_seconds(path: Path) -> float:
    """From the start of a process to the result of a job of one task."""
    return first_line(python("-c", COLD, path))[0]


def cold(run: Run) -> None:
    """a new process to its first result, beside a spawned bare pool's"""
    for turn in range(-1, run.rounds):
        found = alternated(
            turn,
            {
                "geoflow": partial(cold_seconds, run.folder / f"{turn}.db"),
                "bare pool": lambda: first_line(python("-c", COLD_POOL))[0],
            },
        )
        if turn < 0:
            continue  # the files are read from the disk once
        for name, seconds in found.items():
            run.figures.add("cold", f"to the first result, {name}", seconds, "s")
        run.figures.add("cold", "geoflow / bare pool", found["geoflow"] / found["bare pool"], at_most=3)


def imports(run: Run) -> None:
    """importing geoflow beside importing pydantic, less what an empty process takes"""
    codes = {
        "geoflow": "import geoflow",
        "pydantic": "import pydantic",
        "geoflow.open": "import geoflow; geoflow.open",
        "pydantic.BaseModel": "import pydantic; pydantic.BaseModel",
    }

    def seconds(code: str) -> float:
        # The best of three: all that others do on the machine can only add.
        command = python("-c", code)
        return min(timed(partial(subprocess.run, command, cwd=CHECKOUT, check=True)) for _ in range(3))

    for turn in range(-1, run.rounds):
        empty = seconds("pass")
        found = alternated(turn, {name: partial(seconds, code) for name, code in codes.items()})
        if turn < 0:
            continue
        net = {name: max(value - empty, 1e-4) for name, value in found.items()}
        for name, value in net.items():
            run.figures.add("import", name, value * 1_000, "ms")
        run.figures.add("import", "geoflow / pydantic", net["geoflow"] / net["pydantic"], at_most=1.5)
        ratio = net["geoflow.open"] / net["pydantic.BaseModel"]
        run.figures.add("import", "geoflow.open / pydantic.BaseModel", ratio)


def memory(run: Run) -> None:
    """the most memory that the coordinator has in a job of 100,000 tasks"""
    for turn in range(run.rounds):
        _, line = first_line(python("-c", MEMORY, run.folder / f"{turn}.db", 100_000))
        run.figures.add("memory", "100,000 tasks, coordinator", float(line), "MB", at_most=150)
