"""Faults on purpose, wherever tasks run; and a task that becomes a test."""

from __future__ import annotations

import concurrent.futures
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.engine import hooks
from geoflow.errors import DefinitionError, ParameterError
from geoflow.jobtypes import loading
from geoflow.testing import die, fail, fail_some, failure_of, hang, returns, slow
from geoflow.testing.faults import Faulty
from geoflow.usercode.packing import pack
from tests.helpers import jobs
from tests.helpers.clocks import ManualClock
from tests.helpers.sessions import OpenSession, rows

FOUR: dict[str, Any] = {"tasks": [{"value": number} for number in range(4)]}


@pytest.fixture(params=["inline", "processes", "threads", "dask"])
def anywhere(request: pytest.FixtureRequest, open_session: OpenSession, clock: ManualClock) -> Iterator[gf.Session]:
    """A session whose tasks run here, in worker processes, in a pool of threads, on a Dask cluster of processes."""
    if request.param in ("inline", "processes"):
        yield open_session(workers=0 if request.param == "inline" else 2, clock=clock)
    elif request.param == "threads":
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            yield open_session(executor=pool, clock=clock)
    else:
        distributed = pytest.importorskip("distributed", reason='needs Dask: pip install "geoflow[dask]"')
        with (
            distributed.LocalCluster(
                1, threads_per_worker=2, dashboard_address=None, silence_logs="CRITICAL"
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            found = open_session(executor=client.get_executor(), clock=clock)
            yield found
            found.close()


@pytest.fixture
def inline(open_session: OpenSession, clock: ManualClock) -> gf.Session:
    return open_session(workers=0, clock=clock)


def outcomes(job: gf.JobHandle) -> list[tuple[Any, ...]]:
    """(task, attempt, type of error, seconds of backoff) of each execution, by task."""
    found = job.attempts()
    found = found.assign(backoff=found["backoff"].dt.total_seconds()).sort_values(["task_id", "attempt"])
    found = found[["task_id", "attempt", "error_type", "backoff"]].astype(object)
    return list(found.where(found.notna(), None).itertuples(index=False, name=None))


def failed(job: gf.JobHandle) -> list[str]:
    """The tasks that had an attempt that failed."""
    return sorted({task for task, _, error, _ in outcomes(job) if error})


# What happens


def test_S26_a_fault_comes_at_the_attempts_it_was_asked_for_wherever_tasks_run(anywhere: gf.Session) -> None:
    with fail("act", times=2):
        job = anywhere.run("acts", tasks=[{"value": 1}])
    assert outcomes(job) == [("s1-t0", 1, "OSError", None), ("s1-t0", 2, "OSError", 1), ("s1-t0", 3, None, 2)]
    assert job.result()["values"] == [1]


def test_S23_the_exception_decides_what_follows(inline: gf.Session) -> None:
    with fail("act", with_=ValueError, message="no such band"):
        job = inline.run("acts", tasks=[{}])
    assert (job.status, job.task().error) == ("failed", "ValueError: no such band")
    assert [attempt for _, attempt, _, _ in outcomes(job)] == [1]


def test_a_fault_may_come_at_certain_attempts_or_at_all(inline: gf.Session) -> None:
    with fail(("act", 0), attempts=[1, 3]), fail(("act", 1), attempts=[2]), fail(("act", 2), times=None):
        job = inline.run("acts", tasks=[{}, {"do": "raise", "value": "RuntimeError", "until_attempt": 2}, {}])
    errors = [(task, error) for task, _, error, _ in outcomes(job)]
    assert errors[:3] == [("s1-t0", "OSError"), ("s1-t0", None), ("s1-t1", "RuntimeError")]
    assert errors[3:5] == [("s1-t1", "OSError"), ("s1-t1", None)]
    assert errors[5:] == [("s1-t2", "OSError")] * 4


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("s1-t1", ["s1-t1"]),  # and not s1-t10
        ("s1-", [f"s1-t{number}" for number in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)]),
        ("Act", [f"s1-t{number}" for number in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)]),
        (("act", 10), ["s1-t10"]),
    ],
)
def test_a_task_goes_by_its_id_its_beginning_its_type_or_its_place(inline: gf.Session, named: Any, meant: Any) -> None:
    with fail(named):
        job = inline.run("acts", tasks=[{} for _ in range(11)])
    assert failed(job) == meant


