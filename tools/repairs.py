"""Run jobs at random, some of whose tasks fail, repair them, and compare each with a run in which nothing failed.

    python tools/repairs.py 200 --store work.db

Jobs of all shapes of `tests.helpers.grown` go on without what failed (on_failure="continue"), while the process that
drives them is killed again and again, and tasks kill their workers. Then the weather clears up, in one step or two:
`retry_failed`, with kills again, until nothing has failed. Options: --batch N (jobs driven together), --kills N
(most of each phase), --seed N. Ends with status 1 where a job differs from the same one in fair weather.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import geoflow as gf  # noqa: E402
from tests.helpers import grown  # noqa: E402

ROUNDS = 6  # of repairs, until nothing is left to do: a task that ran at three kills in a row has failed, too
OPTIONS: dict[str, Any] = {"display": "none", "max_retries": 1, "base_delay": 0.01}


def opened(store: Path, workers: int) -> gf.Session:
    session = gf.open(store, workers=workers, **OPTIONS)
    session.register(grown)
    return session


def drive(folder: Path, store: Path, workers: int = 2, *, repair: bool = False) -> None:
    """Have all jobs that are listed in *folder* run to their ends, once; with *repair* what failed is run again."""
    asked = json.loads((folder / "jobs.json").read_text())
    with opened(store, workers) as session:
        if not repair:
            jobs = [session.submit(kind, params, on_existing="resume") for kind, params in asked]
        else:
            (folder / "ready").touch()
            for _ in range(ROUNDS):
                jobs = [session.submit(kind, params) for kind, params in asked]
                for job in jobs:
                    if not job.ended:
                        job.resume()
                    elif job.with_errors or job.status == "failed":
                        job.retry_failed()
                for job in jobs:
                    job.wait(120)
                if not any(job.with_errors or job.status == "failed" for job in jobs) or not _is_fair(folder):
                    break
        (folder / "ready").touch()
        for job in jobs:
            job.wait(120)


def _is_fair(folder: Path) -> bool:
    return bool(json.loads((folder / "weather").read_text())["percent"] == 0)


def driven(folder: Path, store: Path, kills: int, chance: random.Random, *, repair: bool) -> int:
    """Have another process `drive` the jobs, kill it at random moments, and begin again; how often it was killed."""
    command = [sys.executable, __file__, "--drive", str(folder), "--store", str(store), *(["--repair"] * repair)]
    killed = 0
    for left in range(kills, -1, -1):
        (folder / "ready").unlink(missing_ok=True)
        driver = subprocess.Popen(command, env={**os.environ, "PYTHONWARNINGS": "ignore"})  # of what a kill leaves
        late = time.monotonic() + 60
        while left and driver.poll() is None and not (folder / "ready").exists() and time.monotonic() < late:
            time.sleep(0.005)
        if left:
            time.sleep(chance.uniform(0.0, 0.7))
        if not left or driver.poll() is not None:
            if code := driver.wait(300):
                raise SystemExit(f"a driver ended with status {code}; its folder is {folder}")
            break
        driver.kill()
        driver.wait()
        killed += 1
    return killed


def batch(folder: Path, store: Path, first: int, count: int, kills: int, chance: random.Random) -> Counter[str]:
    """So many jobs, in bad weather and then in fair; and the same in fair weather alone, in another store."""
    totals, weather = Counter[str](), grown.Weather(folder)
    asked = []
    for number in range(first, first + count):
        kind = chance.choice(sorted(grown.ALL_JOBS))
        flags = {name: chance.random() < 0.5 for name in ("told", "placed")}
        asked.append((kind, {"folder": str(folder), "number": number, "tasks": chance.randint(1, 8), **flags}))
    (folder / "jobs.json").write_text(json.dumps(asked))
    salt = chance.randrange(1_000_000)
    weather.is_now(percent := chance.choice((5, 15, 30, 60)), salt, deadly=True)
    totals["kills of drivers"] += driven(folder, store, chance.randint(0, kills), chance, repair=False)
    with opened(store, 0) as session:
        jobs = [session.submit(kind, params) for kind, params in asked]
        totals["jobs with failures"] += sum(job.with_errors or job.status == "failed" for job in jobs)
        totals["of these failed"] += sum(job.status == "failed" for job in jobs)
        totals["failed tasks"] += int(session.jobs()["failed"].tail(count).sum())
    ran = len(weather.ran())
    totals["runs in bad weather"] += ran
    for fair in [percent // 2, 0] if chance.random() < 0.5 else [0]:
        weather.is_now(fair, salt, deadly=True)
        totals["kills of drivers"] += driven(folder, store, chance.randint(0, kills), chance, repair=True)
    totals["runs in repairs"] += len(weather.ran()) - ran
    clean = folder / "clean"
    clean.mkdir()
    (clean / "jobs.json").write_text(json.dumps([(kind, {**about, "folder": str(clean)}) for kind, about in asked]))
    grown.Weather(clean).is_now(0)
    drive(clean, clean / "clean.db", workers=0)
    totals["runs in fair weather alone"] += len(grown.Weather(clean).ran())
    with opened(store, 0) as session, opened(clean / "clean.db", 0) as other:
        for kind, about in asked:
            job, same = session.submit(kind, about), other.submit(kind, {**about, "folder": str(clean)})
            totals["jobs"] += 1
            found, expected = grown.all_of(session, job, folder), grown.all_of(other, same, clean)
            if found != expected:
                totals["different"] += 1
                print(f"different: {kind} {about}\n  {found}\n  {expected}", file=sys.stderr)
        (lost,) = session.sql("SELECT count(*) AS n FROM attempts WHERE error_type = 'WorkerDied'")["n"]
        totals["kills of workers"] += int(lost)
    return totals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=0)
    parser.add_argument("--store", default="work.db")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--drive", type=Path)
    parser.add_argument("--repair", action="store_true")
    given = parser.parse_args()
    if given.drive:
        drive(given.drive, Path(given.store), repair=given.repair)
        return 0
    began, totals, chance = time.monotonic(), Counter[str](), random.Random(given.seed)
    for first in range(0, given.count, given.batch):
        with tempfile.TemporaryDirectory(prefix="repairs-") as folder:
            count = min(given.batch, given.count - first)
            totals += batch(Path(folder), Path(folder, given.store), first, count, given.kills, chance)
    told = {"different": 0} | totals
    print(f"{given.store}, seed {given.seed}: {told}, {time.monotonic() - began:.0f} s")
    return int(totals["different"] > 0)


if __name__ == "__main__":
    sys.exit(main())
