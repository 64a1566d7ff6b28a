"""What is measured with: tasks that do nothing or spin, and what the standard library's own pool takes for them.

Only the standard library is imported here, since this runs in the environments of the peers too, and little of it,
since that is in the figures of how long a process takes to start.
"""

import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

WORKERS = 2
TASK_SECONDS = 0.002
# One future a task costs the same from a few thousand on, and the rate is all that is asked for.
MOST_SUBMITTED = 20_000

Item = dict[str, Any]


def noop(item: Item) -> Item:
    """A task that does nothing."""
    return {"success": True}


def spin(loops: int) -> None:
    """Keep a processor at work. A number of loops, not a time: who takes the processor away is seen to have done so."""
    total = 0
    for number in range(loops):
        total += number


def busy(item: Item) -> Item:
    """A task that works as long as ``item["loops"]`` say."""
    spin(item["loops"])
    return {"success": True, "result": {"index": item["index"]}}


def listing(item: Item) -> list[Item]:
    """The first stage of the two-stage work: what the second has to do."""
    return [{"index": index, "loops": item["loops"]} for index in range(item["n"])]


def gathered(results: list[Item]) -> int:
    """The fan-in: a sum, so that a lost task would be seen."""
    return sum(item["result"]["index"] for item in results)


def calibrated(seconds: float = TASK_SECONDS) -> int:
    """How many loops take *seconds* on this machine now."""
    sample = 20_000
    times = sorted(timed(lambda: spin(sample)) for _ in range(51))
    return max(1, round(sample * seconds / times[25]))


def timed(act: Callable[[], object]) -> float:
    """The seconds that *act* takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def alternated(turn: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The *measures* one after the other, the other way round in every second *turn*, since machines warm up."""
    names = list(measures)[:: 1 if turn % 2 == 0 else -1]
    return {name: measures[name]() for name in names}


# The yardsticks. The pool of two is warm, and its caller has all results in the end.


def warm_pool() -> ProcessPoolExecutor:
    """A bare pool whose processes have started."""
    pool = ProcessPoolExecutor(WORKERS)
    submitted(pool, noop, ({"index": index} for index in range(100)))
    return pool


def spawn_pool() -> ProcessPoolExecutor:
    """A pool that starts its processes as programs with threads have to."""
    return ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))


def submitted(pool: ProcessPoolExecutor, function: Callable[[Item], Any], items: Iterable[Item]) -> list[Any]:
    """One future a task."""
    futures = [pool.submit(function, item) for item in items]
    return [future.result() for future in futures]


def submit_rate(pool: ProcessPoolExecutor, n: int) -> float:
    """Tasks a second that do nothing, one future a task."""
    n = min(n, MOST_SUBMITTED)
    return n / timed(lambda: submitted(pool, noop, ({"index": index} for index in range(n))))


def mapped(pool: ProcessPoolExecutor, function: Callable[[Item], Any], items: list[Item], chunks: int) -> list[Any]:
    """So many *chunks* of tasks, one future each: nothing that keeps a future a chunk can be faster."""
    return list(pool.map(function, items, chunksize=math.ceil(len(items) / chunks)))


def two_stages_mapped(pool: ProcessPoolExecutor, n: int, loops: int) -> None:
    """List, *n* busy tasks in chunks, fan-in, each by the pool."""
    items = pool.submit(listing, {"n": n, "loops": loops}).result()
    found = pool.submit(gathered, mapped(pool, busy, items, 32)).result()
    assert found == sum(range(n))


def ideal_seconds(pool: ProcessPoolExecutor, n: int, loops: int) -> float:
    """What *n* busy tasks take when nothing comes between them, all processes of the pool at work at once."""
    futures = [pool.submit(_mean_seconds, loops, 100) for _ in range(WORKERS)]
    return n * sum(future.result() for future in futures) / WORKERS**2


def _mean_seconds(loops: int, times: int) -> float:
    return timed(lambda: [busy({"index": index, "loops": loops}) for index in range(times)]) / times


def peak_memory_mb() -> float:
    """The most memory that this process has had, in MB.

    Linux counts what the process that started this one had as ours in `getrusage`, so its own file is asked first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024


def machine() -> str:
    """A line about where this runs, and how busy that is with other things."""
    python = sys.version.split()[0]
    return f"Python {python}, {os.cpu_count()} processors, {WORKERS} workers, load before: {load()}"


def load() -> str:
    """How many processes have wanted a processor in the last minute: above 1 before a run, others are in its way."""
    return f"{os.getloadavg()[0]:.1f}"
