"""S1 to S6: what job types and handlers must be, and how all that is wrong with one is told at once."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import types
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.errors import DefinitionError, GeoflowError
from geoflow.jobtypes.contract import (
    MAX_STAGES,
    JobBase,
    accepts_context,
    handler_problem,
    job_id_for,
    normalise,
    task_id,
)
from geoflow.jobtypes.registry import Registry, examined, jobs_of

# A job type as production writes it: no geoflow in sight, extra methods and keys, the handlers elsewhere.


class ProcessTiles:
    job_type: str = "process_tiles"
    description: str = "Find the tiles of a scene, work on each, put the outcome together"
    stages = [
        {"number": 1, "name": "find", "task_type": "find_tiles", "parallelism": "single"},
        {
            "number": 2,
            "name": "work",
            "task_type": "work_on_tile",
            "parallelism": "fan_out",
            "count": lambda params: len(params["tiles"]),
            "notes": {"max_parallel": 20},
        },
        {"number": 3, "name": "merge", "task_type": "merge_tiles", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return {"scene": str(params["scene"])}

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return hashlib.sha256(f"process_tiles:{json.dumps(params, sort_keys=True)}".encode()).hexdigest()

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[Any] | None = None
    ) -> list[dict[str, Any]]:
        return [{"task_id": f"{job_id[:8]}-{stage}", "task_type": "find_tiles", "parameters": job_params}]

    @staticmethod
    def create_job_record(job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("the engine never calls this")

    @staticmethod
    def queue_job(job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("the engine never calls this")

    @classmethod
    def finalize_job(cls, context: Any = None) -> dict[str, Any]:
        return {"job_type": cls.job_type}


def find_tiles(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": {"tiles": [params["scene"]]}}


def work_on_tile(params: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"success": True, "result": {"attempt": context.attempt}}


def merge_tiles(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": params["aggregation_metadata"]}


HANDLERS: dict[str, Any] = {"find_tiles": find_tiles, "work_on_tile": work_on_tile, "merge_tiles": merge_tiles}


def made(name: str = "Made", **changes: Any) -> type:
    """A job type of one stage; *changes* are its other attributes, and `None` takes one away."""
    members = {
        **{name: vars(ProcessTiles)[name] for name in ("validate_job_parameters", "generate_job_id", "finalize_job")},
        "create_tasks_for_stage": vars(ProcessTiles)["create_tasks_for_stage"],
        "job_type": "made",
        "description": "made for a test",
        "stages": [{"number": 1, "name": "one", "task_type": "find_tiles"}],
        **changes,
    }
    return type(name, (), {key: value for key, value in members.items() if value is not None})


def problems_of(job_class: Any, handlers: Any = HANDLERS, **how: Any) -> str:
    registry = Registry()
    with pytest.raises(DefinitionError) as caught:
        registry.register(job_class, handlers, **how)
    assert list(registry) == [], "nothing is registered when anything is wrong"
    return str(caught.value)


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # of what tests before these left, which is collected now
        yield


# S1: what registers


def test_S1_a_class_written_for_production_registers_without_a_change() -> None:
    registry = Registry()
    before = dict(vars(ProcessTiles))
    assert registry.register(ProcessTiles, HANDLERS) == ["process_tiles"]
    assert dict(vars(ProcessTiles)) == before
    registered = registry.get("process_tiles")
    assert registered.job_class is ProcessTiles
    assert [(stage.number, stage.name, stage.task_type) for stage in registered.stages] == [
        (1, "find", "find_tiles"),
        (2, "work", "work_on_tile"),
        (3, "merge", "merge_tiles"),
    ]
    assert [stage.is_fan_in for stage in registered.stages] == [False, False, True]
    assert dict(registered.handlers) == HANDLERS
    assert registered.non_identity == frozenset()


def test_S1_the_methods_may_be_inherited_and_may_be_class_methods() -> None:
    class Child(ProcessTiles):
        job_type = "child"

    assert Registry().register(Child, HANDLERS) == ["child"]


def test_S1_the_abstract_class_is_optional_and_says_which_methods_are_still_to_be_written() -> None:
    class Half(JobBase):
        job_type = "half"
        description = "half written"
        stages = [{"number": 1, "name": "one", "task_type": "find_tiles"}]

        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            return params

    message = problems_of(Half)
    for name in ("generate_job_id", "create_tasks_for_stage", "finalize_job"):
        assert f"Half: the method {name} is still abstract: write it." in message
    assert "validate_job_parameters" not in message


def test_S1_parameters_that_are_not_part_of_the_identity_are_declared_on_the_class() -> None:
    registry = Registry()
    registry.register(made(non_identity_parameters=("verbose",)), HANDLERS)
    assert registry.get("made").non_identity == {"verbose"}


def test_S5_a_module_with_all_jobs_and_all_handlers_registers_whole() -> None:
    module = types.ModuleType("tiles")
    module.ALL_JOBS = {"process_tiles": ProcessTiles, "made": made()}  # type: ignore[attr-defined]
    module.ALL_HANDLERS = HANDLERS  # type: ignore[attr-defined]
    registry = Registry()
    assert registry.register(module) == ["process_tiles", "made"]
    assert list(registry) == ["made", "process_tiles"]


def test_S5_handlers_given_with_a_module_go_before_its_own() -> None:
    def other(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}

    module = types.ModuleType("tiles")
    module.ALL_JOBS = {"made": made()}  # type: ignore[attr-defined]
    module.ALL_HANDLERS = HANDLERS  # type: ignore[attr-defined]
    registry = Registry()
    registry.register(module, {"find_tiles": other})
    assert registry.get("made").handlers["find_tiles"] is other


def test_a_modules_job_types_are_those_it_names_or_else_those_made_in_it() -> None:
    module, elsewhere = types.ModuleType("tiles"), types.ModuleType("elsewhere")
    for name, place in (("made", module), ("imported", elsewhere)):
        exec(f"import geoflow as gf\n{name} = gf.JobType({name!r})", vars(place))
    vars(module)["imported"] = vars(elsewhere)["imported"]
    assert jobs_of(module) == ({"made": vars(module)["made"]}, {})
    module.ALL_JOBS, module.ALL_HANDLERS = {"process_tiles": ProcessTiles}, HANDLERS  # type: ignore[attr-defined]
    assert jobs_of(module) == ({"process_tiles": ProcessTiles}, HANDLERS)


@pytest.mark.parametrize("jobs", [None, {}, [ProcessTiles]])
def test_S5_a_module_without_job_types_is_refused_and_told_what_to_add(jobs: Any) -> None:
    module = types.ModuleType("empty_module")
    if jobs is not None:
        module.ALL_JOBS = jobs  # type: ignore[attr-defined]
    assert "Module 'empty_module' has no ALL_JOBS dict of job types by name." in problems_of(module, None)


def test_S5_one_bad_class_keeps_its_whole_module_out_and_every_class_is_told_of() -> None:
    module = types.ModuleType("tiles")
    module.ALL_JOBS = {  # type: ignore[attr-defined]
        "process_tiles": ProcessTiles,
        "first": made("First", job_type="first", finalize_job=None),
        "second": made("Second", job_type="second", stages=[]),
    }
    message = problems_of(module)
    assert message.startswith("2 problems:\n")
    assert "First: the method finalize_job is missing." in message
    assert "Second: stages must be a list of at least one dict" in message


# S5: what does not


def test_S5_every_problem_is_found_and_all_are_in_one_message() -> None:
    broken = made(
        "Broken",
        job_type="broken",
        validate_job_parameters=None,
        generate_job_id=lambda params: "x",
        stages=[
            {"number": 1, "name": "gather", "task_type": "find_tiles", "parallelism": "fan_in"},
            {"number": 3, "name": "work", "task_type": "work_on_tle"},
            {"number": 3, "task_type": "find_tiles"},
            {"number": 4, "name": "last"},
            "stage five",
        ],
    )
    handlers = {"find_tiles": find_tiles, "work_on_tile": lambda params: {}, "unused": 3}
    assert problems_of(broken, handlers, name="brokken").splitlines() == [
        "11 problems:",
        "  - Broken is registered as 'brokken' but its job_type is 'broken': make them the same.",
        "  - Broken: the method validate_job_parameters is missing.",
        "  - Broken: generate_job_id must be a @staticmethod: job classes are never instantiated.",
        "  - Broken: the handler of 'work_on_tile' is a lambda: write it as a def, so that tracebacks, logs and code "
        "versions have a name to show.",
        "  - Broken: the handler of 'unused' is int, which cannot be called.",
        "  - Broken: stage 1 is fan_in: there is no earlier stage whose results it could take.",
        "  - Broken: stage 2 has number 3: stages are numbered 1 to n in order.",
        "  - Broken: stage 2 has task_type 'work_on_tle', which has no handler. Did you mean 'work_on_tile'?",
        "  - Broken: stage 3 has no name.",
        "  - Broken: stage 4 has no task_type.",
        "  - Broken: stage 5 is str, not a dict.",
    ]


def test_S5_a_refusal_is_a_value_error_and_a_geoflow_error() -> None:
    with pytest.raises(ValueError) as caught:
        Registry().register(made(finalize_job=None), HANDLERS)
    assert isinstance(caught.value, GeoflowError)


def test_S5_one_problem_is_told_without_a_list() -> None:
    assert problems_of(made(finalize_job=None)) == "Made: the method finalize_job is missing."


@pytest.mark.parametrize("target", [ProcessTiles(), "process_tiles", None, 3], ids=["instance", "text", "none", "int"])
def test_S5_what_is_not_a_class_is_refused(target: Any) -> None:
    assert "is not a class: register the job class itself" in problems_of(target)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"job_type": None}, "Made.job_type is None: give it a name of letters, digits and '_'"),
        ({"job_type": ""}, "Made.job_type is ''"),
        ({"job_type": "tile stats"}, "Made.job_type is 'tile stats'"),
        ({"job_type": "3d_tiles"}, "Made.job_type is '3d_tiles'"),
        ({"job_type": 7}, "Made.job_type is 7"),
        ({"job_type": property(lambda self: "made")}, "Made.job_type is <property"),
        ({"validate_job_parameters": None}, "the method validate_job_parameters is missing."),
        ({"create_tasks_for_stage": None}, "the method create_tasks_for_stage is missing."),
        ({"finalize_job": "yes"}, "finalize_job must be a @staticmethod"),
        ({"finalize_job": find_tiles}, "finalize_job must be a @staticmethod: job classes are never instantiated."),
        ({"stages": None}, "stages must be a list of at least one dict with number, name and task_type."),
        ({"stages": {}}, "stages must be a list"),
        ({"stages": "one"}, "stages must be a list"),
    ],
)
def test_S5_each_part_of_the_class_is_checked(change: dict[str, Any], told: str) -> None:
    assert told in problems_of(made(**change))


def test_S5_an_async_method_is_refused() -> None:
    async def finalize_job(context: Any = None) -> dict[str, Any]:
        return {}

    assert problems_of(made(finalize_job=staticmethod(finalize_job))) == (
        "Made: finalize_job is async: the engine calls it as a plain function."
    )


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ({"number": 0}, "stage 1 has number 0: stages are numbered 1 to n in order."),
        ({"number": "1"}, "stage 1 has number '1'"),
        ({"number": True}, "stage 1 has number True"),
        ({"number": 1.0}, "stage 1 has number 1.0"),
        ({"number": None}, "stage 1 has number None"),
        ({"name": ""}, "stage 1 has no name."),
        ({"name": 3}, "stage 1 has no name."),
        ({"task_type": ""}, "stage 1 has no task_type."),
        ({"task_type": find_tiles}, "stage 1 has no task_type."),
        ({"task_type": "unheard_of"}, "stage 1 has task_type 'unheard_of', which has no handler. Handlers given: "),
        ({"parallelism": "fan_in"}, "stage 1 is fan_in: there is no earlier stage"),
    ],
)
def test_S2_S5_each_part_of_a_stage_is_checked(stage: dict[str, Any], told: str) -> None:
    assert told in problems_of(made(stages=[{"number": 1, "name": "one", "task_type": "find_tiles", **stage}]))


def test_S5_a_task_type_without_a_handler_says_when_no_handlers_were_given_at_all() -> None:
    assert "Handlers given: none." in problems_of(made(), None)
    assert "Handlers given: none." in problems_of(made(), {})


@pytest.mark.parametrize("order", [(2, 1), (1, 1), (1, 3), (0, 1)])
def test_S5_stage_numbers_that_are_not_one_to_n_in_order_are_refused(order: tuple[int, ...]) -> None:
    stages = [{"number": number, "name": "s", "task_type": "find_tiles"} for number in order]
    assert "stages are numbered 1 to n in order" in problems_of(made(stages=stages))


def test_S5_more_stages_than_a_job_may_have_are_refused_in_one_line() -> None:
    stages = [{"number": n, "name": "s", "task_type": "find_tiles"} for n in range(1, MAX_STAGES + 2)]
    assert problems_of(made(stages=stages)) == "Made: 1001 stages are more than the 1000 that one job may have."
    assert Registry().register(made(stages=stages[:-1]), HANDLERS) == ["made"]


def test_S5_a_key_of_a_module_that_is_no_text_is_told_of() -> None:
    module = types.ModuleType("tiles")
    module.ALL_JOBS = {1: made()}  # type: ignore[attr-defined]
    message = problems_of(module)
    assert "Made is registered as 1 but its job_type is 'made'" in message


@pytest.mark.parametrize("handlers", [[find_tiles], find_tiles, "find_tiles"], ids=["list", "function", "text"])
def test_S5_handlers_that_are_no_dict_are_told_of(handlers: Any) -> None:
    assert "dict" in problems_of(made(), handlers)


def test_S5_a_problem_says_to_programs_what_it_is_about_and_to_people_what_registration_says() -> None:
    stage = {"number": 1, "name": "one", "task_type": "it's", "parallelism": "fan_in", "timeout": "5 min"}
    job_class = made(stages=[stage], finalize_job=None, description=None)
    checked = examined(job_class, {"it's": lambda params: {}})
    assert checked.job_type is None
    assert [(one.code, one.kind, one.name) for one in checked.problems] == [
        ("GF101", "method", "finalize_job"),
        ("GF117", "handler", "it's"),
        ("GF113", "stage", "1"),
    ]
    assert [(one.code, one.kind, one.name) for one in checked.remarks] == [
        ("GF109", "class", ""),
        ("GF114", "stage", "1"),
    ]
    with pytest.warns(UserWarning, match=r"has timeout=|has no description"):
        text = problems_of(job_class, {"it's": lambda params: {}})
    assert text.splitlines()[1:] == [f"  - {one.text}" for one in checked.problems]


# Warnings


def test_S5_a_missing_description_is_a_warning_that_points_at_the_line_which_registers() -> None:
    registry = Registry()
    with pytest.warns(UserWarning, match=r"^Made has no description") as caught:
        registry.register(made(description=None), HANDLERS)
    assert "made" in registry
    assert caught[0].filename == __file__


def test_S2_other_words_for_parallelism_are_a_warning_and_the_class_is_asked() -> None:
    stages = [
        {"number": 1, "name": "one", "task_type": "find_tiles", "parallelism": "dynamic"},
        {"number": 2, "name": "two", "task_type": "find_tiles", "parallelism": "match_previous"},
    ]
    registry = Registry()
    with pytest.warns(UserWarning, match="create_tasks_for_stage will be asked") as caught:
        registry.register(made(stages=stages), HANDLERS)
    assert "stage 1 has parallelism 'dynamic'" in str(caught[0].message)
    assert "stage 2 has parallelism 'match_previous'" in str(caught[1].message)
    assert {warning.filename for warning in caught} == {__file__}
    assert [stage.is_fan_in for stage in registry.get("made").stages] == [False, False]


def test_S2_a_missing_parallelism_means_single_and_is_no_warning() -> None:
    registry = Registry()
    registry.register(made(), HANDLERS)
    assert registry.get("made").stages[0].parallelism == "single"


def test_S2_further_keys_of_a_stage_may_hold_anything() -> None:
    stage = {"number": 1, "name": "one", "task_type": "find_tiles", "factory": find_tiles, "open": object(), 5: None}
    assert Registry().register(made(stages=[stage]), HANDLERS) == ["made"]


def test_S26_S31_the_engines_own_options_of_a_stage_are_taken_over() -> None:
    stage = {"number": 1, "name": "one", "task_type": "find_tiles"}
    options = {"timeout": 5, "idle_timeout": 2, "max_retries": 0, "on_failure": "stop"}
    registry = Registry()
    registry.register(made(stages=[{**stage, **options}]), HANDLERS)
    (found,) = registry.get("made").stages
    assert (found.timeout, found.idle_timeout, found.max_retries, found.on_failure) == (5.0, 2.0, 0, "stop")


def test_S25_a_stage_names_exceptions_by_their_classes_or_in_text() -> None:
    options = {"permanent": (FileNotFoundError, "rasterio.errors.RasterioIOError"), "transient": "KeyError"}
    registry = Registry()
    registry.register(made(stages=[{"number": 1, "name": "one", "task_type": "find_tiles", **options}]), HANDLERS)
    (found,) = registry.get("made").stages
    assert found.permanent == {"builtins.FileNotFoundError", "rasterio.errors.RasterioIOError"}
    assert found.transient == {"KeyError"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("timeout", "5 min"),
        ("timeout", 0),
        ("timeout", -1.0),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
        ("timeout", True),
        ("idle_timeout", "5 min"),
        ("idle_timeout", 0),
        ("max_retries", -1),
        ("max_retries", 2.5),
        ("max_retries", False),
        ("permanent", True),
        ("permanent", [int]),
        ("transient", ("OSError", "not a name")),
        ("on_failure", "explode"),
        ("on_failure", ["drain"]),
    ],
)
def test_S2_an_option_that_the_engine_does_not_know_is_left_to_the_author_with_a_warning(key: str, value: Any) -> None:
    stage = {"number": 1, "name": "one", "task_type": "find_tiles", key: value}
    registry = Registry()
    with pytest.warns(UserWarning, match=re.escape(f"stage 1 has {key}={value!r}")) as caught:
        registry.register(made(stages=[stage]), HANDLERS)
    assert caught[0].filename == __file__
    assert not getattr(registry.get("made").stages[0], key)


# Names


def test_S5_names_are_normalised_the_same_way_on_both_sides() -> None:
    stages = [{"number": 1, "name": "one", "task_type": "Find-Tiles"}]
    registry = Registry()
    assert registry.register(made(job_type="Tile-Stats", stages=stages), {"FIND_tiles": find_tiles}) == ["tile_stats"]
    registered = registry.get("TILE-stats")
    assert registered.name == "tile_stats"
    assert registered.stages[0].task_type == "find_tiles"
    assert dict(registered.handlers) == {"find_tiles": find_tiles}
    assert "tile-Stats" in registry


def test_S5_the_registry_key_is_compared_in_the_normal_spelling() -> None:
    assert Registry().register(made(job_type="tile_stats"), HANDLERS, name="Tile-Stats") == ["tile_stats"]
    assert "registered as 'tiles' but its job_type is 'tile_stats'" in problems_of(
        made(job_type="tile_stats"), name="tiles"
    )


@given(st.text(max_size=12))
def test_S5_a_name_that_was_normalised_stays_as_it_is(name: str) -> None:
    assert normalise(normalise(name)) == normalise(name)
    assert normalise(name.replace("_", "-")) == normalise(name)


def test_S5_two_handlers_of_one_name_are_refused_unless_they_are_the_same() -> None:
    same = {"find_tiles": find_tiles, "Find-Tiles": find_tiles}
    assert Registry().register(made(), same) == ["made"]
    two = {"find_tiles": find_tiles, "Find-Tiles": merge_tiles}
    assert problems_of(made(), two) == "Made: two handlers are called 'find_tiles'."


def test_S5_a_task_type_that_is_no_text_is_told_of() -> None:
    assert "handlers has the key 3: task types are strings." in problems_of(made(), {**HANDLERS, 3: find_tiles})


def test_S5_registering_a_name_again_replaces_it() -> None:
    registry = Registry()
    registry.register(made(), HANDLERS)
    other = made("Other")
    registry.register(other, {"find_tiles": merge_tiles})
    assert list(registry) == ["made"]
    assert registry.get("made").job_class is other
    assert registry.get("made").handlers["find_tiles"] is merge_tiles


def test_S5_a_refused_class_leaves_the_one_that_it_would_have_replaced() -> None:
    registry = Registry()
    first = made()
    registry.register(first, HANDLERS)
    with pytest.raises(DefinitionError):
        registry.register(made(finalize_job=None), HANDLERS)
    assert registry.get("made").job_class is first


def test_S5_an_unknown_name_lists_those_known_and_suggests_the_near_one() -> None:
    registry = Registry()
    with pytest.raises(DefinitionError, match=r"Unknown job type 'x'\. Registered here: none\."):
        registry.get("x")
    registry.register(ProcessTiles, HANDLERS)
    registry.register(made(), HANDLERS)
    with pytest.raises(DefinitionError) as caught:
        registry.get("Proces-Tiles")
    assert "Unknown job type 'Proces-Tiles'. Did you mean 'process_tiles'?" in str(caught.value)
    assert "Registered here: made, process_tiles." in str(caught.value)


# S4: handlers


async def awaited(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True}


async def awaited_in_parts(params: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield {"success": True}


def yielding(params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"success": True}


@functools.cache
def cached(params: Any) -> dict[str, Any]:
    return {"success": True}


def shown(handler: Any) -> str:
    return getattr(handler, "__name__", type(handler).__name__)


class Callable_:
    """A handler that is an object."""

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}

    def method(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}

    @staticmethod
    def static(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}


class AsyncCallable:
    async def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}


class NothingTaken:
    def __call__(self) -> dict[str, Any]:
        return {"success": True}


def with_context(params: Any, context: Any) -> Any: ...
def with_optional_context(params: Any, context: Any = None) -> Any: ...
def with_ctx(params: Any, ctx: Any = None) -> Any: ...
def with_other_required(params: Any, task: Any) -> Any: ...
def with_other_optional(params: Any, verbose: bool = False) -> Any: ...
def with_rest(*args: Any) -> Any: ...
def with_params_and_rest(params: Any, *rest: Any) -> Any: ...
def with_keywords(params: Any, **options: Any) -> Any: ...
def with_keyword_option(params: Any, *, verbose: bool = False) -> Any: ...
def positional_only(params: Any, context: Any, /) -> Any: ...
def takes_nothing() -> Any: ...
def takes_three(params: Any, context: Any, more: Any) -> Any: ...
def needs_a_keyword(params: Any, *, region: str) -> Any: ...
def third_optional(params: Any, context: Any, more: Any = 1) -> Any: ...


@pytest.mark.parametrize(
    "handler",
    [
        find_tiles,
        with_context,
        with_optional_context,
        with_rest,
        with_params_and_rest,
        with_keywords,
        with_keyword_option,
        positional_only,
        third_optional,
        functools.partial(needs_a_keyword, region="north"),
        functools.partial(takes_three, more=1),
        functools.partial(functools.partial(needs_a_keyword), region="north"),
        cached,
        Callable_(),
        Callable_().method,
        Callable_.static,
        dict,
        json.loads,
    ],
    ids=shown,
)
def test_S4_whatever_can_be_called_with_parameters_or_with_a_context_too_is_a_handler(handler: Any) -> None:
    assert handler_problem(handler) is None


@pytest.mark.parametrize("handler", [takes_nothing, takes_three, needs_a_keyword, NothingTaken()], ids=shown)
def test_S5_a_handler_with_another_signature_is_refused_and_shown(handler: Any) -> None:
    problem = handler_problem(handler)
    assert problem is not None
    assert problem.startswith("has the signature (")
    assert problem.endswith("it must be callable as handler(params) or handler(params, context).")


def test_S5_a_partial_that_gives_the_parameters_already_is_refused() -> None:
    problem = handler_problem(functools.partial(find_tiles, {}))
    assert problem is not None
    assert "has the signature ()" in problem


@pytest.mark.parametrize("handler", [None, 3, "find_tiles", {}], ids=shown)
def test_S5_what_cannot_be_called_is_no_handler(handler: Any) -> None:
    assert handler_problem(handler) == f"is {type(handler).__name__}, which cannot be called."


unnamed = lambda params: {"success": True}  # noqa: E731


@pytest.mark.parametrize("handler", [unnamed, functools.partial(unnamed)], ids=["lambda", "partial of one"])
def test_S5_a_lambda_is_refused_and_told_to_be_a_def(handler: Any) -> None:
    problem = handler_problem(handler)
    assert problem is not None
    assert problem.startswith("is a lambda: write it as a def")


@pytest.mark.parametrize(
    "handler",
    [awaited, awaited_in_parts, functools.partial(awaited), AsyncCallable()],
    ids=["function", "generator", "partial", "object"],
)
def test_S5_an_async_handler_is_refused(handler: Any) -> None:
    assert handler_problem(handler) == "is async: handlers are plain functions; use asyncio.run inside it."


@pytest.mark.parametrize("handler", [yielding, functools.partial(yielding)], ids=["function", "partial"])
def test_S5_a_generator_is_refused(handler: Any) -> None:
    assert handler_problem(handler) == "is a generator: return a dict instead of yielding."


@pytest.mark.parametrize(
    ("handler", "given_one"),
    [
        (find_tiles, False),
        (with_context, True),
        (with_optional_context, True),
        (with_ctx, True),
        (with_other_required, True),
        (with_other_optional, False),
        (with_rest, False),
        (with_params_and_rest, False),
        (with_keywords, False),
        (with_keyword_option, False),
        (positional_only, True),
        (third_optional, True),
        (takes_three, False),
        (functools.partial(takes_three, more=1), True),
        (functools.partial(with_context, {}), False),
        (Callable_(), False),
        (Callable_().method, False),
        (json.loads, False),
        (print, False),
        (dict, False),
    ],
    ids=shown,
)
def test_S4_a_context_is_given_only_to_handlers_that_take_one(handler: Any, given_one: bool) -> None:
    assert accepts_context(handler) is given_one


def test_S4_a_decorated_handler_shows_the_signature_of_what_it_wraps() -> None:
    @functools.wraps(with_context)
    def wrapped(*args: Any) -> Any:
        return with_context(*args)

    assert accepts_context(wrapped)
    assert handler_problem(wrapped) is None


def test_S5_handlers_that_cannot_travel_are_refused_where_they_are_registered(tmp_path: Any) -> None:
    with (tmp_path / "tiles.txt").open("w") as kept:

        def handler(params: dict[str, Any]) -> dict[str, Any]:
            kept.write("tile")
            return {"success": True}

        message = problems_of(made(), {"find_tiles": handler})
    assert message.startswith("Made: the handler of 'find_tiles' uses the open file 'kept'")


def test_S5_a_job_class_that_cannot_travel_is_refused_where_it_is_registered(tmp_path: Any) -> None:
    with (tmp_path / "tiles.txt").open("w") as kept:

        def finalize_job(context: Any = None) -> dict[str, Any]:
            return {"name": kept.name}

        message = problems_of(made(finalize_job=staticmethod(finalize_job)))
    assert message.startswith("Made: ")
    assert "uses the open file 'kept'" in message


# S6, S8: ids


def test_S6_the_vector_of_the_promise() -> None:
    assert task_id("a" * 64, 2, "fan_in_aggregate") == "4f7053357037cecc"


@given(st.text(alphabet="0123456789abcdef", min_size=64, max_size=64), st.integers(1, 1000), st.text(max_size=30))
def test_S6_a_task_id_is_sixteen_hex_digits_of_what_names_the_task(job_id: str, stage: int, unit: str) -> None:
    assert task_id(job_id, stage, unit) == hashlib.sha256(f"{job_id}|s{stage}|{unit}".encode()).hexdigest()[:16]


scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4)


@given(st.dictionaries(st.text(max_size=4), scalars, max_size=5))
def test_S8_a_job_id_does_not_depend_on_the_order_of_the_parameters(parameters: dict[str, Any]) -> None:
    found = job_id_for("tiles", parameters)
    assert re.fullmatch("[0-9a-f]{64}", found)
    assert job_id_for("tiles", dict(reversed(parameters.items()))) == found
    assert job_id_for("other", parameters) != found
    assert job_id_for("tiles", {**parameters, "longer name": 1}) != found


def test_S8_fields_that_are_no_part_of_the_identity_do_not_change_the_job_id() -> None:
    assert job_id_for("tiles", {"n": 1, "verbose": True}, exclude=["verbose"]) == job_id_for("tiles", {"n": 1})
    assert job_id_for("tiles", {"n": 1}) != job_id_for("tiles", {"n": "1"})
