"""What this process holds of a SQLite file beside SQLite's own locks, which any close of the file here would drop.

SQLite's are POSIX's: to copy, hash or zip the store in the process that has it open drops them. The next program then
takes itself for the only one, copies the log into the file and deletes it, and what this process goes on to write goes
to a deleted file. So the same bytes are locked once more, in a way that stays (see `geoflow.stores.locks`): those that
say that someone has the file open, and that someone uses the memory which the log's readers share.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections import Counter, deque
from pathlib import Path

from geoflow.errors import StoreBusy
from geoflow.stores.locks import WRITES, Descriptor, are_kept, descriptors, lock, lock_file, open_lock_file, unlock

# Of SQLite's file format: who has a file open reads "locks" these bytes of it, and this one of its shared memory.
OPENED, SHARED_MEMORY = (0x40000002, 510), (128, 1)
_IDLE = 32
_NO_CHECKPOINT_ON_CLOSE = 1006


Held = list[tuple[Descriptor, tuple[int, int]]]
# What is to be let go. A store may be collected at any moment, also in a thread that has the descriptors' lock: to wait
# for that would be for ever, so it goes in here, and whoever has the lock next sees to it.
_leaving: deque[Held] = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leaving.clear)


class Guard:
    """Holds the open store at *path*, from now to `let_go`; nothing where the system has no locks that stay."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._held: Held = []
        # Of its own for each store: two of one process are kept from each other as those of two processes are.
        self._writes = -1
        self._pid = os.getpid()
        if not are_kept():
            return
        try:
            self._writes = open_lock_file(lock_file(path))
            for name, bytes_ in ((path, OPENED), (path.with_name(f"{path.name}-shm"), SHARED_MEMORY)):
                self._hold(name, bytes_, seconds)
                _see_off()
        except BaseException:
            self.let_go()
            raise

    def _hold(self, path: Path, bytes_: tuple[int, int], seconds: float) -> None:
        with descriptors.lock:
            descriptor = descriptors.of(path)
            if descriptor is None:
                return
            if not descriptor.users:
                _patiently(descriptor.number, bytes_, path.name, seconds, shared=True)
            descriptor.users += 1
            self._held.append((descriptor, bytes_))

    def begin(self, name: str, seconds: float) -> None:
        """Keep the other sessions of this store from writing, those of other processes too."""
        if self._writes >= 0:
            _patiently(self._writes, (WRITES, 1), name, seconds)

    def end(self) -> None:
        if self._writes >= 0:
            unlock(self._writes, WRITES)

    def let_go(self) -> None:
        if self._pid != os.getpid():
            return
        held, self._held = self._held, []
        _leaving.append(held)
        _see_off()
        if self._writes >= 0:
            os.close(self._writes)
            self._writes = -1


def tidy() -> None:
    """Close what is let go of, once SQLite has closed it too."""
    _leaving.append([])
    _see_off()


def _see_off() -> None:
    """Let go of what is to be let go, unless a thread has the lock: the next one that does this sees to it."""
    while _leaving and descriptors.lock.acquire(blocking=False):
        try:
            while _leaving:
                for descriptor, bytes_ in _leaving.popleft():
                    descriptor.users -= 1
                    if not descriptor.users:
                        unlock(descriptor.number, *bytes_)
            _close_idle()
        finally:
            descriptors.lock.release()


def _close_idle() -> None:
    """Close what nobody in this process has open beside us, and the oldest where there are many.

    Else a descriptor is kept when its last user goes: to close it would drop SQLite's locks.
    """
    idle = [identity for identity, descriptor in descriptors.by_file.items() if not descriptor.users]
    open_ones = _open_files() if idle else Counter()
    for number, identity in enumerate(idle):
        if number < len(idle) - _IDLE or open_ones.get(identity, 2) < 2:
            os.close(descriptors.by_file.pop(identity).number)


def _open_files() -> Counter[tuple[int, int]]:
    """How often this process has each file open, by device and inode; none where the system does not tell."""
    files: Counter[tuple[int, int]] = Counter()
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # that of the listing itself is closed by now
                status = os.fstat(int(name))
                files[status.st_dev, status.st_ino] += 1
    return files


def _patiently(descriptor: int, bytes_: tuple[int, int], name: str, seconds: float, *, shared: bool = False) -> None:
    deadline = 0.0
    while not lock(descriptor, *bytes_, shared=shared):
        deadline = deadline or time.monotonic() + seconds
        if time.monotonic() > deadline:
            raise StoreBusy(f"{name} was locked by another process for {seconds:.0f} s. Nothing was written.")
        time.sleep(0.001)


def close_as_it_is(connection: sqlite3.Connection) -> None:
    """Close a connection whose file or log is another's by now, without its copying its log into that file."""
    with contextlib.suppress(sqlite3.Error):
        if hasattr(connection, "setconfig"):  # since Python 3.12; before, the guard, which is held, prevents it
            connection.setconfig(_NO_CHECKPOINT_ON_CLOSE, True)
        connection.close()
