"""What killed sessions leave: who may say so, what of it is removed, and what stays."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import geoflow as gf
from geoflow.executors.leftovers import is_left, ran_at_death, returned_at_death, seal, sign, sweep, with_earlier
from geoflow.executors.marker import MarkFile
from geoflow.support.identity import label
from tests.helpers.waiting import wait_until

JOB, STORE = "a" * 64, "(1, 2)"
GONE = """
import pathlib, sys, tempfile
from geoflow.executors.marker import MarkFile
from geoflow.executors.leftovers import sign
from geoflow.support.identity import label
folder = pathlib.Path(tempfile.mkdtemp(prefix=label()))
if sys.argv[1] == "not yet signed":
    (folder / "listener-abcdefgh").touch()
else:
    sign(folder)
mark = MarkFile(folder / "slot-0-0.mark")
if sys.argv[1] == "ran":
    mark.running(1, 0, 7)
if sys.argv[1] == "returned":
    from geoflow.core.batch import Batch
    from geoflow.core.chunks import Chunk
    from geoflow.core.retry import RetryPolicy
    from geoflow.executors.spool import Spool
    from geoflow.usercode.packing import Code
    batch = Batch("act", 1, 0, 0, 7, range(7, 8), "[]", "[]")
    chunk = Chunk(5, "tasks", "a" * 64, "acts", 1, Code("act", None, b""), batch, RetryPolicy(), epoch=1)
    Spool(folder / "slot-0-0", lambda: 0).begin(chunk, "c", 1.0, 0.5).write(b'{"success":true}\\0')
