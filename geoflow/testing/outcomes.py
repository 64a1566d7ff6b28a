"""What the engine would make of a handler's call, for tests that call it themselves."""

from __future__ import annotations

from typing import Any

from geoflow.core.models import Failure
from geoflow.core.retry import RetryPolicy
from geoflow.jobtypes.answers import attempted, describe, outcome
from geoflow.jobtypes.contract import Handler
from geoflow.support.jsonable import from_json, to_json


def as_stored(returned: Any) -> dict[str, Any]:
    """What a handler *returned*, as the store keeps it: JSON, in which dates have become text and tuples lists.

    Raises ``ContractViolationError`` for what is no dict with a ``success`` of True or False, and ``UnstorableValue``
    for what has no JSON form: both fail the task.
    """
    outcome(returned, "this task")
    found: dict[str, Any] = from_json(to_json(returned))
    return found


def failure_of(handler: Handler, *arguments: Any) -> Failure:
    """How a task fails that calls *handler* with these *arguments*, in the words of ``job.errors()``.

    It has ``error``, ``error_type``, ``category`` (by the default policy), ``retryable`` and ``traceback``. An
    ``AssertionError`` says that the call does not fail.
    """
    try:
        returned = attempted(handler, *arguments)
        failure = outcome(returned, "this task")[1]
    except (Exception, SystemExit) as exc:
        return describe(exc, RetryPolicy(), ())
    if failure is None:
        raise AssertionError(f"It did not fail, but returned {returned!r}.")
    return failure
