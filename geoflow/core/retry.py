"""What kind of failure it was, and whether and when to try again.

A failure is classified by the names of its exception's class and base classes, since job types bring exceptions of
their own that are called like production's. In the table a class counts only when it is a builtin, geoflow's own or
the job type's own: a library may call something else a `DatabaseError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from geoflow.core.models import Category, Failure, Stage
from geoflow.support.exception_names import ExceptionNames, name_of

# The first row with any of the classes decides: what is both a ValueError and an OSError is permanent. What is in no
# row is unknown, and retried. TimeoutError and the like are OSErrors anyway; a job type's own of that name need not be.
_TABLE = {
    Category.CONTRACT: {"ContractViolationError"},
    # SystemExit is not in the promises, which speak of Exception: a handler that leaves will leave again.
    Category.PERMANENT: {
        "ValueError", "TypeError", "KeyError", "IndexError", "AttributeError", "ResourceNotFoundError", "SystemExit",
    },
    Category.TRANSIENT: {
        "OSError", "IOError", "TimeoutError", "ConnectionError", "FileNotFoundError", "PermissionError",
        "ServiceBusError", "DatabaseError",
    },
    Category.BUSINESS: {"TaskExecutionError", "BusinessLogicError"},
    Category.MEMORY: {"MemoryError"},
}  # fmt: skip

_FAIL_AT_ONCE = "to fail at once, raise ResourceNotFoundError, or return success: False with retryable: False"
_WHY: dict[str, str] = {
    Category.CONTRACT: "{} breaks the contract and is not retried: the code has to change first.",
    Category.PERMANENT: "{} is permanent and not retried: the same input would fail in the same way.",
    Category.TRANSIENT: (
        "{} is transient and retried, as every OSError is, that of a missing file too, since storage may come back; "
        f"{_FAIL_AT_ONCE}."
    ),
    Category.BUSINESS: (
        f"{{}} counts as a business error, as every returned success: False does, and is retried; {_FAIL_AT_ONCE}."
    ),
    Category.UNKNOWN: (
        "{} is in no row of the table, and so it is retried; to fail at once, name it as permanent=... of its stage."
    ),
    Category.LOST: (
        "Its process ended while the task ran, which is retried; a task that keeps ending its process runs out of "
        "retries."
    ),
    Category.MEMORY: (
        "There was too little memory. The task is first run again alone, with all that there is, which is charged "
        "nothing; if that fails too, it is retried like any other, alone again."
    ),
    Category.TIMEOUT: (
        "The task ran past its timeout or idle_timeout and was stopped, which counts as transient and is retried."
    ),
}


_Seconds = Annotated[float, Field(ge=0, le=365 * 86_400, allow_inf_nan=False)]


class RetryPolicy(BaseModel):
    """How often to try again, how long to wait before, and which exceptions to see otherwise than the table does.

    Delays are in seconds. `permanent` and `transient` take exception classes of any origin, or their names: with their
    module as one would import them, ``"rasterio.errors.RasterioIOError"``, or without it, for each class that is
    called so. Subclasses count too; where several classes of an exception are named, the most derived one decides, and
    for one named in both, `permanent`. A contract violation cannot be overruled, and what no exception tells, a timeout
    of geoflow's or a process that died, is not asked about. Raises `ValueError` (pydantic's) for values out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_retries: int = Field(default=3, ge=0, le=1000)
    base_delay: _Seconds = 1.0
    max_delay: _Seconds = 10.0
    permanent: ExceptionNames = frozenset()
    transient: ExceptionNames = frozenset()

    @classmethod
    def production(cls) -> RetryPolicy:
        """Waits as the deployed system makes them: 5, 10, 20 s and so on, at most 300 s."""
        return cls(base_delay=5.0, max_delay=300.0)

    def delay(self, n: int) -> float:
        """Seconds to wait before retry *n*, counted from 0: ``min(base_delay * 2**n, max_delay)``."""
        return min(self.base_delay * 2.0**n, self.max_delay)

    def of_stage(self, stage: Stage) -> RetryPolicy:
        """The policy of a stage: what it says of an exception overrules what this one says."""
        retries = self.max_retries if stage.max_retries is None else stage.max_retries
        permanent, transient = stage.permanent, stage.transient
        if retries == self.max_retries and not permanent and not transient:
            return self
        named = {
            "permanent": self.permanent - transient | permanent,
            "transient": self.transient - permanent | transient,
        }
        return self.model_copy(update={"max_retries": retries, **named})

    def renamed(self, real: Callable[[str], str]) -> RetryPolicy:
        """The same with each name that has a module as *real* gives it: a class may be imported from several."""
        named = {
            key: frozenset(real(name) if "." in name else name for name in names)
            for key, names in (("permanent", self.permanent), ("transient", self.transient))
        }
        return self.model_copy(update=named)


class Ancestor(NamedTuple):
    """A class that an exception is of: its bare name, that with its module, and whether the table applies to it."""

    name: str
    full_name: str
    is_ours: bool


def retry_in(failure: Failure, retries: int, policy: RetryPolicy) -> float | None:
    """In how many seconds a task is run again after *failure* and *retries* retries. None: it failed for good."""
    return policy.delay(retries) if failure.retryable and retries < policy.max_retries else None


def lineage(exc_type: type[BaseException], own: Callable[[str], bool]) -> list[Ancestor]:
    """Name an exception's class and its bases, most derived first.

    *own* tells of a module's name whether it is the job type's; builtins and geoflow need not be asked about.
    """
    modules = [(base, str(base.__module__)) for base in exc_type.__mro__]
    return [
        Ancestor(base.__name__, name_of(base), module.partition(".")[0] in ("builtins", "geoflow") or own(module))
        for base, module in modules
    ]


def classify(lineage: Sequence[Ancestor], policy: RetryPolicy) -> Category:
    """Decide what kind of failure an exception is, from its `lineage`."""
    ours = {name for name, _, is_ours in lineage if is_ours}
    if ours & _TABLE[Category.CONTRACT]:
        return Category.CONTRACT
    for name, full_name, _ in lineage:
        if name in policy.permanent or full_name in policy.permanent:
            return Category.PERMANENT
        if name in policy.transient or full_name in policy.transient:
            return Category.TRANSIENT
    return next((category for category, names in _TABLE.items() if ours & names), Category.UNKNOWN)


def is_retryable(category: str) -> bool:
    """Tell whether failures of *category* are retried, unless they say otherwise themselves."""
    return category not in (Category.CONTRACT, Category.PERMANENT)


def explain(error_type: str, category: str) -> str:
    """Say in one sentence which rule decided whether a failure is retried, and how to decide otherwise.

    *error_type* is the name of the exception's class, or what a returned failure calls itself.
    """
    if category == Category.PERMANENT and error_type == "ReturnedFailure":
        return "The handler returned retryable: False, so the task is not retried."
    if category == Category.LOST and error_type == "EngineLost":
        return "The process that drove the job ended, so this attempt is charged nothing and the task runs again."
    why = _WHY.get(category)
    return why.format(error_type) if why else f"{error_type} was recorded as {category or 'nothing known'}."
