"""The killed driver of `test_kill` again, with a DuckDB file for a store."""

from __future__ import annotations

import pytest

from tests.processes.test_kill import *  # noqa: F403 - its test is collected here too, and finds the fixture below


@pytest.fixture(scope="module")
def store_name() -> str:
    return "work.duckdb"
