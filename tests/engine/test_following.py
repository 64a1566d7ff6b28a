"""A job after a job: submitted once when that has completed, whatever is killed between, and told where it is not."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.engine.runtime import Runtime
from geoflow.errors import DefinitionError, GeoflowWarning, JobFailed, ParameterError
from tests.helpers.following import killed, wrong
from tests.helpers.sessions import OpenSession

WORKERS = pytest.mark.parametrize("workers", [0, 1])
FAILS: dict[str, Any] = {"do": "raise", "value": "ValueError"}


def as_many(result: dict[str, Any]) -> dict[str, Any]:
    """A greeting for each task that completed."""
    return {"n": result["completed"]}


def others(session: gf.Session) -> list[dict[str, Any]]:
    jobs = session.jobs()
    return jobs[jobs["job_type"] == "hello_world"]["parameters"].tolist()


@WORKERS
def test_S67_a_job_follows_when_the_first_has_completed(
    open_session: OpenSession, tmp_path: Path, workers: int
) -> None:
    with open_session(tmp_path / "work.db", workers=workers) as session:
        job = session.submit("acts", tasks=[{}, {}])
        follow = job.then("hello_world", as_many, message="well done")
    second = open_session(tmp_path / "work.db", workers=0)
    assert [one["n"] for one in others(second)] == [2]
    assert others(second)[0]["message"] == "well done"
    assert second.jobs()["status"].tolist() == ["completed"] * 2
    assert "after job" in repr(follow)


def test_S67_after_a_job_that_has_completed_it_is_submitted_at_once(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    follow = session.run("acts", tasks=[{}]).then("hello_world", as_many)
    assert follow.job is not None
    assert follow.wait().wait().status == "completed"
    assert len(others(session)) == 1


def test_S67_it_is_submitted_once_for_each_end_though_the_map_says_something_else_each_time(
    open_session: OpenSession, tmp_path: Path
) -> None:
    numbers = itertools.count(1)

    def another(result: dict[str, Any]) -> dict[str, Any]:
        return {"n": next(numbers)}

    session = open_session(tmp_path / "work.db", workers=0)
    job = session.run("acts", tasks=[{}])
    assert job.then("hello_world", another).wait().id == job.then("hello_world", another).wait().id
    in_another = open_session(tmp_path / "work.db", workers=0).job(job.id)
    assert in_another.then("hello_world", another).wait().parameters["n"] == 1
    assert job.then("hello_world", another, name="second").wait().parameters["n"] == 2
    job.rerun().wait()
    assert job.then("hello_world", another).wait().parameters["n"] == 3
    assert len(others(session)) == 3


@pytest.mark.parametrize("killed", ["before it is noted", "after it is noted", "after it is submitted"])
def test_S67_what_a_crash_came_between_is_done_once_in_the_next_session(
    open_session: OpenSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    session, submit = open_session(tmp_path / "work.db", workers=0), Runtime.submit
    calls = itertools.count(1)

    def differently(result: dict[str, Any]) -> dict[str, Any]:
        number = next(calls)
        if killed == "before it is noted" and number == 1:
            raise KeyboardInterrupt
        return {"n": number}

    def dies(self: Runtime, *given: Any, **more: Any) -> Any:
        if killed == "after it is submitted":
            submit(self, *given, **more)
        raise KeyboardInterrupt

    job = session.run("acts", tasks=[{}])
    if killed != "before it is noted":
        monkeypatch.setattr(Runtime, "submit", dies)
    with pytest.raises(KeyboardInterrupt):
        job.then("hello_world", differently)
    monkeypatch.undo()
    again = open_session(tmp_path / "work.db", workers=0)
    follow = again.job(job.id).then("hello_world", differently).wait()
    assert [one["n"] for one in others(again)] == [follow.parameters["n"]]
    assert next(calls) == (3 if killed == "before it is noted" else 2)


def test_S67_another_map_finds_what_was_submitted_and_is_told(open_session: OpenSession) -> None:
    job = open_session(":memory:", workers=0).run("acts", tasks=[{}])
    first = job.then("hello_world", as_many).wait()
    with pytest.warns(GeoflowWarning, match=r"was followed by hello_world before, with another map .* name= makes"):
        assert job.then("hello_world", lambda result: {"n": 5}).wait().id == first.id


@pytest.mark.parametrize(
    ("given", "why"), [({"tasks": [FAILS]}, "is failed"), ({"tasks": [{}], "finalize": "raise"}, "its finalize failed")]
)
def test_S67_nothing_follows_a_job_without_a_result_until_it_has_one(
    open_session: OpenSession, given: dict[str, Any], why: str
) -> None:
    session = open_session(":memory:", workers=0)
    with pytest.raises(JobFailed, match=rf"{why}. hello_world was not submitted after it"):
        session.submit("acts", given).then("hello_world", n=1).wait()  # it may have ended before that is said
    assert others(session) == []


def test_S67_it_follows_a_job_that_failed_once_its_failed_tasks_have_completed(
    open_session: OpenSession, tmp_path: Path
) -> None:
    switch = tmp_path / "mended"
    job_type = gf.JobType("mended_later", description="Fails until it is mended.")

    @job_type.stage
    def look(params: dict, there: str = str(switch)) -> int:
        if not Path(params["path"]).exists():
            raise ValueError("not yet")
        return 1

    with open_session(":memory:", workers=0) as session:
        job = session.run(job_type, path=str(switch))
        follow = job.then("hello_world", n=1)
        assert follow.job is None
        switch.touch()
        job.retry_failed().wait()
        assert follow.wait().wait().status == "completed"
        assert len(others(session)) == 1


def test_S67_a_map_that_raises_submits_nothing_and_is_told(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    job = session.submit("acts", tasks=[{}])
    with pytest.raises(KeyError, match="no such key"):  # by `then` itself, where the job has ended before it
        job.then("hello_world", lambda result: {"n": result["no such key"]}).wait()
    session.runtime.wait_for_all()
    assert others(session) == []
    with pytest.raises(ParameterError, match="map returned 5, and not a dict of parameters"):
        job.then("hello_world", lambda result: 5)  # type: ignore[arg-type, return-value]
    with pytest.raises(ParameterError, match="n: Input should be a valid integer"):
        job.then("hello_world", lambda result: {"n": "many"}, name="wrong")
    with pytest.raises(DefinitionError):
        job.then("no_such_type")


def test_S67_where_nobody_hears_it_what_a_map_raised_is_logged_and_shown(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=1)
    job = session.submit("acts", tasks=[{"do": "sleep", "value": 0.5}])  # until somebody waits for it
    follow = job.then("hello_world", lambda result: {"n": result["no such key"]})
    try:
        session.runtime.wait_for_all()
    finally:
        told = session.logs(contains="was not submitted after it")
    assert told["error_type"].tolist() == ["KeyError"]
    assert told["job_id"].tolist() == [job.id]
    assert "not submitted: KeyError" in repr(follow)


@pytest.mark.parametrize("seed", range(2))
def test_S67_each_job_of_a_batch_is_followed_by_one_whatever_processes_are_killed(tmp_path: Path, seed: int) -> None:
    killed(tmp_path / "work.db", 3, 0.3, seed)
    assert wrong(tmp_path / "work.db") == ""
