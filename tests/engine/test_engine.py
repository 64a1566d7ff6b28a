"""Whole jobs through the real engine, in this process and in worker processes."""

from __future__ import annotations

import threading
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

import geoflow as gf
from geoflow.errors import DefinitionError, JobFailed
from geoflow.stores.duckdb import DuckDbStore
from tests.helpers.clocks import ManualClock
from tests.helpers.sessions import OpenSession, Trace, rows
from tests.helpers.waiting import wait_until

STARTED = "SELECT task_id FROM attempts ORDER BY started_at"
pytestmark = pytest.mark.on_duckdb(seldom=True)
WORKERS = pytest.mark.parametrize("workers", [0, 2], ids=["inline", "processes"])


@WORKERS
@pytest.mark.on_duckdb
def test_S14_S15_S33_three_stages_hand_their_results_on(open_session: OpenSession, workers: int) -> None:
    session = open_session(workers=workers)
    job = session.run("three_acts", tasks=[{"value": n} for n in range(12)])
    result = job.result()
    assert result["values"][:12] == list(range(12))
    assert result["completed"] == 25
    (parameters,) = rows(session, "SELECT result FROM tasks WHERE stage = 3")[0]
    assert '"count":12' in parameters
    assert '"given":["aggregation_metadata","job_parameters","previous_results"]' in parameters


@WORKERS
def test_S16_a_stage_without_tasks_is_passed_and_an_empty_job_is_finalized_with_nothing(
    open_session: OpenSession, workers: int
) -> None:
    session = open_session(workers=workers)
    assert session.run("two_acts", tasks=[], tasks_2=[{}, {}]).result()["completed"] == 2
    assert session.run("two_acts", tasks=[]).result() == {"completed": 0, "values": [], "statuses": []}


def test_S15_a_fan_in_with_nothing_to_aggregate_fails_the_job_and_says_so(open_session: OpenSession) -> None:
    job = open_session(workers=0).run("three_acts", tasks=[])
    with pytest.raises(JobFailed, match=r"Stage 3 \(collect\) is a fan_in and has nothing to aggregate"):
        job.result()


@WORKERS
@pytest.mark.on_duckdb
def test_the_largest_tasks_start_first_by_their_metadata_or_by_the_time_they_took_before(
    open_session: OpenSession, workers: int
) -> None:
    session = open_session(workers=min(workers, 1))
    largest_first = ["s1-t1", "s1-t3", "s1-t0", "s1-t2"]
    tasks = [{"do": "sleep", "value": seconds} for seconds in (0.06, 0.12, 0.0, 0.09)]
    told = session.run("largest_acts", tasks=tasks, sizes=[60, 120.5, "no number", 90])
    assert [name for (name,) in rows(session, STARTED)] == largest_first
    assert told.result()["values"] == [0.06, 0.12, 0.0, 0.09], "results stay in the order of the plan"
    measured = session.run("largest_acts", tasks=tasks, sizes=[None] * 4)
    took = rows(session, "SELECT task_id FROM attempts WHERE job_id = ? ORDER BY started_at - ended_at", measured.id)
    measured.rerun().wait()
    assert rows(session, STARTED)[-4:] == took


@WORKERS
def test_S40_a_task_that_fails_is_named_in_the_log_with_its_type(open_session: OpenSession, workers: int) -> None:
    session = open_session(workers=workers)
    job = session.run("acts", tasks=[{}, {"do": "raise", "value": "ValueError"}, {"do": "raise", "value": "KeyError"}])
    lines = job.logs()
    failed = lines[lines["message"].str.contains("task failed")]
    assert sorted(failed[["task_id", "task_type", "attempt", "error_type"]].to_numpy().tolist()) == [
        ["s1-t1", "act", 1, "ValueError"],
        ["s1-t2", "act", 1, "KeyError"],
    ]


