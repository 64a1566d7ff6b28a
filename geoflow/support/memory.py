"""How much memory there is for tasks, how much a process has, and whether the system ended one that had too much."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from geoflow.support.control_groups import told
from geoflow.support.text import human_bytes

# For the system, and for the process that drives jobs: a tenth, and at least so many bytes, but never more than half.
RESERVE = 300_000_000
# Of several processes that die at once, the system has ended all, if one: nobody counts which.
_AT_ONCE_SECONDS = 1.0
# What a process has in memory tells what its task takes once it has not grown by more than a quarter for so long.
STEADY_SECONDS, GROWTH = 0.5, 1.25


def budget(root: Path = Path("/")) -> int | None:
    """Bytes for all tasks together; None where the system does not tell what it has.

    *root* is where the files of control groups are looked for.
    """
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    there = min([there, *_limits(root)])
    return there - max(there // 10, min(RESERVE, there // 2))


def _limits(root: Path) -> Iterator[int]:
    for text in told(root, "memory", ("memory.max",), ("memory.limit_in_bytes",)):
        with contextlib.suppress(ValueError):  # of which "max" is one
            if int(text) > 0:
                yield int(text)


# What a process has


def of_process(pid: int) -> int | None:
    """How much it has in memory now, in bytes, where the system says so."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return None


def steady(looks: Iterable[tuple[float, int]], since: float) -> int | None:
    """The bytes that a process has had for `STEADY_SECONDS` by *looks* at it, of the time *since* some moment; None
    while it takes more, and where there were not enough looks."""
    these = [look for look in looks if look[0] > since]
    earlier = [had for when, had in these if when <= these[-1][0] - STEADY_SECONDS]
    return these[-1][1] if earlier and these[-1][1] <= GROWTH * earlier[-1] else None


class Peak:
    """The most that this process has had in memory, since `begin` where the system can forget what was before."""

    def __init__(self) -> None:
        self._file = -1
        with contextlib.suppress(OSError):
            self._file = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)

    def begin(self) -> None:
        if self._file >= 0:
            try:
                os.write(self._file, b"5")  # "reset the peak resident set size to the current one", proc(5)
            except OSError:
                self._file = -1


def peak() -> int:
    """The most that this process has had in memory, in bytes, of which macOS tells so, and others in kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def too_little(had: int | None, there: int | None) -> str:
    """What a process *had* that got no more, and what there is *there* for all tasks, as the end of a sentence."""
    of = "of memory" if there is None else f"of the {human_bytes(there)} of memory that there are for all tasks"
    said = f"its process had {'an unknown part' if had is None else human_bytes(had)} {of}"
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return said if limit == resource.RLIM_INFINITY else f"{said}, and its addresses are limited to {human_bytes(limit)}"


# Whether the system ended it


class Kills:
    """The processes that the system has ended for want of memory, counted where this one would be."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._seen = self._count()
        self._until = 0.0

    def _count(self) -> int:
        """Of its control group, or of the machine."""
        texts = told(self._root, "memory", ("memory.events",), ("memory.oom_control",))
        with contextlib.suppress(OSError, ValueError):
            text = next(texts, None) or (self._root / "proc/vmstat").read_text()
            counts = (int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))
            return next(counts, 0)  # older kernels do not count
        return 0

    def look(self) -> bool:
        """Whether there was one since the last look, or a moment ago; ask when a process has died."""
        count, now = self._count(), time.monotonic()
        if count > self._seen:
            self._seen, self._until = count, now + _AT_ONCE_SECONDS
        return now < self._until
