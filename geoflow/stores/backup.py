"""A copy of a store while jobs run, and the way back: each whole or not at all, whenever the process is killed.

What is made grows in a folder of its own beside its place, is checked and synced there, and then gets its name in one
step. Nothing that was there before is deleted or written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from geoflow.errors import StoreBusy, StoreError
from geoflow.stores import copies, locks
from geoflow.stores.convert import copy_rows
from geoflow.stores.files import check_place, free_name, growing_beside, private
from geoflow.stores.opening import is_duckdb, opened
from geoflow.stores.store import Store
from geoflow.support.logfile import BACKUPS

# What a store's file has beside it while it is written.
_BESIDE = ("-wal", "-shm", "-journal", ".wal")
SAVED = ".files"  # behind the store's name: the folder of what its jobs save
_ROTATED = ("", *(f".{number}" for number in range(1, BACKUPS + 1)))


def back_up(store: Store, target: Path, log: Path | None, saved: Path | None = None) -> list[Path]:
    """Copy *store* as it is now to the new file *target*, and its *log* to ``<target>.log``; what was made.

    What jobs have *saved*, the folder of `gf.save`, goes to ``<target>.files``. Jobs go on meanwhile. Raises
    ``StoreError`` where one of these is there already, or the copy is not whole.
    """
    target = target.absolute()
    check_place(target, "backup.duckdb" if is_duckdb(store.name) else "backup.db")
    _check_kind(store.name, target)
    own = [f"{target}{ending}" for ending in (*_BESIDE, *(f".log{number}" for number in _ROTATED), SAVED)]
    if there := next(filter(os.path.lexists, (str(target), *own)), None):
        raise StoreError(f"{there} is there already, and was not touched: name another file for the backup.")
    with _growing(target) as folder:
        new = folder / target.name
        if locks.are_kept() or not is_duckdb(target):
            store.copy_to(new)
        else:  # to read the file would drop DuckDB's lock on it: its rows go one by one
            with opened(new) as made:
                copy_rows(store, made)
        logs = [] if log is None else _copy_log(log, folder / f"{target.name}.log")
        # After the store, of which each result names files that are there; it comes last: once it is there, all is.
        files = _copy_saved(saved, Path(f"{new}{SAVED}")) if saved is not None else []
        return [_put(made, target.with_name(made.name)) for made in (*files, *logs, new)][::-1]


def restore(backup: Path, store: Path, log: Path | None) -> tuple[list[Path], list[Path]]:
    """Put a copy of *backup* in the place of the file *store*, with its log, if it has one, in that of *log*.

    The files that were put there, and those that were there and have other names now. The backup is checked first.
    The files that its jobs saved join those that are there.
    Raises ``StoreBusy`` where a process has the store open.
    """
    store = Path(os.path.realpath(store))
    check_place(store, "geoflow.db")
    if not backup.is_file():
        raise StoreError(f"There is no backup at {backup}: nothing was done.")
    if store.exists() and os.path.samefile(backup, store):
        raise StoreError(f"{backup} is the store itself: nothing was done.")
    _check_kind(backup, store)
    live = [f"{backup}{ending}" for ending in _BESIDE if ending != "-shm" and _has_content(f"{backup}{ending}")]
    if live:
        raise StoreError(
            f"{backup} has a log, {Path(live[0]).name}: it is in use, or was copied while it was. Nothing was done. "
            f"Make a backup of it first: geoflow backup PATH --store {backup}"
        )
    with _growing(store) as folder:
        new = folder / store.name
        _copy_file(backup, new)
        _check(new, backup)
        with _alone(store):
            saved = _copy_saved(Path(f"{backup}{SAVED}"), Path(f"{store}{SAVED}"))
            aside = _swap(new, store)
            put = [store, *saved]
            # A log of another name may be that of several stores: it stays.
            if log is not None and os.path.realpath(log) == f"{store}.log" and os.path.exists(f"{backup}.log"):
                made = _copy_log(Path(f"{backup}.log"), folder / log.name)
                name = free_name(log, "aside")
                for number in _ROTATED:
                    aside += _renamed(f"{log}{number}", f"{name}{number}")
                put += [_put(new_log, log.with_name(new_log.name)) for new_log in made]
    return put, aside


def _check_kind(source: str | Path, target: Path) -> None:
    if is_duckdb(source) != is_duckdb(target):
        raise StoreError(
            f"{source} and {target} are not of one kind: a DuckDB store has a name that ends in .duckdb, and no other "
            "has. Nothing was done; geoflow convert makes one of the other."
        )


def _check(new: Path, backup: Path) -> None:
    """Refuse to restore what is not a whole store. It is opened as one, which *backup* itself never is."""
    try:
        if not _has_content(str(new)):
            raise StoreError(f"{new} is empty.")
        with opened(new):
            pass
        if is_duckdb(new):
            from geoflow.stores import duckdb_file

            duckdb_file.check_whole(new)
        else:
            copies.check_whole(new)
    except (StoreError, sqlite3.Error) as exc:
        why = str(exc).replace(str(new), str(backup))
        raise StoreError(f"{why} Nothing was restored: the store is as it was.") from exc


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Have the store at *path* for this alone; ``StoreBusy`` where anyone has it open."""
    if path.exists():
        # What its log has goes into it, so that one file is all that it is. One that is damaged keeps its log.
        with contextlib.suppress(StoreError), opened(path):
            pass
    with contextlib.ExitStack() as held:
        if locks.HAS_LOCKS:
            own = locks.open_lock_file(locks.lock_file(path))
            held.callback(os.close, own)
            free = all(locks.lock(own, byte) for byte in (locks.HOLDS, locks.WRITES))
            # A job's byte is the number of its key.
            free = free and not locks.is_locked(own, 1, locks.WRITES - 1)
            for name in (str(path), f"{path}-shm"):
                if free and os.path.exists(name):
                    descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC)
                    held.callback(os.close, descriptor)
                    free = locks.lock(descriptor, 0, 0)
            if not free:
                raise StoreBusy(
                    f"{path} is in use: nothing was restored. Close the sessions and programs that have it open first."
                )
        yield


