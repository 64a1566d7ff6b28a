"""A small file that is mapped into memory, for what one process says and others read while it runs."""

from __future__ import annotations

import mmap
import os


def mapped(path: str | os.PathLike[str], size: int, flags: int) -> mmap.mmap:
    """The first *size* bytes of the file *path*, which is opened with these *flags* beside the usual ones."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        # Written, not only made so long: to look at memory for which the disk has no room ends the process.
        if os.fstat(descriptor).st_size < size:
            os.write(descriptor, bytes(size))
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
