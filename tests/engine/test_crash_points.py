"""The engine dies before and after every transaction, and the job is resumed: nothing is lost, nothing done twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoflow as gf
from geoflow.core.rows import Lease, Move
from geoflow.errors import DriverFailed
from geoflow.jobtypes.contract import job_id_for
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.opening import is_duckdb, store_at
from geoflow.stores.sqlite import SqliteStore
from geoflow.stores.store import Store
from tests.helpers.clocks import ManualClock
from tests.helpers.profiles import a_share, is_thorough, turns
from tests.helpers.sessions import check_intact, leave_as_killed

Moment = Literal["before", "within", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "within", "after")
UNITS = 6
SECONDS = 60.0
pytestmark = pytest.mark.on_duckdb

# The job types: lists, one task a unit of which some fail at first, a sum; and one that fails.


def executed(context: gf.TaskContext, params: dict[str, Any]) -> None:
    """Leave a line that no crash of the engine takes away."""
    with open(params["trace"], "a") as file:
        file.write(f"{context.task_id} {context.attempt}\n")


def listing(params: dict[str, Any], context: gf.TaskContext) -> dict[str, Any]:
    executed(context, params)
    return {"success": True, "result": {"units": list(range(UNITS))}}


def square(params: dict[str, Any], context: gf.TaskContext) -> dict[str, Any]:
    executed(context, params)
    if params["unit"] == params.get("wrong") and not Path(params["trace"]).with_name("mended").exists():
        raise ValueError(f"no unit {params['unit']}")
    if params["unit"] == 2 and context.attempt <= 2:
        raise OSError("not yet")
    return {"success": True, "result": {"square": params["unit"] ** 2}}


def total(params: dict[str, Any], context: gf.TaskContext) -> dict[str, Any]:
    executed(context, params["job_parameters"])
    return {"success": True, "result": {"total": sum(r["result"]["square"] for r in params["previous_results"])}}


class Squares:
    """A list of units, a square of each, their sum."""

    job_type = "squares"
    description = "Adds squares up."
    stages = [
        {"number": 1, "name": "list", "task_type": "listing", "parallelism": "single"},
        {"number": 2, "name": "square", "task_type": "square", "parallelism": "fan_out"},
        {"number": 3, "name": "sum", "task_type": "total", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        return job_id_for(cls.job_type, params)

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        if stage == 1:
            return [{"task_id": "list", "task_type": "listing", "parameters": job_params}]
        units = previous_results[0]["result"]["units"]
        return [
            {"task_id": f"unit-{unit}", "task_type": "square", "parameters": {**job_params, "unit": unit}}
            for unit in units
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {
            "results": [task.result_data.get("result") for task in context.task_results],
            "tasks": [[task.task_type, str(task.status)] for task in context.task_results],
        }


HANDLERS = {"listing": listing, "square": square, "total": total}


# The crashes


class Crash(BaseException):
    """The process is gone. No handler of Exception may keep it going."""


class Crashing(Store):
    """Stands before a store among a class's bases: its process dies at its transaction number *at*, or never."""

    transactions = 0
    at = 0
    moment: Moment = "before"
    _within = False

    def die(self) -> None:
        raise Crash

    @contextlib.contextmanager
    def _transaction(self, lease: Lease | None = None) -> Iterator[Any]:
        self.transactions += 1
        moment = self.moment if self.transactions == self.at else None
        if moment == "before":
            self.die()
        with super()._transaction(lease) as connection:  # type: ignore[safe-super]
            self._within = moment == "within"
            yield connection
            if self._within:
                self.die()
        if moment == "after":
            self.die()

    def _changed(self, connection: Any, sql: str, values: dict[str, Any]) -> int:
        changed = super()._changed(connection, sql, values)  # type: ignore[safe-super]
        if self._within:  # in the middle: most transactions have more to do
            self.die()
        return changed


class CrashingSqlite(Crashing, SqliteStore): ...


