"""What a session works with: its store, its executor and its machine, opened when needed, closed together.

They are this process's. In a fork of it the session has none, and opens its own when it is used there: a connection or
a worker that two processes hold would be broken by the first one that lets it go.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from geoflow.core.models import RunningCall, Stage
from geoflow.core.retry import RetryPolicy
from geoflow.core.rows import JobRow
from geoflow.engine.active_job import ActiveJob
from geoflow.engine.machine import CoreMachine
from geoflow.engine.spans import told_too
from geoflow.executors.base import Executor
from geoflow.executors.leftovers import clear_left, ran_at_death, returned_at_death, seal, with_earlier
from geoflow.executors.running import running_calls
from geoflow.jobtypes.registry import Registry
from geoflow.stores.files import file_at
from geoflow.stores.opening import store_at
from geoflow.stores.store import Store
from geoflow.support import logs
from geoflow.support.clock import Clock
from geoflow.support.environment import environment
from geoflow.support.identity import label
from geoflow.support.logfile import LogFile
from geoflow.support.logs import JsonLines
from geoflow.support.memory import budget
from geoflow.support.processors import usable
from geoflow.support.settings import Settings
from geoflow.support.text import human_bytes

if TYPE_CHECKING:
    import concurrent.futures

SHOWN_BYTES = 4_000  # of what a running task has printed, in a drawing
_PARTS = ("machine", "executor", "store")
logger = logs.logger_of("geoflow.session")
_Part = TypeVar("_Part")


class _OpenedOnce(Generic[_Part]):
    """A part that the first thread to ask for it opens, while others wait (S42).

    `functools.cached_property` lets two threads open two: it has had no lock since Python 3.12.
    """

    def __init__(self, opening: Callable[[Any], _Part]) -> None:
        self._opening = opening
        self._name = opening.__name__

    def __get__(self, parts: Parts, owner: type) -> _Part:  # not called once it is there
        with parts.opening:
            if self._name not in vars(parts):
                vars(parts)[self._name] = self._opening(parts)
            part: _Part = vars(parts)[self._name]
            return part


class Parts:
    """The parts behind one session. They are opened one by one, and may be opened again after `close`."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        retry: RetryPolicy | None = None,
        pool: concurrent.futures.Executor | None = None,
        on_job_complete: Callable[..., object] | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.retry = retry
        self.pool = pool
        self.registry = Registry()
        self._on_job_complete = on_job_complete
        # Those that are driven, and the last that did not get to their end.
        self.active: dict[str, ActiveJob] = {}
        self._stopped: deque[ActiveJob] = deque()  # these last, the oldest first
        self.claimed: list[ActiveJob] | None = None  # all of them, for as long as `geoflow.testing` wants to know
        self.opening = threading.RLock()
        self._token = secrets.token_hex(8)
        self.log: LogFile[JsonLines] | None = None  # while the store is open
        _all_parts.add(self)

    @_OpenedOnce
    def store(self) -> Store:
        settings = self.settings
        store = store_at(settings.store, synchronous=settings.synchronous)
        store.session, store.now = self._token[:8], self.clock.now
        store.open()
        with contextlib.suppress(OSError):  # there may be no temporary folder
            clear_left(Path(tempfile.gettempdir()))
        self.log = logs.configure(self.log_path, settings.log_level, secrets=settings.secrets)
        logger.debug("store opened: %s", settings.store)
        return store

    @_OpenedOnce
    def executor(self) -> Executor:
        settings = self.settings
        workers = usable() if settings.workers is None else settings.workers
        output_limit = settings.output_limit
        logged: dict[str, Any] = {
            "log_file": self.log_path,
            "log_level": settings.log_level,
            "secrets": settings.secrets,
        }
        executor: Executor
        if self.pool is not None:
            from geoflow.executors.futures import FuturesExecutor

            executor = FuturesExecutor(self.pool, workers, output_limit=output_limit, **logged)
        elif workers == 0:
            from geoflow.executors.inline import InlineExecutor

            executor = InlineExecutor(output_limit=output_limit)
        else:
            from geoflow.executors.processes import ProcessExecutor
            from geoflow.executors.slots import WorkerLimits

            megabytes = settings.worker_max_memory
            limits = WorkerLimits(settings.worker_max_tasks, None if megabytes is None else megabytes * 1e6)
            executor = ProcessExecutor(
                workers,
                preload=settings.preload,
                start_timeout=settings.start_timeout,
                output_limit=output_limit,
                limits=limits,
                **logged,
            )
        logger.debug("executor opened: %d slots", executor.slots)
        _close_all_at_exit()
        weakref.finalize(self, _close_here, os.getpid(), executor)
        return executor

    @_OpenedOnce
    def machine(self) -> CoreMachine:
        return CoreMachine(
            self.store,
            self.executor,
            self.clock,
            on_job_complete=told_too(self.store, self.settings.secrets, self._on_job_complete),
            ran_at_death=lambda owner, job_id: ran_at_death(
                owner, self._which_store(), job_id, self.settings.output_limit
            ),
            returned_at_death=lambda owner, job_id: returned_at_death(owner, self._which_store(), job_id),
            logged=partial(logs.into, self.log),
            budget=self.budget,
        )

    @cached_property
    def budget(self) -> int | None:
        """How many bytes of memory its tasks may need together, as far as they say it; None is any number."""
        said = self.settings.memory
        if said != "auto":
            return said
        return None if self.pool is not None else budget()  # which may have its processes anywhere

    @_OpenedOnce
    def limits_folder(self) -> str:
        """Where limits are kept: beside the store, by its real path, or in a folder of its own."""
        if self.settings.store == ":memory:":
            own = tempfile.TemporaryDirectory(prefix="geoflow-limits-")
            weakref.finalize(self, own.cleanup)
            return own.name
        folder, name = os.path.split(os.path.realpath(self.settings.store))
        return os.path.join(folder, f".{name}.limits")

    @_OpenedOnce
    def log_path(self) -> Path:
        """Where the log goes: beside the store; of one in memory, in a folder of its own, which goes with the session.

        A fork of the process that made that folder leaves it there.
        """
        if (path := self.settings.log_path) is not None:
            return path
        folder = Path(tempfile.gettempdir(), f"{label()}log-{self._token}")
        weakref.finalize(self, _remove_here, os.getpid(), folder)
        return folder / "geoflow.log"

    # What is open: to ask for a part would open it

    @property
    def open_store(self) -> Store | None:
        """The store, if it is open."""
        store: Store | None = vars(self).get("store")
        return store

    @property
    def has_store(self) -> bool:
        """Whether there is a store yet, open or as a file."""
        return "store" in vars(self) or os.path.exists(self.settings.store)

    @property
    def is_inline(self) -> bool:
        """Whether tasks run in this process, for there are no workers."""
        return self.settings.workers == 0

    def close(self) -> None:
        """Interrupt what runs, so that it can be resumed, end the workers and close the store."""
        running = [job for job in list(self.active.values()) if not job.done.is_set()]
        # All are asked before one is waited for: no process is begun for a job that is the next to be interrupted.
        for job in [job for job in running if not self.machine.ask("interrupt", job)]:
            self.machine.drive(job.done.is_set)
        for job in running:
            job.done.wait(5.0)
        if "machine" in vars(self):
            self.machine.dismiss()
        with self.opening:
            machine, executor, store = (vars(self).pop(part, None) for part in _PARTS)
        del machine
        if executor is not None:
            executor.close()
        if store is not None:
            store.close()
            if self.settings.store == ":memory:":
                shutil.rmtree(self.saved_files, ignore_errors=True)
        logs.flush()
        if self.log is not None:
            self.log.close()
        if store is not None and self.settings.log_path is None:
            shutil.rmtree(self.log_path.parent, ignore_errors=True)

    # Where jobs have what they save

    @property
    def saved_files(self) -> Path:
        """Beside the store; of one in memory, in the temporary folder, with a name that says whose it is."""
        if self.settings.store == ":memory:":
            return Path(tempfile.gettempdir(), f"{label()}files-{self._token}")
        return Path(f"{self.settings.store}.files")

    def files_of(self, job_id: str) -> str:
        """The folder of the job's for what `gf.save` is given; whoever saves makes it."""
        return str(self.saved_files / job_id)

    # Who drives a job from here

    def _which_store(self) -> str:
        """Its file, whatever its name: what another store says of a session's folder does not count."""
        return str(file_at(self.settings.store))

    def calls_of(self, job: JobRow, limit: int = SHOWN_BYTES) -> list[RunningCall]:
        """What the workers are at of the session that drives the *job*, here or in another process of the user's."""
        return running_calls(job.owner or "{}", self._which_store(), job.job_id, limit)

    def _kept_to(self, stage: Stage) -> str:
        """What keeps tasks of the *stage* waiting though there may be workers, in words."""
        said = [f"{stage.limit.name} ({stage.limit})"] if stage.limit else []
        if self.budget is not None and (stage.memory or stage.memory_differs):
            each = f"{human_bytes(stage.memory)} each, " if stage.memory else ""
            said.append(f"memory ({each}{human_bytes(self.budget)} for all)")
        return " and ".join(said)

    def owner(self, job_id: str, stages: Iterable[Stage], before: str | None) -> str:
        """Who drives the job from here, as JSON text for `Store.claim`; *before* is that of now.

        It says under which limits of its *stages*, too, since whoever looks at the job may not have its code.
        """
        folder = self.executor.where()
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "folder": folder,
            "ran_with": environment(),
            "seal": seal(folder, self._which_store(), job_id),
        }
        limits = {str(stage.number): said for stage in stages if (said := self._kept_to(stage))}
        return json.dumps(with_earlier(owner | ({"limits": limits} if limits else {}), before))


