"""One task again, in this process: which one, what it is called with, what is said, and where a debugger stops."""

from __future__ import annotations

import io
import json
import logging
import pdb
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow import task_handle as replay
from geoflow.commands.magic import LONGEST, cell_of
from geoflow.core.rows import NewJob
from geoflow.engine.tasks import TaskNotFound
from geoflow.errors import DefinitionError, JobNotFound
from tests.helpers import jobs
from tests.helpers.profiles import seldom
from tests.helpers.sessions import OpenSession, rows

FAILS: dict[str, Any] = {"do": "raise", "value": "ValueError"}


@pytest.fixture(params=["work.db", seldom("work.duckdb")])
def store_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(open_session: OpenSession) -> gf.Session:
    return open_session(workers=0, base_delay=0)


# Finding a task, and what it tells


def test_a_task_tells_what_is_stored_of_it(session: gf.Session) -> None:
    job = session.run("acts", tasks=[{"value": 7}, {"do": "say", "value": "hello"}, FAILS])
    done, loud, failed = (job.task(f"s1-t{number}") for number in range(3))
    assert (done.status, done.parameters, done.error, done.output) == ("completed", {"value": 7}, None, None)
    assert done.result is not None
    assert done.result["result"]["value"] == 7
    assert "hello" in str(loud.output)
    assert (failed.status, failed.result) == ("failed", None)
    assert failed.error == "ValueError: a ValueError on purpose"
    assert repr(failed) == f"<task s1-t2 of job {job.id[:8]}, act: failed, ValueError: a ValueError on purpose>"
    assert (failed.task_type, failed.stage, failed.index, failed.id) == ("act", 1, 2, "s1-t2")


def test_the_attempts_of_a_task_are_its_own(session: gf.Session) -> None:
    job = session.run("acts", tasks=[{}, {"do": "raise", "value": "OSError"}])
    found = job.task("s1-t1").attempts()
    assert found["attempt"].tolist() == [1, 2, 3, 4]
    assert set(found["task_id"]) == {"s1-t1"}


def test_a_task_goes_by_the_beginning_of_its_id_or_by_having_failed_first(session: gf.Session) -> None:
    job = session.run("two_acts", tasks=[{} for _ in range(11)], tasks_2=[{}, FAILS, FAILS])
    assert job.task("s2-t0").stage == 2
    assert job.task("s1-t1").id == "s1-t1"  # which is also how s1-t10 begins
    assert job.task("s1-t10").index == 10
    assert job.task().id == "s2-t1"
    with pytest.raises(TaskNotFound, match=r"begin or end with 's1-': s1-t0, s1-t1, s1-t2, s1-t3, s1-t4 and more\."):
        job.task("s1-")
    with pytest.raises(TaskNotFound, match=r"begins or ends with 'tile'. Those that failed are s2-t1, s2-t2\."):
        job.task("tile")


def test_a_job_without_failures_names_its_tasks(session: gf.Session) -> None:
    job = session.run("acts", tasks=[{}])
    with pytest.raises(TaskNotFound, match=rf"No task of job {job.id[:8]} \(acts\) failed\. Name one: s1-t0\."):
        job.task()


def test_tasks_that_a_rerun_set_aside_are_not_found(session: gf.Session) -> None:
    job = session.run("acts", tasks=[FAILS])
    first = job.task()
    assert job.rerun().wait().task()._place != first._place


def test_a_name_means_the_latest_job_or_the_one_before_the_slash(session: gf.Session) -> None:
    with pytest.raises(JobNotFound, match="There are no jobs in"):
        session.task()
    older = session.run("acts", tasks=[{}, FAILS])
    latest = session.run("acts", tasks=[FAILS])
    assert session.task().job.id == latest.id
    assert session.task("s1-t0").job.id == latest.id
    assert session.task(f"{older.id[:8]}/s1-t0").job.id == older.id
    assert session.task(f"{older.id}/").id == "s1-t1"
    with pytest.raises(TaskNotFound, match="For another job: JOB/TASK"):
        session.task("s1-t1")


# Running it here


def test_a_task_runs_here_with_its_parameters_and_the_context_of_its_last_attempt(session: gf.Session) -> None:
    seen = []

    def look(params: dict[str, Any], context: gf.TaskContext) -> dict[str, Any]:
        params["mine"] = True
        seen.append((params, context))
        return {"success": True}

    job = session.run("acts", tasks=[{}, {"do": "raise", "value": "OSError"}])
    before = rows(session, "SELECT * FROM attempt ORDER BY attempt_key")
    session.register(jobs.Acts, handlers={"act": look})
    task = job.task()
    assert task.run() == {"success": True}
    assert task.run() == {"success": True}
    (params, context), (again, _) = seen
    assert params == again == {"do": "raise", "value": "OSError", "mine": True}
    assert isinstance(context.logger, logging.Logger)
    assert context[:7] == (job.id, "acts", 1, "s1-t1", 1, "act", 4)
    assert rows(session, "SELECT * FROM attempt ORDER BY attempt_key") == before
    assert job.status == "failed"


