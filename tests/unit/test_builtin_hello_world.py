"""hello_world, called as the engine would call it."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import pytest
from pydantic import ValidationError

from geoflow.builtin import hello_world
from geoflow.builtin.hello_world import ALL_HANDLERS, REPLY, HelloWorld, greet
from geoflow.core.models import JobExecutionContext, TaskContext, TaskResult, TaskStatus
from geoflow.errors import TaskExecutionError
from geoflow.jobtypes.contract import task_id
from geoflow.jobtypes.registry import Registry

JOB = "a" * 64


def context(task: dict[str, Any], stage: int, attempt: int = 1, job_id: str = JOB) -> TaskContext:
    logger = logging.getLogger("hello_world")
    return TaskContext(job_id, "hello_world", stage, task["task_id"], 0, task["task_type"], attempt, logger)


def params(**given: Any) -> dict[str, Any]:
    return HelloWorld.validate_job_parameters(given)


def results(tasks: list[dict[str, Any]], stage: int) -> list[dict[str, Any]]:
    """What the handlers return for *tasks*, as the next stage sees it."""
    found = [ALL_HANDLERS[task["task_type"]](task["parameters"], context(task, stage)) for task in tasks]
    return json.loads(json.dumps(found))


def failed_attempts(rate: float, job_id: str = JOB, n: int = 1000) -> set[tuple[str, int]]:
    """Which of two attempts at each of *n* greetings fail."""
    failed = set()
    for task in HelloWorld.create_tasks_for_stage(1, params(n=n, failure_rate=rate), job_id):
        for attempt in (1, 2):
            try:
                greet(task["parameters"], context(task, 1, attempt, job_id))
            except TaskExecutionError:
                failed.add((task["parameters"]["index"], attempt))
    return failed


def test_S5_the_module_registers_whole_and_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Registry().register(hello_world) == ["hello_world"]


def test_S7_parameters_get_their_defaults():
    assert params() == {"n": 3, "message": "Hello", "failure_rate": 0.0}


@pytest.mark.parametrize(
    ("name", "given", "value"), [("n", "7", 7), ("n", 1, 1), ("n", 1000, 1000), ("message", 2024, "2024")]
)
def test_S7_numbers_may_come_as_text_and_texts_as_numbers(name, given, value):
    assert params(**{name: given})[name] == value


def test_S7_all_problems_come_in_one_message():
    with pytest.raises(ValueError) as caught:
        params(n=0, failure_rate=float("nan"), mesage="Hi", message=None)
    assert isinstance(caught.value, ValidationError)
    assert {error["loc"][0] for error in caught.value.errors()} == {"n", "failure_rate", "mesage", "message"}


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("inf")])
def test_S7_a_failure_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(ValueError, match="failure_rate"):
        params(failure_rate=rate)


def test_S8_the_job_id_is_64_hex_digits_and_survives_json():
    given = params(n=4, message="Grüße {name}")
    job_id = HelloWorld.generate_job_id(given)
    assert len(job_id) == 64
    assert int(job_id, 16) >= 0
    assert HelloWorld.generate_job_id(json.loads(json.dumps(given))) == job_id


def test_S8_message_and_n_are_the_identity_and_the_failure_rate_is_not():
    ids = [HelloWorld.generate_job_id(params(**p)) for p in ({}, {"n": 4}, {"message": "Hi"}, {"failure_rate": 0.5})]
    assert ids[3] == ids[0]
    assert len(set(ids)) == 3
    assert HelloWorld.non_identity_parameters == ("failure_rate",)


def test_S6_task_ids_are_the_documented_ones_and_the_same_when_asked_again():
    tasks = HelloWorld.create_tasks_for_stage(1, params(n=1000), JOB)
    assert tasks[7]["task_id"] == task_id(JOB, 1, "greeting-7")
    assert tasks == HelloWorld.create_tasks_for_stage(1, params(n=1000), JOB)
    replies = HelloWorld.create_tasks_for_stage(2, params(n=1000), JOB, results(tasks, 1))
    assert len({task["task_id"] for task in tasks + replies}) == 2000


def test_S14_every_completed_greeting_is_replied_to_whatever_came_before_it():
    tasks = HelloWorld.create_tasks_for_stage(1, params(n=12), JOB)
    whole = results(tasks, 1)
    without_the_second = [whole[i] for i in (0, 10, 11, *range(2, 10))]
    replies = HelloWorld.create_tasks_for_stage(2, params(n=12), JOB, without_the_second)
    by_index = {task["parameters"]["index"]: task for task in replies}
    assert sorted(by_index) == [0, *range(2, 12)]
    assert by_index[11]["task_id"] == task_id(JOB, 2, "reply-11")
    assert by_index[11]["parameters"]["greeting"] == "Hello #12"
    assert {task["task_type"] for task in replies} == {REPLY}


def test_S4_braces_in_the_message_are_text():
    tasks = HelloWorld.create_tasks_for_stage(1, params(n=1, message="hi {name} {0} %s {"), JOB)
    greeted = results(tasks, 1)
    assert greeted == [{"success": True, "result": {"index": 0, "greeting": "hi {name} {0} %s { #1"}}]
    replied = results(HelloWorld.create_tasks_for_stage(2, params(), JOB, greeted), 2)
    assert replied[0]["result"]["reply"] == "hi {name} {0} %s { #1 to you too"


def test_no_attempt_fails_at_rate_0_and_every_one_at_rate_1():
    assert failed_attempts(0, n=100) == set()
    assert len(failed_attempts(1, n=100)) == 200


def test_the_same_attempts_fail_in_every_run_and_about_as_many_as_asked():
    failed = failed_attempts(0.3)
    assert failed == failed_attempts(0.3)
    assert 500 < len(failed) < 700
    assert failed != failed_attempts(0.3, job_id="b" * 64)


def test_S23_a_failed_attempt_may_succeed_when_it_is_retried_and_says_so():
    failed = failed_attempts(0.3)
    first = {index for index, attempt in failed if attempt == 1}
    again = {index for index, attempt in failed if attempt == 2}
    assert first - again
    assert first & again
    task = HelloWorld.create_tasks_for_stage(1, params(n=1, failure_rate=1), JOB)[0]
    with pytest.raises(TaskExecutionError, match=r"Failed on purpose \(failure_rate=1\); a retry may succeed"):
        greet(task["parameters"], context(task, 1, attempt=2))


def test_S33_finalize_counts_and_shows_the_first_ten():
    given = params(n=12)
    greetings = HelloWorld.create_tasks_for_stage(1, given, JOB)
    replies = HelloWorld.create_tasks_for_stage(2, given, JOB, results(greetings, 1))
    done = [
        TaskResult(task_id=t["task_id"], task_type=t["task_type"], status=TaskStatus.COMPLETED, result_data=data)
        for stage, tasks in ((1, greetings), (2, replies))
        for t, data in zip(tasks, results(tasks, stage), strict=True)
    ]
    of_job: dict[str, Any] = {
        "job_id": JOB,
        "job_type": "hello_world",
        "current_stage": 2,
        "total_stages": 2,
        "parameters": given,
    }
    summary = HelloWorld.finalize_job(JobExecutionContext(**of_job, task_results=done))
    assert (summary["greetings"], summary["replies"]) == (12, 12)
    assert len(summary["first"]) == 10
    assert summary["first"][0] == {"greeting": "Hello #1", "reply": "Hello #1 to you too"}
    done[-1] = done[-1]._replace(status=TaskStatus.FAILED, result_data={})
    summary = HelloWorld.finalize_job(JobExecutionContext(**of_job, task_results=done))
    assert (summary["greetings"], summary["replies"]) == (12, 11)


def test_handlers_may_be_called_without_a_context():
    task = HelloWorld.create_tasks_for_stage(1, params(n=1), JOB)[0]
    assert greet(task["parameters"]) == greet(task["parameters"], context(task, 1))
    failing = HelloWorld.create_tasks_for_stage(1, params(n=1, failure_rate=1), JOB)[0]
    with pytest.raises(TaskExecutionError, match="Failed on purpose"):
        greet(failing["parameters"])
