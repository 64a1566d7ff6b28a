"""Sessions for the tests, and a look afterwards at what they leave behind."""

from __future__ import annotations

import compileall
import functools
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import geoflow as gf
from geoflow.usercode.fingerprint import text_of
from tests.helpers import jobs, profiles
from tests.helpers.clocks import ManualClock
from tests.helpers.sessions import ROOT, Drive, OpenSession, Trace


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in two processes for each processor, unless told otherwise (``-n 0`` for one alone).

    Two, since most tests wait for processes of their own.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:  # one of those processes, or a pytest that a test starts
        return
    option = config.option
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS and not option.keyword
    whole = whole and option.markexpr != "browser"  # one browser at a time
    if not whole or option.collectonly or option.usepdb or getattr(option, "numprocesses", 0) is not None:
        return  # the last is what it is where pytest-xdist is missing or was told a number
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if processors > 1:
        option.numprocesses = 2 * processors
        option.tx = [f"{2 * processors}*popen"]
        option.dist = "worksteal"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give each process of the suite a folder for temporary files: tests look at what is left behind in it."""
    folder = node.workerinput["folder"] = tempfile.mkdtemp(prefix="gf-")  # short: sockets lie in it
    os.chmod(folder, 0o1777)  # as that of the system is
    node.config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_configure(config: pytest.Config) -> None:
    if folder := getattr(config, "workerinput", {}).get("folder"):
        os.environ["TMPDIR"] = tempfile.tempdir = folder
    elif "PYTEST_XDIST_WORKER" not in os.environ:
        for code in (Path(gf.__file__).parent, Path(jobs.__file__).parent):  # processes of tests write no bytecode
            compileall.compile_dir(code, quiet=2)


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage seldom in all that there is now: each look takes a tenth of a second, and finds none."""
    gc.freeze()
    gc.unfreeze()  # it counts as old now
    gc.set_threshold(700, 10, 100)
    gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have what is marked `on_duckdb` run on a DuckDB file, too."""
    marker = metafunc.definition.get_closest_marker("on_duckdb")
    if marker is not None and "store_name" in metafunc.fixturenames:
        metafunc.parametrize("store_name", profiles.stores(marker), scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `thorough`, unless a profile that is was asked for."""
    if not profiles.is_thorough(config):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("thorough")])
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[Any, Any, Any]:
    """Reports travel between processes as UTF-8, which some of what the tests log and print is not."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_encodable(item) for item in value)
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GEOFLOW_")]:
        monkeypatch.delenv(name)
    # A module that a test edits twice in a second would be taken from its bytecode, here and in workers.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.fixture(scope="session", autouse=True)
def _text_of_jobs_once() -> Iterator[None]:
    """Each new store keeps the text of the handlers of `jobs`, and to find it takes longer than many a test."""
    of_jobs = {id(code) for code in vars(jobs).values() if isinstance(code, FunctionType)}
    found = functools.cache(text_of)
    with pytest.MonkeyPatch.context() as patched:
        find = "geoflow.engine.claiming.text_of"
        patched.setattr(find, lambda code: (found if id(code) in of_jobs else text_of)(code))
        yield


@pytest.fixture(scope="session")
def store_name() -> str:
    """The file of the sessions' store; tests that are marked `on_duckdb` have another, too."""
    return "work.db"


@pytest.fixture
def temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of this process and of those that it starts, with a name short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="gf", ignore_cleanup_errors=True) as made:  # by the killed
        monkeypatch.setenv("TMPDIR", made)
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield Path(made)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where outputs go."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def open_session(tmp_path: Path, store_name: str) -> Iterator[OpenSession]:
    """Sessions with the job types of `jobs`, on *store_name* unless told otherwise; closed at the end."""
    opened: list[gf.Session] = []

    def open_one(store: str | Path | None = None, *, workers: int = 2, **options: Any) -> gf.Session:
        session = gf.open(store or tmp_path / store_name, workers=workers, display="none", **options)
        session.register(jobs)
        opened.append(session)
        return session

    yield open_one
    for session in opened:
        session.close()


_DRIVER = """
    import sys
    sys.path.insert(0, {root!r})
    from tests.helpers import jobs
    import geoflow as gf

    session = gf.open({store!r}, workers={workers}, display="none")
    session.register(jobs)
    job = session.submit("acts", {params!r})
    {then}
"""


@pytest.fixture
def drive(tmp_path: Path, store_name: str) -> Iterator[Drive]:
    """Submit a job of `jobs.Acts` in another process, on the same store, and *then* do more there."""
    started: list[subprocess.Popen[str]] = []

    def start(params: dict[str, Any], then: str = "job.wait()", workers: int = 2) -> subprocess.Popen[str]:
        asked = {"root": ROOT, "store": str(tmp_path / store_name), "params": params, "workers": workers}
        code = textwrap.dedent(_DRIVER).format(**asked, then=textwrap.dedent(then))
        command = [sys.executable, "-c", code]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "trace")
