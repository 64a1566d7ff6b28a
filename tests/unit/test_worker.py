"""S4, S17, S20 to S25, S33: what happens in a worker, where whatever user code does must come out as text."""

from __future__ import annotations

import dataclasses
import enum
import gc
import importlib
import itertools
import json
import logging
import math
import sqlite3
import sys
import threading
import time
import types
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow import errors
from geoflow.core import models
from geoflow.core.batch import Batch, NewTasks
from geoflow.core.chunks import Chunk
from geoflow.core.models import Category, Failure, JobExecutionContext, Outcome, TaskContext
from geoflow.core.retry import RetryPolicy
from geoflow.errors import ContractViolationError, UnstorableValue
from geoflow.executors.loaded_code import Codes
from geoflow.executors.reports import from_answer
from geoflow.executors.worker import NOT_BEGUN, Answer, Told, run_chunk
from geoflow.jobtypes.answers import checked_plan, describe, outcome
from geoflow.support.logs import JsonLines
from geoflow.usercode.packing import pack

JOB_ID = "ab" * 32
HERE = (__name__.partition(".")[0],)


def task(**changes: Any) -> dict[str, Any]:
    made = {"task_id": "t-1", "task_type": "scan", "parameters": {"n": 1}, **changes}
    return {key: value for key, value in made.items() if value is not Ellipsis}


def plan_problem(*tasks: Any, stage: int = 2) -> str:
    with pytest.raises(ContractViolationError) as caught:
        checked_plan(list(tasks), stage, ("scan", "merge"))
    return str(caught.value)


# S3, S17: plans


def test_S3_a_plan_becomes_text_in_its_own_order() -> None:
    made = [
        task(task_id="b", task_type="Scan", parameters={"when": date(2024, 5, 1), "path": Path("/data")}),
        task(task_id="a", task_type="merge", metadata={"tile": (1, 2)}, more="is left out"),
        task(task_id="c", parameters={}, metadata=None),
    ]
    assert checked_plan(made, 1, ("scan", "merge")) == (
        ["b", "a", "c"],
        ["scan", "merge", "scan"],
        ['{"when":"2024-05-01","path":"/data"}', '{"n":1}', "{}"],
        [None, '{"tile":[1,2]}', None],
    )


def test_S16_an_empty_plan_is_a_plan() -> None:
    assert checked_plan([], 1, ("scan",)) == ([], [], [], [])


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (None, "NoneType: None"),
        ({"task_id": "a"}, "dict: {'task_id': 'a'}"),
        ((task(),), "tuple: ({'task_id'"),
        ("tasks", "str: 'tasks'"),
        (3, "int: 3"),
        ((task() for _ in range(2)), "generator: <generator"),
    ],
    ids=["none", "dict", "tuple", "text", "int", "generator"],
)
def test_S17_a_plan_that_is_no_list_is_refused_and_shown(made: Any, shown: str) -> None:
    with pytest.raises(ContractViolationError) as caught:
        checked_plan(made, 3, ("scan",))
    expected = "create_tasks_for_stage of stage 3 must return a list of dicts; it returned "
    assert str(caught.value).startswith(expected + shown)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("t-2", "Stage 2, task 1 is not a dict but str: 't-2'."),
        (None, "Stage 2, task 1 is not a dict but NoneType: None."),
        (types.MappingProxyType(task()), "Stage 2, task 1 is not a dict but mappingproxy: "),
        ({}, "Stage 2, task 1 has no 'task_id'; its keys are []."),
        (task(task_id=...), "Stage 2, task 1 has no 'task_id'; its keys are ['parameters', 'task_type']."),
        (task(task_type=...), "Stage 2, task 1 has no 'task_type'; its keys are ['parameters', 'task_id']."),
        (task(parameters=...), "Stage 2, task 1 has no 'parameters'; its keys are ['task_id', 'task_type']."),
        (
            {"taskid": 1, "task_type": "scan", 5: 1},
            "Stage 2, task 1 has no 'task_id'; its keys are ['5', 'task_type', 'taskid'].",
        ),
        (task(task_id=""), "Stage 2, task 1: task_id must be a text of 1 to 100 characters, not str: ''."),
        (task(task_id="x" * 101), "Stage 2, task 1: task_id must be a text of 1 to 100 characters, not str: 'xxx"),
        (task(task_id=7), "Stage 2, task 1: task_id must be a text of 1 to 100 characters, not int: 7."),
        (task(task_id=None), "Stage 2, task 1: task_id must be a text of 1 to 100 characters, not NoneType: None."),
        (task(task_id="t-0"), "Stage 2, task 1: the task_id 't-0' is there twice in this stage."),
        (
            task(task_type="scna"),
            "Stage 2, task 1 ('t-1'): no handler is registered for the task_type 'scna'; there are scan, merge.",
        ),
        (task(task_type=None), "Stage 2, task 1 ('t-1'): no handler is registered for the task_type None;"),
        (task(parameters=None), "Stage 2, task 1 ('t-1'): parameters must be a dict, not NoneType: None."),
        (task(parameters=[1]), "Stage 2, task 1 ('t-1'): parameters must be a dict, not list: [1]."),
        (task(parameters={"a": {"b": b"x"}}), "Stage 2, task 1 ('t-1'): parameters['a']['b'] is of type bytes"),
        (task(parameters={"a": np.zeros(2)}), "Stage 2, task 1 ('t-1'): parameters['a'] is of type numpy.ndarray"),
        (task(metadata={"a": [1, {1j: 2}]}), "Stage 2, task 1 ('t-1'): metadata['a'][1] has the key 1j"),
        (task(metadata=object()), "Stage 2, task 1 ('t-1'): metadata is of type object"),
    ],
)
def test_S17_each_problem_of_a_plan_names_the_stage_the_task_and_the_key(second: Any, told: str) -> None:
    assert plan_problem(task(task_id="t-0"), second).startswith(told)


