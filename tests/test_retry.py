"""S23 to S28: what a failure is, whether it is retried, and how long that waits."""

from __future__ import annotations

import asyncio
import builtins
import json
import math
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
from geoflow.models import Category, Failure
from geoflow.retry import DEFAULT, GiveUp, Retry, RetryPolicy, classify, decide, explain, is_retryable, lineage

relaxed = settings(deadline=None)


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
        (errors.ServiceBusError, Category.TRANSIENT),
        (errors.DatabaseError, Category.TRANSIENT),
        (errors.TaskExecutionError, Category.BUSINESS),
        (errors.BusinessLogicError, Category.BUSINESS),
        (Exception, Category.UNKNOWN),
        (RuntimeError, Category.UNKNOWN),
        (ZeroDivisionError, Category.UNKNOWN),
        (AssertionError, Category.UNKNOWN),
        (ImportError, Category.UNKNOWN),
        (LookupError, Category.UNKNOWN),
        (NotImplementedError, Category.UNKNOWN),
        (StopIteration, Category.UNKNOWN),
        (MemoryError, Category.UNKNOWN),
        (ExceptionGroup, Category.UNKNOWN),
    ],
)
def test_S23_the_table_says_what_each_exception_is(exc_type: type[BaseException], category: Category) -> None:
    assert of(exc_type) is category


@pytest.mark.parametrize("exc_type", [FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError])
def test_S23_a_missing_or_forbidden_file_is_transient(exc_type: type[BaseException]) -> None:
    assert of(exc_type) is Category.TRANSIENT


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


def test_S23_every_builtin_exception_is_what_its_bases_in_the_promise_say() -> None:
    permanent = (ValueError, TypeError, KeyError, IndexError, AttributeError, SystemExit)
    kinds = [kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
    assert len(kinds) > 60
    for kind in kinds:
        expected = (
            Category.PERMANENT
            if issubclass(kind, permanent)
            else Category.TRANSIENT
            if issubclass(kind, OSError)
            else Category.UNKNOWN
        )
        assert of(kind) is expected, kind


def test_S23_leaving_is_permanent_and_other_base_exceptions_are_unknown() -> None:
    assert of(SystemExit) is Category.PERMANENT
    for exc_type in (KeyboardInterrupt, GeneratorExit, BaseException, asyncio.CancelledError):
        assert of(exc_type) is Category.UNKNOWN


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
    assert lineage(made("Mine", library), own) == [
        ("Mine", True),
        ("LibraryError", False),
        ("ValueError", True),
        ("Exception", True),
        ("BaseException", True),
    ]


def test_S25_builtins_and_geoflow_are_ours_without_asking() -> None:
    def fail(module: str) -> bool:
        raise AssertionError(module)

    assert all(ours for _, ours in lineage(errors.DatabaseError, fail))
    assert lineage(made("E", module="geoflow.builtin.hello"), fail)[0] == ("E", True)
    assert lineage(made("E", module="geoflowers"), lambda module: False)[0] == ("E", False)


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
    with pytest.raises(ValidationError, match="ContractViolationError is never retried"):
        RetryPolicy(transient=frozenset({"ContractViolationError"}))


@pytest.mark.parametrize(
    "given",
    [
        [OSError],
        (OSError,),
        {OSError},
        {"OSError"},
        ["OSError", OSError],
        OSError,
        "OSError",
        (item for item in ["OSError"]),
    ],
)
def test_S25_a_policy_takes_classes_and_names(given: Any) -> None:
    assert RetryPolicy(permanent=given).permanent == {"OSError"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([int], "int is not an exception class"),
        ([5], "give exception classes or their names, not 5"),
        (None, "give exception classes or their names, not None"),
        ([ValueError()], "give exception classes or their names, not ValueError"),
        (["rasterio.errors.CRSError"], "'rasterio.errors.CRSError' is not a class name: give the last part alone"),
        ([""], "'' is not a class name"),
        (["a b"], "'a b' is not a class name"),
    ],
)
def test_S25_a_policy_refuses_what_is_no_exception_class(given: Any, message: str) -> None:
    for field in ("permanent", "transient"):
        with pytest.raises(ValidationError, match=message):
            RetryPolicy(**{field: given})


