"""A backup is whole while jobs run, and whoever restores one has the old store or the new, never half of either."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import geoflow as gf
from geoflow.commands.cli import main
from geoflow.core.rows import NewJob
from geoflow.errors import StoreBusy, StoreError
from geoflow.stores import locks
from geoflow.stores.backup import back_up, restore
from geoflow.stores.files import growing_beside
from geoflow.stores.opening import store_at
from geoflow.stores.sqlite import SqliteStore
from tests.helpers.sessions import OpenSession, check_intact, rows
from tests.helpers.waiting import wait_until

STAGES = '[{"number":1,"name":"scan","task_type":"scan_it"}]'
COMPLETED = "SELECT count(*) FROM task WHERE status = 'completed'"
LOOKING = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM job").fetchall()
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["work.db", "work.duckdb"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store" / request.param


def add(path: Path, *letters: str) -> None:
    """Put jobs with these ids into the store, and lines about them into its log."""
    store = store_at(path)
    for letter in letters:
        store.create(NewJob(letter * 64, "tiles", STAGES, "{}", 1.0))
    store.close()
    with open(f"{path}.log", "a") as log:
        log.writelines(f'{{"job_id": "{letter}"}}\n' for letter in letters)


def ids(path: Path) -> str:
    store = store_at(path)
    try:
        found = "".join(sorted(job.job_id[0] for job in store.jobs()))
        check_intact(store)
    finally:
        store.close()
    return found


def backup_of(path: Path) -> Path:
    target = path.with_name(f"backup{path.suffix}")
    store = store_at(path)
    try:
        back_up(store, target, Path(f"{path}.log"))
    finally:
        store.close()
    return target


def asides(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.glob(f"{path.name}.aside-*"))


def test_S37_backups_made_while_a_job_runs_are_whole_and_a_restored_one_goes_on(
    open_session: OpenSession, path: Path
) -> None:
    session = open_session(path, workers=2)
    job = session.submit("acts", tasks=[{"do": "sleep", "value": 0.06}] * 100)
    made = []
    for number in range(1, 5):
        least = (number * 15,)
        wait_until(lambda: job.ended or rows(session, COMPLETED)[0] >= least)  # noqa: B023 - it is over by then
        copied = session.backup(path.with_name(f"{number}{path.suffix}"))
        made.append(Path(copied["file"][0]))
        assert copied["what"].tolist() == ["copied"] * 2
        assert copied["bytes"].tolist() == [Path(file).stat().st_size for file in copied["file"]]
        assert {Path(file).stat().st_mode & 0o777 for file in copied["file"]} == {0o600}
    assert job.wait(timeout=60).status == "completed"
    session.close()
    done = []
    for copy in made:
        with open_session(copy, workers=0) as looking:
            check_intact(looking.store)
            done += rows(looking, COMPLETED)
            assert [row.job_id for row in looking.store.jobs()] == [job.id]
    assert done == sorted(done)
    assert 15 <= done[0][0] < 100
    restore(made[0], path, Path(f"{path}.log"))
    with open_session(path, workers=2) as again:
        (resumed,) = again.resume()
        assert resumed.wait(timeout=60).result()["completed"] == 100
        check_intact(again.store)


def test_a_backup_has_the_log_and_what_it_was_rotated_to_each_once(path: Path) -> None:
    add(path, "a")
    Path(f"{path}.log.1").write_text("older\n")
    os.link(f"{path}.log", f"{path}.log.2")  # as it is in the middle of a rotation
    target = backup_of(path)
    assert Path(f"{target}.log").read_text() == '{"job_id": "a"}\n'
    assert Path(f"{target}.log.1").read_text() == "older\n"
    assert not Path(f"{target}.log.2").exists()


@pytest.mark.parametrize("ending", ["", "-wal", ".wal", ".log", ".log.3"])
def test_what_is_there_already_is_not_overwritten_by_a_backup(path: Path, ending: str) -> None:
    add(path, "a")
    there = path.with_name(f"backup{path.suffix}{ending}")
    there.write_text("mine")
    before = sorted(path.parent.iterdir())
    with pytest.raises(StoreError, match=f"{there.name} is there already, and was not touched"):
        backup_of(path)
    assert there.read_text() == "mine"
    assert sorted(path.parent.iterdir()) == before


def test_a_store_in_memory_can_be_kept(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(":memory:", workers=0)
    job = session.run("acts", tasks=[{}])
    made = [str(tmp_path / "kept.db"), str(tmp_path / "kept.db.log")]
    assert session.backup(tmp_path / "kept.db")["file"].tolist() == made
    session.run("acts", tasks=[{}, {}])  # it goes on
    assert [row.job_id for row in store_at(tmp_path / "kept.db").jobs()] == [job.id]


def test_a_store_that_is_damaged_gives_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    add(path, *"abcdef")
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096 * 4)
    before = sorted(tmp_path.glob("[!.]*"))
    with pytest.raises(StoreError, match=r"damaged|malformed"):
        backup_of(path)
    assert sorted(tmp_path.glob("[!.]*")) == before


def test_a_restored_store_is_the_backup_and_what_was_there_is_kept(path: Path) -> None:
    add(path, "a", "b")
    backup = backup_of(path)
    content = backup.read_bytes()
    add(path, "c")
    put, aside = restore(backup, path, Path(f"{path}.log"))
    assert ids(path) == "ab"
    assert Path(f"{path}.log").read_text() == '{"job_id": "a"}\n{"job_id": "b"}\n'
    assert put == [path, Path(f"{path}.log")]
    assert path.stat().st_mode & 0o777 == 0o600
    store, log = aside
    assert '"c"' in log.read_text()
    kept = store.rename(store.with_name(f"kept{path.suffix}"))
    assert ids(kept) == "abc"
    assert backup.read_bytes() == content


def test_a_backup_is_restored_where_no_store_is(path: Path) -> None:
    add(path, "a")
    other = path.with_name(f"other{path.suffix}")
    assert restore(backup_of(path), other, None) == ([other], [])
    assert ids(other) == "a"


KILLED = """
import os, sys
from pathlib import Path
from geoflow.core.rows import NewJob
from geoflow.stores.opening import store_at
store = store_at(sys.argv[1])
store.open()
if sys.argv[1].endswith(".duckdb"):
    store._file.connection.execute("PRAGMA disable_checkpoint_on_shutdown")
