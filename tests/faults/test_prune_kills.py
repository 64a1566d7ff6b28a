"""S62: processes that prune and back up a store are killed while another one runs jobs in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.sessions import ROOT


def test_S62_whoever_is_killed_while_pruning_has_removed_jobs_whole_and_lost_no_file_that_is_named() -> None:
    """The loop of `tools/pruning.py`, which says what it looks at, with a few kills."""
    loop = [sys.executable, str(Path(ROOT, "tools", "pruning.py")), "2"]
    done = subprocess.run(loop, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 kills, ")
