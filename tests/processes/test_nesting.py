"""A job that is started where a worker loads code or runs it: refused, with what to write instead."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.api import opened
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession

MODULE = """
import geoflow as gf

flow = gf.JobType("unguarded", description="x")

@flow.stage
def tiles(p: dict) -> list[int]:
    return [1, 2]

@flow.each(tiles)
def measure(t: int) -> int:
    return t

session = gf.open({store!r}, workers=1, display="none")
job = session.run(flow, {{}})
print("ended:", job.status, job.error)
session.close()
"""


@pytest.mark.parametrize("store", ["work.db", ":memory:"], ids=["one store", "a store for each process"])
def test_a_module_without_a_main_guard_runs_its_job_once_and_is_told_of_the_guard(tmp_path: Path, store: str) -> None:
    (tmp_path / "unguarded.py").write_text(MODULE.format(store=store))
    command = [sys.executable, "-c", "import unguarded"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.count("ended:") == 1, done.stderr
    assert "ended: failed" in done.stdout
    assert 'under `if __name__ == "__main__":`' in done.stdout


def test_the_same_module_run_as_a_script_completes(tmp_path: Path) -> None:
    (tmp_path / "unguarded.py").write_text(MODULE.format(store="work.db"))
    command = [sys.executable, "unguarded.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ended: completed None\n", done.stderr


@pytest.mark.parametrize("how", ["inline", "processes", "threads"])
def test_a_handler_that_runs_a_job_in_the_default_session_is_told_what_to_do(
    open_session: OpenSession, how: str
) -> None:
    def act(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {"value": gf.run("hello_world", n=1).status}}

    _told(open_session, how, act, "in the default session")


@pytest.mark.parametrize("how", ["inline", "threads"])
def test_a_handler_that_runs_a_job_in_the_session_that_runs_it_is_told_so(open_session: OpenSession, how: str) -> None:
    def act(params: dict[str, Any]) -> dict[str, Any]:
        (session,) = [one for one in opened() if one.settings.store == params["value"]]
        return {"success": True, "result": {"value": session.run("hello_world", n=1).status}}

    _told(open_session, how, act, "in the session that runs it")


def test_a_handler_may_run_a_job_in_a_session_of_its_own(open_session: OpenSession, tmp_path: Path) -> None:
    store = str(tmp_path / "inner.db")

    def act(params: dict[str, Any]) -> dict[str, Any]:
        with gf.open(store, workers=0, display="none") as session:
            return {"success": True, "result": {"value": session.run("hello_world", n=1).status}}

    session = open_session(workers=1)
    session.register(jobs.Acts, {"act": act})
    assert session.run("acts", tasks=[{}]).result()["values"] == ["completed"]


def _told(open_session: OpenSession, how: str, act: Any, where: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        options: dict[str, Any] = {"executor": pool} if how == "threads" else {"workers": 0 if how == "inline" else 1}
        session = open_session(**options)
        session.register(jobs.Acts, {"act": act})
        job = session.run("acts", tasks=[{"value": session.settings.store}])
        assert f"A handler, a plan or finalize_job cannot run a job {where}" in str(job.error)
        assert "without a retry" in str(job.error)
        assert session.run("hello_world", n=1).status == "completed"