@WORKERS
def test_S26_an_OSError_runs_four_times_with_waits_of_1_2_and_4_seconds(
    open_session: OpenSession, clock: ManualClock, workers: int
) -> None:
    session = open_session(workers=workers, clock=clock)
    began = clock.now()
    job = session.run("acts", tasks=[{"do": "raise", "value": "OSError"}])
    assert job.status == "failed"
    assert rows(session, "SELECT attempt, outcome, error_category, backoff FROM attempts ORDER BY attempt") == [
        (1, "failed", "transient", None),
        (2, "failed", "transient", 1.0),
        (3, "failed", "transient", 2.0),
        (4, "failed", "transient", 4.0),
    ]
    assert clock.now() - began == pytest.approx(7.0)
    assert "after 3 retries: OSError: a OSError on purpose" in (job.error or "")


@WORKERS
def test_S23_a_ValueError_runs_once(open_session: OpenSession, workers: int) -> None:
    session = open_session(workers=workers)
    job = session.run("acts", tasks=[{"do": "raise", "value": "ValueError"}])
    assert rows(session, "SELECT attempt, error_category, retryable FROM attempts") == [(1, "permanent", 0)]
    assert "failed without a retry: ValueError" in (job.error or "")
    (traceback,) = rows(session, "SELECT traceback FROM attempts")[0]
    assert "jobs.py" in traceback
    assert "geoflow/executors/" not in traceback


@pytest.mark.on_duckdb
def test_S28_a_success_after_a_retry_keeps_the_count_and_no_error(
    open_session: OpenSession, clock: ManualClock
) -> None:
    session = open_session(workers=0, clock=clock)
    job = session.run("acts", tasks=[{"do": "raise", "value": "OSError", "until_attempt": 3}])
    assert job.status == "completed"
    assert rows(session, "SELECT status, retries, attempts, error, error_type FROM tasks") == [
        ("completed", 2, 3, None, None)
    ]


@pytest.mark.parametrize("given", [{}, {"retryable": True}, {"retryable": None}])
def test_S24_a_returned_failure_is_retried(
    open_session: OpenSession, clock: ManualClock, given: dict[str, Any]
) -> None:
    session = open_session(workers=0, clock=clock)
    session.run("acts", tasks=[{"do": "fail", "value": given}])
    assert len(rows(session, "SELECT * FROM attempts WHERE error = 'it said no'")) == 4


