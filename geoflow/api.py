"""The session that ``gf.run`` and its like use: one for this process, on ``GEOFLOW_STORE`` or ``geoflow.db``."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from geoflow.support.nesting import in_worker, refuse_inside

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.job_handle import JobHandle
    from geoflow.jobtypes.contract import DefinesJob, Handler
    from geoflow.notebook.form import Form
    from geoflow.session import Session
    from geoflow.tools.forecast.plan import Plan
    from geoflow.tools.forecast.probe import Probe

_session: Session | None = None
_opened: list[weakref.ref[Session]] = []
_making = threading.RLock()


def open(store: str | os.PathLike[str] | None = None, **options: Any) -> Session:
    """A session on *store*: a file, or ``":memory:"``; see `Session` for the options. It is a context manager."""
    if options.get("workers") != 0 and options.get("executor") is None and not in_worker():
        from geoflow.executors.spawning import warm_up

        warm_up(tuple(options.get("preload") or ()))
    from geoflow.session import Session

    session = Session(store, **options)
    make_latest(session)
    return session


def default_session() -> Session:
    """The session of this process that `run`, `submit` and the others use, made when it is first needed."""
    global _session  # noqa: PLW0603 - one for the process is what it is for
    refuse_inside("the default session, which is for the whole process")
    with _making:  # two threads may be the first at once
        if _session is None:
            _session = open()
        return _session


def latest_session() -> Session:
    """The session that was opened last in this process and is still held; where there is none, the default one.

    ``%geoflow`` uses it. The default session counts as opened when it is first used.
    """
    return next(iter(opened()), None) or default_session()


def opened() -> list[Session]:
    """The sessions that were opened in this process and are still held, the last one first."""
    return [session for found in reversed(_opened) if (session := found()) is not None]


def is_open(store: str) -> bool:
    """Whether one of those sessions has the store at that path open."""
    here = [session for session in opened() if "store" in session.runtime.__dict__]
    return any(os.path.realpath(session.settings.store) == os.path.realpath(store) for session in here)


def make_latest(session: Session) -> None:
    """Have `latest_session` find *session*, without keeping it."""
    _opened[:] = [*(found for found in _opened if found() not in (None, session)), weakref.ref(session)]


def register(target: type | DefinesJob | ModuleType | str, handlers: Mapping[str, Handler] | None = None) -> list[str]:
    """`Session.register` of the default session."""
    return default_session().register(target, handlers)


def submit(job_type: str | type | DefinesJob, params: object = None, **parameters: Any) -> JobHandle:
    """`Session.submit` of the default session."""
    return default_session().submit(job_type, params, **parameters)


def run(job_type: str | type | DefinesJob, params: object = None, **parameters: Any) -> JobHandle:
    """`Session.run` of the default session."""
    return default_session().run(job_type, params, **parameters)


def plan(job_type: str | type | DefinesJob, params: object = None, **parameters: Any) -> Plan:
    """`Session.plan` of the default session."""
    return default_session().plan(job_type, params, **parameters)


def probe(job_type: str | type | DefinesJob, params: object = None, **parameters: Any) -> Probe:
    """`Session.probe` of the default session."""
    return default_session().probe(job_type, params, **parameters)


def form(job_type: str | type | DefinesJob, session: Session | None = None, **values: Any) -> Form:
    """`Session.form` of *session*, or else of the default one."""
    return (session or default_session()).form(job_type, **values)


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
