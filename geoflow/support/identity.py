"""Who a process is. Its number alone is another's once it has ended, or once its container was started again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
from functools import cache
from pathlib import Path

PREFIX = "geoflow-"  # of the names of folders that a session makes
_LABEL = re.compile(PREFIX + r"([0-9a-f]{8})-(\d{1,10})-(\d{1,20})-")
# When a process began that nothing is known of: there is no /proc on this system.
UNKNOWN = 0


def born(pid: int) -> int | None:
    """When the process began, in ticks since the machine did; None when there is none, or it is dead and not buried."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()
        return None if state in ("Z", "X") else int(fields[18])
    except (FileNotFoundError, ProcessLookupError):
        return None if _has_proc() else _by_signal(pid)
    except OSError:  # hidden from us
        return _by_signal(pid)


def is_running(pid: object, since: object) -> bool:
    """Whether *pid* is the process that began at *since*, and has not ended."""
    if not isinstance(pid, int) or not 0 < pid < 1 << 31:
        return False
    began = born(pid)
    return began is not None and (since in (None, UNKNOWN) or began in (since, UNKNOWN))


def end_group(pid: int, since: int) -> None:
    """End the process group that *pid*, which began at *since*, leads or led, unless the number is another's by now."""
    if born(pid) in (None, since, UNKNOWN):  # one without its leader keeps the number from being given away
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def label() -> str:
    """The beginning of a folder's name that says which process makes it, from the moment that the folder is there."""
    return _label_of(os.getpid())


@cache
def _label_of(pid: int) -> str:
    return f"{PREFIX}{_system()}-{pid}-{born(pid) or UNKNOWN}-"


def is_left_behind(name: str) -> bool:
    """Whether a folder's name says that a process of this system made it, which has ended."""
    label = _LABEL.match(name)
    return label is not None and label[1] == _system() and not is_running(int(label[2]), int(label[3]))


def made_by(name: str) -> int | None:
    """The number of the process that made the folder, by its *name*."""
    label = _LABEL.match(name)
    return int(label[2]) if label is not None else None


@cache
def _system() -> str:
    """Where a process's number says which process it is: containers may share a folder, and count for themselves."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{socket.gethostname()}|{space}".encode()).hexdigest()[:8]


@cache
def boot() -> str:
    """What tells this run of the machine from others; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def _has_proc() -> bool:
    return os.path.exists("/proc/self/stat")


def _by_signal(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return UNKNOWN
