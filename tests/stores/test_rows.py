"""Rows without pandas: value for value what the frames have, for SQLite and DuckDB; and only what is asked for."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from geoflow.errors import StoreError
from geoflow.render.report import records
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.sqlite import SqliteStore
from geoflow.views import frames, rows
from geoflow.views.lines import Wanted
from tests.stores.test_frames import ONE, THREE, TWO, fill


@pytest.fixture(params=["work.db", "work.duckdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made: Any = (DuckDbStore if request.param.endswith("duckdb") else SqliteStore)(tmp_path / request.param)
    fill(made)
    yield made
    made.close()


@pytest.mark.parametrize("job_id", [ONE, TWO, THREE, "9" * 64])
def test_rows_are_what_frames_have(store: SqliteStore, job_id: str) -> None:
    for of_rows, of_frames in (
        (rows.tasks, frames.tasks),
        (rows.errors, frames.errors),
        (rows.stages, frames.stages),
    ):
        assert of_rows(store, job_id) == records(of_frames(store, job_id))
    assert rows.jobs(store) == records(frames.jobs(store))


def test_log_lines_are_what_the_frame_has(tmp_path: Path) -> None:
    log = tmp_path / "work.log"
    line = {"time": "2024-05-06T07:08:09.123Z", "level": "INFO", "logger": "x", "message": "hello", "job_id": ONE}
    more = {"stage": 1, "attempt": 2, "retryable": True, "duration_ms": 1.5, "tile": "33_12"}
    lines = [line, line | more, line | {"job_id": TWO}, line | {"time": "never"}]
    log.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert rows.logs(log, Wanted(ONE)) == records(frames.logs(log, Wanted(ONE)))
    assert rows.logs(None, Wanted(ONE)) == rows.logs(tmp_path / "no.log", Wanted(ONE)) == []


def test_tasks_are_the_first_and_those_in_a_state_errors_the_last(store: SqliteStore) -> None:
    tasks = rows.tasks(store, ONE)
    assert rows.tasks(store, ONE, limit=2) == tasks[:2]
    assert rows.tasks(store, ONE, state="queued", limit=1) == [row for row in tasks if row["status"] == "queued"][:1]
    errors = rows.errors(store, ONE)
    for limit in (0, 1, 2, 2_000):
        assert rows.errors(store, ONE, limit) == errors[max(len(errors) - limit, 0) :]
    with pytest.raises(ValueError, match="odd"):
        rows.tasks(store, ONE, state="odd' OR 1")


def test_tasks_that_are_missing_are_told_of(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "work.db")
    fill(store)
    with sqlite3.connect(tmp_path / "work.db") as other:
        other.execute("DELETE FROM task WHERE task_id = 's1-3'")
    with pytest.raises(StoreError, match="missing from the store"):
        rows.tasks(store, ONE)
    store.close()


def test_rows_need_no_pandas() -> None:
    script = (
        "import sys; import geoflow.views.rows; sys.exit(' '.join({'pandas', 'numpy', 'duckdb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
