"""Those tests of `test_futures` again that turn on what is stored, with a DuckDB file for a store."""

from __future__ import annotations

import pytest

from tests.processes.test_futures import (  # noqa: F401 - they are collected here too, and find the fixture below
    make_pool,
    test_S30_a_pool_whose_process_dies_is_reported_and_the_job_is_finished_in_a_new_one,
    test_S30_calls_lost_together_are_suspects_and_only_the_one_lost_alone_is_charged,
    test_S37_an_interrupted_job_is_resumed_in_the_pool_and_its_old_answers_change_nothing,
)


@pytest.fixture(scope="module")
def store_name() -> str:
    return "work.duckdb"
