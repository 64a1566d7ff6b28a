"""One task again, here: find it, call its handler with its stored parameters, and stop where that raises.

What runs is the function that is registered in this session now. Nothing of it is written to the store.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pdb
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from geoflow.core.models import TaskContext, TaskStatus
from geoflow.errors import (
    ContractViolationError,
    DefinitionError,
    GeoflowError,
    JobNotFound,
    ParameterError,
    UnstorableValue,
)
from geoflow.jobtypes.calls import outcome
from geoflow.jobtypes.contract import Handler, accepts_context
from geoflow.stores.questions import LastAttempt, last_attempt, places
from geoflow.support.jsonable import from_json
from geoflow.support.logs import logger_of
from geoflow.support.masking import mask_text, safe
from geoflow.support.text import shorten
from geoflow.usercode.origin import is_ours
from geoflow.views.tracebacks import LIBRARY

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.job_handle import JobHandle
    from geoflow.session import Session

_SHOWN = 5


class TaskNotFound(GeoflowError, LookupError):
    """No task, or more than one, goes by this id or beginning of an id."""


class TaskHandle:
    """One task of a job. What it shows is read anew each time, of its last attempt."""

    def __init__(self, job: JobHandle, key: int, task_id: str, task_type: str, stage: int, index: int) -> None:
        self.job = job
        self.id = task_id
        self.task_type = task_type
        self.stage = stage
        self.index = index
        self._key = key

    def _row(self) -> LastAttempt:
        with self.job._session.store.reading() as connection:
            return last_attempt(connection, self._key)

    @property
    def status(self) -> TaskStatus:
        return TaskStatus(self._row().status)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the handler is given: a dict of one's own."""
        found: dict[str, Any] = from_json(self._row().parameters)
        return found

    @property
    def result(self) -> dict[str, Any] | None:
        """All that the handler returned; None where it has not succeeded."""
        found: dict[str, Any] | None = from_json(self._row().result or "null")
        return found

    @property
    def error(self) -> str | None:
        """The type and the message of the error that the last attempt ended with."""
        row = self._row()
        return None if row.error is None else f"{row.error_type}: {row.error}"

    @property
    def output(self) -> str | None:
        """What the last attempt printed."""
        return self._row().output

    def attempts(self) -> pd.DataFrame:
        """One row for each execution of this task, those before a rerun included; see `JobHandle.attempts`."""
        found = self.job.attempts()
        return found[found["task_id"] == self.id].reset_index(drop=True)

    def __repr__(self) -> str:
        row, secrets = self._row(), self.job._session.settings.secrets
        error = f", {row.error_type}: {mask_text(row.error, secrets)}" if row.error else ""
        return shorten(f"<{self}, {self.task_type}: {row.status}{error}>", 200)

    def __str__(self) -> str:
        return shorten(f"task {self.id} of job {self.job.id[:8]}", 120)

    # Running it here

    @property
    def handler(self) -> Handler:
        """The function that is registered for it in this session; ``DefinitionError`` when there is none."""
        job_type = self.job._session._registered_as(self.job._row())
        found = job_type.handlers.get(self.task_type)
        if found is None:
            raise DefinitionError(
                f"The job type {job_type.name!r} that is registered now has no handler for {self.task_type!r}, which "
                f"{self} needs. It has {', '.join(sorted(job_type.handlers))}."
            )
        return found

    def context(self) -> TaskContext:
        """The second argument of a handler that takes one, as it was at the last attempt."""
        job_type = self.job.job_type
        logger = logger_of(f"geoflow.task.{self.task_type}")
        attempt = max(self._row().attempts, 1)
        return TaskContext(self.job.id, job_type, self.stage, self.id, self.index, self.task_type, attempt, logger)

    def run(self) -> Any:
        """Call the handler with the task's parameters, in this process: what it returns. What it raises is not caught.

        No timeout holds here, and what ends a process ends this one.
        """
        __tracebackhide__ = True  # IPython shows the user's frames, not this one
        handler = self.handler
        arguments = (self.parameters, self.context()) if accepts_context(handler) else (self.parameters,)
        return handler(*arguments)

    def debug(self) -> Any:
        """`run` it, and say what became of it: what the handler returned, or None when it raised.

        Where it raises, the debugger opens in the last frame of the user's own code: IPython's in a notebook, else pdb.
        Where nobody can type, the traceback is printed.
        """
        row = self._row()
        if row.error_type == "WorkerDied" and hasattr(_shell(), "kernel"):
            raise GeoflowError(
                f"The last attempt of {self} ended its process: {row.error}. Here it would end this kernel, with all "
                f"that is in it. To try it all the same: job.task({self.id!r}).run()."
            )
        handler = self.handler
        _say(f"Calling {getattr(handler, '__name__', self.task_type)} for {self}.", self)
        try:
            returned = self.run()
        except (Exception, SystemExit) as exc:
            debugger, frames = _debugger(), _users(exc.__traceback__)
            if debugger is None:
                _say("".join(traceback.format_exception(type(exc), exc.with_traceback(frames), frames)).rstrip(), self)
            else:
                _say(f"It raised {type(exc).__name__}: {exc}\n(q leaves the debugger)", self)
                post_mortem(frames, debugger)
            return None
        _say(verdict(returned, self.task_type), self)
        return returned

    def to_pytest(
        self,
        path: str | os.PathLike[str],
        *,
        expect: Literal["success", "failure"] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a test for pytest that calls the handler with the task's parameters, to *path*, which is returned.

        The test of a failed task expects it to succeed: it fails until the handler is mended. The test of a completed
        one expects the same result again. *expect* says otherwise: ``"success"`` of any result, or the ``"failure"``
        that it had. What looks secret is not written: the test takes it from an environment variable that it names.

        Raises ``DefinitionError`` for a handler that is in no file, as one of a notebook, ``ParameterError`` where
        there is nothing to expect, and ``FileExistsError`` without *overwrite*.
        """
        # By name: what tests job types stands above what runs them.
        regression: Any = importlib.import_module("geoflow.testing.regression")
        written: Path = regression.write(self, path, expect, overwrite)
        return written


def _say(text: str, task: TaskHandle) -> None:
    print(safe(text, task.job._session.settings.secrets), flush=True)


def verdict(returned: Any, task_type: str) -> str:
    """What the engine makes of a handler's return value, in words."""
    try:
        _, failure = outcome(returned, task_type)
    except (ContractViolationError, UnstorableValue) as exc:
        return f"It did not raise, but what it returned fails the task: {exc}"
    if failure is not None:
        again = "would be retried" if failure.retryable else "would not be retried"
        return f"It did not raise; it returned a failure, which {again}: {failure.error}"
    return "It did not raise."


# Finding a task


def find(session: Session, name: str | None = None) -> TaskHandle:
    """The task called *name*: an id, or its beginning, in the latest job, or ``JOB/TASK``. None: its first failed one.

    Raises ``TaskNotFound`` that lists those it may be, or ``JobNotFound``.
    """
    job_id, slash, task_id = (name or "").partition("/")
    if slash and re.fullmatch("[0-9a-f]+", job_id) and session.store.find(job_id):
        return task_of(session.job(job_id), task_id or None)
    latest = session.store.latest()
    if latest is None:
        raise JobNotFound(f"There are no jobs in {session.settings.store}.")
    return task_of(session.job(latest.job_id), name)


def task_of(job: JobHandle, task_id: str | None = None) -> TaskHandle:
    """The task of *job* whose id is, or begins with, *task_id*; without one, the first that failed."""
    if not isinstance(task_id, str | None):
        raise ParameterError(
            f"A task is known by its id or the beginning of it, a text: {shorten(repr(task_id), 60)} is "
            f"{type(task_id).__name__}. job.tasks() lists the ids."
        )
    failed = _tasks(job, status="failed")
    name = f"job {job.id[:8]} ({job.job_type})"
    if task_id is None:
        if failed:
            return failed[0]
        raise TaskNotFound(f"No task of {name} failed. Name one: {_names(_tasks(job))}.")
    found = _tasks(job, task_id=task_id) or _tasks(job, begins=task_id)
    if len(found) == 1:
        return found[0]
    if found:
        raise TaskNotFound(f"Several tasks of {name} have ids that begin with {task_id!r}: {_names(found)}.")
    others = f"Those that failed are {_names(failed)}." if failed else f"It has {_names(_tasks(job))}."
    raise TaskNotFound(f"No task of {name} has an id that begins with {task_id!r}. {others} For another job: JOB/TASK.")


def _tasks(job: JobHandle, **which: Any) -> list[TaskHandle]:
    with job._session.store.reading() as connection:
        return [TaskHandle(job, *place) for place in places(connection, job._row().job_key, _SHOWN + 1, **which)]


def _names(found: Sequence[TaskHandle]) -> str:
    names = ", ".join(shorten(task.id, 60) for task in found[:_SHOWN])
    return f"{names or 'no tasks yet'}{' and more' if len(found) > _SHOWN else ''}"


# The debugger


def post_mortem(frames: TracebackType | None, debugger: type[pdb.Pdb]) -> None:
    """Open *debugger* in the last of *frames* that is the user's own, below which libraries may have more."""
    at_users_frame = type("AtUsersFrame", (_AtUsersFrame, debugger), {})()
    at_users_frame.reset()
    at_users_frame.interaction(None, frames)


class _AtUsersFrame(pdb.Pdb):
    def get_stack(self, f: Any, t: TracebackType | None) -> tuple[list[Any], int]:
        stack, last = super().get_stack(f, t)
        paths = [frame.f_code.co_filename for frame, _ in stack]
        own = [place for place, path in enumerate(paths) if not is_ours(path) and LIBRARY.search(path) is None]
        return stack, own[-1] if own else last


def _users(found: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not the engine's own on; all of it, where there is none."""
    frames = found
    while frames is not None and is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames or found


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _debugger() -> type[pdb.Pdb] | None:
    """What someone can type to here; None where nobody can, as when a program runs the notebook."""
    shell = _shell()
    can_type = False
    if hasattr(shell, "kernel"):
        can_type = shell.kernel._allow_stdin
    else:
        with contextlib.suppress(AttributeError, ValueError):  # a standard input that is missing, or closed
            can_type = sys.stdin.isatty()
    if not can_type:
        return None
    return pdb.Pdb if shell is None else shell.debugger_cls
