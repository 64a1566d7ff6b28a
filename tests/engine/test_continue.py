"""S50: one bad tile stops nobody, and once it is mended all is as if it had never been bad."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import geoflow as gf
from geoflow.errors import ContractViolationError, DefinitionError, ParameterError
from geoflow.jobtypes.contract import job_id_for
from geoflow.support.settings import load_settings
from tests.helpers import grown, jobs
from tests.helpers.profiles import a_share
from tests.helpers.sessions import OpenSession, rows

pytestmark = pytest.mark.on_duckdb(seldom=True)
BAD = {"do": "raise", "value": "ValueError"}
STATES = "SELECT stage, status, count(*) FROM tasks GROUP BY 1, 2 ORDER BY 1, 2"


class Tiles:
    """One task for each name, of which those in the file *broken* fail; then one for each result, then all of them."""

    job_type = "tiles"
    description = "Tiles of which some may be broken."
    stages = [
        {"number": 1, "name": "read", "task_type": "read", "on_failure": "continue"},
        {"number": 2, "name": "tell", "task_type": "tell", "parallelism": "fan_out", "on_failure": "continue"},
        {"number": 3, "name": "count", "task_type": "count", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return job_id_for("tiles", params)

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None, context: Any = None
    ) -> list[dict[str, Any]]:
        folder, kind = job_params["folder"], "read" if stage == 1 else "tell"
        Path(folder, f"missing-{stage}").write_text(json.dumps(context.missing))
        names = job_params["names"] if stage == 1 else [told["result"] for told in previous_results or ()]
        return [
            {"task_id": f"{kind}-{name}", "task_type": kind, "parameters": {"name": name, "folder": folder}}
            for name in names
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {
            "told": [[task.task_id, str(task.status), task.success] for task in context.task_results],
            "results": [task.result_data.get("result") for task in context.task_results],
            "errors": [task.error_details for task in context.task_results if not task.success],
        }


def read(params: dict[str, Any]) -> dict[str, Any]:
    return _named(params, "read")


def tell(params: dict[str, Any]) -> dict[str, Any]:
    return _named(params, "tell")


def _named(params: dict[str, Any], kind: str) -> dict[str, Any]:
    folder, name = Path(params["folder"]), f"{kind}-{params['name']}"
    with open(folder / "trace", "a") as file:
        file.write(f"{name}\n")
    if name in (folder / "broken").read_text().split():
        raise ValueError(f"{name} is broken")
    return {"success": True, "result": params["name"]}


def counted(params: dict[str, Any], context: gf.TaskContext) -> dict[str, Any]:
    about = params["aggregation_metadata"]
    assert [[task.task_id, task.task_index] for task in context.missing] == [
        [task["task_id"], task["task_index"]] for task in about.get("missing", [])
    ]
    return {"success": True, "result": [result["result"] for result in params["previous_results"]], "about": about}


HANDLERS: dict[str, Any] = {"read": read, "tell": tell, "count": counted}


class Folder:
    """What is broken, and which tasks ran."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.breaks()

    def breaks(self, *names: str) -> None:
        (self.path / "broken").write_text(" ".join(names))

    def ran(self) -> list[str]:
        """What ran since this was asked last."""
        trace = self.path / "trace"
        names = trace.read_text().split() if trace.exists() else []
        trace.write_text("")
        return sorted(names)

    def missing(self, stage: int) -> Any:
        return json.loads((self.path / f"missing-{stage}").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture(scope="module")
def open_sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], tuple[gf.Session, Path]]]:
    """Sessions in memory with the job types of `grown`, and a folder for each."""
    opened: list[gf.Session] = []

    def open_one() -> tuple[gf.Session, Path]:
        session = gf.open(":memory:", workers=0, display="none", max_retries=1, base_delay=0.0)
        session.register(grown)
        opened.append(session)
        return session, tmp_path_factory.mktemp("grown")

    yield open_one
    for session in opened:
        session.close()


def run(session: gf.Session, folder: Folder, names: str = "abcde", **more: Any) -> gf.JobHandle:
    session.register(Tiles, HANDLERS)
    return session.run("tiles", names=list(names), folder=str(folder.path), **more)


