"""The session that ``gf.run`` and its like use: one for this process, on ``GEOFLOW_STORE`` or ``geoflow.db``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from geoflow.contract import Handler
from geoflow.handle import JobHandle
from geoflow.session import Session

if TYPE_CHECKING:
    import pandas as pd

_session: Session | None = None


def open(store: str | os.PathLike[str] | None = None, **options: Any) -> Session:
    """A session on *store*: a file, or ``":memory:"``; see `Session` for the options. It is a context manager."""
    return Session(store, **options)


def default_session() -> Session:
    """The session of this process that `run`, `submit` and the others use, made when it is first needed."""
    global _session  # noqa: PLW0603 - one for the process is what it is for
    if _session is None:
        _session = Session()
    return _session


def register(target: type | ModuleType | str, handlers: Mapping[str, Handler] | None = None) -> list[str]:
    """`Session.register` of the default session."""
    return default_session().register(target, handlers)


def submit(job_type: str | type, params: Mapping[str, Any] | None = None, **parameters: Any) -> JobHandle:
    """`Session.submit` of the default session."""
    return default_session().submit(job_type, params, **parameters)


def run(job_type: str | type, params: Mapping[str, Any] | None = None, **parameters: Any) -> JobHandle:
    """`Session.run` of the default session."""
    return default_session().run(job_type, params, **parameters)


def job(job_id: str) -> JobHandle:
    """`Session.job` of the default session."""
    return default_session().job(job_id)


def jobs() -> pd.DataFrame:
    """`Session.jobs` of the default session."""
    return default_session().jobs()


def sql(query: str) -> pd.DataFrame:
    """`Session.sql` of the default session."""
    return default_session().sql(query)


def resume() -> list[JobHandle]:
    """`Session.resume` of the default session."""
    return default_session().resume()
