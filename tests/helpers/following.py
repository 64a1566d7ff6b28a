"""A batch of jobs, each with one that follows it, driven by processes that are killed: what is there in the end."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import geoflow as gf

JOBS = 4
TAG = "killed"


def _another(result: dict[str, Any]) -> dict[str, Any]:
    """Parameters that are never the same twice."""
    return {"n": 1, "message": os.urandom(16).hex()}


def _drive(path: Path) -> None:
    with gf.Session(path, workers=0, display="none", synchronous="NORMAL") as session:
        batch = session.map("hello_world", [{"n": n + 1, "message": "first"} for n in range(JOBS)], tag=TAG)
        for job in batch:
            if job.wait().status != "completed":
                job.resume().wait()
            after = job.then("hello_world", _another).wait()
            if after.wait().status != "completed":
                after.resume().wait()


def killed(path: Path, kills: int, longest: float, seed: int) -> int:
    """Fork processes that drive the batch at *path*, kill as many, and let the last one end; how many died of it."""
    chance, dead = random.Random(seed), 0
    for number in range(kills + 1):
        pid = os.fork()
        if not pid:
            try:
                _drive(path)
            finally:
                os._exit(0)
        if number < kills:
            time.sleep(chance.uniform(0.0, longest))  # at any moment: nothing is waited for by it
            os.kill(pid, signal.SIGKILL)
        dead += os.waitpid(pid, 0)[1] == signal.SIGKILL
    return dead


def wrong(path: Path) -> str:
    """What is not as it should be: each job of the batch once, and after each of them one; empty where all is."""
    with gf.Session(path, workers=0, display="none") as session:
        jobs, batch = session.jobs(), session.batch(TAG)
        firsts = set(batch.job_ids)
        others = jobs[~jobs["job_id"].isin(firsts)]
        if len(firsts) != JOBS or len(jobs) - len(others) != JOBS:
            return f"{len(jobs) - len(others)} jobs of a batch of {JOBS}"
        if len(others) != JOBS:
            return f"{len(others)} jobs follow {JOBS}"
        return "" if set(jobs["status"]) == {"completed"} else f"jobs are {set(jobs['status'])}"
