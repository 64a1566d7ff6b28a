"""Chunks in any `concurrent.futures.Executor` that the user gives: threads, processes, Dask's on other machines.

Such a pool says little and ends nothing. Where a slot would be ended, the chunk is only given up here: what a worker
then still does goes on, and its late answer is dropped. Who is to blame for a lost worker only shows when nothing else
is out: until then all calls that it held are suspects, and from then on each of them goes by itself.
"""

from __future__ import annotations

import logging
import pickle
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from geoflow.core.chunking import CHUNK_SECONDS
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Category, Failure, Outcome
from geoflow.errors import ParameterError
from geoflow.executors.foreign_child import Order, here, run
from geoflow.executors.reports import from_answer
from geoflow.executors.worker import Answer
from geoflow.support.logs import logger_of
from geoflow.support.masking import DEFAULT_SECRETS

MAX_SLOTS = 1_000
# Dask's scheduler takes about 2 ms for each call, of all workers together.
DASK_CHUNK_SECONDS = 0.5
CHECK_SECONDS = 0.1
# What a pool's workers may take to start before they begin with the first chunks.
START_SECONDS = 5.0
# How long every worker may be held by calls that were given up, before the pool counts as lost.
STUCK_SECONDS = 60.0
logger = logger_of("geoflow.executors.futures")


class _Refused(Exception):
    """The pool takes no more work."""


@dataclass(slots=True)
class _Out:
    chunk: Chunk
    future: Future[Any]
    since: float | None = None  # when a worker should have been free for it

    @property
    def keys(self) -> Sequence[int]:
        return self.chunk.batch.keys


def slots_of(pool: Executor) -> int:
    """How many chunks *pool* runs at once, as far as it says; ``ParameterError`` when it does not."""
    client = _dask_client(pool)
    if client is None:
        known = getattr(pool, "_max_workers", None)
    else:
        known = sum(client.nthreads().values()) if _status(pool) == "running" else 0
    if isinstance(known, int) and known > 0:
        return min(known, MAX_SLOTS)
    what = "has no workers: wait until it has" if client is not None else "does not say how many workers it has"
    raise ParameterError(f"The {_name(pool)} given as executor= {what}, or give their number as workers=.")


