"""Stages that say how much memory their tasks need: no more run together than there is memory for."""

from __future__ import annotations

import os
import signal
import time
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.core.chunks import Chunk
from geoflow.errors import DefinitionError, JobFailed, ParameterError
from geoflow.support.memory import Kills
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession
from tests.helpers.waiting import wait_until

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
    frame = session.sql(f"SELECT {columns} FROM attempts a JOIN tasks t USING (task_key) WHERE began IS NOT NULL")
    moments = [*zip(frame["began"], frame["need"], strict=True), *zip(frame["ended"], -frame["need"], strict=True)]
    return max(accumulate(float(need) for _, need in sorted(moments)))


def meet(parameters: dict[str, Any]) -> dict[str, Any]:
    """Be there with so many ``others`` at once, or fail."""
    folder = Path(parameters["folder"])
    (folder / parameters["name"]).touch()
    deadline = time.monotonic() + 30
    while len(os.listdir(folder)) < 1 + parameters["others"]:
        if time.monotonic() > deadline:
            raise ValueError("nobody came")
        time.sleep(0.005)
    return {"success": True, "result": {}}


@pytest.mark.on_duckdb
def test_S56_tasks_that_need_half_of_the_budget_run_by_twos_whatever_the_workers(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(workers=3, memory="100MB")
    session.register(weighing("halves", "50MB"), {"act": meet})
    (tmp_path / "met").mkdir()
    tasks = [{"folder": str(tmp_path / "met"), "others": 1, "name": f"{number}"} for number in range(6)]
    assert session.run("halves", tasks=tasks).status == "completed"
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


def wait_for_file(parameters: dict[str, Any]) -> dict[str, Any]:
    while not os.path.exists(parameters["path"]):
        time.sleep(0.005)
    return {"success": True, "result": {}}


def test_S56_a_stage_has_a_limit_and_a_budget_at_once(open_session: OpenSession) -> None:
    session = open_session(workers=3, memory="100MB")
    session.register(weighing("both", by_value, limit=gf.Limit("both", at_once=2)), jobs.ALL_HANDLERS)
    tasks = [{"do": "sleep", "value": 0.02, "need": need} for need in (30, 90, 30, 30, 60, 30)]
    assert session.run("both", tasks=tasks).status == "completed"
    assert most_at_once(session, "CAST(t.parameters->>'need' AS INTEGER)") <= 100
    assert most_at_once(session, "1") <= 2


def test_S56_a_job_says_that_tasks_wait_for_memory(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(workers=2, memory="100MB")
    session.register(weighing("waiting", "60MB"), {"act": wait_for_file})
    job = session.submit("waiting", tasks=[{"path": str(tmp_path / "go")}] * 3)
    wait_until(lambda: "processing" in set(job.tasks().get("status", ())))
    said = str(job)
    session.register(jobs.Acts, jobs.ALL_HANDLERS)
    assert session.run("acts", tasks=[{}] * 3).status == "completed", "which says nothing of memory, and is not held"
    (tmp_path / "go").touch()
    assert "2 wait under limit memory (60.0 MB each, 100.0 MB for all)" in said
    assert job.wait().status == "completed"


# Where memory does not suffice


def take_much(parameters: dict[str, Any]) -> dict[str, Any]:
    """Have no memory left where another one is at it as well: raise, or be ended as the system would."""
    folder = Path(parameters["folder"])
    mine = folder / "at-work" / f"{os.getpid()}"
    mine.touch()
    try:
        if not (folder / "crowd").exists():  # the first ones wait for each other
            while len(os.listdir(mine.parent)) < 2 and not (folder / "crowd").exists():
                time.sleep(0.005)
            (folder / "crowd").touch()
        if parameters.get("never") or len(os.listdir(mine.parent)) > 1:
            if "counter" in parameters:
                Path(parameters["counter"]).write_text("low 0\noom_kill 1\n")
                mine.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)  # so that the other sees it
            raise MemoryError("no room for an array")
        return {"success": True, "result": {}}
    finally:
        mine.unlink(missing_ok=True)


def crowded(session: gf.Session, folder: Path, **parameters: Any) -> gf.JobHandle:
    (folder / "crowded/at-work").mkdir(parents=True)
    session.register(jobs.Acts, {"act": take_much})
    return session.run("acts", tasks=[{"folder": str(folder / "crowded"), "name": n, **parameters} for n in range(4)])


@pytest.mark.on_duckdb
def test_S56_a_task_that_had_too_little_memory_runs_again_alone_before_that_counts(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(workers=2, max_retries=0)
    assert crowded(session, tmp_path).status == "completed"
    counts = session.sql("SELECT outcome, count(*) AS number FROM attempts GROUP BY 1").set_index("outcome")["number"]
    assert counts["completed"] == 4
    assert counts.index.tolist() in (["completed", "lost"], ["lost", "completed"])
    lost = session.sql("SELECT * FROM attempts WHERE outcome = 'lost'")
    assert set(lost["error_category"]) == {"memory"}
    assert (
        lost["error"]
        .str.fullmatch(r"no room for an array; its process had .*B of the .*B of memory that there are for all tasks")
        .all()
    )
    assert most_at_once(session, "CASE WHEN a.attempt > 1 THEN 10 ELSE 1 END") == 10, (
        "what runs again has nobody beside it"
    )


def crowd_once(parameters: dict[str, Any]) -> dict[str, Any]:
    """The one that is not to ``stay`` has no memory at first; then the others stay until they are ended."""
    folder = Path(parameters["folder"])
    if parameters["stay"]:
        while (folder / "stay").exists():
            time.sleep(0.005)
    elif (folder / "stay").exists():
        while len(os.listdir(folder)) < 2:  # until the other is there
            time.sleep(0.005)
        raise MemoryError("no room")
    time.sleep(0.05)
    return {"success": True, "result": {}}


@pytest.mark.on_duckdb
def test_S56_what_is_to_run_alone_does_so_after_an_interrupt_too(open_session: OpenSession, tmp_path: Path) -> None:
    folder = tmp_path / "crowded"
    folder.mkdir()
    (folder / "stay").touch()
    (folder / "both").touch()
    session = open_session(workers=2, max_retries=0)
    session.register(jobs.Acts, {"act": crowd_once})
    tasks = [{"folder": str(folder), "stay": stay} for stay in (False, True, True)]
    job = session.submit("acts", tasks=tasks)
    wait_until(lambda: "lost" in set(job.attempts().get("outcome", ())))
    assert set(job.tasks()["status"]) == {"queued", "processing"}, "it waits for what is out"
    session.close()
    (folder / "stay").unlink()
    assert job.resume().wait().status == "completed"
    assert most_at_once(session, "CASE WHEN t.task_index = 0 THEN 10 * (a.attempt - 1) ELSE 1 END") == 10


def test_S56_what_fails_alone_is_retried_like_any_other_and_alone_again(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(workers=2, max_retries=1, base_delay=0.0)
    job = crowded(session, tmp_path, never=True)
    assert job.status == "failed"
    rows = session.sql("SELECT task_id, list(outcome ORDER BY attempt) AS ended FROM attempts GROUP BY 1")
    assert [list(ended) for ended in rows["ended"]] == [["lost", "failed", "failed"]] * 4
    assert "no room for an array; its process had" in (job.error or "")


def test_S56_without_a_budget_too_little_memory_is_a_failure_like_any_other(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(workers=2, max_retries=0, memory="none")
    assert crowded(session, tmp_path, never=True).status == "failed"
    assert set(session.sql("SELECT outcome FROM attempts")["outcome"]) == {"failed"}


def test_S56_a_worker_that_the_system_ended_for_want_of_memory_counts_as_that(
    open_session: OpenSession, tmp_path: Path
) -> None:
    counter = tmp_path / "sys/fs/cgroup/box/memory.events"
    counter.parent.mkdir(parents=True)
    counter.write_text("low 0\noom_kill 0\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/box\n")
    session = open_session(workers=2, max_retries=0)
    vars(session.runtime.executor)["_kills"] = Kills(tmp_path)  # where no system counts
    job = crowded(session, tmp_path, counter=str(counter))
    lost = session.sql("SELECT * FROM attempts WHERE outcome = 'lost' AND error_type = 'WorkerDied'")
    assert set(lost["error_category"]) == {"memory"}
    assert lost["error"].str.contains("was ended by the system, which had no memory left for it .SIGKILL.").all()
    assert job.status == "completed"


def hold(parameters: dict[str, Any]) -> dict[str, Any]:
    held = b"x" * (parameters["megabytes"] * MB)
    time.sleep(parameters.get("sleep", 0))
    return {"success": True, "result": {"held": len(held)}}


needs_looks = pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the system cannot forget a peak")


@needs_looks
def test_S56_the_peak_of_a_small_task_behind_a_large_one_is_its_own(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    session.register(weighing("one_by_one", "50MB"), {"act": hold})
    session.run("one_by_one", tasks=[{"megabytes": number} for number in (1, 200, 2)])
    frame = session.sql("SELECT peak_memory, pid FROM attempts ORDER BY started_at")
    first, large, small = (int(peak) for peak in frame["peak_memory"])
    assert frame["pid"].nunique() == 1
    assert large > first + 150 * MB
    assert small < first + 50 * MB


# What nobody says, and what was had before


@pytest.mark.on_duckdb
def test_S56_a_stage_that_says_sizes_goes_by_what_tasks_of_these_sizes_had(open_session: OpenSession) -> None:
    session = open_session(workers=3, memory="400MB")

    session.register(weighing("by_size", None, size="megabytes"), {"act": hold})
    session.run("by_size", tasks=[{"megabytes": number} for number in (250, 1)]).wait()
    small, large = [{"megabytes": 1}] * 6, [{"megabytes": 250, "sleep": 0.05}] * 3
    job = session.run("by_size", tasks=[*small, *large, *small])
    attempts = job.attempts()
    assert job.status == "completed"
    large_ones = attempts[attempts["peak_memory"] > 240 * MB].sort_values("started_at")
    assert len(large_ones) == 3
    assert (large_ones["started_at"].iloc[1:].to_numpy() >= large_ones["ended_at"].iloc[:-1].to_numpy()).all()


@needs_looks
@pytest.mark.on_duckdb
def test_S56_a_first_run_of_large_tasks_that_say_their_sizes_has_no_two_of_them_at_once(
    open_session: OpenSession,
) -> None:
    session = open_session(workers=3, memory="400MB")
    session.register(weighing("first_run", None, size="megabytes", order="largest"), {"act": hold})
    job = session.run("first_run", tasks=[{"megabytes": 1}] * 6 + [{"megabytes": 250, "sleep": 0.05}] * 3)
    attempts = job.attempts().sort_values("started_at")
    assert (attempts["outcome"] == "completed").all()
    large = attempts[attempts["peak_memory"] > 240 * MB]
    assert len(large) == 3
    assert (large["started_at"].iloc[1:].to_numpy() >= large["ended_at"].iloc[:-1].to_numpy()).all()


@needs_looks
def test_S56_a_first_run_of_long_tasks_waits_for_a_look_at_the_first_one_and_not_for_its_end(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(workers=3, memory="2GB")
    session.register(weighing("long_run", None, size="others"), {"act": meet})
    tasks = [{"folder": str(tmp_path), "others": 2, "name": f"{number}"} for number in range(3)]
    assert session.run("long_run", tasks=tasks).status == "completed"


@pytest.mark.on_duckdb
def test_S56_what_tasks_had_is_told_by_the_last_plans_of_which_any_has_completed(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    session.register(weighing("seldom", None, size="n"), jobs.ALL_HANDLERS)
    assert session.run("seldom", tasks=[{"n": 7}]).status == "completed"
    for number in range(4):
        assert session.run("seldom", tasks=[{"do": "raise", "value": "ValueError", "n": number}]).status == "failed"
    assert [size for size, _ in session.store.peaks("seldom", "probe of seldom", 1)] == [7]


@needs_looks
def test_S56_a_first_run_of_short_tasks_has_them_travel_together_once_one_has_ended(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(workers=2, memory="2GB")
    executor, sent = session.runtime.executor, list[int]()
    submit = executor.submit

    def told(chunk: Chunk) -> None:
        if chunk.kind == "tasks":
            sent.append(len(chunk.batch.keys))
        submit(chunk)

    monkeypatch.setattr(executor, "submit", told)
    session.register(weighing("short_run", None, size="value", order="largest"), jobs.ALL_HANDLERS)
    job = session.run("short_run", tasks=[{"value": number} for number in range(2000)])
    assert job.status == "completed"
    assert sent[0] == 1
    assert len(sent) < 300, "some of these are taken back and sent again"


def test_S56_a_stage_that_says_nothing_goes_by_memory_once_there_is_too_little_for_all_workers(
    open_session: OpenSession,
) -> None:
    session = open_session(workers=3, memory="400MB")
    session.register(jobs.Acts, {"act": hold})
    job = session.run("acts", tasks=[{"megabytes": 250, "sleep": 0.05}] * 8)
    assert job.status == "completed"
    attempts = job.attempts().sort_values("ended_at")
    first, later = attempts["ended_at"].iloc[0], attempts[attempts["started_at"] > attempts["ended_at"].iloc[2]]
    assert len(later) >= 5
    assert (later["started_at"].iloc[1:].to_numpy() >= later["ended_at"].iloc[:-1].to_numpy()).all()
    assert first < later["started_at"].iloc[0]
    said = "goes on by memory: tasks of stage 1 are expected to need up to "
    assert job.logs()["message"].str.contains(said).any()
