"""The control groups that this process is in, and what they allow: that is less than the machine has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def told(root: Path, controller: str, unified: tuple[str, ...], older: tuple[str, ...]) -> Iterator[str]:
    """What the files of those groups say, and of those that they are in: *unified* names them as they are called by
    now, *older* as in a hierarchy of the *controller*'s own. *root* is where they are looked for."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            groups = PurePosixPath(path.lstrip("/"))
            if number == "0":
                yield from _each(root, "sys/fs/cgroup", groups, unified)
            elif controller in controllers.split(","):
                for mount in dict.fromkeys((controllers, controller)):
                    yield from _each(root, f"sys/fs/cgroup/{mount}", groups, older)


def _each(root: Path, mount: str, groups: PurePosixPath, names: tuple[str, ...]) -> Iterator[str]:
    for group in (groups, *groups.parents):  # a container sees its own group as the top one
        with contextlib.suppress(OSError):
            yield " ".join((root / mount / group / name).read_text() for name in names)
