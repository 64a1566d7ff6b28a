"""SQL over what happened, whichever store it is in."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import geoflow as gf
from geoflow.errors import ParameterError
from geoflow.views import sql as queries
from tests.helpers.sessions import OpenSession, Trace
from tests.helpers.waiting import wait_until

STORES = pytest.mark.parametrize("store", [":memory:", "work.db", "work.duckdb"])


def opened(open_session: OpenSession, tmp_path: Path, store: str) -> gf.Session:
    return open_session(store if store == ":memory:" else tmp_path / store, workers=0)


@STORES
def test_results_are_asked_as_json_and_times_as_times(open_session: OpenSession, tmp_path: Path, store: str) -> None:
    session = opened(open_session, tmp_path, store)
    job = session.run("acts", tasks=[{"value": n} for n in range(20)] + [{"do": "raise", "value": "ValueError"}])
    found = session.sql(
        "SELECT status, count(*) AS n, sum(CAST(result->>'$.result.value' AS INT)) AS total, max(ended_at) AS last"
        " FROM tasks GROUP BY 1 ORDER BY 1"
    )
    assert found[["status", "n"]].to_numpy().tolist() == [["completed", 20], ["failed", 1]]
    assert found["total"][0] == sum(range(20))
    row = session.runtime.row(job.id)
    assert row.started_at is not None
    (started,) = session.sql("SELECT started_at FROM jobs")["started_at"]
    assert abs(started - pd.Timestamp(row.started_at, unit="s", tz="UTC")) <= pd.Timedelta(1, "us")
    assert session.sql("SELECT error_type FROM attempts WHERE NOT retryable").to_numpy().tolist() == [["ValueError"]]
    assert session.sql("FROM stages SELECT stage_name, tasks").to_numpy().tolist() == [["act", 21]]


@STORES
def test_every_table_has_the_same_columns_and_types_in_every_store(
    open_session: OpenSession, tmp_path: Path, store: str
) -> None:
    here = opened(open_session, tmp_path, store)
    reference = open_session(tmp_path / "reference.db", workers=0)
    assert here.sql("SHOW TABLES")["name"].tolist()
    for table in ("jobs", "stages", "tasks", "attempts", "events", "logs"):
        names, types = (here.sql(f"DESCRIBE {table}")[column].tolist() for column in ("column_name", "column_type"))
        expected = reference.sql(f"DESCRIBE {table}")
        assert names == expected["column_name"].tolist()
        assert types == expected["column_type"].tolist()
        assert here.sql(f"SELECT * FROM {table}").shape == (0, len(names))


@pytest.mark.parametrize("store", ["work.db", "work.duckdb"])
def test_S40_the_log_is_a_table_whatever_was_logged(open_session: OpenSession, tmp_path: Path, store: str) -> None:
    session = opened(open_session, tmp_path, store)
    job = session.run("acts", tasks=[{"do": "say", "value": "it's; --"}])
    path = session.settings.log_path
    assert path is not None
    with path.open("a") as file:
        file.write('{"time": "some day", "stage": [1], "attempt": "x", "message": {"a": 1}, "more": 5}\n')
    found = session.sql("SELECT message, line->>'$.more' AS more, stage FROM logs WHERE time IS NULL")
    assert found["message"].tolist() == ['{"a":1}']
    assert found["more"].tolist() == ["5"]
    assert session.sql(f"SELECT count(*) AS n FROM logs WHERE job_id = '{job.id}'")["n"][0] >= 3


@STORES
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("DELETE FROM tasks", "takes one query"),
        ("SELECT 1; SELECT 2", "takes one query"),
        ("DROP TABLE job", "takes one query"),
        ("COPY jobs TO 'out.csv'", "takes one query"),
        ("ATTACH 'x' AS y", "takes one query"),
        ("EXPLAIN ANALYZE DELETE FROM job", "takes one query"),
        ("", "takes one query"),
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM tasks", '"nope" not found'),
        ("SELECT * FROM found", "found does not exist"),  # a variable of the module that asks
    ],
)
def test_what_is_no_query_is_refused_in_words(
    open_session: OpenSession, tmp_path: Path, store: str, query: str, message: str
) -> None:
    session = opened(open_session, tmp_path, store)
    session.run("acts", tasks=[{}])
    with pytest.raises(ParameterError, match=message):
        session.sql(query)
    assert session.sql("SELECT count(*) AS n FROM tasks")["n"].tolist() == [1]


@pytest.mark.parametrize("store", [":memory:", "work.db", "work.duckdb"])
def test_S36_a_query_is_answered_while_a_job_runs(
    open_session: OpenSession, tmp_path: Path, trace: Trace, store: str
) -> None:
    session = open_session(store if store == ":memory:" else tmp_path / store, workers=1)
    job = session.submit("acts", tasks=[{"do": "hang", "trace": trace.path}, {}])
    wait_until(lambda: trace.lines() == ["s1-t0 1"])
    assert session.sql("SELECT status FROM jobs")["status"].tolist() == ["processing"]
    assert session.sql("SELECT count(*) AS n FROM tasks")["n"].tolist() == [2]
    job.cancel()
    assert session.sql("SELECT status FROM jobs")["status"].tolist() == ["cancelled"]


def test_more_rows_than_are_copied_at_once_all_arrive(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    session.run("acts", tasks=[{"value": n} for n in range(5_003)])
    found = session.sql("SELECT count(*) AS n, sum(CAST(parameters->>'$.value' AS INT)) AS total FROM tasks")
    assert found.to_numpy().tolist() == [[5_003, sum(range(5_003))]]


# The copy of a SQLite store


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tables, as they are copied."""
    names: list[str] = []
    fill = queries._fill

    def seen(reader: Any, copy: Any, table: str, part: Any) -> None:
        names.append(table)
        fill(reader, copy, table, part)

    monkeypatch.setattr(queries, "_fill", seen)
    return names


