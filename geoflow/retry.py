"""What kind of failure it was, and whether and when to try again.

A failure is classified by the names of its exception's class and base classes, since job types bring exceptions of
their own that are called like production's. Rows of this table are tried in order; the first one that any of the
classes is in decides, so an exception that is both a `ValueError` and an `OSError` is permanent:

=========  =======  ==============================================================================================
category   retried  classes
=========  =======  ==============================================================================================
contract   no       ContractViolationError
permanent  no       ValueError, TypeError, KeyError, IndexError, AttributeError, ResourceNotFoundError; SystemExit
transient  yes      OSError and with it TimeoutError, ConnectionError, FileNotFoundError, PermissionError;
                    ServiceBusError, DatabaseError
business   yes      TaskExecutionError, BusinessLogicError
unknown    yes      every other
=========  =======  ==============================================================================================

A class counts only when it is a builtin, geoflow's own or the job type's own: a library may call something else a
`DatabaseError`. Between the first row and the others stand the classes that a `RetryPolicy` names, of any origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from geoflow.models import Category, Failure

_CONTRACT = "ContractViolationError"
_TABLE: tuple[tuple[Category, frozenset[str]], ...] = (
    (Category.CONTRACT, frozenset({_CONTRACT})),
    (
        Category.PERMANENT,
        frozenset(
            {
                "ValueError",
                "TypeError",
                "KeyError",
                "IndexError",
                "AttributeError",
                "ResourceNotFoundError",
                # Not in the promises, which speak of Exception: a handler that leaves will leave again.
                "SystemExit",
            }
        ),
    ),
    (
        Category.TRANSIENT,
        frozenset(
            {
                "OSError",
                # Builtins of these names are OSErrors anyway; a job type's own classes need not be.
                "IOError",
                "TimeoutError",
                "ConnectionError",
                "FileNotFoundError",
                "PermissionError",
                "ServiceBusError",
                "DatabaseError",
            }
        ),
    ),
    (Category.BUSINESS, frozenset({"TaskExecutionError", "BusinessLogicError"})),
)
_NOT_RETRIED = frozenset({Category.CONTRACT, Category.PERMANENT})

_A_YEAR = 365 * 86_400


def _class_names(given: object) -> object:
    """Turn exception classes and their names into names; one alone will do."""
    if isinstance(given, str | type) or not isinstance(given, Iterable):
        given = [given]
    return frozenset(_class_name(item) for item in given)


def _class_name(given: object) -> str:
    if isinstance(given, type):
        if not issubclass(given, BaseException):
            raise ValueError(f"{given.__name__} is not an exception class")
        return given.__name__
    if not isinstance(given, str):
        raise ValueError(f"give exception classes or their names, not {given!r}")
    if not given.isidentifier():
        raise ValueError(f"{given!r} is not a class name: give the last part alone, or the class")
    return given


_ClassNames = Annotated[frozenset[str], BeforeValidator(_class_names)]
_Seconds = Annotated[float, Field(ge=0, le=_A_YEAR, allow_inf_nan=False, strict=True)]


class RetryPolicy(BaseModel):
    """How often to try again, how long to wait before, and which exceptions to see otherwise than the table does.

    Delays are in seconds. `permanent` and `transient` take exception classes or their names, which count for
    subclasses too; where several classes of an exception are named, the most derived one decides. A contract
    violation cannot be overruled. Raises `ValueError` (pydantic's) for values out of range and unknown names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_retries: int = Field(default=3, ge=0, le=1000, strict=True)
    base_delay: _Seconds = 1.0
    max_delay: _Seconds = 10.0
    permanent: _ClassNames = frozenset()
    transient: _ClassNames = frozenset()

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        both = sorted(self.permanent & self.transient)
        if both:
            raise ValueError(f"both permanent and transient: {', '.join(both)}; leave each in one of them")
        if _CONTRACT in self.transient:
            raise ValueError(f"{_CONTRACT} is never retried: the code has to change first")
        return self

    @classmethod
    def production(cls) -> RetryPolicy:
        """Waits as the deployed system makes them: 5, 10, 20 s and so on, at most 300 s."""
        return cls(base_delay=5.0, max_delay=300.0)

    def delay(self, n: int) -> float:
        """Seconds to wait before retry *n*, counted from 0: ``min(base_delay * 2**n, max_delay)``."""
        if n < 0:
            raise ValueError(f"retries are counted from 0, there is none with number {n}")
        try:
            return min(math.ldexp(self.base_delay, n), self.max_delay)
        except OverflowError:
            return self.max_delay


DEFAULT = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the task again in *delay* seconds. *retry* is which one that is, counted from 0."""

    delay: float
    retry: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The task has failed for good; *reason* says why, to the user."""

    reason: str


def lineage(exc_type: type[BaseException], own: Callable[[str], bool]) -> list[tuple[str, bool]]:
    """Name an exception's class and its bases, most derived first, each with whether the table applies to it.

    *own* tells of a module's name whether it is the job type's; builtins and geoflow need not be asked about.
    """
    return [(base.__name__, _is_ours(base.__module__, own)) for base in exc_type.__mro__ if base is not object]


def _is_ours(module: object, own: Callable[[str], bool]) -> bool:
    if not isinstance(module, str):  # of a class that was made by hand
        return False
    return module in ("builtins", "geoflow") or module.startswith("geoflow.") or own(module)


def classify(lineage: Sequence[tuple[str, bool]], policy: RetryPolicy = DEFAULT) -> Category:
    """Decide what kind of failure an exception is, from its `lineage`."""
    ours = {name for name, is_ours in lineage if is_ours}
    if _CONTRACT in ours:
        return Category.CONTRACT
    for name, _ in lineage:
        if name in policy.permanent:
            return Category.PERMANENT
        if name in policy.transient:
            return Category.TRANSIENT
    for category, names in _TABLE:
        if not names.isdisjoint(ours):
            return category
    return Category.UNKNOWN


def is_retryable(category: str) -> bool:
    """Tell whether failures of *category* are retried, unless they say otherwise themselves."""
    return category not in _NOT_RETRIED


def decide(failure: Failure, retries: int, policy: RetryPolicy = DEFAULT) -> Retry | GiveUp:
    """Say what follows from *failure*, after *retries* retries of the same task were made."""
    if not failure.retryable:
        return GiveUp(_why_not(failure))
    if retries < policy.max_retries:
        return Retry(policy.delay(retries), retries)
    if policy.max_retries == 0:
        return GiveUp("the policy allows no retries")
    if retries > policy.max_retries:
        return GiveUp(f"{retries} retries were made, and the policy allows {policy.max_retries}")
    return GiveUp("the one retry was used" if retries == 1 else f"all {retries} retries were used")


def _why_not(failure: Failure) -> str:
    match failure.category:
        case Category.CONTRACT:
            return "contract violations are not retried"
        case Category.PERMANENT:
            return "permanent errors are not retried"
        case _:
            return "the failure says that it is not retryable"


_FAIL_AT_ONCE = "raise ResourceNotFoundError, or return success: False with retryable: False"
_NOT_THERE = frozenset({"FileNotFoundError", "PermissionError", "IsADirectoryError", "NotADirectoryError"})


def explain(error_type: str, category: str) -> str:
    """Say in one sentence which rule decided whether a failure is retried, and how to decide otherwise.

    *error_type* is the name of the exception's class, or what a returned failure calls itself, or "ReturnedFailure".
    Any text will do for both.
    """
    name = error_type.rpartition(".")[2] or "The failure"
    row = next((row for row, names in _TABLE if name in names), None)
    match category:
        case Category.CONTRACT:
            return f"{name} breaks the contract and is not retried: the code has to change first."
        case Category.LOST:
            return "The engine ended while the task ran, so this attempt is charged nothing and the task runs again."
        case Category.TIMEOUT:
            return "The task ran past its timeout and was stopped, which counts as transient and is retried."
        case Category.PERMANENT if name == "SystemExit":
            return "The task called sys.exit, which is permanent and not retried: it would leave again."
        case Category.PERMANENT if name == "ReturnedFailure":
            return "The handler returned success: False with retryable: False, and so it is not retried."
        case Category.PERMANENT if row not in (None, Category.PERMANENT):
            return (
                f"{name} is {row} by its name and permanent here, by retryable: False, by another of its base classes "
                "or by the retry policy, and so it is not retried."
            )
        case Category.PERMANENT:
            return f"{name} is permanent and not retried: the same input would fail in the same way."
        case Category.TRANSIENT if row not in (None, Category.TRANSIENT):
            return f"{name} is {row} by its name and transient here, by the retry policy, and so it is retried."
        case Category.TRANSIENT if name in _NOT_THERE:
            return (
                f"{name} is an OSError, and OSErrors are retried, those of a missing or forbidden file too, since "
                f"storage may come back; to fail at once, {_FAIL_AT_ONCE}."
            )
        case Category.TRANSIENT:
            return f"{name} is transient and retried, since it may pass; to fail at once, {_FAIL_AT_ONCE}."
        case Category.BUSINESS if name == "ReturnedFailure":
            return "The handler returned success: False, which is retried unless it also returns retryable: False."
        case Category.BUSINESS:
            return (
                f"{name} counts as a business error, raised as one or returned with success: False, and is retried; "
                f"to fail at once, {_FAIL_AT_ONCE}."
            )
        case Category.UNKNOWN if row:
            return f"{name} is a library's class, not the one of that name that is {row}, and so it is retried."
        case Category.UNKNOWN:
            return (
                f"{name} is in no row of the table, and so it is retried; to fail at once, name it in "
                "RetryPolicy(permanent=...)."
            )
        case _:
            return f"{name} was recorded as {category or 'nothing known'}."
