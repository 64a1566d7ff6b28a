"""Who is meant by a process: its number and when it began."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from geoflow.executors import orphan_reaper as reaper
from geoflow.executors.leftovers import ran_at_death, seal, sign
from geoflow.executors.lifeline import Lifeline
from geoflow.executors.marker import MarkFile
from geoflow.support.identity import PREFIX, born, end_group, is_running

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="it takes /proc to tell")


def test_a_process_is_known_by_when_it_began_and_one_that_is_dead_and_not_buried_is_gone() -> None:
    child = subprocess.Popen(["sleep", "60"])
    since = born(child.pid)
    assert since
    assert is_running(child.pid, since)
    assert is_running(child.pid, None), "a record of before it was kept"
    assert not is_running(child.pid, since + 1)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(child.pid, since)
    child.wait()
    assert born(child.pid) is None
    for nobody in (None, "1", -1, 0, 1 << 40, 2.0):
        assert not is_running(nobody, None)


def test_a_group_whose_number_is_another_ones_by_now_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    since = born(other.pid) or 0
    end_group(other.pid, since - 1)
    line = Lifeline(tmp_path)
    Path(line.registry).write_text(f"+{other.pid} {since - 1}\n")
    line.close()
    assert other.poll() is None
    assert reaper.is_another(other.pid, str(since - 1))
    assert not reaper.is_another(other.pid, str(since))
    end_group(other.pid, since)
    assert other.wait(timeout=10) == -signal.SIGKILL


@pytest.mark.parametrize("change", [{"start": 1}, {"boot": "before"}])
def test_S30_a_container_that_starts_again_with_the_same_numbers_is_not_taken_for_the_one_that_died(
    change: dict[str, object],
) -> None:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    sign(folder)
    MarkFile(folder / "slot-0-0.mark").running(1, 0, 42)
    row = json.dumps({"folder": str(folder), "seal": seal(str(folder), "work.db", "a")})
    assert ran_at_death(row, "work.db", "a", 1_000) == {}, "that is this one, which lives"
    owner = json.loads((folder / "owner").read_text())
    (folder / "owner").write_text(json.dumps({**owner, **change}))
    assert ran_at_death(row, "work.db", "a", 1_000) == {42: None}
    shutil.rmtree(folder)
