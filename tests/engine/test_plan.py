"""A plan says what a submission would start, in the words that the submission would have, and leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

import geoflow as gf
from geoflow.errors import DefinitionError, JobIdCollision, ParameterError
from geoflow.views.tracebacks import place
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession, rows

TASKS = [{"do": "ok", "value": index} for index in range(5)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plan_has_the_jobs_id_and_its_first_tasks_and_leaves_no_file(
    open_session: OpenSession, tmp_path: Path, workers: int
) -> None:
    session = open_session(workers=workers)
    plan = session.plan("two_acts", tasks=TASKS)
    assert [*tmp_path.iterdir()] == []
    assert (plan.job_type, plan.exists, plan.parameters) == ("two_acts", None, {"tasks": TASKS})
    assert plan.tasks.columns.tolist() == ["task_id", "task_type", "task_index", "parameters", "metadata", "bytes"]
    assert plan.tasks["parameters"].tolist() == TASKS
    assert plan.tasks["bytes"].tolist() == [len('{"do":"ok","value":0}')] * 5

    job = session.run("two_acts", tasks=TASKS)
    assert job.receipt is not None
    assert (job.id, job.receipt.status) == (plan.job_id, "created")
    first = job.tasks().query("stage == 1")
    for column in ("task_id", "task_type", "task_index", "parameters", "metadata"):
        assert first[column].tolist() == plan.tasks[column].tolist()


def test_it_says_what_became_of_the_job_and_changes_nothing_of_it(open_session: OpenSession) -> None:
    session = open_session()
    session.run("acts", tasks=[{"do": "fail", "value": {"retryable": False}}])
    before = rows(session, "SELECT * FROM job"), rows(session, "SELECT * FROM task")
    plan = session.plan("acts", tasks=[{"do": "fail", "value": {"retryable": False}}])
    assert plan.exists == "failed"
    assert "submitted before, and failed" in repr(plan)
    assert (rows(session, "SELECT * FROM job"), rows(session, "SELECT * FROM task")) == before


def test_of_the_stages_that_follow_only_a_fan_ins_number_of_tasks_is_known(open_session: OpenSession) -> None:
    stages = open_session().plan("three_acts", tasks=TASKS).stages
    assert stages["tasks"].astype(object).where(stages["tasks"].notna(), None).tolist() == [5, None, 1]
    assert stages["stage_name"].tolist() == ["act", "again", "collect"]
    assert stages["parallelism"].tolist() == ["single", "fan_out", "fan_in"]


WRONG: dict[str, dict[str, Any]] = {
    "it raises": {"plan": "raise"},
    "it exits": {"plan": "exit"},
    "it dies": {"plan": "die"},
    "it hangs": {"plan": "hang"},
    "no parameters": {"tasks": [{}, "none"]},
    "it raises on its own": {"tasks": [{}], "plan": "interrupt"},
}


@pytest.mark.parametrize("how", WRONG)
def test_S17_a_plan_that_is_wrong_is_refused_with_the_error_that_the_job_would_have(
    open_session: OpenSession, how: str
) -> None:
    params = {"tasks": [{}], **WRONG[how]}
    session = open_session(workers=1, plan_timeout=1)
    with pytest.raises(DefinitionError) as refused:
        session.plan("acts", params)
    job = session.run("acts", params)
    assert job.status == "failed"
    assert job.error is not None
    traceback = job.runtime.row(job.id).traceback
    where = place(traceback or "")
    said = job.error + (f" ({where})" if where else "")
    assert re.sub("process [0-9]+", "", str(refused.value)) == re.sub("process [0-9]+", "", said)
    assert getattr(refused.value, "__notes__", []) == ([traceback] if traceback else [])


def test_S7_parameters_and_job_types_are_refused_as_by_submit(open_session: OpenSession) -> None:
    session = open_session()

    def said(how: Callable[..., Any], kind: type[Exception], *given: Any) -> str:
        with pytest.raises(kind) as refused:
            how(*given)
        return str(refused.value)

    wrong: list[tuple[type[Exception], str, Any]] = [(ParameterError, "acts", 3), (DefinitionError, "acst", [])]
    for kind, name, tasks in wrong:
        assert said(session.plan, kind, name, {"tasks": tasks}) == said(session.submit, kind, name, {"tasks": tasks})

    class Same(jobs.Acts):
        job_type = "same"

        @classmethod
        def generate_job_id(cls, params: dict[str, Any]) -> str:
            return "a" * 64

    session.register(Same, {"act": jobs.act})
    session.run("same", tasks=[{}])
    assert "other parameters" in said(session.plan, JobIdCollision, "same", {"tasks": []})


class Params(BaseModel):
    names: list[str]
    token: str = "none"


def test_a_job_type_whose_functions_live_in_a_notebook_is_planned_as_it_is_now(open_session: OpenSession) -> None:
    made = gf.JobType("local", params=Params)

    @made.stage
    def scan(p: Params) -> list[str]:
        return p.names

    @made.each(scan)
    def look(name: str) -> dict[str, str]:
        return {"name": name}

    plan = open_session().plan(made, names=["a", "b"])
    assert plan.tasks["task_id"].tolist() == [f"{plan.job_id[:8]}-scan"]
    assert plan.stages["task_type"].tolist() == ["local_scan", "local_look"]


def test_in_a_pool_of_ones_own_it_is_planned_there_and_the_pool_stays_open(open_session: OpenSession) -> None:
    with ThreadPoolExecutor(2) as pool:
        session = open_session(":memory:", workers=2, executor=pool)
        assert len(session.plan("acts", tasks=TASKS).tasks) == 5
        assert session.probe("acts", tasks=TASKS).job.status == "completed"
        assert pool.submit(len, "open").result() == 4


def test_gf_plan_and_gf_probe_use_the_default_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOFLOW_STORE", str(tmp_path / "work.db"))
    monkeypatch.setenv("GEOFLOW_WORKERS", "0")
    monkeypatch.setattr("geoflow.api._session", None)
    try:
        assert len(gf.plan("hello_world", n=7).tasks) == 7
        assert not (tmp_path / "work.db").exists()
        assert gf.probe("hello_world", n=7, items=2).stages["tasks_run"].tolist() == [2, 2]
        assert gf.jobs()["job_type"].tolist() == ["probe_of_hello_world"]
    finally:
        gf.default_session().close()


def test_a_handler_that_cannot_travel_any_more_is_told(open_session: OpenSession) -> None:
    held: list[Any] = []

    def act(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": len(held)}

    session = open_session()
    session.register(jobs.Acts, {"act": act})
    held.append(threading.Lock())
    with pytest.raises(DefinitionError, match="held"):
        session.plan("acts", tasks=[{}])


def test_no_tasks_and_many_tasks_are_planned_and_drawn(open_session: OpenSession) -> None:
    session = open_session()
    none = session.plan("acts", tasks=[])
    assert len(none.tasks) == 0
    assert "Stage 1 has no tasks" in repr(none)
    many = session.plan("acts", tasks=[{"value": index} for index in range(20_000)])
    assert many.tasks["task_index"].tolist() == [*range(20_000)]
    assert "20,000 tasks" in repr(many)


class _Tags(HTMLParser):
    """The names of the tags that are open, and those that were met."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.met: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.met.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_S44_S45_it_draws_itself_in_80_columns_and_in_safe_html_without_secrets(open_session: OpenSession) -> None:
    tasks = [{"value": "<script>alert(1)</script>\x1b[31m" * 9, "api_key": "hush"}] * 4
    plan = open_session().plan("three_acts", {"tasks": tasks, "password": "hush"})
    drawn = repr(plan)
    assert max(map(len, drawn.splitlines())) <= 80
    assert "\x1b" not in drawn
    html = plan._repr_html_()
    tags = _Tags()
    tags.feed(html)
    assert tags.open == []
    assert not tags.met & {"script", "a", "img", "iframe"}
    for text in (drawn, html, str(plan.document())):
        assert "three_acts" in text
        assert "hush" not in text
    assert plan.tasks["parameters"][0]["api_key"] == "hush", "a frame is data"