class FuturesExecutor:
    """*slots* chunks at a time in *pool*, which stays its owner's: it is never shut down here."""

    def __init__(
        self,
        pool: Executor,
        slots: int | None = None,
        *,
        output_limit: int = 64_000,
        log_file: Path | None = None,
        log_level: str = "INFO",
        secrets: tuple[str, ...] = DEFAULT_SECRETS,
    ) -> None:
        self.slots = slots_of(pool) if slots is None else slots
        self.chunk_seconds = CHUNK_SECONDS if _dask_client(pool) is None else DASK_CHUNK_SECONDS
        self._pool = pool
        self._order = Order(
            uuid.uuid4().hex,
            here(),
            output_limit,
            None if log_file is None else str(log_file.absolute()),
            log_level,
            secrets,
        )
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._waiting: deque[Chunk] = deque()  # in the order in which they are to be sent
        self._out: dict[int, _Out] = {}  # in the order in which they were sent
        self._held: set[int] = set()  # given up, but a worker still has them
        self._stuck: float | None = None
        self._answers = 0
        self._pids: dict[int, int] = {}
        self._next_check = 0.0
        self._said: set[str] = set()

    def start(self, inbox: SimpleQueue[Any]) -> None:
        self._inbox = inbox

    def capacity(self, job_id: str, *, reserve: bool) -> int:
        if self._is_stuck():
            return 1  # which is refused, with the reason
        if self._waiting:
            return 0
        return max((self.slots - len(self._held)) * (1 + reserve) - len(self._out), 0)

    def submit(self, chunk: Chunk) -> None:
        self._waiting.append(chunk)
        self._send()

    def _send(self) -> None:
        """Send what waits, but nothing together with a suspect."""
        while self._waiting and not (
            self._out and (_suspect(self._waiting[0]) or any(_suspect(out.chunk) for out in self._out.values()))
        ):
            self._send_one(self._waiting.popleft())

    def _send_one(self, chunk: Chunk) -> None:
        number, inbox, future = chunk.number, self._inbox, Future[Any]()
        try:
            if self._is_stuck():
                raise _Refused("all its workers are held by calls past their timeout, which cannot be ended from here")
            order = self._order._replace(token=f"{self._order.token}-{number}")
            future = self._pool.submit(run, pickle.dumps(chunk._replace(surroundings=None)), order)
        except Exception as exc:  # each kind of pool has its own way of refusing
            future.set_exception(exc if isinstance(exc, _Refused) else _Refused(f"{type(exc).__name__}: {exc}"))
        self._out[number] = _Out(chunk, future)
        future.add_done_callback(lambda done: inbox.put((number, done)))

    def run_here(self) -> bool:
        return False

    def collect(self, message: tuple[int, Future[Any]]) -> list[Report]:
        number, future = message
        self._held.discard(number)
        out = self._out.get(number)
        if out is None:
            if not future.cancelled() and future.exception() is None:
                self._say(logging.INFO, "an answer to a chunk that was given up came late, and was dropped")
            return []
        error = CancelledError() if future.cancelled() else future.exception()
        if isinstance(error, _Refused):
            return _last_broken(self._lose_all(), self._broken(error))
        if isinstance(error, BrokenExecutor):
            return _last_broken(self._lose_all(broken=True), self._broken(error))
        del self._out[number]
        self._answers += 1
        if error is None:
            return [self._answered(out)]
        # By the pool's owner, or with the cluster: nobody's fault, but not to go on for ever.
        if isinstance(error, CancelledError) or _status(self._pool) != "running":
            return [Report(out.chunk, lost=out.keys, suspects=True)]
        # Dask counts a death against all that the worker held.
        if self._out and out.chunk.kind == "tasks" and not _suspect(out.chunk):
            return [Report(out.chunk, lost=out.keys, suspects=True)]
        what = f"the pool lost it: {type(error).__name__}: {error}"
        return [self._blamed(out, Failure(what, "WorkerDied", Category.LOST, True))]

    def check(self) -> list[Report]:
        self._send()
        now = time.monotonic()
        if now < self._next_check:
            return []
        self._next_check = now + CHECK_SECONDS
        if self._out and _status(self._pool) in ("closed", "closing"):
            return _last_broken(self._lose_all(), self._broken("its client was closed"))
        late = []
        for out in list(self._out.values())[: max(self.slots - len(self._held), 0)]:
            if out.since is None:
                # The first ones may have to wait for their worker to start.
                out.since = now if self._answers >= self.slots else now + START_SECONDS
            # A worker answers after its patience with what it has; more than that is one call's doing.
            shared = out.chunk.patience if len(out.keys) > 1 else 0.0
            if out.chunk.timeout is not None and now - out.since > out.chunk.timeout + shared:
                late.append(out)
        return [self._timed_out(out) for out in late]

    def _timed_out(self, out: _Out) -> Report:
        self._give_up(out)
        self._say(
            logging.WARNING, "a call ran past its timeout: it cannot be ended, and holds its worker until it ends"
        )
        what = f"timed out: no answer within {out.chunk.timeout:g} s; its worker cannot be ended and may still run it"
        return self._blamed(out, Failure(what, "TaskTimeout", Category.TIMEOUT, True))

    def _give_up(self, out: _Out) -> None:
        del self._out[out.chunk.number]
        if not out.future.done():
            self._held.add(out.chunk.number)
        self._stuck = time.monotonic() if len(self._held) >= self.slots else None

    def _is_stuck(self) -> bool:
        held = len(self._held) >= self.slots and self._stuck is not None
        return held and time.monotonic() - (self._stuck or 0.0) > STUCK_SECONDS

    def written(self) -> None:
        pass

    def stop(self, job_id: str) -> list[Report]:
        """Give up the job's chunks. Those that no worker has begun are cancelled; the others run to their end."""
        return self._stop(lambda chunk: chunk.job_id == job_id)

    def _stop(self, wanted: Callable[[Chunk], bool]) -> list[Report]:
        reports = []
        for out in [out for out in self._out.values() if wanted(out.chunk)]:
            report = self._let_go(out)
            if report.lost:
                self._say(logging.WARNING, "what already runs in a pool cannot be stopped: its late answer is dropped")
            reports.append(report)
        return [*reports, *self._unsent(wanted)]

    def _let_go(self, out: _Out) -> Report:
        """Give *out* up: what is known of it, which may be its answer."""
        # Dask says yes to any cancel, also of what runs.
        cancelled = not out.future.done() and out.future.cancel() and _dask_client(self._pool) is None
        self._give_up(out)
        if cancelled:
            return Report(out.chunk, unstarted=out.keys)
        if out.future.done() and not out.future.cancelled() and out.future.exception() is None:
            return self._answered(out)
        return Report(out.chunk, lost=out.keys)

    def _answered(self, out: _Out) -> Report:
        answer = Answer(*out.future.result())
        return from_answer(out.chunk, answer, self._pids.setdefault(answer.pid, len(self._pids)))

    def _unsent(self, wanted: Callable[[Chunk], bool]) -> list[Report]:
        """Reports on what waits and is *wanted*; it is then not sent any more."""
        dropped = [chunk for chunk in self._waiting if wanted(chunk)]
        self._waiting = deque(chunk for chunk in self._waiting if not wanted(chunk))
        return [Report(chunk, unstarted=chunk.batch.keys) for chunk in dropped]

    def busy(self) -> bool:
        return bool(self._out or self._waiting)

    def looks(self) -> None:
        return None

    def where(self) -> str | None:
        return None

    def close(self) -> None:
        self._stop(lambda chunk: True)

    # What became of them

    def _blamed(self, out: _Out, failure: Failure) -> Report:
        """A call that travelled alone is to blame; of several, each may be."""
        self._out.pop(out.chunk.number, None)
        if len(out.keys) > 1:
            return Report(out.chunk, lost=out.keys, suspects=True)
        ((key,), number) = out.keys, out.chunk.batch.attempt
        version, ended = out.chunk.code.fingerprint, time.time()
        blamed = Attempt(key, number, Outcome.FAILED, None, ended, failure=failure, code=version)
        return Report(out.chunk, (blamed,))

    def _lose_all(self, *, broken: bool = False) -> list[Report]:
        """Reports on all that is out. A *broken* pool has told all that had ended, and runs nothing any more."""
        reports = []
        for position, out in enumerate(list(self._out.values())):
            refused = out.future.done() and not out.future.cancelled() and type(out.future.exception()) is _Refused
            if refused or (broken and position >= self.slots):  # the first ones in line may have run
                del self._out[out.chunk.number]
                reports.append(Report(out.chunk, unstarted=out.keys))
            elif broken:
                del self._out[out.chunk.number]
                reports.append(Report(out.chunk, lost=out.keys, suspects=True))
            else:
                reports.append(self._let_go(out))
        return [*reports, *self._unsent(lambda chunk: True)]

    def _broken(self, why: object) -> str:
        return (
            f"The {_name(self._pool)} given as executor= takes no more work ({why}). "
            "Open a session with a new one, and resume the job."
        )

    def _say(self, level: int, what: str) -> None:
        """Tell it, once."""
        if what not in self._said:
            self._said.add(what)
            logger.log(level, "%s: %s", _name(self._pool), what)


def _suspect(chunk: Chunk) -> bool:
    return chunk.batch.losses > 0


def _last_broken(reports: list[Report], text: str) -> list[Report]:
    """Each job's last report says that there is no pool any more, once all of its chunks are accounted for."""
    last = {report.chunk.job_id: report.chunk.number for report in reports}
    numbers = set(last.values())
    return [report._replace(broken=text) if report.chunk.number in numbers else report for report in reports]


def _name(pool: Executor) -> str:
    return "Dask executor" if _dask_client(pool) is not None else type(pool).__name__


def _dask_client(pool: Executor) -> Any:
    """The client behind Dask's executor, or None: what it says of its workers and of itself is nowhere else."""
    return getattr(pool, "_client", None) if type(pool).__module__.startswith("distributed.") else None


def _status(pool: Executor) -> str:
    return str(getattr(_dask_client(pool), "status", "running"))