def counts(session: gf.Session, *tables: str) -> list[int]:
    found = session.sql("SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables))
    return [int(value) for value in found.iloc[0]]


@pytest.mark.parametrize("store", [":memory:", "work.db"])
def test_a_table_is_copied_once_until_something_is_written(
    open_session: OpenSession, tmp_path: Path, store: str, filled: list[str]
) -> None:
    session = opened(open_session, tmp_path, store)
    session.run("acts", tasks=[{}] * 3)
    assert [counts(session, "tasks"), counts(session, "tasks")] == [[3], [3]]
    assert filled == ["tasks"]
    assert counts(session, "tasks", "attempts") == [3, 3]
    assert filled == ["tasks", "attempts"]

    session.run("acts", tasks=[{"value": 1}])
    assert counts(session, "tasks") == [4]
    assert counts(session, "attempts") == [4]
    assert filled == ["tasks", "attempts"] * 2


def test_what_another_session_writes_is_in_the_next_query(
    open_session: OpenSession, tmp_path: Path, filled: list[str]
) -> None:
    one, two = (open_session(tmp_path / "work.db", workers=0) for _ in range(2))
    for number in (1, 2, 3):
        two.run("acts", tasks=[{"value": number}])
        assert counts(one, "tasks") == counts(two, "tasks") == [number]
        assert counts(one, "tasks") == [number]
    assert filled == ["tasks"] * 6


def test_all_tables_are_of_one_moment_even_when_a_job_ends_between_two_queries_and_while_one_is_copied(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filled: list[str]
) -> None:
    session, other = (open_session(tmp_path / "work.db", workers=0) for _ in range(2))
    snapshot = queries._snapshot
    written: list[int] = []

    @contextlib.contextmanager
    def overtaken(reader: Any) -> Iterator[None]:
        written.append(len(written))
        other.run("acts", tasks=[{"value": f"before {written}"}])
        with snapshot(reader):
            other.run("acts", tasks=[{"value": f"after {written}"}])
            yield

    monkeypatch.setattr(queries, "_snapshot", overtaken)
    assert counts(session, "tasks") == [1]
    assert counts(session, "tasks", "attempts") == [3, 3]
    monkeypatch.setattr(queries, "_snapshot", snapshot)
    assert counts(session, "tasks", "attempts") == [4, 4]

    filled.clear()
    monkeypatch.setattr(queries, "_snapshot", overtaken)
    assert counts(session, "tasks", "attempts", "jobs") == [
        5,
        5,
        5,
    ]  # what was copied before would be older than the jobs
    assert sorted(filled) == ["attempts", "jobs", "tasks"]


def test_a_copy_goes_with_the_store_that_it_is_of(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(tmp_path / "work.db", workers=0)
    session.run("acts", tasks=[{}])
    assert counts(session, "tasks") == [1]
    store = weakref.ref(session.store)
    copy = weakref.ref(queries._copies[session.store].connection)
    session.close()
    assert store() is None
    assert copy() is None
    assert counts(session, "tasks") == [1]  # it may be used again


def test_a_copy_that_is_large_is_not_kept(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch, filled: list[str]
) -> None:
    monkeypatch.setattr(queries, "_KEPT_BYTES", 0)
    session = open_session(":memory:", workers=0)
    session.run("acts", tasks=[{}])
    assert [counts(session, "tasks"), counts(session, "tasks")] == [[1], [1]]
    assert filled == ["tasks", "tasks"]
    assert session.store not in queries._copies


def test_several_threads_ask_at_once_while_jobs_are_written(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(tmp_path / "work.db", workers=0)
    other = open_session(tmp_path / "work.db", workers=0)
    with ThreadPoolExecutor(4) as pool:
        answers = []
        for number in range(5):
            other.run("acts", tasks=[{"value": number}])
            answers += [pool.submit(counts, session, "tasks", "attempts", "jobs") for _ in range(4)]
        found = [answer.result() for answer in answers]
    assert all(tasks - attempts in (0, 1) and jobs - tasks in (0, 1) for tasks, attempts, jobs in found)
    assert counts(session, "tasks", "attempts", "jobs") == [5, 5, 5]


def test_gf_sql_asks_the_default_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoflow.api._session", gf.Session(tmp_path / "work.db", workers=0))
    assert gf.sql("SELECT 6 * 7 AS n")["n"].tolist() == [42]
    assert gf.sql("SELECT * FROM jobs").empty
    gf.default_session().close()