def test_the_beginning_of_an_id_of_hex_digits_may_end_within_a_number(inline: gf.Session) -> None:
    job = inline.run("three_acts", tasks=[{}])
    (name,) = job.tasks().query("task_type == 'collect'")["task_id"]
    with fail(name[:6]):
        inline.run("three_acts", tasks=[{}], on_existing="rerun")
    assert failed(job) == [name]


def test_a_function_of_a_typed_job_type_goes_by_its_own_name(inline: gf.Session) -> None:
    tiles = gf.JobType("tiles")

    @tiles.stage
    def scan(p: dict) -> list[int]:
        return [1, 2]

    @tiles.each(scan)
    def stat(tile: int, context: gf.TaskContext) -> dict:
        return {"tile": tile, "attempt": context.attempt}

    with fail(("stat", 1)):
        job = tiles.run(session=inline)
    assert job.result()["results"] == [{"tile": 1, "attempt": 1}, {"tile": 2, "attempt": 2}]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_S30_a_worker_that_dies_costs_its_task_one_attempt_and_the_error_names_the_signal(
    open_session: OpenSession, clock: ManualClock, number: signal.Signals
) -> None:
    session = open_session(clock=clock)
    with die("s1-t2", signal=number):
        job = session.run("acts", FOUR)
    assert job.result()["values"] == [0, 1, 2, 3]
    (error,) = job.errors().itertuples()
    assert (error.task_id, error.attempt, error.error_type) == ("s1-t2", 1, "WorkerDied")
    assert number.name in str(error.error)


@pytest.mark.parametrize("fault", [die("act"), hang("act")])
def test_what_needs_a_process_is_refused_without_one_and_nothing_is_stored(inline: gf.Session, fault: Any) -> None:
    with pytest.raises(ParameterError, match=r"gf\.testing\.(die|hang)\('act'\) needs a process .* workers=1"), fault:
        inline.run("acts", FOUR)
    assert rows(inline, "SELECT * FROM job") == []


def test_a_pool_of_threads_is_spared_the_death(open_session: OpenSession) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool, die("act"):
        job = open_session(executor=pool).run("acts", tasks=[{}])
    assert "in the testing process itself, which would die" in str(job.task().error)


def test_S31_a_task_that_hangs_is_ended_by_its_timeout(open_session: OpenSession, clock: ManualClock) -> None:
    session = open_session(clock=clock, task_timeout=1.0)
    with hang("s1-t1"):
        job = session.run("acts", FOUR)
    assert job.result()["values"] == [0, 1, 2, 3]
    assert job.errors()[["task_id", "attempt", "error_type"]].to_numpy().tolist() == [["s1-t1", 1, "TaskTimeout"]]


def test_a_hang_that_nothing_ends_says_so_and_is_not_retried(open_session: OpenSession) -> None:
    with hang("act", seconds=0.01):
        job = open_session().run("acts", tasks=[{}])
    assert "nothing stopped task s1-t0 for 0.01 s. Give its stage a timeout" in str(job.task().error)
    assert len(job.attempts()) == 1


def test_a_slow_task_takes_the_time_and_does_its_work(inline: gf.Session) -> None:
    with slow(("act", 1), 0.05):
        job = inline.run("acts", FOUR)
    assert job.result()["values"] == [0, 1, 2, 3]
    assert [span.total_seconds() >= 0.05 for span in job.attempts()["duration"]] == [False, True, False, False]


def test_S20_what_stands_for_the_result_is_judged_as_the_handlers_own(inline: gf.Session) -> None:
    stands = {"success": True, "result": {"value": "other"}}
    with returns("s1-t0", stands), returns("s1-t1", None), returns("s1-t2", {"success": False, "error": "no"}, times=1):
        job = inline.run("acts", FOUR)
    assert job.task("s1-t0").result == stands
    assert "must return a dict with 'success'" in str(job.task("s1-t1").error)
    assert [row[2] for row in outcomes(job) if row[0] == "s1-t2"] == ["ReturnedFailure", None]