store.create(NewJob("c" * 64, "tiles", sys.argv[2], "{}", 1.0))
os.kill(os.getpid(), 9)
"""


def test_S37_the_log_of_a_killed_session_is_never_read_into_the_store_that_is_restored(path: Path) -> None:
    add(path, "a", "b")
    backup = backup_of(path)
    subprocess.run([sys.executable, "-c", KILLED, str(path), STAGES], check=False)
    assert any(
        Path(f"{path}{ending}").stat().st_size for ending in ("-wal", ".wal") if os.path.exists(f"{path}{ending}")
    )
    _, aside = restore(backup, path, None)
    assert ids(path) == "ab"
    assert ids(aside[0].rename(path.with_name(f"kept{path.suffix}"))) == "abc"


def test_a_damaged_store_is_set_aside_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    add(path, "a")
    backup = backup_of(path)
    path.write_bytes(b"no database" * 1_000)
    Path(f"{path}-wal").write_bytes(b"its log")
    _, aside = restore(backup, path, None)
    assert ids(path) == "a"
    assert [file.read_bytes()[:7] for file in aside[:2]] == [b"no data", b"its log"]
    assert aside[1].name == f"{aside[0].name}-wal"


@pytest.mark.skipif(not locks.are_kept(), reason="this system has no locks that belong to an open file")
def test_S37_a_store_in_use_is_not_restored(path: Path) -> None:
    add(path, "a", "b")
    backup = backup_of(path)
    add(path, "c")
    code = (
        "import sys; from geoflow.commands.cli import main; "
        "sys.exit(main(['restore', sys.argv[1], '--store', sys.argv[2]]))"
    )
    store = store_at(path)
    store.open()
    shutil.copy(path, path.with_name("copied"))  # drops the locks that are the process's
    try:
        with pytest.raises(StoreBusy, match=r"in use|is held by"):
            restore(backup, path, None)
        done = subprocess.run([sys.executable, "-c", code, backup, path], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"{path} is in use" in done.stderr or f"{path} is held by process {os.getpid()}" in done.stderr
        assert {job.job_id[0] for job in store.jobs()} == set("abc")
    finally:
        store.close()
    assert asides(path) == []
    assert main(["restore", str(backup), "--store", str(path)]) == 0
    assert ids(path) == "ab"


def test_a_store_that_another_program_looks_at_is_not_restored(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    add(path, "a")
    backup = backup_of(path)
    command, pipe = [sys.executable, "-c", LOOKING, str(path)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as another:
        assert another.stdout is not None
        another.stdout.readline()
        with pytest.raises(StoreBusy, match="in use"):
            restore(backup, path, None)
        another.kill()
    restore(backup, path, None)


def test_only_a_whole_store_of_the_same_kind_is_restored(path: Path) -> None:
    add(path, "a")
    backup = backup_of(path)
    other = {".db": ".duckdb", ".duckdb": ".db"}[path.suffix]
    for wrong, said in (
        (path, "is the store itself"),
        (path.with_name("no.db"), "There is no backup at"),
        (Path(shutil.copy(backup, path.with_name(f"kind{other}"))), "not of one kind"),
    ):
        with pytest.raises(StoreError, match=said):
            restore(wrong, path, None)
    broken = path.with_name(f"broken{path.suffix}")
    for content in (b"", b"short", b"no database " * 1_000, backup.read_bytes()[: backup.stat().st_size // 2]):
        broken.write_bytes(content)
        with pytest.raises(StoreError, match=rf"{broken}.*Nothing was restored"):
            restore(broken, path, None)
    live = path.with_name(f"live{path.suffix}")
    shutil.copy(backup, live)
    Path(f"{live}{'-wal' if path.suffix == '.db' else '.wal'}").write_bytes(b"a log")
    with pytest.raises(StoreError, match="has a log"):
        restore(live, path, None)
    assert ids(path) == "a"
    assert asides(path) == []
    assert not list(path.parent.glob(f".{path.name}-*"))


SWEEP = """
    import os, shutil, signal, sys
    from pathlib import Path
    from geoflow.stores import backup
    from geoflow.stores.opening import store_at

    NAMES = ("open", "link", "rename", "replace", "fsync")
    if sys.argv[2].endswith(".duckdb"):  # which takes long to open
        NAMES = NAMES[1:]
    real = {name: getattr(os, name) for name in NAMES}
    begin, name, verb = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

    def act(folder, at):
        calls = 0

        def dying(name):
            def call(*args, **options):
                nonlocal calls
                calls += 1
                if calls == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real[name](*args, **options)
            return call

        path, target = folder / name, folder / ("backup" + Path(name).suffix)
        store = store_at(path)
        if verb == "backup":
            store.open()
        for each in NAMES:
            setattr(os, each, dying(each))
        if verb == "backup":
            backup.back_up(store, target, Path(f"{path}.log"))
        else:
            backup.restore(target, path, Path(f"{path}.log"))
        os._exit(0)

    for at in range(1, 1000):
        folder = begin.with_name(f"killed-{at}")
        shutil.copytree(begin, folder)
        child = os.fork()
        if child == 0:
            act(folder, at)
        if os.waitpid(child, 0)[1] == 0:
            break
    else:
        sys.exit("it never came to an end")