def test_S3_task_ids_may_have_one_to_a_hundred_characters_of_any_kind() -> None:
    class Name(str):
        pass

    names = ["x", "y" * 100, "żółw/🐢 1", Name("named")]
    planned, *_ = checked_plan([task(task_id=name) for name in names], 1, ("scan",))
    assert planned == names
    assert {type(name) for name in planned} == {str}


def test_S17_what_came_back_is_cut_and_a_repr_that_raises_does_no_harm() -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert "str: '" in plan_problem("x" * 10_000)
    assert len(plan_problem("x" * 10_000)) < 400
    assert "Unshowable: an object whose repr raises RuntimeError" in plan_problem(Unshowable())


# S20, S24: what handlers return


@dataclasses.dataclass
class Stat:
    mean: float


class Kind(enum.Enum):
    RASTER = "raster"


def test_S21_a_success_is_the_whole_dict_as_json() -> None:
    value = {"success": True, "result": {"stat": Stat(0.5), "kind": Kind.RASTER, "n": np.int64(3), "nan": math.nan}}
    assert outcome(value, "scan") == (
        '{"success":true,"result":{"stat":{"mean":0.5},"kind":"raster","n":3,"nan":null}}',
        None,
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "NoneType: None"),
        (True, "bool: True"),
        ("done", "str: 'done'"),
        ([{"success": True}], "list: [{'success': True}]"),
        ({}, "dict: {}"),
        ({"result": 1}, "dict: {'result': 1}"),
        ({"success": None}, "dict: {'success': None}"),
        ({"success": 1}, "dict: {'success': 1}"),
        ({"success": 0}, "dict: {'success': 0}"),
        ({"success": "true"}, "dict: {'success': 'true'}"),
        ({"success": np.True_}, "dict: {'success': "),
        ({"Success": True}, "dict: {'Success': True}"),
    ],
)
def test_S20_a_result_without_a_boolean_success_is_a_contract_violation_that_shows_it(value: Any, shown: str) -> None:
    with pytest.raises(ContractViolationError) as caught:
        outcome(value, "scan")
    message = str(caught.value)
    assert message.startswith("The handler of 'scan' must return a dict with 'success' of True or False; it returned ")
    assert shown in message
    failure = describe(caught.value, RetryPolicy(), HERE)
    assert (failure.category, failure.retryable, failure.error_type) == ("contract", False, "ContractViolationError")


def test_S20_a_huge_result_is_shown_in_part() -> None:
    with pytest.raises(ContractViolationError) as caught:
        outcome({"results": "x" * 100_000}, "scan")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("extra", "retryable"),
    [
        ({}, True),
        ({"retryable": True}, True),
        ({"retryable": None}, True),
        ({"retryable": 0}, True),
        ({"retryable": "no"}, True),
        ({"retryable": False}, False),
    ],
)
def test_S24_a_returned_failure_is_retried_unless_it_says_exactly_false(extra: dict[str, Any], retryable: bool) -> None:
    result, failure = outcome({"success": False, "error": "no tiles", **extra}, "scan")
    category = Category.BUSINESS if retryable else Category.PERMANENT
    assert result is None
    assert failure == Failure("no tiles", "ReturnedFailure", category, retryable, None)