def test_faults_go_together_the_first_one_first(inline: gf.Session) -> None:
    with fail("act", message="first"), fail("act", times=2, message="second"), returns("s1-t3", 3):
        job = inline.run("acts", FOUR)
    assert job.attempts()["error"].tolist()[:2] == ["first", "second"]
    assert [row[2] for row in outcomes(job)][-3:] == ["OSError", "OSError", "ContractViolationError"]


def test_a_share_of_the_tasks_is_the_same_each_time_whatever_their_ids_and_parameters(inline: gf.Session) -> None:
    found = []
    for folder, seed in (("a", 7), ("b", 7), ("a", 8)):
        with fail_some(0.25, seed):
            job = inline.run("acts", tasks=[{"value": folder}] * 80, seed=seed)
        assert job.status == "completed"
        found.append(failed(job))
    assert found[0] == found[1] != found[2]
    assert 10 < len(found[0]) < 30


# What stays as it is


def test_S25_a_handler_with_a_fault_keeps_its_signature_its_errors_and_its_prints(inline: gf.Session) -> None:
    with slow("act", 0):
        job = inline.run("three_acts", tasks=[{"do": "say", "value": "hello"}, {"do": "raise odd", "value": "no text"}])
    assert "hello" in str(job.task("s1-t0").output)
    assert "in _raise_odd" in str(job.errors()["traceback"].iloc[-1])
    assert pack(Faulty(jobs.act, ())).own == pack(jobs.act).own == ("tests",)
    with slow("collect", 0):  # which takes no context
        assert inline.run("three_acts", tasks=[{}]).status == "completed"


def test_outside_of_the_block_nothing_is_left_of_it(inline: gf.Session) -> None:
    with fail("act", times=None, with_=ValueError):
        job = inline.run("acts", tasks=[{}])
    assert job.status == "failed"
    assert hooks._replace is None
    assert job.retry_failed().wait().status == "completed"
    assert set(job.attempts()["code"]) == {pack(jobs.act).fingerprint}, "a fault is no other code"


def test_what_cannot_travel_is_told_before_anything_is_stored(inline: gf.Session) -> None:
    with open(__file__) as file, pytest.raises(DefinitionError, match="act uses the open file"), returns("act", file):
        inline.run("acts", FOUR)
    assert rows(inline, "SELECT * FROM job") == []


# A fault that is not met


@pytest.mark.parametrize("fault", [fail("stats"), fail(("act", 4)), fail("s1-t9"), fail_some(0.001)])
def test_a_fault_that_was_meant_for_no_task_fails_the_test(inline: gf.Session, fault: Any) -> None:
    told = rf"{re.escape(repr(fault))} was meant for none of the 4 tasks in its block: s1-t0 \(act, 0\), "
    with pytest.raises(AssertionError, match=told), fault:
        inline.run("acts", FOUR)


def test_a_fault_of_a_job_that_was_there_already_fails_the_test(inline: gf.Session) -> None:
    inline.run("acts", FOUR)
    with pytest.raises(AssertionError, match=r"held for no job.* again with on_existing"), fail("act"):
        inline.run("acts", FOUR)


def test_the_tests_own_failure_is_not_hidden_by_a_fault_that_was_not_met() -> None:
    with pytest.raises(ZeroDivisionError), fail("act"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "wrong",
    [lambda: fail(3), lambda: fail("act", times=0), lambda: fail_some(10), lambda: fail(("act", 1, 2))],  # type: ignore[arg-type]
)
def test_what_makes_no_fault_is_refused(wrong: Any) -> None:
    with pytest.raises(ParameterError):
        wrong()


@pytest.mark.parametrize("fault", [fail, die, hang, partial(slow, seconds=0), partial(returns, value={}), fail_some])
def test_times_and_attempts_that_contradict_each_other_are_refused_by_every_fault(fault: Any) -> None:
    with pytest.raises(ParameterError, match=r"times=2 and attempts=\[2, 3\] both say .*: give one of them"):
        fault(task="act", times=2, attempts=[2, 3])


@pytest.mark.parametrize("attempts", [[], [0], [True], "12", 3, [1, "2"]])
def test_attempts_at_which_nothing_could_ever_happen_are_refused(attempts: Any) -> None:
    with pytest.raises(ParameterError, match=r"attempts are the numbers of some attempts, from 1 on"):
        fail("act", attempts=attempts)