def test_what_a_task_raises_here_passes(session: gf.Session) -> None:
    task = session.run("acts", tasks=[FAILS]).task()
    with pytest.raises(ValueError, match="a ValueError on purpose"):
        task.run()


def test_S43_a_task_whose_code_is_not_registered_here_does_not_run(session: gf.Session) -> None:
    task = session.run("acts", tasks=[FAILS]).task()
    session.register(jobs.TwoActs, handlers={"act": jobs.act})
    session.registry._types.pop("acts")
    with pytest.raises(DefinitionError, match="is of type 'acts', which is not registered in this session"):
        task.debug()


def test_a_task_whose_type_has_no_handler_any_more_says_which_there_are(session: gf.Session) -> None:
    class Renamed(jobs.Acts):
        stages = [{"number": 1, "name": "act", "task_type": "perform"}]

    task = session.run("acts", tasks=[FAILS]).task()
    session.register(Renamed, handlers={"perform": jobs.act})
    with pytest.raises(DefinitionError, match=r"has no handler for 'act', .* It has perform"):
        task.run()


# Debugging


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({}, "It did not raise.\n"),
        ({"do": "fail"}, "It did not raise; it returned a failure, which would be retried: it said no\n"),
        ({"do": "fail", "value": {"retryable": False}}, "a failure, which would not be retried: it said no\n"),
        ({"do": "return", "value": 3}, "what it returned fails the task: The handler of 'act' must return a dict"),
    ],
)
def test_S20_S24_debug_says_what_the_engine_makes_of_a_task_that_does_not_raise(
    session: gf.Session, capsys: pytest.CaptureFixture[str], task: dict[str, Any], said: str
) -> None:
    job = session.run("acts", tasks=[task])
    capsys.readouterr()
    returned = job.debug("s1-t0")
    out = capsys.readouterr().out
    assert out.startswith(f"Calling act for task s1-t0 of job {job.id[:8]}.\n")
    assert said in out
    assert returned == (3 if task.get("value") == 3 else {**returned})


def test_debug_shows_the_users_own_frames_where_nobody_can_type(
    session: gf.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    job = session.run("acts", tasks=[FAILS])
    capsys.readouterr()
    assert job.debug() is None
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(", in ")[1] for line in shown if "File " in line] == ["act", "_raise"]
    assert shown[-1] == "ValueError: a ValueError on purpose"


def parse(params: dict[str, Any]) -> dict[str, Any]:
    width = 3
    return {"success": True, "result": json.loads(params["text"]), "width": width}


class Parse(jobs.Acts):
    job_type = "parse"
    stages = [{"number": 1, "name": "parse", "task_type": "parse"}]

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        return [{"task_id": "only", "task_type": "parse", "parameters": job_params["tasks"][0]}]


def scripted(commands: str) -> tuple[type[pdb.Pdb], io.StringIO]:
    """A debugger to which *commands* are typed, and what it shows."""
    shown = io.StringIO()

    class Scripted(pdb.Pdb):
        def __init__(self) -> None:
            super().__init__(stdin=io.StringIO(commands), stdout=shown, nosigint=True, readrc=False)

    return Scripted, shown


