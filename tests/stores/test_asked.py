"""What of a SQLite store a query has read: the columns and jobs that it needs; it answers as if all had been read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.errors import ParameterError
from geoflow.stores import reading
from geoflow.views import sql as queries
from tests.helpers.sessions import OpenSession

A, B, C = "a" * 64, "b" * 64, "c" * 64
OF_A, OF_B = f"job_id = '{A}'", f"job_id = '{B}'"
QUOTED = "'x AND " + OF_B.replace("'", "''") + "'"
# By table: the columns, and how many jobs, where not all. What only a condition on the job needs may be read or not.
ASKED: dict[str, dict[str, tuple[str, int]]] = {
    "SELECT count(*) FROM tasks": {"tasks": ("", 0)},
    "SELECT status, count(*) FROM tasks GROUP BY ALL ORDER BY 1": {"tasks": ("status", 0)},
    "SELECT count(*) FROM tasks WHERE retries = 0": {"tasks": ("retries", 0)},
    f"SELECT count(*) FROM tasks WHERE {OF_A} AND attempts > 0": {"tasks": ("attempts", 1)},
    f"SELECT max(task_id) FROM tasks WHERE {OF_A} OR status = 'queued'": {"tasks": ("status task_id", 0)},
    f"SELECT max(stage) FROM stages s WHERE job_id IN ('{A}', '{B}')": {"stages": ("stage", 0)},
    f"(SELECT stage FROM tasks WHERE {OF_A}) UNION ALL (SELECT stage FROM tasks WHERE {OF_B})": {"tasks": ("stage", 2)},
    f"SELECT count(*) FROM tasks t, tasks u WHERE t.{OF_A} AND t.stage = u.stage": {"tasks": ("stage", 0)},
    f"SELECT outcome FROM attempts WHERE '{A}' = job_id AND error = {QUOTED}": {"attempts": ("error outcome", 1)},
    f"SELECT outcome FROM attempts WHERE error <> {QUOTED}": {"attempts": ("error outcome", 0)},
    "SELECT s.stage_name FROM stages s WHERE EXISTS (FROM tasks t WHERE t.stage = s.stage) ORDER BY stage_key": {
        "stages": ("stage stage_key stage_name", 0),
        "tasks": ("stage", 0),
    },
    "SELECT task_id FROM tasks ORDER BY task_key DESC LIMIT 2": {"tasks": ("task_id task_key", 0)},
    "SELECT result->>'$.result.value' AS v FROM tasks ORDER BY task_key": {"tasks": ("result task_key", 0)},
    "WITH x AS (SELECT * FROM tasks) SELECT max(stage_name) FROM x": {"tasks": ("stage_name", 0)},
    "SELECT COLUMNS('^s.*e$') FROM tasks ORDER BY task_key": {"tasks": ("stage stage_name task_key", 0)},
    "SELECT 1 AS one": {},
    "SELECT nothing FROM tasks": {},
    "SELECT 1; SELECT 2": {},
}
WHOLE_ROWS = (
    "FROM tasks ORDER BY task_key",
    "SELECT count(DISTINCT tasks) AS n FROM tasks",
    "SELECT count(*) AS n FROM (SELECT DISTINCT * FROM tasks)",
    "SELECT count(*) AS n FROM tasks NATURAL JOIN (FROM tasks)",
    "SELECT * EXCLUDE (started_at) FROM tasks ORDER BY task_key",
    "SELECT tasks FROM tasks ORDER BY tasks.task_key",
)


@pytest.fixture
def session(open_session: OpenSession, tmp_path: Path) -> gf.Session:
    """Of three jobs with two, three and four tasks."""
    session = open_session(tmp_path / "work.db", workers=0)
    store: Any = session.store
    for number, name in enumerate((A, B, C)):
        job = session.run("acts", tasks=[{"value": value} for value in range(number, 2 * number + 2)])
        with store._transaction() as connection:
            connection.execute("UPDATE job SET job_id = ? WHERE job_id = ?", (name, job.id))
    return session


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The parts of the tables, as they are copied."""
    found: dict[str, Any] = {}
    fill = queries._fill

    def seen(reader: Any, copy: Any, table: str, part: Any) -> None:
        found[table] = part
        fill(reader, copy, table, part)

    monkeypatch.setattr(queries, "_fill", seen)
    return found


def told(session: gf.Session, query: str) -> Any:
    try:
        return session.sql(query).astype(str).to_numpy().tolist()
    except ParameterError as exc:
        return str(exc).partition("\n")[0]  # where a package is missing, a traceback may follow


def when_all_is_read(session: gf.Session, query: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    def not_understood(*_: Any) -> Any:
        raise KeyError("a plan that is drawn otherwise")

    queries._copies.pop(session.store, None)
    monkeypatch.setattr(queries, "asked", not_understood)
    return told(session, query)


@pytest.mark.parametrize("query", ASKED)
def test_only_the_columns_and_jobs_that_a_query_needs_are_read(
    session: gf.Session, monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], query: str
) -> None:
    answered = told(session, query)
    read = {table: (" ".join(sorted(part.columns - {"job_id"})), len(part.jobs or ())) for table, part in parts.items()}
    assert read == ASKED[query]
    assert when_all_is_read(session, query, monkeypatch) == answered


@pytest.mark.parametrize("query", WHOLE_ROWS)
def test_all_columns_are_read_where_a_row_counts_as_a_whole(
    session: gf.Session, monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], query: str
) -> None:
    answered = told(session, query)
    assert {"parameters", "result", "metadata"} <= parts["tasks"].columns
    assert when_all_is_read(session, query, monkeypatch) == answered


def test_a_copy_grows_by_what_the_next_query_needs(session: gf.Session, parts: dict[str, Any]) -> None:
    by_job = f"SELECT count(*) FROM tasks WHERE {OF_A} AND attempts >= 0"
    assert [told(session, by_job.replace(A, name)) for name in (A, B, A)] == [[["2"]], [["3"]], [["2"]]]
    assert parts["tasks"].jobs == {A, B}
    assert told(session, "SELECT max(task_index) FROM tasks") == [["3"]]
    parts.clear()
    assert told(session, by_job.replace(A, C)) == [["4"]]
    assert parts == {}, "it is there already"


def test_rows_of_any_length_are_copied_a_bounded_length_at_a_time(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PIECE", 3_000)
    session = open_session(":memory:", workers=0)
    lengths = [10, 10_000, 20, 2_000, 2_000, 0]
    session.run("acts", tasks=[{"value": "x" * length} for length in lengths])
    found = session.sql("SELECT length(parameters->>'$.value') AS n FROM tasks ORDER BY task_index")
    assert found["n"].tolist() == lengths
