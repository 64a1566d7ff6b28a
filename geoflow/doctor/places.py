"""The folders that a session uses, and whether what they lie on can bear a store."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from geoflow.doctor.finding import Finding
from geoflow.text import human_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NETWORK = ("afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs")
SHARED = ("9p", "drvfs", "prl_fs", "vboxsf", "virtiofs", "vmhgfs")  # with the system that this one is a guest of
LITTLE, TOO_LITTLE = 1_000_000_000, 100_000_000  # bytes
TRIAL = ".geoflow-doctor-"
LOCK_SECONDS = 20
LOCK_ONCE = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    except OSError:
        print("refused", flush=True)
    else:
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


def folder(name: str, path: Path) -> Finding:
    """Whether files can be made in the folder, and how much space there is."""
    if not path.is_dir():
        return Finding(name, "problem", f"{path} is not there.", f"mkdir -p {shlex.quote(str(path))}")
    if why := unwritable(path):
        return Finding(name, "problem", f"{path} cannot be written: {why}.", "Change its mode, or name another folder.")
    free = shutil.disk_usage(path).free
    text = f"{path}, {human_bytes(free)} free."
    if free < LITTLE:
        return Finding(name, "problem" if free < TOO_LITTLE else "warning", text, "Free some space, or name another.")
    return Finding(name, "ok", text)


def mounts() -> str | None:
    """What is mounted where, as Linux tells it; None on other systems."""
    try:
        return Path("/proc/mounts").read_text("utf-8", "surrogateescape")
    except OSError:
        return None


def file_system(path: Path, mounts: str | None) -> Finding:
    """What kind of file system *path* is on; *mounts* as `mounts` gives it."""
    name = "file system"
    if mounts is None:
        return Finding(name, "ok", "This system does not tell its kind; it should not be a network drive.")
    real, kind, where = Path(os.path.realpath(path)), "unknown", ""
    for line in mounts.splitlines():
        _, point, mounted, *_ = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
        if len(point) >= len(where) and real.is_relative_to(point):
            kind, where = mounted, point
    text, remedy = f"{kind}, mounted at {where or '/'}", "Keep the store on a disk of this machine."
    if kind.removeprefix("fuse.") in (*NETWORK, "sshfs"):
        return Finding(name, "problem", f"{text}: a store's log and locks do not hold over a network.", remedy)
    if kind.startswith("fuse") or kind in SHARED:
        return Finding(name, "warning", f"{text}: whether locks always hold on it is not known.", remedy)
    return Finding(name, "ok", f"{text}.")


def write_ahead(path: Path) -> Finding:
    """Whether SQLite can write ahead in the folder, and a second connection reads what the first one wrote."""
    name, remedy = "write-ahead log", "Keep the store in a folder on a disk of this machine."
    try:
        with (
            tempfile.TemporaryDirectory(prefix=TRIAL, dir=path) as made,
            contextlib.closing(sqlite3.connect(Path(made, "trial.db"))) as writer,
            contextlib.closing(sqlite3.connect(Path(made, "trial.db"))) as reader,
        ):
            (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
            with writer:
                writer.execute("CREATE TABLE trial (number INTEGER)")
                writer.execute("INSERT INTO trial VALUES (1)")
            read = reader.execute("SELECT number FROM trial").fetchall()
    except (OSError, sqlite3.Error) as exc:
        return Finding(name, "problem", f"SQLite cannot write ahead in {path}: {exc}.", remedy)
    if mode != "wal" or read != [(1,)]:
        return Finding(name, "problem", f"SQLite cannot write ahead in {path}; it falls back to {mode!r}.", remedy)
    return Finding(name, "ok", "A second connection reads what the first one wrote.")


def locks(store: Path) -> Finding:
    """Whether a lock is kept from others while it is held, and is free once its holder is killed."""
    name, remedy = "locks", "Keep the store on a disk of this machine: without locks two sessions may drive one job."
    if fcntl is None:
        return Finding(name, "warning", "This system has none: jobs are told apart in one process only.", remedy)
    own = store.with_name(f".{store.name}.lock")
    if own.exists() and not os.access(own, os.R_OK | os.W_OK):
        return Finding(name, "problem", f"{own} cannot be written.", "Change its owner or its mode.")
    try:
        with tempfile.NamedTemporaryFile(prefix=TRIAL, dir=store.parent) as file:
            taken = _taken(file.fileno())
            with _another(file.name) as other:
                kept = other.communicate(timeout=LOCK_SECONDS)[0].strip() == "refused"
            fcntl.lockf(file, fcntl.LOCK_UN, 1, 0)
            with _another(file.name) as other:
                assert other.stdout is not None
                kept &= other.stdout.readline().strip() == "held" and not _taken(file.fileno())
            given_back = _taken(file.fileno())
    except (OSError, subprocess.SubprocessError) as exc:
        return Finding(name, "problem", f"They cannot be taken in {store.parent}: {exc}.", remedy)
    if not (taken and kept and given_back):
        return Finding(name, "problem", f"In {store.parent} they are not kept from others, or not given back.", remedy)
    return Finding(name, "ok", "They are kept from others while held, and free once their holder is killed.")


@contextlib.contextmanager
def _another(path: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, which tries to take the lock, says whether it could, and holds it until it is killed."""
    command = [sys.executable, "-I", "-S", "-c", LOCK_ONCE, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            yield other
        finally:
            other.kill()


def _taken(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
    except OSError:
        return False
    return True


def log(path: Path | None) -> Finding:
    """Whether the log can be written."""
    name, remedy = "log", "Change its mode, or name another with GEOFLOW_LOG_FILE."
    if path is None:
        return Finding(name, "ok", "A store in memory has none.")
    path = path.absolute()
    if path.exists():
        fit = path.is_file() and os.access(path, os.W_OK)
        return Finding(
            name, "ok" if fit else "problem", f"{path}{'' if fit else ' cannot be written'}.", remedy * (not fit)
        )
    there = next(parent for parent in path.parents if parent.exists())
    if why := unwritable(there):
        return Finding(name, "problem", f"{path} cannot be made: {there} cannot be written: {why}.", remedy)
    return Finding(name, "ok", f"{path}, not there yet.")
