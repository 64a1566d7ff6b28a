"""What is kept when a store's file is not what was opened any more: beside it, under a name that nothing opens."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def free_name(path: Path, word: str, ending: str = "") -> Path:
    """A name beside *path* that says when, such as ``work.db.aside-20260131-120000``, and is not taken."""
    stem, number = f"{path.name}.{word}-{time.strftime('%Y%m%d-%H%M%S')}", 0
    while True:
        found = path.with_name(f"{stem}.{number}{ending}" if number else f"{stem}{ending}")
        if not any(os.path.lexists(f"{found}{more}") for more in ("", "-wal", "-shm", ".wal")):
            return found
        number += 1


def set_aside(path: Path, endings: Sequence[str]) -> list[Path]:
    """Give the files that *path* and each of *endings* name another name; those that are not there are left out."""
    there = [ending for ending in endings if os.path.lexists(f"{path}{ending}")]
    name, moved = free_name(path, "aside"), []
    for ending in there:
        with suppress(FileNotFoundError):
            os.rename(f"{path}{ending}", f"{name}{ending}")
            moved.append(Path(f"{name}{ending}"))
    return moved
