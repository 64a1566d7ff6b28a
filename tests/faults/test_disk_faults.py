"""Disks and files that fail: what was committed is safe, what cannot be written is said, and work can go on."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import geoflow as gf
from geoflow.core.batch import NewTasks
from geoflow.core.models import Attempt
from geoflow.core.rows import Move, NewJob
from geoflow.engine.tasks import TaskNotFound
from geoflow.errors import JobNotFound, StoreError
from geoflow.stores.sqlite import SqliteStore
from tests.faults.driving import SECONDS, Start, check_aftermath, check_store
from tests.helpers.sessions import OpenSession, Trace, rows
from tests.helpers.waiting import wait_until

ONE_OF_60 = {"do": "sleep", "value": 0.02}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of eight megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a disk of one's own takes root's rights")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return filler


def half_way(session: gf.Session, trace: Trace, **more: Any) -> gf.JobHandle:
    """A job of sixty tasks, ten of which have run."""
    job = session.submit("acts", tasks=[{**ONE_OF_60, **more, "trace": trace.path}] * 60)
    wait_until(lambda: len(trace.lines()) > 10)
    return job


def executions(trace: Trace) -> Counter[str]:
    return Counter(line.split()[0] for line in trace.lines())


# Full


def test_F082_a_disk_that_fills_up_under_a_job_stops_it_and_it_goes_on_when_there_is_room(
    open_session: OpenSession, small_disk: Path, trace: Trace
) -> None:
    session = open_session(small_disk / "work.db", max_retries=1, base_delay=0.01)
    job = half_way(session, trace)
    filler = fill(small_disk)
    with pytest.raises(StoreError, match=r"disk of .*work\.db is full\. What was committed is safe; free some space"):
        job.wait(timeout=SECONDS)
    assert job.interrupted
    done = {name for (name,) in rows(session, "SELECT task_id FROM tasks WHERE status = 'completed'")}
    ran = executions(trace)
    with pytest.raises(StoreError, match="is full"):
        job.resume()
    filler.unlink()
    assert job.resume().wait(timeout=SECONDS).status == "completed"
    assert {name: executions(trace)[name] for name in done} == {name: ran[name] for name in done}
    assert rows(session, "SELECT max(retries) FROM tasks") == [(0,)]
    check_aftermath(session)


def test_F082_results_that_outgrow_the_disk_stop_their_job_and_lose_nothing_that_was_committed(
    open_session: OpenSession, small_disk: Path, trace: Trace
) -> None:
    session = open_session(small_disk / "work.db", max_retries=1, base_delay=0.01)
    job = session.submit("acts", tasks=[{"do": "return much", "value": 1, "trace": trace.path}] * 10)
    with pytest.raises(StoreError, match="is full"):
        job.wait(timeout=SECONDS)
    done = {name for (name,) in rows(session, "SELECT task_id FROM tasks WHERE status = 'completed'")}
    ran = executions(trace)
    assert 0 < len(done) < 10
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    assert job.resume().wait(timeout=SECONDS).status == "completed"
    assert {name: executions(trace)[name] for name in done} == {name: ran[name] for name in done}
    check_aftermath(session)


def test_F082_a_new_store_on_a_full_disk_is_refused_and_made_once_there_is_room(
    open_session: OpenSession, small_disk: Path
) -> None:
    filler = fill(small_disk)
    session = open_session(small_disk / "work.db")
    with pytest.raises(StoreError, match=r"work\.db"):
        session.submit("acts", tasks=[{}])
    filler.unlink()
    assert session.run("acts", tasks=[{}]).status == "completed"
    check_aftermath(session)


def test_F083_a_full_disk_for_logs_stops_no_job(open_session: OpenSession, small_disk: Path, store: Path) -> None:
    session = open_session(store, log_file=small_disk / "log", max_retries=1, base_delay=0.01)
    session.run("acts", tasks=[{}])
    fill(small_disk)
    job = session.run("acts", tasks=[{"do": "say", "value": "hello"}, {"do": "raise", "value": "ValueError"}, {}])
    assert rows(session, "SELECT status FROM tasks WHERE job_id = ? ORDER BY task_id", job.id) == [
        ("completed",),
        ("failed",),
        ("completed",),
    ]
    check_aftermath(session)


@pytest.mark.parametrize("when", ["from the start", "in between"])
def test_F083_a_full_disk_for_temporary_files_fails_jobs_with_a_reason_and_hangs_none(
    start: Start, open_session: OpenSession, small_disk: Path, when: str
) -> None:
    code = """
