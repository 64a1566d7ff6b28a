"""``geoflow run --quiet`` prints an id and nothing else; ``--detach`` leaves the work to a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import geoflow as gf
from geoflow.commands.cli import main
from tests.helpers.waiting import is_running, wait_until


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "work.db")


def status(store: str, job_id: str) -> str:
    with gf.open(store, workers=0, display="none") as session:
        return session.job(job_id).status


def test_a_quiet_run_prints_the_id_of_its_job_and_nothing_else(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello_world", "n=1", "--quiet", "--store", store, "--workers", "0"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    (job_id,) = said.out.splitlines()
    assert status(store, job_id) == "completed"
    failing = ["run", "hello_world", "n=1", "failure_rate=1", "message=no", "--retries", "0"]
    assert main([*failing, "--quiet", "--store", store, "--workers", "0"]) == 1
    (job_id,) = capsys.readouterr().out.splitlines()
    assert status(store, job_id) == "failed"


def test_a_detached_run_returns_with_the_id_and_another_process_runs_the_job(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "hello_world", "n=2", "--detach", "--store", store, "--workers", "0"]) == 0
    said = capsys.readouterr()
    (job_id,) = said.out.splitlines()
    pid = int(said.err.removeprefix("geoflow: process ").split()[0])
    assert f"geoflow watch {job_id[:8]} shows it" in said.err
    wait_until(lambda: status(store, job_id) == "completed")
    wait_until(lambda: not is_running(pid))


def test_what_keeps_a_detached_run_from_being_submitted_is_said_here(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "hello_world", "n=many", "--detach", "--store", store, "--workers", "0"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "hello_world refuses these parameters" in said.err
    assert not Path(store).exists()
