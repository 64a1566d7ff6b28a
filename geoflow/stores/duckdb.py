"""Jobs, tasks and attempts in a DuckDB file: for who would rather have it than SQLite, within one process.

All stores of this process that name one file share its one writer (see `duckdb_file`); readers have cursors of their
own and see the rows as they were when they began to look.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import duckdb

from geoflow.core.batch import Batch, Completed, NewTasks
from geoflow.core.rows import Lease, Move, Take
from geoflow.errors import StoreError
from geoflow.stores.columns import COMPLETED_OWN, COMPLETED_SAME, duckdb_type
from geoflow.stores.duckdb_file import File, borrow, check_whole, explaining
from geoflow.stores.job_locks import Ownership
from geoflow.stores.ranges import consecutive
from geoflow.stores.store import Store, completed_columns, not_long
from geoflow.support.jsonable import to_json
from geoflow.support.parcel import PIECE

_ROWS_AT_ONCE, _LOOKED_AT = 20_000, 256


class DuckDbStore(Store):
    """The store in the DuckDB file *path*. Nothing is opened before it is needed; `StoreBusy` if a process has it."""

    _refused = duckdb.ConstraintException
    _DATABASE = "duckdb"
    _TEXTS = "coalesce(CAST(to_json(list({} ORDER BY task_key)) AS VARCHAR), '[]')"
    _BYTES = "strlen(CAST({} AS VARCHAR))"
    _JSONS = "'[' || coalesce(string_agg(CAST({} AS VARCHAR), ',' ORDER BY task_key), '') || ']'"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        if not name or name == ":memory:":
            raise StoreError(f"A DuckDB store is a file such as 'work.duckdb', not {name!r}.")
        self._path = Path(name).absolute()
        super().__init__(name, Ownership(self._path))
        self._file: File | None = None

    # Opening

    def open(self) -> None:
        self._open_file()

    def _open_file(self) -> File:
        file = self._file
        if file is None:
            self._file = file = borrow(self._path, self.name)
            self._lock = file.lock
        file.check(self._path, self.name)
        return file

    def close(self) -> None:
        with self._lock:
            self._ownership.release_all()
            self._epochs.clear()
            self._ids.clear()
            file, self._file = self._file, None
            if file is not None:
                file.give_back()

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._open_file().connection.cursor()
        try:
            with explaining(self.name):
                yield cursor
        finally:
            cursor.close()

    def copy_to(self, target: Path) -> None:
        file = self._open_file()
        with explaining(self.name):
            file.copy_to(target)
        check_whole(target)

    def room(self) -> tuple[int, int]:
        ((size, blocks, free),) = self._rows("SELECT block_size, total_blocks, free_blocks FROM pragma_database_size()")
        return size * blocks, size * free

    def shrink(self) -> None:
        self._rows("CHECKPOINT")

    @contextlib.contextmanager
    def _transaction(self, lease: Lease | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        file = self._open_file()
        with file.lock, explaining(self.name):
            file.keep_private()
            file.connection.begin()
            try:
                if lease is not None:
                    self._verify(file.connection, lease)
                yield file.connection
                file.connection.commit()
                file.settled()
            except BaseException:
                file.tables = None  # one that was made may be gone
                with contextlib.suppress(duckdb.Error):  # a commit that failed has rolled back already
                    file.connection.rollback()
                raise

    # In DuckDB's own way

    def has(self, table: str) -> bool:
        file = self._open_file()
        with file.lock:  # nobody else makes one; to ask takes as long as a transaction
            if file.tables is None:
                file.tables = {name for (name,) in self._rows("SELECT table_name FROM duckdb_tables()")}
            return table in file.tables

    def make(self, connection: duckdb.DuckDBPyConnection, table: str) -> None:
        super().make(connection, table)
        self._open_file().tables = None  # the transaction may fail yet

    def claim(self, job_key: int, owner: str) -> Lease:
        file = self._open_file()
        with file.lock:
            lease = super().claim(job_key, owner)
            file.epochs[job_key] = lease.epoch
        return lease

    def _verify(self, connection: duckdb.DuckDBPyConnection, lease: Lease) -> None:
        # Every claim of this file is made in this process, and a look at the row takes as long as most changes.
        if self._open_file().epochs.get(lease.job_key) != lease.epoch:
            super()._verify(connection, lease)

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        file = self._open_file()
        with file.lock, explaining(self.name):
            return file.connection.execute(file.parsed(sql), values).fetchall()

    def _one(self, sql: str, *values: Any, longest: int | None) -> Any:
        return self._rows(sql, *values)[0]  # a text may be of any length

    def _one_of(
        self, connection: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any], longest: int | None
    ) -> Any:
        return connection.execute(self._open_file().parsed(sql), values).fetchone()

    def _changed(self, connection: duckdb.DuckDBPyConnection, sql: str, values: dict[str, Any]) -> int:
        used = {name: value for name, value in values.items() if f"${name}" in sql}
        row = connection.execute(self._open_file().parsed(sql), used).fetchone()
        return int(row[0]) if row else 0

    def insert_rows(
        self, connection: duckdb.DuckDBPyConnection, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        insert(connection, table, dict(zip(names, zip(*rows, strict=True), strict=True)))

    def _insert_tasks(
        self, connection: duckdb.DuckDBPyConnection, stage_key: int, first_key: int, tasks: NewTasks
    ) -> None:
        metadata = iter(tasks.metadata)  # which may come from a file, as the parameters do
        for some, parameters in _few(tasks.parameters):
            columns = {
                "task_key": range(first_key + some.start, first_key + some.stop),
                "stage_key": (stage_key,) * len(parameters),
                "task_id": tasks.task_ids[some],
                "task_type": tasks.task_types[some],
                "parameters": parameters,
                "metadata": list(islice(metadata, len(parameters))),
            }
            insert(connection, "task", columns)

    def _insert_completed(self, connection: duckdb.DuckDBPyConnection, completed: Sequence[Completed]) -> None:
        columns: dict[str, list[Any]] = {name: [] for name in COMPLETED_OWN + COMPLETED_SAME}
        for several in completed:
            own, same = completed_columns(several)
            alike = ([value] * len(several.keys) for value in same)
            for column, values in zip(columns.values(), (*own, *alike), strict=True):
                column.extend(values)
        if sum(map(len, columns["result"])) <= PIECE:
            insert(connection, "attempt", columns)
            return
        for some, _ in _few(columns["result"]):
            insert(connection, "attempt", {name: column[some] for name, column in columns.items()})

    def _start(self, connection: duckdb.DuckDBPyConnection, take: Take) -> Iterator[Batch]:
        """As for any store, but with one statement for all new tasks: to plan one takes DuckDB a millisecond."""
        yield from super()._start(connection, take._replace(sizes=()))
        if not take.sizes:
            return
        stage, wanted = take.stage, sum(take.sizes)
        after = max(take.after, stage.first_key - 1)
        near = min(after + wanted + 1, stage.end_key)
        rows, all_there = self._new_rows(connection, after, near, wanted)
        if all_there and len(rows) < wanted and near < stage.end_key:  # some there have run before
            rows += self._new_rows(connection, near - 1, stage.end_key, wanted - len(rows))[0]
        batches: list[Batch] = []
        for size in take.sizes:
            if not rows and not all_there:
                break  # there are more, too long to go out at the same time
            if not rows:
                raise self.nothing_queued(stage, size)
            _, alike = next(groupby(rows[:size], lambda row: row[2:4]))
            keys, names, types, attempts, parameters = zip(*not_long(alike), strict=True)
            texts = to_json(names), f"[{','.join(parameters)}]"
            batches.append(Batch(types[0], attempts[0] + 1, 0, 0, stage.first_key, consecutive(keys), *texts))
            rows = rows[len(keys) :]
        self._move(connection, [Move("start", batch.keys) for batch in batches])
        yield from batches

    def _new_rows(
        self, connection: duckdb.DuckDBPyConnection, after: int, before: int, limit: int
    ) -> tuple[list[Any], bool]:
        """The first *limit* new tasks between the keys, and whether these are all; not when their texts are long."""
        sql = (
            "SELECT task_key, task_id, task_type, attempt, CAST(parameters AS VARCHAR) FROM task"
            " WHERE task_key > ? AND task_key < ? AND status = 'queued' AND retries = 0 AND losses = 0"
            " ORDER BY task_key LIMIT ?"
        )
        cursor = connection.execute(self._open_file().parsed(sql), (after, before, limit))
        rows: list[Any] = []
        length = 0
        while few := cursor.fetchmany(_LOOKED_AT):
            rows += few
            length += sum(len(row[4]) for row in few)
            if length > PIECE:
                return rows, False
        return rows, True


def _few(texts: Iterable[str]) -> Iterator[tuple[slice, list[str]]]:
    """*texts*, some at a time, which are of a bounded length together; and which of all these are."""
    few: list[str] = []
    start = length = 0
    for text in texts:
        few.append(text)
        length += len(text)
        if length > PIECE or len(few) >= _ROWS_AT_ONCE:
            yield slice(start, start + len(few)), few
            start, few, length = start + len(few), [], 0
    if few:
        yield slice(start, start + len(few)), few


def insert(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: Mapping[str, Sequence[Any]],
    type_of: Callable[[str], str] = duckdb_type,
) -> None:
    """Add rows to *table*, given as *columns* of one length: each travels as one JSON text.

    A statement for each row, or a list as a parameter, costs DuckDB three times as much and more. A column that is the
    same in every row travels once, but for the first, which says how many rows there are.
    """
    names: list[str] = []
    selected: list[str] = []
    values: list[Any] = []
    for name, column in columns.items():
        if not names or column.count(column[0]) != len(column):
            selected.append(f"unnest(from_json(?, '[\"{type_of(name)}\"]'))")
            values.append(to_json(list(column)))
        elif column[0] is None:
            continue
        else:
            selected.append("?")
            values.append(column[0])
        names.append(name)
    connection.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(selected)}", values)
