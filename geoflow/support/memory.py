"""How much memory there is for tasks: what the machine or a control group has, less a reserve."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from geoflow.support.control_groups import told

# For the system, and for the process that drives jobs: a tenth, and at least so many bytes, but never more than half.
RESERVE = 300_000_000


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
