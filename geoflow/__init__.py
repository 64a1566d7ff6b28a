"""Write, run, break, debug and mend CoreMachine job types on your own machine.

The names here are loaded when they are first used: a worker process needs few of them, and none of pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Session": "geoflow.session",
    "JobHandle": "geoflow.handle",
    "JobBase": "geoflow.contract",
    "RetryPolicy": "geoflow.retry",
    "StageResultExtractor": "geoflow.results",
    "JobExecutionContext": "geoflow.models",
    "TaskResult": "geoflow.models",
    "TaskContext": "geoflow.models",
    "open": "geoflow.default",
    "default_session": "geoflow.default",
    "run": "geoflow.default",
    "submit": "geoflow.default",
    "register": "geoflow.default",
    "job": "geoflow.default",
    "jobs": "geoflow.default",
    "resume": "geoflow.default",
}
__all__ = ["__version__", "errors", *_HOMES]  # noqa: PLE0604 - names, all of them

if TYPE_CHECKING:
    from geoflow import errors
    from geoflow.contract import JobBase
    from geoflow.default import default_session, job, jobs, open, register, resume, run, submit
    from geoflow.handle import JobHandle
    from geoflow.models import JobExecutionContext, TaskContext, TaskResult
    from geoflow.results import StageResultExtractor
    from geoflow.retry import RetryPolicy
    from geoflow.session import Session


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name == "errors":
        value = importlib.import_module("geoflow.errors")
    else:
        raise AttributeError(f"module 'geoflow' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
