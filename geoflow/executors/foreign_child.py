"""Inside a worker of a pool that is not ours: perhaps one thread among several, in a process that others use too."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sys
import threading
import time
from typing import Any, NamedTuple, cast

from geoflow.core.chunks import Chunk
from geoflow.errors import DefinitionError
from geoflow.executors.loaded_code import Codes
from geoflow.executors.worker import run_chunk
from geoflow.support import logs
from geoflow.usercode.packing import Code


class Order(NamedTuple):
    """What goes with each chunk. ``token`` is its own alone: Dask takes equal arguments for one and the same call."""

    token: str
    driver: tuple[str, int]
    output_limit: int
    log_file: str | None
    log_level: str
    secrets: tuple[str, ...]


def here() -> tuple[str, int]:
    """This process: its host and number."""
    return socket.gethostname(), os.getpid()


class _Codes(Codes):
    """Functions by version, in a process that has each module as it was when it was first asked for."""

    def get(self, code: Code) -> tuple[Any, bool]:
        if self.held(code) is None:
            for name, stamp in code.modules:
                if self._modules.get(name, stamp) != stamp:
                    raise DefinitionError(
                        f"A worker of the pool has imported an older version of {name}: restart the pool's workers "
                        "(Dask: client.restart()), then resume the job."
                    )
        return super().get(code)


class _Printed(threading.local):
    """What the call of this thread prints, its beginning alone when it is long; None while nothing is to be kept."""

    text: list[str] | None = None
    room = 0
    limit = 0

    def begin(self, limit: int) -> None:
        self.text, self.room, self.limit = [], limit, limit

    def add(self, text: str) -> int:
        assert self.text is not None
        self.text.append(text[: max(self.room, 0)])
        self.room -= len(text)
        return len(text)

    def take(self) -> str | None:
        kept, over = "".join(self.text or ()), -self.room
        if self.text is not None:
            self.begin(self.limit)
        return (kept + (f"\n… {over} more characters" if over > 0 else "")) or None

    def end(self) -> None:
        self.text = None


class _ByThread:
    """Stands for a standard stream: what a thread writes whose prints are kept is kept, the rest goes on."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def write(self, text: str) -> int:
        return _printed.add(text) if _printed.text is not None else int(self._before.write(text) or 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._before, name)


class _Named:
    """Names the call that runs in what its own thread logs: other threads of this process may run others."""

    def __init__(self, chunk: Chunk, bound: contextlib.ExitStack) -> None:
        self._chunk, self._names, self._bound = chunk, chunk.batch.names(), bound

    def running(self, chunk: int, position: int, key: int) -> float:
        self._bound.close()
        about: dict[str, object] = {name: getattr(self._chunk, name) for name in ("job_id", "job_type", "stage")}
        if self._chunk.kind == "tasks":
            batch = self._chunk.batch
            about |= {"task_id": self._names[position], "task_type": batch.task_type, "attempt": batch.attempt}
        self._bound.enter_context(logs.bind(**about))
        return time.monotonic()

    def reporting(self, chunk: int) -> None:
        self._bound.close()


_printed = _Printed()
_codes_at_home, _codes = Codes(), _Codes()


def run(wire: bytes, order: Order) -> tuple[Any, ...]:
    """Run a chunk here; a plain tuple, see `geoflow.executors.worker.Answer`. No exception of user code leaves it.

    In the driver's own process (a pool of threads), prints go where they always go, and are not kept.
    """
    chunk: Chunk = pickle.loads(wire)
    at_home = order.driver == here()
    if not at_home:
        _settle_in(order)
        _printed.begin(order.output_limit)
    try:
        with contextlib.ExitStack() as bound:
            codes = _codes_at_home if at_home else _codes
            return tuple(run_chunk(chunk, codes, _Named(chunk, bound), _printed, os.getpid()))
    finally:
        _printed.end()


def _settle_in(order: Order) -> None:
    """Keep prints by thread, and write to the session's log where this process can: on the driver's machine."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _ByThread):
            setattr(sys, name, cast(Any, _ByThread(stream)))
    if order.driver[0] == socket.gethostname() and order.log_file is not None:
        logs.configure_worker(order.log_file, order.log_level, order.secrets)
