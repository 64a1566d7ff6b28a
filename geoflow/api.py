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

    from geoflow.engine.runtime import Runtime
    from geoflow.job_handle import JobHandle
    from geoflow.jobtypes.contract import DefinesJob, Handler
    from geoflow.jobtypes.typed import TypedJob
    from geoflow.notebook.form import Form
    from geoflow.session import Session
    from geoflow.tools.bundle.opened import Bundle
    from geoflow.tools.check import CheckReport
    from geoflow.tools.compare.found import Comparison
    from geoflow.tools.export import Export
    from geoflow.tools.forecast.plan import Plan
    from geoflow.tools.forecast.probe import Probe

_session: Session | None = None
_opened: list[weakref.ref[Runtime]] = []  # of sessions, the last one last
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
    return [session_of(runtime) for runtime in _runtimes()]


def session_of(runtime: Runtime) -> Session:
    """The session of that runtime, such as a job's."""
    from geoflow.session import Session

    return _session if _session is not None and _session.runtime is runtime else Session.of(runtime)


def _runtimes() -> list[Runtime]:
    return [runtime for found in reversed(_opened) if (runtime := found()) is not None]


def is_open(store: str) -> bool:
    """Whether one of those sessions has the store at that path open."""
    here = [runtime for runtime in _runtimes() if runtime.open_store is not None]
    return any(os.path.realpath(runtime.settings.store) == os.path.realpath(store) for runtime in here)


def make_latest(session: Session) -> None:
    """Have `latest_session` find *session*, without keeping it."""
    _opened[:] = [*(found for found in _opened if found() not in (None, session.runtime)), weakref.ref(session.runtime)]


def register(
    target: type | DefinesJob | ModuleType | str | os.PathLike[str], handlers: Mapping[str, Handler] | None = None
) -> list[str]:
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


def probe(job_type: str | type | DefinesJob, params: object = None, **parameters: Any) -> Probe[JobHandle]:
    """`Session.probe` of the default session."""
    return default_session().probe(job_type, params, **parameters)


def form(job_type: str | type | DefinesJob, session: Session | None = None, **values: Any) -> Form[JobHandle]:
    """`Session.form` of *session*, or else of the default one."""
    return (session or default_session()).form(job_type, **values)


def check(
    target: type | DefinesJob | ModuleType | str | os.PathLike[str],
    handlers: Mapping[str, Handler] | None = None,
    *,
    params: object = None,
    run: int | bool = True,
    seconds: float = 60.0,
    **parameters: Any,
) -> CheckReport:
    """Everything about a job type that can be known before it runs in production; nothing is stored.

    *target* is a job class (with its *handlers*, a dict by task type; those of its module's ``ALL_HANDLERS`` are found
    without), a `gf.JobType`, a module, a ``"file.py"``, ``"file.py:job_type"``, or the name of a type that is built in
    or registered. All that registration would refuse becomes findings too.

    Part of the check is a trial, with *params* or *parameters*, or else with the defaults and examples that the job
    type tells, or with none where it asks for none: in one process of its own, of at most *seconds*, the first three
    tasks of each stage are run **for real**, with all that their handlers do. *run* says another number; False leaves
    handlers and finalize out.

    Raises ``DefinitionError`` when there is no such job type, or its file cannot be imported.
    """
    from geoflow.jobtypes.parameters import by_name
    from geoflow.jobtypes.registry import Registry
    from geoflow.tools.check import checked

    given = None if params is None and not parameters else by_name(params, parameters)
    registry = Registry() if _session is None else _session.registry
    return checked(target, handlers, given, run, seconds, registry)


def export(
    job_type: TypedJob,
    folder: str | os.PathLike[str],
    *,
    job: JobHandle | None = None,
    session: Session | None = None,
    prove: bool = True,
    overwrite: bool = False,
) -> Export:
    """Write *job_type* to ``folder/<name>.py``, as a module that production takes, and a test of it beside that.

    The module has the class of the contract, ``ALL_JOBS`` and ``ALL_HANDLERS``, and needs nothing of geoflow. It is
    then *proved* on *job*, a completed run (without one, the latest completed one of its *session*, or of the sessions
    that are open): in a fresh process without geoflow it has to give the same job id, the same task ids, the same
    results of up to 20 tasks of each stage, which run again for that, and the same result of finalize. ``prove=False``
    leaves that out.

    Raises ``DefinitionError`` with all that cannot be exported, or with what differs; the module is then left beside
    as ``<name>.py.rejected``. Files that are there are kept, and refused, unless *overwrite*.
    """
    from geoflow.tools.export import write

    known = _runtimes() if session is None else [session.runtime]
    run = None if job is None else (job.runtime.store, job.id)
    return write(job_type, folder, run, known, prove=prove, overwrite=overwrite)


def job(job_id: str) -> JobHandle:
    """`Session.job` of the default session."""
    return default_session().job(job_id)


def jobs() -> pd.DataFrame:
    """`Session.jobs` of the default session."""
    return default_session().jobs()


def sql(query: str) -> pd.DataFrame:
    """`Session.sql` of the default session."""
    return default_session().sql(query)


def compare(
    a: JobHandle | str, b: JobHandle | str | None = None, *, on: str | None = None, tolerance: float = 1e-9
) -> Comparison:
    """`Session.compare` of the first job's session, or of the default one."""
    session = default_session() if isinstance(a, str) else session_of(a.runtime)
    return session.compare(a, b, on=on, tolerance=tolerance)


def unbundle(path: str | os.PathLike[str]) -> Bundle:
    """The task that was sent as the file *path*, to be looked at: nothing of it is run, imported or unpickled.

    `Bundle.run` calls its handler, where you say so. Raises ``BundleError`` for a file that is cut, changed, or made to
    do harm, and names what is wrong with it.
    """
    from geoflow.tools.bundle.opened import read

    return read(path)


def resume() -> list[JobHandle]:
    """`Session.resume` of the default session."""
    return default_session().resume()
