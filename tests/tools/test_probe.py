"""A probe runs a few tasks of each stage as a job of its own, and its forecast is held against the whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import geoflow as gf
from geoflow.errors import DefinitionError, ParameterError
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession, rows

SLEEPS = [{"do": "sleep", "value": 0.005 + 0.035 * (index * 7 % 60) / 60} for index in range(60)]


def stages_of(probe: Any, *columns: str) -> list[tuple[Any, ...]]:
    return [*probe.stages[[*columns]].itertuples(index=False, name=None)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_probe_runs_a_few_tasks_of_each_stage_and_the_whole_is_still_to_be_made(
    open_session: OpenSession, workers: int
) -> None:
    session = open_session(workers=workers)
    probe = session.probe("three_acts", tasks=[{"value": index} for index in range(20)])
    ran = probe.job.tasks()
    assert ran["stage"].tolist() == [1, 1, 1, 2, 2, 2, 3]
    values = ran.query("stage == 1")["parameters"].map(lambda given: given["value"]).tolist()
    assert (values[0], values[2]) == (0, 19), "the first and the last, and one by chance"
    assert 0 < values[1] < 19
    assert probe.job.status == "completed"
    assert probe.job.result()["completed"] == 7, "finalize was called too"
    assert probe.exit_status == 0
    assert session.jobs()["job_type"].tolist() == ["probe_of_three_acts"]
    assert stages_of(probe, "stage", "tasks_run", "tasks_expected", "failed") == [
        (1, 3, 20, 0),
        (2, 3, 20, 0),
        (3, 1, 1, 0),
    ]

    whole = session.run("three_acts", tasks=[{"value": index} for index in range(20)])
    assert whole.receipt is not None
    assert whole.receipt.status == "created"
    assert whole.id == session.plan("three_acts", tasks=[{"value": index} for index in range(20)]).job_id
    assert len(whole.tasks()) == 41
    assert {*whole.tasks()["task_id"]} >= {*ran.query("stage < 3")["task_id"]}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_forecast_is_within_a_factor_of_two_of_what_the_whole_took(open_session: OpenSession, workers: int) -> None:
    session = open_session(workers=workers)
    probe = session.probe("acts", tasks=SLEEPS, items=5, workers=(1, 2))
    low, likely, high = probe.forecast.set_index("workers").loc[workers, ["low", "likely", "high"]]
    job = session.run("acts", tasks=SLEEPS)
    took = job.attempts()["duration"].dt.total_seconds().sum() / workers  # less what the machine had to do besides
    print(f"{workers} workers: forecast {likely:.2f} s ({low:.2f} to {high:.2f}), tasks took {took:.2f} s")
    print(f"forecast / real: {likely / took:.2f}")
    assert 0.5 < likely / took < 2
    assert low < took < high


def test_it_says_that_two_workers_take_about_half_as_long_and_need_twice_the_memory(open_session: OpenSession) -> None:
    probe = open_session().probe("acts", tasks=SLEEPS, workers=(1, 2, 60))
    assert probe.forecast.columns.tolist() == ["workers", "low", "likely", "high", "memory"]
    assert probe.forecast["workers"].tolist() == [1, 2, 60]
    one, two, many = probe.forecast["likely"]
    assert 0.4 < two / one < 0.6
    assert many < one / 10
    assert probe.memory is not None
    assert probe.memory > 5_000_000
    assert probe.forecast["memory"].tolist() == [probe.memory, 2 * probe.memory, 60 * probe.memory]


class Sized(jobs.Acts):
    """A list of ``sizes``: each task says its own, and the second stage has so many tasks for each."""

    job_type = "sized"
    stages = [*jobs.Acts.stages, {"number": 2, "name": "parts", "task_type": "act", "parallelism": "fan_out"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        if stage == 1:
            sizes = [*enumerate(job_params["sizes"])]
            return [
                {"task_id": f"{index}", "task_type": "act", "parameters": {"value": size}, "metadata": {"size": size}}
                for index, size in sizes
            ]
        parents = [(result["result"]["index"], result["result"]["value"]) for result in previous_results]
        return [
            {"task_id": f"{index}/{part}", "task_type": "act", "parameters": {}}
            for index, size in parents
            for part in range(size)
        ]


def sleep_as_long(params: dict[str, Any]) -> dict[str, Any]:
    time.sleep(params.get("value", 0) / 1000)
    return {"success": True, "result": {"index": 0, "value": 0}}


def test_the_largest_task_is_among_the_few_and_the_children_of_all_are_an_estimate_with_a_range(
    open_session: OpenSession,
) -> None:
    session = open_session()
    session.register(Sized, {"act": jobs.act})
    sizes = [2] * 15 + [6] + [1] * 14
    probe = session.probe("sized", sizes=sizes)
    first = probe.job.tasks().query("stage == 1")
    assert first["parameters"].tolist() == [{"value": 2}, {"value": 6}, {"value": 1}]
    assert first["metadata"].map(lambda note: note["size"]).tolist() == [2, 6, 1], "what it said itself is kept"
    columns = ("tasks_low", "tasks_expected", "tasks_high")
    assert stages_of(probe, *columns) == [(30, 30, 30), (30, 90, 180)]
    assert len(session.run("sized", sizes=sizes).tasks()) - 30 == 50
    assert "about 90 (30 to 180) tasks" in " ".join(repr(probe).split())
    assert "an estimate" in repr(probe)


def test_a_skewed_stage_is_forecast_by_what_its_tasks_say_of_their_sizes(open_session: OpenSession) -> None:
    session = open_session()
    session.register(Sized, {"act": sleep_as_long})
    sizes = [1, *[6] * 20, 30, *[6] * 20, 1]
    probe = session.probe("sized", sizes=sizes, workers=1)
    took = sum(sizes) / 1000
    (likely,) = probe.forecast["likely"]
    print(f"forecast / real: {likely / took:.2f}")
    assert 0.5 < likely / took < 4, "the first and the last alone would make it a sixth"


def test_a_failing_task_is_told_with_what_to_expect_and_with_what_was_not_reached(open_session: OpenSession) -> None:
    session = open_session()
    bad = {"do": "raise", "value": "ValueError"}
    probe = session.probe("three_acts", tasks=[{}] * 99 + [bad])
    assert (probe.job.status, probe.exit_status) == ("failed", 1)
    assert stages_of(probe, "tasks_run", "failed")[1:] == [(0, 0), (0, 0)]
    (failing,) = probe.failures.to_dict("records")
    assert (failing["tasks_run"], failing["failed"]) == (3, 1)
    assert failing["failing"] == pytest.approx(100 / 3)
    assert 1 < failing["failing_low"] < failing["failing"] < failing["failing_high"] < 100
    assert probe.stages["tasks_expected"].isna().tolist() == [False, True, True]
    drawn = " ".join(repr(probe).split())
    assert "1 of 3 failed" in drawn
    assert "a ValueError on purpose" in drawn
    assert "without stage 2 and what follows it" in drawn
    assert "Stage 2 (again) was not reached" in drawn


def test_a_bad_task_that_is_not_among_the_few_is_found_in_the_plan(open_session: OpenSession) -> None:
    tasks: list[Any] = [{}] * 50
    tasks[25] = "none"
    probe = open_session().probe("acts", tasks=tasks, items=2)
    assert probe.forecast.empty
    drawn = " ".join(repr(probe).split())
    assert "Nothing ran" in drawn
    assert "Stage 1, task 25 ('s1-t25'): parameters must be a dict" in drawn


def test_a_retried_task_counts_with_all_its_attempts_and_is_no_failure(open_session: OpenSession) -> None:
    session = open_session(retry=gf.RetryPolicy(base_delay=0))
    tasks = [{"do": "raise", "value": "OSError", "until_attempt": 2}] * 4
    probe = session.probe("acts", tasks=tasks)
    assert stages_of(probe, "tasks_run", "failed") == [(3, 0)]
    assert len(probe.job.attempts()) == 6


def test_a_finalize_that_fails_over_the_few_is_told(open_session: OpenSession) -> None:
    probe = open_session().probe("acts", tasks=[{}] * 9, finalize="raise")
    assert probe.job.with_errors
    assert "Finalize failed: RuntimeError: on purpose" in probe.notes
    assert not probe.forecast.empty


def test_a_job_of_no_tasks_is_probed(open_session: OpenSession) -> None:
    probe = open_session().probe("two_acts", tasks=[])
    assert probe.job.status == "completed"
    assert stages_of(probe, "tasks_run", "tasks_expected") == [(0, 0), (0, 0)]
    assert "Nothing ran" in repr(probe)


class Params(BaseModel):
    n: int = 12


def local() -> gf.JobType:
    """A job type whose functions and classes travel by value."""
    made = gf.JobType("local", params=Params)

    @made.stage
    def scan(p: Params) -> list[int]:
        return [*range(p.n)]

    @made.each(scan)
    def look(number: int) -> int:
        time.sleep(0.001)
        return number

    @made.reduce(look)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    return made


def test_a_job_type_whose_functions_live_in_a_notebook_is_probed(open_session: OpenSession) -> None:
    session, made = open_session(), local()
    probe = session.probe(made, n=40)
    assert stages_of(probe, "tasks_run", "tasks_expected") == [(1, 1), (3, 40), (1, 1)]
    assert "measured on 3 results of 40" in " ".join(repr(probe).split())
    assert probe.job.status == "completed"
    job = made.run(n=40, session=session)
    assert job.receipt is not None
    assert job.receipt.status == "created"
    assert job.result() == {"result": sum(range(40))}


def test_a_probe_runs_anew_each_time_and_one_of_other_items_is_another_job(open_session: OpenSession) -> None:
    session = open_session()
    first, second = (session.probe("acts", tasks=[{}] * 9) for _ in range(2))
    assert first.job.id == second.job.id
    assert len(second.job.attempts()) == 6, "the first ones are kept as history"
    assert stages_of(second, "tasks_run") == [(3,)]
    assert session.probe("acts", tasks=[{}] * 9, items=2).job.id != first.job.id


def test_a_probe_is_gone_on_with_as_a_probe_or_not_at_all(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session()
    tasks = [{"do": "wait for", "value": str(tmp_path / "there")}] + [{"do": "raise", "value": "ValueError"}] * 30
    (tmp_path / "there").touch()
    probe = session.probe("two_acts", tasks=tasks)
    assert probe.job.status == "failed"
    session.register(jobs.TwoActs, {"act": jobs.collect})  # mended, if not well
    assert probe.job.retry_failed().wait().status == "failed"
    assert len(probe.job.tasks()) == 3
    assert "KeyError" in {*probe.job.errors()["error_type"]}, "it ran the code of now"

    elsewhere = open_session()
    with pytest.raises(DefinitionError, match="probe_of_two_acts"):
        elsewhere.job(probe.job.id).resume()


def test_what_a_failed_probe_says_to_type_next_goes_on_with_it(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(max_retries=0)
    probe = session.probe("acts", tasks=[{"do": "raise", "value": "ValueError"}] * 5)
    (hint,) = re.findall(r"^Next: (probe\.job\.retry_failed\(\)) ", str(probe.job), re.MULTILINE)
    assert f"Next: <code>{hint}" in probe.job._repr_html_()
    assert eval(hint, {"probe": probe}).wait().status == "failed"
    assert len(probe.job.attempts()) == 6, "the three that were run, twice"
    assert "Next: job.retry_failed()" in str(session.run("acts", tasks=[{"do": "raise", "value": "ValueError"}]))


def test_an_interrupted_probe_is_cancelled(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    with pytest.raises(KeyboardInterrupt):
        session.probe("acts", tasks=[{"do": "raise", "value": "KeyboardInterrupt"}] * 5)
    assert rows(session, "SELECT job_type, status FROM job") == [("probe_of_acts", "cancelled")]
    assert session.resume() == []


def test_S7_what_is_wrong_is_told_before_anything_is_stored(open_session: OpenSession) -> None:
    session = open_session()
    with pytest.raises(ParameterError, match=r"^acts refuses these parameters"):
        session.probe("acts", tasks=3)
    with pytest.raises(ParameterError, match="items cannot be"):
        session.probe("acts", tasks=[], items=0)
    for workers in (0, (), (1, -1), (1.5,)):
        with pytest.raises(ParameterError, match="workers cannot be"):
            session.probe("acts", tasks=[], workers=workers)  # type: ignore[arg-type]
    assert rows(session, "SELECT * FROM job") == []


def test_S44_S45_it_draws_itself_in_80_columns_and_in_safe_html_without_secrets(open_session: OpenSession) -> None:
    session = open_session()
    bad = {"do": "fail", "value": {"error": "<b>no</b> \x1b[31m password=hush " * 20, "retryable": False}}
    probe = session.probe("three_acts", tasks=[bad, {}, {}])
    html, drawn = probe._repr_html_(), repr(probe)
    assert max(map(len, drawn.splitlines())) <= 80
    assert "<b>no" not in html
    for text in (html, drawn, str(probe.document())):
        assert "hush" not in text
        assert "\x1b" not in text


def test_it_can_be_typed_in_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "geoflow", "probe", "hello_world", "n=30", "--items", "2"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "Probe of hello_world" in shown
    assert "About" in shown
    failing = [*command, "failure_rate=1", "--json"]
    done = subprocess.run(
        failing,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GEOFLOW_BASE_DELAY": "0"},
    )
    assert done.returncode == 1
    assert '"failed": 2' in done.stdout
