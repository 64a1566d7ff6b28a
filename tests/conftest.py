"""Sessions for the tests, and a look afterwards at what they leave behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jobs
import pytest

import geoflow as gf
from geoflow.stores.base import Store
from geoflow.stores.opening import is_duckdb
from geoflow.support.clock import ManualClock

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

OpenSession = Callable[..., gf.Session]
Drive = Callable[..., subprocess.Popen[str]]
Test = Callable[..., None]
HERE = str(Path(__file__).parent)


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
        option.dist = "loadscope"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give each process of the suite a folder for temporary files: tests look at what is left behind in it."""
    folder = node.workerinput["folder"] = tempfile.mkdtemp(prefix="gf-")  # short: sockets lie in it
    os.chmod(folder, 0o1777)  # as that of the system is
    node.config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_configure(config: pytest.Config) -> None:
    if folder := getattr(config, "workerinput", {}).get("folder"):
        os.environ["TMPDIR"] = tempfile.tempdir = folder


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


@pytest.fixture(scope="session")
def store_name() -> str:
    """The file of the sessions' store; a module may say another."""
    return "work.db"


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
    sys.path.insert(0, {here!r})
    import jobs
    import geoflow as gf

    session = gf.open({store!r}, workers=2, display="none")
    session.register(jobs)
    job = session.submit("acts", {params!r})
    {then}
"""


@pytest.fixture
def drive(tmp_path: Path, store_name: str) -> Iterator[Drive]:
    """Submit a job of `jobs.Acts` in another process, on the same store, and *then* do more there."""
    started: list[subprocess.Popen[str]] = []

    def start(params: dict[str, Any], then: str = "job.wait()") -> subprocess.Popen[str]:
        code = textwrap.dedent(_DRIVER).format(
            here=HERE, store=str(tmp_path / store_name), params=params, then=textwrap.dedent(then)
        )
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


class Trace:
    """A file to which each execution of a task of `jobs` adds a line: its id and the attempt's number."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self) -> list[str]:
        try:
            return Path(self.path).read_text().splitlines()
        except FileNotFoundError:
            return []


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "trace")


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Look again and again until *condition*; fail after *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def rows(session: gf.Session, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What *sql* finds in the session's store."""
    with session.store.reading() as connection:
        return [tuple(row) for row in connection.execute(sql, values).fetchall()]


def leave_as_killed(store: Store) -> None:
    """Close *store* as its process's end would: locks dropped, nothing more written, the log there to be read back."""
    from geoflow.stores.duckdb import DuckDbStore

    if isinstance(store, DuckDbStore) and store._file is not None:
        store._file.connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    store.close()


def check_intact(store: Store) -> None:
    """The store's file is whole, and no row of it has lost the one that it belongs to."""
    with store.reading() as connection:
        if not is_duckdb(store.name):
            assert [tuple(row) for row in connection.execute("PRAGMA integrity_check")] == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            return
        # It has neither such a check nor foreign keys: all is read, and the last rows are looked for by their keys.
        for table, parent in (("job", None), ("stage", "job"), ("task", "stage"), ("attempt", "task")):
            keys = connection.execute(f"SELECT {table}_key FROM {table}").fetchall()
            assert len(connection.execute(f"FROM {table}").fetchall()) == len(set(keys)) == len(keys)
            for key in keys[-3:]:
                assert len(connection.execute(f"FROM {table} WHERE {table}_key = ?", key).fetchall()) == 1
            if parent is not None:
                lost = f"FROM {table} ANTI JOIN {parent} USING ({parent}_key)"
                assert connection.execute(lost).fetchall() == [], f"rows of {table} without a {parent}"


def examples(number: int, *strategies: SearchStrategy[Any]) -> Callable[[Test], Test]:
    """Have a test try so many examples of *strategies*; `fewer_examples` has it try a twentieth."""
    from hypothesis import HealthCheck, given, settings

    def decorate(test: Test) -> Test:
        def tried(times: int) -> Any:
            slow = settings(max_examples=times, deadline=None, suppress_health_check=[HealthCheck.too_slow])
            return slow(given(*strategies)(test))

        often = tried(number)
        often.seldom = tried(max(number // 20, 5))
        return often

    return decorate


def fewer_examples(module: ModuleType) -> dict[str, Test]:
    """The tests of *module* that try examples, for a slower store: by name, each with a twentieth."""
    return {name: test.seldom for name, test in vars(module).items() if hasattr(test, "seldom")}