def clean(session: gf.Session, job: gf.JobHandle) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """What a job that never had a failure comes to."""
    sql = "SELECT stage, task_index, task_id, status, parameters, result FROM tasks WHERE NOT superseded ORDER BY 1, 2"
    return job.result(), rows(session, sql)


# Going on


@pytest.mark.on_duckdb
@pytest.mark.parametrize("workers", [0, 2], ids=["inline", "processes"])
def test_S50_a_stage_goes_on_without_what_failed_and_later_stages_are_told_what_is_missing(
    open_session: OpenSession, folder: Folder, workers: int
) -> None:
    folder.breaks("read-b", "tell-d")
    session = open_session(workers=workers)
    job = run(session, folder)
    assert (job.status, job.with_errors, job.error) == ("completed", True, None)
    assert repr(job) == f"<job {job.id[:8]} tiles: completed with errors, 2 failed>"
    asked = "SELECT failed, with_errors FROM jobs"
    listed = session.jobs()[["failed", "with_errors"]]
    assert session.sql(asked).values.tolist() == listed.values.tolist() == [[2, True]]
    again = run(session, folder).receipt
    assert again is not None
    told = session.runtime.found_again(again, "on_existing={!r}")
    assert "nothing was run. job.retry_failed() runs what failed, on_existing='rerun' does all of it" in told
    assert folder.missing(1) == []
    assert folder.missing(2) == [["read-b", 1]]
    result = job.result()
    assert [name for name, _, success in result["told"] if not success] == ["read-b", "tell-d"]
    assert {status for _, status, success in result["told"] if not success} == {"failed"}
    assert result["errors"] == ["ValueError: read-b is broken", "ValueError: tell-d is broken"]
    assert result["results"] == [*"a", None, *"cde", *"ac", None, "e", [*"ace"]]  # in order, each in its place
    ((told,),) = rows(session, "SELECT result FROM tasks WHERE stage = 3")
    assert json.loads(told)["about"] == {
        **{"stage": 3, "previous_stage": 2, "result_count": 3, "pattern": "fan_in"},
        "missing": [{"task_id": "tell-d", "task_index": 2}],
    }


def test_S15_S50_where_nothing_failed_nothing_is_said_to_be_missing(open_session: OpenSession, folder: Folder) -> None:
    session = open_session(workers=0)
    job = run(session, folder)
    assert not job.with_errors
    ((told,),) = rows(session, "SELECT result FROM tasks WHERE stage = 3")
    assert json.loads(told)["about"] == {"stage": 3, "previous_stage": 2, "result_count": 5, "pattern": "fan_in"}
    ((stages,),) = rows(session, "SELECT stages FROM job")
    assert "let_pass" not in stages


@pytest.mark.parametrize(
    ("allowed", "status"), [(None, "completed"), (2, "completed"), (0.5, "completed"), (1, "failed"), (0.49, "failed")]
)
def test_S50_more_failures_than_are_allowed_fail_the_job_at_once_as_without(
    open_session: OpenSession, allowed: float | None, status: str
) -> None:
    session = open_session(workers=0, on_failure="continue", allow_failed=allowed)
    job = session.run("two_acts", tasks=[BAD, {}, BAD, {}])
    assert (job.status, job.with_errors) == (status, status == "completed")
    stages = [(1, "completed", 2), (1, "failed", 2)]
    assert rows(session, STATES) == [*stages, (2, "completed", 2)] if status == "completed" else stages
    if status == "failed":
        assert (job.error or "").endswith("; at most 1 of this stage may fail")


def test_S50_a_stage_none_of_whose_tasks_completed_is_gone_on_from_by_nobody(open_session: OpenSession) -> None:
    session = open_session(workers=0, on_failure="continue", allow_failed=1.0)
    job = session.run("two_acts", tasks=[BAD, BAD])
    assert job.status == "failed"
    assert session.run("two_acts", tasks=[BAD]).status == "failed"