class Untrue:
    """Like an array: neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")

    def __str__(self) -> str:
        return "ambiguous"


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("", "the handler returned success: False and no error"),
        (None, "the handler returned success: False and no error"),
        (..., "the handler returned success: False and no error"),
        (OSError("disk"), "disk"),
        ({"code": 7}, "{'code': 7}"),
        (0, "0"),
        (Unspeakable(), "<Unspeakable whose __str__ raised RuntimeError>"),
        (Untrue(), "ambiguous"),
        (np.array(["a", "b"]), "['a' 'b']"),
        ("nul \0, surrogate \ud800", "nul \\x00, surrogate \\ud800"),
    ],
    ids=["empty", "none", "missing", "exception", "dict", "zero", "unspeakable", "untrue", "array", "unstorable"],
)
def test_S24_a_returned_error_may_be_anything(error: Any, told: str) -> None:
    value = {"success": False} if error is Ellipsis else {"success": False, "error": error}
    _, failure = outcome(value, "scan")
    assert failure is not None
    assert failure.error == told
    assert failure.retryable


def test_S27_a_returned_failure_may_name_its_own_type() -> None:
    named = outcome({"success": False, "error_type": "TileMissing"}, "scan")[1]
    other = outcome({"success": False, "error_type": ValueError}, "scan")[1]
    assert named is not None
    assert other is not None
    assert (named.error_type, other.error_type) == ("TileMissing", "ReturnedFailure")
    assert named.retryable, "its type is a name; what is retried it says with retryable"


def test_S21_a_result_without_a_json_form_is_permanent_and_names_the_key() -> None:
    with pytest.raises(UnstorableValue) as caught:
        outcome({"success": True, "result": {"pixels": np.zeros((2, 2))}}, "scan")
    failure = describe(caught.value, RetryPolicy.model_validate({"transient": ["TypeError"]}), HERE)
    assert (failure.category, failure.retryable) == ("permanent", False)
    assert "result['result']['pixels'] is of type numpy.ndarray" in failure.error
    assert "write it to a file and return the path" in failure.error


# S23, S25: exceptions


def raised(act: Callable[[], Any]) -> BaseException:
    try:
        act()
    except BaseException as exc:
        return exc
    raise AssertionError("it was to raise")


def said(exc: BaseException, policy: RetryPolicy | None = None, own: tuple[str, ...] = HERE) -> Failure:
    return describe(exc, policy or RetryPolicy(), own)


def test_S25_a_class_may_be_named_as_a_package_has_it_or_by_the_class_that_holds_it() -> None:
    for name in ("subprocess.json.JSONDecodeError", "json.JSONDecodeError", "json.decoder.JSONDecodeError"):
        policy = RetryPolicy.model_validate({"transient": name})
        is_loaded = name != "subprocess.json.JSONDecodeError"  # which no module has
        assert said(json.JSONDecodeError("no", "", 0), policy).category == ("transient" if is_loaded else "permanent")
    inner = RetryPolicy.model_validate({"permanent": f"{__name__}.Scene.Missing"})
    assert said(Scene.Missing("no"), inner).category == "permanent"
    assert said(RuntimeError("no"), inner).category == "unknown"


class Scene:
    class Missing(RuntimeError):
        """What is not in a scene."""


class DatabaseError(Exception):
    """A job type's own, called like production's."""


class TileMissing(errors.ResourceNotFoundError):
    """A job type's own kind of what is not there."""


@pytest.mark.parametrize(
    ("exc", "category", "retryable"),
    [
        (ValueError("v"), "permanent", False),
        (KeyError("k"), "permanent", False),
        (TileMissing("t"), "permanent", False),
        (errors.ContractViolationError("c"), "contract", False),
        (OSError("o"), "transient", True),
        (FileNotFoundError(2, "No such file"), "transient", True),
        (errors.DatabaseError("d"), "transient", True),
        (errors.TaskExecutionError("b"), "business", True),
        (ZeroDivisionError("z"), "unknown", True),
        (MemoryError(), "memory", True),
        (RecursionError("r"), "unknown", True),
        (StopIteration(1), "unknown", True),
        (KeyboardInterrupt(), "unknown", True),
        (GeneratorExit(), "unknown", True),
        (SystemExit(2), "permanent", False),
        (ExceptionGroup("several", [ValueError("v")]), "unknown", True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_S23_S27_an_exception_is_told_as_text_with_its_category(
    exc: BaseException, category: str, retryable: bool
) -> None:
    failure = said(exc)
    assert (failure.category, failure.retryable) == (category, retryable)
    assert failure.error_type == type(exc).__name__
    assert failure.error


def test_S25_a_class_of_the_job_types_own_modules_counts_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "exceptions_of_a_user.py").write_text("class ResourceNotFoundError(Exception): pass\n")
    library = tmp_path / "site-packages" / "exceptions_of_a_library.py"
    library.parent.mkdir()
    library.write_text("class ResourceNotFoundError(Exception): pass\n")
    monkeypatch.syspath_prepend(str(library.parent))
    users = importlib.import_module("exceptions_of_a_user").ResourceNotFoundError("gone")
    foreign = importlib.import_module("exceptions_of_a_library").ResourceNotFoundError("gone")
    assert said(DatabaseError("busy")).category == "transient"
    assert said(users, own=()).category == "permanent"
    assert said(foreign).category == "unknown"
    assert said(foreign, own=("exceptions_of_a_library",)).category == "permanent"
    assert said(sqlite3.DatabaseError("locked")).category == "unknown"
    assert said(sqlite3.DatabaseError("locked"), own=("sqlite3",)).category == "transient"


def test_S25_a_class_of_a_notebook_or_script_counts_by_its_name() -> None:
    for module in ("__main__", "__mp_main__"):
        made = type("TaskExecutionError", (Exception,), {"__module__": module})
        assert said(made("no"), own=()).category == "business"


def test_S25_a_policy_overrules_the_table() -> None:
    policy = RetryPolicy.model_validate({"permanent": ["ZeroDivisionError"], "transient": [KeyError]})
    assert said(ZeroDivisionError(), policy).retryable is False
    assert said(KeyError("k"), policy).category == "transient"


def test_S22_a_local_class_goes_by_its_own_name() -> None:
    class Local(Exception):
        pass

    failure = said(Local("here"))
    assert (failure.error, failure.error_type) == ("here", "Local")


def test_S22_an_exception_without_text_is_told_by_its_name() -> None:
    assert said(ZeroDivisionError()).error == "ZeroDivisionError"
    assert said(MemoryError()).error == "MemoryError"


def test_S22_an_exception_whose_text_cannot_be_made_says_so() -> None:
    class Mute(ValueError):
        def __str__(self) -> str:
            raise OSError("no text")

        __repr__ = __str__

    def act() -> None:
        raise Mute

    failure = said(raised(act))
    assert failure.error == "<Mute whose __str__ raised OSError>"
    assert failure.category == "permanent"
    assert failure.traceback is not None
    assert "raise Mute" in failure.traceback


def test_S22_a_text_that_is_no_plain_string_is_made_one() -> None:
    class Text(str):
        pass

    class Odd(Exception):
        def __str__(self) -> str:
            return Text("odd")

    assert type(said(Odd()).error) is str


@pytest.mark.parametrize("module", [None, 3, ["a"], ""], ids=str)
def test_S22_a_class_of_no_module_is_told_like_any_other(module: Any) -> None:
    made = type("Homeless", (ValueError,), {"__module__": module})
    assert said(made("where")).category == "permanent"
    assert said(made("where")).error == "where"


def test_S22_text_that_no_database_takes_is_escaped_and_long_text_cut() -> None:
    failure = said(ValueError("nul \0 surrogate \ud800"))
    assert failure.error == "nul \\x00 surrogate \\ud800"
    long = said(ValueError("x" * 1_000_000))
    assert len(long.error) <= 16_000
    assert "characters left out" in long.error


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ((), "the code called sys.exit()"),
        ((3,), "the code called sys.exit(3)"),
        (("bye",), "the code called sys.exit(bye)"),
    ],
)
def test_S23_a_handler_that_leaves_has_failed_for_good_and_its_code_is_told(code: tuple[Any, ...], told: str) -> None:
    failure = said(raised(lambda: sys.exit(*code)))
    assert (failure.error, failure.error_type, failure.retryable) == (told, "SystemExit", False)


