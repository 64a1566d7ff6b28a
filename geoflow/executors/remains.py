"""What a process that was killed left behind: which tasks ran when it ended."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

from geoflow.executors.mark import read_mark

PREFIX = "geoflow-"


def ran_at_death(owner: str) -> frozenset[int] | None:
    """The keys of the tasks that ran when *owner* (JSON text, see `Store.claim`) was killed; None when unknown.

    What it left in the temporary folder is removed. Of an owner that still lives, and gave the job up when its store
    failed, no task is to blame: it has ended them all.
    """
    known = json.loads(owner)
    folder = Path(known.get("folder") or "")
    # The path comes from the store: only a folder of our own making is touched.
    ours = folder.name.startswith(PREFIX) and folder.parent == Path(tempfile.gettempdir()) and folder.is_dir()
    if not ours or known.get("host") != socket.gethostname():
        return None
    try:
        if folder.stat().st_uid != os.getuid():
            return None
        if _lives(known.get("pid")):
            return frozenset()
        marks = [read_mark(path.read_bytes()) for path in folder.glob("slot-*.mark")]
    except FileNotFoundError:  # another process that takes up jobs of the same owner has just removed it
        return None
    shutil.rmtree(folder, ignore_errors=True)
    return frozenset(mark.key for mark in marks if mark and mark.position > 0) if marks else None


def _lives(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
        # On Linux, one that is dead and not yet buried is still there.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, OverflowError):
        return False
    except FileNotFoundError:  # it went while it was looked at, or there is no /proc here
        return not os.path.exists("/proc/self")
    except OSError:  # another user's, or no /proc
        return True
