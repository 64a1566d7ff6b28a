"""The crashes of `test_crash_points` again, of a DuckDB file: each process finds what the log of the last one says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.engine import test_crash_points
from tests.engine.test_crash_points import *  # noqa: F403 - its tests are collected here too, and find the fixtures below
from tests.engine.test_crash_points import Case, Moment
from tests.helpers.examples import fewer_examples

globals().update(fewer_examples(test_crash_points))


@pytest.fixture(scope="module")
def store_name() -> str:
    return "work.duckdb"


@pytest.fixture  # type: ignore[no-redef]
def moments() -> Sequence[Moment]:
    """What one flow crashes before, the others crash within and after: to open the file takes too long for all."""
    return ["before", "within", "after"]


def test_S36_what_a_crash_leaves_is_in_the_log_as_a_kill_would_leave_it(tmp_path: Path, store_name: str) -> None:
    case = Case(tmp_path, store_name)
    assert case.crashes(12, "after")
    log = case.path.with_name(f"{case.path.name}.wal")
    assert log.stat().st_size > case.path.stat().st_size
    assert case.completed()
    case.look_away()
    assert not log.exists()