def test_S22_a_chain_of_exceptions_is_in_the_traceback_and_the_last_one_decides() -> None:
    def act() -> None:
        try:
            dict[str, int]()["tile"]
        except KeyError as exc:
            raise OSError("no such tile") from exc

    failure = said(raised(act))
    assert (failure.error, failure.category) == ("no such tile", "transient")
    assert failure.traceback is not None
    assert failure.traceback.index("KeyError: 'tile'") < failure.traceback.index("direct cause")
    assert failure.traceback.rstrip().endswith("OSError: no such tile")


def test_S22_a_cause_whose_text_cannot_be_made_does_not_hide_the_rest() -> None:
    def act() -> None:
        try:
            raise BadText
        except BadText as exc:
            raise OSError("no such tile") from exc

    class BadText(Exception):
        def __str__(self) -> str:
            raise SystemExit

    failure = said(raised(act))
    assert failure.error == "no such tile"
    assert failure.traceback is not None


def test_S22_a_recursion_without_end_is_told_in_short() -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    failure = said(raised(lambda: deeper(0)))
    assert (failure.error_type, failure.category) == ("RecursionError", "unknown")
    assert failure.traceback is not None
    assert "more times]" in failure.traceback
    assert len(failure.traceback) < 32_001


def test_S22_a_chain_without_end_is_told_too() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    failure = said(raised(lambda: (_ for _ in ()).throw(first)))
    assert failure.error == "first"


names = st.text(min_size=1, max_size=12).filter(lambda name: "\0" not in name and name.isprintable())


@given(
    names, st.sampled_from([ValueError, OSError, Exception, BaseException, KeyError]), st.lists(st.text(), max_size=3)
)
def test_S22_whatever_an_exception_is_called_and_holds_it_is_told(
    name: str, base: type[BaseException], held: list[str]
) -> None:
    failure = said(type(name, (base,), {})(*held))
    assert failure.error
    assert "\0" not in failure.error
    failure.error.encode()
    failure.error_type.encode()


# run_chunk


class Marks:
    """A marker that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def running(self, chunk: int, position: int, key: int) -> float:
        self.seen.append(("running", chunk, position, key))
        return time.monotonic()

    def reporting(self, chunk: int) -> None:
        self.seen.append(("reporting", chunk))


class Prints:
    """What was printed since it was last asked."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def take(self) -> str | None:
        text = "".join(self.kept)
        self.kept.clear()
        return text or None


def chunk_of(target: Any, *parameters: Any, kind: Any = "tasks", attempt: int = 1, **changes: Any) -> Chunk:
    ids = [f"t-{index}" for index in range(len(parameters))]
    keys = range(10, 10 + len(parameters))
    batch = Batch("scan", attempt, 0, 0, 10, keys, json.dumps(ids), json.dumps(parameters))
    made = Chunk(7, kind, JOB_ID, "tiles", 2, pack(target), batch, RetryPolicy(), task_types=("scan",), patience=60.0)
    return made._replace(**changes)


