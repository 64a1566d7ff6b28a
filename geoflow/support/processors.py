"""How many processors this process may use: not all that the machine has, where it is bound to some or has a quota."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable(root: Path = Path("/")) -> int:
    """At least one; *root* is where the files of control groups are looked for."""
    counted = getattr(os, "process_cpu_count", os.cpu_count)() or 1  # the former heeds the affinity, and a user's -X
    if hasattr(os, "sched_getaffinity"):
        counted = min(counted, len(os.sched_getaffinity(0)))
    return max(1, min([counted, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The processors' worth of time that this process's control groups, and those that they are in, are given."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            groups = PurePosixPath(path.lstrip("/"))
            if number == "0":
                yield from _each(root, "sys/fs/cgroup", groups, ("cpu.max",))
            elif "cpu" in controllers.split(","):
                for mount in (controllers, "cpu"):
                    yield from _each(root, f"sys/fs/cgroup/{mount}", groups, ("cpu.cfs_quota_us", "cpu.cfs_period_us"))


def _each(root: Path, mount: str, groups: PurePosixPath, names: tuple[str, ...]) -> Iterator[float]:
    for group in (groups, *groups.parents):  # a container sees its own group as the top one
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((root / mount / group / name).read_text() for name in names).split()
            if quota not in ("max", "-1") and float(quota) > 0:
                yield float(quota) / float(period)
