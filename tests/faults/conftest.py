"""Sessions and kernels for faults, with a look afterwards at what the fault left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from tests.faults.driving import Kernel, Start, check_aftermath
from tests.helpers.sessions import OpenSession


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "work.db"


@pytest.fixture
def faulty(open_session: OpenSession) -> Iterator[OpenSession]:
    """Sessions with one quick retry, which must be as good as new when the test is over."""
    opened: list[gf.Session] = []

    def open_one(**options: Any) -> gf.Session:
        opened.append(open_session(**{"max_retries": 1, "base_delay": 0.01, **options}))
        return opened[-1]

    yield open_one
    for session in opened:
        check_aftermath(session)


@pytest.fixture
def start(store: Path) -> Iterator[Start]:
    """Start kernels on the test's store; they are gone at the end."""
    started: list[Kernel] = []

    def start_one(code: str, *arguments: object) -> Kernel:
        started.append(Kernel(store, code, *arguments))
        return started[-1]

    yield start_one
    for kernel in started:
        kernel.kill()
