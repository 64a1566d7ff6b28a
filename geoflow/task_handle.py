"""One task again, here: find it, call its handler with its stored parameters, and stop where that raises.

What runs is the function that is registered in this session now. Nothing of it is written to the store.
"""

from __future__ import annotations

import contextlib
import os
import pdb
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from geoflow.core.models import TaskContext, TaskStatus
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import Runtime
from geoflow.engine.tasks import TaskRow, output_of, task_row
from geoflow.errors import ContractViolationError, GeoflowError, UnstorableValue
from geoflow.jobtypes.answers import attempted, outcome
from geoflow.jobtypes.contract import Handler, accepts_context
from geoflow.stores.questions import TaskPlace
from geoflow.support.masking import mask_text, safe
from geoflow.support.text import shorten
from geoflow.usercode.origin import is_ours
from geoflow.views.lines import Wanted
from geoflow.views.tracebacks import LIBRARY

if TYPE_CHECKING:
    import pandas as pd

    from geoflow.tools.bundle.opened import Bundle

_Job = TypeVar("_Job")


class TaskHandle(Generic[_Job]):
    """One task of a job. What it shows is read anew each time, of its last attempt; ``job`` is whose it is."""

    def __init__(self, runtime: Runtime, row: JobRow, place: TaskPlace, job: _Job) -> None:
        self.runtime = runtime
        self.job = job
        self.job_id = row.job_id
        self.id = place.task_id
        self.task_type = place.task_type
        self.stage = place.stage
        self.index = place.task_index
        self._place = row, place

    def _row(self) -> TaskRow:
        return task_row(self.runtime.store, *self._place)

    @property
    def status(self) -> TaskStatus:
        return TaskStatus(self._row().status)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the handler is given: a dict of one's own."""
        return self._row().arguments

    @property
    def result(self) -> dict[str, Any] | None:
        """All that the handler returned; None where it has not succeeded."""
        return self._row().returned

    @property
    def error(self) -> str | None:
        """The type and the message of the error that the last attempt ended with."""
        return self._row().failed_with

    @property
    def output(self) -> str | None:
        """What the last attempt printed; of one that runs, what it has printed so far, if a worker runs it."""
        return output_of(self.runtime, *self._place)

    def attempts(self) -> pd.DataFrame:
        """One row for each execution of this task, those before a rerun included; see `JobHandle.attempts`."""
        from geoflow.views import frames

        attempts = frames.attempts(self.runtime.store, self.job_id)
        return attempts[attempts["task_id"] == self.id].reset_index(drop=True)

    def logs(self) -> pd.DataFrame:
        """The log lines of its attempts; see `JobHandle.logs`."""
        from geoflow.views import frames

        return frames.logs(self.runtime.log_path, Wanted.of(self.job_id, task=self.id))

    def __repr__(self) -> str:
        row = self._row()
        error = f", {row.error_type}: {mask_text(row.error, self.runtime.settings.secrets)}" if row.error else ""
        return shorten(f"<{self}, {self.task_type}: {row.status}{error}>", 200)

    def __str__(self) -> str:
        return shorten(f"task {self.id} of job {self.job_id[:8]}", 120)

    # Running it here

    @property
    def handler(self) -> Handler:
        """The function that is registered for it in this session; ``DefinitionError`` when there is none."""
        return self._row().handler_in(self.runtime.registered_as(self._place[0]))

    def context(self) -> TaskContext:
        """The second argument of a handler that takes one, as it was at the last attempt."""
        return self._row().context()

    def run(self) -> Any:
        """Call the handler with the task's parameters, in this process: what it returns. What it raises is not caught.

        No timeout holds here, and what ends a process ends this one.
        """
        __tracebackhide__ = True  # IPython shows the user's frames, not this one
        handler = self.handler
        arguments = (self.parameters, self.context()) if accepts_context(handler) else (self.parameters,)
        return attempted(handler, *arguments)

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
        self._say(f"Calling {getattr(handler, '__name__', self.task_type)} for {self}.")
        try:
            returned = self.run()
        except (Exception, SystemExit) as exc:
            debugger, frames = _debugger(), _users(exc.__traceback__)
            if debugger is None:
                self._say("".join(traceback.format_exception(type(exc), exc.with_traceback(frames), frames)).rstrip())
            else:
                self._say(f"It raised {type(exc).__name__}: {exc}\n(q leaves the debugger)")
                post_mortem(frames, debugger)
            return None
        self._say(verdict(returned, self.task_type))
        return returned

    def _say(self, text: str) -> None:
        print(safe(text, self.runtime.settings.secrets), flush=True)

    def to_pytest(
        self,
        path: str | os.PathLike[str],
        *,
        expect: Literal["success", "failure"] | None = None,
        inputs: str | Sequence[str] = (),
        limit: float = 10,
        overwrite: bool = False,
    ) -> Path:
        """Write a test for pytest that calls the handler with the task's parameters, to *path*, which is returned.

        The test of a failed task expects it to succeed: it fails until the handler is mended. The test of a completed
        one expects the same result again. *expect* says otherwise: ``"success"`` of any result, or the ``"failure"``
        that it had. What looks secret is not written: the test takes it from an environment variable that it names.

        *inputs* chooses the files that go along, as in `bundle`, of at most *limit* megabytes: they are copied to the
        folder ``<test>_inputs`` beside the test, which names them there. Other files in the folder of the handler's
        module, and those with relative paths, are named as seen from the test.

        Raises ``DefinitionError`` for a handler that is in no file, as one of a notebook, ``ParameterError`` where
        there is nothing to expect, and ``FileExistsError`` without *overwrite*.
        """
        from geoflow.tools import regression

        settings, job_type = self.runtime.settings, self.runtime.registered_as(self._place[0])
        return regression.write(self._row(), job_type, settings.secrets, path, expect, overwrite, inputs, limit)

    def bundle(
        self,
        path: str | os.PathLike[str],
        *,
        inputs: str | Sequence[str] = (),
        limit: float = 100,
        overwrite: bool = False,
    ) -> Bundle:
        """Write the task to the new file *path*, a zip that can be sent, and give what is read of it.

        It has what the task was given and gave, its attempts with errors, stacks and prints, its log lines, its code as
        text, and the versions that it ran with; a page in it shows all that where there is no geoflow. `unbundle` opens
        it. What looks secret is not in it.

        *inputs* chooses the files that go along: a parameter's name, or a pattern of names or paths; ``"*"`` is all
        files that parameters name, but no folders. What belongs to a file, as a shapefile's table does, goes with it.
        More than *limit* megabytes are refused with ``ParameterError``, and so is a pattern that nothing fits. Raises
        ``FileExistsError`` without *overwrite*.
        """
        from geoflow.tools.bundle import write
        from geoflow.tools.bundle.opened import read

        how: dict[str, Any] = {"inputs": inputs, "limit": limit, "overwrite": overwrite}
        return read(write(self.runtime, self._place[0], self._row(), path, **how))


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