"""


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_S37_killed_anywhere_a_backup_is_whole_or_not_there_and_a_store_the_old_or_the_new(
    path: Path, verb: str
) -> None:
    add(path, "a", "b")
    if verb == "restore":
        backup_of(path)
        add(path, "c")
    code = textwrap.dedent(SWEEP)
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, path.parent, path.name, verb], check=True)
    killed = sorted(path.parent.parent.glob("killed-*"), key=lambda folder: int(folder.name[7:]))
    found = []
    known: dict[tuple[bytes, ...], str] = {}

    def ids_in(store: Path) -> str:
        """As `ids`: of stores that are the same to the byte, with their logs, one is opened."""
        files = [store, *(store.with_name(f"{store.name}{more}") for more in ("-wal", "-shm", ".wal"))]
        content = tuple(file.read_bytes() if file.exists() else b"" for file in files)
        if content not in known:
            known[content] = ids(store)
        return known[content]

    for folder in killed:
        target = folder / f"backup{path.suffix}"
        if verb == "restore":
            found.append(ids_in(folder / path.name))
            assert ids_in(target) == "ab"
        else:
            found.append(ids_in(target) if target.exists() else "")
            assert ids_in(folder / path.name) == "ab"
            if found[-1]:
                assert Path(f"{target}.log").exists()
    assert len(killed) > 5
    half_made = [folder for folder in killed if any(map(Path.is_dir, folder.iterdir()))]
    assert half_made
    for folder in half_made:
        with growing_beside(folder / (f"backup{path.suffix}" if verb == "backup" else path.name)):
            pass
        assert not any(map(Path.is_dir, folder.iterdir())), "the next one removes what a killed one left"
    before, after = ("abc", "ab") if verb == "restore" else ("", "ab")
    assert set(found) == {before, after}
    assert found == sorted(found, key=[before, after].index)


def test_S37_a_store_that_is_replaced_while_it_is_opened_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "work.db"
    add(path, "a")
    backup = backup_of(path)
    prepare = SqliteStore._prepare

    def replaced_first(store: SqliteStore, connection: sqlite3.Connection) -> None:
        shutil.copy(backup, tmp_path / "new")
        os.replace(tmp_path / "new", path)
        prepare(store, connection)

    monkeypatch.setattr(SqliteStore, "_prepare", replaced_first)
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="was deleted, moved or replaced"):
        store.create(NewJob("b" * 64, "tiles", STAGES, "{}", 1.0))
    store.close()


def test_in_a_process_whose_session_has_the_store_open_the_verb_says_to_close_it(
    open_session: OpenSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = gf.open(tmp_path / "work.db", workers=0)
    session.run("hello_world", n=1)
    assert main(["backup", str(tmp_path / "b.db"), "--store", str(tmp_path / "work.db")]) == 0
    assert "copied" in capsys.readouterr().out
    assert main(["restore", str(tmp_path / "b.db"), "--store", str(tmp_path / "work.db")]) == 2
    assert "is open in this process: close its session first" in capsys.readouterr().err
    session.close()
    assert main(["restore", str(tmp_path / "b.db"), "--store", str(tmp_path / "work.db")]) == 0
    assert "set aside" in capsys.readouterr().out