def test_S50_a_stage_says_otherwise_than_its_job_type_and_this_than_the_session(open_session: OpenSession) -> None:
    class Own(jobs.TwoActs):
        job_type = "own_acts"
        on_failure = "continue"
        stages = [{**jobs.TwoActs.stages[0], "allow_failed": 1}, {**jobs.TwoActs.stages[1], "on_failure": "drain"}]

    session = open_session(workers=0)
    session.register(Own, jobs.ALL_HANDLERS)
    assert session.run("own_acts", tasks=[BAD, {}, {}]).status == "completed"
    assert session.run("own_acts", tasks=[BAD, BAD, {}]).status == "failed"
    assert session.run("own_acts", tasks=[{}, {}, {}], tasks_2=[BAD, {}]).status == "failed"
    assert [stage.on_failure for stage in session.registry.get("own_acts").stages] == ["continue", "drain"]


def test_S50_a_plan_that_fails_behind_a_stage_with_failures_is_why_the_job_failed(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch, folder: Folder
) -> None:
    folder.breaks("read-b")
    session = open_session(workers=0)
    made = Tiles.create_tasks_for_stage

    def planned(stage: int, job_params: Any, job_id: str, previous_results: Any = None, context: Any = None) -> Any:
        if stage == 2:
            raise RuntimeError("no plan")
        return made(stage, job_params, job_id, previous_results, context)

    monkeypatch.setattr(Tiles, "create_tasks_for_stage", staticmethod(planned))
    job = run(session, folder)
    assert (job.status, job.error) == ("failed", "Stage 2 (tell) could not be planned: RuntimeError: no plan")


def test_S33_S50_a_task_that_nobody_saw_end_is_told_to_finalize_without_a_time(
    open_session: OpenSession, folder: Folder
) -> None:
    folder.breaks("read-b")
    session = open_session(workers=0)
    job = run(session, folder)
    with session.store._transaction(session.store.claim(1, "{}")) as connection:
        connection.execute("UPDATE attempt SET ended_at = NULL WHERE outcome = 'failed'")
    assert job.refinalize().result()["errors"] == ["ValueError: read-b is broken"]
    assert job.with_errors


# Repair


@pytest.mark.on_duckdb
@pytest.mark.parametrize("workers", [0, 2], ids=["inline", "processes"])
def test_S50_retry_failed_runs_what_failed_and_what_is_behind_it_and_all_is_as_in_a_clean_run(
    open_session: OpenSession, folder: Folder, workers: int, tmp_path: Path
) -> None:
    session, other = open_session(workers=workers), open_session(tmp_path / "clean.db", workers=workers)
    expected = clean(other, run(other, folder))
    folder.breaks("read-b", "tell-d")
    folder.ran()
    job = run(session, folder)
    assert folder.ran() == ["read-a", "read-b", "read-c", "read-d", "read-e", "tell-a", "tell-c", "tell-d", "tell-e"]
    folder.breaks()
    assert not job.retry_failed().wait().with_errors
    assert folder.ran() == ["read-b", "tell-b", "tell-d"]
    assert clean(session, job) == expected


def test_S50_what_fails_again_is_let_pass_again_and_no_result_is_made_twice(
    open_session: OpenSession, folder: Folder
) -> None:
    folder.breaks("read-b", "read-c")
    session = open_session(workers=0)
    job = run(session, folder)
    folder.breaks("read-c")
    folder.ran()
    job.retry_failed().wait()
    assert folder.ran() == ["read-b", "read-c", "tell-b"]
    assert (job.status, job.with_errors, job.result()["errors"]) == (
        *("completed", True),
        ["ValueError: read-c is broken"],
    )
    folder.breaks()
    job.retry_failed().wait()
    assert folder.ran() == ["read-c", "tell-c"]
    assert (job.with_errors, job.result()["errors"]) == (False, [])
    before = rows(session, "SELECT count(*) FROM attempt")
    assert not job.retry_failed().wait().with_errors  # and when there is nothing to repair, nothing is done
    assert rows(session, "SELECT count(*) FROM attempt") == before


def test_S50_a_job_that_failed_later_is_repaired_from_the_first_stage_with_failures_and_resumed_where_it_stopped(
    open_session: OpenSession, folder: Folder
) -> None:
    folder.breaks("read-b", *(f"tell-{name}" for name in "acde"))
    session = open_session(workers=0)
    job = run(session, folder)
    assert job.status == "failed"
    folder.breaks()
    folder.ran()
    job.resume().wait()  # S37: what its stage has not completed, and no more
    assert folder.ran() == ["tell-a", "tell-c", "tell-d", "tell-e"]
    assert (job.status, job.with_errors) == ("completed", True)
    job.retry_failed().wait()
    assert folder.ran() == ["read-b", "tell-b"]
    assert not job.with_errors


