"""What jobs have saved beside their store: how much it is, and what of it nobody can need any more.

A file that is named anywhere in the store stays, whichever job it is of: results are taken over with the files that
they name, and a file that one job has saved may be what another is given.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from geoflow.stores.store import Store

_JOB = re.compile(r"[0-9a-f]{64}")
_SAVED = re.compile(r"[0-9a-f]{32}\.\w{1,20}")  # see `geoflow.executors.saved`
_DRAFT = re.compile(r"\.[0-9a-f]{32}\.\w{1,20}")
_NAMED = re.compile(r"([0-9a-f]{64})[\\/]+([0-9a-f]{32}\.\w{1,20})")
_IN_A_NAME = "files"  # each folder of saved files has it in its name
_TEXTS = (("job", "parameters"), ("job", "result"), ("task", "parameters"), ("task", "metadata"), ("attempt", "result"))
_ROWS_AT_ONCE = 200


def saved_bytes(folder: Path, job_id: str) -> int:
    """How many bytes of files the job has saved in the *folder* of its store."""
    return sum(size for _, size in _files(folder / job_id))


def jobs_with_files(folder: Path) -> list[str]:
    """The ids of the jobs that have a folder there."""
    with suppress(OSError):
        return [entry.name for entry in os.scandir(folder) if _JOB.fullmatch(entry.name) and _is_folder(entry)]
    return []


def sweep(store: Store, folder: Path) -> tuple[int, int]:
    """Remove from *folder* what was saved by jobs that the store does not have, and what is named nowhere in it.

    How many files and bytes that were. Nothing else in the folder is touched. Whoever is killed here leaves files that
    the next call finds.
    """
    gone = [job_id for job_id in jobs_with_files(folder) if store.job(job_id) is None]
    if not gone:
        return 0, 0
    named = _named(store, set(gone))
    files = size = 0
    for job_id in gone:
        with store._transaction():  # nobody submits the job meanwhile
            if store.job(job_id) is not None:
                continue
            for path, bytes_ in _files(folder / job_id):
                if path.name not in named[job_id]:
                    with suppress(OSError):
                        path.unlink()
                        files, size = files + 1, size + bytes_
            with suppress(OSError):  # it is not empty
                (folder / job_id).rmdir()
    with suppress(OSError):
        folder.rmdir()
    return files, size


def _named(store: Store, of_jobs: set[str]) -> dict[str, set[str]]:
    """The files of these jobs that are named in the store."""
    named: dict[str, set[str]] = defaultdict(set)
    with store.reading() as connection:
        for table, column in _TEXTS:
            for text in _texts(connection, table, column):
                for job_id, name in _NAMED.findall(text):
                    if job_id in of_jobs:
                        named[job_id].add(name)
    return named


def _texts(connection: Any, table: str, column: str) -> Iterator[str]:
    text = f"CAST({column} AS VARCHAR)"  # else DuckDB has it as JSON
    cursor = connection.execute(f"SELECT {text} FROM {table} WHERE instr({text}, '{_IN_A_NAME}') > 0")
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield from (text for (text,) in rows)


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """The files that were saved in the *folder* of a job, and what a process that was killed left of some."""
    with suppress(OSError):
        if folder.is_symlink():
            return
        for entry in os.scandir(folder):
            if (_SAVED.fullmatch(entry.name) or _DRAFT.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False):
                yield Path(entry.path), entry.stat(follow_symlinks=False).st_size


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)