import tempfile
tempfile.tempdir = sys.argv[2]
if sys.argv[3] == "in between":
    session.run("acts", tasks=[{}] * 4)
with open(os.path.join(sys.argv[2], "filler"), "wb", buffering=0) as file:
    try:
        while file.write(b"x" * 4096):
            pass
    except OSError:
        pass
say("full")
tasks = [{"do": "say", "value": "x" * 100_000}, {}, {"do": "signal", "value": "SIGKILL", "until_attempt": 2}, {}]
try:
    job = session.submit("acts", tasks=tasks)
    job.wait(timeout=30)
    say(job.status, job.error)
except OSError as exc:
    say("refused", exc)
os.unlink(os.path.join(sys.argv[2], "filler"))
session.close()
say(session.run("acts", tasks=[{"do": "say", "value": "y"}]).status)
"""
    kernel = start(code, small_disk, when)
    assert kernel.hears() == "full"
    said = kernel.hears()
    assert said.startswith(("completed", "failed", "refused"))
    assert said.startswith("completed") or "No space left" in said or "cannot start" in said
    assert kernel.hears() == "completed"
    kernel.ends()


# Not to be written


def test_F087_a_store_on_a_read_only_disk_is_refused_in_one_sentence(start: Start, small_disk: Path) -> None:
    store = SqliteStore(small_disk / "work.db")
    store.create(NewJob("a" * 64, "acts", "[]", "{}", 0.0))
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code = """
for name in ("work.db", "new.db"):
    try:
        other = gf.open(os.path.join(sys.argv[2], name), workers=0, display="none", log_file=sys.argv[1] + ".log")
        other.run("hello_world", n=1)
    except gf.errors.StoreError as exc:
        say(exc)
"""
    kernel = start(code, small_disk)
    for name in ("work.db", "new.db"):
        said = kernel.hears()
        assert str(small_disk / name) in said
        assert "cannot be" in said
        assert "permissions" in said
    kernel.ends()


# Gone, or another's


@pytest.mark.parametrize("what", ["deleted", "moved", "replaced", "folder moved"])
def test_F091_a_store_that_is_taken_away_under_a_job_is_missed_and_nothing_is_written_to_its_ghost(
    open_session: OpenSession, tmp_path: Path, trace: Trace, what: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path, another = folder / "work.db", folder / "another.db"
    with gf.open(another, workers=0, display="none", log_file=tmp_path / "log") as other:
        other.run("hello_world", n=1)
    session = open_session(path, log_file=tmp_path / "log", max_retries=1, base_delay=0.01)
    job = half_way(session, trace)
    if what == "folder moved":
        folder.rename(tmp_path / "elsewhere")
    elif what == "moved":
        path.rename(tmp_path / "elsewhere.db")
    else:
        for file in folder.glob("work.db*"):
            file.unlink()
    if what == "replaced":
        another.rename(path)
    with pytest.raises(StoreError, match=r"work\.db was deleted, moved or replaced while this session had it open"):
        job.wait(timeout=SECONDS)
    for look in (lambda: job.status, session.resume, lambda: session.submit("acts", tasks=[{}])):
        with pytest.raises(StoreError, match="deleted, moved or replaced"):
            look()
    session.close()
    ran = len(trace.lines())
    if what == "folder moved":
        (tmp_path / "elsewhere").rename(folder)
    elif what == "moved":
        (tmp_path / "elsewhere.db").rename(path)
    again = open_session(path, log_file=tmp_path / "log", max_retries=1, base_delay=0.01)
    if what in ("deleted", "replaced"):
        assert len(again.store.jobs()) == (what == "replaced")
    else:
        assert again.job(job.id).resume().wait(timeout=SECONDS).status == "completed"
    assert len(trace.lines()) >= ran
    check_aftermath(again)


@pytest.mark.parametrize("back", ["moved back", "copied back"])
def test_F091_a_store_that_is_put_back_goes_on_in_the_same_kernel(
    open_session: OpenSession, store: Path, tmp_path: Path, trace: Trace, back: str
) -> None:
    session = open_session(max_retries=1, base_delay=0.01)
    job = half_way(session, trace)
    (away := tmp_path / "away").mkdir()
    for file in store.parent.glob("work.db*"):
        file.rename(away / file.name)
    with pytest.raises(StoreError, match="put the file back, or close the session"):
        job.wait(timeout=SECONDS)
    if back == "copied back":
        session.close()
    for file in away.iterdir():
        (shutil.move if back == "moved back" else shutil.copy)(file, store.parent / file.name)
    assert job.resume().wait(timeout=SECONDS).status == "completed"
    check_aftermath(session)


# Damaged


@pytest.mark.parametrize("what", ["pages", "header", "cut off", "log", "log cut off"])
def test_F089_a_store_damaged_under_a_job_ends_it_or_is_called_damaged_and_never_hangs(
    open_session: OpenSession, store: Path, trace: Trace, what: str
) -> None:
    session = open_session(max_retries=1, base_delay=0.01)
    session.run("acts", tasks=[{"do": "return", "value": {"success": True, "result": {"text": "x" * 200}}}] * 300)
    job = half_way(session, trace)
    path = store.with_name("work.db-wal") if "log" in what else store
    with path.open("r+b") as file:
        if "cut off" in what:
            file.truncate(path.stat().st_size // 2)
        else:
            file.seek({"pages": 4096, "log": 32, "header": 0}[what])
            file.write(os.urandom(100 if what == "header" else path.stat().st_size - file.tell()))
    ends = [complaint(act) for act in (job.wait, lambda: session.run("acts", tasks=[{}]), session.close)]
    assert all("work.db" in end for end in ends if end is not None)
    again = open_session(max_retries=1, base_delay=0.01)
    damage = complaint(lambda: finish(again))
    if damage is None:
        assert ends == [None] * 3
        assert again.job(job.id).status == "completed"
    else:
        assert "is damaged" in damage
        assert "Keep a copy, and start with another store" in damage


def complaint(act: Callable[[], object]) -> str | None:
    """The store's complaint about what was to be done; nothing else may be raised."""
    try:
        act()
    except StoreError as exc:
        return str(exc)
    return None


