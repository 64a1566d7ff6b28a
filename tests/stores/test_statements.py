"""What SQL may do: each statement here is refused or answered, and none writes anything."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import geoflow as gf
from geoflow.errors import ParameterError, StoreError
from geoflow.stores.opening import store_at

READS = """\
select 1
from jobs
table jobs
values (1)
select count(*) from tasks
select status from jobs;
with a as (from tasks) select * from a
select * from jobs join tasks using (job_id)
describe jobs
show tables
summarize jobs
select * from range(3)
select unnest([1, 2])
select random(), uuid()
select job_id from jobs union all select task_id from tasks
select * from (describe jobs)
from logs
select * from json_each('[1]')
select * from information_schema.tables
select * from duckdb_tables()
select list_transform([1], lambda x: x + 1)
select * from jobs where job_id in (select job_id from tasks)
select result->>'$.result.n' from tasks
select epoch(now())
select regexp_replace('a', 'a', 'b')
select row_number() over (order by task_id) from tasks
select * from main.jobs
select * from duckdb_functions() limit 1
select sum(n) from generate_series(3) t(n)
select pi()
select current_setting('threads')
""".splitlines()
READ_FILES = """\
from '{f}/a.csv'
select * from read_csv('{f}/a.csv')
select * from read_text('{f}/a.csv')
select * from read_blob('{f}/a.csv')
select * from glob('{f}/*')
select * from sniff_csv('{f}/a.csv')
select (select count(*) from '{f}/a.csv')
with a as (from '{f}/a.csv') from a
from read_csv_auto('{f}/a.csv')
select * from jobs, read_text('{f}/a.csv')
select * from jobs where exists (from read_text('{f}/a.csv'))
""".splitlines()
REFUSED = """\
select * from enable_logging('QueryLog', storage := 'file', storage_path := '{f}')
from enable_logging()
select * from disable_logging()
select * from truncate_duckdb_logs()
select * from enable_profiling()
select * from checkpoint()
select * from force_checkpoint()
select * from query('select 1')
select * from query_table('jobs')
select * from json_execute_serialized_sql('x')
select write_log('x')
select * from (select * from enable_logging())
with a as (from checkpoint()) select * from a
select nextval('s')
select setval('s', 1)
select sleep_ms(1)
select getenv('HOME')
select * from pragma_storage_info('job')
select * from duckdb_secrets()
select * from duckdb_settings()
select * from which_secret('x', 'y')
select * from read_duckdb('{f}/x.duckdb')
select * from pandas_scan(1)
select * from arrow_scan(1, 2, 3)
select * from python_map_function(1)
select * from seq_scan(1)
select * from duckdb_extensions()
select * from register_external_resource('x')
select * from create_external_resource('x')
select * from x()
select (select count(*) from enable_logging())
select 1 where exists (from checkpoint())
select ENABLE.x()
select 1 union all (select 1 from truncate_duckdb_logs())
from range(3) a, lateral (from enable_logging())
copy jobs to '{f}/out.csv'
copy (select 1) to '{f}/out.parquet'
copy jobs from '{f}/a.csv'
export database '{f}/out'
import database '{f}'
attach '{f}/x.duckdb'
detach x
use memory
create table x (a int)
create temp table x (a int)
create table x as select 1
create view x as select 1
create macro x() as 1
create sequence x
create schema x
create type x as int
create index x on jobs(job_id)
create secret (type s3)
create or replace table jobs as select 1
drop table jobs
drop view tasks
alter table jobs add column x int
insert into jobs values (1)
update jobs set status = 'x'
delete from jobs
truncate jobs
merge into jobs using tasks on true when matched then delete
begin
commit
rollback
install httpfs
load httpfs
load '{f}/x.so'
force install spatial
update extensions
set threads = 4
set global threads = 4
reset threads
set variable x = 1
pragma enable_profiling
pragma version
pragma database_list
pragma database_size
call enable_logging()
call pragma_version()
checkpoint
force checkpoint
vacuum
analyze
vacuum analyze
prepare x as select 1
execute x
deallocate x
explain select 1
explain analyze select 1
select 1; select 2
select 1; drop table jobs
comment on table jobs is 'x'
pivot jobs on status using count(*)
set log_query_path = '{f}/log'
set profiling_output = '{f}/x'
set temp_directory = '{f}/x'
set secret_directory = '{f}'
select select
select * from jobs into outfile 'x'
with a as (insert into jobs values (1) returning *) select * from a
""".splitlines()
REFUSED += ["", ";", "--", "\x00"]


@pytest.fixture(params=["work.db", "work.duckdb"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[gf.Session]:
    with gf.open(tmp_path / request.param, workers=0, display="none") as session:
        session.run("hello_world", n=2)
        session.sql("select 1")
        yield session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.csv").write_text("a,b\n1,2\n")
    for name in ("duckdb_log_entries.csv", "duckdb_log_contexts.csv", "duckdb_log.csv"):
        (tmp_path / "files" / name).write_text("PRECIOUS\n")
    return tmp_path / "files"


def state(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_S43_120_statements_each_is_refused_or_answered_and_nothing_is_written(
    session: gf.Session, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = state(folder)
    assert len(READS) + len(READ_FILES) + len(REFUSED) >= 120
    answered = []
    for statement in REFUSED:
        try:
            session.sql(statement.format(f=folder))
        except ParameterError:
            continue
        answered.append(statement)
    assert not answered
    for statement in (*READS, *READ_FILES):
        session.sql(statement.format(f=folder))
    assert state(folder) == before
    assert session.run("hello_world", n=3).status == "completed"
    assert state(folder) == before
    assert len(session.jobs()) == 2


def test_S43_files_are_not_read_where_that_is_switched_off(tmp_path: Path, folder: Path) -> None:
    with gf.open(tmp_path / "other.db", workers=0, display="none", sql_files=False) as session:
        session.run("hello_world", n=1)
        for statement in (*READ_FILES, "from a.csv", "from 'x/y'", 'from "b.parquet"'):
            with pytest.raises(ParameterError, match="which is switched off here: sql_files=True"):
                session.sql(statement.format(f=folder))
        assert session.sql("with a as (from tasks) select count(*) as n from a")["n"].tolist() == [2]


@pytest.mark.parametrize(
    "change",
    [
        "CREATE OR REPLACE VIEW jobs AS SELECT * FROM read_text('/etc/hostname')",
        "CREATE OR REPLACE VIEW jobs AS SELECT * FROM enable_logging()",
        "CREATE OR REPLACE VIEW tasks AS SELECT * FROM '/etc/hostname.csv'",
        "CREATE VIEW more AS SELECT write_log('x')",
        "CREATE MACRO json_array_length(x) AS 5",
        "CREATE MACRO jobs() AS TABLE SELECT 1",
    ],
)
def test_S43_a_duckdb_store_with_views_of_anothers_making_is_not_looked_at(tmp_path: Path, change: str) -> None:
    (tmp_path / "hostname.csv").write_text("a\n1\n")
    path = tmp_path / "work.duckdb"
    store = store_at(path)
    store.open()
    store.close()
    with duckdb.connect(str(path)) as connection:
        try:
            connection.execute(change.replace("/etc/hostname.csv", f"{tmp_path}/hostname.csv"))
        except duckdb.Error as exc:
            pytest.skip(f"DuckDB itself refuses: {exc}")
    with pytest.raises(StoreError, match="that are not geoflow's"):
        store.open()


def test_S43_a_sqlite_store_with_a_trigger_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    store = store_at(path)
    store.open()
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER x AFTER INSERT ON job BEGIN DELETE FROM job; END")
    connection.close()
    with pytest.raises(StoreError, match="triggers"):
        store.open()
