"""What of the tables a query asks for, as DuckDB itself says: the columns, and the jobs where it names them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import duckdb

_OPTIMIZERS = "SELECT name FROM duckdb_optimizers()"
# A condition on its own, so that all rows that are asked for meet it.
_OF_A_JOB = re.compile(r"\(?job_id ?= ?'([0-9a-f]{64})'\)?")


class Part(NamedTuple):
    """Some columns of a table, of the jobs with these ids; of all where that is None."""

    columns: frozenset[str]
    jobs: frozenset[str] | None = None

    def covers(self, other: Part) -> bool:
        jobs = self.jobs is None or (other.jobs is not None and other.jobs <= self.jobs)
        return jobs and other.columns <= self.columns

    def joined(self, other: Part) -> Part:
        jobs = None if self.jobs is None or other.jobs is None else self.jobs | other.jobs
        return Part(self.columns | other.columns, jobs)


def asked(connection: duckdb.DuckDBPyConnection, query: str, tables: Mapping[str, Collection[str]]) -> dict[str, Part]:
    """The part of each of *tables*, given with its columns, that the *query* needs, which was found to be one SELECT.

    It is planned and not run. Of DuckDB's optimizers only those that say this are let do anything: others look at what
    the tables have in them. Of a plan that is not understood, all columns are needed.
    """
    parts: dict[str, Part] = {}
    for table, scans in _explained(connection, query, "unused_columns").items():
        if known := frozenset(tables.get(table, ())):
            columns = frozenset(name for scan in scans for name in _listed(scan.get("Projections", ["?"])))
            parts[table] = Part(columns if columns <= known else known)
    # Asked by itself: what only a condition needs is not among the columns where the condition is part of the scan.
    for table, scans in _explained(connection, query, "filter_pushdown").items():
        named = [_job(scan) for scan in scans]
        if table in parts and None not in named:
            parts[table] = parts[table]._replace(jobs=frozenset(filter(None, named)))
    return parts


def _explained(connection: duckdb.DuckDBPyConnection, query: str, optimizer: str) -> dict[str, list[dict[str, Any]]]:
    """What the plan of *query* says of the scans of each table."""
    others = (name for (name,) in connection.execute(_OPTIMIZERS).fetchall() if name != optimizer)
    connection.execute(f"SET disabled_optimizers = '{','.join(others)}'")
    try:
        plans = connection.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()
    finally:
        connection.execute("RESET disabled_optimizers")
    scans: dict[str, list[dict[str, Any]]] = {}
    for _, plan in plans:
        for scan in _scans(json.loads(plan)):
            scans.setdefault(str(scan["Table"]).rpartition(".")[2].strip('"'), []).append(scan)
    return scans


def _scans(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        if "Table" in node["extra_info"]:
            yield node["extra_info"]
        yield from _scans(node["children"])


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if texts and isinstance(texts, str) else list(texts)


def _job(scan: dict[str, Any]) -> str | None:
    """The job that the rows of a scan are of, where a condition says so."""
    conditions = map(_OF_A_JOB.fullmatch, _listed(scan.get("Filters", "")))
    return next((condition[1] for condition in conditions if condition), None)
