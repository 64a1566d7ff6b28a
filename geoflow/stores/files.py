"""Where a store's file is: whether it can be there, whether it is the one that was opened, and what is kept if not."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from geoflow.errors import StoreError
from geoflow.support.identity import PREFIX, is_left_behind, label


def check_place(path: Path, example: str) -> None:
    """Refuse a *path* at which no file can be; *example* is the name of one that can."""
    if path.is_dir():
        raise StoreError(f"{path} is a folder: the store is a file, such as {path / example}.")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"{path} cannot be opened: the folder {path.absolute().parent} does not exist. Make it first.")


def file_at(path: str | Path | None) -> tuple[int, int] | None:
    """Which file is at *path* now, if any."""
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def gone(name: str) -> str:
    """That the file of the store *name* is not the one that was opened: what is written to it, nobody finds again."""
    return (
        f"{name} was deleted, moved or replaced while this session had it open. Nothing was written: put "
        "the file back, or close the session to begin with the one that is there."
    )


def free_name(path: Path, word: str, ending: str = "") -> Path:
    """A name beside *path* that says when, such as ``work.db.aside-20260131-120000``, and is not taken."""
    stem, number = f"{path.name}.{word}-{time.strftime('%Y%m%d-%H%M%S')}", 0
    while True:
        name = path.with_name(f"{stem}.{number}{ending}" if number else f"{stem}{ending}")
        if not any(os.path.lexists(f"{name}{more}") for more in ("", "-wal", "-shm", ".wal")):
            return name
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


def rescued(path: Path, ending: str, copy_to: Callable[[Path], None], refused: type[Exception]) -> Path | None:
    """Keep what a session sees of a file or log that nobody else finds any more; where, if that could be done.

    *copy_to* may raise what is *refused*, or ``StoreError`` or ``OSError``.
    """
    target = free_name(path, "rescued", ending)
    try:
        copy_to(target)
    except (OSError, StoreError, refused):
        with suppress(OSError):
            target.unlink()
        return None
    return target


def private(path: str, flags: int) -> int:
    """An opener of files that only their owner may read."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def growing_beside(path: Path) -> Iterator[Path]:
    """A hidden folder beside *path*, in which the file grows until it is whole and gets its name.

    Such folders of processes that were killed are removed: their names say whose they were.
    """
    hidden = f".{path.name}-"
    for left in path.parent.glob(f"{glob.escape(hidden)}{PREFIX}*"):
        if is_left_behind(left.name.removeprefix(hidden)) and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=hidden + label(), dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