def _swap(new: Path, path: Path) -> list[Path]:
    """Give *new* the name *path*; what had it, and its log, have another afterwards. *path* is never without a file."""
    name = free_name(path, "aside")
    # First the log: the next program that opens *path* would copy it over the new file.
    aside = [moved for ending in _BESIDE for moved in _renamed(f"{path}{ending}", f"{name}{ending}")]
    if os.path.lexists(path):
        try:
            os.link(path, name)
            aside.insert(0, name)
        except OSError:  # a disk without a second name for a file
            aside = _renamed(path, name) + aside
    _sync(new)
    os.replace(new, path)
    _sync(path.parent)
    return aside


def _renamed(old: str | Path, new: str | Path) -> list[Path]:
    try:
        os.rename(old, new)
    except FileNotFoundError:
        return []
    return [Path(new)]


def _put(new: Path, target: Path) -> Path:
    """Give the file *new* the name *target*, unless another has come by it meanwhile."""
    _sync(new)
    try:
        if new.is_dir():
            os.rename(new, target)
        else:
            os.link(new, target)
    except FileExistsError:
        raise StoreError(f"{target} is there already, and was not touched: name another file for the backup.") from None
    except OSError:  # a disk without a second name for a file
        os.rename(new, target)
    _sync(target.parent)
    return target


def _copy_log(log: Path, target: Path) -> list[Path]:
    """Copy *log* and the files that it was rotated to, each once, whatever is rotated meanwhile."""
    made: list[Path] = []
    with contextlib.ExitStack() as stack:
        files, seen = [], set()
        for number in _ROTATED:  # the newest first: what it is rotated to in this moment is met again, and left out
            with contextlib.suppress(FileNotFoundError):
                file = stack.enter_context(open(f"{log}{number}", "rb"))
                about = os.fstat(file.fileno())
                if (about.st_dev, about.st_ino) not in seen:
                    seen.add((about.st_dev, about.st_ino))
                    files.append((number, file))
        for number, file in files:
            made.append(Path(f"{target}{number}"))
            with open(made[-1], "xb", opener=private) as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
    return made


def _copy_saved(source: Path, target: Path) -> list[Path]:
    """Copy what jobs have saved in *source* to *target*, but for drafts and what is there; the folder, if any.

    A file is named by what is in it, and never changed.
    """
    for folder in sorted(source.glob("*/")):
        for file in folder.iterdir():
            place = target / folder.name / file.name
            if file.name.startswith(".") or file.is_symlink() or not file.is_file() or place.exists():
                continue
            for each in (target, place.parent):
                each.mkdir(0o700, exist_ok=True)
            draft = place.with_name(f".{place.name}")
            draft.unlink(missing_ok=True)
            _copy_file(file, draft)
            _sync(draft)
            draft.rename(place)
    return [target] if target.is_dir() else []


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as file, open(target, "xb", opener=private) as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def _has_content(name: str) -> bool:
    return os.path.exists(name) and os.path.getsize(name) > 0


@contextlib.contextmanager
def _growing(target: Path) -> Iterator[Path]:
    """A folder beside *target* in which it is made; what goes wrong there is told of *target*."""
    with _explained(target), growing_beside(target) as folder:
        try:
            yield folder
        except StoreError as exc:
            if str(folder) not in str(exc):
                raise
            raise StoreError(str(exc).replace(str(folder), str(target.parent))) from exc


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreError(
            f"{target} cannot be written: {exc.strerror or exc}. Nothing was put there: check the disk and its folder."
        ) from exc