def test_debug_stops_in_the_users_own_frame_with_the_librarys_below(
    session: gf.Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session.register(Parse, handlers={"parse": parse})
    job = session.run("parse", tasks=[{"text": "{oops"}])
    debugger, shown = scripted("p width\np params['text']\nup\ndown\ndown\np s\nq\n")
    monkeypatch.setattr(replay, "_debugger", lambda: debugger)
    assert job.debug() is None
    lines = [line.removeprefix("(Pdb) ") for line in shown.getvalue().splitlines()]
    assert lines[0].startswith("> ")
    assert lines[0].endswith("parse()")
    assert lines[2:5] == ["3", "'{oops'", "*** Oldest frame"]  # above it is nothing of ours
    assert "loads()" in lines[5]
    assert "It raised JSONDecodeError: Expecting property name" in capsys.readouterr().out


def test_the_frames_of_what_carries_a_typed_stage_are_not_shown(
    session: gf.Session, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = gf.JobType("typed")

    @typed.stage
    def divide(p: dict[str, Any]) -> float:
        return 1 / p["by"]

    job = session.run(typed, by=0)
    capsys.readouterr()
    assert job.debug() is None
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(", in ")[1] for line in shown if "File " in line] == ["divide"]


def test_S44_what_debug_says_has_no_secrets_in_it(session: gf.Session, capsys: pytest.CaptureFixture[str]) -> None:
    def connect(params: dict[str, Any]) -> dict[str, Any]:
        if params["raise"]:
            raise OSError("cannot reach db://me:hunter2@host")
        return {"success": False, "error": "password=hunter2 was refused"}

    session.register(Parse, handlers={"parse": connect})
    for raises in (True, False):
        capsys.readouterr()
        session.run("parse", tasks=[{"raise": raises}]).debug("only")
        out = capsys.readouterr().out
        assert "***" in out
        assert "hunter2" not in out


# Writing it down


def run_cell(text: str, names: dict[str, Any]) -> Any:
    """What the last line of *text* is worth."""
    *lines, last = text.splitlines()
    exec("\n".join(lines), names)
    return eval(last, names)


def test_a_cell_calls_the_function_of_the_notebook_by_its_name(session: gf.Session) -> None:
    session.register(Parse, handlers={"parse": parse})
    job = session.run("parse", tasks=[{"text": "[1, 2]", "none": None, "deep": {"er": [True] * 30}}])
    text = cell_of(job.task("only"), {"parse": parse, "_": parse, "session": session})
    assert text.splitlines()[0] == f"# Task only of job {job.id[:8]}, stage 1, which is completed"
    assert text.splitlines()[-1] == "parse(params)"
    assert "import" not in text
    assert "session" not in text
    assert run_cell(text, {"parse": parse}) == {"success": True, "result": [1, 2], "width": 3}


def test_a_cell_imports_a_function_that_the_notebook_has_no_name_for(session: gf.Session) -> None:
    job = session.run("acts", tasks=[{"do": "fail"}])
    text = cell_of(job.task(), {"s": session})
    assert "from tests.helpers.jobs import act" in text.splitlines()
    assert run_cell(text, {"s": session}) == {"success": False, "error": "it said no"}


def test_a_cell_takes_from_the_session_what_has_no_name_at_all(session: gf.Session) -> None:
    def nameless(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": params["text"]}

    session.register(Parse, handlers={"parse": nameless})
    job = session.run("parse", tasks=[{"text": "t"}])
    text = cell_of(job.task("only"), {})
    assert run_cell(text, {}) == {"success": True, "result": "t"}  # `open_session` opened it last


def test_S44_a_cell_does_not_hold_secrets_nor_what_is_long(session: gf.Session) -> None:
    session.register(Parse, handlers={"parse": parse})
    for given in ({"text": "1", "password": "hunter2"}, {"text": f'"{"x" * LONGEST}"'}):
        task = session.run("parse", tasks=[given]).task("only")
        text = cell_of(task, {"parse": parse, "session": session})
        assert "params = task.parameters" in text
        assert "hunter2" not in text
        assert len(text) < 500
        assert run_cell(text, {"parse": parse, "session": session})["success"] is True


def test_S45_an_error_cannot_leave_the_comment_of_a_cell(session: gf.Session, tmp_path: Path) -> None:
    evil = f"first\nopen({str(tmp_path / 'ran')!r}, 'w')\r\x0b\x85\u2028"

    def fail(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": False, "error": evil, "retryable": False}

    session.register(Parse, handlers={"parse": fail})
    text = cell_of(session.run("parse", tasks=[{}]).task(), {"fail": fail})
    assert text.splitlines()[1:] == ["params = {}", "fail(params)"]
    assert run_cell(text, {"fail": fail})["success"] is False
    assert not (tmp_path / "ran").exists()


def test_the_parameters_of_a_cell_are_laid_out_to_be_changed(session: gf.Session) -> None:
    session.register(Parse, handlers={"parse": parse})
    given = {"text": "1", "bands": [f"band {n}" for n in range(9)], "long": "x" * 60}
    text = cell_of(session.run("parse", tasks=[given]).task("only"), {"parse": parse})
    assert text.splitlines()[1:3] == ["params = {", "    'text': '1',"]
    assert max(map(len, text.splitlines())) <= 100


def test_a_task_of_a_killed_engine_has_no_attempt_yet(session: gf.Session) -> None:
    session.store.create(NewJob("a" * 64, "acts", '[{"number": 1, "name": "w", "task_type": "act"}]', "{}", 0.0))
    with pytest.raises(TaskNotFound, match="Name one: no tasks yet"):
        session.job("aaaa").task()
