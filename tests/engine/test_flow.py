"""`gf.JobType`: typed functions become a job type that runs, in notebooks and in files."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field

import geoflow as gf
from geoflow.errors import ContractViolationError, DefinitionError, JobFailed, ParameterError, UnstorableValue
from geoflow.jobtypes.contract import job_id_for
from geoflow.jobtypes.registry import Registry
from geoflow.jobtypes.typed.annotations import fits, items_of, show
from geoflow.jobtypes.typed.crossing import FromJson, plain
from geoflow.jobtypes.typed.lowered import task_id
from tests.helpers.sessions import OpenSession, rows


class Params(BaseModel):
    n: int = Field(default=3, ge=0)
    token: Annotated[str, gf.identity(False)] = ""


class Tile(BaseModel):
    name: str
    width: int = 1


class Scene(BaseModel):
    title: str
    tiles: list[Tile]


@dataclass
class Stat:
    name: str
    mean: float
    seen: list[date] = field(default_factory=list)


class Colour(Enum):
    RED = "red"


def tiles(n: int) -> list[Tile]:
    return [Tile(name=f"t{i}", width=i) for i in range(n)]


def result(job_type: gf.JobType, session: gf.Session, **parameters: Any) -> dict[str, Any]:
    return job_type.run(parameters, session=session).result()


# What a function is given, and what comes back


class Limits(BaseModel):
    most: float = math.inf
    nodata: float = math.nan
    mean: float | None = None


def test_S21_parameters_that_json_would_change_are_refused_by_name(open_session: OpenSession) -> None:
    t = gf.JobType("limits", params=Limits)

    @t.stage
    def look(p: Limits) -> dict[str, bool]:
        return {"nan": math.isnan(p.nodata)}

    session = open_session()
    with pytest.raises(ParameterError, match=r"parameters\['most'\] is inf, which JSON has no number for: give None"):
        t.run(session=session)
    with pytest.raises(ParameterError, match=r"parameters\['mean'\] is NaN, .* since Limits.mean may be either"):
        t.run(most=3, mean=math.nan, session=session)
    assert t.run(most=3, session=session).result() == {"nan": True}
    assert len(session.store.jobs()) == 1, "what is refused is not stored"
    (found,) = [one for one in gf.check(t).findings if one.code == "GF308"]
    assert "parameters['most'] is inf" in found.what


@pytest.mark.parametrize("made", [math.inf, [1.0, -math.inf], Limits(most=1, mean=math.nan), {"by": [Limits()]}])
def test_S21_between_typed_stages_what_would_become_none_fails_the_task_by_name(
    made: Any, open_session: OpenSession
) -> None:
    t = gf.JobType("between")

    @t.stage
    def first(p: dict[str, Any]) -> Any:
        return made

    job = t.run(session=open_session())
    assert re.search(r"UnstorableValue: result.* is (-?inf|NaN), which", str(job.error))


def test_a_secret_as_a_parameter_is_refused_where_the_job_type_is_made() -> None:
    class Login(BaseModel):
        token: SecretStr | None = None

    with pytest.raises(DefinitionError, match=r"login: params=.*Login has token: SecretStr .*os.environ"):
        gf.JobType("login", params=Login)


def test_models_and_dataclasses_cross_as_json_and_come_back_as_themselves(open_session: OpenSession) -> None:
    t = gf.JobType("crossing", params=Params)

    @t.stage
    def scan(p: Params) -> list[Tile]:
        assert type(p) is Params
        return tiles(p.n)

    @t.each(scan, key="name")
    def stat(tile: Tile, p: Params, context: gf.TaskContext) -> Stat:
        assert (type(tile), type(p), isinstance(context, gf.TaskContext)) == (Tile, Params, True)
        return Stat(tile.name, math.nan if tile.width == 1 else tile.width / 2, [date(2024, 2, 29)])

    @t.reduce(stat)
    def merge(stats: list[Stat], p: Params) -> Stat:
        assert [type(one) for one in stats] == [Stat] * p.n
        assert math.isnan(stats[1].mean), "NaN is null in JSON; where a number has to be, it was NaN"
        return stats[-1]

    @t.finalize
    def summary(last: Stat, context: gf.JobExecutionContext, p: Params) -> Stat:
        assert (type(last), type(p)) == (Stat, Params)
        assert [task.task_type for task in context.task_results][-1] == "crossing_merge"
        return last

    session = open_session()
    job = t.run(n=4, session=session)
    assert job.result() == {"name": "t3", "mean": 1.5, "seen": ["2024-02-29"]}
    assert job.tasks()["task_type"].tolist() == ["crossing_scan", *["crossing_stat"] * 4, "crossing_merge"]


def test_without_annotations_plain_json_passes_through_in_order(open_session: OpenSession) -> None:
    t = gf.JobType("untyped")

    @t.stage
    def scan(given):
        return [{"at": (i, i + given["by"])} for i in range(2)]

    @t.each(scan)
    def shift(item, given, factor=10):
        return [value * factor + given["by"] for value in item["at"]]

    @t.reduce(shift)
    def merge(results, given):
        return {"results": results, "given": given}

    assert result(t, open_session(workers=0), by=1) == {"results": [[1, 11], [11, 21]], "given": {"by": 1}}


class Everything(BaseModel):
    when: datetime
    day: date
    took: timedelta
    path: Path
    uid: UUID
    price: Decimal
    colour: Colour
    names: set[str]
    pair: tuple[int, Stat]
    by_number: dict[int, float]
    maybe: float | None = None
    alias: int = Field(default=1, alias="proj:alias")


values = st.builds(
    Everything,
    when=st.datetimes(timezones=st.just(UTC)),
    day=st.dates(),
    took=st.integers(-(10**6), 10**6).map(lambda seconds: timedelta(seconds=seconds)),
    path=st.sampled_from([Path("a/b"), Path("/")]),
    uid=st.uuids(),
    price=st.decimals(allow_nan=False, allow_infinity=False, places=2),
    colour=st.just(Colour.RED),
    names=st.sets(st.text(st.characters(exclude_categories=["Cs"]))),
    pair=st.tuples(st.integers(-(2**53), 2**53), st.builds(Stat, name=st.just("s"), mean=st.floats(allow_nan=False))),
    by_number=st.dictionaries(st.integers(0, 9), st.floats(allow_nan=False, allow_infinity=False)),
    maybe=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(values)
def test_S21_what_a_model_holds_comes_back_equal_or_is_refused_for_its_infinities(value: Everything) -> None:
    if math.isinf(value.pair[1].mean):
        with pytest.raises(
            UnstorableValue, match=r"^result\['pair'\]\[1\]\['mean'\] is -?inf, which JSON has no number"
        ):
            plain(value)
        value.pair[1].mean = 0.0
    back = FromJson(Everything, "x")(json.loads(json.dumps(plain(value))), "x", "y")
    assert back == value


def test_a_strict_model_that_forbids_extra_fields_comes_back_too() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        when: datetime
        shape: tuple[int, int]
        low: float

    value = Strict(when=datetime(2024, 1, 1, tzinfo=UTC), shape=(1, 2), low=math.nan)
    back = FromJson(list[Strict], "x")([plain(value)], "x", "y")[0]
    assert (back.when, back.shape) == (value.when, value.shape)
    assert math.isnan(back.low)


def test_what_does_not_fit_names_each_field_and_masks_secrets() -> None:
    class Login(BaseModel):
        password: int
        port: int

    with pytest.raises(ContractViolationError) as caught:
        FromJson(list[Login], "x")([{"password": "hunter2", "port": "x"}], "stat takes logins", "what scan returned")
    assert str(caught.value) == (
        "stat takes logins: list[Login]. It cannot be made from what scan returned:\n"
        "  - 0.password: Input should be a valid integer, unable to parse string as an integer\n"
        "  - 0.port: Input should be a valid integer, unable to parse string as an integer (got 'x')"
    )


def test_a_null_is_nan_only_where_a_number_has_to_be() -> None:
    with pytest.raises(ContractViolationError, match=r"name: Input should be a valid string"):
        FromJson(Stat, "x")({"name": None, "mean": None}, "x", "y")
    assert FromJson(Everything.model_fields["maybe"].annotation, "x")(None, "x", "y") is None


def test_a_result_of_the_wrong_shape_fails_its_task_once_and_names_stage_and_field(open_session: OpenSession) -> None:
    t = gf.JobType("misfit")

    @t.stage
    def scan(p) -> list[dict[str, Any]]:
        return [{"name": "a"}, {"nme": "b"}]

    @t.each(scan)
    def stat(tile: Tile) -> str:
        return tile.name

    job = t.run(session=open_session(workers=0))
    errors = job.errors()
    assert errors["error"].tolist() == [
        "stat takes tile: Tile. It cannot be made from what scan returned:\n  - name: Field required"
    ]
    assert errors["error_category"].tolist() == ["contract"]


def test_a_failure_that_is_returned_as_the_contract_has_it_is_one(open_session: OpenSession) -> None:
    t = gf.JobType("returning")

    @t.stage
    def scan(p):
        if p["ok"]:
            return {"success": True, "result": {"n": 1}}
        return {"success": False, "error": "no tiles", "retryable": False}

    session = open_session(workers=0)
    assert result(t, session, ok=True) == {"n": 1}
    with pytest.raises(JobFailed, match="no tiles"):
        result(t, session, ok=False)


def test_exceptions_keep_their_class_and_tracebacks_begin_in_the_users_function(open_session: OpenSession) -> None:
    t = gf.JobType("raising")

    @t.stage
    def scan(p) -> list[int]:
        raise KeyError("bands")

    errors = t.run(session=open_session()).errors()
    assert errors[["error_type", "error_category"]].to_numpy().tolist() == [["KeyError", "permanent"]]
    frames = re.findall(r'File ".*[/\\]([^"]+)", line \d+, in (\w+)', errors["traceback"].iloc[0])
    assert frames == [("test_flow.py", "scan")]


def test_handlers_work_as_production_calls_them_without_context_and_with_keys_of_its_own(
    open_session: OpenSession,
) -> None:
    t = gf.JobType("produced", params=Params)

    @t.stage
    def scan(p: Params) -> list[Tile]:
        return tiles(p.n)

    @t.each(scan)
    def stat(tile: Tile, context: gf.TaskContext) -> Stat:
        context.logger.info("working on %s", tile.name)
        return Stat(tile.name, 1.0)

    handlers = t.handlers()
    assert list(handlers) == ["produced_scan", "produced_stat"]
    handled = handlers["produced_stat"]({"item": {"name": "a"}, "params": {}, "_correlation_id": "x"})
    assert handled == {"success": True, "result": {"name": "a", "mean": 1.0, "seen": []}}
    assert json.loads(json.dumps(handled)) == handled
    job_class: Any = t.contract()
    added = {"dataset_id": None, "resource_id": None, "version_id": None, "system": None, "use_service_bus": False}
    assert job_class.validate_job_parameters({"n": 1, **added}) == {"n": 1, "token": ""}


# Items


def spread(returns: Any, item: Any, made: Any, **how: Any) -> list[Any]:
    """The items of a stage that follows one which returns *made*; the annotations are *returns* and *item*."""
    t = gf.JobType("spread")

    def scan(p):
        return made

    def work(item):
        return item

    scan.__annotations__ = {} if returns is None else {"return": returns}
    work.__annotations__ = {} if item is None else {"item": item}
    t.stage(scan)
    t.each(scan, **how)(work)
    job_class: Any = t.contract()
    previous = [t.handlers()["spread_scan"]({"params": {}})]
    return [task["parameters"]["item"] for task in job_class.create_tasks_for_stage(2, {}, "a" * 64, previous)]


TILES = [{"name": "a", "width": 1}, {"name": "b", "width": 1}]
SCENE = {"title": "s", "tiles": TILES}


@pytest.mark.parametrize(
    ("returns", "item", "made", "how"),
    [
        (list[Tile], Tile, TILES, {}),
        (None, None, TILES, {}),
        (tuple[Tile, ...], Tile, TILES, {}),
        (RootModel[list[Tile]], Tile, TILES, {}),
        (Optional[list[Tile]], Tile, TILES, {}),  # noqa: UP045 - as users write it
        (Scene, Tile, SCENE, {"over": "tiles"}),
        (dict, Tile, SCENE, {"over": "tiles"}),
        (None, None, SCENE, {"over": "tiles"}),
        (Scene, None, SCENE, {"over": lambda scene: scene.tiles}),
        (None, Tile, SCENE, {"over": lambda scene: scene["tiles"]}),
    ],
)
def test_items_are_what_is_in_the_list_that_is_returned_or_found_by_over(
    returns: Any, item: Any, made: Any, how: dict[str, Any]
) -> None:
    assert spread(returns, item, made, **how) == TILES


def test_a_key_or_the_items_may_be_a_computed_field_of_the_model() -> None:
    class Grid(BaseModel):
        side: int

        @computed_field
        def cells(self) -> list[int]:
            return list(range(self.side))

    assert spread(Grid, int, Grid(side=3), over="cells") == [0, 1, 2]


@pytest.mark.parametrize(
    ("made", "how", "message"),
    [
        ({"a": 1}, {}, "scan gave dict {'a': 1}, but each runs for the items of a list."),
        (None, {}, "scan gave NoneType None"),
        ({"a": 1}, {"over": "tiles"}, "over='tiles': what scan returned has no 'tiles'; it is dict {'a': 1}."),
        ({"tiles": 3}, {"over": "tiles"}, "over='tiles' of scan gave int 3"),
        ([{"a": 1}], {"key": "name"}, "key='name': an item of what scan returned has no 'name'; it is dict {'a': 1}."),
        ([{"name": 1}, {"name": "1"}], {"key": "name"}, "Items 0 and 1 of scan have the same key '1' by key='name'"),
    ],
)
def test_S17_items_and_keys_that_are_not_there_fail_the_plan_and_name_the_stage(
    made: Any, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(ContractViolationError) as caught:
        spread(None, None, made, **how)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("returns", "made", "items"),
    [
        (list[int], [[1, 2], [], [3]], [1, 2, 3]),
        (int, [1, 2, 3], [1, 2, 3]),
        (None, [[1, 2], [3]], [[1, 2], [3]]),
        (tuple[int, int], [(1, 2), (3, 4)], [[1, 2], [3, 4]]),
    ],
)
def test_each_over_each_takes_every_result_or_the_items_of_every_list_as_its_annotation_says(
    open_session: OpenSession, returns: Any, made: list[Any], items: list[Any]
) -> None:
    t = gf.JobType("nested")

    @t.stage
    def scan(p) -> list[int]:
        return list(range(len(made)))

    def cut(index):
        return made[index]

    cut.__annotations__ = {} if returns is None else {"return": returns}
    t.each(scan)(cut)

    @t.each(cut)
    def again(item):
        return item

    assert result(t, open_session(workers=0)) == {"count": len(items), "results": items}


@pytest.mark.parametrize(
    ("returns", "takes"), [(list[int], list[list[int]]), (list[int], None), (None, list), (None, None)]
)
def test_reduce_is_given_the_result_of_each_task(open_session: OpenSession, returns: Any, takes: Any) -> None:
    t = gf.JobType("reduced")

    @t.stage
    def scan(p) -> list[int]:
        return [1, 2]

    def cut(index):
        return [index] * index

    def merge(results):
        return {"given": results}

    cut.__annotations__ = {} if returns is None else {"return": returns}
    merge.__annotations__ = {} if takes is None else {"results": takes}
    t.each(scan)(cut)
    t.reduce(cut)(merge)
    assert result(t, open_session(workers=0)) == {"given": [[1], [2, 2]]}


def test_reduce_over_one_task_is_given_its_result_as_it_is_and_each_may_follow_a_reduce(
    open_session: OpenSession,
) -> None:
    t = gf.JobType("onward", params=Params)

    @t.stage
    def scan(p: Params) -> Scene:
        return Scene(title="s", tiles=tiles(p.n))

    @t.reduce(scan)
    def chosen(scene: Scene) -> list[Tile]:
        return scene.tiles[1:]

    @t.each(chosen, key="name")
    def width(tile: Tile) -> int:
        return tile.width

    job = t.run(n=3, session=open_session(workers=0))
    assert job.result() == {"count": 2, "results": [1, 2]}


# Results


def test_without_finalize_the_result_is_that_of_the_last_stage(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    t = gf.JobType("ending", params=Params)

    @t.stage
    def scan(p: Params) -> list[int]:
        return list(range(p.n))

    assert result(t, session, n=2) == {"result": [0, 1]}

    @t.each(scan)
    def double(x: int) -> int:
        return 2 * x

    assert result(t, session, n=3) == {"count": 3, "results": [0, 2, 4]}
    many = result(t, session, n=1003)
    assert (many["count"], len(many["results"])) == (1003, 1000)
    assert result(t, session, n=0) == {"count": 0, "results": []}

    @t.reduce(double)
    def total(xs: list[int]) -> dict[str, int]:
        return {"total": sum(xs)}

    assert result(t, session, n=4) == {"total": 12}


def test_finalize_is_given_what_its_annotations_ask_for(open_session: OpenSession) -> None:
    t = gf.JobType("asked", params=Params)

    @t.stage
    def scan(p: Params) -> list[Tile]:
        return tiles(p.n)

    @t.each(scan)
    def stat(tile: Tile) -> Stat:
        return Stat(tile.name, 0.5)

    @t.finalize
    def summary(p: Params, context: gf.JobExecutionContext, stats: list[Stat]) -> dict[str, Any]:
        return {"n": p.n, "tasks": len(context.task_results), "mean": sum(stat.mean for stat in stats)}

    assert result(t, open_session(workers=0), n=2) == {"n": 2, "tasks": 3, "mean": 1.0}


# Ids


def test_S8_the_job_id_leaves_out_what_is_marked_so_and_no_other_field(open_session: OpenSession) -> None:
    t = gf.JobType("marked", params=Params)

    @t.stage
    def scan(p: Params) -> dict[str, str]:
        return {"token": p.token}

    session = open_session(workers=0)
    first = t.run(n=1, token="one", session=session)
    again = t.run(Params(n=1, token="two"), session=session)
    assert again.receipt is not None
    assert (again.id, again.receipt.status) == (first.id, "already_exists")
    assert first.id == job_id_for("marked", {"n": 1})
    assert t.run({"n": 2}, session=session).id != first.id
    assert t.submit(n=1, session=session, on_existing="rerun").wait().result() == {"token": ""}


def test_fields_of_a_dataclass_are_marked_in_the_same_way() -> None:
    @dataclass
    class Given:
        n: int
        token: Annotated[str, gf.identity(False)] = ""
        kept: Annotated[str, gf.identity(True)] = ""

    t = gf.JobType("marked", params=Given)

    @t.stage
    def scan(p: Given) -> int:
        return p.n

    job_class: Any = t.contract()
    assert job_class.non_identity_parameters == ("token",)
    assert job_class.validate_job_parameters({"n": "3"}) == {"n": 3, "token": "", "kept": ""}
    with pytest.raises(ValueError, match=r"there is no such parameter; did you mean token\?"):
        job_class.validate_job_parameters({"n": 3, "toke": ""})


def test_task_ids_stay_the_same_when_other_items_come_or_go() -> None:
    def ids(names: list[str]) -> dict[str, str]:
        t = gf.JobType("keyed")

        @t.stage
        def scan(p) -> list[Tile]:
            return []

        @t.each(scan, key="name")
        def stat(tile: Tile) -> None: ...

        job_class: Any = t.contract()
        previous = [{"success": True, "result": [{"name": name} for name in names]}]
        planned = job_class.create_tasks_for_stage(2, {}, "f" * 64, previous)
        return {task["parameters"]["item"]["name"]: task["task_id"] for task in planned}

    before, after = ids(["north", "south/1", "east"]), ids(["south/1", "west", "north"])
    assert before["north"] == after["north"] == "ffffffff-stat-north"
    assert before["south/1"] == after["south/1"]
    assert re.fullmatch(r"ffffffff-stat-south-1-[0-9a-f]{12}", after["south/1"])


@given(st.lists(st.text(), unique=True, max_size=20))
def test_S3_task_ids_of_different_keys_differ_and_have_1_to_100_safe_characters(keys: list[str]) -> None:
    ids = [task_id("a" * 64, "stat", key) for key in keys]
    assert len(set(ids)) == len(keys)
    assert all(re.fullmatch(r"[\w.-]{1,100}", made) for made in ids)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("width", ["f-0", "f-1"]),
        (lambda tile: tile.width + 10, ["f-10", "f-11"]),
        (lambda tile: date(2024, 1, 1 + tile.width), ["f-2024-01-01", "f-2024-01-02"]),
        (None, ["f-0", "f-1"]),
    ],
)
def test_a_key_is_a_field_a_function_of_the_model_or_the_place(key: Any, names: list[str]) -> None:
    t = gf.JobType("keys")

    @t.stage
    def scan(p) -> list[Tile]:
        return []

    @t.each(scan, key=key)
    def f(tile: Tile) -> None: ...

    job_class: Any = t.contract()
    previous = [{"success": True, "result": plain(tiles(2))}]
    made = [task["task_id"] for task in job_class.create_tasks_for_stage(2, {}, "a" * 64, previous)]
    assert made == [f"aaaaaaaa-{name}" for name in names]


# Parameters


def test_S7_parameters_are_refused_with_all_problems_and_a_near_name(open_session: OpenSession) -> None:
    t = gf.JobType("strict", params=Params)

    @t.stage
    def scan(p: Params) -> int:
        return p.n

    session = open_session(workers=0)
    with pytest.raises(ParameterError) as caught:
        t.submit(n=-1, tokn="x", session=session)
    assert str(caught.value).splitlines() == [
        "strict refuses these parameters:",
        "  - tokn: there is no such parameter; did you mean token? (got 'x')",
        "  - n: Input should be greater than or equal to 0 (got -1)",
    ]
    assert len(session.jobs()) == 0


def test_a_model_with_aliases_takes_both_names_and_one_that_says_what_becomes_of_extra_ones_is_left_to_it() -> None:
    class Loose(BaseModel):
        model_config = ConfigDict(extra="allow")
        epsg: int = Field(alias="proj:epsg")

    t = gf.JobType("loose", params=Loose)

    @t.stage
    def scan(p: Loose) -> int:
        return p.epsg

    job_class: Any = t.contract()
    given = job_class.validate_job_parameters({"proj:epsg": 4326, "more": 1})
    assert given == {"epsg": 4326, "more": 1}
    assert t.handlers()["loose_scan"]({"params": given})["result"] == 4326


def test_long_parameters_travel_only_with_the_tasks_of_functions_that_take_them(open_session: OpenSession) -> None:
    t = gf.JobType("long")

    @t.stage
    def scan(p) -> list[str]:
        return p["urls"]

    @t.each(scan)
    def head(url: str) -> str:
        return url[:1]

    job_class: Any = t.contract()
    previous = [{"success": True, "result": ["a"]}]
    for urls, keys in ((["a"], {"item", "params"}), (["a" * 3000], {"item"})):
        (planned,) = job_class.create_tasks_for_stage(2, {"urls": urls}, "a" * 64, previous)
        assert set(planned["parameters"]) == keys

    u = gf.JobType("long")
    u.stage(scan)

    @u.each(scan)
    def tail(url: str, p) -> str:
        return url[-1:]

    with pytest.raises(
        ContractViolationError, match="tail takes the job's parameters, but took none when these tasks were planned"
    ):
        u.handlers()["long_tail"]({"item": "a"})


# The contract


def test_S1_the_contract_is_a_job_class_that_passes_registration_and_its_schema_is_the_models() -> None:
    t = gf.JobType("Tile-Stats", params=Params, description="Stats of tiles.")

    @t.stage(retries=0, timeout=5, on_failure="stop")
    def scan(p: Params) -> list[Tile]:
        return tiles(p.n)

    @t.each(scan, workers=2, timeout=None)
    def stat(tile: Tile) -> Stat:
        return Stat(tile.name, 0)

    @t.reduce(stat)
    def merge(stats: list[Stat]) -> dict[str, int]:
        return {}

    registry = Registry()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry.register(t.contract(), t.handlers()) == ["tile_stats"]
        assert registry.register(t) == ["tile_stats"]
    first, second, third = registry.get("tile_stats").stages
    assert (first.max_retries, first.timeout, first.on_failure, first.parallelism) == (0, 5.0, "stop", "single")
    assert (second.workers, second.timeout, second.parallelism, third.parallelism) == (2, None, "fan_out", "fan_in")
    job_class: Any = t.contract()
    assert (job_class.job_type, job_class.description) == ("tile_stats", "Stats of tiles.")
    assert job_class.parameters_schema == Params.model_json_schema()
    assert t.contract() is job_class
    assert scan(Params(n=1)) == tiles(1), "the functions stay what they are"


def test_at_most_so_many_tasks_of_a_stage_run_at_once_as_workers_says(
    open_session: OpenSession, tmp_path: Path
) -> None:
    t = gf.JobType("alone")

    @t.stage
    def scan(p) -> list[int]:
        return list(range(12))

    @t.each(scan, workers=1, retries=0)
    def work(item: int, p) -> int:
        import time

        os.close(os.open(p["lock"], os.O_CREAT | os.O_EXCL))  # fails while another one works
        time.sleep(0.01)
        os.unlink(p["lock"])
        return os.getpid()

    job = t.run(lock=str(tmp_path / "lock"), session=open_session(workers=2))
    assert job.error is None


@pytest.mark.parametrize("workers", [0, 1])
def test_S25_a_stage_says_which_exceptions_are_retried_and_names_what_only_its_workers_import(
    open_session: OpenSession, workers: int
) -> None:
    t = gf.JobType("choosy")

    class Service:
        class Banned(RuntimeError):
            pass

    @t.stage
    def scan() -> list[int]:
        return list(range(6))

    named = ("concurrent.futures.BrokenExecutor", Service.Banned, FileNotFoundError)  # the first is of a module below

    @t.each(scan, retries=1, permanent=named, transient="KeyError")
    def work(item: int) -> int:
        from concurrent.futures import BrokenExecutor
        from concurrent.futures.process import BrokenProcessPool

        kinds = (BrokenExecutor, BrokenProcessPool, Service.Banned, FileNotFoundError, RuntimeError, KeyError)
        raise kinds[item]("no")

    session = open_session(workers=workers, base_delay=0.0)
    session.run(t)
    query = "SELECT max(error_category), count(*) FROM attempts WHERE stage = 2 GROUP BY task_id ORDER BY task_id"
    assert rows(session, query) == [("permanent", 1)] * 4 + [("unknown", 2), ("transient", 2)]


@pytest.mark.parametrize("bad", [5, int, ("OSError", None), "no name"])
def test_S25_what_is_no_exception_is_refused_where_the_stage_is_written(bad: Any) -> None:
    t = gf.JobType("choosy")
    with pytest.raises(DefinitionError, match=r"permanent.*Input should be exception classes, or their names"):
        t.stage(permanent=bad)


# Types that fit

UNFIT: list[tuple[Any, Any]] = [
    (str, int),
    (int, str),
    (Tile, Scene),
    (Tile, str),
    (list[Tile], Tile),
    (Tile, list[Tile]),
    (list[str], list[int]),
    (list[Tile] | None, list[int]),
    (type(None), Tile),
    (timedelta, str),
]
FIT: list[tuple[Any, Any]] = [
    (Tile, Tile),
    (Tile, dict),
    (dict[str, Any], Tile),
    (Tile, BaseModel),
    (Tile, Tile | None),
    (Annotated[Tile, "seen"], Tile),
    (list[Tile], list[dict[str, Any]]),
    (set[int], list[float]),
    (tuple[int, int], list[int]),
    (bool, int),
    (int, float),
    (str, Path),
    (Path, str),
    (Literal["a", "b"], str),
    (int | str, int),
    (Colour, str),
    (Any, Tile),
    (Tile, Any),
    (Tile, object),
    (RootModel[list[int]], list[int]),
]


@pytest.mark.parametrize(("given", "wanted"), FIT)
def test_what_may_be_made_from_the_json_of_the_other_fits(given: Any, wanted: Any) -> None:
    assert fits(given, wanted)


@pytest.mark.parametrize(("given", "wanted"), UNFIT)
def test_what_can_never_be_made_from_the_json_of_the_other_does_not_fit(given: Any, wanted: Any) -> None:
    assert not fits(given, wanted)


def test_annotations_are_shown_as_they_were_written() -> None:
    shown = [show(one) for one in (list[Tile], dict[str, Tile] | None, Any, list[Everything])]
    assert shown == ["list[Tile]", "dict[str, Tile] | None", "anything", "list[Everything]"]
    assert items_of(str) is None


def test_a_task_is_found_without_the_jobs_part_of_its_id(open_session: OpenSession) -> None:
    flow = gf.JobType("eleven")

    @flow.stage
    def plan(params: dict) -> list[int]:
        return list(range(11))

    @flow.each(plan)
    def work(n: int) -> int:
        return n

    session = open_session(":memory:", workers=0)
    session.register(flow)
    job = session.run("eleven")
    for name in ("work-1", "work-10", "plan"):
        assert job.task(name).id == f"{job.id[:8]}-{name}"
    assert job.task("10").id == f"{job.id[:8]}-work-10", "its key alone"
    with pytest.raises(LookupError, match=r"work-0.*and more"):
        job.task("work")