@pytest.mark.parametrize("fault", [partial(fail, "act"), fail_some])
def test_an_exception_that_is_made_already_is_refused_since_its_text_is_the_message(fault: Any) -> None:
    with pytest.raises(ParameterError, match=r"not ValueError\('one'\): give its text as message"):
        fault(with_=ValueError("one"), message="another")


# A task as a test

TILES = """
    import datetime
    import functools
    import os
    from dataclasses import dataclass

    import geoflow as gf

    class TileError(Exception):
        pass

    @dataclass
    class Params:
        folder: str

    tiles = gf.JobType("tiles", params=Params)

    @tiles.stage
    def scan(p: Params) -> list[str]:
        return ["good", "it's \\"bad\\""]

    @tiles.each(scan)
    def stat(tile: str, p: Params, context: gf.TaskContext) -> dict:
        if tile != "good" and not os.path.exists(p.folder):
            raise TileError(f"{tile} is \\\\ 'broken'\\nin two lines")
        context.logger.info("done")
        return {"tile": tile, "day": datetime.date(2024, 1, 2), "size": 1e-7, "bands": [{"none": None}] * 9}
"""


@pytest.fixture
def tiles(tmp_path: Path) -> Iterator[Any]:
    """The module ``tiles`` in ``src``, whose second task fails while its folder is missing."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "tiles.py").write_text(textwrap.dedent(TILES))
    yield loading.load(str(tmp_path / "src" / "tiles.py"))
    sys.path.remove(str(tmp_path / "src"))
    del sys.modules["tiles"]


def pytest_says(folder: Path, **environment: str) -> dict[str, str]:
    """What becomes of each file of tests in *folder*, in a pytest of its own."""
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider", str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        env={"PATH": "", **environment},
    )
    found = re.findall(r"^(PASSED|FAILED|ERROR) (?:\S*/)?test_(\w+)\.py", said.stdout, re.MULTILINE)
    assert found, said.stdout + said.stderr
    return {name: word.lower() for word, name in found}


def unwrapped(path: Path) -> str:
    """What is in the file, its comments in one line."""
    return re.sub(r"\n +# ", " ", path.read_text())


def test_a_failed_task_becomes_a_test_that_fails_until_it_is_mended(
    inline: gf.Session, tiles: Any, tmp_path: Path
) -> None:
    job = inline.run(tiles.tiles, folder=str(tmp_path / "data"))
    tests = tmp_path / "tests"
    done, bad = job.tasks().query("stage == 2")["task_id"]
    assert job.task(bad).to_pytest(tests / "test_bad.py") == tests / "test_bad.py"
    job.task(bad).to_pytest(tests / "test_raises.py", expect="failure")
    job.task(done).to_pytest(str(tests / "test_done.py"))
    assert pytest_says(tests) == {"bad": "failed", "raises": "passed", "done": "passed"}
    (tmp_path / "data").mkdir()
    assert pytest_says(tests) == {"bad": "passed", "raises": "failed", "done": "passed"}
    assert "failed with TileError: it's" in unwrapped(tests / "test_bad.py")


def test_ruff_finds_nothing_wrong_with_the_file(inline: gf.Session, tiles: Any, tmp_path: Path) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or pytest.skip("needs ruff")
    job = inline.run(tiles.tiles, folder="C:\\data " * 12)
    odd = {"a'b": 'c"d', "é" * 30: ["\n\t\\", [], {}, {"": [1.5, -2, True, None]}], "long": "word " * 30, "secret": [1]}
    odd["names of modules"] = "There. A.json. Os. Logging. pytest. gf."
    acts = inline.run(
        "acts", tasks=[{"value": odd}, {"do": "fail"}, {"do": "return lock"}, {"do": "raise odd", "value": "lock"}]
    )
    tests = tmp_path / "tests"
    for found in (job, acts):
        for name in found.tasks()["task_id"]:
            task = found.task(name)
            task.to_pytest(tests / f"test_{found.job_type}_{task.index}_{task.stage}.py")
            if task.status == "failed":
                task.to_pytest(tests / f"test_{found.job_type}_{task.index}_raises.py", expect="failure")
    assert len([*tests.iterdir()]) == 11
    subprocess.run([ruff, "check", "--select", "F,E4,E7,E9", str(tests)], check=True)


def test_each_kind_of_failure_is_expected_as_it_was(inline: gf.Session, tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "returned": {"do": "fail", "value": {"retryable": False}},
        "nothing": {"do": "return", "value": {"success": False, "retryable": False}},
        "contract": {"do": "return", "value": 3},
        "unstorable": {"do": "return lock"},
        "key": {"do": "raise odd", "value": "no such"},  # KeyError
        "module": {"do": "raise odd", "value": "two arguments"},
        "untold": {"do": "raise odd", "value": "no text"},
        "exit": {"do": "raise", "value": "SystemExit"},
    }
    with fail("s1-t8", times=None, with_=jobs.Holding.__mro__[1]):  # a plain Exception
        job = inline.run("acts", tasks=[*wrong.values(), {}])
    for number, name in enumerate(wrong):
        job.task(f"s1-t{number}").to_pytest(tmp_path / f"test_{name}.py", expect="failure")
        job.task(f"s1-t{number}").to_pytest(tmp_path / f"test_{name}_mended.py")
    expected = dict.fromkeys(wrong, "passed") | {f"{name}_mended": "failed" for name in wrong}
    assert pytest_says(tmp_path) == expected


def test_how_a_call_fails_is_told_in_the_engines_words_and_one_that_succeeds_is_no_failure() -> None:
    def handler(params: dict[str, Any]) -> Any:
        if params["raise"]:
            raise FileNotFoundError("no such tile")
        return params

    raised, returned = failure_of(handler, {"raise": True}), failure_of(handler, {"raise": False, "success": False})
    assert raised[:4] == ("no such tile", "FileNotFoundError", "transient", True)
    assert "in handler" in str(raised.traceback)
    assert returned.error_type == "ReturnedFailure"
    assert failure_of(handler, {"raise": False}).error_type == "ContractViolationError"
    with pytest.raises(AssertionError, match="did not fail, but returned"):
        failure_of(handler, {"raise": False, "success": True})


def test_S44_what_looks_secret_is_taken_from_the_environment(inline: gf.Session, tmp_path: Path) -> None:
    task: dict[str, Any] = {"password": "hunter2", "do": "return", "nested": [{"api_key": 860281}, {"api_key": 860287}]}
    task["value"] = {"success": True, "url": "https://host/a?sig=c0ffee", "token": "t0p", "echo": "hunter2"}
    path = inline.run("acts", tasks=[task]).task("s1-t0").to_pytest(tmp_path / "test_secret.py")
    text = path.read_text()
    assert not re.search("hunter2|c0ffee|t0p|860281|860287", text.replace(re.findall("job_id='(.*)'", text)[0], ""))
    given = {"PASSWORD": "hunter2", "API_KEY": "860281", "API_KEY_2": "860287", "TOKEN": "t0p"}
    given["URL"] = "https://host/a?sig=c0ffee"
    assert pytest_says(tmp_path) == {"secret": "failed"}
    assert pytest_says(tmp_path, **{f"GEOFLOW_TEST_{name}": value for name, value in given.items()}) == {
        "secret": "passed"
    }


@pytest.fixture
def importable(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Makes a module ``bands`` of some code."""

    def made(code: str) -> Any:
        (tmp_path / "bands.py").write_text(code)
        return loading.load(str(tmp_path / "bands.py"))

    yield made
    sys.path.remove(str(tmp_path))
    del sys.modules["bands"]