class CrashingDuckDb(Crashing, DuckDbStore): ...


def crashing(path: Path, at: int = 0, moment: Moment = "before") -> Crashing:
    store = CrashingDuckDb(path) if is_duckdb(path) else CrashingSqlite(path)
    store.at, store.moment = at, moment
    return store


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def session_with(store: Crashing, **options: Any) -> gf.Session:
    session = gf.open(store.name, **{"workers": 0, "clock": ManualClock(), "display": "none", **options})
    session.register(Squares, HANDLERS)
    session.runtime.__dict__["store"] = store
    return session


class Case:
    """A job in a folder of its own: run, crashed, resumed, and looked at."""

    def __init__(self, folder: Path, store_name: str, **params: Any) -> None:
        self.path = folder / store_name
        self.trace = folder / "trace"
        self.trace.touch()
        self.params = {"trace": str(self.trace), **params}
        self._looking: Store | None = None

    def runs(self, store: Crashing, on_failure: str = "drain", **options: Any) -> bool:
        """Run or resume the job with *store*; whether it came to its end."""
        self.look_away()
        session = session_with(store, on_failure=on_failure)
        try:
            session.run("squares", self.params, **{"on_existing": "resume", **options})
        except Crash:
            leave_as_killed(store)
            return False
        session.close()
        return True

    def crashes(self, at: int, moment: Moment, **options: Any) -> bool:
        """Whether the engine died at this transaction; False when it came to the end before."""
        return not self.runs(crashing(self.path, at, moment), **options)

    def is_repaired(self, store: Crashing) -> bool:
        """Have what failed run again with *store*; whether that came to its end."""
        self.look_away()
        session = session_with(store, on_failure="continue")
        try:
            session.run("squares", self.params).retry_failed().wait()
        except (Crash, DriverFailed):  # the thread that drove it, or this one
            leave_as_killed(store)
            return False
        session.close()
        return True

    def resume(self) -> None:
        """What a user does after a crash: a new process, resume; and submit again what was never stored."""
        with gf.open(self.path, workers=0, clock=ManualClock(), display="none") as session:
            session.register(Squares, HANDLERS)
            for job in session.resume():
                job.wait(SECONDS)
            session.run("squares", self.params)

    def select(self, sql: str) -> list[Any]:
        """What *sql* finds. The store stays open until its next run: to open it takes longer than to ask."""
        if self._looking is None:
            self._looking = store_at(self.path)
        with self._looking.reading() as connection:
            return [tuple(row) for row in connection.execute(sql).fetchall()]

    def look_away(self) -> None:
        """Close the store, as every process does that is not the job's."""
        if self._looking is not None:
            self._looking.close()
            self._looking = None

    def saved(self) -> Path:
        """A copy of the store and the trace as they are, for `restore`."""
        self.look_away()
        folder = self.path.parent / "saved"
        folder.mkdir()
        for file in (self.path, self.trace):
            shutil.copy(file, folder)
        return folder

    def restore(self, folder: Path) -> None:
        self.look_away()
        for file in self.path.parent.glob(f"{self.path.name}*"):
            file.unlink()  # its log too
        for file in (self.path, self.trace):
            shutil.copy(folder / file.name, file)

    def completed(self) -> set[str]:
        """The tasks whose completion is committed."""
        if not self.path.exists():
            return set()
        return {
            name for (name,) in self.select("SELECT task_id FROM tasks WHERE status = 'completed' AND NOT superseded")
        }

    def executions(self) -> Counter[str]:
        return Counter(line.split()[0] for line in self.trace.read_text().splitlines())

    def result(self) -> Any:
        ((status, result, error, ended),) = self.select("SELECT status, result, error, ended_at FROM jobs")
        assert ended is not None
        return status, result and json.loads(result), error

    def check(self) -> None:
        """What holds for every job that has ended, whatever happened to it meanwhile."""
        tasks = self.select("SELECT task_key, task_id, status, attempts, retries FROM tasks WHERE NOT superseded")
        attempts: dict[int, list[tuple[int, str]]] = {key: [] for key, *_ in tasks}
        for key, number, outcome in self.select(
            "SELECT task_key, attempt, outcome FROM attempts WHERE NOT superseded ORDER BY task_key, attempt"
        ):
            attempts[key].append((number, outcome))
        assert self._looking is not None
        check_intact(self._looking)
        for key, _, status, last, _ in tasks:
            numbers, outcomes = [number for number, _ in attempts[key]], [outcome for _, outcome in attempts[key]]
            assert status in ("completed", "failed")
            assert numbers == list(range(1, last + 1))
            assert set(outcomes[:-1]) <= {"failed", "lost"}
            assert outcomes[-1] == status
        # No attempt ran twice: one that was not recorded as begun would have.
        assert set(Counter(self.trace.read_text().splitlines()).values()) <= {1}

    def charged(self) -> list[tuple[int, int]]:
        """(retries, failed attempts) of each task."""
        return self.select(
            "SELECT retries, (SELECT count(*) FROM attempts a WHERE a.task_key = t.task_key AND outcome = 'failed')"
            " FROM tasks t WHERE status = 'completed'"
        )


