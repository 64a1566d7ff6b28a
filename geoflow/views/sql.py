"""SQL over jobs, stages, tasks, attempts, events and the log, answered by DuckDB whichever store they are in.

Of a SQLite store, what a query needs is first copied into DuckDB's memory, as it is at that moment: the columns of the
tables, and the jobs where it names them. The next queries use the copy until something is written. Only queries are
run: nothing is written here. They may read what else DuckDB can: ``FROM 'tiles.parquet'``.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb

from geoflow.errors import ParameterError, StoreError
from geoflow.stores.allowed_sql import check_query
from geoflow.stores.columns import KINDS, sql_type
from geoflow.stores.duckdb import DuckDbStore, insert
from geoflow.stores.duckdb_file import CONFIG
from geoflow.stores.made_later import TABLES as MADE_LATER
from geoflow.stores.reading import by_ranges
from geoflow.stores.sqlite import one_row
from geoflow.stores.store import Store
from geoflow.support.jsonable import to_json
from geoflow.support.logs import FIELDS, read
from geoflow.views.needed import Part, asked

if TYPE_CHECKING:
    import pandas as pd

# The key by which each table is read part by part, and what of the store has the last one.
_KEYS = {"jobs": ("job_key", "job"), "stages": ("stage_key", "stage"), "tasks": ("task_key", "task")}
_KEYS["attempts"] = _KEYS["tasks"]
_KEYS["events"] = ("event_key", "events")  # made when the first one is written
_LOGS = {name: KINDS[kind].sql for name, kind in FIELDS.items()} | {"line": "JSON"}
_LOG_TABLE = f"CREATE TEMP TABLE logs ({', '.join(f'{name} {type_}' for name, type_ in _LOGS.items())})"
# Columns that the store's own views have not, in words that SQLite and DuckDB have both.
_FALLBACK = (
    "coalesce(CAST(json_extract(result, '$.fallback') AS VARCHAR) IN ('1', 'true') AND"
    " trim(CAST(json_extract(result, '$.status') AS VARCHAR), '\"') = 'completed_with_errors', false)"
)
_TOLD = {"jobs": {"with_errors": f"(status = 'completed' AND (failed > 0 OR {_FALLBACK}))"}}
_ROWS_AT_ONCE = 5_000
_KEPT_BYTES = 1 << 29  # a copy that takes more memory is for one query only


class _Copy(NamedTuple):
    """A SQLite store's tables in DuckDB's memory. The parts that are *filled* are all as they were at one moment.

    That moment was not before the store had this *version*. ``types`` are those of each table's columns.
    """

    version: tuple[int, int]
    connection: duckdb.DuckDBPyConnection
    types: dict[str, dict[str, str]]
    filled: dict[str, Part]


# Of each store that is open, the last one: it goes when its store does.
_copies: weakref.WeakKeyDictionary[Store, _Copy] = weakref.WeakKeyDictionary()
_copying = threading.Lock()


def answer(store: Store, log: str | os.PathLike[str] | None, statement: str, *, files: bool = True) -> pd.DataFrame:
    """What *statement* finds in ``jobs``, ``stages``, ``tasks``, ``attempts``, ``events`` and ``logs``, the file *log*.

    ``parameters``, ``result`` and ``metadata`` are JSON: ``result->>'$.result.bytes'``. Times are ``TIMESTAMPTZ``, in
    UTC; ``duration``, ``cpu`` and ``backoff`` are seconds. Without *files* no file of the disk is read for it. Raises
    ``ParameterError`` with DuckDB's own words.
    """
    check_query(statement, files=files)  # before anything looks at it: what a query calls may act when it is prepared
    named = set(re.findall(r"\w+", statement.lower()))
    with contextlib.ExitStack() as stack:
        if isinstance(store, DuckDbStore):
            connection = stack.enter_context(store.reading())
            _dress(connection)
        else:
            try:
                connection = stack.enter_context(contextlib.closing(_copied(store, statement)))
            except duckdb.Error as exc:
                raise StoreError(f"Rows of {store.name} are damaged, or another program changed them: {exc}") from exc
        connection.execute(_LOG_TABLE)
        if "logs" in named and log is not None:
            _copy_log(connection, read(os.fspath(log)))
        return _answer(connection, statement)


def _answer(connection: duckdb.DuckDBPyConnection, statement: str) -> pd.DataFrame:
    try:
        (query,) = connection.extract_statements(statement)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # DuckDB's own use of pandas
                return connection.execute(query).df()
        finally:
            connection.rollback()
    except duckdb.Error as exc:
        raise ParameterError(f"The query cannot be answered: {exc}") from exc


# From SQLite


def _copied(store: Store, statement: str) -> duckdb.DuckDBPyConnection:
    """A connection to a copy of the store in which there is all that *statement* needs."""
    with _copying:
        # Asked before anything is read: all that is written from here on outdates the copy, even what is in it already.
        version = _version(store)
        copy = _copies.pop(store, None)
        if copy is None or copy.version != version:
            with store.reading() as reader:
                copy = _empty(reader, version)
        needed, nothing = _needed(copy, statement), Part(frozenset(), frozenset())
        if lacking := [table for table, part in needed.items() if not copy.filled.get(table, nothing).covers(part)]:
            with store.reading() as reader, _snapshot(reader):
                if copy.filled and copy.version != _version(store):
                    copy = _empty(reader, version)
                    lacking = list(needed)
                for table in lacking:
                    part = needed[table].joined(copy.filled.get(table, needed[table]))
                    _fill(reader, copy, table, part)
                    copy.filled[table] = part
        size = copy.connection.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone()
        if size is not None and size[0] <= _KEPT_BYTES:
            _copies[store] = copy
        return copy.connection.cursor()


def _empty(reader: Any, version: tuple[int, int]) -> _Copy:
    copy = _Copy(version, duckdb.connect(config=CONFIG), {table: _types(reader, table) for table in _KEYS}, {})
    for table, types in copy.types.items():
        copy.connection.execute(_made(table, types))
    return copy


def _made(table: str, types: Mapping[str, str], kind: str = "TABLE") -> str:
    return f"CREATE OR REPLACE {kind} {table} ({', '.join(f'{name} {type_}' for name, type_ in types.items())})"


def _needed(copy: _Copy, statement: str) -> dict[str, Part]:
    """What of the tables *statement* needs: nothing where DuckDB will refuse it."""
    with contextlib.closing(copy.connection.cursor()) as connection:
        try:
            (query,) = connection.extract_statements(statement)
            connection.execute(_LOG_TABLE)
            connection.sql(query.query)  # what is wrong with it is told when it is to be answered
        except duckdb.Error:
            return {}
        try:
            return asked(connection, query.query, copy.types)
        except (duckdb.Error, KeyError, TypeError, ValueError):  # another version of DuckDB may draw plans otherwise
            named = set(re.findall(r"\w+", statement.lower()))
            return {table: Part(frozenset(copy.types[table])) for table in named & copy.types.keys()}


def _version(store: Store) -> tuple[int, int]:
    """Another one after each change: the first number counts those of other connections, the last the store's own."""
    ((others, own),) = store._rows("SELECT data_version, total_changes() FROM pragma_data_version")
    return others, own


