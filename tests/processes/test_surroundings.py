"""Where geoflow finds itself: no standard streams, an embedded Python, a process of multiprocessing, a long TMPDIR."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from geoflow.errors import ParameterError
from geoflow.executors import spawning
from tests.helpers.sessions import OpenSession

SCRIPT = """
    import multiprocessing, sys
    import geoflow as gf

    flow = gf.JobType("flow", description="x")
    FACTOR = 3

    @flow.stage
    def tiles(p: dict) -> list[int]:
        return [1, 2]

    @flow.each(tiles)
    def measure(t: int) -> int:
        return t * FACTOR

    @flow.reduce(measure)
    def total(x: list[int]) -> dict:
        return {"sum": sum(x)}

    def go(store):
        try:
            with gf.open(store, workers=1, display="none") as session:
                print(session.run(flow, {}).result()["sum"], flush=True)
        except gf.errors.ParameterError as exc:
            print(str(exc), flush=True)

    if __name__ == "__main__":
        go("main.db")
        process = multiprocessing.get_context(sys.argv[1]).Process(
            target=go, args=("child.db",), daemon=sys.argv[2:] == ["daemon"]
        )
        process.start()
        process.join(40)
"""


def _script(folder: Path, *arguments: str) -> list[str]:
    (folder / "driver.py").write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "driver.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_process_that_multiprocessing_started_drives_jobs_of_its_script(tmp_path: Path, method: str) -> None:
    assert _script(tmp_path, method) == ["9", "9"]


def test_a_daemon_of_multiprocessing_is_told_that_it_may_start_no_processes(tmp_path: Path) -> None:
    first, told = _script(tmp_path, "spawn", "daemon")
    assert first == "9"
    assert "as a daemon" in told
    assert "workers=0, or a pool of your own as executor=" in told


def test_where_python_is_embedded_the_program_of_the_others_is_not_started(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = multiprocessing.spawn.get_executable()
    other = tmp_path / "qgis"
    other.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    other.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(other))
    try:
        session = open_session(workers=1)
        assert session.run("acts", tasks=[{}]).status == "completed", "multiprocessing knows the right one"
        multiprocessing.set_executable(str(other))
        another = open_session("another.db", workers=1)
        with pytest.raises(ParameterError, match=r"multiprocessing\.set_executable\('/path/to/python'\)"):
            another.run("acts", tasks=[{}])
        assert another.store.jobs() == [], "and nothing was stored"
        multiprocessing.set_executable("")
        with pytest.raises(ParameterError, match="workers=0"):
            another.run("acts", tasks=[{}])
        assert open_session("inline.db", workers=0).run("acts", tasks=[{}]).status == "completed"
    finally:
        multiprocessing.set_executable(os.fsdecode(before))
    assert not (tmp_path / "started").exists()


def test_workers_start_where_the_temporary_folder_has_a_long_path(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:
        long = Path(short, *["x" * 50] * 3)
        long.mkdir(parents=True)
        code = "import geoflow as gf\nwith gf.open('w.db', workers=1) as s: print(s.run('hello_world', n=1).status)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(long)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout == "completed\n", done.stderr


def test_a_temporary_folder_with_a_long_path_is_named_where_there_is_no_shorter_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none(**options: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(spawning, "MAX_SOCKET_FOLDER", 1)
    monkeypatch.setattr(tempfile, "mkdtemp", none)
    with pytest.raises(OSError, match="Set TMPDIR to a folder with a shorter path"):
        spawning._have_room_for_sockets()


class _Console:
    """As a program's own: no isatty, no fileno."""

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("display", ["auto", "text"])
@pytest.mark.parametrize("stream", [None, _Console()], ids=["none", "a console"])
def test_a_program_without_usable_standard_streams_runs_jobs(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch, stream: object, display: str, workers: int
) -> None:
    session = open_session(workers=workers)
    session.runtime.settings = session.settings.model_copy(update={"display": display})
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        patched.setattr(sys, "stdout", stream)
        job = session.run("acts", tasks=[{"do": "say", "value": "hello"}])
        again = session.run("acts", tasks=[{"do": "say", "value": "hello"}])
    assert job.status == again.status == "completed"


@pytest.mark.parametrize(("closed", "code"), [("2>&-", 0), (">&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 141)])
def test_the_command_does_its_work_where_the_shell_has_closed_its_streams(
    tmp_path: Path, closed: str, code: int
) -> None:
    command = f"{sys.executable} -m geoflow run hello_world n=1 {closed}"
    assert (
        subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode
        == code
    )
    look = [sys.executable, "-m", "geoflow", "jobs"]
    told = subprocess.run(look, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False).stdout
    assert "completed" in told
