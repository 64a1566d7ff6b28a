"""What it takes to go on with a job whose process was killed, and what of it runs again."""

import signal
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.parts.run import CHECKOUT, Run, first_line, python
from benchmarks.parts.starting import cold_seconds
from benchmarks.tasks import alternated

TASKS, LEFT = 10_000, 100
# Ends itself once all tasks that can end are written down as completed, and one that cannot has begun.
KILLED = """
import os, signal, sqlite3, sys, time
from pathlib import Path
import geoflow as gf
from benchmarks import jobs
folder, n, left = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
session = gf.open(folder / "work.db", workers=2, display="none")
session.register(jobs)
session.submit("held", n=n, held=left, folder=str(folder))
connection = sqlite3.connect(folder / "work.db")
begun = lambda: any(int(i) >= n - left for file in folder.glob("*.ran") for i in file.read_text().split())
done = "SELECT count(*) FROM tasks WHERE status = 'completed'"
while connection.execute(done).fetchone()[0] < n - left or not begun():
    time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
RESUMED = """
import sys
from pathlib import Path
import geoflow as gf
from benchmarks import jobs
folder, n, left = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
session = gf.open(folder / "work.db", workers=2, display="none")
session.register(jobs)
job = session.submit("held", n=n, held=left, folder=str(folder), on_existing="resume")
print(job.result()["tasks"], flush=True)
session.close()
"""


def resume(run: Run) -> None:
    """a job of 10,000 tasks, killed with 100 left, beside a cold start"""
    for turn in range(run.rounds):
        folder = run.folder / str(turn)
        folder.mkdir()
        command = python("-c", KILLED, folder, TASKS, LEFT)
        ended = subprocess.run(command, cwd=CHECKOUT, check=False, capture_output=True, text=True)
        assert ended.returncode == -signal.SIGKILL, f"not killed, but: {ended.returncode} {ended.stderr}"
        completed = _completed(folder)
        (folder / "resumed").touch()
        found = alternated(
            turn,
            {"resume": partial(_resumed, folder), "cold start": partial(cold_seconds, folder / "cold.db")},
        )
        ran = Counter(int(line) for file in folder.glob("*.ran") for line in file.read_text().split())
        assert len(ran) == len(_completed(folder)) == TASKS
        again = {index for index, times in ran.items() if times > 1}
        for name, seconds in found.items():
            run.figures.add("resume", f"{TASKS:,} tasks, {LEFT} left, {name}", seconds, "s")
        run.figures.add("resume", "resume / cold start", found["resume"] / found["cold start"], at_most=2)
        run.figures.add("resume", "completed tasks that ran again", len(again & completed), "tasks", at_most=0)
        run.figures.add("resume", "other tasks that ran again", len(again - completed), "tasks")


def _resumed(folder: Path) -> float:
    seconds, line = first_line(python("-c", RESUMED, folder, TASKS, LEFT))
    assert line == str(TASKS), line
    return seconds


def _completed(folder: Path) -> set[int]:
    with closing(sqlite3.connect(folder / "work.db")) as connection:
        rows = connection.execute("SELECT task_index FROM tasks WHERE status = 'completed'").fetchall()
    return {index for (index,) in rows}
