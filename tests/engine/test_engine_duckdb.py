"""The whole jobs of `test_engine` again, with a DuckDB file for a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoflow.stores.duckdb import DuckDbStore
from tests.engine.test_engine import *  # noqa: F403 - its tests are collected here too, and find the fixture below
from tests.helpers.sessions import OpenSession


@pytest.fixture
def store_name() -> str:
    return "work.duckdb"


def test_the_word_duckdb_and_the_suffix_choose_the_store(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session = open_session("duckdb", workers=0)
    assert isinstance(session.store, DuckDbStore)
    assert isinstance(open_session(workers=0).store, DuckDbStore)
    session.run("acts", tasks=[{}])
    assert (tmp_path / "geoflow.duckdb").exists()
    assert (tmp_path / "geoflow.duckdb.log").exists()