@contextlib.contextmanager
def _snapshot(reader: Any) -> Iterator[None]:
    """Within it *reader* sees the store as it is at the beginning."""
    reader.execute("BEGIN")
    try:
        reader.execute("SELECT 1 FROM job LIMIT 1").fetchall()  # the first look is the beginning
        yield
    finally:
        reader.rollback()


def _is_there(connection: Any, table: str) -> bool:
    """Whether a table is there by now, of which the store may have none."""
    looked = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return table not in MADE_LATER or bool(connection.execute(looked, (table,)).fetchone())


def _names(connection: Any, table: str) -> list[str]:
    if not _is_there(connection, table):
        return list(MADE_LATER[table])
    return [column[0] for column in connection.execute(f"SELECT * FROM {table} LIMIT 0").description]


def _types(reader: Any, table: str) -> dict[str, str]:
    told = dict.fromkeys(_TOLD.get(table, ()), "BOOLEAN")
    return {name: sql_type(name) for name in _names(reader, table)} | told


# How the rows of a column come out of its JSON text, where its type is not one that JSON has.
_UNNESTED = {
    "TIMESTAMPTZ": "make_timestamptz(unnest(from_json(?, '[\"BIGINT\"]')))",
    "BOOLEAN": "CAST(unnest(from_json(?, '[\"BIGINT\"]')) AS BOOLEAN)",
    "JSON": "CAST(unnest(from_json(?, '[\"VARCHAR\"]')) AS JSON)",
}