PLANNED_WRONG = """
import hashlib
def act(params):
    return {"success": True}
class Wrong:
    job_type = "wrong"
    description = "It takes the stage for a dict."
    stages = [{"number": 1, "name": "list", "task_type": "act"}]
    @staticmethod
    def validate_job_parameters(params):
        return params
    @staticmethod
    def generate_job_id(params):
        return hashlib.sha256(b"wrong").hexdigest()
    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return [stage["number"]]
    @staticmethod
    def finalize_job(context=None):
        return {}
ALL_JOBS, ALL_HANDLERS = {"wrong": Wrong}, {"act": act}
"""


def test_S3_S17_a_plan_that_raises_is_told_with_its_file_and_line_in_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(PLANNED_WRONG)
    line = PLANNED_WRONG.splitlines().index('        return [stage["number"]]') + 1
    command = [sys.executable, "-m", "geoflow", "plan", "wrong.py"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "Stage 1 (list) could not be planned: TypeError: 'int' object is not subscriptable" in refused.stderr
    assert f"(create_tasks_for_stage in wrong.py, line {line})" in " ".join(refused.stderr.split())


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    names: list[str]
    inner: dict[str, int] = {}


@pytest.mark.parametrize("tells", [True, False])
def test_S7_a_parameter_that_there_is_not_is_refused_with_those_that_there_are(
    open_session: OpenSession, tells: bool
) -> None:
    class Strict(jobs.Acts):
        job_type = "strict"
        parameters_schema: Any = Closed if tells else []

        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            return Closed.model_validate(params).model_dump()

    session = open_session()
    session.register(Strict, jobs.ALL_HANDLERS)
    with pytest.raises(ParameterError) as refused:
        session.plan("strict", name="a", token="hush")
    there = "; there are names, inner" if tells else ""
    assert str(refused.value).splitlines() == [
        "strict refuses these parameters:",
        "  - names: Field required",
        f"  - name: Extra inputs are not permitted{there} (got 'a')",
        f"  - token: Extra inputs are not permitted{there}",
    ]


def test_it_can_be_typed_in_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "geoflow", "plan", "hello_world", "n=3"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "not submitted yet" in shown.stdout
    assert [*tmp_path.iterdir()] == []
    refused = subprocess.run([*command[:-1], "n=x"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "hello_world refuses these parameters" in refused.stderr
