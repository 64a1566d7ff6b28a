"""S52: workers and drivers are killed while tasks write files: none has a part of one, and nothing is left.

Four kills, more where more is tried (`profiles`), or as many as the environment variable ``GEOFLOW_KILLS`` says.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

import geoflow as gf
from geoflow.executors.leftovers import is_left
from geoflow.executors.marker import read_mark
from geoflow.support.identity import PREFIX
from tests.faults.driving import Kernel, Start
from tests.helpers import writing
from tests.helpers.waiting import wait_until
from tests.helpers.writing import WHOLE, left

KILLS = int(os.environ.get("GEOFLOW_KILLS") or min(max(settings().max_examples // 15, 4), 100))
TASKS = 60
pytestmark = pytest.mark.usefixtures("temp")
WRITES = f"""
from pathlib import Path
from tests.helpers import writing

session.close()
session = open_session(workers=int(sys.argv[3]), max_retries=50)
session.store.jobs()  # it is open now
left = len(writing.left(Path(sys.argv[2])))
say(left)
tasks = [{{"path": f"{{sys.argv[2]}}/{{number % 20}}.tif", "pause": 0.003}} for number in range({TASKS})]
job = writing.submit(session, *tasks, on_existing="resume")
say(job.wait().status)
"""


def check_whole(out: Path) -> None:
    for path in out.glob("*.tif"):
        assert path.read_text() == WHOLE, f"{path} is a part of a file"


@pytest.mark.parametrize("workers", [0, 1])
def test_S52_what_a_driver_that_was_killed_left_goes_when_the_next_session_is_opened(
    start: Start, out: Path, tmp_path: Path, temp: Path, workers: int
) -> None:
    kernel = start(HANGS, out, workers)
    wait_until(lambda: (out / "found").exists() and len((out / "found").read_text().split()) == 2)
    kernel.kill()
    assert left(out) != []
    wait_until(partial(_are_gone, temp))
    with gf.open(tmp_path / "other.db", workers=0) as session:
        session.jobs()
        assert left(out) == []
    assert not any(Path(line).exists() for line in (out / "found").read_text().split())
    assert not (out / "a.tif").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_S59_what_a_driver_that_was_killed_had_saved_goes_when_the_next_session_is_opened(
    start: Start, store: Path, out: Path, tmp_path: Path, temp: Path, workers: int
) -> None:
    kernel = start(HANGS.replace("writing", "saving"), out, workers)
    wait_until(lambda: (out / "found").exists() and (out / "found").read_text() != "")
    kernel.kill()
    saved = Path((out / "found").read_text())
    assert saved.parent.parent == Path(f"{store}.files")
    assert list(saved.parent.glob(".*/*.npy")) != []
    wait_until(partial(_are_gone, temp))
    with gf.open(tmp_path / "other.db", workers=0) as session:
        session.jobs()
    assert list(saved.parent.iterdir()) == []


HANGS = """
from tests.helpers import writing

session.close()
session = open_session(workers=int(sys.argv[3]))
task = {"seed": 1, "path": f"{sys.argv[2]}/a.tif", "do": "hang", "found": f"{sys.argv[2]}/found"}
writing.submit(session, task).wait()
"""


def test_S52_what_a_driver_that_was_killed_left_goes_when_its_job_is_resumed(
    start: Start, store: Path, out: Path
) -> None:
    """Also by a session that was open before, and however soon."""
    with gf.open(store, workers=1, display="none") as session:
        session.register(writing.Writes, handlers={"write": writing.write})
        session.jobs()
        kernel = start(HANGS, out, 1)
        wait_until(lambda: (out / "found").exists() and len((out / "found").read_text().split()) == 2)
        (before,) = out.glob(".*")
        kernel.kill()
        session.jobs()
        job = session.job(f"{1:064x}")
        (out / "found").unlink()
        job.resume()
        wait_until(lambda: (out / "found").exists() and len((out / "found").read_text().split()) == 2)
        assert before not in out.glob(".*")
        job.cancel()
    assert left(out) == []


@pytest.mark.slow
def test_S52_no_file_is_a_part_of_one_and_nothing_is_left_over_kills_of_workers_and_drivers(
    start: Start, store: Path, out: Path, temp: Path
) -> None:
    chance = random.Random(52)
    count: Counter[str] = Counter()
    while True:
        kernel = start(WRITES, out, 0 if chance.random() < 0.2 else 2)
        assert kernel.hears() == "0", "nothing is left once a session was opened"
        check_whole(out)
        if count["workers"] + count["drivers"] >= KILLS:
            break
        wait_until(partial(_is_at_work, kernel, out))
        for _ in range(chance.randint(0, 3)):
            time.sleep(chance.uniform(0.0, 0.1))
            count["workers"] += _kill_a_worker(temp, chance)
            check_whole(out)
        was_killed = kernel.killed_after(chance.uniform(0.0, 0.2))
        count["drivers"] += was_killed
        check_whole(out)
        count["left"] += len(left(out))
        wait_until(partial(_are_gone, temp))
        if not was_killed:  # its job was done
            _begin_anew(store, out)
    assert kernel.hears() == "completed"
    kernel.ends()
    check_whole(out)
    assert len(list(out.glob("*.tif"))) == 20
    assert left(out) == []
    killed = f"{count['workers']} workers and {count['drivers']} drivers killed"
    print(f"{killed}: {count['left']} folders were left until the next session was opened")  # pytest -s shows it


def _is_at_work(kernel: Kernel, out: Path) -> bool:
    """Whether something is being written, or all is."""
    return bool(left(out)) or kernel.has_ended()


def _are_gone(temp: Path) -> bool:
    """Whether the sessions there are no more, nor their workers, which the reaper ends."""
    return all(is_left(owner.parent) for owner in temp.glob(f"{PREFIX}*/owner"))


def _kill_a_worker(temp: Path, chance: random.Random) -> bool:
    """Kill one that runs a task; whether there was one."""
    marks = [read_mark(path.read_bytes()) for path in temp.glob(f"{PREFIX}*/slot-*.mark")]
    if not (busy := [mark.pid for mark in marks if mark is not None and mark.position > 0]):
        return False
    try:
        os.kill(chance.choice(busy), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _begin_anew(store: Path, out: Path) -> None:
    for path in (*store.parent.glob(f"{store.name}*"), *out.glob("*.tif")):
        path.unlink()