def _fill(reader: Any, copy: _Copy, table: str, part: Part) -> None:
    """Copy that *part* of *table*, in place of what was there. Each column comes as one JSON text."""
    types = {name: type_ for name, type_ in copy.types[table].items() if name in part.columns}
    # A text has 15 digits of a number, which are too few for a time.
    time = "CASE WHEN abs({0}) < 1e11 THEN CAST({0} * 1e6 + 0.5 AS INTEGER) END"
    told = _TOLD.get(table, {})
    shown = (time.format(name) if type_ == "TIMESTAMPTZ" else told.get(name, name) for name, type_ in types.items())
    texts = ", ".join(map("json_group_array({})".format, shown))
    rows = ", ".join(_UNNESTED.get(type_, f"unnest(from_json(?, '[\"{type_}\"]'))") for type_ in types.values())
    into = f"INSERT INTO {table} ({', '.join(types)}) SELECT {rows}"
    if not types:  # the rows alone are needed
        name = next(iter(copy.types[table]))
        texts, into = "count(*)", f"INSERT INTO {table} ({name}) SELECT NULL FROM range(?)"
    sql = f"SELECT {texts} FROM {table} WHERE {_KEYS[table][0]} BETWEEN ? AND ?"
    keys = _keys(reader, table, part.jobs) if _is_there(reader, table) else []
    copy.connection.begin()  # others may look at the table meanwhile
    try:
        copy.connection.execute(_made(table, copy.types[table]))

        def ask(first: int, last: int, longest: int | None) -> Any:
            return one_row(reader, sql, (first, last), longest)

        for row in by_ranges(ask, keys, _ROWS_AT_ONCE):
            copy.connection.execute(into, row)
        copy.connection.commit()
    except BaseException:
        copy.connection.rollback()
        raise


def _keys(reader: Any, table: str, jobs: AbstractSet[str] | None) -> list[tuple[int, int]]:
    """The ranges of keys that the rows of *table* have, of these *jobs*."""
    key, source = _KEYS[table]
    if jobs is None or source == table:  # its rows are no ranges of a job's
        last = f"SELECT coalesce(max({key}), 0) FROM {source} WHERE {key} < 1000000000"
        return [(1, *reader.execute(last).fetchone())]
    keys = {"job": "job_key, job_key", "stage": "stage_key, stage_key"}
    ranges = keys.get(source, "first_key, first_key + task_count - 1")
    of_stages = "job" if source == "job" else "stage JOIN job USING (job_key)"
    marks = ", ".join("?" * len(jobs))
    rows = reader.execute(f"SELECT {ranges} FROM {of_stages} WHERE job_id IN ({marks}) ORDER BY 1", sorted(jobs))
    return [(first, last) for first, last in rows]


# From DuckDB

_DRESSED = {
    "TIMESTAMPTZ": "to_timestamp(CASE WHEN abs({0}) < 1e11 THEN {0} END)",
    "BOOLEAN": "CAST({0} AS BOOLEAN)",
}


def _dress(connection: duckdb.DuckDBPyConnection) -> None:
    """Give the columns of the store's views the types of all answers, for this connection alone."""
    row = connection.execute("SELECT current_database()").fetchone()
    assert row is not None, "a connection has a database"
    home = '"' + row[0].replace('"', '""') + '"'
    for table in _KEYS:
        names = _names(connection, table)
        if not _is_there(connection, table):
            connection.execute(_made(table, {name: sql_type(name) for name in names}, "TEMP TABLE"))
            continue
        shown = [f"{_DRESSED[sql_type(name)].format(name)} AS {name}" for name in names if sql_type(name) in _DRESSED]
        replaced = f" REPLACE ({', '.join(shown)})" if shown else ""
        told = "".join(f", {told} AS {name}" for name, told in _TOLD.get(table, {}).items())
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT *{replaced}{told} FROM {home}.main.{table}")


# From the log


def _copy_log(connection: duckdb.DuckDBPyConnection, lines: Iterable[Mapping[str, Any]]) -> None:
    """Anyone may log anything: what is not of its column's type is missing there, and in ``line`` in any case."""
    columns = ", ".join(f"{name} VARCHAR" for name in _LOGS)
    casts = ", ".join(f"TRY_CAST({name} AS {type_})" for name, type_ in _LOGS.items())
    connection.execute(f"CREATE TEMP TABLE log_texts ({columns})")
    rows = ((*(_text(line.get(name)) for name in FIELDS), to_json(dict(line))) for line in lines)
    while batch := list(islice(rows, _ROWS_AT_ONCE)):
        texts = dict(zip(_LOGS, zip(*batch, strict=True), strict=True))
        insert(connection, "log_texts", texts, lambda _: "VARCHAR")
    connection.execute(f"INSERT INTO logs SELECT {casts} FROM log_texts")
    connection.execute("DROP TABLE log_texts")


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else to_json(value)
