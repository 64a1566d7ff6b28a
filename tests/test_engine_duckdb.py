"""The whole jobs of `test_engine` again, with a DuckDB file for a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jobs
import pytest
from conftest import OpenSession
from test_engine import *  # noqa: F403 - its tests are collected here too, and find the fixture below

import geoflow as gf
from geoflow.stores.duckdb import DuckDbStore


@pytest.fixture
def open_session(tmp_path: Path) -> Iterator[OpenSession]:
    opened: list[gf.Session] = []

    def open_one(store: str | Path | None = None, *, workers: int = 2, **options: Any) -> gf.Session:
        session = gf.open(store or tmp_path / "work.duckdb", workers=workers, display="none", **options)
        session.register(jobs)
        opened.append(session)
        return session

    yield open_one
    for session in opened:
        session.close()


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