def test_S24_a_returned_failure_that_says_so_is_not_retried(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    session.run("acts", tasks=[{"do": "fail", "value": {"retryable": False}}])
    assert len(rows(session, "SELECT * FROM attempts")) == 1


@pytest.mark.parametrize("returned", [None, [], {"result": 1}, {"success": 1}, {"success": "yes"}])
def test_S20_a_result_without_a_boolean_success_fails_task_and_job_at_once(
    open_session: OpenSession, returned: Any
) -> None:
    session = open_session(workers=0)
    job = session.run("acts", tasks=[{"do": "return", "value": returned}])
    assert rows(session, "SELECT error_category, error_type FROM attempts") == [("contract", "ContractViolationError")]
    assert job.status == "failed"
    assert "'act' must return a dict with 'success'" in (job.error or "")


def test_S29_siblings_of_a_failed_task_still_run_and_no_later_stage_starts(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    job = session.run("two_acts", tasks=[{}, {"do": "raise", "value": "ValueError"}, {}, {}])
    assert job.status == "failed"
    assert rows(session, "SELECT status, count(*) FROM tasks GROUP BY 1") == [("completed", 3), ("failed", 1)]
    assert rows(session, "SELECT count(*) FROM stages") == [(1,)]


@pytest.mark.on_duckdb
def test_S29_stop_leaves_queued_siblings_for_a_resume(open_session: OpenSession) -> None:
    session = open_session(workers=0, on_failure="stop")
    job = session.run("acts", tasks=[{"do": "raise", "value": "ValueError"}, {}, {}])
    assert rows(session, "SELECT status, count(*) FROM tasks GROUP BY 1") == [("failed", 1), ("queued", 2)]
    assert job.status == "failed"
    assert job.ended


def test_S29_the_error_names_the_first_task_of_the_stage_and_counts_the_others(open_session: OpenSession) -> None:
    bad = {"do": "raise", "value": "ValueError"}
    job = open_session(workers=2).run("acts", tasks=[{}, {**bad, "until_attempt": 0}, bad, bad])
    assert (job.error or "").startswith("Task 's1-t1' (act, number 1)")
    assert "(2 more failed)" in (job.error or "")


@pytest.mark.parametrize("plan", ["raise", "die", "hang"])
def test_S17_a_plan_that_raises_dies_or_hangs_fails_the_job_before_any_task(
    open_session: OpenSession, plan: str
) -> None:
    session = open_session(plan_timeout=0.5)
    job = session.run("acts", tasks=[{}], plan=plan)
    assert job.status == "failed"
    assert (job.error or "").startswith("Stage 1 (act) could not be planned: ")
    died = "signal 9 (SIGKILL; it may have been out of memory) while it made the plan"
    expected = {"raise": "RuntimeError: on purpose", "die": died, "hang": "timed out"}[plan]
    assert expected in (job.error or "")
    assert rows(session, "SELECT count(*) FROM tasks") == [(0,)]


@pytest.mark.parametrize(
    ("finalize", "error"),
    [
        ("raise", "on purpose"),
        ("none", "finalize_job must return a dict"),
        ("hang", "timed out"),
        ("die", "signal 9 (SIGKILL; it may have been out of memory) while it ran finalize_job"),
    ],
)
def test_S34_a_finalize_that_goes_wrong_leaves_a_completed_job_with_the_fallback(
    open_session: OpenSession, finalize: str, error: str
) -> None:
    session = open_session(finalize_timeout=0.5)
    job = session.run("acts", tasks=[{}, {}], finalize=finalize)
    result = job.result()
    assert job.status == "completed"
    assert job.with_errors
    assert error in result.pop("finalization_error")
    assert result.pop("error_type")
    assert result.pop("message")
    assert result == {
        "job_type": "acts",
        "status": "completed_with_errors",
        "task_count": 2,
        "completed_tasks": 2,
        "failed_tasks": 0,
        "fallback": True,
    }


@pytest.mark.on_duckdb
def test_S34_finalize_alone_can_be_run_again_with_new_code(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.helpers import jobs

    session = open_session(workers=0)
    job = session.run("acts", tasks=[{}], finalize="raise")
    assert job.with_errors
    monkeypatch.setattr(jobs.Acts, "finalize_job", staticmethod(lambda context=None: {"mended": True}))
    ended_at = job.runtime.row(job.id).ended_at
    assert job.refinalize().result() == {"mended": True}
    assert not job.with_errors
    assert job.runtime.row(job.id).ended_at == ended_at, "the time that went by until then is no time of the job's"
    assert rows(session, "SELECT count(*) FROM attempts") == [(1,)]


@WORKERS
def test_S35_on_job_complete_is_called_once_for_each_job_that_ends(open_session: OpenSession, workers: int) -> None:
    calls: list[tuple[str, str, Any]] = []

    def told(*, job_id: str, job_type: str, status: str, result: Any) -> None:
        assert session.job(job_id).status == status
        calls.append((job_type, status, result))
        raise RuntimeError("its own failure changes nothing")

    session = open_session(workers=workers, on_job_complete=told)
    good = session.run("acts", tasks=[{}])
    bad = session.run("acts", tasks=[{"do": "raise", "value": "ValueError"}])
    assert calls == [("acts", "completed", good.result()), ("acts", "failed", None)]
    assert (good.status, bad.status) == ("completed", "failed")


@pytest.mark.on_duckdb
def test_S37_resume_runs_exactly_the_tasks_that_have_not_completed(open_session: OpenSession, trace: Trace) -> None:
    session = open_session(workers=0)
    flaky = {"do": "raise", "value": "ValueError", "until_attempt": 2, "trace": trace.path}
    job = session.run("two_acts", tasks=[{"trace": trace.path}, flaky, {"trace": trace.path}])
    assert job.status == "failed"
    job.retry_failed().wait()
    assert job.status == "completed"
    assert trace.lines() == ["s1-t0 1", "s1-t1 1", "s1-t2 1", "s1-t1 2"]


def test_S42_of_two_threads_that_resume_one_job_at_once_one_takes_it_up(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(workers=0)
    job = session.submit("acts", tasks=[{"do": "sleep", "value": 0.2}] * 5)
    session.close()
    claim, claims, second = session.runtime.claim, list[str](), threading.Event()

    def claimed(*args: Any) -> Any:
        claims.append(threading.current_thread().name)
        if len(claims) == 1:
            second.wait(0.3)  # the other thread has all that time to claim it too
        else:
            second.set()
        return claim(*args)

    monkeypatch.setattr(session.runtime, "claim", claimed)
    threads = [threading.Thread(target=job.resume, name=name) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert job.wait().status == "completed"
    assert len(claims) == 1


def test_S37_a_job_at_a_stage_that_its_type_has_no_more_is_not_resumed_and_can_be_rerun(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.helpers import jobs

    session = open_session(workers=0)
    bad = {"do": "raise", "value": "ValueError", "until_attempt": 2}
    job = session.run("two_acts", tasks=[{}], tasks_2=[bad])
    assert job.status == "failed"
    monkeypatch.setattr(jobs.TwoActs, "stages", jobs.TwoActs.stages[:1])
    session.register(jobs.TwoActs, jobs.ALL_HANDLERS)
    message = r"is at stage 2, and two_acts has 1 stage now\. Give it back .* job\.rerun\(\)"
    with pytest.raises(DefinitionError, match=message):
        job.resume().wait()
    assert job.status == "failed"
    assert job.rerun().wait().status == "completed"


@pytest.mark.on_duckdb
def test_S37_retry_failed_runs_what_failed_and_leaves_what_was_cancelled(
    open_session: OpenSession, tmp_path: Path, trace: Trace
) -> None:
    session = open_session(workers=1)
    flaky = {"do": "raise", "value": "ValueError", "until_attempt": 2, "trace": trace.path}
    waits = {"do": "wait for", "value": str(tmp_path / "there"), "trace": trace.path}
    job = session.submit("two_acts", tasks=[flaky, waits, waits])
    wait_until(lambda: job.status == "failed" and len(trace.lines()) == 2)
    job.cancel()
    assert (job.status, rows(session, "SELECT status FROM tasks")) == ("failed", [("failed",), *[("cancelled",)] * 2])
    job.retry_failed().wait()
    assert (job.status, job.error) == ("cancelled", "2 tasks of this stage stayed cancelled")
    assert trace.lines() == ["s1-t0 1", "s1-t1 1", "s1-t0 2"]
    with pytest.raises(JobFailed, match=r"nothing that failed to run again; job.resume\(\) goes on with it"):
        job.retry_failed()
    (tmp_path / "there").touch()
    assert job.resume().wait().status == "completed"


@pytest.mark.on_duckdb
def test_S37_of_a_job_that_was_cancelled_after_failures_these_run_alone_or_all_goes_on(
    open_session: OpenSession, tmp_path: Path, trace: Trace
) -> None:
    session = open_session(workers=1, on_failure="continue")
    flaky = {"do": "raise", "value": "ValueError", "until_attempt": 2, "trace": trace.path}
    waits = {"do": "wait for", "value": str(tmp_path / "there"), "trace": trace.path}
    job = session.submit("acts", tasks=[flaky, waits, waits])
    wait_until(lambda: len(trace.lines()) == 2)
    job.cancel()
    assert job.status == "cancelled"
    assert job.runtime.snapshot(job.id).actions == ("retry_failed", "resume")
    job.retry_failed().wait()
    assert job.status == "cancelled"
    assert trace.lines() == ["s1-t0 1", "s1-t1 1", "s1-t0 2"]
    assert job.runtime.snapshot(job.id).actions == ("resume",)
    (tmp_path / "there").touch()
    assert job.resume().wait().status == "completed"


@pytest.mark.on_duckdb
def test_S10_a_rerun_does_all_again_and_keeps_the_old_attempts(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    job = session.run("two_acts", tasks=[{}, {}])
    again = session.run("two_acts", tasks=[{}, {}], on_existing="rerun")
    assert again.id == job.id
    assert again.result() == job.result()
    assert rows(session, "SELECT superseded, count(*) FROM attempts GROUP BY 1") == [(0, 4), (1, 4)]
    assert len(rows(session, "SELECT * FROM tasks WHERE NOT superseded")) == 4


@pytest.mark.on_duckdb
def test_S9_S10_submitting_again_finds_the_first_and_touches_nothing(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    first = session.run("acts", tasks=[{}])
    second = session.submit("acts", tasks=[{}])
    assert first.receipt is not None
    assert first.receipt.status == "created"
    assert second.receipt is not None
    assert (second.receipt.status, second.receipt.existing_status, second.receipt.idempotent) == (
        "already_exists",
        "completed",
        True,
    )
    with pytest.raises(gf.errors.JobExists):
        session.submit("acts", tasks=[{}], on_existing="raise")
    assert rows(session, "SELECT count(*) FROM attempts") == [(1,)]


def test_S10_a_job_that_is_found_again_says_that_nothing_was_run_where_progress_would_be_shown(
    open_session: OpenSession, capsys: pytest.CaptureFixture[str]
) -> None:
    silent, session = open_session(workers=0), gf.open(":memory:", workers=0, display="text", max_retries=0)
    try:
        completed = session.run("hello_world", n=1)
        assert "submitted before" not in capsys.readouterr().err
        again = f"Job {completed.id[:8]} was submitted before, and is completed: nothing was run. "
        for submit in (session.run, session.submit):
            submit("hello_world", n=1)
            assert f"{again}on_existing='rerun' does all of it again.\n" in capsys.readouterr().err
        failed = session.run("hello_world", n=2, failure_rate=1.0)
        session.submit("hello_world", n=2)
        assert (
            f"Job {failed.id[:8]} was submitted before, and has failed: nothing was run. on_existing='resume' goes on "
            "with what has not completed, on_existing='rerun' does all of it again.\n" in capsys.readouterr().err
        )
        session.run("hello_world", n=1, on_existing="rerun")
        assert "submitted before" not in capsys.readouterr().err
    finally:
        session.close()
    for _ in range(2):
        silent.run("acts", tasks=[{}])
    assert tuple(capsys.readouterr()) == ("", "")


def test_a_parameter_that_a_found_job_keeps_its_own_value_of_is_warned_of(open_session: OpenSession) -> None:
    session = open_session(workers=0, max_retries=0)
    job = session.run("hello_world", n=1)
    with pytest.warns(UserWarning, match="keeps its own failure_rate=0.0: on_existing='rerun' takes failure_rate=0.9"):
        assert session.submit("hello_world", n=1, failure_rate=0.9).parameters["failure_rate"] == 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert session.submit("hello_world", n=1).id == job.id
        again = session.run("hello_world", n=1, failure_rate=0.9, on_existing="rerun")
    assert again.parameters["failure_rate"] == 0.9


class Keeping(BaseModel):
    n: int
    token: Annotated[str, gf.identity(False)]


def test_S44_a_secret_that_a_found_job_keeps_is_named_and_not_shown(open_session: OpenSession) -> None:
    t = gf.JobType("keeping", params=Keeping)

    @t.stage
    def work(p: Keeping) -> int:
        return p.n

    session = open_session(workers=0)
    t.run(n=1, token="one", session=session)
    with pytest.warns(UserWarning, match="keeps its own token: on_existing='rerun' takes what is given"):
        t.run(n=1, token="two", session=session)


def test_the_sentence_of_a_cause_ends_before_the_advice(open_session: OpenSession) -> None:
    job = open_session(workers=0).run("acts", tasks=[{"do": "raise", "value": "ValueError"}])
    with pytest.raises(JobFailed, match=r"a ValueError on purpose\. Look at job\.errors\(\)\.$"):
        job.result()


@pytest.mark.parametrize("workers", [1, 2])
def test_submit_returns_at_once_and_several_jobs_run_side_by_side(open_session: OpenSession, workers: int) -> None:
    session = open_session(workers=workers)
    jobs = [session.submit("acts", tasks=[{"value": n}, {"do": "sleep", "value": 0.05}]) for n in range(4)]
    assert [job.result(timeout=30)["completed"] for job in jobs] == [2, 2, 2, 2]
    assert all(thread.name != "geoflow-machine" for thread in threading.enumerate() if not thread.is_alive())


def test_wait_gives_up_after_its_timeout_and_the_job_goes_on(open_session: OpenSession) -> None:
    job = open_session().submit("acts", tasks=[{"do": "sleep", "value": 0.6}])
    with pytest.raises(TimeoutError, match="it goes on"):
        job.wait(timeout=0.05)
    assert job.wait(timeout=30).status == "completed"


def test_S38_cancel_ends_running_and_waiting_tasks(open_session: OpenSession, trace: Trace) -> None:
    session = open_session()
    job = session.submit("acts", tasks=[{"do": "hang", "trace": trace.path}] * 5)
    wait_until(lambda: len(trace.lines()) == 2)
    began = time.monotonic()
    job.cancel()
    assert job.status == "cancelled"
    assert time.monotonic() - began < 5
    assert rows(session, "SELECT status, count(*) FROM tasks GROUP BY 1") == [("cancelled", 5)]
    assert rows(session, "SELECT outcome, count(*) FROM attempts GROUP BY 1") == [("cancelled", 2)]
    assert session.run("acts", tasks=[{"value": "after"}]).status == "completed"


@WORKERS
def test_S38_an_interrupt_between_the_submission_and_the_waiting_puts_the_job_back(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    session = open_session(workers=workers)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("geoflow.notebook.progress.remark", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.run("acts", tasks=[{"do": "hang", "until_attempt": 2}])
    (row,) = session.store.jobs()
    job = session.job(row.job_id)
    assert (job.status, job.interrupted) == ("queued", True)
    assert job.cancel().status == "cancelled", "nobody has it any more"


@pytest.mark.on_duckdb
def test_S38_a_cancelled_job_can_be_resumed(open_session: OpenSession, trace: Trace) -> None:
    session = open_session()
    job = session.submit("acts", tasks=[{}, {"do": "hang", "until_attempt": 2, "trace": trace.path}])
    wait_until(lambda: trace.lines() == ["s1-t1 1"])
    job.cancel()
    assert job.resume().wait(timeout=30).status == "completed"
    assert rows(session, "SELECT attempt, outcome FROM attempts WHERE task_id = 's1-t1' ORDER BY 1") == [
        (1, "cancelled"),
        (2, "completed"),
    ]


@pytest.mark.on_duckdb
def test_S36_closing_a_session_puts_its_jobs_back_and_the_next_resume_finishes_them(
    open_session: OpenSession, trace: Trace
) -> None:
    first = open_session()
    job = first.submit("acts", tasks=[{"do": "hang", "until_attempt": 2, "trace": trace.path}, {}])
    wait_until(lambda: trace.lines() == ["s1-t0 1"])
    first.close()
    second = open_session()
    assert second.job(job.id).status == "queued"
    assert second.job(job.id).interrupted
    (resumed,) = second.resume()
    assert resumed.wait(timeout=30).status == "completed"
    assert rows(second, "SELECT attempt, outcome FROM attempts WHERE task_id = 's1-t0' ORDER BY 1") == [
        (1, "interrupted"),
        (2, "completed"),
    ]


def test_the_word_duckdb_and_the_suffix_choose_the_store(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session = open_session("duckdb", workers=0)
    assert isinstance(session.store, DuckDbStore)
    assert isinstance(open_session(tmp_path / "work.duckdb", workers=0).store, DuckDbStore)
    session.run("acts", tasks=[{}])
    assert (tmp_path / "geoflow.duckdb").exists()
    assert (tmp_path / "geoflow.duckdb.log").exists()
