"""Stores and logs of another's making: no code of theirs runs, nothing outside is touched, and listings go on."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

import geoflow as gf
from geoflow.errors import GeoflowError
from geoflow.stores.opening import is_duckdb, store_at
from tests.helpers.profiles import seldom

DEEP = "[" * 5000 + "]" * 5000
CHANGES = """\
update job set stages='5' where job_key=1
update job set stages='[1,2]' where job_key=1
update job set stages='[]' where job_key=1
update job set stages='[{}]' where job_key=1
update job set stages='[{"number":"x","name":5,"task_type":null}]' where job_key=1
update job set owner='{' where job_key=1; update job set status='processing', ended_at=null where job_key=1
update job set owner='[]', status='processing', ended_at=null where job_key=1
update job set parameters='5' where job_key=1
update job set parameters='[]' where job_key=1
update job set result='5' where job_key=1
update job set result='[]' where job_key=1
update job set created_at=1e300 where job_key=1
update job set created_at=-1e300 where job_key=1
update job set created_at=9e999, started_at=9e999 where job_key=1
update job set ended_at=1e18 where job_key=1
update job set stage=99 where job_key=1
update job set stage=-5 where job_key=1
update job set stage=9223372036854775807 where job_key=1
update stage set task_count=1000000000000 where stage_key=1
update stage set task_count=-5 where stage_key=1
update stage set first_key=9223372036854775807 where stage_key=1
update stage set planned_at=1e300 where stage_key=1
update stage set stage=77 where stage_key=1
delete from stage where stage_key=1
delete from task where task_key=1
delete from attempt
update attempt set started_at=1e300
update attempt set ended_at=-1e300
update attempt set result='x'
update attempt set result='5'
update attempt set cpu=9e999
update attempt set peak_memory=9223372036854775807
update attempt set code='\x1b[2J'
update attempt set output='\x1b[2J'
update task set parameters='x' where task_key=1
update task set parameters='5' where task_key=1
update task set metadata='x'
update task set metadata='[]'
update task set attempt=4095 where task_key=1
update task set attempt=9223372036854775807 where task_key=1
update task set not_before=1e300
update job set job_id='ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ' where job_key=1
update job set job_id='../../../../../../../../../../../../../../../../../../../../../x' where job_key=1
update job set job_type='../../x' where job_key=1
update job set source='/etc/passwd' where job_key=1
update job set epoch=9223372036854775807 where job_key=1
update job set job_key=9223372036854775807 where job_key=1
update job set job_key=-1 where job_key=1
update job set status='processing', ended_at=null, started_at=null where job_key=1
update job set error='\x1b[2J', status='failed' where job_key=1
""".splitlines()
CHANGES += [
    f"update job set parameters='{DEEP}' where job_key=1",
    f"update job set error='{'x' * 3_000_000}' where job_key=1",
]
LINES = [
    b"{",
    b"[]",
    b"null",
    b"5",
    b"\xff\xfe",
    b"",
    b"[" * 100_000,
    b'{"time": 1e999}',
    b'{"time": [], "job_id": {}}',
    b"\0" * 1000,
    b'{"job_id": "x", "message": "\\u001b[2J", "time": "never"}',
    b'{"line": {}, "stage": "x", "attempt": 1e300}',
]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a store of that name with two jobs, once: a fixture that takes the name would be made for each use."""

    @cache
    def made_once(store_name: str) -> Path:
        path: Path = tmp_path_factory.mktemp("made") / store_name
        with gf.open(path, workers=0, display="none") as session:
            session.run("hello_world", n=2)
            session.run("hello_world", n=3)
        return path

    return made_once


@pytest.fixture
def made(store_name: str, make: Callable[[str], Path]) -> Path:
    return make(store_name)


@pytest.fixture
def precious(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder, with what must stay in it."""
    temp = tmp_path / "temp"
    (temp / "geoflow-results").mkdir(parents=True)
    (temp / "geoflow-results" / "precious.tif").write_text("x")
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    yield temp
    assert (temp / "geoflow-results" / "precious.tif").exists()


def changed(made: Path, path: Path, change: str) -> bool:
    shutil.copy(made, path)
    if is_duckdb(path):
        try:
            with duckdb.connect(str(path)) as opened:
                opened.execute(change)
        except duckdb.Error:  # it is stricter than SQLite
            return False
        return True
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.executescript(change)
    except sqlite3.Error:
        return False
    finally:
        connection.close()
    return True


def looks(session: gf.Session) -> Iterator[Callable[[], Any]]:
    yield session.jobs
    yield session._repr_html_
    yield lambda: session.sql("select * from jobs")
    yield lambda: session.sql("select * from tasks")
    for row in session.store.jobs():
        yield partial(_look, session, row.job_id)


def _look(session: gf.Session, job_id: str) -> None:
    for look in (
        lambda: repr(session.job(job_id)),
        lambda: session.job(job_id)._repr_html_(),
        lambda: session.job(job_id).tasks(),
        lambda: session.job(job_id).errors(),
        lambda: session.job(job_id).result(),
    ):
        with contextlib.suppress(GeoflowError):  # in words, of this one thing
            look()


@pytest.mark.parametrize(
    ("store_name", "number"),
    [
        *[("work.db", number) for number in range(len(CHANGES))],
        *[(seldom if number % 4 else pytest.param)("work.duckdb", number) for number in range(len(CHANGES))],
    ],
)
def test_S43_a_row_of_anothers_making_is_one_bad_row(made: Path, tmp_path: Path, precious: Path, number: int) -> None:
    path = tmp_path / made.name
    if not changed(made, path, CHANGES[number]):
        pytest.skip("the database itself refuses it")
    with gf.open(path, workers=0, display="none") as session:
        rows = session.store.jobs()
        assert any(row.job_type == "hello_world" and row.status == "completed" for row in rows), "the other one"
        for look in looks(session):
            try:
                look()
            except GeoflowError:  # in words, of this one thing
                continue
        for job in session.resume():
            job.wait(timeout=30)
        assert session.run("hello_world", n=4).status == "completed"


@pytest.mark.on_duckdb
def test_S43_a_bad_row_is_shown_as_such(made: Path, tmp_path: Path) -> None:
    path = tmp_path / made.name
    assert changed(made, path, "update job set stages='5', status='processing', ended_at=null where job_key=1")
    store = store_at(path)
    store.open()
    bad, good = store.jobs()
    store.close()
    assert bad.status == "failed"
    assert bad.error == (
        "The row of this job in the store is damaged, or another program changed it: stages. It is not run."
    )
    assert good.status == "completed"
    with gf.open(path, workers=0, display="none") as session:
        assert session.resume() == []


@pytest.mark.on_duckdb(seldom=True)
@pytest.mark.parametrize("number", range(len(LINES)))
def test_S43_a_log_line_of_anothers_making_is_one_bad_line(made: Path, tmp_path: Path, number: int) -> None:
    path = tmp_path / made.name
    shutil.copy(made, path)
    with gf.open(path, workers=0, display="none") as session:
        job = session.run("hello_world", n=5)
        log = session.settings.log_path
        assert log is not None
        with log.open("ab") as file:
            file.write(LINES[number] + b"\n")
            file.write(json.dumps({"job_id": job.id, "message": "after"}).encode() + b"\n")
        assert "after" in job.logs()["message"].tolist()
        assert len(session.sql("select * from logs where message = 'after'")) == 1
