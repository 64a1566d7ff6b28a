"""Who drives a job: a lock that the operating system takes back the moment its holder is gone.

Each job has one byte of a lock file beside the store. A process that ends, however it ends, loses its locks at once;
one that sleeps or is stopped keeps them. So there is no clock, heartbeat or process id to be fooled by.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from geoflow.errors import StoreError
from geoflow.stores.locks import HAS_LOCKS, WRITES, Descriptor, descriptors, is_locked, lock, lock_file, unlock

# Which store object of this process has a job, by the store and the job's key, and where its lock is. A fork has none.
_held: dict[tuple[str, int], tuple[Ownership, Descriptor | None]] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)


class Ownership:
    """The locks of one store. ``path`` is None for a store that no other process can see."""

    def __init__(self, path: Path | None) -> None:
        self._identity = uuid.uuid4().hex if path is None else lock_file(path)
        self._path = None if path is None or not HAS_LOCKS else self._identity

    def acquire(self, job_key: int) -> bool:
        """Hold the job for this store object; False when another holds it, here or in another process."""
        with descriptors.lock:
            if (held := _held.get((self._identity, job_key))) is not None:
                return held[0] is self
            descriptor = None
            if self._path is not None:
                descriptor = self._descriptor()
                if not lock(descriptor.number, job_key):
                    return False
                descriptor.users += 1
            _held[self._identity, job_key] = self, descriptor
            return True

    def release(self, job_key: int) -> None:
        """Let others have the job."""
        with descriptors.lock:
            holder, descriptor = _held.get((self._identity, job_key), (None, None))
            if holder is self:
                del _held[self._identity, job_key]
                if descriptor is not None:
                    descriptor.users -= 1
                    with contextlib.suppress(OSError, StoreError):
                        unlock(descriptor.number, job_key)

    def is_free(self, job_key: int) -> bool:
        """Whether nobody drives the job at this moment."""
        with descriptors.lock:
            if (self._identity, job_key) in _held:
                return False
            # A key below zero is that of no job of ours.
            if job_key < 0 or self._path is None or not os.path.exists(self._path):
                return True
            return not is_locked(self._descriptor().number, job_key)

    def check(self) -> None:
        """`StoreError` where the disk has no locks; SQLite would wait for them, and then name another process."""
        if self._path is None:
            return
        with descriptors.lock:
            try:
                descriptor = self._descriptor()
            except StoreError:  # the store itself is told of then
                return
            is_locked(descriptor.number, WRITES)

    def release_all(self) -> None:
        with descriptors.lock:
            mine = [job_key for (_, job_key), (holder, _) in _held.items() if holder is self]
        for job_key in mine:
            self.release(job_key)

    def _descriptor(self) -> Descriptor:
        assert self._path is not None, "a file has a path"
        descriptor = descriptors.of(self._path, make=True)
        assert descriptor is not None, "it was made"
        return descriptor
