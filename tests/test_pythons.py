"""What differs between Pythons and sets of packages, seen from fresh processes, which are what matters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def script(folder: Path, text: str, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run *text* as a user's script in *folder*, and let it end by itself."""
    (folder / "work.py").write_text(text)
    return subprocess.run(
        [sys.executable, *options, "work.py"],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


EVERYTHING = """
import geoflow as gf

with gf.open({store!r}, workers={workers}, display="none") as session:
    job = session.run("hello_world", n=70)
    for seen in (session.jobs(), job.tasks(), job.attempts(), job.stages(), job.logs(), job.errors()):
        str(seen)
    str(session.sql("SELECT count(*) FROM tasks")), repr(job), job._repr_html_()
    print(job.status)
"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("store", ["work.db", "work.duckdb"])
def test_a_job_runs_and_is_read_where_every_warning_is_an_error(tmp_path: Path, store: str, workers: int) -> None:
    done = script(tmp_path, EVERYTHING.format(store=store, workers=workers), "-W", "error")
    assert (done.stdout, done.returncode) == ("completed\n", 0), done.stderr