def test_S37_S50_a_repair_that_is_interrupted_goes_on_with_what_it_had(
    open_session: OpenSession, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.breaks("read-b")
    session = open_session(workers=0)
    job = run(session, folder)
    folder.breaks()
    folder.ran()
    session.store.close()
    made = Tiles.create_tasks_for_stage

    def stopping(stage: int, job_params: Any, job_id: str, previous_results: Any = None, context: Any = None) -> Any:
        if stage == 2:
            session.runtime.machine.ask("interrupt", session.runtime.active[job_id])
        return made(stage, job_params, job_id, previous_results, context)

    monkeypatch.setattr(Tiles, "create_tasks_for_stage", staticmethod(stopping))
    job.retry_failed().wait()
    assert job.interrupted
    monkeypatch.setattr(Tiles, "create_tasks_for_stage", staticmethod(made))
    job.resume().wait()
    assert folder.ran() == ["read-b", "tell-b"]
    assert not job.with_errors
    assert job.result()["results"] == [*"abcde", *"abcde", [*"abcde"]]


@a_share(1.0)
@given(
    job_type=st.sampled_from(sorted(grown.ALL_JOBS)),
    tasks=st.integers(1, 6),
    told=st.booleans(),
    placed=st.booleans(),
    percents=st.lists(st.integers(0, 100), min_size=1, max_size=3),
    salt=st.integers(0, 1_000),
)
def test_S50_a_job_of_any_shape_is_after_its_repair_what_a_job_without_failures_is(
    open_sessions: Any, job_type: str, tasks: int, told: bool, placed: bool, percents: list[int], salt: int
) -> None:
    about = {"tasks": tasks, "told": told, "placed": placed, "number": salt}
    expected = None
    for weathers in ([0], [*percents, 0]):
        session, folder = open_sessions()
        weather = grown.Weather(folder)
        weather.is_now(weathers[0], salt)
        job = session.run(job_type, folder=str(folder), **about)
        for percent in weathers[1:]:
            weather.is_now(percent, salt)
            job.retry_failed().wait()
        found = grown.all_of(session, job, folder)
        assert found[:2] == ("completed", False)
        assert expected in (None, found)
        expected = found


# Typed functions, and keys


def typed_tiles() -> gf.JobType:
    """A typed job type whose tiles are the words of the file *names*, and fail as those in *broken* say."""
    tiles = gf.JobType("typed_tiles", on_failure="continue", allow_failed=0.5)

    @tiles.stage
    def scan(p: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"name": name} for name in Path(p["folder"], "names").read_text().split()]

    @tiles.each(scan, key="name")
    def look(tile: dict[str, Any], p: dict[str, Any]) -> dict[str, Any]:
        with open(Path(p["folder"], "trace"), "a") as file:
            file.write(f"look-{tile['name']}\n")
        if tile["name"] in Path(p["folder"], "broken").read_text().split():
            raise ValueError("broken")
        return tile

    @tiles.each(look, key="name")
    def draw(tile: dict[str, Any], p: dict[str, Any]) -> str:
        with open(Path(p["folder"], "trace"), "a") as file:
            file.write(f"draw-{tile['name']}\n")
        return str(tile["name"]).upper()

    @tiles.reduce(draw)
    def join(parts: list[Any], context: gf.TaskContext) -> dict[str, Any]:
        return {"parts": parts, "missing": [task.task_id.partition("-")[2] for task in context.missing]}

    return tiles


@pytest.mark.on_duckdb
def test_S50_S51_keyed_tasks_of_typed_functions_are_the_same_ones_wherever_they_stand(
    open_session: OpenSession, folder: Folder
) -> None:
    (folder.path / "names").write_text("a b c d")
    folder.breaks("b")
    session = open_session(workers=0)
    job = session.run(typed_tiles(), folder=str(folder.path))
    assert job.with_errors
    assert job.result() == {"parts": ["A", "C", "D"], "missing": []}  # of the stage before, nothing failed
    folder.breaks()
    folder.ran()
    job.retry_failed().wait()
    assert folder.ran() == ["draw-b", "look-b"]
    assert job.result() == {"parts": ["A", "B", "C", "D"], "missing": []}
    names = rows(session, "SELECT task_id FROM tasks WHERE stage_name = 'draw' AND NOT superseded ORDER BY task_index")
    assert [name.partition("-")[2] for (name,) in names] == ["draw-a", "draw-b", "draw-c", "draw-d"]


