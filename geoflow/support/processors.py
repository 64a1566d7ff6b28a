"""How many processors this process may use: not all that the machine has, where it is bound to some or has a quota."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from geoflow.support.control_groups import told


def usable(root: Path = Path("/")) -> int:
    """At least one; *root* is where the files of control groups are looked for."""
    counted = getattr(os, "process_cpu_count", os.cpu_count)() or 1  # the former heeds the affinity, and a user's -X
    if hasattr(os, "sched_getaffinity"):
        counted = min(counted, len(os.sched_getaffinity(0)))
    return max(1, min([counted, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The processors' worth of time that this process's control groups, and those that they are in, are given."""
    for text in told(root, "cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with contextlib.suppress(ValueError):
            quota, period = text.split()
            if quota not in ("max", "-1") and float(quota) > 0:
                yield float(quota) / float(period)
