"""Who drives a job: a lock that the operating system takes back the moment its holder is gone.

Each job has one byte of a lock file beside the store. A process that ends, however it ends, loses its locks at once;
one that sleeps or is stopped keeps them. So there is no clock, heartbeat or process id to be fooled by.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
import uuid
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: jobs are then told apart within this process only
    fcntl = None  # type: ignore[assignment]

_guard = threading.Lock()
# One descriptor a file and process: closing any other would drop all of the process's locks on the file.
_files: dict[str, int] = {}
_held: dict[tuple[str, int], object] = {}


def _forget() -> None:
    # A forked child holds none of its parent's record locks.
    _files.clear()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class Ownership:
    """The locks of one store. ``path`` is None for a store that no other process can see."""

    def __init__(self, path: Path | None) -> None:
        # The real path: one store by two names has one owner.
        real = None if path is None else Path(os.path.realpath(path))
        self._path = None if real is None else str(real.with_name(f".{real.name}.lock"))
        self._identity = self._path or uuid.uuid4().hex

    def acquire(self, job_key: int) -> bool:
        """Hold the job for this store object; False when another holds it, here or in another process."""
        with _guard:
            held = _held.get((self._identity, job_key))
            if held is not None:
                return held is self
            if self._path is not None and fcntl is not None:
                try:
                    fcntl.lockf(self._descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, job_key)
                except (BlockingIOError, PermissionError):
                    return False
            _held[self._identity, job_key] = self
            return True

    def release(self, job_key: int) -> None:
        """Let others have the job."""
        with _guard:
            if _held.get((self._identity, job_key)) is self:
                del _held[self._identity, job_key]
                if self._path is not None and fcntl is not None:
                    with contextlib.suppress(OSError):
                        fcntl.lockf(self._descriptor(), fcntl.LOCK_UN, 1, job_key)

    def is_free(self, job_key: int) -> bool:
        """Whether nobody drives the job at this moment."""
        with _guard:
            if (self._identity, job_key) in _held:
                return False
            if self._path is None or fcntl is None or not os.path.exists(self._path):
                return True
            return not _is_locked(self._descriptor(), job_key)

    def release_all(self) -> None:
        with _guard:
            mine = [job_key for (_, job_key), holder in _held.items() if holder is self]
        for job_key in mine:
            self.release(job_key)

    def _descriptor(self) -> int:
        assert self._path is not None
        known = _files.get(self._path)
        if known is not None and not _is_still(known, self._path):
            del _files[self._path]  # first: should no other be made, its number may be another file's by then
            os.close(known)  # the folder was removed, or made anew: nobody else looks at the old file
            known = None
        if known is None:
            known = _files[self._path] = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return known


def _is_still(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _is_locked(descriptor: int, byte: int) -> bool:
    """Asked, not tried: whoever tries a lock holds it for a moment, and gets in the way of who wants it."""
    darwin = sys.platform == "darwin"
    # struct flock: on macOS start, length, pid, type, whence; on Linux type, whence, start, length, pid.
    layout = "qqihh" if darwin else "hhqqi"
    question = (byte, 1, 0, fcntl.F_WRLCK, 0) if darwin else (fcntl.F_WRLCK, 0, byte, 1, 0)
    answer = struct.unpack(layout, fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *question)))
    return bool(answer[3 if darwin else 0] != fcntl.F_UNLCK)