def test_S44_a_secret_of_the_parameters_is_not_told_with_the_error(
    inline: gf.Session, importable: Callable[[str], Any], tmp_path: Path
) -> None:
    bands = importable("def log_in(params):\n    raise ValueError(f'{params[\"password\"]} was refused')\n")
    inline.register(jobs.Acts, handlers={"act": bands.log_in})
    task = inline.run("acts", tasks=[{"password": "hunter2"}]).task()
    for name, expect in (("mended", None), ("raises", "failure")):
        text = unwrapped(task.to_pytest(tmp_path / f"test_{name}.py", expect=expect))  # type: ignore[arg-type]
        assert "failed with ValueError: *** was refused" in text
        assert "hunter2" not in text
    assert pytest_says(tmp_path, GEOFLOW_TEST_PASSWORD="other") == {"mended": "failed", "raises": "passed"}


def test_what_is_imported_is_not_taken_for_a_test(
    inline: gf.Session, importable: Callable[[str], Any], tmp_path: Path
) -> None:
    bands = importable("def test_band(params):\n    return {'success': params == {'n': 1}}\n")
    inline.register(jobs.Acts, handlers={"act": bands.test_band})
    inline.run("acts", tasks=[{"n": 1}]).task("s1-t0").to_pytest(tmp_path / "test_band.py")
    assert pytest_says(tmp_path) == {"band": "passed"}


