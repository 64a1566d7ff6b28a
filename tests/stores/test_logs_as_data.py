"""The log as data: asked by level, time, text and task, joined in SQL, and what production's people ask of theirs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoflow as gf
from geoflow.errors import ParameterError
from geoflow.support import logfile, logs
from geoflow.views.lines import Wanted
from tests.helpers.sessions import ROOT, OpenSession

STORES = pytest.mark.parametrize("store", [":memory:", "work.db"])
FAILS: dict[str, Any] = {"do": "raise", "value": "ValueError"}
DOCS = Path(ROOT, "docs", "logs.md").read_text()
QUERIES = dict(re.findall(r"^```sql (\w+)\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL))


def opened(open_session: OpenSession, tmp_path: Path, store: str, workers: int = 0) -> gf.Session:
    return open_session(store if store == ":memory:" else tmp_path / store, workers=workers, base_delay=0.0)


@STORES
def test_S65_lines_are_asked_by_level_time_text_and_task(open_session: OpenSession, tmp_path: Path, store: str) -> None:
    session = opened(open_session, tmp_path, store)
    before = datetime.now(UTC)
    job = session.run("acts", tasks=[{"do": "say", "value": "Hello"}, FAILS])
    first, second = job.tasks()["task_id"]
    assert set(job.logs(level="warning")["level"]) == {"WARNING"}
    assert set(job.logs(task=second)["task_id"]) == {second}
    assert job.logs(contains="HELLO")["message"].tolist() == ["logged: Hello"]
    assert "ValueError" in set(job.logs(contains="a valueerror on")["error_type"])
    assert len(job.logs(since=before)) == len(job.logs(since=timedelta(minutes=5))) == len(job.logs()) > 3
    assert job.logs(since=datetime.now() + timedelta(seconds=60)).empty
    assert job.logs()["time"].is_monotonic_increasing
    both = session.sql("SELECT DISTINCT task_id, status FROM tasks JOIN logs USING (job_id, task_id) ORDER BY 1")
    assert both.to_numpy().tolist() == [[first, "completed"], [second, "failed"]]
    assert job.task(second).logs()["task_id"].unique().tolist() == [second]
    other = session.run("acts", tasks=[FAILS])
    assert set(session.logs(level="WARNING")["job_id"].dropna()) == {job.id, other.id}
    assert other.logs()["job_id"].unique().tolist() == [other.id]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"level": "LOUD"}, "level cannot be 'LOUD': it is one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ({"since": "yesterday"}, "since cannot be 'yesterday': give a datetime, or a timedelta for so long ago"),
        ({"contains": 5}, "contains cannot be 5: give a text"),
        ({"task": 5}, "task cannot be 5: give a text"),
    ],
)
def test_S65_what_cannot_be_asked_of_a_log_is_said(
    open_session: OpenSession, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=re.escape(message)):
        open_session(":memory:", workers=0).logs(**asked)


ANYTHING = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)


@given(line=st.dictionaries(st.sampled_from(["time", "level", "job_id", "task_id", "message", "traceback"]), ANYTHING))
def test_S65_any_line_can_be_asked_whatever_another_program_has_put_into_it(line: dict[str, Any]) -> None:
    asked = Wanted.of("j", level="INFO", since=datetime(2024, 1, 1), contains="x", task="t")
    assert asked.has(line) in (True, False)
    assert Wanted().has(line)


def test_S65_each_session_of_a_process_has_a_log_of_its_own(open_session: OpenSession, tmp_path: Path) -> None:
    first, second, third = (opened(open_session, tmp_path, store) for store in (":memory:", ":memory:", "work.db"))
    jobs = [
        session.run("acts", tasks=[{"do": "say", "value": f"number {n}"}])
        for n, session in enumerate((first, second, third))
    ]
    again = first.run("acts", tasks=[{"do": "say", "value": "number 3"}])
    said = [list(session.logs(contains="logged")["message"]) for session in (first, second, third)]
    assert said == [["logged: number 0", "logged: number 3"], ["logged: number 1"], ["logged: number 2"]]
    for session, job in zip((first, second, third, first), (*jobs, again), strict=True):
        assert job.logs()["message"].iloc[-1].endswith("completed")
        assert set(session.logs()["job_id"].dropna()) <= {each.id for each in (*jobs, again)}


def test_S65_the_log_of_a_store_in_memory_has_what_workers_say_and_goes_with_its_session(
    open_session: OpenSession,
) -> None:
    session = opened(open_session, Path(), ":memory:", workers=1)
    job = session.run("acts", tasks=[{"do": "say", "value": "from a worker"}])
    assert job.logs(contains="from a worker")["task_id"].tolist() == job.tasks()["task_id"].tolist()
    folder = session.runtime.log_path.parent
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}
    session.close()
    assert not folder.exists()


def test_S65_the_log_of_a_session_in_memory_that_nobody_closed_goes_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys, geoflow as gf; s = gf.Session(':memory:', workers=0); s.run('hello_world', n=1);"
        " print(s.runtime.log_path); pid = os.fork();"
        " os.waitpid(pid, 0) if pid else sys.exit(); print(s.runtime.log_path.exists())"
    )
    env = os.environ | {"TMPDIR": str(tmp_path), "GEOFLOW_DISPLAY": "none"}
    run = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    path, there = run.stdout.splitlines()
    assert there == "True"  # a fork that ends leaves its parent's alone
    assert not Path(path).parent.exists()


# While it rotates


def test_S65_what_was_there_is_read_once_though_the_log_rotates_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "work.log"
    for number, name in enumerate((f"{path}.2", f"{path}.1", str(path))):
        Path(name).write_text(json.dumps({"message": f"line {number}"}) + "\n")
    found = logs.read(path)
    head = next(found)
    for source, target in ((2, 3), (1, 2)):
        os.rename(f"{path}.{source}", f"{path}.{target}")
    os.rename(path, f"{path}.1")
    path.write_text('{"message": "later"}\n')
    assert [line["message"] for line in (head, *found)] == ["line 0", "line 1", "line 2"]


def test_S65_a_log_whose_process_was_killed_as_it_rotated_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "work[1].log"
    names = [f"{path}.2", f"{path}.rotate.123", str(path)]
    for number, name in enumerate(names):
        Path(name).write_text(json.dumps({"message": f"line {number}"}) + "\n")
    assert [line["message"] for line in logs.read(path)] == ["line 0", "line 1", "line 2"]


def test_S65_a_reader_sees_each_line_that_was_written_once_while_the_log_rotates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "MAX_BYTES", 4_000)
    monkeypatch.setattr(logfile, "BACKUPS", 200)
    path = tmp_path / "work.log"
    code = (
        "import logging, sys; from geoflow.support import logfile, logs;"
        " logfile.MAX_BYTES, logfile.BACKUPS = 4_000, 200; logs.configure_worker(sys.argv[1]);"
        " [(logging.getLogger('geoflow.x').info('%d', n), print(n, flush=True)) for n in range(1500)]"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for said in writer.stdout:
        if int(said) % 50 == 0:
            seen = [int(line["message"]) for line in logs.read(path)]
            assert seen == list(range(len(seen)))
            assert len(seen) > int(said)
    assert writer.wait() == 0
    assert len(list(logs.read(path))) == 1500


# What production's people ask


def asked_about(session: gf.Session) -> gf.Session:
    session.run("acts", tasks=[{}, FAILS])
    session.run("acts", tasks=[{"do": "raise", "value": "OSError", "until_attempt": 2}, {}])
    return session


@pytest.mark.parametrize("store", [":memory:", "work.db", "work.duckdb"])
def test_S65_the_questions_of_the_docs_are_answered(open_session: OpenSession, tmp_path: Path, store: str) -> None:
    asked = asked_about(opened(open_session, tmp_path, store))
    failed, retried = asked.jobs()["job_id"]
    for _ in range(2):
        asked.submit("acts", tasks=[{}, FAILS])
    with_errors = asked.run("acts", tasks=[{}], finalize="raise")
    found = {name: asked.sql(query) for name, query in QUERIES.items()}
    assert list(found) == ["permanent", "retried", "fallback", "duplicates", "correlation"]
    assert found["permanent"][["job_type", "error_type", "error"]].to_numpy().tolist() == [
        ["acts", "ValueError", "a ValueError on purpose"]
    ]
    assert found["retried"][["job_id", "retries", "success"]].to_numpy().tolist() == [[retried, 1, "true"]]
    assert found["fallback"][["job_id", "error_type"]].to_numpy().tolist() == [[with_errors.id, "RuntimeError"]]
    assert found["duplicates"][["job_id", "submissions"]].to_numpy().tolist() == [[failed, 3]]
    assert found["correlation"]["message"].iloc[0] == f"job {failed[:8]} started"
    assert found["correlation"]["message"].iloc[-1].endswith("failed, and nothing of it runs any more")


def test_S65_each_run_of_a_job_has_a_correlation_id_of_its_own(open_session: OpenSession) -> None:
    asked = asked_about(open_session(":memory:", workers=0, base_delay=0.0))
    job = asked.job(asked.jobs()["job_id"][0])
    job.retry_failed().wait()
    ids = [each for each in job.logs()["correlation_id"].drop_duplicates() if isinstance(each, str)]
    assert ids == [f"{job.id[:8]}.1", f"{job.id[:8]}.2"]
    lines = asked.sql(f"SELECT task_id, error_type FROM logs WHERE correlation_id = '{ids[1]}' AND task_id IS NOT NULL")
    assert set(lines["error_type"].dropna()) == {"ValueError"}


def test_S65_lines_are_read_in_their_order_also_where_the_log_rotates_twice_as_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "work.log"

    def write(number: int) -> None:
        path.write_text(json.dumps({"message": str(number)}) + "\n")

    def rotate(number: int) -> None:
        for place in (2, 1):
            if (old := Path(f"{path}.{place}")).exists():
                old.rename(f"{path}.{place + 1}")
        path.rename(f"{path}.1")
        write(number)

    def rotates_twice(pattern: str) -> Iterator[str]:
        rotate(2)  # once the youngest was opened
        rotate(3)
        yield from ()

    write(0)
    rotate(1)
    monkeypatch.setattr("glob.iglob", rotates_twice)
    assert [line["message"] for line in logs.read(path)] == ["0", "1", "2"]
