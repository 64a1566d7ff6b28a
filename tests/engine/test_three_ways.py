"""One job of three stages in several ways: the same result, in more or fewer lines."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.sessions import OpenSession

ROOT = Path(__file__).parents[2]
WAYS = ROOT / "examples" / "three_ways"


def module(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module in *path*, by its name, for this test alone."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, made)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(WAYS))
    module(WAYS / "tiles.py", monkeypatch).write_some(tmp_path / "tiles", 12)
    return tmp_path / "tiles"


def test_the_typed_job_and_the_one_by_hand_give_equal_results(
    folder: Path, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session()
    typed = module(WAYS / "typed.py", monkeypatch).tile_stats.run(folder=folder, session=session)
    session.register(module(WAYS / "contract.py", monkeypatch))
    by_hand = session.run("tiles_by_hand", folder=str(folder))
    assert typed.result() == by_hand.result()
    assert (typed.result()["tiles"], typed.result()["cells"]) == (12, 11 * 48)
    assert [name.partition("-")[2] for name in typed.tasks()["task_id"]][:3] == ["scan", "stat-tile_00", "stat-tile_01"]
    assert by_hand.tasks()["result"].tolist()[1:] == typed.tasks()["result"].tolist()[1:]


@pytest.mark.parametrize("peer", ["joblib", "pipefunc"])
def test_a_peer_that_is_installed_gives_the_same_result(
    peer: str, folder: Path, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(peer)
    job = module(WAYS / "typed.py", monkeypatch).tile_stats.run(folder=folder, session=open_session(workers=0))
    command = [sys.executable, str(WAYS / f"with_{peer}.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    assert json.loads(done.stdout) == job.result()


def test_lines_of_code_are_counted_without_imports_docstrings_comments_and_the_main_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = module(ROOT / "tools" / "count_lines.py", monkeypatch).code_lines
    source = (
        '"""Doc."""\n\nimport os\n\n\ndef f(x):  # why\n    """Doc\n    string."""\n    return [\n        x,\n    ]\n'
    )
    assert count(source) == 4
    assert count(source + 'if __name__ == "__main__":\n    f(1)\n') == 4
    typed, by_hand = (count((WAYS / f"{way}.py").read_text()) for way in ("typed", "contract"))
    assert typed * 2 < by_hand
