"""What a session works with: its store, its executor and its machine, opened when needed, driven and closed.

They are this process's. In a fork of it the session has none, and opens its own when it is used there: a connection or
a worker that two processes hold would be broken by the first one that lets it go.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from geoflow.core.retry import RetryPolicy
from geoflow.core.rows import Again, JobRow
from geoflow.engine.active_job import CLASS, Intent, JobRun, Options
from geoflow.engine.machine import CoreMachine
from geoflow.engine.submission import stored_type
from geoflow.engine.turns import Verb
from geoflow.executors.base import Executor
from geoflow.executors.leftovers import ran_at_death, seal
from geoflow.jobtypes.contract import Registered
from geoflow.stores.base import Store
from geoflow.stores.files import file_at
from geoflow.stores.opening import store_at
from geoflow.support import logs
from geoflow.support.clock import Clock
from geoflow.support.config import Settings
from geoflow.support.nesting import refuse_inside
from geoflow.support.processors import usable
from geoflow.support.surroundings import Surroundings
from geoflow.usercode.packing import Code, pack

if TYPE_CHECKING:
    import concurrent.futures

# How long the driving thread outlives the last job: starting one takes longer than a small job.
LINGER_SECONDS = 1.0
# How many runs are remembered that were interrupted, or that an error stopped.
REMEMBERED = 32
_PARTS = ("machine", "executor", "store")
logger = logs.logger_of("geoflow.session")
_Part = TypeVar("_Part")


class _OpenedOnce(Generic[_Part]):
    """A part of an engine that the first thread to ask for it opens, while others wait (S42).

    `functools.cached_property` lets two threads open two: it has had no lock since Python 3.12.
    """

    def __init__(self, opening: Callable[[Any], _Part]) -> None:
        self._opening = opening
        self._name = opening.__name__

    def __get__(self, runtime: Runtime, owner: type) -> _Part:  # not called once the engine has it
        with runtime.opening:
            if self._name not in vars(runtime):
                vars(runtime)[self._name] = self._opening(runtime)
            part: _Part = vars(runtime)[self._name]
            return part


class Runtime:
    """The parts behind one session. They are opened one by one, and may be opened again after `close`."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        retry: RetryPolicy | None,
        pool: concurrent.futures.Executor | None,
        on_job_complete: Callable[..., object] | None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.retry = retry
        self.pool = pool
        self._on_job_complete = on_job_complete
        # Those that are driven, and the last that did not get to their end. The others are let go of with their
        # parameters and their code: a session may run for weeks.
        self.runs: dict[str, JobRun] = {}
        self._stopped: deque[JobRun] = deque()  # these last, the oldest first
        self.claimed: list[JobRun] | None = None  # all of them, for as long as `geoflow.testing` wants to know
        self.opening = threading.RLock()
        _runtimes.add(self)

    @_OpenedOnce
    def store(self) -> Store:
        settings = self.settings
        store = store_at(settings.store, synchronous=settings.synchronous)
        store.open()
        logs.configure(settings.log_path, settings.log_level, secrets=settings.secrets)
        logger.debug("store opened: %s", settings.store)
        return store

    @_OpenedOnce
    def executor(self) -> Executor:
        settings = self.settings
        workers = usable() if settings.workers is None else settings.workers
        output_limit = settings.output_limit
        logged: dict[str, Any] = {
            "log_file": settings.log_path,
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
            from geoflow.executors.slots import Most

            megabytes = settings.worker_max_memory
            most = Most(settings.worker_max_tasks, None if megabytes is None else megabytes * 1e6)
            executor = ProcessExecutor(
                workers,
                preload=settings.preload,
                start_timeout=settings.start_timeout,
                output_limit=output_limit,
                most=most,
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
            on_job_complete=self._on_job_complete,
            ran_at_death=lambda owner, job_id: ran_at_death(owner, self._which_store(), job_id),
        )

    def close(self) -> None:
        """Interrupt what runs, so that it can be resumed, end the workers and close the store."""
        running = [run for run in list(self.runs.values()) if not run.done.is_set()]
        # All are asked before one is waited for: no process is begun for a job that is the next to be interrupted.
        for run in [run for run in running if not self.machine.ask("interrupt", run)]:
            self.machine.drive(run.done.is_set)
        for run in running:
            run.done.wait(5.0)
        if "machine" in self.__dict__:
            self.machine.dismiss()
        with self.opening:
            machine, executor, store = (self.__dict__.pop(part, None) for part in _PARTS)
        del machine
        if executor is not None:
            executor.close()
        if store is not None:
            store.close()
        logs.flush()

    def _which_store(self) -> str:
        """Its file, whatever its name: what another store says of a session's folder does not count."""
        return str(file_at(self.settings.store))

    def owner(self, job_id: str) -> str:
        """Who drives the job from here, as JSON text for `Store.claim`."""
        folder = self.executor.where()
        return json.dumps(
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "folder": folder,
                "seal": seal(folder, self._which_store(), job_id),
            }
        )

    def whose(self) -> str | None:
        """Whose session it is, when it is not for a task that runs in this process to wait in."""
        is_driving = any(not run.done.is_set() for run in self.runs.values())
        return "the session that runs it" if is_driving else None

    def check_can_drive(self) -> None:
        """Raise where no job can be driven from here, with what to do instead, before anything is stored."""
        refuse_inside(self.whose())
        if self.pool is None and not self._is_inline and "executor" not in self.__dict__:
            from geoflow.executors.spawning import check_can_start

            check_can_start()

    # Taking a job up, and putting it back

    @property
    def options(self) -> Options:
        """How jobs are run, where their stages do not say otherwise."""
        s = self.settings
        policy = self.retry or RetryPolicy(max_retries=s.max_retries, base_delay=s.base_delay, max_delay=s.max_delay)
        return Options(policy, s.on_failure, s.task_timeout, s.plan_timeout, s.finalize_timeout)

    def claim(
        self,
        row: JobRow,
        job_type: Registered,
        codes: Mapping[str, Code],
        intent: Intent = "go on",
        again: Again | None = None,
    ) -> JobRun:
        """Claim the job for this process; *codes* are by task type, that of the class by an empty name."""
        self.check_can_drive()
        here = Surroundings.now()
        lease = self.store.claim(row.job_key, self.owner(row.job_id))
        try:
            fresh = self.store.job(row.job_id)
            assert fresh is not None, "a claimed job is in the store"
            # The owner before this claim left marks that say what ran when it ended.
            claimed = fresh._replace(owner=row.owner)
            run = JobRun(claimed, lease, job_type, codes, self.options, intent=intent, again=again, surroundings=here)
        except BaseException:
            self.store.release(lease)
            raise
        run.on_done = self._let_go
        self.runs[row.job_id] = run
        if self.claimed is not None:
            self.claimed.append(run)
        return run

    def _let_go(self, run: JobRun) -> None:
        if run.interrupted or run.error:
            self._stopped.append(run)
            if len(self._stopped) <= REMEMBERED:
                return
            run = self._stopped.popleft()
        if self.runs.get(run.job_id) is run:
            self.runs.pop(run.job_id, None)

    def put_back(self, row: JobRow) -> None:
        """Have nobody drive the job, though its being taken up was interrupted, or failed."""
        run = self.runs.get(row.job_id)
        try:
            if run is not None and not run.done.is_set():
                self.ask("interrupt", run)
        finally:
            if run is None or not run.done.is_set():  # the machine never heard of it
                self.runs.pop(row.job_id, None)
                self.store.abandon(row.job_key)

    def cancel_here(self, row: JobRow) -> None:
        """Cancel a job that nobody drives; its code is not needed for that."""
        known = stored_type(row)
        run = self.claim(row, known, {CLASS: pack(known.job_class)})
        self.ask("cancel", run)

    # Driving: in a thread of its own, or, where there are no workers, in the one that waits

    @property
    def _is_inline(self) -> bool:
        return self.settings.workers == 0

    def start(self, run: JobRun, *, awaited: bool) -> None:
        """Have *run* driven. Where there are no workers, and it is *awaited*, that is up to `wait_for`."""
        driven = self.machine.ask("start", run)
        if not driven and not (awaited and self._is_inline):
            self._in_background()

    def _in_background(self) -> None:
        # Should two be started at once, the second waits for the first, and finds nothing left to drive.
        threading.Thread(target=self._drive, name="geoflow-machine").start()

    def _drive(self) -> None:
        # A method of the engine's, which keeps it: one that nobody else holds still drives its jobs, and is found when
        # the interpreter exits.
        with contextlib.suppress(BaseException):  # whoever waits for a job was told
            self.machine.drive(linger=0.0 if self._is_inline else LINGER_SECONDS)

    def wait_for(
        self, run: JobRun, deadline: Callable[[], bool] | None = None, refresh: Callable[[], None] | None = None
    ) -> bool:
        """Wait until the run is done, driving it from here where there are no workers; False past the deadline."""
        if self._is_inline:
            self.machine.drive(lambda: run.done.is_set() or bool(deadline and deadline()))
            if not self.machine.idle():
                self._in_background()  # what else was submitted meanwhile counts on being driven
        while not run.done.wait(0.05):  # short steps, so that an interrupt of the kernel lands
            if deadline is not None and deadline():
                return False
            if refresh is not None:
                refresh()
        return True

    def ask(self, verb: Verb, run: JobRun) -> None:
        """Have the loop cancel or interrupt the job, and see it done."""
        if self.machine.ask(verb, run):
            run.done.wait(5.0)
        else:
            self.machine.drive(run.done.is_set)


_runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()
# What a fork was born with. It is kept there: to close it, or to let it be collected, would be to touch it.
_of_the_parent: list[Any] = []


def _close_all() -> None:
    for runtime in list(_runtimes):
        runtime.close()


@cache
def _close_all_at_exit() -> None:
    """Have all engines closed when the interpreter ends, before the pools are waited for.

    `atexit` is too late for that: by then the interpreter has waited for all that runs in a pool, which may be for
    ever. concurrent.futures itself uses this hook, which has been in every Python since 3.9; it is called last in,
    first out, so this comes after the import of any pool.
    """
    threading._register_atexit(_close_all)  # type: ignore[attr-defined]


def _close_here(pid: int, executor: Executor) -> None:
    if pid == os.getpid():
        executor.close()


def _forget_the_parents() -> None:
    for runtime in list(_runtimes):
        _of_the_parent.append([runtime.__dict__.pop(part, None) for part in _PARTS])
        runtime.opening = threading.RLock()  # the old one may be held by a thread that the fork does not have
        runtime.runs = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parents)
