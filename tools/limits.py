"""50 jobs of 4 processes ask for one limit of their store, while two of these are killed: is it ever passed?

``python tools/limits.py [JOBS] [PROCESSES] [KILLS]`` prints what was measured, and exits with 1 where it was passed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

AT_ONCE, PER_SECOND, TASKS = 2, 5.0, 4
SOURCE = f"""
import sys
import geoflow as gf

ask = gf.JobType("ask")

@ask.stage
def scan(p) -> list[int]:
    return list(range({TASKS}))

@ask.each(scan, limit=gf.Limit("service", at_once={AT_ONCE}, per_second=float(sys.argv[5])))
def call(item: int, p) -> int:
    import fcntl, os, time

    began = time.monotonic()
    # So many files as may be at it: one more finds none that is free.
    for name in range({AT_ONCE}):
        held = os.open(f"{{p['folder']}}/{{name}}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            os.close(held)
    else:
        held = None
    with open(f"{{p['folder']}}/log", "a", buffering=1) as log:
        log.write(f"{{began}} {{held is not None}}\\n")
    time.sleep(p["seconds"])
    if held is not None:
        os.close(held)
    return item

session = gf.open(sys.argv[1], workers=2, display="none", log_level="ERROR")
first, last = map(int, sys.argv[3:5])
seconds = 1.75 / float(sys.argv[5])  # as many are then at it as may be
about = {{"folder": sys.argv[2], "seconds": seconds, "on_existing": "resume"}}
jobs = [session.submit(ask, number=n, **about) for n in range(first, last)]
for job in jobs:
    job.wait()
    assert job.error is None, job.error
"""


def measure(jobs: int, processes: int, kills: int, per_second: float) -> tuple[list[float], int]:
    """When tasks began, and how many of them began while as many as may be ran."""
    with tempfile.TemporaryDirectory() as folder:
        script, log = Path(folder, "ask.py"), Path(folder, "log")
        script.write_text(SOURCE)

        def start(number: int) -> subprocess.Popen[bytes]:
            share = [str(number * jobs // processes), str((number + 1) * jobs // processes)]
            command = [sys.executable, str(script), str(Path(folder, "work.db")), folder, *share, str(per_second)]
            return subprocess.Popen(command, start_new_session=True)

        def lines() -> list[str]:
            return log.read_text().splitlines() if log.exists() else []

        running = [start(number) for number in range(processes)]
        for kill in range(kills):
            before = len(lines())
            while len(lines()) < before + 5 and any(process.poll() is None for process in running):
                time.sleep(0.01)
            number = kill % processes
            running[number].send_signal(signal.SIGKILL)
            running[number].wait()
            running[number] = start(number)
        codes = [process.wait(600) for process in running]
        assert codes == [0] * processes, codes
        found = [line.split() for line in lines()]
        assert len(found) >= jobs * TASKS, "tasks were left out"
        return sorted(float(began) for began, _ in found), sum(alone == "False" for _, alone in found)


def main(jobs: int = 50, processes: int = 4, kills: int = 2) -> int:
    starts, too_many = measure(jobs, processes, kills, PER_SECOND)
    gaps = [after - before for before, after in pairwise(starts)]
    windows = max(sum(start <= other < start + 1 for other in starts) for start in starts)
    print(f"{len(starts)} starts in {starts[-1] - starts[0]:.1f} s by {os.cpu_count()} processors, {kills} kills")
    print(f"more than {AT_ONCE} at once: {too_many}; the shortest time between two starts: {min(gaps) * 1000:.1f} ms")
    print(f"the most starts in any second: {windows} of {PER_SECOND:g}")
    return int(too_many > 0 or windows > PER_SECOND + 1)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