def test_S50_a_typed_reduce_is_told_what_is_missing_in_its_context(open_session: OpenSession) -> None:
    tiles = gf.JobType("reduced", on_failure="continue")

    @tiles.stage
    def scan() -> list[str]:
        return ["a", "b", "c", "d"]

    @tiles.each(scan, key=str.upper)
    def look(name: str) -> str:
        if name in "bd":
            raise ValueError("broken")
        return name

    @tiles.reduce(look)
    def join(parts: list[str], context: gf.TaskContext) -> dict[str, Any]:
        return {"parts": parts, "missing": [[task.task_id[9:], task.task_index] for task in context.missing]}

    job = open_session(workers=0).run(tiles)
    assert job.result() == {"parts": ["a", "c"], "missing": [["look-B", 1], ["look-D", 3]]}


# What is refused


@pytest.mark.parametrize("allowed", [1.5, -1, True, "5"])
def test_S50_what_allow_failed_cannot_be_is_refused_where_it_is_said(open_session: OpenSession, allowed: Any) -> None:
    class Wrong(jobs.Acts):
        job_type = "wrong_acts"
        stages = [{**jobs.Acts.stages[0], "on_failure": "continue", "allow_failed": allowed}]

    with pytest.raises(DefinitionError, match=r"stage 1 has allow_failed=.*a share of them from 0.0 to 1.0"):
        open_session(workers=0).register(Wrong, jobs.ALL_HANDLERS)
    with pytest.raises(DefinitionError, match=r"allow_failed: Input should be a number of tasks"):
        gf.JobType("wrong", allow_failed=allowed)
    if allowed != "5":  # as a variable says it
        with pytest.raises(ParameterError, match=r"allow_failed cannot be .* a share of them from 0.0 to 1.0"):
            open_session(allow_failed=allowed)
    typed = gf.JobType("wrong")
    with pytest.raises(DefinitionError, match=r"(?s)stage has the options.*allow_failed"):
        typed.stage(allow_failed=1.5)


def test_S50_a_task_that_aggregates_is_called_here_with_what_was_missing_there(
    open_session: OpenSession, folder: Folder
) -> None:
    folder.breaks("tell-d")
    session = open_session(workers=0)
    job = run(session, folder)
    ((task_id,),) = rows(session, "SELECT task_id FROM tasks WHERE stage = 3")
    assert job.task(task_id).run()["about"]["missing"] == [{"task_id": "tell-d", "task_index": 3}]


def test_S50_a_test_written_of_it_has_what_was_missing_too(open_session: OpenSession, folder: Folder) -> None:
    folder.breaks("tell-d")
    session = open_session(workers=0)
    job = run(session, folder)
    ((task_id,),) = rows(session, "SELECT task_id FROM tasks WHERE stage = 3")
    written = job.task(task_id).to_pytest(folder.path / "test_count.py")
    assert "missing=[gf.MissingTask(task_id='tell-d', task_index=3)]" in written.read_text()


def test_S50_no_export_is_proved_on_a_job_that_went_on_without_tasks(open_session: OpenSession, folder: Folder) -> None:
    tiles = gf.JobType("exported", on_failure="continue")

    @tiles.stage
    def scan() -> list[int]:
        return [1, 0]

    @tiles.each(scan)
    def divide(n: int) -> float:
        return 1 / n

    job = open_session(workers=0, max_retries=0).run(tiles)
    with pytest.raises(DefinitionError, match="what they would have given is not known: run them again"):
        gf.export(tiles, folder.path / "out", job=job)


# Keys


def planned_names(keys: list[Any]) -> dict[str, Any]:
    """The ids of the tasks for items with these *keys*, by their ids."""
    tiles = gf.JobType("keyed")

    @tiles.stage
    def scan() -> list[dict[str, Any]]:
        return []

    @tiles.each(scan, key="key")
    def look(tile: dict[str, Any]) -> dict[str, Any]:
        return tile

    before = [{"success": True, "result": [{"key": key} for key in keys]}]
    planned = tiles.contract().create_tasks_for_stage(2, {}, "a" * 64, before)  # type: ignore[attr-defined]
    return {task["task_id"]: task["parameters"]["item"]["key"] for task in planned}