def rows_of(chunk: Chunk, answer: Answer) -> list[Told]:
    """All that *answer* says, call by call, whichever way it says it."""
    told = {row[0]: Told(*row) for row in answer.told}
    others = [key for key in chunk.batch.keys[: answer.ran] if key not in told]
    completed = {
        key: Told._make((key, *row, None, None))
        for key, row in zip(others, zip(*answer.completed, strict=True), strict=True)
    }
    rows = told | completed
    assert len(told) + len(completed) == answer.ran, "each call that ran is told of once"
    return [rows[key] for key in sorted(rows)]


def run(
    chunk: Chunk, marks: Marks | None = None, prints: Prints | None = None, **how: Any
) -> tuple[Answer, list[Told]]:
    answer = run_chunk(chunk, Codes(), marks or Marks(), prints or Prints(), 4321, **how)
    return answer, rows_of(chunk, answer)


def double(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": params["n"] * 2}


def fickle(params: dict[str, Any]) -> dict[str, Any]:
    match params["n"]:
        case 0:
            return {"success": True}
        case 1:
            raise KeyError("tile")
        case 2:
            return {"success": False, "error": "not today"}
        case 3:
            return {"result": 3}
        case 4:
            return {"success": True, "result": {"pixels": b"raw"}}
        case 5:
            sys.exit(5)
        case _:
            raise KeyboardInterrupt


def test_S12_S20_S24_each_call_of_a_chunk_becomes_a_row_of_plain_values_whatever_it_does() -> None:
    marks = Marks()
    before = time.time()
    answer, rows = run(chunk_of(fickle, *({"n": n} for n in range(7))), marks)
    assert (answer.pid, answer.ran, answer.planned) == (4321, 7, ())
    assert [row[0] for row in answer.told] == [11, 12, 13, 14, 15, 16], "what succeeds is told with all that does"
    assert [row.result for row in rows] == ['{"success":true}', *[None] * 6]
    told = [row.failure and (row.failure[1], row.failure[2], row.failure[3]) for row in rows]
    assert told == [
        None,
        ("KeyError", "permanent", False),
        ("ReturnedFailure", "business", True),
        ("ContractViolationError", "contract", False),
        ("UnstorableValue", "permanent", False),
        ("SystemExit", "permanent", False),
        ("KeyboardInterrupt", "unknown", True),
    ]
    assert marks.seen == [*(("running", 7, n, 10 + n) for n in range(7)), ("reporting", 7)]
    assert rows[0].started_at >= before - 0.001, "times are seconds since the epoch"
    for earlier, later in itertools.pairwise(rows):
        assert earlier.started_at <= earlier.ended_at <= later.started_at
    assert answer.seconds >= rows[-1].ended_at - rows[0].started_at - 0.001
    assert all(row.cpu >= 0 for row in rows)
    assert answer.peak_memory > 1_000_000


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list | array):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_S22_only_plain_text_and_numbers_leave_a_worker() -> None:
    answer, _ = run(chunk_of(fickle, {"n": 0}, *({"n": n} for n in range(7))))
    assert {type(value) for value in leaves(tuple(answer))} <= {str, int, float, bool, type(None)}


