"""Write, run, break, debug and mend CoreMachine job types on your own machine.

The names here are loaded when they are first used: a worker process needs few of them, and none of pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "geoflow.jobtypes.contract": ("JobBase",),
    "geoflow.api": (
        *("check", "default_session", "export", "form", "job", "jobs", "open", "plan", "probe"),
        *("register", "resume", "run", "sql", "submit"),
    ),
    "geoflow.job_type": ("JobType", "identity"),
    "geoflow.job_handle": ("JobHandle",),
    "geoflow.core.models": ("JobExecutionContext", "TaskContext", "TaskResult"),
    "geoflow.core.extractor": ("StageResultExtractor",),
    "geoflow.core.retry": ("RetryPolicy",),
    "geoflow.session": ("Session",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "JobBase",
    "JobExecutionContext",
    "JobHandle",
    "JobType",
    "RetryPolicy",
    "Session",
    "StageResultExtractor",
    "TaskContext",
    "TaskResult",
    "__version__",
    "check",
    "default_session",
    "errors",
    "export",
    "form",
    "identity",
    "job",
    "jobs",
    "open",
    "plan",
    "probe",
    "register",
    "resume",
    "run",
    "sql",
    "submit",
    "testing",
]

if TYPE_CHECKING:
    from geoflow import errors, testing
    from geoflow.api import (
        check,
        default_session,
        export,
        form,
        job,
        jobs,
        open,
        plan,
        probe,
        register,
        resume,
        run,
        sql,
        submit,
    )
    from geoflow.core.extractor import StageResultExtractor
    from geoflow.core.models import JobExecutionContext, TaskContext, TaskResult
    from geoflow.core.retry import RetryPolicy
    from geoflow.job_handle import JobHandle
    from geoflow.job_type import JobType, identity
    from geoflow.jobtypes.contract import JobBase
    from geoflow.session import Session


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
    elif name in ("errors", "testing"):
        value = importlib.import_module(f"geoflow.{name}")
    else:
        raise AttributeError(f"module 'geoflow' has no attribute {name!r}")
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext geoflow`` calls: it gives *shell* the magic ``%geoflow``."""
    importlib.import_module("geoflow.commands.magic").load(shell)


def __dir__() -> list[str]:
    return sorted(__all__)
