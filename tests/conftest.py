"""Sessions for the tests, and a look afterwards at what they leave behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jobs
import pytest

import geoflow as gf
from geoflow.clock import ManualClock

OpenSession = Callable[..., gf.Session]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GEOFLOW_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def store_name() -> str:
    """The file of the sessions' store; a module may say another."""
    return "work.db"


@pytest.fixture
def open_session(tmp_path: Path, store_name: str) -> Iterator[OpenSession]:
    """Sessions with the job types of `jobs`, on *store_name* unless told otherwise; closed at the end."""
    opened: list[gf.Session] = []

    def open_one(store: str | Path | None = None, *, workers: int = 2, **options: Any) -> gf.Session:
        session = gf.open(store or tmp_path / store_name, workers=workers, display="none", **options)
        session.register(jobs)
        opened.append(session)
        return session

    yield open_one
    for session in opened:
        session.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Trace:
    """A file to which each execution of a task of `jobs` adds a line: its id and the attempt's number."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self) -> list[str]:
        try:
            return Path(self.path).read_text().splitlines()
        except FileNotFoundError:
            return []


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "trace")


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Look again and again until *condition*; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def rows(session: gf.Session, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What *sql* finds in the session's store."""
    with session.store.reading() as connection:
        return [tuple(row) for row in connection.execute(sql, values).fetchall()]
