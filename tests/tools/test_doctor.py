"""The doctor: what it finds on this machine, and in environments that were broken for real. It leaves all as it was."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from IPython.lib.pretty import pretty

from geoflow.commands.cli import main
from geoflow.commands.magic import Magic
from geoflow.stores.sqlite import SCHEMA_VERSION
from geoflow.support.settings import load_settings
from geoflow.support.text import columns
from geoflow.tools.doctor import Diagnosis, DoctorReport, doctor, geospatial
from geoflow.tools.doctor.diagnosis import ok, run_python
from geoflow.tools.doctor.geospatial import GEO_VARIABLES, geo_libraries, geo_variables
from geoflow.tools.doctor.installed import extras, packages, python, sqlite_library
from geoflow.tools.doctor.places import file_system, folder, locks, log, write_ahead
from geoflow.tools.doctor.processes import leftovers, open_files, shared_memory, worker_environment, workers
from geoflow.tools.doctor.store import jobs, store_file
from tests.helpers.sessions import ROOT, OpenSession
from tests.helpers.waiting import wait_until

NOWHERE = Path("/proc")  # a folder in which nobody may make files, root included
needs_proc = pytest.mark.skipif(not NOWHERE.is_dir(), reason="needs Linux")


@pytest.fixture(autouse=True)
def _as_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the number of processors nor an installed GIS is to decide."""
    monkeypatch.setenv("GEOFLOW_WORKERS", "2")
    for variable in GEO_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def said_by_libraries() -> dict[Any, Any]:
    return {}


