"""Stages that say how much memory their tasks need: no more run together than there is memory for."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest

import geoflow as gf
from geoflow.errors import DefinitionError, JobFailed, ParameterError
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession

MB = 1_000_000


def weighing(name: str, memory: Any, **options: Any) -> type[jobs.Acts]:
    class Weighing(jobs.Acts):
        job_type = name
        stages = [{**jobs.Acts.stages[0], "memory": memory, **options}]

    return Weighing


def by_value(parameters: dict[str, Any]) -> int:
    return MB * int(parameters["need"])


def most_at_once(session: gf.Session, need: str) -> float:
    """The most megabytes that attempts needed together at any moment; *need* is SQL for that of one."""
    columns = f"a.started_at AS began, a.ended_at AS ended, {need} AS need"
    frame = session.sql(f"SELECT {columns} FROM attempts a JOIN tasks t USING (task_key)")
    moments = [*zip(frame["began"], frame["need"], strict=True), *zip(frame["ended"], -frame["need"], strict=True)]
    return max(accumulate(float(need) for _, need in sorted(moments)))


@pytest.mark.on_duckdb
def test_S56_tasks_that_need_half_of_the_budget_run_by_twos_whatever_the_workers(open_session: OpenSession) -> None:
    session = open_session(workers=3, memory="100MB")
    session.register(weighing("halves", "50MB"), jobs.ALL_HANDLERS)
    job = session.run("halves", tasks=[{"do": "sleep", "value": 0.05}] * 6)
    assert job.status == "completed"
    assert most_at_once(session, "50") == 100


@pytest.mark.on_duckdb
def test_S56_what_runs_never_needs_more_than_the_budget_over_all_jobs_of_a_session(open_session: OpenSession) -> None:
    session = open_session(workers=3, memory=100 * MB)
    for name in ("first", "second"):
        session.register(weighing(name, by_value, order="largest", size="need"), jobs.ALL_HANDLERS)
    tasks = [{"do": "sleep", "value": 0.02, "need": need} for need in (90, 10, 40, 60, 5, 100, 30, 30)]
    submitted = [session.submit(name, tasks=tasks) for name in ("first", "second")]
    assert [job.wait().status for job in submitted] == ["completed"] * 2
    assert 90 <= most_at_once(session, "CAST(t.parameters->>'need' AS INTEGER)") <= 100


def test_S56_a_job_that_was_stopped_goes_on_by_the_memory_of_its_tasks(open_session: OpenSession) -> None:
    session = open_session(workers=2, memory="100MB")
    session.register(weighing("weighed", by_value), jobs.ALL_HANDLERS)
    job = session.run("weighed", tasks=[{"do": "raise", "value": "ValueError", "need": 60}] * 4)
    assert job.status == "failed"
    assert job.resume().wait().status == "failed"
    assert len(job.attempts()) == 8
    assert most_at_once(session, "60") == 60


def test_S56_tasks_that_are_retried_need_what_they_needed(open_session: OpenSession) -> None:
    session = open_session(workers=3, memory="100MB", base_delay=0.0)
    session.register(weighing("again", "60MB"), jobs.ALL_HANDLERS)
    job = session.run("again", tasks=[{"do": "raise", "value": "OSError"}] * 3, tag="x")
    assert job.status == "failed"
    assert len(job.attempts()) == 12
    assert most_at_once(session, "60") == 60


def test_S56_without_workers_and_without_a_budget_all_runs_as_ever(open_session: OpenSession) -> None:
    for settings in ({"workers": 0, "memory": "100MB"}, {"workers": 2, "memory": "none"}):
        session = open_session(**settings)
        session.register(weighing("as_ever", by_value, order="largest"), jobs.ALL_HANDLERS)
        assert session.run("as_ever", tasks=[{"need": need} for need in (100, 50, 60)]).status == "completed"


def test_S56_more_than_there_is_is_refused_at_submission_and_nothing_is_stored(open_session: OpenSession) -> None:
    session = open_session(workers=1, memory="100MB")
    session.register(weighing("too_large", "101MB"), jobs.ALL_HANDLERS)
    said = r"too_large: each task of stage 1 \(act\) needs 101.0 MB of memory .* there are 100.0 MB for all tasks"
    with pytest.raises(DefinitionError, match=said):
        session.run("too_large", tasks=[])
    assert len(session.jobs()) == 0


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (by_value, "Stage 1, task 1 ('s1-t1') needs 101.0 MB of memory by what memory= says, and there are 100.0 MB"),
        (
            lambda parameters: "8 bananas",
            "('s1-t0'): what memory= gives is no amount. Input should be bytes, from a",
        ),
        (lambda parameters: None, "('s1-t0'): what memory= gives is no amount."),
        (lambda parameters: parameters["x"], "('s1-t0'): its memory cannot be asked for: KeyError: 'x'."),
    ],
    ids=["too much", "bananas", "None", "it raises"],
)
def test_S56_a_task_whose_need_is_none_or_too_much_fails_the_plan_by_name(
    open_session: OpenSession, memory: Any, said: str
) -> None:
    session = open_session(workers=1, memory="100MB")
    session.register(weighing("odd", memory), jobs.ALL_HANDLERS)
    job = session.run("odd", tasks=[{"need": 100}, {"need": 101}])
    with pytest.raises(JobFailed) as failed:
        job.result()
    assert said in str(failed.value)


@pytest.mark.parametrize("memory", ["8 bananas", 8, True, []])
def test_S56_a_memory_that_is_no_amount_is_refused_where_it_is_said(open_session: OpenSession, memory: Any) -> None:
    with pytest.raises(DefinitionError, match=r"has memory=.*: give bytes, from a million on, or text such as '8GB'"):
        open_session(workers=0).register(weighing("odd", memory), jobs.ALL_HANDLERS)
    typed = gf.JobType("odd")
    with pytest.raises(DefinitionError, match=r"memory: Input should be bytes, from a million on, or text such as"):
        typed.stage(memory=memory)


def test_S56_a_function_of_an_item_is_refused_where_there_is_no_item() -> None:
    typed = gf.JobType("odd")
    with pytest.raises(DefinitionError, match="odd: memory= of stage cannot be a function: give an amount, such as"):
        typed.stage(memory=len)


def test_S56_the_setting_says_what_it_cannot_be(open_session: OpenSession) -> None:
    with pytest.raises(ParameterError, match=r"memory cannot be '8 bananas': .*text such as '8GB'"):
        open_session(memory="8 bananas")
