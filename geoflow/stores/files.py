"""Where a store's file is: whether one can be there, and whether it is still the one that was opened."""

from __future__ import annotations

import os
from pathlib import Path

from geoflow.errors import StoreError


def check_place(path: Path, example: str) -> None:
    """Refuse a *path* at which no file can be; *example* is the name of one that can."""
    if path.is_dir():
        raise StoreError(f"{path} is a folder: the store is a file, such as {path / example}.")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"{path} cannot be opened: the folder {path.absolute().parent} does not exist. Make it first.")


def file_at(path: str | Path | None) -> tuple[int, int] | None:
    """Which file is at *path* now, if any."""
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        return None
    return found and (found.st_dev, found.st_ino)


def gone(name: str) -> str:
    """That the file of the store *name* is not the one that was opened: what is written to it, nobody finds again."""
    return (
        f"{name} was deleted, moved or replaced while this session had it open. Nothing was written: put "
        "the file back, or close the session to begin with the one that is there."
    )