class Undisturbed:
    """What a run without a crash gives."""

    def __init__(self, store_name: str, **params: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            case = Case(Path(folder), store_name, **params)
            store = crashing(case.path)
            assert case.runs(store)
            case.check()
            self.result = case.result()
            self.transactions = store.transactions
            case.look_away()


@cache
def undisturbed(store_name: str, **params: Any) -> Undisturbed:
    return Undisturbed(store_name, **params)


def test_S37_the_run_that_the_crashes_are_compared_with_is_the_one_that_is_meant(store_name: str) -> None:
    status, result, error = undisturbed(store_name).result
    assert (status, error) == ("completed", None)
    assert result["tasks"] == [[kind, "completed"] for kind in ("listing", *["square"] * UNITS, "total")]
    assert result["results"][-1] == {"total": sum(n * n for n in range(UNITS))}
    # The sweeps below find their points by running into them; this is what they must not lose.
    assert undisturbed(store_name).transactions >= 21
    status, _, error = undisturbed(store_name, wrong=1).result
    assert status == "failed"
    assert "'unit-1' (square, number 1) failed without a retry: ValueError: no unit 1" in error
    assert undisturbed(store_name, wrong=1).transactions >= 18


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """*moments*: when transactions are crashed. Of several moments each has its turn, one transaction after another."""
    if "moments" in metafunc.fixturenames:
        metafunc.parametrize("moments", turns(metafunc.config, MOMENTS), ids=" ".join)


@pytest.fixture
def stride(store_name: str, request: pytest.FixtureRequest) -> int:
    """From one transaction that is crashed to the next: to open a DuckDB file takes too long for all, by default."""
    return 4 if is_duckdb(store_name) and not is_thorough(request.config) else 1


def points(moments: Sequence[Moment], stride: int, turn: int = 0) -> Iterator[tuple[int, Moment]]:
    """Each transaction's number, and when to crash it. With another *turn*, the moments come to other transactions."""
    return zip(count(1, stride), islice(cycle(moments), turn, None), strict=False)


@pytest.mark.parametrize("params", [{}, {"wrong": 1}], ids=["completes", "fails"])
def test_S37_a_crash_at_any_transaction_loses_nothing_and_repeats_nothing(
    tmp_path: Path, store_name: str, params: dict[str, Any], moments: Sequence[Moment], stride: int
) -> None:
    expected = undisturbed(store_name, **params)
    for at, moment in points(moments, stride, turn=len(params)):
        folder = tmp_path / str(at)
        folder.mkdir()
        case = Case(folder, store_name, **params)
        if not case.crashes(at, moment):
            break
        done, ran = case.completed(), case.executions()
        case.resume()
        case.check()
        assert case.result() == expected.result, at
        assert {name: case.executions()[name] for name in done} == {name: ran[name] for name in done}, at
        assert all(retries == failed for retries, failed in case.charged()), at
        lost = {
            f"{name} {n}" for name, n in case.select("SELECT task_id, attempt FROM attempts WHERE outcome = 'lost'")
        }
        assert len(lost) < UNITS, "they travelled together"
        assert len(lost.intersection(case.trace.read_text().splitlines())) <= 1, "what was done is written at once"
        case.look_away()
    assert at > expected.transactions - 2 - stride


def test_S10_a_crash_within_a_rerun_loses_neither_the_old_nor_the_new(
    tmp_path: Path, store_name: str, moments: Sequence[Moment], stride: int
) -> None:
    case = Case(tmp_path, store_name)
    assert case.runs(crashing(case.path))
    case.trace.write_text("")  # the attempts are counted from 1 again
    finished = case.saved()
    for at, moment in points(moments, stride, turn=2):
        case.restore(finished)
        if not case.crashes(at, moment, on_existing="rerun"):
            break
        begun = bool(case.select("SELECT 1 FROM stages WHERE superseded"))
        done, ran = case.completed(), case.executions()
        case.resume()
        case.check()
        assert case.result() == undisturbed(store_name).result, at
        if begun:
            assert {name: case.executions()[name] for name in done} == {name: ran[name] for name in done}, at
        history = case.select("SELECT count(*) FROM tasks WHERE superseded AND status = 'completed'")
        assert history == [(UNITS + 2 if begun else 0,)], at
    assert at > undisturbed(store_name).transactions - 3 - stride


def test_S37_a_crash_while_a_failed_job_is_resumed_does_not_matter(
    tmp_path: Path, store_name: str, moments: Sequence[Moment], stride: int
) -> None:
    case = Case(tmp_path, store_name, wrong=4)
    assert case.runs(crashing(case.path))
    done, ran = case.completed(), case.executions()
    failed = case.saved()
    for at, moment in points(moments, stride):
        case.restore(failed)
        if not case.crashes(at, moment):
            break
        case.resume()
        case.check()
        assert case.result()[0] == "failed"
        assert {name: case.executions()[name] for name in done} == {name: ran[name] for name in done}, at
    assert at > 5


def test_S37_S50_a_crash_within_a_repair_loses_nothing_and_runs_nothing_again_that_had_completed(
    tmp_path: Path, store_name: str, moments: Sequence[Moment], stride: int
) -> None:
    case = Case(tmp_path, store_name, wrong=4)
    assert case.runs(crashing(case.path), on_failure="continue")
    status, result, _ = case.result()
    assert (status, [kind for kind, state in result["tasks"] if state == "failed"]) == ("completed", ["square"])
    kept = case.completed() & {f"unit-{n}" for n in range(UNITS)}
    case.trace.write_text("")
    case.trace.with_name("mended").touch()
    finished = case.saved()
    for at, moment in points(moments, stride, turn=1):
        case.restore(finished)
        if not (ended := case.is_repaired(crashing(case.path, at, moment))):
            case.resume()
            assert case.is_repaired(crashing(case.path)), "where it had not begun"
        case.check()
        assert case.result() == undisturbed(store_name).result, at
        assert kept.isdisjoint(case.executions()), at
        if ended:
            break
    assert at > 5


@a_share(0.25)
@given(st.lists(st.tuples(st.integers(1, 16), st.sampled_from(MOMENTS)), min_size=2, max_size=4))
def test_S37_several_crashes_one_after_another_lose_nothing_and_repeat_nothing(
    store_name: str, crashes: Sequence[tuple[int, Moment]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder), store_name)
        done: set[str] = set()
        ran: Counter[str] = Counter()
        for at, moment in crashes:
            case.crashes(at, moment)
            now = case.executions()
            assert all(now[name] == ran[name] for name in done)
            done, ran = case.completed(), now
        case.resume()
        if case.result()[0] == "failed":
            # It may: a task that is lost with its engine three times in a row is taken for what kills it (S30).
            outcomes = case.select("SELECT outcome, error_type FROM attempts WHERE error_type = 'EngineLost'")
            assert [outcome for outcome, _ in outcomes].count("lost") >= 2
            assert case.runs(crashing(case.path), on_existing="resume")
        else:
            assert all(retries == failed for retries, failed in case.charged())
        case.check()
        assert case.result() == undisturbed(store_name).result
        now = case.executions()
        assert all(now[name] == ran[name] for name in done)
        case.look_away()


class DiesWithTheTask(Crashing):
    """Its process dies whenever a task's end would be written."""

    def commit(self, lease: Lease, moves: Sequence[Move], *more: Any) -> Any:
        if any(move.event == "complete" for move in moves):
            raise Crash
        return super().commit(lease, moves, *more)


class SqliteDies(DiesWithTheTask, SqliteStore): ...


class DuckDbDies(DiesWithTheTask, DuckDbStore): ...


def test_S30_a_task_lost_with_its_engine_three_times_in_a_row_fails_its_job_and_says_why(
    tmp_path: Path, store_name: str
) -> None:
    case = Case(tmp_path, store_name)
    for _ in range(3):
        assert not case.runs(DuckDbDies(case.path) if is_duckdb(case.path) else SqliteDies(case.path))
    case.resume()
    status, _, error = case.result()
    assert status == "failed"
    assert "'list'" in error
    assert "may be what kills it" in error
    assert case.select("SELECT attempt, outcome, error_category FROM attempts ORDER BY attempt") == [
        (1, "lost", "lost"),
        (2, "lost", "lost"),
        (3, "failed", "lost"),
    ]
    assert case.select("SELECT retries FROM tasks") == [(0,)]
    case.check()
    assert case.runs(crashing(case.path), on_existing="resume")  # whoever knows better may go on
    assert case.result() == undisturbed(store_name).result


def test_S36_what_a_crash_leaves_is_in_the_log_as_a_kill_would_leave_it(tmp_path: Path) -> None:
    case = Case(tmp_path, "work.duckdb")
    assert case.crashes(12, "after")
    log = case.path.with_name(f"{case.path.name}.wal")
    assert log.stat().st_size > case.path.stat().st_size
    assert case.completed()
    case.look_away()
    assert not log.exists()


# Real processes, really killed


def run_until_killed(path: str, params: str, at: str, moment: Moment, workers: str) -> None:
    """What the child process does."""
    store = crashing(Path(path), int(at), moment)
    store.die = kill_this_process  # type: ignore[method-assign]
    session_with(store, workers=int(workers)).run("squares", json.loads(params))


CHILD = "import sys; from tests.engine import test_crash_points; test_crash_points.run_until_killed(*sys.argv[1:])"


@pytest.mark.on_duckdb(seldom=True)
@pytest.mark.parametrize(
    ("at", "moment", "workers"),
    [
        *[(1, "within", 0), (4, "after", 0), (9, "within", 0), (13, "before", 0)],
        *[(5, "after", 2), (8, "within", 2), (10, "after", 2), (12, "before", 2)],
    ],
)
def test_S37_a_process_killed_at_a_transaction_is_followed_by_one_that_goes_on(
    tmp_path: Path, store_name: str, at: int, moment: Moment, workers: int
) -> None:
    case = Case(tmp_path, store_name)
    killed = subprocess.run(
        [sys.executable, "-c", CHILD, case.path, json.dumps(case.params), str(at), moment, str(workers)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done, ran = case.completed(), case.executions()
    case.resume()
    case.check()
    assert case.result() == undisturbed(store_name).result
    assert {name: case.executions()[name] for name in done} == {name: ran[name] for name in done}
    assert all(retries == failed for retries, failed in case.charged())
