"""A job in a notebook of marimo, run by marimo itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("marimo", reason="needs marimo")

NOTEBOOK = """\
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo
    import geoflow as gf
    import json, pathlib, threading

    shown, replace = [], mo.output.replace
    def recorded(value):
        shown.append(value.text)
        replace(value)
    mo.output.replace = recorded

    tiles = gf.JobType("tiles")

    @tiles.stage
    def scan(p: dict) -> list[int]:
        return [0, 1]

    @tiles.each(scan)
    def read(tile: int) -> int:
        import pathlib, time
        while tile and not pathlib.Path("go").exists():  # until it was drawn at work
            time.sleep(0.01)
        return tile

    def is_drawn_at_work():
        while not any("1/2" in text for text in shown):
            threading.Event().wait(0.01)
        pathlib.Path("go").touch()

    threading.Thread(target=is_drawn_at_work, daemon=True).start()
    with gf.open("work.db", workers=1) as session:
        job = session.run(tiles)
    pathlib.Path("shown.json").write_text(json.dumps(shown))
    job
    return


if __name__ == "__main__":
    app.run()
"""


def test_a_job_moves_while_its_cell_runs_and_its_card_stays(tmp_path: Path) -> None:
    (tmp_path / "tiles.py").write_text(NOTEBOOK)
    command = [sys.executable, "-m", "marimo", "export", "html", "tiles.py", "-o", "tiles.html"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120)
    assert (tmp_path / "shown.json").exists(), done.stderr
    shown = json.loads((tmp_path / "shown.json").read_text())
    assert len(shown) > 2
    assert "1/2" in "".join(shown[:-1])
    assert "completed" in shown[-1]
    assert "Job tiles" in (tmp_path / "tiles.html").read_text()
