"""What users give and write: parameters, ids, names, plans, finalizes, code that changes or is not there."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoflow as gf
from geoflow.errors import JobFailed, JobIdCollision, ParameterError
from tests.faults.driving import SECONDS, check_store
from tests.helpers import jobs
from tests.helpers.profiles import a_share
from tests.helpers.sessions import OpenSession, Trace, rows
from tests.helpers.waiting import wait_until

# Parameters and ids

texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=12,
)
seen: list[tuple[str, Any]] = []


class Given(jobs.Acts):
    """A task for each of ``units``, with the id that is its first part and the parameters that are its second."""

    job_type = "given"
    description = "What is given arrives."
    stages = [{"number": 1, "name": "look", "task_type": "look", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        return [{"task_id": name, "task_type": "look", "parameters": {"it": it}} for name, it in job_params["units"]]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {task.task_id: task.result_data["result"] for task in context.task_results}


def look(params: dict[str, Any], context: Any) -> dict[str, Any]:
    seen.append((context.task_id, params["it"]))
    return {"success": True, "result": params["it"]}


@pytest.fixture(scope="module")
def session() -> Iterator[gf.Session]:
    """In this process, so that hundreds of jobs take no time."""
    opened = gf.open(":memory:", workers=0, display="none")
    opened.register(Given, {"look": look})
    yield opened
    opened.close()


# A NUL, which would end the text in SQL's eyes, is spelt out in ids and errors.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=100)


@a_share(0.4)
@given(st.lists(st.tuples(names, json_values), max_size=5, unique_by=lambda unit: unit[0]))
def test_F071_whatever_json_is_given_reaches_plan_handler_finalize_and_store_as_it_was(
    session: gf.Session, units: list[tuple[str, Any]]
) -> None:
    seen.clear()
    job = session.run("given", units=units, on_existing="rerun")
    assert job.status == "completed"
    as_json = [(name, json.loads(json.dumps(it))) for name, it in units]
    assert seen == as_json
    assert job.result() == dict(as_json)
    assert job.parameters == {"units": [list(unit) for unit in as_json]}
    stored = rows(session, "SELECT task_id, parameters, result FROM tasks WHERE job_id = ? AND NOT superseded", job.id)
    found = [(name, json.loads(given)["it"], json.loads(result)["result"]) for name, given, result in stored]
    assert found == [(name, it, it) for name, it in as_json]
    assert list(job.tasks().task_id) == [name for name, _ in as_json]


HOSTILE = [
    "'); DROP TABLE job; --",
    "' OR '1'='1",
    "%s %(job_id)s {0} {job.__class__.__init__.__globals__}",
    "$job_id ? :now @x",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table><iframe src='http://example.com'>",
    "\x1b[2J\x1b]0;title\x07\r\n\x00",
    "../../etc/passwd",
    "CON",
    "007",
    "é",
    "e\u0301",
    "\u202eright to left",
    "🌍" * 20,
]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def test_F067_F068_F069_F070_ids_and_texts_that_are_sql_markup_or_commands_are_text_everywhere(
    open_session: OpenSession,
) -> None:
    session = open_session(workers=1, max_retries=0)
    session.register(Given, {"look": _refuse})
    job = session.run("given", units=[[name, name] for name in HOSTILE])
    assert job.status == "failed"
    spelt = [name.replace("\x00", "\\x00") for name in HOSTILE]
    found = rows(session, "SELECT task_id, error FROM tasks ORDER BY task_index")
    assert found == [(name, f"no {name}") for name in spelt]
    assert list(job.errors().task_id) == spelt
    assert [one["it"] for one in job.tasks().parameters] == HOSTILE
    tags = _Tags()
    tags.feed(job._repr_html_())
    assert not {"script", "img", "iframe"} & {tag for tag, _ in tags.found}
    assert not [name for _, given in tags.found for name, _ in given if name.startswith("on") or name == "src"]
    assert "\x1b" not in repr(job) + str(job)
    assert "\x1b" not in job._repr_html_()
    log = Path(session.settings.log_path or "").read_text()
    assert all(json.loads(line) for line in log.splitlines())
    assert "\x1b" not in log
    assert job.task("007").id == "007"
    check_store(session)


def _refuse(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": False, "error": f"no {params['it']}", "retryable": False}


def test_F059_parameters_that_are_refused_leave_no_row_and_the_callers_own_as_they_were(
    open_session: OpenSession,
) -> None:
    session = open_session(workers=0)
    given = {"tasks": "none"}
    with pytest.raises(ParameterError, match="acts refuses these parameters: tasks must be a list of dicts"):
        session.submit("acts", given)
    assert given == {"tasks": "none"}
    with pytest.raises(ParameterError, match=r"parameters\['tasks'\]\[0\]\['value'\] is of type object"):
        session.submit("acts", tasks=[{"value": object()}])
    assert session.store.jobs() == []


# The same job, and one that only seems to be


def test_F062_jobs_of_one_id_that_are_not_the_same_are_refused_and_both_are_named(open_session: OpenSession) -> None:
    class Same(jobs.Acts):
        job_type = "same"
        generate_job_id = staticmethod(lambda params: "a" * 64)

    class Other(Same):
        job_type = "other"

    session = open_session(workers=0)
    for job_type in (Same, Other):
        session.register(job_type, {"act": jobs.act})
    first = session.run("same", tasks=[{"value": 1, "password": "hidden"}])
    with pytest.raises(JobIdCollision, match=r"has the id aaaaaaaa, which is that of a job of type same"):
        session.submit("other", tasks=[{"value": 1}])
    with pytest.raises(
        JobIdCollision, match=r"belongs to a job with other parameters.*\"value\":1.*\"value\":2"
    ) as told:
        session.submit("same", tasks=[{"value": 2, "password": "hidden"}], on_existing="rerun")
    assert "hidden" not in str(told.value)
    assert first.result()["values"] == [1]
    assert rows(session, "SELECT count(*) FROM attempts") == [(1,)]


def test_F063_a_job_submitted_again_is_found_in_every_state_and_only_touched_when_asked(
    open_session: OpenSession, trace: Trace
) -> None:
    session = open_session(max_retries=0)
    bad = {"do": "raise", "value": "ValueError", "until_attempt": 2}
    hang = {"do": "hang", "until_attempt": 2, "trace": trace.path}
    completed = session.run("acts", tasks=[{}])
    failed = session.run("acts", tasks=[bad])
    cancelled = session.submit("acts", tasks=[hang, hang, {}])
    wait_until(lambda: len(trace.lines()) == 2)
    running = session.submit("acts", tasks=[hang, hang, {}])
    assert running.receipt is not None
    assert (running.id, running.receipt.existing_status) == (cancelled.id, "processing")
    cancelled.cancel()
    before = rows(session, "SELECT job_id, status, epoch FROM jobs")
    for job, tasks in ((completed, [{}]), (failed, [bad]), (cancelled, [hang, hang, {}])):
        again = session.submit("acts", tasks=tasks)
        assert again.receipt is not None
        assert (again.id, again.receipt.existing_status) == (job.id, job.status)
    assert rows(session, "SELECT job_id, status, epoch FROM jobs") == before
    for tasks in ([{}], [bad], [hang, hang, {}]):
        assert session.run("acts", tasks=tasks, on_existing="resume").status == "completed"
    assert rows(session, "SELECT count(*) FROM attempts WHERE job_id = ?", completed.id) == [(1,)]
    check_store(session)


# Code that changes, and code that is not there


def test_F064_a_resume_runs_the_code_of_now_and_each_attempt_says_which_it_was(open_session: OpenSession) -> None:
    session = open_session(workers=0, max_retries=0)

    def first(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": params["value"] == 1, "error": "not yet", "result": {"value": "old"}}

    def second(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {"value": "new"}}

    mine = type("Mine", (jobs.Acts,), {"job_type": "mine", "__module__": "__main__"})
    session.register(mine, {"act": first})
    job = session.run("mine", tasks=[{"value": 1}, {"value": 2}])
    assert job.status == "failed"
    session.register(mine, {"act": second})
    assert job.resume().result(timeout=SECONDS)["values"] == ["old", "new"]
    versions = [code for (code,) in rows(session, "SELECT code FROM attempts ORDER BY task_id, attempt")]
    assert versions[0] == versions[1] != versions[2]


def test_F065_a_job_whose_type_is_not_registered_waits_for_it_and_is_named(
    open_session: OpenSession, tmp_path: Path, trace: Trace
) -> None:
    before = open_session()
    job = before.submit("acts", tasks=[{"do": "hang", "until_attempt": 2, "trace": trace.path}])
    wait_until(lambda: trace.lines() == ["s1-t0 1"])
    before.close()
    with gf.open(tmp_path / "work.db", workers=1, display="none") as session:
        with pytest.warns(UserWarning, match=rf"Job {job.id[:8]} is of type 'acts', which is not registered"):
            assert session.resume() == []
        assert session.job(job.id).status == "queued"
        session.register(jobs)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (resumed,) = session.resume()
        assert resumed.wait(timeout=SECONDS).status == "completed"


# Plans and finalizes


@pytest.mark.parametrize(("plan", "said"), [("exit", "SystemExit: the code called sys.exit(3)"), ("interrupt", "Keyb")])
def test_F055_a_plan_that_leaves_fails_its_job_and_no_worker(faulty: OpenSession, plan: str, said: str) -> None:
    session = faulty(workers=1)
    job = session.run("acts", tasks=[{}], plan=plan)
    assert job.status == "failed"
    assert said in (job.error or "")
    assert rows(session, "SELECT count(*) FROM tasks") == [(0,)]


@pytest.mark.parametrize(
    ("finalize", "error_type"),
    [("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt"), ("lock", "UnstorableValue")],
)
def test_F126_a_finalize_that_leaves_or_cannot_be_stored_leaves_results_and_the_fallback(
    faulty: OpenSession, finalize: str, error_type: str
) -> None:
    session = faulty(workers=1)
    job = session.run("acts", tasks=[{"value": 1}, {}], finalize=finalize)
    assert job.with_errors
    assert job.result()["error_type"] == error_type
    assert job.result()["fallback"] is True
    assert rows(session, "SELECT status FROM tasks WHERE job_id = ?", job.id) == [("completed",)] * 2


def test_F130_which_siblings_of_a_failed_task_run_is_as_was_chosen_and_all_are_counted(faulty: OpenSession) -> None:
    tasks: list[dict[str, Any]] = [{"do": "raise", "value": "ValueError"}, *[{"value": n} for n in range(9)]]
    drains, stops = faulty(workers=1), faulty(workers=1, on_failure="stop")
    for session, on_failure in ((drains, "drain"), (stops, "stop")):
        job = session.run("acts", tasks=tasks, on_failure=on_failure)
        assert job.status == "failed"
        with pytest.raises(JobFailed, match="'s1-t0'"):
            job.result()
        states = dict(rows(session, "SELECT status, count(*) FROM tasks WHERE job_id = ? GROUP BY 1", job.id))
        assert sum(states.values()) == 10
        assert states["failed"] == 1
        assert ("queued" in states) == (on_failure == "stop")


def test_F127_a_finalize_that_changes_what_it_is_given_changes_nothing(faulty: OpenSession) -> None:
    class Spoils(jobs.Acts):
        job_type = "spoils"

        @staticmethod
        def finalize_job(context: Any = None) -> dict[str, Any]:
            for task in context.task_results:
                task.result_data.clear()
            context.task_results.clear()
            context.parameters.clear()
            return {"spoilt": True}

    Spoils.__module__ = "__main__"
    session = faulty(workers=1)
    session.register(Spoils, {"act": jobs.act})
    job = session.run("spoils", tasks=[{"value": 1}])
    assert job.result() == {"spoilt": True}
    assert job.parameters == {"tasks": [{"value": 1}]}
    assert job.tasks().result[0]["result"]["value"] == 1
