"""A session for weeks, in minutes: thousands of jobs with large parameters, whose cells are run again and again.

Prints what the driver and its workers hold at the start, along the way and at the end: memory, objects, descriptors,
threads, files in TMPDIR, runs. Ends with 1 where the second half grew by more than a tenth.

    python tools/soak.py [--jobs 20000] [--seconds 480] [--every 10] [--parameters 1000000] [--workers 2]
"""

from __future__ import annotations

import argparse
import gc
import linecache
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

import geoflow as gf

CELL = """
import geoflow as gf

TABLE = list(range({version}, {version} + 500))
flow = gf.JobType("soak", description="A cell that was run again: version {version}.")


@flow.stage
def tiles(p: dict) -> list[int]:
    return [0, 1]


@flow.each(tiles)
def measure(tile: int) -> int:
    if {version} % 5 == 4 and tile == 1:
        raise ValueError("tile 1 of version {version}")
    return TABLE[tile]


@flow.reduce(measure)
def total(values: list[int]) -> dict:
    return {{"total": sum(values)}}
"""
_COLUMNS = ["jobs", "seconds", "driver_mb", "workers_mb", "objects", "descriptors", "threads", "files", "runs"]


def run_cell(version: int, kept: int = 20) -> Any:
    """Define the job type anew, as IPython runs a cell; of its texts the last are kept."""
    name, text = f"<ipython-input-{version}-soak>", CELL.format(version=version)
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    linecache.cache.pop(f"<ipython-input-{version - kept}-soak>", None)
    space = sys.modules["__main__"].__dict__
    exec(compile(text, name, "exec"), space)
    return space["flow"]


def look(session: gf.Session, jobs: int, began: float) -> dict[str, float]:
    """What there is by now."""
    gc.collect()
    me = psutil.Process()
    # The largest are those that run tasks; beside them are a fork server and a reaper.
    others = sorted((child.memory_info().rss for child in me.children(recursive=True)), reverse=True)
    files = sum(len(files) for _, _, files in os.walk(tempfile.gettempdir()))
    held = me.memory_info().rss, sum(others), len(gc.get_objects()), me.num_fds(), threading.active_count()
    driver, workers, objects, descriptors, threads = held
    found = (jobs, time.monotonic() - began, driver / 1e6, workers / 1e6, objects, descriptors, threads, files)
    return dict(zip(_COLUMNS, (*found, len(session.runtime.active)), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"jobs": 20_000, "seconds": 480, "every": 10, "parameters": 1_000_000, "workers": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")
    Path(tempfile.tempdir).mkdir()  # left behind: multiprocessing has it in use until the very end
    session = gf.open(folder / "soak.db", workers=args.workers, display="none")
    began, seen, jobs = time.monotonic(), list[dict[str, float]](), 0
    print("".join(f"{name:>12}" for name in _COLUMNS), flush=True)
    try:
        while jobs < args.jobs and time.monotonic() - began < args.seconds:
            flow = run_cell(jobs)
            large = "x" * args.parameters if jobs % args.every == 0 else ""
            job = session.run(flow, {"n": jobs, "large": large})
            assert job.status == ("failed" if jobs % 5 == 4 else "completed"), job.error
            jobs += 1
            if jobs == 1 or time.monotonic() - began > len(seen) * args.seconds / 16:
                seen.append(look(session, jobs, began))
                print("".join(f"{value:12,.0f}" for value in seen[-1].values()), flush=True)
        seen.append(look(session, jobs, began))
        print("".join(f"{value:12,.0f}" for value in seen[-1].values()), flush=True)
    finally:
        session.close()
        for file in folder.glob("*soak*"):
            file.unlink()
    # Until the caches are full there is more each time: the second half counts.
    middle = min(seen, key=lambda one: abs(one["jobs"] - jobs / 2))
    grown = [name for name in _COLUMNS[2:] if seen[-1][name] > 1.1 * middle[name]]
    print(f"{jobs:,} jobs. Grew since job {middle['jobs']:,.0f}: {', '.join(grown) or 'nothing'}.")
    return bool(grown)


if __name__ == "__main__":
    raise SystemExit(main())
