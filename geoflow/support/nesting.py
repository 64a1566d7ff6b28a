"""Where jobs are not driven: in a worker while it loads code, and by a task in a session that it shares.

A module without a main guard would start its job again in each worker that imports it, and these in theirs; a handler
that waits for a job of the session which runs it would wait for itself. One that opens a session of its own may.
"""

from __future__ import annotations

import threading

from geoflow.errors import DefinitionError

_LOADING = (
    "A worker process that imports the code of a job came to a line which runs a job itself. Put what opens a session "
    'and runs jobs there under `if __name__ == "__main__":`, so that it is not run when the module is imported.'
)
_RUNNING = (
    "A handler, a plan or finalize_job cannot run a job in {whose}: it would wait there for what it itself keeps from "
    "running. Make it a stage of this job type, or open a session of its own: with gf.open(its_own_store, workers=0)."
)


class _Here(threading.local):
    inside = False
    loading = False


here = _Here()
_in_worker = False


def settle_in() -> None:
    """This process is a worker, with all its threads."""
    global _in_worker  # noqa: PLW0603 - one for the process is what it is
    _in_worker = True


def in_worker() -> bool:
    """Whether this is a worker process, or a thread that runs a task."""
    return _in_worker or here.inside


def refuse_inside(whose: str | None = None) -> None:
    """Raise ``DefinitionError``, with what to write instead, where code is loaded; inside of a task, of a session that
    is shared: *whose* it is."""
    if here.loading or (_in_worker and not here.inside):
        raise DefinitionError(_LOADING)
    if whose is not None and in_worker():
        raise DefinitionError(_RUNNING.format(whose=whose))
