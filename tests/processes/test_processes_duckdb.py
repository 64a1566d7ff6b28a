"""What differs from `test_processes` with a DuckDB file for a store: the file is one process's."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from geoflow.commands.cli import main
from geoflow.errors import StoreBusy, StoreError
from tests.helpers.sessions import ROOT, Drive, OpenSession, Trace, rows
from tests.helpers.waiting import is_running, wait_until


@pytest.fixture(scope="module")
def store_name() -> str:
    return "work.duckdb"


def test_S36_S38_another_process_can_neither_look_nor_cancel_and_goes_on_when_the_holder_is_gone(
    open_session: OpenSession, drive: Drive, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    driver = drive({"tasks": [{}, {"do": "pid then hang", "value": str(pids), "until_attempt": 2}]})
    wait_until(lambda: pids.exists() and bool(pids.read_text()))
    session = open_session()
    held = rf"work\.duckdb is held by process {driver.pid}: .* or keep the jobs in a SQLite store"
    for ask in (
        session.jobs,
        session.resume,
        lambda: session.job("0"),
        lambda: session.sql("SELECT * FROM jobs"),
        lambda: session.submit("acts", tasks=[]),
    ):
        with pytest.raises(StoreBusy, match=held):
            ask()
    (worker,) = map(int, pids.read_text().split())
    assert is_running(worker), "nobody was disturbed"
    driver.kill()
    driver.wait()
    wait_until(lambda: not is_running(worker), seconds=5)
    (job,) = session.resume()
    assert job.wait(timeout=30).status == "completed"
    assert rows(session, "SELECT task_id, attempt, outcome FROM attempts ORDER BY 1, 2") == [
        ("s1-t0", 1, "completed"),
        ("s1-t1", 1, "lost"),
        ("s1-t1", 2, "completed"),
    ]


def test_S9_a_command_typed_while_a_job_runs_is_told_whose_the_file_is(
    drive: Drive, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pids, store, copy = tmp_path / "pids", str(tmp_path / "work.duckdb"), tmp_path / "copy.db"
    driver = drive({"tasks": [{"do": "pid then hang", "value": str(pids)}]})
    wait_until(lambda: pids.exists() and bool(pids.read_text()))
    for words in (
        *(["jobs"], ["status"], ["tasks", "0"], ["sql", "SELECT * FROM jobs"], ["cancel", "0"], ["resume"]),
        *(["run", "hello_world", "n=1"], ["convert", store, str(copy)]),
    ):
        capfd.readouterr()
        assert main([*words, "--store", store]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith(f"geoflow: error: {store} is held by process {driver.pid}: DuckDB lends a file to one")
    assert not copy.exists()
    assert driver.poll() is None
    assert is_running(int(pids.read_text()))


SUBMITTER = """
    import sys, time
    sys.path.insert(0, {root!r})
    from tests.helpers import jobs
    import geoflow as gf

    session = gf.open({store!r}, workers=0, display="none")
    session.register(jobs)
    while True:
        try:
            job = session.run("acts", tasks=[{{"trace": {trace!r}}}] * 20)
            break
        except gf.errors.StoreBusy:
            time.sleep(0.01)
    print(job.receipt.status, job.status)
    session.close()
"""


def test_S9_processes_that_submit_the_same_job_take_turns_and_it_is_executed_once(
    open_session: OpenSession, tmp_path: Path, trace: Trace
) -> None:
    code = textwrap.dedent(SUBMITTER).format(root=ROOT, store=str(tmp_path / "work.duckdb"), trace=trace.path)
    submitters = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [submitter.communicate(timeout=60) for submitter in submitters]
    assert sorted(out.strip() for out, _ in told) == [
        "already_exists completed",
        "already_exists completed",
        "created completed",
    ], told
    assert sorted(trace.lines()) == sorted(f"s1-t{n} 1" for n in range(20))
    assert rows(open_session(), "SELECT count(*) FROM jobs") == [(1,)]


def test_S37_a_fork_of_the_notebooks_process_is_told_that_the_file_is_its_parents(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    job = session.run("acts", tasks=[{}])
    ((worker,),) = rows(session, "SELECT pid FROM attempts")
    fork = multiprocessing.get_context("fork")
    said = fork.SimpleQueue()

    def look() -> None:
        try:
            said.put(str(job.status))
        except StoreError as exc:
            said.put(str(exc))

    child = fork.Process(target=look)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert f"was opened by process {multiprocessing.current_process().pid}, of which this one is a fork" in said.get()
    assert is_running(worker)
    assert session.run("acts", tasks=[{}, {}]).status == "completed"
    session.close()
    assert not is_running(worker)
