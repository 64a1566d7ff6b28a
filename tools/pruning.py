"""Processes prune, back up and dump a store in which a session runs jobs, and are killed at random moments.

``python tools/pruning.py [KILLS] [SEED]`` looks at the store after each kill, prints what was seen, and exits with 1
where a job that stays, a file that is named or a copy is not whole.
"""

from __future__ import annotations

import json
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import geoflow as gf
from geoflow.support.jsonable import from_json

RUNS = """
import itertools, sys
import geoflow as gf

flow = gf.JobType("saving", reuse=True)

@flow.stage
def numbers(params: dict) -> list[int]:
    return list(range(params["from"], params["from"] + 8))

@flow.each(numbers)
def square(number: int) -> dict:
    return {"saved": gf.save(b"%d " % number * 2_000)}

session = gf.open(sys.argv[1], workers=0, display="none", log_level="ERROR")
for number in itertools.count():
    job = session.submit(flow, {"from": number % 50 * 3, "number": number})
    assert job.wait().status == "completed" and not job.with_errors, job
    print(number + 1, flush=True)
"""
PRUNES = """
import itertools, os, sys
import geoflow as gf

session = gf.open(sys.argv[1], workers=0, display="none", log_level="ERROR")
session.backup(f"{sys.argv[1]}.{os.getpid()}.db")  # all is imported then
print("ready", flush=True)
for number in itertools.count():
    session.prune(state="completed", keep=4, confirm=True)
    session.backup(f"{sys.argv[1]}.{os.getpid()}-{number}.db")
    session.dump(session.jobs(limit=1)["job_id"].iloc[0], f"{sys.argv[1]}.{os.getpid()}-{number}.json")
"""
_SAVED = re.compile(r"[0-9a-f]{64}/[0-9a-f]{32}\.bin")


def check_whole(store: Path) -> tuple[int, int]:
    """How many jobs are there, and how many files they name, each as it was saved."""
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the store is damaged"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == [], "rows have lost what they belong to"
        jobs = connection.execute("SELECT job_id, status, tasks, completed FROM jobs").fetchall()
        wrong = [job for job in jobs if job[1] == "completed" and not job[2] == job[3] == 8 + 1]
        assert not wrong, f"jobs have lost tasks: {wrong}"
        results = connection.execute("SELECT result FROM attempt WHERE result LIKE '%gf_saved%'").fetchall()
    named = set()
    for (text,) in results:
        reference = from_json(text)["result"]["saved"]
        assert gf.load(reference), "a file is empty"
        named.add(reference["path"])
    return len(jobs), len(named)


def main(kills: int, seed: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "work.db")
        running = _start(RUNS, store)
        assert running.stdout is not None
        while running.stdout.readline() != b"8\n":
            assert running.poll() is None, "no job could be run"
        seen: list[tuple[int, int]] = []
        for _ in range(kills):
            pruning = _start(PRUNES, store)
            assert pruning.stdout is not None
            assert pruning.stdout.readline() == b"ready\n", "nothing could be pruned"
            time.sleep(chance.random() * 0.8)
            assert pruning.poll() is None, "what prunes has failed"
            pruning.kill()
            pruning.wait()
            seen.append(check_whole(store))
            assert running.poll() is None, "what runs jobs has failed"
        running.send_signal(signal.SIGINT)
        ran = 8 + len(running.communicate()[0].split())
        copies = list(Path(folder).glob("work.db.*-*.db"))
        for copy in copies:
            with closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], f"{copy} is damaged"
        dumps = [json.loads(path.read_text()) for path in Path(folder).glob("work.db.*-*.json")]
        assert all(
            len(dump["tasks"]) == len(dump["attempts"]) or dump["job"]["status"] == "processing" for dump in dumps
        )
        with gf.open(store, workers=0, display="none") as session:
            session.prune(state=["completed", "interrupted"], keep=2, confirm=True)
            _, named = check_whole(store)
            kept = list(Path(f"{store}.files").glob("*/*"))
            assert len(kept) == named, f"{len(kept)} files are there, {named} are named"
            session.backup(Path(folder, "last.db"))
        hidden = [path.name for path in Path(folder).glob(".*-geoflow-*")]
        assert len(hidden) <= kills, f"{hidden} is left behind: of each backup that is killed one folder may be"
    looked = f"jobs and named files after each: {seen}"
    print(f"{kills} kills, {ran} jobs run meanwhile, {len(copies)} copies and {len(dumps)} dumps whole; {looked}")


def _start(code: str, store: Path) -> subprocess.Popen[Any]:
    return subprocess.Popen([sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    main(*(numbers + [20, 17][len(numbers) :]))
