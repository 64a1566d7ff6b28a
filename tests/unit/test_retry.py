"""S23 to S28: what a failure is, whether it is retried, and how long that waits."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from geoflow import errors
from geoflow.core.models import Category, Failure, Stage
from geoflow.core.retry import Ancestor, RetryPolicy, classify, explain, is_retryable, lineage, retry_in

relaxed = settings(deadline=None)
DEFAULT = RetryPolicy()


def own(module: str) -> bool:
    return module == "jobs" or module.startswith("jobs.")


def of(exc_type: type[BaseException], policy: RetryPolicy = DEFAULT) -> Category:
    return classify(lineage(exc_type, own), policy)


def made(name: str, *bases: type[BaseException], module: str = "jobs.exceptions") -> type[BaseException]:
    return type(name, bases or (Exception,), {"__module__": module})


def failure(category: Category = Category.TRANSIENT, *, retryable: bool = True) -> Failure:
    return Failure("it broke", "OSError", category, retryable)


categories = st.sampled_from(list(Category))
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 1000),
    base_delay=st.floats(0, 365 * 86_400),
    max_delay=st.floats(0, 365 * 86_400),
)


# The table


@pytest.mark.parametrize(
    ("exc_type", "category"),
    [
        (errors.ContractViolationError, Category.CONTRACT),
        (ValueError, Category.PERMANENT),
        (TypeError, Category.PERMANENT),
        (KeyError, Category.PERMANENT),
        (IndexError, Category.PERMANENT),
        (AttributeError, Category.PERMANENT),
        (errors.ResourceNotFoundError, Category.PERMANENT),
        (OSError, Category.TRANSIENT),
        (IOError, Category.TRANSIENT),
        (TimeoutError, Category.TRANSIENT),
        (ConnectionError, Category.TRANSIENT),
        (FileNotFoundError, Category.TRANSIENT),
        (PermissionError, Category.TRANSIENT),
        (errors.ServiceBusError, Category.TRANSIENT),
        (errors.DatabaseError, Category.TRANSIENT),
        (errors.TaskExecutionError, Category.BUSINESS),
        (errors.BusinessLogicError, Category.BUSINESS),
        (Exception, Category.UNKNOWN),
        (RuntimeError, Category.UNKNOWN),
        (ZeroDivisionError, Category.UNKNOWN),
        (SystemExit, Category.PERMANENT),
        (KeyboardInterrupt, Category.UNKNOWN),
    ],
)
def test_S23_the_table_says_what_each_exception_is(exc_type: type[BaseException], category: Category) -> None:
    assert of(exc_type) is category


@pytest.mark.parametrize(
    ("exc_type", "category"),
    [
        (UnicodeDecodeError, Category.PERMANENT),
        (json.JSONDecodeError, Category.PERMANENT),
        (np.linalg.LinAlgError, Category.PERMANENT),
        (np.exceptions.AxisError, Category.PERMANENT),
        (pd.errors.ParserError, Category.PERMANENT),
        (ValidationError, Category.PERMANENT),
        (errors.UnstorableValue, Category.PERMANENT),
        (errors.ParameterError, Category.PERMANENT),
        (BrokenPipeError, Category.TRANSIENT),
        (asyncio.TimeoutError, Category.TRANSIENT),
        (made("RasterioIOError", OSError, module="rasterio.errors"), Category.TRANSIENT),
        (made("CogError", errors.TaskExecutionError), Category.BUSINESS),
        (made("TileMissing", errors.ResourceNotFoundError), Category.PERMANENT),
        (subprocess.CalledProcessError, Category.UNKNOWN),
    ],
)
def test_S23_subclasses_count_as_what_they_extend(exc_type: type[BaseException], category: Category) -> None:
    assert of(exc_type) is category


def test_S23_the_first_row_decides_and_not_the_first_base_class() -> None:
    assert of(made("Both", OSError, ValueError)) is Category.PERMANENT
    assert of(made("Both", errors.TaskExecutionError, ConnectionError)) is Category.TRANSIENT
    assert of(made("Both", ValueError, errors.ContractViolationError)) is Category.CONTRACT
    assert of(made("Both", errors.ServiceBusError, errors.ResourceNotFoundError)) is Category.PERMANENT


def test_S23_only_contract_violations_and_permanent_errors_are_not_retried() -> None:
    assert {category for category in Category if not is_retryable(category)} == {Category.CONTRACT, Category.PERMANENT}
    assert not is_retryable("permanent")


# Whose classes count


ROWS = {
    "ContractViolationError": Category.CONTRACT,
    "ResourceNotFoundError": Category.PERMANENT,
    "ValueError": Category.PERMANENT,
    "OSError": Category.TRANSIENT,
    "TimeoutError": Category.TRANSIENT,
    "ServiceBusError": Category.TRANSIENT,
    "DatabaseError": Category.TRANSIENT,
    "TaskExecutionError": Category.BUSINESS,
    "BusinessLogicError": Category.BUSINESS,
}


@pytest.mark.parametrize(("name", "category"), ROWS.items())
def test_S25_a_job_types_own_class_of_the_same_name_counts(name: str, category: Category) -> None:
    assert of(made(name)) is category
    assert of(made("Derived", made(name))) is category


@pytest.mark.parametrize("name", ROWS)
def test_S25_a_librarys_class_of_the_same_name_does_not_count(name: str) -> None:
    assert of(made(name, module="azure.core.exceptions")) is Category.UNKNOWN
    assert of(made(name, module="jobs_of_others")) is Category.UNKNOWN


def test_S25_a_librarys_class_counts_by_its_builtin_bases() -> None:
    assert of(sqlite3.DatabaseError) is Category.UNKNOWN
    assert of(pd.errors.DatabaseError) is Category.TRANSIENT
    assert issubclass(pd.errors.DatabaseError, OSError)


def test_S25_an_own_class_that_extends_a_librarys_counts_by_its_own_name() -> None:
    azure = made("AzureError", module="azure.core")
    assert of(made("ResourceNotFoundError", azure)) is Category.PERMANENT


def test_S25_the_lineage_names_classes_from_the_most_derived_on_and_says_whose_they_are() -> None:
    library = made("LibraryError", ValueError, module="library")
    assert [(name, ours) for name, _, ours in lineage(made("Mine", library), own)] == [
        ("Mine", True),
        ("LibraryError", False),
        ("ValueError", True),
        ("Exception", True),
        ("BaseException", True),
        ("object", True),
    ]


def test_S25_builtins_and_geoflow_are_ours_without_asking() -> None:
    def fail(module: str) -> bool:
        raise AssertionError(module)

    assert all(ours for _, _, ours in lineage(errors.DatabaseError, fail))
    assert lineage(made("E", module="geoflow.builtin.hello"), fail)[0].is_ours
    assert not lineage(made("E", module="geoflowers"), lambda module: False)[0].is_ours


# Policies


def test_S25_a_policy_overrules_the_table() -> None:
    policy = RetryPolicy(permanent=frozenset({"FileNotFoundError"}), transient=frozenset({"ValueError"}))
    assert of(FileNotFoundError, policy) is Category.PERMANENT
    assert of(PermissionError, policy) is Category.TRANSIENT
    assert of(ValueError, policy) is Category.TRANSIENT
    assert of(UnicodeDecodeError, policy) is Category.TRANSIENT
    assert of(KeyError, policy) is Category.PERMANENT


def test_S25_a_policy_adds_classes_of_any_origin() -> None:
    policy = RetryPolicy(permanent=frozenset({"CRSError"}), transient=frozenset({"Throttled"}))
    assert of(made("CRSError", module="rasterio.errors"), policy) is Category.PERMANENT
    assert of(made("Throttled", ValueError, module="azure"), policy) is Category.TRANSIENT


def test_S25_of_the_classes_that_a_policy_names_the_most_derived_decides() -> None:
    policy = RetryPolicy(permanent=frozenset({"OSError"}), transient=frozenset({"ConnectionError"}))
    assert of(ConnectionResetError, policy) is Category.TRANSIENT
    assert of(FileNotFoundError, policy) is Category.PERMANENT
    assert of(ConnectionError, RetryPolicy(transient=policy.permanent, permanent=policy.transient)) is (
        Category.PERMANENT
    )


def test_S25_a_policy_cannot_overrule_a_contract_violation() -> None:
    policy = RetryPolicy(transient=frozenset({"TypeError", "Exception"}))
    assert of(errors.ContractViolationError, policy) is Category.CONTRACT
    assert of(TypeError, policy) is Category.TRANSIENT
    assert of(errors.ContractViolationError, RetryPolicy(transient=frozenset({"ContractViolationError"}))) is (
        Category.CONTRACT
    )


@pytest.mark.parametrize("given", [OSError, "OSError", [OSError], {"OSError"}, ("builtins.OSError",)])
def test_S25_a_policy_takes_classes_and_names_one_or_several(given: Any) -> None:
    assert of(FileNotFoundError, RetryPolicy(permanent=given)) is Category.PERMANENT


def test_S25_a_name_with_its_module_is_that_of_one_class_and_a_bare_one_that_of_each() -> None:
    library = made("ConnectionError", OSError, module="requests.exceptions")
    for named in (library, "requests.exceptions.ConnectionError"):
        policy = RetryPolicy.model_validate({"permanent": named})
        assert of(made("ProxyError", library, module="requests.exceptions"), policy) is Category.PERMANENT
        assert of(ConnectionError, policy) is Category.TRANSIENT
    assert of(library, RetryPolicy.model_validate({"permanent": ConnectionError})) is Category.TRANSIENT
    bare = RetryPolicy(permanent=frozenset({"ConnectionError"}))
    assert of(library, bare) is of(ConnectionError, bare) is Category.PERMANENT


def test_S25_what_a_stage_says_of_an_exception_overrules_what_the_session_says() -> None:
    overruled, named = frozenset({"OSError"}), frozenset({"KeyError"})
    session = RetryPolicy(max_retries=5, permanent=overruled, transient=named | {"ValueError"})
    stage = Stage(number=1, name="s", task_type="t", permanent=named, transient=overruled)
    policy = session.of_stage(stage)
    assert [of(kind, policy) for kind in (OSError, KeyError, ValueError)] == ["transient", "permanent", "transient"]
    assert policy.max_retries == 5
    assert session.of_stage(stage.model_copy(update={"max_retries": 0})).max_retries == 0
    assert session.of_stage(Stage(number=1, name="s", task_type="t")) is session


def test_S25_a_class_named_as_both_is_permanent() -> None:
    both = RetryPolicy(permanent=frozenset({"KeyError"}), transient=frozenset({"KeyError"}))
    assert of(KeyError, both) is Category.PERMANENT


@pytest.mark.parametrize(
    "given",
    [
        {"max_retries": -1},
        {"max_retries": 1001},
        {"max_retries": None},
        {"base_delay": -0.1},
        {"base_delay": float("nan")},
        {"max_delay": float("inf")},
        {"max_delay": 1e308},
        {"max_retry": 3},
        {"permanent": [5]},
        {"permanent": int},
        {"permanent": "no name"},
        {"permanent": ["OSError", ""]},
        {"transient": None},
    ],
)
def test_S26_a_policy_out_of_range_is_refused_naming_the_field(given: Any) -> None:
    with pytest.raises(ValidationError, match=next(iter(given))):
        RetryPolicy(**given)


def test_S26_a_policy_is_frozen_and_can_be_compared() -> None:
    policy = RetryPolicy(max_retries=5, base_delay=2, permanent=frozenset({"KeyError"}))
    assert len({policy, policy.model_copy(), DEFAULT}) == 2
    with pytest.raises(ValidationError):
        policy.max_retries = 6


# How long


def test_S26_the_defaults_are_three_retries_from_one_second_to_ten() -> None:
    assert (DEFAULT.max_retries, DEFAULT.base_delay, DEFAULT.max_delay) == (3, 1.0, 10.0)
    assert [DEFAULT.delay(n) for n in range(6)] == [1, 2, 4, 8, 10, 10]


def test_S26_productions_numbers_are_one_preset_away() -> None:
    policy = RetryPolicy.production()
    assert policy.max_retries == 3
    assert [policy.delay(n) for n in range(8)] == [5, 10, 20, 40, 80, 160, 300, 300]


@relaxed
@given(policies, st.integers(0, 998))
def test_S26_the_delay_is_the_formula_and_never_shrinks(policy: RetryPolicy, n: int) -> None:
    assert policy.delay(n) == min(policy.base_delay * 2**n, policy.max_delay)
    assert policy.delay(n) <= policy.delay(n + 1)


# Retry or give up


@relaxed
@given(policies, st.integers(0, 1000), categories)
def test_S26_a_task_is_retried_while_fewer_than_max_retries_retries_were_made(
    policy: RetryPolicy, retries: int, category: Category
) -> None:
    expected = policy.delay(retries) if retries < policy.max_retries else None
    assert retry_in(failure(category), retries, policy) == expected
    assert retry_in(failure(category, retryable=False), retries, policy) is None


def test_S26_a_task_runs_at_most_four_times_by_default() -> None:
    assert [retry_in(failure(), retries, DEFAULT) for retries in range(4)] == [1.0, 2.0, 4.0, None]


# In words


@pytest.mark.parametrize(
    ("error_type", "category", "words"),
    [
        ("ContractViolationError", "contract", "ContractViolationError breaks the contract and is not retried"),
        ("ValueError", "permanent", "ValueError is permanent"),
        ("FileNotFoundError", "transient", "as every OSError is, that of a missing file too"),
        (
            "FileNotFoundError",
            "transient",
            "raise ResourceNotFoundError, or return success: False with retryable: False",
        ),
        ("ReturnedFailure", "business", "as every returned success: False does"),
        ("ZeroDivisionError", "unknown", "in no row of the table, and so it is retried"),
        ("ReturnedFailure", "permanent", "returned retryable: False, so the task is not retried"),
        ("EngineLost", "lost", "is charged nothing"),
        ("WorkerDied", "lost", "keeps ending its process runs out of retries"),
        ("TimeoutError", "timeout", "ran past its timeout"),
        ("{Odd}", "of a {later} version", "{Odd} was recorded as of a {later} version."),
        ("", "", " was recorded as nothing known."),
    ],
)
def test_S27_each_category_is_explained(error_type: str, category: str, words: str) -> None:
    assert words in explain(error_type, category)


@pytest.mark.parametrize("category", Category)
def test_S27_an_explanation_agrees_with_what_is_done(category: Category) -> None:
    assert ("not retried" in explain("OSError", category)) is not is_retryable(category)


@relaxed
@given(st.lists(st.tuples(st.sampled_from([*ROWS, "Other", "Exception"]), st.booleans()), max_size=6))
def test_S23_the_category_is_that_of_the_first_row_with_one_of_our_classes(found: list[tuple[str, bool]]) -> None:
    order = [Category.CONTRACT, Category.PERMANENT, Category.TRANSIENT, Category.BUSINESS, Category.UNKNOWN]
    rows = [ROWS[name] for name, ours in found if ours and name in ROWS]
    ancestors = [Ancestor(name, f"m.{name}", ours) for name, ours in found]
    assert classify(ancestors, DEFAULT) is min([*rows, Category.UNKNOWN], key=order.index)