keys = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120),
    st.integers(-999, 999),
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(list),
)


@given(st.lists(keys, unique_by=lambda key: key if isinstance(key, str) else json.dumps(key), max_size=12), st.data())
def test_S51_the_id_of_a_keyed_task_depends_neither_on_its_place_nor_on_other_items(
    some: list[Any], data: st.DataObject
) -> None:
    longer = data.draw(st.permutations(some))
    shorter = longer[: data.draw(st.integers(0, len(longer)))]
    whole, part = planned_names(longer), planned_names(shorter)
    assert part.items() <= whole.items()
    assert planned_names(some) == whole
    assert len(whole) == len(some), "two keys have two ids"
    assert all(1 <= len(name) <= 100 for name in whole)


def test_S51_two_items_of_one_key_are_refused_by_its_name() -> None:
    with pytest.raises(ContractViolationError, match=r"Items 0 and 2 of scan have the same key 'a' by key='key'"):
        planned_names(["a", "b", "a"])


@pytest.mark.on_duckdb
def test_S51_in_a_longer_list_the_old_tasks_keep_their_ids_and_the_results_that_they_have(
    open_session: OpenSession, folder: Folder
) -> None:
    (folder.path / "names").write_text("b d")
    session = open_session(workers=0)
    job = session.run(typed_tiles(), folder=str(folder.path), on_existing="update")
    ids = "SELECT task_id FROM tasks WHERE stage = 2 AND NOT superseded ORDER BY task_index"
    assert [name[9:] for (name,) in rows(session, ids)] == ["look-b", "look-d"]
    (folder.path / "names").write_text("a b c d")
    folder.ran()
    job.update().wait()
    assert [name[9:] for (name,) in rows(session, ids)] == ["look-a", "look-b", "look-c", "look-d"]
    assert folder.ran() == ["draw-a", "draw-c", "look-a", "look-c"]
    assert job.result()["parts"] == ["A", "B", "C", "D"]


def test_S2_S50_a_method_of_a_job_class_that_is_called_like_an_option_is_its_authors(
    open_session: OpenSession, recwarn: pytest.WarningsRecorder
) -> None:
    class Hooked(jobs.Acts):
        job_type = "hooked_acts"

        @staticmethod
        def on_failure(job_id: str) -> None: ...

    session = open_session(workers=0)
    session.register(Hooked, jobs.ALL_HANDLERS)
    assert session.run("hooked_acts", tasks=[BAD, {}]).status == "failed"
    assert not recwarn.list


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("0.05", 0.05), ("1.0", 1.0), ("none", None), ("1", 1)])
def test_S50_a_variable_says_a_number_of_tasks_or_a_share(
    monkeypatch: pytest.MonkeyPatch, text: str, value: float | None
) -> None:
    monkeypatch.setenv("GEOFLOW_ALLOW_FAILED", text)
    found = load_settings().allow_failed
    assert (found, type(found)) == (value, type(value))


@pytest.mark.on_duckdb
def test_S34_S50_frames_sql_views_and_handles_say_alike_which_jobs_completed_with_errors(
    open_session: OpenSession,
) -> None:
    session = open_session(workers=0, on_failure="continue")
    made = [
        session.run("acts", tasks=[{}, BAD], number=1),
        session.run("acts", tasks=[{}], number=2),
        session.run("acts", tasks=[{}], number=3, finalize="raise"),
        session.run("acts", tasks=[BAD], number=4),
    ]
    own = gf.JobType("own")

    @own.stage
    def scan() -> dict[str, Any]:
        return {"fallback": True}

    made.append(session.run(own))
    expected = [True, False, True, False, False]
    assert [job.with_errors for job in made] == expected
    assert session.jobs()["with_errors"].tolist() == expected
    assert session.sql("SELECT with_errors FROM jobs ORDER BY created_at")["with_errors"].tolist() == expected
    assert [session.runtime.snapshot(job.id).with_errors for job in made] == expected