def test_S22_the_traceback_of_a_row_begins_with_the_users_own_line_and_there_is_none_without_one() -> None:
    _, rows = run(chunk_of(fickle, {"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}))
    tracebacks = [row.failure[4] if row.failure else "" for row in rows]
    assert tracebacks[0] is not None
    lines = tracebacks[0].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith(f'  File "{__file__}", line ')
    assert lines[1].endswith(", in fickle")
    assert lines[-1] == "KeyError: 'tile'"
    assert tracebacks[1:] == [None, None, None]


def spin_for(params: dict[str, Any]) -> dict[str, Any]:
    until = time.perf_counter() + params["seconds"]
    while time.perf_counter() < until:
        pass
    return {"success": True}


def test_S30_a_chunk_that_took_long_goes_back_early_with_the_rest_not_begun() -> None:
    marks = Marks()
    times = [0.0, 0.0, 0.26, 0.0, 0.0]
    chunk = chunk_of(spin_for, *({"seconds": seconds} for seconds in times), attempt=3, patience=0.25)
    answer, rows = run(chunk, marks)
    assert len(rows) == answer.ran == 3
    assert answer.seconds > 0.25
    assert marks.seen == [("running", 7, 0, 10), ("running", 7, 1, 11), ("running", 7, 2, 12), ("reporting", 7)]
    found = from_answer(chunk, answer, slot=3)
    assert found.completed is not None
    ended = found.completed.attempts()
    assert [(attempt.key, attempt.attempt, attempt.outcome) for attempt in ended] == [
        (10, 3, Outcome.COMPLETED),
        (11, 3, Outcome.COMPLETED),
        (12, 3, Outcome.COMPLETED),
    ]
    assert {(attempt.slot, attempt.pid, attempt.code) for attempt in ended} == {(3, 4321, chunk.code.fingerprint)}
    assert list(found.unstarted) == [13, 14]
    assert (found.attempts, found.lost, found.seconds) == ([], (), answer.seconds)


@pytest.mark.parametrize(("patience", "done"), [(-1.0, 1), (0.0, 1), (math.inf, 5)])
def test_S30_at_least_one_call_of_a_chunk_runs_and_quick_ones_run_all(patience: float, done: int) -> None:
    chunk = chunk_of(double, *({"n": n} for n in range(5)), patience=patience)
    answer, rows = run(chunk)
    assert [row.result for row in rows] == [f'{{"success":true,"result":{2 * n}}}' for n in range(done)]
    assert list(from_answer(chunk, answer, slot=0).unstarted) == list(range(10 + done, 15))


def test_S38_an_interrupt_that_the_caller_asked_for_goes_through_and_leaves_the_mark_where_it_was() -> None:
    marks = Marks()
    with pytest.raises(KeyboardInterrupt):
        run(chunk_of(fickle, {"n": 0}, {"n": 6}, {"n": 0}), marks, passes=(KeyboardInterrupt,))
    assert marks.seen == [("running", 7, 0, 10), ("running", 7, 1, 11)]


say: Callable[[str], None] = print


def saying(params: dict[str, Any]) -> dict[str, Any]:
    say(params["say"])
    if params["say"] == "fail":
        raise OSError("fail")
    return {"success": True}


def test_S22_what_a_call_prints_is_kept_with_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = Prints()
    monkeypatch.setattr(sys.modules[__name__], "say", prints.kept.append)
    chunk = chunk_of(saying, *({"say": text} for text in ("one", "", "fail", "two")))
    answer, rows = run(chunk, prints=prints)
    assert [row.output for row in rows] == ["one", None, "fail", "two"]
    assert [row.result is None for row in rows] == [False, False, True, False]
    assert [row[0] for row in answer.told] == [10, 12, 13]


def test_S30_a_report_accounts_for_each_call_of_a_chunk_once_whichever_way_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prints = Prints()
    monkeypatch.setattr(sys.modules[__name__], "say", prints.kept.append)
    texts = ["one", "", "fail", "", "two", ""]
    for several in itertools.chain.from_iterable(itertools.permutations(texts, n) for n in (1, 2, 3)):
        chunk = chunk_of(saying, *({"say": text} for text in several), attempt=2)
        answer, rows = run(chunk, prints=prints)
        found = from_answer(chunk, answer, slot=1)
        together = found.completed.attempts() if found.completed is not None else []
        told = sorted([*found.attempts, *together], key=lambda attempt: attempt.key)
        assert list(found.unstarted) == []
        assert found.completed is None or found.completed.keys
        assert [
            (attempt.key, attempt.started_at, attempt.ended_at, attempt.cpu, attempt.result) for attempt in told
        ] == [(row.key, row.started_at, row.ended_at, row.cpu, row.result) for row in rows]
        assert [(attempt.outcome, attempt.failure and attempt.failure.error, attempt.output) for attempt in told] == [
            ("failed" if text == "fail" else "completed", "fail" if text == "fail" else None, text or None)
            for text in several
        ]
        assert {attempt[1] for attempt in told} == {2}
        assert {attempt.peak_memory for attempt in told} == {answer.peak_memory}


def test_S30_an_answer_of_a_slot_that_did_not_begin_leaves_every_call_unstarted() -> None:
    chunk = chunk_of(double, {"n": 1}, {"n": 2})
    found = from_answer(chunk, NOT_BEGUN, slot=0)
    assert list(found.unstarted) == [10, 11]
    assert (found.attempts, found.completed, found.planned) == ([], None, None)


def changing(params: dict[str, Any]) -> dict[str, Any]:
    params["box"].append(params.pop("n"))
    return {"success": True, "result": params}


def test_S3_parameters_are_the_handlers_own_to_change() -> None:
    chunk = chunk_of(changing, {"n": 1, "box": []}, {"n": 1, "box": []}, {"n": 2, "box": [0]})
    for _ in range(2):  # as when it is sent again
        _, rows = run(chunk)
        boxes = [json.loads(row.result or "")["result"] for row in rows]
        assert boxes == [{"box": [1]}, {"box": [1]}, {"box": [0, 2]}]


def knowing(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    context.logger.info("known")
    return {"success": True, "result": {**params, **context._replace(logger=context.logger.name)._asdict()}}  # type: ignore[arg-type]


def test_S4_a_handler_that_takes_a_context_is_told_of_job_task_and_attempt() -> None:
    _, rows = run(chunk_of(knowing, {"n": 1}, {"n": 2}, attempt=2))
    assert json.loads(rows[1].result or "")["result"] == {
        "n": 2,
        "job_id": JOB_ID,
        "job_type": "tiles",
        "stage": 2,
        "task_id": "t-1",
        "task_index": 1,
        "task_type": "scan",
        "attempt": 2,
        "logger": "geoflow.task.scan",
        "missing": [],
    }


def test_S4_code_that_was_sent_once_is_known_by_its_version() -> None:
    codes = Codes()
    code = pack(double)
    assert codes.get(code) == (double, False)
    assert codes.get(code._replace(reference=None, value=None)) == (double, False)
    assert codes.get(pack(knowing)) == (knowing, True)


def test_S22_a_handler_that_cannot_be_found_is_a_failure_of_its_tasks() -> None:
    chunk = chunk_of(double, {"n": 1})
    _, rows = run(chunk._replace(code=chunk.code._replace(version="x", reference="no_such_module_anywhere:handler")))
    assert rows[0].failure is not None
    assert rows[0].failure[0] == "No module named 'no_such_module_anywhere'"


# Plans and finalize in a worker

seen: list[Any] = []


class Tiles:
    job_type = "tiles"

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> Any:
        logging.getLogger("jobs.tiles").warning("planning")
        seen.append((stage, job_params, job_id, previous_results))
        if job_params.get("broken"):
            raise LookupError("no scene")
        return [task()] * job_params["planned"] if "planned" in job_params else None

    @staticmethod
    def finalize_job(context: JobExecutionContext | None = None) -> Any:
        logging.getLogger("jobs.tiles").warning("finalizing")
        seen.append(context)
        assert context is not None
        return context.parameters.get("made")


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


def test_S14_a_plan_is_asked_with_the_stage_the_parameters_the_job_and_earlier_results() -> None:
    asked = [{"job_params": {"planned": 1}, "previous_results": None}]
    answer, rows = run(chunk_of(Tiles, *asked, kind="plan", stage=1))
    assert answer.planned == (["t-1"], ["scan"], (), ['{"n":1}'], [None])
    assert rows[0].failure is None
    assert seen == [(1, {"planned": 1}, JOB_ID, None)]
    found = from_answer(chunk_of(Tiles, *asked, kind="plan"), answer, slot=0)
    assert found.planned == NewTasks(["t-1"], ["scan"], ['{"n":1}'], [None])
    assert [attempt.outcome for attempt in found.attempts] == [Outcome.COMPLETED]
    assert found.completed is None, "a plan is not a task"


def test_S16_a_plan_of_no_task_comes_back_as_one() -> None:
    chunk = chunk_of(Tiles, {"job_params": {"planned": 0}, "previous_results": None}, kind="plan")
    answer, rows = run(chunk)
    assert rows[0].failure is None
    assert from_answer(chunk, answer, slot=0).planned == NewTasks([], [], [], [])


@pytest.mark.parametrize(
    ("params", "error_type", "error"),
    [
        ({"broken": True}, "LookupError", "no scene"),
        (
            {},
            "ContractViolationError",
            "create_tasks_for_stage of stage 2 must return a list of dicts; it returned None",
        ),
    ],
)
def test_S17_a_plan_that_raises_or_is_none_is_a_failure(params: dict[str, Any], error_type: str, error: str) -> None:
    chunk = chunk_of(Tiles, {"job_params": params, "previous_results": []}, kind="plan")
    answer, rows = run(chunk)
    assert answer.planned == ()
    assert from_answer(chunk, answer, slot=0).planned is None
    assert rows[0].failure is not None
    assert rows[0].failure[1] == error_type
    assert rows[0].failure[0].startswith(error)


def finalizing(**parameters: Any) -> Chunk:
    given = {
        "job_id": JOB_ID,
        "job_type": "tiles",
        "current_stage": 2,
        "total_stages": 2,
        "parameters": parameters,
        "task_results": [
            ["t-0", "t-1"],
            ["scan", "scan"],
            [{"success": True, "result": 1}, {"success": True}],
            [1_700_000_000_500_000, 1_700_000_000_000_001],
        ],
    }
    return chunk_of(Tiles, given, kind="finalize")


def test_S33_finalize_is_given_the_job_and_all_results_as_objects() -> None:
    chunk = finalizing(made={"mean": 0.5})
    answer, rows = run(chunk)
    assert rows[0].result == '{"mean":0.5}'
    found = from_answer(chunk, answer, slot=0)
    assert [attempt.result for attempt in found.attempts] == ['{"mean":0.5}']
    assert (found.completed, found.planned) == (None, None)
    (context,) = seen
    assert (context.job_id, context.job_type, context.current_stage, context.total_stages) == (JOB_ID, "tiles", 2, 2)
    one, other = context.task_results
    assert (one.task_id, one.task_type, one.status, one.success) == ("t-0", "scan", "completed", True)
    assert (one.result_data, one.error_details) == ({"success": True, "result": 1}, None)
    assert one.timestamp == datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert (other.task_id, other.success, other.result_data) == ("t-1", True, {"success": True})
    assert other.timestamp == datetime(2023, 11, 14, 22, 13, 20, 1, UTC)


class TaskStatus(enum.Enum):
    """As production has it."""

    COMPLETED = "completed"
    FAILED = "failed"


class Counting(Tiles):
    @staticmethod
    def finalize_job(context: JobExecutionContext | None = None) -> Any:
        assert context is not None
        done = [one.status for one in context.task_results if one.status == TaskStatus.COMPLETED]
        return {
            "done": len(done),
            "same": [one is TaskStatus.COMPLETED for one in list[Any](done)].count(True),
            "found": sum(one in {TaskStatus.COMPLETED} for one in done),
            "failed": sum(one.status == TaskStatus.FAILED for one in context.task_results),
            "success": sum(one.success for one in context.task_results),
        }


def test_S33_finalize_counts_with_an_enum_of_its_own_make() -> None:
    _, rows = run(finalizing()._replace(code=pack(Counting)))
    assert json.loads(rows[0].result or "") == {"done": 2, "same": 2, "found": 2, "failed": 0, "success": 2}


@pytest.mark.parametrize("ours", [models.TaskStatus, models.JobStatus, models.Outcome, models.Category])
def test_S33_a_state_equals_that_of_an_enum_of_the_same_name_both_ways(ours: Any) -> None:
    words = {member.name: member.value for member in ours}
    enums: list[Any] = [enum.Enum, enum.StrEnum]
    makes = [kind(ours.__name__, words) for kind in enums]
    for one, other in itertools.product(ours, [member for made in makes for member in made]):
        same = one.value == other.value
        assert ((one == other), (other == one), (one != other), (other != one)) == (same, same, not same, not same)
    another = enums[0]("Another", words)
    for one in ours:
        assert one == one.value
        assert {one.value: 1, one: 2} == {one: 2}, "it hashes as its text does"
        assert one != another[one.name]
        assert one != 3


@pytest.mark.parametrize("made", [None, [], "done"])
def test_S34_finalize_that_returns_no_dict_has_failed(made: Any) -> None:
    _, rows = run(finalizing(made=made))
    assert rows[0].failure is not None
    assert rows[0].failure[1:4] == ("ContractViolationError", "contract", False)
    assert rows[0].failure[0].startswith("finalize_job must return a dict; it returned ")


class Overlapping:
    """Plans that begin and end when they are told to."""

    job_type = "overlapping"
    begun: ClassVar[dict[str, threading.Event]] = {}
    to_end: ClassVar[dict[str, threading.Event]] = {}

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        cls.begun[job_params["name"]].set()
        assert cls.to_end[job_params["name"]].wait(30)
        return []


def test_a_plan_or_finalize_leaves_the_garbage_collector_as_it_was() -> None:
    before = gc.get_threshold()
    for params in ({"planned": 1}, {"broken": True}, {}):
        run(chunk_of(Tiles, {"job_params": params, "previous_results": None}, kind="plan"))
        assert gc.get_threshold() == before
    for made in (None, {"mean": 0.5}):
        run(finalizing(made=made))
        assert gc.get_threshold() == before


def test_plans_that_overlap_in_threads_leave_the_garbage_collector_as_it_was() -> None:
    """In a pool of threads, which are the driver's own process, as two jobs' do."""
    before, names = gc.get_threshold(), ("one", "other")
    threads = {}
    try:
        for name in names:
            Overlapping.begun[name], Overlapping.to_end[name] = threading.Event(), threading.Event()
            asked = {"job_params": {"name": name}, "previous_results": None}
            threads[name] = threading.Thread(target=run, args=[chunk_of(Overlapping, asked, kind="plan")])
            threads[name].start()
            assert Overlapping.begun[name].wait(30)
        for name in names:
            Overlapping.to_end[name].set()
            threads[name].join(30)
        assert gc.get_threshold() == before
    finally:
        gc.set_threshold(*before)


# S40: what is logged meanwhile


class Written(logging.Handler):
    """The lines that the log file would have, made at the moment at which they are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(JsonLines().format(record)))

    def fields(self, message: str) -> dict[str, Any]:
        (found,) = [line for line in self.lines if line["message"] == message]
        return {
            name: found[name]
            for name in ("job_id", "job_type", "stage", "task_id", "task_type", "attempt")
            if name in found
        }


@pytest.fixture
def log() -> Iterator[Written]:
    written, root = Written(), logging.getLogger()
    before = root.level
    root.addHandler(written)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(written)
    root.setLevel(before)


def speaking(params: dict[str, Any]) -> dict[str, Any]:
    logging.getLogger("jobs.tiles").info("working on %s", params["n"])
    return {"success": True}


def test_S40_what_a_handler_logs_carries_its_job_task_and_attempt(log: Written) -> None:
    run(chunk_of(speaking, {"n": 1}, {"n": 2}))
    run(chunk_of(speaking, {"n": 3}, attempt=2))
    about = {"job_id": JOB_ID, "job_type": "tiles", "stage": 2, "task_type": "scan"}
    assert log.fields("working on 1") == {**about, "task_id": "t-0", "attempt": 1}
    assert log.fields("working on 2") == {**about, "task_id": "t-1", "attempt": 1}
    assert log.fields("working on 3") == {**about, "task_id": "t-0", "attempt": 2}


def test_S40_what_a_plan_or_finalize_logs_carries_its_own_job_and_no_earlier_task(log: Written) -> None:
    run(chunk_of(speaking, {"n": 1}, job_id="cd" * 32, job_type="scenes", stage=1))
    run(chunk_of(Tiles, {"job_params": {"planned": 1}, "previous_results": None}, kind="plan"))
    run(finalizing(made={}))
    about = {"job_id": JOB_ID, "job_type": "tiles", "stage": 2}
    assert log.fields("planning") == about
    assert log.fields("finalizing") == about


def test_S40_what_is_logged_after_a_chunk_carries_none_of_its_tasks(log: Written) -> None:
    """Where there are no workers, the kernel's own lines come from the same process."""
    run(chunk_of(speaking, {"n": 1}))
    with pytest.raises(KeyboardInterrupt):
        run(chunk_of(fickle, {"n": 6}), passes=(KeyboardInterrupt,))
    logging.getLogger("jobs.kernel").info("something else")
    assert log.fields("something else") == {}
