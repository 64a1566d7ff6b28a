"""The columns of both schemas are those of `geoflow.stores.columns`, and are of the kinds that it says."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

import duckdb
import pytest

from geoflow.stores import duckdb_file, sqlite
from geoflow.stores.columns import (
    ATTEMPT,
    ATTEMPTS_PER_TASK,
    COLUMNS,
    COMPLETED_OWN,
    COMPLETED_SAME,
    KINDS,
    last_attempt,
)
from geoflow.stores.made_later import TABLES as MADE_LATER
from geoflow.stores.made_later import made_if_needed
from geoflow.support.logs import FIELDS

SCHEMAS = {"sqlite": sqlite.schema, "duckdb": duckdb_file.schema}
TABLES, VIEWS = ("job", "stage", "task", "attempt", *MADE_LATER), ("jobs", "stages", "tasks", "attempts")


def columns_of(database: str) -> dict[str, dict[str, str]]:
    """The types of the columns of each table and view, as the database itself has them."""
    schema = SCHEMAS[database]()
    connection: Any = sqlite3.connect(":memory:") if database == "sqlite" else duckdb.connect()
    (connection.executescript if database == "sqlite" else connection.execute)(schema)
    for name in MADE_LATER:
        connection.execute(made_if_needed(name, database))  # type: ignore[arg-type]
    described = {name: f"SELECT name, type FROM pragma_table_xinfo('{name}')" for name in (*TABLES, *VIEWS)}
    if database == "duckdb":
        described = {name: f"SELECT column_name, column_type FROM (DESCRIBE {name})" for name in described}
    return {name: dict(connection.execute(query).fetchall()) for name, query in described.items()}


@pytest.mark.parametrize("database", SCHEMAS)
def test_the_columns_of_all_tables_are_of_the_kind_that_their_name_says(database: str) -> None:
    for table in TABLES:
        for name, type_ in columns_of(database)[table].items():
            assert type_ == getattr(KINDS[COLUMNS[name]], database), (table, name)


@pytest.mark.parametrize("database", SCHEMAS)
def test_the_columns_of_all_views_are_known_by_name(database: str) -> None:
    views = [columns_of(database)[view] for view in VIEWS]
    assert {name for view in views for name in view} <= COLUMNS.keys()


def test_both_databases_have_the_same_columns_in_the_same_order() -> None:
    one, other = columns_of("sqlite"), columns_of("duckdb")
    assert {name: list(columns) for name, columns in one.items()} == {
        name: list(columns) for name, columns in other.items()
    }


def test_no_column_is_listed_that_no_table_or_view_has() -> None:
    assert {name for columns in columns_of("sqlite").values() for name in columns} == COLUMNS.keys()


def test_an_attempt_is_written_with_all_that_is_not_made_of_its_key() -> None:
    assert {*ATTEMPT} == columns_of("duckdb")["attempt"].keys() - {"task_key", "attempt"}
    assert {*COMPLETED_OWN, *COMPLETED_SAME} < {*ATTEMPT}


def test_the_fields_of_a_log_are_of_kinds_that_columns_have() -> None:
    assert {*FIELDS.values()} <= KINDS.keys()


@pytest.mark.parametrize("database", SCHEMAS)
def test_a_key_of_an_attempt_is_made_alike_in_the_schema_and_in_code(database: str) -> None:
    schema = SCHEMAS[database]()
    assert ATTEMPTS_PER_TASK == 1 << 12
    assert last_attempt() in re.sub(r"\s+", " ", schema)


def test_duckdb_keeps_of_sqlites_schema_all_but_what_it_cannot_or_need_not_hold() -> None:
    schema = duckdb_file.schema()
    assert not re.search("STRICT|REFERENCES|json_valid|INDEX|TEXT|REAL", schema)
    for promise in ("UNIQUE", "length(job_id) = 64", "epoch >= 0", "outcome = 'lost'", "status = 'cancelled'"):
        assert promise in schema
    assert schema.count("CREATE TABLE") == 1 + len(TABLES) - len(MADE_LATER)
    assert schema.count("CREATE VIEW") == len(VIEWS)
