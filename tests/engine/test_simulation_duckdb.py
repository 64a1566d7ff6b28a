"""The worlds of `test_simulation` again, fewer of them, in DuckDB files: each life of an engine opens the file anew."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from geoflow.stores.base import Store
from geoflow.stores.duckdb import DuckDbStore
from tests.engine import test_simulation
from tests.engine.test_simulation import *  # noqa: F403 - its tests are collected here too, and find the fixtures below
from tests.engine.test_simulation import World
from tests.helpers.examples import fewer_examples
from tests.helpers.sessions import leave_as_killed

globals().update(fewer_examples(test_simulation))


@pytest.fixture(scope="module")
def store_name() -> str:
    return "work.duckdb"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without jobs, to be copied: making one takes as long as a whole small world."""
    path = tmp_path_factory.mktemp("empty") / "work.duckdb"
    store = DuckDbStore(path)
    store.open()
    store.close()
    return path


@pytest.fixture(autouse=True)
def worlds_in_duckdb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty: Path) -> Iterator[None]:
    stores: list[DuckDbStore] = []

    def opened(path: Path) -> Store:
        stores.append(DuckDbStore(path))
        return stores[-1]

    def new_store() -> Store:
        return opened(Path(shutil.copy(empty, tmp_path / f"world-{len(stores)}.duckdb")))

    def after_a_kill(store: Store) -> Store:
        assert isinstance(store, DuckDbStore)
        leave_as_killed(store)
        return opened(Path(store.name))

    monkeypatch.setattr(World, "new_store", new_store)
    monkeypatch.setattr(World, "after_a_kill", after_a_kill)
    yield
    for store in stores:
        store.close()