def finish(session: gf.Session) -> None:
    for job in session.resume():
        job.wait(timeout=SECONDS)
    check_store(session)


@pytest.mark.parametrize(
    ("name", "number", "least"),
    # All places hit what something is kept in; of SQLite's rest some hit what is told by numbers alone.
    [("work.db", 40, 26), ("work.duckdb", 4, 0)],
)
def test_F089_of_a_store_with_flipped_bytes_each_answer_is_the_right_one_or_says_that_it_is_damaged(
    tmp_path: Path, name: str, number: int, least: int
) -> None:
    path = tmp_path / name
    with gf.open(path, workers=0, display="none") as session:
        job_id = (job := session.run("hello_world", n=30)).id
        task_id = job.tasks()["task_id"].tolist()[40]
    whole = path.read_bytes()
    right, said = answers(path, job_id, task_id), Counter[str]()
    assert not any(map(is_complaint, right.values()))
    places = list(in_use(whole) if name == "work.db" else filled(whole))
    for place in places[len(places) // (2 * number) :: len(places) // number]:
        path.write_bytes(whole[:place] + bytes(byte ^ 0xFF for byte in whole[place : place + 64]) + whole[place + 64 :])
        found = answers(path, job_id, task_id)
        wrong = {what: answer for what, answer in found.items() if answer != right[what] and not is_complaint(answer)}
        assert not wrong, place
        said.update(what for what, answer in found.items() if is_complaint(answer))
        said["any"] += any(map(is_complaint, found.values()))
    assert said["any"] > least
    assert name == "work.duckdb" or min(said[what] for what in right if what != "close") > 0, said


def test_F089_neither_a_stage_nor_finalize_is_given_less_than_the_tasks_that_have_completed(tmp_path: Path) -> None:
    with gf.open(tmp_path / "work.db", workers=0, display="none") as session:
        job = session.run("hello_world", n=3)
        with session.store._transaction() as connection:
            connection.execute("DELETE FROM attempt WHERE attempt_key = (SELECT min(attempt_key) FROM attempt)")
        for again in (job.refinalize, lambda: job.rerun(stage=2)):
            with pytest.raises(
                StoreError, match=r"work.db is damaged, .*: what came of 1 task of stage 1 cannot be found"
            ):
                again().wait()
        assert job.status == "processing"
        with pytest.raises(StoreError, match="attempts of this job are missing"):
            job.tasks()


def in_use(database: bytes) -> Iterator[int]:
    """Each 64th place in a SQLite file where its pages have cells: no free room, which nobody reads."""
    size = int.from_bytes(database[16:18], "big")
    for page in range(0, len(database), size):
        header = page + (100 if page == 0 else 0)
        first = int.from_bytes(database[header + 5 : header + 7], "big")
        yield from range(page + first, page + size, 64)


def filled(database: bytes) -> Iterator[int]:
    """Each 64th place in a DuckDB file where it is not empty, behind what says that it is one."""
    return (place for place in range(4096, len(database) - 64, 64) if any(database[place : place + 64]))


def answers(path: Path, job_id: str, task_id: str) -> dict[str, object]:
    """What is told of the job, numbers and times aside, which no check can tell from others; or the complaint."""
    session = gf.open(path, workers=0, display="none")

    def job() -> gf.JobHandle:
        return session.job(job_id)

    def told(frame: pd.DataFrame, names: str) -> object:
        return frame[names.split()].to_numpy().tolist()

    def of_all_jobs() -> object:
        frame = session.jobs()
        return told(frame[frame["job_id"] == job().id], "job_type status error tasks completed parameters result")

    asked: dict[str, Callable[[], object]] = {
        "jobs": of_all_jobs,
        "history": lambda: told(job().history(), "event was status session host"),
        "stages": lambda: told(job().stages(), "stage_name task_type tasks completed"),
        "tasks": lambda: told(job().tasks(), "task_id stage_name status parameters result error code"),
        "a task": lambda: (job().task(task_id).result, job().task(task_id).error),
        "attempts": lambda: told(job().attempts(), "task_id stage_name outcome output error code"),
        "another job": lambda: told(session.run("hello_world", n=2).tasks(), "status result"),
        "close": session.close,
    }
    found = {what: complaint_or(ask) for what, ask in asked.items()}
    for file in [*path.parent.glob("work.db-*"), *path.parent.glob("work.duckdb.*")]:
        file.unlink()
    return found


def complaint_or(ask: Callable[[], object]) -> object:
    try:
        return repr(ask())
    except (StoreError, JobNotFound, TaskNotFound) as exc:
        return exc


def is_complaint(answer: object) -> bool:
    return "is damaged" in str(answer) or isinstance(answer, JobNotFound | TaskNotFound)


def test_F090_a_damaged_index_of_the_log_is_made_anew(open_session: OpenSession, start: Start, store: Path) -> None:
    kernel = start("session.run('acts', tasks=[{}] * 50); say('done'); hear()")
    assert kernel.hears() == "done"
    kernel.kill()  # so that the log is left
    index = store.with_name("work.db-shm")
    index.write_bytes(os.urandom(index.stat().st_size))
    session = open_session()
    assert rows(session, "SELECT status, completed FROM jobs") == [("completed", 50)]
    check_aftermath(session)


def test_F015_a_log_cut_off_at_any_place_gives_the_commits_up_to_there(tmp_path: Path) -> None:
    """As a power cut may leave it: each is a store that opens, is whole, and has a beginning of what was written."""
    store = SqliteStore(tmp_path / "work.db")
    row, _ = store.create(NewJob("a" * 64, "acts", '[{"number":1,"name":"act","task_type":"act"}]', "{}", 0.0))
    lease = store.claim(row.job_key, '{"pid": 1}')
    store.change_job(lease, "start", now=1.0)
    stage = store.plan(lease, 1, NewTasks.of(*((f"t{n}", "act", "{}", None) for n in range(30))), now=1.0)
    store._writer().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for key in range(stage.first_key, stage.end_key):
        store.commit(lease, [Move("start", [key])], [])
        done = Attempt(key, 1, "completed", 2.0, 3.0, result='{"success":true}')
        store.commit(lease, [Move("complete", [key])], [done])
    database, log = ((tmp_path / f"work.db{suffix}").read_bytes() for suffix in ("", "-wal"))
    frame = 24 + 4096
    cuts = sorted(
        {0, 31} | {32 + n * frame + extra for n in range((len(log) - 32) // frame + 1) for extra in (-1, 0, 1)}
    )
    assert len(cuts) > 150
    (tmp_path / "cut").mkdir()
    found: list[tuple[int, int]] = []
    for cut in cuts:
        path = tmp_path / "cut" / "work.db"
        path.write_bytes(database)
        path.with_name("work.db-wal").write_bytes(log[:cut])
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            statuses = [status for (status,) in connection.execute("SELECT status FROM task ORDER BY task_key")]
            attempts = connection.execute("SELECT count(*) FROM attempt").fetchone()[0]
        completed, processing = statuses.count("completed"), statuses.count("processing")
        assert statuses == ["completed"] * completed + ["processing"] * processing + ["queued"] * (
            30 - completed - processing
        )
        assert attempts == completed
        assert processing <= 1
        found.append((completed, processing))
    assert found == sorted(found)
    assert len(set(found)) == 61, "each commit is there, or is not"
    store.close()
