"""What differs between Pythons and sets of packages, seen from fresh processes, which are what matters."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.profiles import seldom


def script(folder: Path, text: str, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run *text* as a user's script in *folder*, and let it end by itself."""
    (folder / "work.py").write_text(text)
    return subprocess.run(
        [sys.executable, *options, "work.py"],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


EVERYTHING = """
import geoflow as gf

with gf.open({store!r}, workers={workers}, display="none") as session:
    job = session.run("hello_world", n=70)
    for seen in (session.jobs(), job.tasks(), job.attempts(), job.stages(), job.logs(), job.errors()):
        str(seen)
    str(session.sql("SELECT count(*) FROM tasks")), repr(job), job._repr_html_()
    print(job.status)
"""


@pytest.mark.parametrize(
    ("store", "workers"), [("work.db", 2), ("work.duckdb", 0), seldom("work.db", 0), seldom("work.duckdb", 2)]
)
def test_a_job_runs_and_is_read_where_every_warning_is_an_error(tmp_path: Path, store: str, workers: int) -> None:
    done = script(tmp_path, EVERYTHING.format(store=store, workers=workers), "-W", "error")
    assert (done.stdout, done.returncode) == ("completed\n", 0), done.stderr


LEFT_OPEN = """
import time
import geoflow as gf

sleepers = gf.JobType("sleepers", description="Each task sleeps.")

@sleepers.stage
def naps(p: dict) -> list[float]:
    return [p["seconds"]] * 3

@sleepers.each(naps)
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds

session = gf.open("work.db", workers=2, display="none", on_job_complete=lambda **told: print(told["status"]))
print(session.run("hello_world", n=3).status)
jobs = [session.submit(sleepers, number=number, seconds=600.0) for number in range(3)]
while not any((job.tasks().status == "processing").any() for job in jobs):
    time.sleep(0.01)
"""


def test_S36_a_script_that_leaves_its_session_open_ends_by_itself_and_its_jobs_can_be_resumed(tmp_path: Path) -> None:
    # Python 3.12 refuses to begin a thread while it exits.
    done = script(tmp_path, LEFT_OPEN)
    assert (done.stdout, done.stderr, done.returncode) == ("completed\ncompleted\n", "", 0)
    with contextlib.closing(sqlite3.connect(tmp_path / "work.db")) as store:
        assert store.execute("SELECT DISTINCT status, error FROM job WHERE job_type = 'sleepers'").fetchall() == [
            ("queued", None)
        ]
        assert store.execute("SELECT status FROM task WHERE status NOT IN ('queued', 'completed')").fetchall() == []


CROWD = """
import threading
import geoflow as gf

session = gf.open("work.db", workers=2, display="none", log_level="DEBUG")
gate, jobs = threading.Barrier(8), []

def submit(number):
    gate.wait()
    submit = session.submit if number % 2 else gf.submit
    jobs.append(submit("hello_world", n=1, message=str(number)))

threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print({str(job.wait().status) for job in jobs}, len(session.jobs()))
session.close()
gf.default_session().close()
"""


def test_S42_what_eight_threads_ask_for_at_once_is_opened_once(tmp_path: Path) -> None:
    # functools.cached_property has no lock since Python 3.12.
    done = script(tmp_path, CROWD, GEOFLOW_STORE="default.db", GEOFLOW_LOG_LEVEL="DEBUG")
    assert (done.stdout, done.returncode) == ("{'completed'} 4\n", 0), done.stderr
    messages = [json.loads(line)["message"] for path in tmp_path.glob("*.log") for line in path.open()]
    assert sorted(one.split(":")[0] for one in messages if "opened: " in one) == [
        *("executor opened", "executor opened"),
        *("store opened", "store opened"),
    ]