print(folder, flush=True)
import os
os._exit(9)
"""


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def left_by_the_dead(how: str = "ran") -> Path:
    done = subprocess.run([sys.executable, "-c", GONE, how], stdout=subprocess.PIPE, text=True, check=False)
    return Path(done.stdout.strip())


def told(folder: Path, **other: object) -> str:
    return json.dumps({"folder": str(folder), "seal": seal(str(folder), STORE, JOB), "pid": 1, **other})


def test_S36_the_dead_ones_folder_tells_what_ran_and_goes_with_the_next_session(temp: Path) -> None:
    folder = left_by_the_dead()
    assert is_left(folder)
    sweep(temp)
    assert folder.exists(), "nobody has asked it yet what ran"
    assert ran_at_death(told(folder), STORE, JOB, 1_000) == {7: None}
    assert ran_at_death(told(folder), STORE, JOB, 1_000) == {7: None}, "nor is the second job of that session told less"
    sweep(temp)
    assert sorted(path.name for path in temp.iterdir()) == []


def test_S47_what_had_returned_is_kept_until_a_resume_has_taken_it_in_or_its_driver_had_written_it(temp: Path) -> None:
    folder = left_by_the_dead("returned")
    (folder / "seen").touch()
    sweep(temp)
    (kept,) = returned_at_death(told(folder), STORE, JOB).values()
    assert [(attempt.key, attempt.result) for attempt in kept.attempts] == [(7, '{"success":true}')]
    assert returned_at_death(told(folder), STORE, "b" * 64) == {}, "another job's"
    MarkFile(folder / "slot-0-0.mark").written(5)
    assert returned_at_death(told(folder), STORE, JOB) == {}
    sweep(temp)
    assert not folder.exists()


def test_S47_an_owner_names_those_before_it_of_which_each_proves_itself(temp: Path) -> None:
    first, second = left_by_the_dead("returned"), left_by_the_dead("returned")
    row: str | None = None
    for folder in (first, first, second, temp):
        row = json.dumps(with_earlier(json.loads(told(folder)), row))
    row = json.dumps(with_earlier({"pid": 1, "folder": None, "seal": None}, row))  # of one without workers
    assert ran_at_death(row, STORE, JOB, 1_000) is None
    assert sorted(path.parent for path in returned_at_death(row or "", STORE, JOB)) == sorted([first, second])
    for _ in range(9):
        row = json.dumps(with_earlier(json.loads(told(Path(tempfile.mkdtemp()))), row))
    assert len(json.loads(row or "")["earlier"]) == 4
    forged = json.loads(told(temp)) | {"earlier": [{"folder": str(first), "seal": "0" * 64}, {"folder": 5}, 7]}
    assert returned_at_death(json.dumps(forged), STORE, JOB) == {}
    assert with_earlier({"pid": 1}, "[" * 100_000) == with_earlier({"pid": 1}, '{"earlier": 5}') == {"pid": 1}


def test_what_a_kill_during_a_plan_a_finalize_or_a_start_leaves_goes_with_the_next_session(temp: Path) -> None:
    folder = left_by_the_dead("nothing")
    with gf.open(":memory:", workers=1, display="none") as session:
        session.run("hello_world", n=1)
    assert not folder.exists()
    assert [path for path in temp.iterdir() if is_left(path)] == []


def test_S36_what_a_kernel_that_lives_has_in_the_temporary_folder_is_left_to_it(temp: Path) -> None:
    """It may have given a job up when its store failed, and still have workers there."""
    folder = Path(tempfile.mkdtemp(prefix=label()))
    sign(folder)
    MarkFile(folder / "slot-0-0.mark").running(1, 0, 7)
    assert ran_at_death(told(folder, pid=999_999_999), STORE, JOB, 1_000) == {}
    sweep(temp)
    assert folder.exists()


def test_a_process_of_the_same_number_is_not_taken_for_the_one_that_is_gone(temp: Path) -> None:
    folder = left_by_the_dead()
    owner = json.loads((folder / "owner").read_text())
    (folder / "owner").write_text(json.dumps({**owner, "pid": os.getpid()}))
    assert is_left(folder)


@pytest.mark.parametrize(
    "say",
    [
        lambda folder: told(folder, seal=None),
        lambda folder: told(folder, seal="0" * 64),
        lambda folder: json.dumps({"pid": 4194303, "host": socket.gethostname(), "folder": str(folder)}),
        lambda folder: told(folder, seal=seal(str(folder), "(1, 3)", JOB)),
        lambda folder: told(folder, seal=seal(str(folder), STORE, "b" * 64)),
        lambda _: "{",
        lambda _: "[]",
        lambda _: "[" * 100_000,
        lambda _: json.dumps({"folder": 5, "seal": "x"}),
        lambda _: json.dumps({"folder": "\0", "seal": "x"}),
        lambda _: json.dumps({"folder": "/" + "x" * 5000, "seal": "x"}),
    ],
)
def test_S43_what_a_row_says_of_a_folder_counts_only_with_the_folders_own_seal(temp: Path, say: object) -> None:
    folder = left_by_the_dead()
    assert callable(say)
    assert ran_at_death(say(folder), STORE, JOB, 1_000) is None
    sweep(temp)
    assert folder.exists()


@pytest.mark.parametrize("what", ["none", "link", "no json", "list", "huge", "folder is a link", "another machine's"])
def test_S43_a_folder_that_does_not_prove_itself_is_never_removed(temp: Path, what: str) -> None:
    folder = temp / "geoflow-results"
    folder.mkdir()
    precious = folder / "precious.tif"
    precious.write_text("x")
    dead = left_by_the_dead("nothing")
    proof, owner = (dead / "owner").read_text(), folder / "owner"
    if what == "link":
        owner.symlink_to(dead / "owner")
    elif what == "folder is a link":
        (elsewhere := temp / "elsewhere").mkdir()
        (elsewhere / "owner").write_text(proof)
        precious.unlink()
        folder.rmdir()
        precious = elsewhere / "precious.tif"
        precious.write_text("x")
        folder.symlink_to(elsewhere)
    elif what != "none":
        known = json.loads(proof)
        huge = json.dumps({**known, "x": "x" * 20_000})
        foreign = json.dumps({**known, "host": "another"})
        owner.write_text({"no json": "{", "list": "[]", "huge": huge, "another machine's": foreign}[what])
    sweep(temp)
    assert precious.exists()
    assert not dead.exists()


def test_a_folder_whose_maker_was_killed_before_it_had_signed_goes_by_its_name(temp: Path) -> None:
    """Multiprocessing's sockets are in one as well, which nobody signs."""
    folder = left_by_the_dead("not yet signed")
    living = Path(tempfile.mkdtemp(prefix=label()))
    elsewhere = temp / folder.name.replace(folder.name.split("-")[1], "00000000")
    elsewhere.mkdir()
    precious = temp / "elsewhere"
    precious.mkdir()
    (link := temp / f"{folder.name}x").symlink_to(precious)
    sweep(temp)
    assert {path.name for path in temp.iterdir()} == {living.name, elsewhere.name, precious.name, link.name}


def test_the_fork_servers_sockets_are_in_a_folder_that_says_whose_it_is() -> None:
    code = """if True:
        import os, geoflow as gf
        session = gf.open(":memory:", workers=1, display="none")
        session.run("hello_world", n=1)
        os._exit(9)
    """
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # in a long path there would be no sockets
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": short}, check=False)
        left = list(Path(short).iterdir())
        assert len(left) == 3, "the session's folder, its log's, and the sockets'"
        wait_until(lambda: all(map(is_left, left)))  # the reaper still ends the workers
        sweep(Path(short))
        assert list(Path(short).iterdir()) == []