_all_parts: weakref.WeakSet[Parts] = weakref.WeakSet()
# What a fork was born with. It is kept there: to close it, or to let it be collected, would be to touch it.
_of_the_parent: list[Any] = []


def _close_all() -> None:
    for parts in list(_all_parts):
        parts.close()


@cache
def _close_all_at_exit() -> None:
    """Have the parts of all sessions closed when the interpreter ends, before the pools are waited for.

    `atexit` is too late for that: by then the interpreter has waited for all that runs in a pool, which may be for
    ever. concurrent.futures itself uses this hook, which has been in every Python since 3.9; it is called last in,
    first out, so this comes after the import of any pool.
    """
    threading._register_atexit(_close_all)  # type: ignore[attr-defined]


def _close_here(pid: int, executor: Executor) -> None:
    if pid == os.getpid():
        executor.close()


def _remove_here(pid: int, folder: Path) -> None:
    if pid == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)


def _forget_the_parents() -> None:
    for parts in list(_all_parts):
        _of_the_parent.append([vars(parts).pop(part, None) for part in _PARTS])
        parts.opening = threading.RLock()  # the old one may be held by a thread that the fork does not have
        parts.active = {}
        parts._token = secrets.token_hex(8)
        vars(parts).pop("log_path", None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parents)