@pytest.fixture(autouse=True)
def _libraries_are_asked_once(said_by_libraries: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has asked the same in the same environment stands for the next: each imports all that is there."""

    def asked(*code: str, environment: dict[str, str]) -> tuple[str, str]:
        told = tuple(item for item in sorted(environment.items()) if item[0] not in ("TMPDIR", "PYTEST_CURRENT_TEST"))
        if (code, told) not in said_by_libraries:
            said_by_libraries[code, told] = run_python(*code, environment=environment)
        return said_by_libraries[code, told]

    monkeypatch.setattr(geospatial, "run_python", asked)


def by_name(findings: DoctorReport) -> dict[str, Diagnosis]:
    return {finding.name: finding for finding in findings}


# All of it


def test_all_checks_are_made_and_nothing_is_left_behind(tmp_path: Path, temp: Path) -> None:
    found = by_name(doctor(load_settings(store=str(tmp_path / "work.db"))))
    assert list(found) == [
        *(
            "python",
            "sqlite",
            "packages",
            "extras",
            "geo libraries",
            "geo variables",
            "store folder",
            "file system",
            "locks",
        ),
        *(
            "write-ahead log",
            "temporary folder",
            "log",
            "shared memory",
            "open files",
            "workers",
            "worker environment",
            "leftovers",
            "store",
            "jobs",
        ),
    ]
    for name in ("sqlite", "write-ahead log", "locks", "workers", "store", "jobs"):
        assert found[name].status == "ok", found[name]
    assert "not there yet" in found["store"].text
    assert list(tmp_path.iterdir()) == []
    assert list(temp.iterdir()) == []


def test_a_store_in_memory_has_no_place_to_look_at() -> None:
    found = by_name(doctor(load_settings(store=":memory:")))
    assert not {"store folder", "file system", "write-ahead log", "locks", "store", "jobs"} & found.keys()
    assert found["log"].status == "ok"


def test_S40_the_log_of_the_session_that_asks_goes_on(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(workers=0)
    session.run("acts", tasks=[{}])
    assert workers().status == "ok"
    logging.getLogger("geoflow").warning("after the doctor")
    session.close()
    assert "after the doctor" in (tmp_path / "work.db.log").read_text()


# What is printed


def test_what_is_printed_fits_a_terminal_and_tells_the_state_in_words() -> None:
    report = DoctorReport(
        [
            Diagnosis("one", "ok", "All is well. " * 20),
            Diagnosis("another one", "problem", "It is not.", "Do this, and that: " + "word " * 300),
            Diagnosis("two", "warning", "Perhaps.", "pass\x1b[0mword=hunter2"),
        ]
    )
    printed = list(report.lines(80))
    assert len(printed) == 5 + 1 + 6 + 2 + 1  # what is long is cut
    assert printed[11].endswith("… --json tells all of it.")
    assert len(report.document()[1]["remedy"]) > 1500
    assert max(map(columns, printed)) <= 80
    assert printed[0].startswith("ok       one          All is well.")
    assert any(line.startswith("problem  another one  It is not.") for line in printed)
    assert any(line.strip().startswith("To do: Do this") for line in printed)
    assert "hunter2" not in repr(report) + report._repr_html_()
    assert printed[-1] == "3 checks: 1 problem, 1 warning. Mend the problems first."


def test_only_problems_count_for_the_exit_status() -> None:
    fine = [Diagnosis("a", "ok", ""), Diagnosis("b", "warning", "")]
    assert DoctorReport(fine).exit_status == 0
    assert DoctorReport([*fine, Diagnosis("c", "problem", "")]).exit_status == 1


def test_typed_in_a_terminal_it_makes_no_store_and_its_exit_status_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = tmp_path / "work.db"
    assert main(["doctor", "--store", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert max(map(columns, printed)) <= 80 or len(str(path)) > 50
    assert printed[-1].endswith("This machine is fit for the work.")
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"no database " * 100)
    assert main(["doctor", "--json", "--store", str(path)]) == 1
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows["store"]) == {"name", "status", "text", "remedy"}
    assert rows["store"]["status"] == "problem"


def test_in_a_notebook_its_value_shows_itself(tmp_path: Path) -> None:
    found = Magic(SimpleNamespace(user_ns={}))(f"doctor --store {tmp_path / 'work.db'}")
    assert pretty(found).splitlines()[-1].endswith("This machine is fit for the work.")
    assert found[0].status == "ok"
    assert list(tmp_path.iterdir()) == []


# What is installed


@pytest.mark.parametrize(
    ("version", "threads", "expected", "said"),
    [
        ((3, 36, 9), 3, "problem", "needs 3.37"),
        ((3, 37, 2), 3, "warning", "need 3.38"),
        ((3, 45, 0), 0, "problem", "not safe for threads"),
        ((3, 45, 0), 3, "ok", "Before 3.51.3"),
        ((3, 53, 1), 3, "ok", "3.53.1, safe for threads."),
    ],
)
def test_an_sqlite_that_is_too_old_is_told(version: Any, threads: int, expected: str, said: str) -> None:
    found = sqlite_library(version, threads)
    assert found.status == expected
    assert said in found.text


def test_windows_is_a_warning() -> None:
    assert python("linux").status == python("darwin").status == "ok"
    assert python("win32").status == "warning"


def test_packages_that_are_missing_or_too_old_are_named_with_the_command() -> None:
    found = packages(["pydantic>=2.7", "orjson>=999", "no-such-package", 'no-extra>=1; extra == "dask"'])
    assert found.status == "problem"
    assert found.remedy == "pip install 'orjson>=999' no-such-package"
    assert "no-extra" not in found.text


def test_the_packages_that_geoflow_asks_for_are_there() -> None:
    found = packages()
    assert found.status == "ok"
    assert "pydantic 2." in found.text


def test_extras_are_told_with_their_versions_and_none_is_a_fault() -> None:
    found = extras(["psutil", "no-such-package"])
    assert found.status == "ok"
    assert found.text == f"psutil {psutil.__version__}. Not installed: no-such-package."


def test_each_geospatial_library_says_what_it_has_brought_and_that_is_tried() -> None:
    rasterio, pyproj = pytest.importorskip("rasterio"), pytest.importorskip("pyproj")
    found = geo_libraries(("rasterio", "pyproj"))
    assert found.status == "ok" if importlib.util.find_spec("pyarrow") else "warning"
    assert f"rasterio has GDAL {rasterio.__gdal_version__}, PROJ {rasterio.__proj_version__}; " in found.text
    assert f"pyproj has PROJ {pyproj.proj_version_str}. Each has its own copies" in found.text
    assert geo_libraries(("no_such_library",)).status == "ok"


def test_a_library_that_cannot_be_used_is_a_problem_with_its_own_words(tmp_path: Path, monkeypatch: Any) -> None:
    for name, source in {
        "pyogrio": "raise OSError('libgdal.so.36: cannot open')",
        "osgeo": "import os; os.abort()",
    }.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = geo_libraries(("pyogrio",))
    assert (found.status, found.remedy) == ("problem", "pip install --force-reinstall --no-deps pyogrio")
    assert "pyogrio is installed, and cannot be used: OSError: libgdal.so.36" in found.text
    found = geo_libraries(("osgeo",))
    assert (found.status, "osgeo cannot be used in one process: exit status -6" in found.text) == ("problem", True)


def test_two_libraries_that_place_a_point_apart_and_a_missing_pyarrow_are_told(monkeypatch: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else name)

    def told(y: float) -> Diagnosis:
        said = {"rasterio": "PROJ 9.7", "pyproj": "PROJ 9.5"}, {"rasterio": [1.0, 2.0], "pyproj": [1.0, y]}
        monkeypatch.setattr(geospatial, "run_python", lambda *_, **__: (json.dumps([None, *said]), ""))
        return geo_libraries()

    assert (told(2.0).status, told(2.0).remedy) == ("warning", "pip install pyarrow")
    assert "rasterio and pyproj place one point 0.5 m apart" in told(2.5).text
    assert told(float("inf")).status == "problem"


def test_variables_of_another_proj_are_told() -> None:
    assert geo_variables({"PATH": "/bin", "PROJ_LIB": ""}).status == "ok"
    found = geo_variables({"PROJ_DATA": "/no/such/folder"})
    assert found.status == "problem"
    assert "PROJ_DATA leads nowhere" in found.text
    assert found.remedy.startswith("unset PROJ_DATA")


def test_a_folder_that_breaks_rasterio_is_a_problem_where_rasterio_is(tmp_path: Path, monkeypatch: Any) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "proj.db")) as tables:  # of an older PROJ, as Debian's
        tables.execute("CREATE TABLE metadata (key TEXT, value TEXT)")
        tables.execute("INSERT INTO metadata VALUES ('DATABASE.LAYOUT.VERSION.MAJOR', '0')")
        tables.commit()
    monkeypatch.setenv("PROJ_DATA", str(tmp_path))
    assert geo_libraries().status != "problem", "it is no fault of the libraries"
    found = geo_variables({**os.environ, "PROJ_LIB": str(tmp_path)})
    assert str(tmp_path) in found.text
    if importlib.util.find_spec("rasterio"):
        assert found.status == "problem"
        assert "breaks rasterio" in found.text
    elif not importlib.util.find_spec("pyproj"):
        assert found.status == "warning"


def test_gdals_files_of_another_version_are_a_warning_where_rasterio_has_its_own(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    if not Path(rasterio.__file__).with_name("gdal_data").is_dir():
        pytest.skip("rasterio was not installed from a wheel")
    found = geo_variables({**os.environ, "GDAL_DATA": str(tmp_path)})
    assert found.status == "warning"
    assert "gdal_data" in found.text


# Folders


def test_a_folder_that_is_not_there_is_told_with_the_command(tmp_path: Path) -> None:
    found = folder(tmp_path / "not here")
    assert found.status == "problem"
    assert found.remedy == f"mkdir -p '{tmp_path}/not here'"


@needs_proc
def test_a_folder_that_cannot_be_written_is_a_problem_for_all_that_needs_it() -> None:
    for check in (
        folder(NOWHERE),
        write_ahead(NOWHERE),
        locks(NOWHERE / "work.db"),
        log(NOWHERE / "work.db.log"),
    ):
        assert check.status == "problem"
        assert "/proc" in check.text
        assert check.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_what_belongs_to_somebody_else_is_told(open_session: OpenSession) -> None:
    with tempfile.TemporaryDirectory() as made:
        place, path, lock = Path(made), Path(made, "work.db"), Path(made, ".work.db.lock")
        session = open_session(path, workers=0)
        session.run("acts", tasks=[{}])
        session.close()
        lock.touch(mode=0o600)
        place.chmod(0o755)
        path.chmod(0o644)

        def ask() -> list[Diagnosis]:
            return [folder(place), locks(path), log(Path(f"{path}.log")), store_file(path)]

        assert {finding.status for finding in ask()} == {"ok", "warning"}  # root may do everything
        told = as_nobody(lambda: [[finding.status, finding.text] for finding in ask()])
        assert [status for status, _ in told] == ["problem"] * 4
        assert all("cannot be written" in text for _, text in told)
        assert str(lock) in told[1][1]


def as_nobody(ask: Callable[[], Any]) -> Any:
    """What *ask* returns (as JSON) in a fork of this process that may do as little as anyone."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, json.dumps(ask()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return json.loads(told)


def test_the_mount_that_a_folder_is_on_is_the_innermost_one(tmp_path: Path) -> None:
    mounts = f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\nb {tmp_path}/my\\040disk ext4 rw 0 0\n"
    (tmp_path / "my disk").mkdir()
    assert file_system(tmp_path, mounts).status == "problem"
    assert file_system(tmp_path / "my disk", mounts) == ok(f"ext4, mounted at {tmp_path}/my disk.")
    assert file_system(Path("/"), mounts).text == "ext4, mounted at /."
    (tmp_path / "my disk" / "link").symlink_to(tmp_path)
    assert "nfs4" in file_system(tmp_path / "my disk" / "link", mounts).text


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("cifs", "problem"), ("fuse.sshfs", "problem"), ("fuse.other", "warning"), ("9p", "warning"), ("xfs", "ok")],
)
def test_network_drives_are_known_by_their_kind(kind: str, expected: str) -> None:
    assert file_system(Path("/"), f"x / {kind} rw 0 0\n").status == expected


