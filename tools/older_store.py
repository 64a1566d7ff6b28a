"""Whether a store of 0.1 with 10,000 jobs is as it was, or has its history, wherever who opens it first is killed.

    python tools/older_store.py [KILLS] [STORE]    status 1 where one is neither; STORE: one that 0.1 has written

Without STORE one is made: of what a job leaves today, less the tables that 0.1 does not know, ten thousand times. Each
process opens a copy of it and runs a job, and is killed at a moment by chance. Then the copy must be whole, all that
0.1 reads of it must be as it was, and it must have either no new table and no new job, or both; and the job ends when
it is asked for again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import geoflow as gf
from geoflow.stores.made_later import TABLES

KILLS, JOBS, SEED = 300, 10_000, 17
OWN = ("job", "stage", "task", "attempt")
MANY = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $jobs)"


def forked(act: Callable[[], object]) -> int:
    """The process that does it and then ends, with 1 where it raised."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException as exc:
            print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
            os._exit(1)
    return child


def ended(child: int) -> bool:
    """Whether it has ended by itself, and well; False where it was killed."""
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), "a process has failed"
    return status == 0


def run(path: Path) -> None:
    with gf.open(path, workers=0, display="none", log_level="ERROR") as session:
        job = session.run("hello_world", n=3, message="after {index}", on_existing="resume")
        assert job.status == "completed", job


def made(path: Path) -> None:
    """A store of 0.1 with many jobs, of what one leaves."""
    with gf.open(path, workers=0, display="none", log_level="ERROR") as session:
        session.run("hello_world", n=3)
    with closing(sqlite3.connect(path)) as connection:
        for table in TABLES:
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        most = {table: connection.execute(f"SELECT max({table}_key) FROM {table}").fetchone()[0] for table in OWN}
        moved = {f"{table}_key": f"{table}_key + n * {most[table]}" for table in OWN} | {
            "first_key": f"first_key + n * {most['task']}",
            "attempt_key": f"attempt_key + n * {most['task']} * 4096",
            "job_id": "printf('%064x', n)",
        }
        for table in OWN:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            told = ", ".join(moved.get(name, name) for name in columns)
            copied = f"INSERT INTO {table} ({', '.join(columns)}) {MANY} SELECT {told} FROM {table}, n"
            connection.execute(copied, {"jobs": JOBS - 1})
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def of_old(connection: sqlite3.Connection, most: dict[str, int]) -> list[Any]:
    """What 0.1 reads: the tables and views that it knows, and in these the rows up to the keys *most*."""
    schema = connection.execute(
        f"SELECT name, sql FROM sqlite_master WHERE tbl_name NOT IN ({', '.join('?' * len(TABLES))}) ORDER BY name",
        tuple(TABLES),
    ).fetchall()
    rows = []
    for table, last in most.items():
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        sums = ", ".join(f"total({name}), total(length({name}))" for name in names)
        rows.append(
            connection.execute(f"SELECT count(*), {sums} FROM {table} WHERE {table}_key <= ?", (last,)).fetchall()
        )
    return [connection.execute("PRAGMA user_version").fetchall(), schema, rows]


def state(path: Path, most: dict[str, int], before: list[Any]) -> str:
    """How far whoever was killed had come, in a word; AssertionError where the store is neither the old nor the new."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)], "the store is damaged"
        assert not connection.execute("PRAGMA foreign_key_check").fetchall(), "rows have lost what they belong to"
        assert of_old(connection, most) == before, "what 0.1 reads has changed"
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        jobs = connection.execute("SELECT job_id, status FROM job WHERE job_key > ?", (most["job"],)).fetchall()
        if "events" not in tables:
            assert not jobs, "a job is there without its history"
            return "nothing"
        (job,) = jobs
        told = connection.execute("SELECT job_id, event, status FROM events ORDER BY event_key").fetchall()
        assert told[0] == (job[0], "submitted", "queued"), told
        assert told[-1][::2] == job, "the history ends otherwise than the job stands"
        return str(told[-1][1])


def main(kills: int, given: str | None) -> int:
    chance, seen, bad = random.Random(SEED), Counter[str](), 0
    with gf.open(":memory:", workers=0, display="none", log_level="ERROR") as session:
        session.run("hello_world", n=1)  # all is imported then
    with tempfile.TemporaryDirectory() as folder:
        old, path = Path(folder, "old.db"), Path(folder, "work.db")
        if given:
            of_given = f"{Path(given).absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(of_given, uri=True)) as connection, closing(sqlite3.connect(old)) as copy:
                connection.backup(copy)
        else:
            assert ended(forked(lambda: made(old)))
        with closing(sqlite3.connect(old)) as connection:
            most = {table: connection.execute(f"SELECT max({table}_key) FROM {table}").fetchone()[0] for table in OWN}
            before = of_old(connection, most)
            jobs = connection.execute("SELECT count(*) FROM job").fetchone()[0]
        took = []
        for _ in range(5):
            shutil.copy(old, path)
            began = time.perf_counter()
            assert ended(forked(lambda: run(path)))
            took.append(time.perf_counter() - began)
            assert state(path, most, before) == "finalized"
            _clear(path)
        print(f"{jobs:,} jobs, {old.stat().st_size / 1e6:.1f} MB; opened, and a job of three tasks run, in", end=" ")
        print(f"{sorted(took)[2] * 1e3:.0f} ms")
        dead = 0
        while dead < kills:
            shutil.copy(old, path)
            child = forked(lambda: run(path))
            time.sleep(chance.random() * 1.2 * sorted(took)[2])
            os.kill(child, signal.SIGKILL)
            if not ended(child):
                dead += 1
                try:
                    seen[state(path, most, before)] += 1
                    assert ended(forked(lambda: run(path))), "it does not go on"
                    with closing(sqlite3.connect(path)) as connection:
                        jobs_now = connection.execute("SELECT count(*), min(status), max(status) FROM job").fetchone()
                    assert jobs_now == (jobs + 1, "completed", "completed"), "it has not ended"
                except AssertionError as exc:
                    bad += 1
                    print(f"kill {dead}: {exc}")
            _clear(path)
    print(f"{dead} kills, after which the last event was: {dict(seen.most_common())}; {bad} stores are neither")
    return int(bool(bad))


def _clear(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        if file.is_file():
            file.unlink()


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(int(words[0]) if words else KILLS, words[1] if len(words) > 1 else None))