def test_small_inputs_go_along_and_paths_are_seen_from_the_test(
    inline: gf.Session, importable: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = importable(
        "def count(params):\n"
        "    texts = [open(params[name]).read() for name in ('scene', 'near', 'here')]\n"
        "    return {'success': True, 'result': {'scene': params['scene'], 'texts': texts, 'mode': params['mode']}}\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("elsewhere/scene.shp", "elsewhere/scene.dbf", "data/near.txt", "here.txt", "mode"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"this is {name}")
    given = {"scene": str(tmp_path / "elsewhere/scene.shp"), "near": str(tmp_path / "data/near.txt")}
    inline.register(jobs.Acts, handlers={"act": bands.count})
    task = inline.run(
        "acts", tasks=[{**given, "here": "here.txt", "mode": "mode", "token": str(tmp_path / "here.txt")}]
    )
    path = tmp_path / "tests" / "test_count.py"
    task.task("s1-t0").to_pytest(path, inputs="scene")
    text = path.read_text()
    assert str(tmp_path) not in text.replace("import", "")
    assert [each.name for each in sorted((tmp_path / "tests/test_count_inputs/0").iterdir())] == [
        "scene.dbf",
        "scene.shp",
    ]
    assert '"mode": "mode"' in text or "'mode': 'mode'" in text  # a word, though there is a file of that name
    (tmp_path / "elsewhere/scene.shp").unlink()
    (tmp_path / "tests").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert pytest_says(tmp_path / "moved", GEOFLOW_TEST_TOKEN="x") == {"count": "passed"}
    with pytest.raises(ParameterError, match=r"What is to be taken along is 21 B .* more than the limit of 1e-06 MB"):
        task.task("s1-t0").to_pytest(tmp_path / "test_other.py", inputs="near", limit=1e-6)
    assert not [*tmp_path.glob("test_other*")]


def test_a_handler_of_a_notebook_is_to_be_exported_first(inline: gf.Session, tmp_path: Path) -> None:
    def measure(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}

    inline.register(jobs.Acts, handlers={"act": measure})
    task = inline.run("acts", FOUR).task("s1-t0")
    with pytest.raises(DefinitionError, match=r"measure, the handler of 'act', is not in a file .* gf\.export"):
        task.to_pytest(tmp_path / "test_it.py")
    assert list(tmp_path.glob("test_it*")) == []


def test_a_file_that_is_there_is_left_alone_unless_told(inline: gf.Session, tmp_path: Path) -> None:
    job = inline.run("acts", FOUR)
    path = job.task("s1-t0").to_pytest(tmp_path / "test_it.py")
    before = path.read_text()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        job.task("s1-t1").to_pytest(path)
    assert path.read_text() == before
    assert job.task("s1-t1").to_pytest(path, overwrite=True).read_text() != before


def test_what_would_be_no_test_is_refused(open_session: OpenSession, clock: ManualClock, tmp_path: Path) -> None:
    session = open_session(clock=clock)
    with die("s1-t1", times=None):
        job = session.run("acts", FOUR)
    with pytest.raises(ParameterError, match=r"call it|a name like test_act\.py"):
        job.task("s1-t0").to_pytest(tmp_path / "stat.py")
    with pytest.raises(ParameterError, match="is completed: it has no error to expect"):
        job.task("s1-t0").to_pytest(tmp_path / "test_it.py", expect="failure")
    with pytest.raises(ParameterError, match=r"WorkerDied: .*would do the same to pytest.*expect='success'"):
        job.task("s1-t1").to_pytest(tmp_path / "test_it.py")
    assert job.task("s1-t1").to_pytest(tmp_path / "test_it.py", expect="success").exists()
    with pytest.raises(ParameterError, match=r"would take .* characters"):
        session.run("acts", tasks=[{"value": "x" * 200_000}]).task("s1-t0").to_pytest(tmp_path / "test_long.py")
