"""The runtime by itself, as tools and live views use it: by the ids of jobs, without a session or a handle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.engine import hooks
from geoflow.engine.runtime import Runtime
from geoflow.engine.tasks import TaskNotFound, named, place_of, task_row
from geoflow.errors import JobFailed, JobNotFound, ParameterError
from geoflow.session import Session
from geoflow.support.clock import SystemClock
from geoflow.support.settings import load_settings
from tests.helpers import jobs

FAILS_ONCE = {"do": "raise", "value": "ValueError", "until_attempt": 2}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    made = Runtime(load_settings(store=str(tmp_path / "work.db"), workers=0, display="none").in_place(), SystemClock())
    made.registry.register(jobs)
    yield made
    made.close()


def test_a_job_is_submitted_waited_for_and_taken_further_by_its_id(runtime: Runtime) -> None:
    job_id = runtime.submit("acts", {"tasks": [{}, FAILS_ONCE]}).job_id
    runtime.wait(job_id)
    assert (runtime.row(job_id).status, runtime.has_stopped(job_id)) == ("failed", True)
    runtime.retry_failed(job_id)
    runtime.wait(job_id)
    assert runtime.row(job_id[:8]).status == "completed"
    assert runtime.snapshot(job_id).state == "completed"
    runtime.refinalize(job_id)
    runtime.wait(job_id)
    runtime.rerun(job_id)
    runtime.wait(job_id)
    assert runtime.row(job_id).status == "failed", "its attempts begin with the first again"
    assert runtime.driver(job_id) is None
    assert runtime.active == {}


def test_a_submission_that_finds_its_job_starts_nothing_that_runs_jobs(runtime: Runtime) -> None:
    job_id = runtime.submit("acts", {"tasks": [{}]}).job_id
    runtime.wait(job_id)
    runtime.close()  # as if it were tomorrow
    receipt = runtime.submit("acts", {"tasks": [{}]})
    assert (receipt.job_id, receipt.status) == (job_id, "already_exists")
    assert "executor" not in vars(runtime)


def test_what_cannot_be_done_with_a_job_is_refused_by_id_too(runtime: Runtime) -> None:
    with pytest.raises(JobNotFound):
        runtime.cancel("4f23fe85")
    job_id = runtime.submit("acts", {"tasks": [FAILS_ONCE]}).job_id
    runtime.wait(job_id)
    with pytest.raises(JobFailed, match="only a completed job can be finalized again"):
        runtime.refinalize(job_id)
    with pytest.raises(ParameterError, match="has no stage 7"):
        runtime.rerun(job_id, 7)


def test_to_ask_whether_there_is_a_store_opens_and_makes_none(runtime: Runtime) -> None:
    for there in (False, True):
        assert (runtime.open_store, runtime.has_store) == (None, there)
        assert runtime.store is runtime.open_store
        assert runtime.has_store
        runtime.close()


def test_a_task_is_a_row_that_knows_its_handler_and_its_context(runtime: Runtime) -> None:
    job_id = runtime.submit("acts", {"tasks": [{"value": 3}, FAILS_ONCE]}).job_id
    runtime.wait(job_id)
    job, place = named(runtime)
    failed, done = (task_row(runtime.store, job, where) for where in (place, place_of(runtime.store, job, "s1-t0")))
    assert (failed.task_id, failed.failed_with, failed.returned) == (
        "s1-t1",
        "ValueError: a ValueError on purpose",
        None,
    )
    assert (done.arguments["value"], done.failed_with, done.context().task_index) == (3, None, 0)
    assert done.handler_in(runtime.registered("acts")) is jobs.act
    with pytest.raises(TaskNotFound, match="Those that failed are s1-t1"):
        named(runtime, "nothing")


def test_handlers_are_replaced_before_they_travel_and_only_as_long_as_that_holds(runtime: Runtime) -> None:
    seen: list[Any] = []

    def replace(parts: Any, handlers: Any) -> Any:
        seen.append(parts)
        return handlers

    hooks.have_replaced(replace)
    try:
        runtime.submit("acts", {"tasks": [{}]})
    finally:
        hooks.have_replaced(None)
    runtime.submit("acts", {"tasks": [{}, {}]})
    assert seen == [runtime]


def test_a_session_is_a_face_of_its_runtime_and_can_be_made_once_more(runtime: Runtime) -> None:
    first, again = Session.of(runtime), Session.of(runtime)
    assert first == again
    assert len({first, again}) == 1
    assert first.settings is runtime.settings
    job = again.job(first.submit("acts", tasks=[{}]).id)
    assert job.runtime is runtime
    with gf.open(":memory:", workers=0) as other:
        assert other != first
