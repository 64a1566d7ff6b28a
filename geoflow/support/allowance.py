"""How many tasks of a stage may fail while the job goes on: a number of them, or a share."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

Allowance = int | float


def is_allowance(value: Any) -> bool:
    """Whether it can be one: 5 is five tasks, 0.05 a twentieth of them, and 1.0 is all, where 1 is one."""
    return (type(value) is int and value >= 0) or (type(value) is float and 0.0 <= value <= 1.0)


def most(allowed: Allowance | None, tasks: int) -> int:
    """How many of so many *tasks* may fail; None is all but one.

    It is never all of them: there would be nothing to go on with.
    """
    if isinstance(allowed, float):
        allowed = int(round(allowed * tasks, 6))  # 0.29 of 100 are 29, whatever the product of two floats is
    return max(min(tasks if allowed is None else allowed, tasks - 1), 0)


def of_text(value: Any) -> Any:
    """The number that a variable's text says, if it says one."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return int(value) if value.strip().isdecimal() else float(value)
    return value


def _checked(value: Any) -> Any:
    if value is not None and not is_allowance(value):
        must = "Input should be a number of tasks, such as 5, or a share of them from 0.0 to 1.0"
        raise PydanticCustomError("allowance", must)
    return value


AllowFailed = Annotated[Allowance | None, BeforeValidator(_checked)]
