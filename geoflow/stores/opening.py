"""Which database keeps a store: DuckDB for a path that ends in ``.duckdb``, SQLite for every other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from geoflow.stores.sqlite import SqliteStore
from geoflow.stores.store import Store


def is_duckdb(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).lower().endswith(".duckdb")


def store_at(path: str | os.PathLike[str], *, synchronous: str = "NORMAL") -> Store:
    """The store at *path*, not yet opened. DuckDB syncs every commit to the disk, whatever *synchronous* says."""
    if is_duckdb(path):
        from geoflow.stores.duckdb import DuckDbStore

        return DuckDbStore(path)
    return SqliteStore(path, synchronous=synchronous)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Store]:
    """The store at *path*, open within."""
    store = store_at(path)
    try:
        store.open()
        yield store
    finally:
        store.close()