def test_S25_a_policy_that_says_both_is_refused() -> None:
    with pytest.raises(ValidationError, match="both permanent and transient: KeyError; leave each in one"):
        RetryPolicy(permanent=frozenset({"KeyError", "OSError"}), transient=frozenset({"KeyError"}))


@pytest.mark.parametrize(
    "given",
    [
        {"max_retries": -1},
        {"max_retries": 1001},
        {"max_retries": 10**9},
        {"max_retries": "3"},
        {"max_retries": 3.0},
        {"max_retries": True},
        {"max_retries": None},
        {"base_delay": -0.1},
        {"base_delay": math.nan},
        {"base_delay": math.inf},
        {"base_delay": 1e308},
        {"base_delay": "1"},
        {"max_delay": -1},
        {"max_delay": math.nan},
        {"max_delay": math.inf},
        {"max_delay": 1e308},
        {"max_retry": 3},
    ],
)
def test_S26_a_policy_out_of_range_is_refused_naming_the_field(given: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        RetryPolicy(**given)
    assert next(iter(given)) in str(caught.value)


def test_S26_a_policy_is_frozen_can_be_compared_and_survives_json() -> None:
    policy = RetryPolicy(max_retries=5, base_delay=2, permanent=frozenset({"KeyError"}))
    assert RetryPolicy.model_validate_json(policy.model_dump_json()) == policy
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
@given(policies, st.integers(0, 900))
def test_S26_the_delay_is_the_formula(policy: RetryPolicy, n: int) -> None:
    assert policy.delay(n) == min(policy.base_delay * 2**n, policy.max_delay)


@relaxed
@given(policies, st.integers(0, 10**30))
def test_S26_the_delay_never_overflows_shrinks_or_passes_its_maximum(policy: RetryPolicy, n: int) -> None:
    assert 0 <= policy.delay(n) <= policy.delay(n + 1) <= policy.max_delay


def test_S26_the_smallest_delay_grows_to_the_maximum_too() -> None:
    assert RetryPolicy(base_delay=5e-324).delay(5000) == 10.0
    assert RetryPolicy(base_delay=0.0).delay(10**20) == 0.0
    assert RetryPolicy(max_delay=0.0).delay(3) == 0.0


def test_S26_there_is_no_retry_before_the_first() -> None:
    with pytest.raises(ValueError, match="counted from 0"):
        DEFAULT.delay(-1)


# Retry or give up


def decisions(policy: RetryPolicy, found: Failure) -> list[Retry | GiveUp]:
    """Fail again and again until the task is given up."""
    made: list[Retry | GiveUp] = []
    while not made or isinstance(made[-1], Retry):
        made.append(decide(found, len(made), policy))
    return made


def test_S26_a_task_runs_at_most_four_times_by_default() -> None:
    assert decisions(DEFAULT, failure()) == [
        Retry(1.0, 0),
        Retry(2.0, 1),
        Retry(4.0, 2),
        GiveUp("all 3 retries were used"),
    ]


@relaxed
@given(st.integers(0, 30), categories)
def test_S26_exactly_max_retries_retries_are_made(max_retries: int, category: Category) -> None:
    made = decisions(RetryPolicy(max_retries=max_retries), failure(category))
    assert len(made) == max_retries + 1
    assert [step.retry for step in made if isinstance(step, Retry)] == list(range(max_retries))


@relaxed
@given(policies, st.integers(0, 2000), categories, st.booleans())
def test_S26_what_is_decided_waits_as_the_policy_says(
    policy: RetryPolicy, retries: int, category: Category, retryable: bool
) -> None:
    match decide(failure(category, retryable=retryable), retries, policy):
        case Retry(delay, retry):
            assert retryable
            assert retries < policy.max_retries
            assert (delay, retry) == (policy.delay(retries), retries)
        case GiveUp(reason):
            assert not retryable or retries >= policy.max_retries
            assert reason


@pytest.mark.parametrize(
    ("max_retries", "retries", "reason"),
    [
        (0, 0, "the policy allows no retries"),
        (1, 1, "the one retry was used"),
        (3, 3, "all 3 retries were used"),
        (3, 5, "5 retries were made, and the policy allows 3"),
    ],
)
def test_S29_giving_up_says_how_many_retries_there_were(max_retries: int, retries: int, reason: str) -> None:
    assert decide(failure(), retries, RetryPolicy(max_retries=max_retries)) == GiveUp(reason)


@pytest.mark.parametrize(
    ("category", "reason"),
    [
        (Category.PERMANENT, "permanent errors are not retried"),
        (Category.CONTRACT, "contract violations are not retried"),
        (Category.BUSINESS, "the failure says that it is not retryable"),
    ],
)
def test_S24_what_is_not_retryable_is_given_up_at_once(category: Category, reason: str) -> None:
    assert decide(failure(category, retryable=False), 0, DEFAULT) == GiveUp(reason)
    assert decide(Failure("e", "E", category.value, False), 0) == GiveUp(reason)


@pytest.mark.parametrize("exc_type", [ValueError, errors.ContractViolationError, OSError, RuntimeError, MemoryError])
def test_S23_an_exceptions_class_alone_leads_to_the_decision(exc_type: type[BaseException]) -> None:
    category = of(exc_type)
    decided = decide(Failure("e", exc_type.__name__, category, is_retryable(category)), 0)
    assert isinstance(decided, GiveUp) is (exc_type in (ValueError, errors.ContractViolationError))


# In words


@pytest.mark.parametrize("error_type", ["FileNotFoundError", "PermissionError", "builtins.IsADirectoryError"])
def test_S23_the_card_of_a_missing_file_says_why_it_is_retried_and_how_to_fail_at_once(error_type: str) -> None:
    sentence = explain(error_type, Category.TRANSIENT)
    assert "is an OSError, and OSErrors are retried" in sentence
    assert "raise ResourceNotFoundError, or return success: False with retryable: False" in sentence


@pytest.mark.parametrize(
    ("error_type", "category", "words"),
    [
        ("ContractViolationError", "contract", "breaks the contract and is not retried"),
        ("ValueError", "permanent", "ValueError is permanent and not retried"),
        ("CRS_MISSING", "permanent", "CRS_MISSING is permanent and not retried"),
        ("SystemExit", "permanent", "called sys.exit"),
        ("ReturnedFailure", "permanent", "returned success: False with retryable: False"),
        ("FileNotFoundError", "permanent", "transient by its name and permanent here"),
        ("TimeoutError", "transient", "TimeoutError is transient and retried"),
        ("ValueError", "transient", "permanent by its name and transient here, by the retry policy"),
        ("ReturnedFailure", "business", "which is retried unless it also returns retryable: False"),
        ("TaskExecutionError", "business", "counts as a business error"),
        ("ZeroDivisionError", "unknown", "in no row of the table, and so it is retried"),
        ("DatabaseError", "unknown", "a library's class, not the one of that name that is transient"),
        ("WorkerDied", "lost", "is charged nothing"),
        ("TimeoutError", "timeout", "ran past its timeout"),
        ("Odd", "of a later version", "Odd was recorded as of a later version."),
        ("", "", "The failure was recorded as nothing known."),
    ],
)
def test_S27_each_category_is_explained(error_type: str, category: str, words: str) -> None:
    assert words in explain(error_type, category)


@relaxed
@given(st.text() | st.sampled_from([*ROWS, "ReturnedFailure", "SystemExit"]), categories | st.text())
def test_S27_an_explanation_is_one_sentence_that_agrees_with_what_is_done(error_type: str, category: str) -> None:
    sentence = explain(error_type, category)
    assert sentence.endswith(".")
    if category in set(Category) and error_type.isidentifier():
        assert sentence.count(". ") == 0
        assert ("not retried" in sentence) is not is_retryable(category)


@relaxed
@given(st.lists(st.tuples(st.sampled_from([*ROWS, "Other", "Exception"]), st.booleans()), max_size=6))
def test_S23_the_category_is_that_of_the_first_row_with_one_of_our_classes(found: list[tuple[str, bool]]) -> None:
    order = [Category.CONTRACT, Category.PERMANENT, Category.TRANSIENT, Category.BUSINESS, Category.UNKNOWN]
    rows = [ROWS[name] for name, ours in found if ours and name in ROWS]
    assert classify(found) is min([*rows, Category.UNKNOWN], key=order.index)
