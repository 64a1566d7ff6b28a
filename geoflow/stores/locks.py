"""Locks on bytes of a file, asked of the operating system; which of them are kept whatever this process closes.

Linux has locks that belong to an open file. POSIX's belong to the process, and it loses all of them with the first
descriptor of the file that it closes: a copy, a hash, a zip of the store is enough. So this process has one descriptor
for each file that it locks bytes of, whoever they are for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from geoflow.errors import StoreError
from geoflow.stores.files import file_at

try:
    import fcntl
except ImportError:  # Windows: jobs are then told apart within this process only
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
# Bytes of a store's lock file behind those of the jobs, whose keys are the numbers of theirs.
WRITES, HOLDS = (1 << 62), (1 << 62) + 1
_DARWIN = sys.platform == "darwin"
# struct flock: on macOS start, length, pid, type, whence; on Linux type, whence, start, length, pid.
_LAYOUT = "qqihh" if _DARWIN else "hhqqi"
_OWN = {name: getattr(fcntl, f"F_OFD_{name}", None) for name in ("SETLK", "GETLK")}


def are_kept() -> bool:
    """Whether this system has locks that stay while other descriptors of their file are closed."""
    return _OWN["SETLK"] is not None


def lock_file(path: str | os.PathLike[str]) -> str:
    """The lock file of the store at *path*: by its real path, since one store by two names has one owner."""
    folder, name = os.path.split(os.path.realpath(path))
    return os.path.join(folder, f".{name}.lock")


def open_lock_file(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StoreError(
            f"The lock file {path} cannot be opened: {exc.strerror}. Without it two sessions might drive one job: "
            "change its mode or its folder's."
        ) from exc


@dataclass
class Descriptor:
    """One that stays open while it has users, whose locks are all on it."""

    number: int
    users: int = 0


class Descriptors:
    """Those of this process, by device and inode; to be used with the `lock` held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_file: dict[tuple[int, int], Descriptor] = {}

    def of(self, path: str | Path, *, make: bool = False) -> Descriptor | None:
        """That of the file at *path*; None where there is no file, unless it is to *make* a lock file there."""
        identity = file_at(path)
        if identity is None and not make:
            return None
        if identity is None or identity not in self.by_file:
            number = open_lock_file(os.fspath(path)) if make else os.open(path, os.O_RDWR | os.O_CLOEXEC)
            about = os.fstat(number)
            identity = about.st_dev, about.st_ino
            self.by_file.setdefault(identity, Descriptor(number))
        return self.by_file[identity]

    def forget(self) -> None:
        """A fork has none, and lets go of its parent's: else it kept the locks when that is gone."""
        for descriptor in self.by_file.values():
            with contextlib.suppress(OSError):
                os.close(descriptor.number)
        self.__init__()  # type: ignore[misc]  # another thread of the parent may have held the lock


descriptors = Descriptors()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=descriptors.forget)


def lock(descriptor: int, start: int, length: int = 1, *, shared: bool = False) -> bool:
    """Take the bytes; False when another holds them. `StoreError` where the disk has no locks."""
    try:
        _ask("SETLK", descriptor, fcntl.F_RDLCK if shared else fcntl.F_WRLCK, start, length)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int, start: int, length: int = 1) -> None:
    _ask("SETLK", descriptor, fcntl.F_UNLCK, start, length)


def take_over(descriptor: int) -> bool:
    """Hold the whole file in place of what this process has locked of it by other means."""
    fcntl.lockf(descriptor, fcntl.LOCK_UN)
    return lock(descriptor, 0, 0)


def is_locked(descriptor: int, start: int, length: int = 1, *, alone: bool = True) -> bool:
    """Whether another holds the bytes, or with ``alone=False`` holds them for itself.

    Asked, not tried: whoever tries a lock holds it for a moment, and gets in the way of who wants it.
    """
    answer = _ask("GETLK", descriptor, fcntl.F_WRLCK if alone else fcntl.F_RDLCK, start, length)
    return bool(answer[3 if _DARWIN else 0] != fcntl.F_UNLCK)


def _ask(command: str, descriptor: int, kind: int, start: int, length: int) -> tuple[int, ...]:
    number = _OWN[command]
    number = getattr(fcntl, f"F_{command}") if number is None else number
    arguments = (start, length, 0, kind, os.SEEK_SET) if _DARWIN else (kind, os.SEEK_SET, start, length, 0)
    try:
        return struct.unpack(_LAYOUT, fcntl.fcntl(descriptor, number, struct.pack(_LAYOUT, *arguments)))
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError from None
        raise StoreError(
            f"The disk of this store has no locks ({exc.strerror}), and without them two sessions might drive one job: "
            "keep the store on a disk of this machine, or in memory (':memory:'). geoflow doctor says more."
        ) from exc
