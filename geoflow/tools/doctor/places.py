"""The folders that a session uses, and whether what they lie on can bear a store."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

from geoflow.errors import StoreError
from geoflow.executors.spawning import python
from geoflow.stores.locks import are_kept, lock
from geoflow.support.text import human_bytes
from geoflow.tools.doctor.diagnosis import Diagnosis, ok, problem, warning

NETWORK = ("afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs")
SHARED = ("9p", "drvfs", "prl_fs", "vboxsf", "virtiofs", "vmhgfs")  # with the system that this one is a guest of
LITTLE, TOO_LITTLE = 1_000_000_000, 100_000_000  # bytes
TRIAL = ".geoflow-doctor-"
HOLD_A_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    print("held", flush=True)
    sys.stdin.read()
"""


def unwritable(path: Path) -> str:
    """Why no file can be made in the folder *path*; nothing when one can."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"geoflow")
            file.flush()
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""


def folder(path: Path) -> Diagnosis:
    """Whether files can be made in the folder, and how much space there is."""
    if not path.is_dir():
        return problem(f"{path} is not there.", f"mkdir -p {shlex.quote(str(path))}")
    if why := unwritable(path):
        first = "Free some space" if why == os.strerror(errno.ENOSPC) else "Change its mode"
        return problem(f"{path} cannot be written: {why}.", f"{first}, or name another folder.")
    free = shutil.disk_usage(path).free
    text = f"{path}, {human_bytes(free)} free."
    if free < LITTLE:
        return (problem if free < TOO_LITTLE else warning)(text, "Free some space, or name another.")
    return ok(text)


def mounts() -> str | None:
    """What is mounted where, as Linux tells it; None on other systems."""
    try:
        return Path("/proc/mounts").read_text("utf-8", "surrogateescape")
    except OSError:
        return None


def file_system(path: Path, mounts: str | None) -> Diagnosis:
    """What kind of file system *path* is on; *mounts* as `mounts` gives it."""
    if mounts is None:
        return ok("This system does not tell its kind; it should not be a network drive.")
    real, kind, where = Path(os.path.realpath(path)), "unknown", ""
    for line in mounts.splitlines():
        _, point, mounted, *_ = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
        if len(point) >= len(where) and real.is_relative_to(point):
            kind, where = mounted, point
    text, remedy = f"{kind}, mounted at {where or '/'}", "Keep the store on a disk of this machine."
    if kind.removeprefix("fuse.") in (*NETWORK, "sshfs"):
        return problem(
            f"{text}: a store's log and locks do not hold over a network. Two machines may drive one job, "
            "and damage the store; one alone may lose its locks when the connection breaks.",
            remedy,
        )
    if kind.startswith("fuse") or kind in SHARED:
        return warning(f"{text}: whether locks always hold on it is not known.", remedy)
    return ok(f"{text}.")


def write_ahead(path: Path) -> Diagnosis:
    """Whether SQLite can write ahead in the folder, and a second connection reads what the first one wrote."""
    remedy = "Keep the store in a folder on a disk of this machine."
    try:
        with (
            tempfile.TemporaryDirectory(prefix=TRIAL, dir=path) as made,
            contextlib.closing(sqlite3.connect(Path(made, "trial.db"))) as writer,
            contextlib.closing(sqlite3.connect(Path(made, "trial.db"))) as reader,
        ):
            (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
            with writer:
                writer.execute("CREATE TABLE trial AS SELECT 1 AS number")
            read = reader.execute("SELECT number FROM trial").fetchall()
    except (OSError, sqlite3.Error) as exc:
        return problem(f"SQLite cannot write ahead in {path}: {exc}.", remedy)
    if mode != "wal" or read != [(1,)]:
        return problem(f"SQLite cannot write ahead in {path}; it falls back to {mode!r}.", remedy)
    return ok("A second connection reads what the first one wrote.")


def locks(store: Path) -> Diagnosis:
    """Whether a lock is kept from others while it is held, and is free once its holder is killed."""
    remedy = "Keep the store on a disk of this machine: without locks two sessions may drive one job."
    own = store.with_name(f".{store.name}.lock")
    if own.exists() and not os.access(own, os.R_OK | os.W_OK):
        return problem(f"{own} cannot be written.", "Change its owner or its mode.")
    try:
        with tempfile.NamedTemporaryFile(prefix=TRIAL, dir=store.parent) as file:
            command = [python(), "-I", "-S", "-c", HOLD_A_LOCK, file.name]
            pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, text=True) as holder:
                assert holder.stdout is not None
                kept = holder.stdout.readline() == "held\n" and not lock(file.fileno(), 0)
                holder.kill()
            given_back = lock(file.fileno(), 0)
    except OSError as exc:
        return problem(f"They cannot be taken in {store.parent}: {exc}.", remedy)
    except StoreError as exc:
        return problem(str(exc), remedy)
    if not (kept and given_back):
        return problem(f"In {store.parent} they are not kept from others, or not given back.", remedy)
    text = "They are kept from others while held, and free once their holder is killed."
    if not are_kept():
        text += (
            " On this system they are the process's: to copy, hash or zip a store in the process that has it open "
            "drops them. What is then lost is noticed and said; geoflow backup copies without harm."
        )
    return ok(text)


def log(path: Path | None) -> Diagnosis:
    """Whether the log can be written."""
    remedy = "Change its mode, or name another with GEOFLOW_LOG_FILE."
    if path is None:
        return ok("A store in memory has none.")
    path = path.absolute()
    if path.exists():
        fit = path.is_file() and os.access(path, os.W_OK)
        return ok(f"{path}.") if fit else problem(f"{path} cannot be written.", remedy)
    there = next(parent for parent in path.parents if parent.exists())
    if why := unwritable(there):
        return problem(f"{path} cannot be made: {there} cannot be written: {why}.", remedy)
    return ok(f"{path}, not there yet.")
