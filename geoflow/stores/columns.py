"""Each column that a store has, and its kind, once; what a kind is in each database, in an answer and in a frame.

`schema.sql` says which tables and views have which of them, and a test holds it to these kinds; of it and of them
DuckDB's tables are made.
"""

from __future__ import annotations

from typing import NamedTuple


class ColumnKind(NamedTuple):
    """How values of a kind are stored in SQLite and in DuckDB, what a query sees of them, and what pandas makes."""

    sqlite: str
    duckdb: str
    sql: str
    dtype: str


KINDS = {
    "text": ColumnKind("TEXT", "VARCHAR", "VARCHAR", "string[python]"),  # also where pyarrow is installed
    "json": ColumnKind("TEXT", "JSON", "JSON", "object"),
    "time": ColumnKind("REAL", "DOUBLE", "TIMESTAMPTZ", "datetime64[us, UTC]"),
    "span": ColumnKind("REAL", "DOUBLE", "DOUBLE", "timedelta64[us]"),
    "number": ColumnKind("REAL", "DOUBLE", "DOUBLE", "Float64"),
    "integer": ColumnKind("INTEGER", "BIGINT", "BIGINT", "Int64"),
    "count": ColumnKind("INTEGER", "BIGINT", "BIGINT", "int64"),  # which is never missing
    "truth": ColumnKind("INTEGER", "INTEGER", "BOOLEAN", "boolean"),
    "flag": ColumnKind("INTEGER", "INTEGER", "BOOLEAN", "bool"),  # which is never missing
}
_NAMES = {
    "text": "job_id job_type status owner source stage_name task_type parallelism task_id code"
    " outcome output error error_type error_category traceback mode digest event was why session host name",
    "json": "stages parameters result metadata inputs value",
    "time": "created_at planned_at queued_at started_at ended_at not_before happened_at",
    "span": "duration cpu backoff",
    "integer": "slot pid peak_memory",
    "count": "job_key stage_key first_key task_key attempt_key source_key event_key since stage total_stages"
    " task_count task_index tasks completed failed attempts attempt retries losses epoch",
    "truth": "retryable",
    "flag": "superseded cancel_requested",
}
# By name: a name means the same in every table and view.
COLUMNS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
# What an attempt is written with, and of these what differs between the completed ones of a chunk, and what does not.
ATTEMPT = (
    *("attempt_key", "outcome", "started_at", "ended_at", "cpu", "peak_memory", "result", "output", "slot"),
    *("pid", "code", "queued_at", "backoff", "error", "error_type", "error_category", "retryable", "traceback"),
)
COMPLETED_OWN = ("attempt_key", "started_at", "ended_at", "cpu", "result")
COMPLETED_SAME = ("outcome", "slot", "pid", "peak_memory", "code")
# An attempt's key is its task's, times this, plus its number, so that neither needs an index of its own.
ATTEMPTS_PER_TASK = 1 << 12
ATTEMPTS_BETWEEN = "attempt_key BETWEEN $first * 4096 AND $last * 4096 + 4095"  # of all tasks from a first to a last


def last_attempt(task: str = "t") -> str:
    """What joins the last attempts, as ``a``, to the tasks that are called *task*."""
    return f"attempt a ON a.attempt_key = ({task}.task_key << 12) + {task}.attempt"


def sql_type(name: str) -> str:
    """What a query sees of the column *name*; a text, of a column that is another program's."""
    return KINDS[COLUMNS.get(name, "text")].sql


def duckdb_type(name: str) -> str:
    """What DuckDB reads the column *name* as: JSON as the text that it is."""
    kind = COLUMNS[name]
    return KINDS["text" if kind == "json" else kind].duckdb
