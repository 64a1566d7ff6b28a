"""Who drives a job: a lock that the operating system takes back the moment its holder is gone.

Each job has one byte of a lock file beside the store. A process that ends, however it ends, loses its locks at once;
one that sleeps or is stopped keeps them. So there is no clock, heartbeat or process id to be fooled by.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from pathlib import Path

from geoflow.errors import StoreError
from geoflow.stores.locks import HAS_LOCKS, WRITES, is_locked, lock, lock_file, open_lock_file, unlock

_guard = threading.Lock()
# One descriptor a file and process: where locks are the process's, to close any other would drop them all.
_files: dict[str, int] = {}
_held: dict[tuple[str, int], object] = {}


def _forget() -> None:
    """A forked child has no job. It lets go of the files too: else it kept its parent's locks when that is gone."""
    global _guard  # noqa: PLW0603 - another thread of the parent may have held it
    _guard = threading.Lock()
    for descriptor in _files.values():
        with contextlib.suppress(OSError, StoreError):
            os.close(descriptor)
    _files.clear()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class Ownership:
    """The locks of one store. ``path`` is None for a store that no other process can see."""

    def __init__(self, path: Path | None) -> None:
        self._path = None if path is None else lock_file(path)
        self._identity = self._path or uuid.uuid4().hex

    def acquire(self, job_key: int) -> bool:
        """Hold the job for this store object; False when another holds it, here or in another process."""
        with _guard:
            held = _held.get((self._identity, job_key))
            if held is not None:
                return held is self
            if self._path is not None and HAS_LOCKS and not lock(self._descriptor(), job_key):
                return False
            _held[self._identity, job_key] = self
            return True

    def release(self, job_key: int) -> None:
        """Let others have the job."""
        with _guard:
            if _held.get((self._identity, job_key)) is self:
                del _held[self._identity, job_key]
                if self._path is not None and HAS_LOCKS:
                    with contextlib.suppress(OSError, StoreError):
                        unlock(self._descriptor(), job_key)

    def is_free(self, job_key: int) -> bool:
        """Whether nobody drives the job at this moment."""
        with _guard:
            if (self._identity, job_key) in _held:
                return False
            if job_key < 0:  # of no job of ours
                return True
            if self._path is None or not HAS_LOCKS or not os.path.exists(self._path):
                return True
            return not is_locked(self._descriptor(), job_key)

    def check(self) -> None:
        """`StoreError` where the disk has no locks; SQLite would wait for them, and then name another process."""
        if self._path is None or not HAS_LOCKS:
            return
        with _guard:
            if self._path in _files:  # then it was found to have them
                return
            try:
                descriptor = open_lock_file(self._path)
            except StoreError:  # the store itself is told of then
                return
            try:
                is_locked(descriptor, WRITES)
            finally:
                os.close(descriptor)

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
            known = _files[self._path] = open_lock_file(self._path)
        return known


def _is_still(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False
