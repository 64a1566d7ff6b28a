"""Copy all that one store has into a new one, of the other database as a rule, and check that it arrived."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoflow.errors import StoreBusy, StoreError
from geoflow.stores.made_later import TABLES as MADE_LATER
from geoflow.stores.opening import store_at
from geoflow.stores.store import Store
from geoflow.support.parcel import PIECE

_KEYS = {"job": "job_key", "stage": "stage_key", "task": "task_key", "attempt": "attempt_key"}
_GENERATED = {"attempt": {"task_key", "attempt"}}
_FIRST_AT_ONCE, _ROWS_AT_ONCE = 100, 10_000


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> dict[str, int]:
    """Copy the store at *source* to *target*; how many rows of each table were copied.

    Jobs, plans, tasks and all attempts are there afterwards as they were, or nothing is: numbers and checksums of both
    sides are compared before the copy is committed. The log, a file of its own, stays with *source*. Raises
    ``StoreBusy`` while one of the jobs is driven, and ``StoreError`` where *source* is no store or *target* has jobs
    already.
    """
    if not Path(source).is_file():
        raise StoreError(f"There is no store at {os.fspath(source)}: nothing was copied.")
    if os.fspath(target) == ":memory:":
        raise StoreError("A copy in memory would be gone at once: name a file.")
    if Path(target).exists() and os.path.samefile(source, target):
        raise StoreError(f"{os.fspath(target)} is the store itself: name another file for the copy.")
    old, new = store_at(source), store_at(target)
    try:
        old.open()
        for job in old.unended():
            if driver := old.driver(job.job_key):
                raise StoreBusy(f"Job {job.job_id[:8]} is driven by {driver}: wait for it, or interrupt it, then copy.")
        new.open()
        if new.latest() is not None:
            raise StoreError(f"{new.name} has jobs already, and was not touched: name a new file.")
        return copy_rows(old, new)
    finally:
        old.close()
        new.close()


def copy_rows(old: Store, new: Store) -> dict[str, int]:
    """Write all rows of *old* into *new*, which has none: those of one moment, with the same keys."""
    copied: dict[str, int] = {}
    with old.reading() as reader, new._transaction() as writer:
        reader.execute("BEGIN")  # one moment for all tables
        try:
            keys = _KEYS | {table: columns[0] for table, columns in MADE_LATER.items() if old.has(table)}
            for table in keys:
                if table in MADE_LATER:
                    new.make(writer, table)
                names = _names(reader, table)
                there = _Sum()
                for rows in _parts(reader, table, names, keys[table]):
                    there.add(rows)
                    new.insert_rows(writer, table, names, rows)
                here = _Sum()
                for rows in _parts(writer, table, names, keys[table]):
                    here.add(rows)
                if (there.rows, there.checksum()) != (here.rows, here.checksum()):
                    raise StoreError(
                        f"Of the table {table}, {there.rows} rows were read from {old.name} and {here.rows} arrived in "
                        f"{new.name}, or not as they were. Nothing was kept of the copy."
                    )
                copied[table] = here.rows
        finally:
            reader.rollback()
    return copied


class _Sum:
    """How many rows there are, and what they say."""

    def __init__(self) -> None:
        self.rows = 0
        self._digest = hashlib.sha256()

    def add(self, rows: list[tuple[Any, ...]]) -> None:
        self.rows += len(rows)
        self._digest.update(repr(rows).encode("utf-8", "surrogatepass"))

    def checksum(self) -> str:
        return self._digest.hexdigest()


def _names(connection: Any, table: str) -> list[str]:
    described = connection.execute(f"SELECT * FROM {table} LIMIT 0").description
    return [column[0] for column in described if column[0] not in _GENERATED.get(table, ())]


def _parts(connection: Any, table: str, names: list[str], key: str) -> Iterator[list[tuple[Any, ...]]]:
    cursor = connection.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {key}")
    at_once = _FIRST_AT_ONCE
    while rows := cursor.fetchmany(at_once):
        yield rows
        long = sum(len(value) for row in rows for value in row if isinstance(value, str))
        at_once = max(1, min(2 * at_once, _ROWS_AT_ONCE, PIECE * at_once // max(long, 1)))
