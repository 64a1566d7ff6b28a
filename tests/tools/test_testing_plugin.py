"""The pytest plugin, in a pytest of its own: its fixtures, its marker, and that it costs nothing unless it is used."""

from __future__ import annotations

import importlib.metadata
import queue
import re
from pathlib import Path

import pytest

from geoflow.testing.plugin import SkippingClock

pytest_plugins = ["pytester"]
LEFT_OUT = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")  # the latter takes as long to import as all else
DOCS = Path(__file__).parents[2] / "docs" / "testing.md"

JOBS = '''
    import geoflow as gf

    hexes = gf.JobType("hexes", description="Numbers in base 16.")

    @hexes.stage
    def scan(p: dict) -> list[int]:
        """The numbers."""
        return [1, 15, 255]

    @hexes.each(scan, retries=3)
    def turn(number: int, context: gf.TaskContext) -> dict:
        """One of them."""
        return {"hex": f"{number:x}", "attempt": context.attempt}
'''


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with a module of job types, ``hexjobs``."""
    pytester.makepyfile(hexjobs=JOBS)
    return pytester


def passes(project: pytest.Pytester, test: str, *options: str, **outcomes: int) -> pytest.RunResult:
    project.makepyfile(test_it=f"import os, sys, time\nimport pytest\nimport geoflow as gf\nimport hexjobs\n{test}")
    result = project.runpytest_subprocess(*LEFT_OUT, *options)
    result.assert_outcomes(**outcomes or {"passed": 1})
    return result


def test_an_installed_geoflow_brings_the_plugin() -> None:
    (found,) = importlib.metadata.entry_points(group="pytest11", name="geoflow")
    assert found.value == "geoflow.testing.plugin"


def test_S26_retries_do_not_wait_but_are_recorded_with_their_backoff(project: pytest.Pytester) -> None:
    passes(
        project,
        """
def test_it(geoflow_session):
    with gf.testing.fail(("turn", 1), times=3):
        job = geoflow_session.run(hexjobs.hexes)
    assert [task["hex"] for task in job.result()["results"]] == ["1", "f", "ff"]
    attempts = job.attempts().query("task_index == 1 and stage == 2")
    assert attempts["backoff"].dt.total_seconds().fillna(0).tolist() == [0, 1, 2, 4]
    assert geoflow_session.jobs()["duration"].dt.total_seconds().item() >= 7
    assert geoflow_session.runtime.clock.now() - time.time() > 6.9  # which were skipped
""",
    )


def test_the_session_is_the_tests_own_and_serves_those_that_name_none(project: pytest.Pytester) -> None:
    project.makepyfile(
        conftest="""
            import os
            os.environ["GEOFLOW_STORE"], os.environ["GEOFLOW_MAX_RETRIES"] = "theirs.db", "0"
        """
    )
    passes(
        project,
        """
@pytest.mark.parametrize("again", [1, 2])
def test_it(geoflow_session, again):
    with gf.testing.fail("turn"):
        job = hexjobs.hexes.run()
    assert job.status == "completed"
    assert len(geoflow_session.jobs()) == len(gf.jobs()) == 1

def test_nothing_is_left():
    assert os.environ["GEOFLOW_STORE"] == "theirs.db"
    assert gf.default_session().settings.store_name == "theirs.db"
    assert sorted(name for name in os.listdir() if "db" in name or "log" in name) == []
""",
        passed=3,
    )


def test_a_marker_gives_the_session_other_options(project: pytest.Pytester) -> None:
    passes(
        project,
        """
@pytest.mark.geoflow(workers=1, task_timeout=30)
def test_it(geoflow_session):
    with gf.testing.die(("turn", 2)):
        job = geoflow_session.run(hexjobs.hexes)
    assert job.status == "completed"
    assert job.errors()["error_type"].tolist() == ["WorkerDied"]
    assert not (job.attempts()["pid"] == os.getpid()).any()
""",
        "--strict-markers",
        "-W",
        "error",
    )


def test_a_check_fails_the_test_with_what_was_found(project: pytest.Pytester) -> None:
    result = passes(
        project,
        """
class Broken:
    job_type = "broken"
    description = "Without its methods."
    stages = [{"number": 1, "name": "a", "task_type": "turn"}]

def test_good(geoflow_check):
    assert geoflow_check(hexjobs.hexes).ok

def test_broken(geoflow_check):
    geoflow_check(Broken, {})

class Odd(hexjobs.hexes.contract()):
    job_type = "odd"
    description = None  # which is a warning

def test_odd(geoflow_check):
    report = geoflow_check(Odd, hexjobs.hexes.handlers(), run=False)
    assert {found.severity for found in report.findings} >= {"warning"}

def test_odd_strictly(geoflow_check):
    geoflow_check(Odd, hexjobs.hexes.handlers(), strict=True, run=False)
""",
        passed=2,
        failed=2,
    )
    result.stdout.fnmatch_lines(
        ["*error GF*broken*", "*the method validate_job_parameters is missing*", "*warning GF*odd*"]
    )
    assert "plugin.py" not in result.stdout.str()


def test_pytest_starts_as_fast_as_without(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import sys

        def test_it():
            assert "geoflow.testing.plugin" in sys.modules
            ours = {name for name in sys.modules if name.startswith("geoflow")}
            assert ours == {"geoflow", "geoflow.testing", "geoflow.testing.plugin"}
            assert not {"pandas", "duckdb", "pydantic", "IPython", "ipywidgets"} & set(sys.modules)
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=1)


def test_the_plugin_can_be_left_out(project: pytest.Pytester) -> None:
    result = passes(project, "def test_it(geoflow_session): pass", "-p", "no:geoflow", errors=1)
    result.stdout.fnmatch_lines(["*fixture 'geoflow_session' not found"])


def test_the_clock_is_set_forward_by_what_is_waited_for_and_never_back() -> None:
    clock, inbox = SkippingClock(), queue.SimpleQueue[str]()
    before = clock.now()
    assert clock.wait(inbox, 10) is None
    assert before + 10 <= clock.now() < before + 20
    inbox.put("news")
    assert clock.wait(inbox, 1000) == "news"
    assert clock.now() < before + 20
    assert clock.wait(inbox, 0) is None


def test_what_the_docs_show_passes(pytester: pytest.Pytester) -> None:
    named = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCS.read_text(), re.DOTALL)
    for name, code in named:
        path = pytester.path / name
        path.write_text((path.read_text() if path.exists() else "") + code)
    assert len({name for name, _ in named}) == 2
    result = pytester.runpytest_subprocess(*LEFT_OUT)
    tests = sum(code.count("\ndef test_") + code.startswith("def test_") for _, code in named)
    result.assert_outcomes(passed=tests)
