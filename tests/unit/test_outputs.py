"""S52: `gf.output` and `gf.scratch` where no task runs, what they refuse, and what may be removed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import geoflow as gf
from geoflow.executors.leftovers import clear, clear_left
from geoflow.support.identity import label


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    return tmp_path / "temp"


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path / "out"


def test_S52_outside_of_a_task_the_end_of_the_block_counts(out: Path, temp: Path) -> None:
    with gf.output("a.tif") as path:
        path.write_text("new")
        assert path.name == "a.tif"
        assert not Path("a.tif").exists()
    assert Path("a.tif").read_text() == "new"
    assert os.listdir(out) == ["a.tif"]
    assert os.listdir(temp) == []


def test_S52_a_block_that_raises_changes_nothing_and_the_file_may_be_asked_for_again(out: Path, temp: Path) -> None:
    Path("a.tif").write_text("old")
    with pytest.raises(IsADirectoryError), gf.output("a.tif") as path:
        path.with_name("b.tif").write_text("half") and path.parent.write_text("not to be written")
    assert (os.listdir(out), Path("a.tif").read_text(), os.listdir(temp)) == (["a.tif"], "old", [])
    with gf.output("a.tif") as path:
        path.write_text("new")
    assert Path("a.tif").read_text() == "new"


def test_S52_an_output_takes_the_place_of_what_a_link_leads_to(out: Path) -> None:
    Path("real").mkdir()
    os.symlink("real/a.tif", "link.tif")
    with gf.output("link.tif") as path:
        path.write_text("new")
    assert Path("link.tif").is_symlink()
    assert Path("real/a.tif").read_text() == "new"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("folder", "that is a folder. Give the path of a file in it."),
        ("", "that is a folder"),
        ("/", "that is a folder"),
        ("missing/", "that is a folder"),
        ("missing/a.tif", "there is no folder {out}/missing. Make it before"),
        ("file/a.tif", "there is no folder {out}/file"),
        ("/dev/null", "that is no file, and cannot be replaced by one."),
    ],
)
def test_S52_a_path_at_which_no_file_can_be_is_refused_before_anything_is_written(
    out: Path, path: str, why: str
) -> None:
    Path("folder").mkdir()
    Path("file").touch()
    with pytest.raises(ValueError, match=r"^gf\.output") as caught, gf.output(path):
        raise AssertionError("the block is not begun")
    assert f"gf.output({path!r}): {why.format(out=out)}" in str(caught.value)
    assert sorted(os.listdir(out)) == ["file", "folder"]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "nothing was written to the path that it gave"),
        (lambda path: path.with_name("b.tif").touch(), "nothing was written to the path that it gave, but b.tif"),
        (lambda path: path.mkdir(), "takes files only: a.tif, which was made there, is a folder"),
        (lambda path: path.symlink_to("/etc/hosts"), "takes files only: a.tif, which was made there, is no file"),
    ],
)
def test_S52_what_is_no_file_in_the_end_is_refused_by_name(out: Path, make: object, why: str) -> None:
    with pytest.raises(ValueError, match=r"^gf\.output") as caught, gf.output("a.tif") as path:
        make(path)  # type: ignore[operator]
    assert why in str(caught.value)
    assert os.listdir(out) == []


def test_S52_a_scratch_folder_outside_of_a_task_lasts_as_long_as_the_interpreter(temp: Path) -> None:
    code = "import geoflow as gf; path = gf.scratch(); (path / 'x').touch(); print(path)"
    environment = {**os.environ, "TMPDIR": str(temp)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert Path(done.stdout.strip()).parent.parent == temp
    assert os.listdir(temp) == []


def test_S43_a_link_leads_to_nothing_that_is_removed_unless_its_name_proves_whose_it_is(out: Path, temp: Path) -> None:
    system = label().split("-")[1]
    home = temp / f"geoflow-{system}-999999999-1-abcd"
    home.mkdir()
    for name in ("mine", f".{home.name}-0", f".{home.name}-7"):
        (out / name).mkdir()
        (out / name / "file").touch()
    os.symlink(out / f".{home.name}-0", home / "0")
    os.symlink(out / "mine", home / "1")
    os.symlink(out / f".{home.name}-7", home / "2")
    os.symlink(out / "gone" / f".{home.name}-3", home / "3")
    clear_left(temp)
    assert sorted(os.listdir(out)) == sorted([f".{home.name}-7", "mine"])
    assert os.listdir(temp) == []


def test_S52_what_cannot_be_removed_stays_written_down(out: Path, temp: Path) -> None:
    home = temp / "geoflow-home"
    home.mkdir()
    (home / "scratch").mkdir()
    (out / f".{home.name}-0").touch()  # stands for a folder that the system does not let go of
    os.symlink(out / f".{home.name}-0", home / "0")
    assert not clear(home)
    (out / f".{home.name}-0").unlink()
    assert clear(home)
    assert os.listdir(temp) == []
