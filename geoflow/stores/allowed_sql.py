"""What SQL may do here: read tables and files, and nothing else. An allow-list, of what a query is when it is parsed.

DuckDB has functions that write, and a SELECT may call them: ``SELECT * FROM enable_logging(...)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import duckdb

from geoflow.errors import ParameterError

_NAMES = {
    "files": "glob parquet_file_metadata parquet_full_metadata parquet_kv_metadata parquet_metadata parquet_scan"
    " parquet_schema read_blob read_csv read_csv_auto read_json read_json_auto read_json_objects"
    " read_json_objects_auto read_ndjson read_ndjson_auto read_ndjson_objects read_parquet read_text sniff_csv",
    "tables": "duckdb_columns duckdb_functions duckdb_keywords duckdb_tables duckdb_types duckdb_views generate_series"
    " histogram histogram_values json_each json_tree pg_timezone_names pragma_show pragma_table_info"
    " pragma_version range repeat repeat_row summary unnest",
}
_READ_FILES, _TABLE_FUNCTIONS = (frozenset(names.split()) for names in _NAMES.values())
# Those that change something, or that hold up whoever asks. All others compute a value.
_REFUSED = frozenset(["getenv", "nextval", "query", "set_config", "setval", "sleep_ms", "write_log"])
# Whose tables are meant where a name has several parts: all others are names of files.
_SCHEMAS = frozenset(("", "main", "temp", "information_schema", "pg_catalog"))


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    """What parses, and runs nothing of it."""
    return duckdb.connect(config={"enable_external_access": False, "autoload_known_extensions": False})


def check_query(statement: str, *, files: bool = True) -> None:
    """`ParameterError` where *statement* is anything but one query that reads, or reads files without *files*."""
    connection = _parser().cursor()
    try:
        statements = connection.extract_statements(statement)
    except duckdb.Error as exc:
        raise ParameterError(f"The query cannot be answered: {exc}") from exc
    try:
        is_one_query = len(statements) == 1 and statements[0].type == duckdb.StatementType.SELECT
    except ValueError:  # a kind of statement that DuckDB's own binding has no name for
        is_one_query = False
    if not is_one_query:
        raise ParameterError("sql() takes one query, such as SELECT …: it changes nothing. Use the session's verbs.")
    for kind, name in _called(_parsed(connection, statements[0].query)):
        reads = name in _READ_FILES if kind == "table function" else kind == "file"
        if reads and not files:
            raise ParameterError(
                f"The query reads files ({name}), which is switched off here: sql_files=True or GEOFLOW_SQL_FILES=true"
                " allows it. jobs, stages, tasks, attempts, events and logs are there in any case."
            )
        allowed = reads or (name in _TABLE_FUNCTIONS if kind == "table function" else name not in _REFUSED)
        if not allowed:
            raise ParameterError(
                f"sql() does not call {name}(): a query reads tables and files, and may call what computes a value."
            )


def reads_own_tables_alone(view: str, tables: frozenset[str]) -> bool:
    """Whether the definition of a *view* (``CREATE VIEW … AS SELECT …``) reads *tables* and nothing else."""
    written = re.fullmatch(r"CREATE VIEW (?:main\.)?\w+ AS (.*?);?\s*", view, re.DOTALL)
    if written is None:
        return False
    try:
        tree = _parsed(_parser().cursor(), written[1])
    except ParameterError:
        return False
    names = {str(node.get("table_name", "")) for node in _nodes(tree) if node.get("type") == "BASE_TABLE"}
    calls = list(_called(tree))
    return names <= tables and not any(kind != "function" or name in _REFUSED for kind, name in calls)


def _parsed(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone()
    assert row is not None, "a function gives a value"
    tree = json.loads(row[0])
    if tree.get("error"):
        raise ParameterError(f"The query cannot be answered: {tree.get('error_message')}")
    return tree


def _called(tree: Any) -> Iterator[tuple[str, str]]:
    """What is called, or read, in a parsed query: kinds and names."""
    for node in _nodes(tree):
        kind = node.get("type")
        if kind == "TABLE_FUNCTION":
            yield "table function", str(node["function"].get("function_name", "")).lower()
        elif kind == "BASE_TABLE":
            home = [str(node.get(part) or "").lower() for part in ("catalog_name", "schema_name")]
            name = str(node.get("table_name", ""))
            if home[1] not in _SCHEMAS or re.search(r"[^\w$ -]", name):
                yield "file", ".".join(filter(None, (*home, name)))
        elif "function_name" in node:
            yield "function", str(node["function_name"]).lower()


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All of a parsed query, the functions that tables are made of left to their tables."""
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            yield node
            if node.get("type") == "TABLE_FUNCTION":
                left += [value for name, value in node.items() if name != "function"]
                left += [value for name, value in node["function"].items() if name != "function_name"]
            else:
                left += node.values()