def test_a_system_that_does_not_tell_its_mounts_is_no_problem() -> None:
    assert file_system(Path("/"), None).status == "ok"


def test_locks_are_tried_without_touching_those_of_a_session(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(workers=1)
    job = session.submit("acts", tasks=[{"do": "hang"}])
    key = job.runtime.row(job.id).job_key
    wait_until(lambda: session.store.driver(key) is not None)
    assert locks(tmp_path / "work.db").status == "ok"
    assert asked_elsewhere("jobs", tmp_path / "work.db").startswith("Diagnosis(name='', status='ok'")  # it is driven
    job.cancel()


def asked_elsewhere(check: str, path: Path) -> str:
    """What *check* finds in the store, asked by another process."""
    code = f"import pathlib, sys; from geoflow.tools.doctor.store import *; print({check}(pathlib.Path(sys.argv[1])))"
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout


WITHOUT_LOCKS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
static int call(const char *name, int descriptor, int command, void *more) {
    if (command == F_SETLK || command == F_SETLKW || command == F_GETLK || (command >= 36 && command <= 38)) {
        errno = ENOLCK;
        return -1;
    }
    return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, name))(descriptor, command, more);
}
#define CALL(name) int name(int descriptor, int command, ...) { va_list more; va_start(more, command); \
    void *given = va_arg(more, void *); va_end(more); return call(#name, descriptor, command, given); }
CALL(fcntl)
CALL(fcntl64)
"""


@pytest.fixture
def no_locks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose processes find no locks on any disk."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("needs Linux and a compiler")
    made = tmp_path_factory.mktemp("shim")
    (made / "shim.c").write_text(WITHOUT_LOCKS)
    command = ["gcc", "-shared", "-fPIC", "-o", str(made / "shim.so"), str(made / "shim.c"), "-ldl"]
    subprocess.run(command, check=True)
    return {**os.environ, "LD_PRELOAD": str(made / "shim.so")}


def found_by_another(store: Path, environment: dict[str, str]) -> dict[str, dict[str, str]]:
    """What a doctor in another process says of the disk and the store, waiting for no lock."""
    code = """
import json, sys
from pathlib import Path
from geoflow.tools import doctor
from geoflow.support.settings import load_settings
from geoflow.tools.doctor.diagnosis import ok
doctor.geo_libraries = lambda: ok("not asked here")
print(json.dumps(doctor.doctor(load_settings(store=sys.argv[1])).document()))
"""
    command = [sys.executable, "-c", code, str(store)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=25)
    return {finding["name"]: finding for finding in json.loads(done.stdout)}


def test_S36_where_the_disk_has_no_locks_that_is_said_at_once_and_a_whole_store_is_whole(
    store: Path, no_locks: dict[str, str]
) -> None:
    found = found_by_another(store, no_locks)
    assert "has no locks" in found["workers"]["text"]  # in the temporary folder neither
    assert found["locks"]["status"] == "problem"
    assert "has no locks (No locks available)" in found["locks"]["text"]
    assert found["store"]["status"] == "ok"
    assert f"whole, schema {SCHEMA_VERSION}" in found["store"]["text"]
    Path(f"{store}-wal").write_bytes(b"a log" * 10_000)
    found = found_by_another(store, no_locks)
    assert "cannot be looked at" in found["store"]["text"]
    assert "whether it is whole is not known" in found["store"]["text"]
    assert "damaged" not in json.dumps(found)


def test_S36_where_the_disk_is_full_that_is_said_and_a_whole_store_is_whole(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoflow.tools.doctor.unwritable", lambda _: "No space left on device")
    monkeypatch.setattr("geoflow.tools.doctor.places.unwritable", lambda _: "No space left on device")
    found = by_name(doctor(load_settings(store=str(store))))
    assert "No space left on device" in found["store folder"].text
    assert found["store folder"].remedy == "Free some space, or name another folder."
    assert found["store"].status == "ok"
    assert "locks" not in found


def test_what_locks_do_not_hold_on_this_system_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoflow.tools.doctor.places.are_kept", lambda: False)
    found = locks(tmp_path / "work.db")
    assert found.status == "ok"
    assert "to copy, hash or zip a store in the process that has it open drops them" in found.text


def test_the_log_may_be_in_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert log(tmp_path / "a" / "b" / "work.log").status == "ok"
    assert log(tmp_path).status == "problem"  # it is a folder itself


# Processes


def test_a_worker_is_really_started_and_its_time_is_told() -> None:
    found = workers()
    assert found.status == "ok"
    assert "did its work and ended" in found.text


def test_a_worker_that_cannot_work_is_a_problem_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "orjson.py").write_text("raise ImportError('this orjson is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = workers()
    assert found.status == "problem"
    assert "this orjson is broken" in found.text


TINY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from geoflow.commands.cli import main
sys.exit(main(["doctor", "--store", sys.argv[1]]))
"""


def test_a_tiny_limit_of_open_files_is_a_problem(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TINY, str(tmp_path / "work.db")],
        env={**os.environ, "GEOFLOW_WORKERS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "problem  open files" in done.stdout
    assert "40 allowed; a session with 2 workers needs 64" in " ".join(done.stdout.split())
    assert "ulimit -n 1024" in done.stdout


def test_the_limit_is_held_against_the_number_of_workers() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert open_files(1).status == "ok"
    assert open_files(limit).status == "problem"


def test_shared_memory_that_cannot_be_used_is_a_problem_on_linux(tmp_path: Path) -> None:
    assert shared_memory(tmp_path / "shm", "linux").status == "problem"
    assert shared_memory(tmp_path / "shm", "darwin").status == "ok"


DRIVER = """
import sys, time
import geoflow as gf
from tests.helpers import jobs
session = gf.open(sys.argv[1], workers=1, display="none")
session.register(jobs)
session.submit("acts", tasks=[{"do": "pid then hang", "value": sys.argv[2]}])
time.sleep(120)
"""


@pytest.fixture
def driver(tmp_path: Path, temp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that drives a job whose task hangs."""
    noted = tmp_path / "pid"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen([sys.executable, "-c", DRIVER, tmp_path / "work.db", noted])
    wait_until(lambda: noted.exists() and noted.read_text().endswith("\n"))
    yield process
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.wait()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(noted.read_text()), signal.SIGKILL)


def test_S36_what_a_killed_session_left_is_found_and_how_to_go_on(
    driver: subprocess.Popen[bytes], tmp_path: Path, temp: Path
) -> None:
    store = tmp_path / "work.db"
    (temp / "geoflow-not-ours").mkdir()
    assert leftovers(temp).status == "ok"
    assert jobs(store).status == "ok"
    worker = int((tmp_path / "pid").read_text())
    driver.kill()
    driver.wait()
    wait_until(lambda: not psutil.pid_exists(worker))
    wait_until(lambda: leftovers(temp).status != "ok")
    left, stopped = leftovers(temp), jobs(store)
    [made] = [path for path in temp.glob("geoflow-*") if (path / "slot-0-0.mark").exists()]
    assert left.status == "warning"
    assert left.text == f"1 folder in {temp} of sessions that were killed."
    assert left.remedy == f"Resume their jobs, then: cd {temp} && rm -r {made.name}"
    assert stopped.status == "warning"
    assert "1 of 1 job not at the end" in stopped.text
    assert "(acts, processing)" in stopped.text
    assert stopped.remedy == f"geoflow resume --store {store}"
    assert made.is_dir()


def test_workers_that_outlived_their_session_are_a_problem(
    driver: subprocess.Popen[bytes], tmp_path: Path, temp: Path
) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("needs Linux")
    worker = int((tmp_path / "pid").read_text())
    [reaper] = [
        child for child in psutil.Process(driver.pid).children() if any("reaper" in word for word in child.cmdline())
    ]
    reaper.kill()  # else it would have ended the worker
    driver.kill()
    driver.wait()
    wait_until(lambda: leftovers(temp).status != "ok")
    found = leftovers(temp)
    assert found.status == "problem"
    assert found.remedy == f"kill -9 {worker}"


# The store


@pytest.fixture
def store(open_session: OpenSession, tmp_path: Path) -> Path:
    """A store with a job of two hundred tasks, which is at its end."""
    session = open_session(workers=0)
    session.run("acts", tasks=[{"value": "x" * 200}] * 200)
    session.close()
    return tmp_path / "work.db"


def test_a_store_that_is_whole_is_told_with_its_schema(store: Path) -> None:
    before = store.read_bytes()
    found = store_file(store)
    assert found.status == "ok"
    assert f"whole, schema {SCHEMA_VERSION}" in found.text
    assert jobs(store).text == "1 job; none was left half-way."
    assert store.read_bytes() == before


def test_a_file_that_is_no_store_is_told_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "work.db"
    for content, said in ((b"no database " * 100, "is not a SQLite file"), (b"short", "is not a SQLite file")):
        path.write_bytes(content)
        assert store_file(path).status == "problem"
        assert said in store_file(path).text
        assert jobs(path).status == "ok"
        assert path.read_bytes() == content


def test_the_database_of_another_program_is_told(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "work.db")) as other:
        other.execute("CREATE TABLE theirs (x)")
    assert "another program" in store_file(tmp_path / "work.db").text


def test_a_damaged_store_is_told_with_what_can_be_saved(store: Path) -> None:
    with store.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096 * 4)
    found = store_file(store)
    assert found.status == "problem"
    assert "is damaged" in found.text
    assert "Keep a copy" in found.remedy


def test_rows_that_belong_to_none_are_told_though_each_of_them_is_sound(store: Path) -> None:
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("UPDATE job SET job_key = 77 WHERE job_key = 1")
        connection.commit()
    found = store_file(store)
    assert found.status == "problem"
    assert "is damaged: the job of " in found.text
    assert " of stage is missing" in found.text


def test_a_newer_schema_is_a_problem_and_an_older_one_is_left_as_it_is(store: Path) -> None:
    def set_version(version: int) -> None:
        with contextlib.closing(sqlite3.connect(store)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    set_version(SCHEMA_VERSION + 1)
    assert "newer geoflow" in store_file(store).text
    assert store_file(store).status == "problem"
    set_version(SCHEMA_VERSION - 1)
    before = store.read_bytes()
    assert f"(the next session brings it to {SCHEMA_VERSION})" in store_file(store).text
    assert jobs(store).status == "ok"
    assert store.read_bytes() == before


def test_S44_a_store_that_others_may_read_is_a_warning(store: Path) -> None:
    store.chmod(0o644)
    assert store_file(store).status == "warning"
    assert store_file(store).remedy == f"chmod 600 {store}"


def test_a_duckdb_store_is_read_through(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(tmp_path / "work.duckdb", workers=0)
    session.run("acts", tasks=[{}])
    found = by_name(doctor(session.settings))  # while the session has it open
    assert "write-ahead log" not in found
    assert found["store"].status == found["jobs"].status == "ok"
    assert found["store"].text.endswith("can be read.")
    assert found["jobs"].text == "1 job; none was left half-way."


def test_a_duckdb_store_that_another_process_holds_is_no_fault(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(tmp_path / "work.duckdb", workers=0)
    session.run("acts", tasks=[{}])
    assert "status='warning'" in asked_elsewhere("store_file", tmp_path / "work.duckdb")


def test_a_duckdb_file_that_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "work.duckdb").write_bytes(os.urandom(20_000))
    assert store_file(tmp_path / "work.duckdb").status == "problem"
    assert jobs(tmp_path / "work.duckdb").status == "ok"


def test_what_workers_have_otherwise_than_the_session_is_told_and_what_cannot_be_preloaded(tmp_path: Path) -> None:
    found = worker_environment({"OMP_NUM_THREADS": "4", "MINE": "x"}, ())
    assert found.status == "ok"
    assert "and OPENBLAS_NUM_THREADS=1, " in found.text
    assert "GDAL_CACHEMAX=64, which are not set here. As they are set here: OMP_NUM_THREADS=4. " in found.text
    (tmp_path / "needs_more.py").write_text("import nothing_of_the_kind")
    found = worker_environment({**os.environ, "PYTHONPATH": str(tmp_path)}, ("json", "needs_more"))
    assert found.status == "problem"
    assert "preload names needs_more, which cannot be imported: ModuleNotFoundError: No module named" in found.text
