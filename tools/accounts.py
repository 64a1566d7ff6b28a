"""Stop jobs at random moments, for as long as you like, and compare what ran with what is on record.

    python tools/accounts.py kill 200        kill -9 of the process that drives a job, in each of six shapes of jobs
    python tools/accounts.py returned 60     the same of workers, of drivers and of both, so many times each: what had
                                             returned a millisecond before must not run again
    python tools/accounts.py cancel 150      job.cancel(), and a resume
    python tools/accounts.py interrupt 150   session.close(), and a resume

Options: --store work.duckdb, --seed N, --size N (tasks). Ends with status 1 where anything was lost, ran twice or is
not on record, or where processes or folders were left behind.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FOLDER = Path(tempfile.mkdtemp(prefix="accounts-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)  # the first one here: it is called last

import psutil  # noqa: E402

import geoflow as gf  # noqa: E402
from tests.helpers import jobs  # noqa: E402
from tests.helpers.accounting import SHAPES, account  # noqa: E402
from tests.helpers.sessions import Trace, rows  # noqa: E402

DRIVER = """
import sys; sys.path.insert(0, {root!r})
import json
from tests.helpers import jobs
import geoflow as gf
session = gf.open({store!r}, workers=2, display="none", base_delay=0.05, max_delay=0.1)
session.register(jobs)
session.run({job_type!r}, json.load(open(sys.argv[1])), on_existing="resume")
session.close()
"""
OPTIONS: dict[str, Any] = {"workers": 2, "display": "none", "base_delay": 0.05, "max_delay": 0.1}


Kept = list[tuple[set[str], Counter[str]]]  # at each stop: what had completed, and how often each task had run


class Totals(Counter[str]):
    """What was counted, over all jobs."""

    def add(
        self, session: gf.Session, job: gf.JobHandle, trace: Trace, kept: list[tuple[set[str], Counter[str]]]
    ) -> None:
        found = account(session, job, trace)
        runs = Counter(line.split()[0] for line in trace.lines())
        open_tasks = rows(session, "SELECT task_id FROM tasks WHERE status <> 'completed' AND job_id = ?", job.id)
        self["jobs"] += 1
        self["executions"] += found.executions
        self["attempts"] += found.attempts
        self["attempts of what had just begun"] += found.unseen
        self["lost"] += len(open_tasks) + (job.status != "completed")
        self["run twice"] += len(found.twice)
        self["run twice"] += sum(runs[task] != ran[task] for completed, ran in kept for task in completed)
        self["unaccounted"] += len(found.unaccounted)


def opened(store: Path) -> gf.Session:
    session = gf.open(store, **OPTIONS)
    session.register(jobs)
    return session


def completed(session: gf.Session, job_id: str) -> set[str]:
    found = rows(
        session, "SELECT task_id FROM tasks WHERE status = 'completed' AND task_type = 'act' AND job_id = ?", job_id
    )
    return {name for (name,) in found}


def kills(folder: Path, store: Path, count: int, size: int, chance: random.Random, totals: Totals) -> None:
    """A job of each shape in turn is driven by a process that is killed again and again, until it completes."""
    for number, shape in enumerate(islice(cycle(SHAPES), chance.randrange(len(SHAPES)), None)):
        if totals["kills"] >= count:
            return
        job_type, make = SHAPES[shape]
        totals[f"jobs, {shape}"] += 1
        trace = Trace(folder / f"trace-{number}")
        params = {**make(trace.path, size), "number": number}
        asked = folder / f"params-{number}.json"  # in a file: an argument may have 128 kB
        asked.write_text(json.dumps(params))
        code = DRIVER.format(root=str(ROOT), store=str(store), job_type=job_type)
        kept: Kept = []
        job_id = ""
        for _ in range(6):
            driver = subprocess.Popen([sys.executable, "-c", code, str(asked)], cwd=folder)
            # Once it has begun, and some tasks further: a kill of what only starts shows little.
            enough, late = len(trace.lines()) + chance.randint(0, size), time.monotonic() + 20
            while driver.poll() is None and len(trace.lines()) < enough and time.monotonic() < late:
                time.sleep(0.005)
            time.sleep(chance.uniform(0.0, 0.3))
            if driver.poll() is not None:
                break
            driver.kill()
            driver.wait()
            totals["kills"] += 1
            ran = Counter(line.split()[0] for line in trace.lines())
            with opened(store) as session:
                for row in session.store.jobs()[-1:]:
                    if row.job_type == job_type and json.loads(row.parameters).get("number") == number:
                        job_id = row.job_id
                        kept.append((completed(session, job_id), ran))
        with opened(store) as session:
            job = session.run(job_type, params, on_existing="resume")
            if job.status == "failed":  # a task that ran at three kills in a row may be the cause, and says so (S30)
                totals["taken for the cause"] += 1
                job = session.run(job_type, params, on_existing="resume")
            totals.add(session, job, trace, kept)


# What tasks do, and how many of them there are for each of `--size`.
RETURNING: dict[str, tuple[dict[str, Any], int]] = {
    "no-op": ({}, 50),
    "5 ms": ({"do": "sleep", "value": 0.005}, 2),
    "printing": ({"do": "say", "value": "x" * 50}, 10),
}
WITHIN = 0.001  # what returned in a worker's last millisecond of work may run again


def returned(folder: Path, store: Path, count: int, size: int, chance: random.Random, totals: Totals) -> None:
    """Jobs of short tasks lose workers, drivers and both: what had returned before a kill runs no more behind it."""
    kinds = [(of, does) for does in chance.sample(list(RETURNING), 3) for of in ("workers", "drivers", "both")]
    for number, (of, does) in enumerate(cycle(kinds)):
        if all(totals[f"kills of {each}"] >= count for each, _ in kinds):
            return
        if totals[f"kills of {of}"] >= count:
            continue
        act, times = RETURNING[does]
        stamps = folder / f"stamps-{number}"
        stamps.touch()
        params = {"tasks": [{**act, "stamp": str(stamps)}] * (size * times), "number": number}
        asked = folder / f"params-{number}.json"
        asked.write_text(json.dumps(params))
        code = DRIVER.format(root=str(ROOT), store=str(store), job_type="acts")
        command = [sys.executable, "-c", code, str(asked)]
        killed: dict[int, float] = {}
        own: set[int] = set()
        driver = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
        step = stamps.stat().st_size
        for _ in range(6):
            if driver.poll() is not None:
                break
            step += chance.randint(1, 35 * size * times // 6)  # so many bytes a line
            while driver.poll() is None and stamps.stat().st_size < step:
                time.sleep(0.0005)
            if driver.poll() is not None or not (lines := stamps.read_text().splitlines()[:-1]):
                break
            with contextlib.suppress(psutil.NoSuchProcess):  # its own: a number may be another's by now
                own = {child.pid for child in psutil.Process(driver.pid).children(recursive=True)}
            workers = own.intersection(int(line.split()[1]) for line in lines[-200:])
            for worker in workers if of == "both" else list(workers)[:1] if of == "workers" else ():
                if (work := _stopped(worker)) is not None:
                    killed[worker] = work
                    os.kill(worker, signal.SIGKILL)
            if of != "workers":
                driver.kill()
                driver.wait()
                driver = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
            totals[f"kills of {of}"] += 1
            totals[f"kills, {does}"] += 1
        driver.wait(300)
        with opened(store) as session:
            job = session.run("acts", params, on_existing="resume")
            if job.status == "failed":
                totals["taken for the cause"] += 1
                job = session.run("acts", params, on_existing="resume")
            totals["jobs"] += 1
            totals["lost"] += job.status != "completed"
        totals.update(_again(f"{of}, {does}", stamps.read_text().splitlines(), killed))
        stamps.unlink()


def _stopped(pid: int) -> float | None:
    """Have the process stand still; how many seconds its main thread has worked by then. None where it is gone."""
    try:
        os.kill(pid, signal.SIGSTOP)
        process = psutil.Process(pid)
        while process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            time.sleep(0.0002)
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, psutil.Error):
        return None


def _again(what: str, lines: list[str], killed: dict[int, float]) -> Counter[str]:
    """Of what tasks left as they returned: which ran again, and were not the last that its worker was at.

    *killed* says of workers how long they had worked by then; others went with their driver, some milliseconds later.
    """
    found: Counter[str] = Counter()
    ran: dict[str, list[tuple[str, float]]] = {}
    last: dict[str, str] = {}
    for line in lines:
        task, worker, at = line.split()
        ran.setdefault(task, []).append((worker, float(at)))
        last[worker] = task
    for task, ((worker, first), *again) in ran.items():
        found["tasks"] += 1
        found["executions"] += 1 + len(again)
        work = killed.get(int(worker), first) - first  # since it returned
        if again and last[worker] == task and work < WITHIN:
            found["again, of the last millisecond" if int(worker) in killed else "again, as the driver went"] += 1
        elif again:
            found["run twice"] += 1
            print(f"{what}: {task} returned at {first} in {worker}, which worked {work:.4f} s more; again: {again}")
    return found


def stops(how: str, folder: Path, store: Path, count: int, size: int, chance: random.Random, totals: Totals) -> None:
    """A job is cancelled, or interrupted, at random moments, and resumed until it completes."""
    session = opened(store)
    for number, shape in enumerate(islice(cycle(SHAPES), chance.randrange(len(SHAPES)), None)):
        if totals[how] >= count:
            break
        job_type, make = SHAPES[shape]
        totals[f"jobs, {shape}"] += 1
        trace = Trace(folder / f"trace-{number}")
        kept: Kept = []
        job = session.submit(job_type, {**make(trace.path, size), "number": number})
        for _ in range(5):
            time.sleep(chance.uniform(0.0, 0.6))
            if job.ended:
                break
            totals[how] += 1
            if how == "cancel":
                job.cancel()
            else:
                session.close()
                session = opened(store)
                job = session.job(job.id)
            kept.append((completed(session, job.id), Counter(line.split()[0] for line in trace.lines())))
            job.resume()
        job.wait(300)
        totals.add(session, job, trace, kept)
    session.close()


def left(folder: Path) -> list[str]:
    """Folders of geoflow's and multiprocessing's, and processes, once all is over; not this process's own."""
    from multiprocessing import util  # not before `FOLDER`: it has an exit handler too

    own = Path(util.get_temp_dir()).name
    found = [path.name for kind in ("geoflow-*", "pymp-*") for path in folder.glob(kind) if path.name != own]
    mine = {os.getpid(), *(child.pid for child in psutil.Process().children())}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in mine and process.environ().get("TMPDIR") == str(folder):
                found.append(f"process {process.pid} {process.cmdline()}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("how", choices=("kill", "returned", "cancel", "interrupt"))
    parser.add_argument("count", type=int)
    parser.add_argument("--store", default="work.db")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=200)
    given = parser.parse_args()
    began = time.monotonic()
    (temporary := FOLDER / "tmp").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    totals = Totals()
    arguments = FOLDER, FOLDER / given.store, given.count, given.size, random.Random(given.seed), totals
    if given.how == "kill":
        kills(*arguments)
    elif given.how == "returned":
        returned(*arguments)
    else:
        stops(given.how, *arguments)
    time.sleep(1.0)  # what was killed goes within milliseconds
    leftovers = left(temporary)
    for name in ("lost", "run twice", "unaccounted"):
        totals[name] += 0
    totals["leftovers"] = len(leftovers)
    print(f"{given.how}, {given.store}, seed {given.seed}: {dict(totals)}, {time.monotonic() - began:.0f} s")
    for name in leftovers[:10]:
        print("left:", name)
    return int(any(totals[name] for name in ("lost", "run twice", "unaccounted", "leftovers")))


if __name__ == "__main__":
    sys.exit(main())
