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
        *("check", "compare", "default_session", "export", "form", "job", "jobs", "open", "plan", "probe"),
        *("register", "resume", "run", "sql", "submit", "unbundle"),
    ),
    "geoflow.job_type": ("InputFile", "JobType", "OutputFile", "identity", "register_type"),
    "geoflow.job_handle": ("JobHandle",),
    "geoflow.executors.outputs": ("output", "scratch"),
    "geoflow.support.progress": ("progress", "track"),
    "geoflow.executors.saved": ("load", "save"),
    "geoflow.core.models": ("JobExecutionContext", "Limit", "MissingTask", "PlanContext", "TaskContext", "TaskResult"),
    "geoflow.core.extractor": ("StageResultExtractor",),
    "geoflow.core.retry": ("RetryPolicy",),
    "geoflow.session": ("Session",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted((*_HOME_OF, "__version__", "errors", "testing"))  # noqa: PLE0605 - the same names as below

if TYPE_CHECKING:
    from geoflow import errors as errors
    from geoflow import testing as testing
    from geoflow.api import check as check
    from geoflow.api import compare as compare
    from geoflow.api import default_session as default_session
    from geoflow.api import export as export
    from geoflow.api import form as form
    from geoflow.api import job as job
    from geoflow.api import jobs as jobs
    from geoflow.api import open as open
    from geoflow.api import plan as plan
    from geoflow.api import probe as probe
    from geoflow.api import register as register
    from geoflow.api import resume as resume
    from geoflow.api import run as run
    from geoflow.api import sql as sql
    from geoflow.api import submit as submit
    from geoflow.api import unbundle as unbundle
    from geoflow.core.extractor import StageResultExtractor as StageResultExtractor
    from geoflow.core.models import JobExecutionContext as JobExecutionContext
    from geoflow.core.models import Limit as Limit
    from geoflow.core.models import MissingTask as MissingTask
    from geoflow.core.models import PlanContext as PlanContext
    from geoflow.core.models import TaskContext as TaskContext
    from geoflow.core.models import TaskResult as TaskResult
    from geoflow.core.retry import RetryPolicy as RetryPolicy
    from geoflow.executors.outputs import output as output
    from geoflow.executors.outputs import scratch as scratch
    from geoflow.executors.saved import load as load
    from geoflow.executors.saved import save as save
    from geoflow.job_handle import JobHandle as JobHandle
    from geoflow.job_type import InputFile as InputFile
    from geoflow.job_type import JobType as JobType
    from geoflow.job_type import OutputFile as OutputFile
    from geoflow.job_type import identity as identity
    from geoflow.job_type import register_type as register_type
    from geoflow.jobtypes.contract import JobBase as JobBase
    from geoflow.session import Session as Session
    from geoflow.support.progress import progress as progress
    from geoflow.support.progress import track as track


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
    return __all__
