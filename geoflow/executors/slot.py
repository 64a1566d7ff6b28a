"""Inside a slot's process: what is set up before user code runs, and the mark that says which call runs now."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from geoflow import logs
from geoflow.executors.base import Chunk
from geoflow.worker import Codes, run_chunk

# One thread for each native pool: the slots already use the processors. Not where the user set them.
ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "GDAL_NUM_THREADS",
)
DEFAULT_ENVIRONMENT = {**dict.fromkeys(ONE_THREAD, "1"), "GDAL_CACHEMAX": "64"}
STACK_SIGNAL = getattr(signal, "SIGUSR1", None)
_LAYOUT = struct.Struct("=qqqqd")
_RECALL = struct.Struct("=q")
_SIZE = _LAYOUT.size + _RECALL.size


class Mark(NamedTuple):
    """``position`` is that of the running call in its chunk, from 1; 0 before any; -n once n calls ended and the
    answer is on its way. ``since`` is on the monotonic clock, which all processes of a machine share."""

    pid: int
    chunk: int
    position: int
    key: int
    since: float


class MarkFile:
    """The mark in a file that is mapped into memory: written by the slot, read by whoever wants to know.

    Behind it stands the number of a chunk that is to come back unstarted, written by the coordinator. Each side writes
    its own part, then passes a fence, then reads the other's: so at least one of them sees the other.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _SIZE)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self._fence = threading.Lock()  # taking it is a full memory barrier
        self._pid = os.getpid()

    def read(self) -> Mark:
        return Mark(*_LAYOUT.unpack_from(self._map))

    def born(self) -> None:
        _LAYOUT.pack_into(self._map, 0, self._pid, 0, 0, 0, time.monotonic())

    def running(self, chunk: int, position: int, key: int) -> None:
        _LAYOUT.pack_into(self._map, 0, self._pid, chunk, position + 1, key, time.monotonic())

    def reporting(self, chunk: int) -> None:
        pid, _, position, key, since = self.read()
        _LAYOUT.pack_into(self._map, 0, pid, chunk, -position, key, since)

    def recall(self, chunk: int) -> None:
        _RECALL.pack_into(self._map, _LAYOUT.size, chunk)
        with self._fence:
            pass

    def begins(self, chunk: int) -> bool:
        """Whether the slot is to run *chunk*; it then counts as begun."""
        _LAYOUT.pack_into(self._map, 0, self._pid, chunk, 0, 0, time.monotonic())
        with self._fence:
            pass
        return bool(_RECALL.unpack_from(self._map, _LAYOUT.size)[0] != chunk)

    def shut(self) -> None:
        self._map.close()


def running_at_death(folder: str) -> frozenset[int] | None:
    """The keys of the tasks that ran when the process that used *folder* was killed; None when nobody can tell."""
    marks = list(Path(folder).glob("slot-*.mark"))
    if not marks:
        return None
    keys = set()
    for path in marks:
        content = path.read_bytes()
        if len(content) == _SIZE:
            mark = Mark(*_LAYOUT.unpack_from(content))
            if mark.position > 0:
                keys.add(mark.key)
    return frozenset(keys)


class _Printed:
    """The slot's standard output and error, in a file, so that native code's output is kept as well."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, limit
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for target in (1, 2):
            os.dup2(self._descriptor, target)
        sys.stdout, sys.stderr = (
            open(target, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            for target in (1, 2)
        )

    def take(self) -> str | None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            if os.fstat(1).st_size == 0:
                return None
            text = read_output(self._path, self._limit)
            os.ftruncate(self._descriptor, 0)
        except (OSError, ValueError, AttributeError):  # user code closed or replaced them
            self._open()
            return None
        return text


def read_output(path: Path, limit: int) -> str | None:
    """The beginning and the end of what was printed, at most *limit* bytes of it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(limit if size <= limit else limit // 2)
            if size > limit:
                file.seek(size - limit // 2)
                head += f"\n… {size - limit} more bytes …\n".encode() + file.read(limit // 2)
    except OSError:
        return None
    return head.decode("utf-8", "backslashreplace") or None


class Setup(NamedTuple):
    """What a slot's process is told when it starts."""

    mark: str
    output: str
    output_limit: int
    registry: str | None
    environment: dict[str, str]
    preload: tuple[str, ...]
    log_file: str | None
    log_level: str


_state: tuple[Codes, MarkFile, _Printed] | None = None


def initialise(setup: Setup) -> None:
    """Make this process a worker: deaf to the kernel's interrupts, known to the reaper, its output in a file."""
    global _state  # noqa: PLW0603 - one for the process is what it is
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
    if setup.registry is not None:
        _register(setup.registry)
    os.environ.clear()
    os.environ.update({**DEFAULT_ENVIRONMENT, **setup.environment})
    time.tzset()
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    printed = _Printed(Path(setup.output), setup.output_limit)
    faulthandler.enable(file=2)
    if STACK_SIGNAL is not None:
        faulthandler.register(STACK_SIGNAL, file=2, all_threads=False)
    logs.configure_worker(Path(setup.log_file) if setup.log_file else None, setup.log_level)
    for module in setup.preload:
        with contextlib.suppress(ImportError):  # the handler that needs it says so better
            importlib.import_module(module)
    mark = MarkFile(Path(setup.mark))
    mark.born()
    _state = (Codes(), mark, printed)


def _register(registry: str) -> None:
    """Tell the reaper of this process group; end when there is no one left to work for."""
    try:
        pipe = os.open(registry, os.O_WRONLY | os.O_NONBLOCK)
        os.write(pipe, f"+{os.getpid()}\n".encode())
        os.close(pipe)
    except OSError:
        os._exit(1)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def work(chunk: Chunk) -> tuple[Any, ...]:
    """Run *chunk* in this slot; a plain tuple, see `geoflow.worker.Answer`."""
    assert _state is not None
    codes, mark, printed = _state
    if not mark.begins(chunk.number):
        return (os.getpid(), 0.0, [], [])
    return tuple(run_chunk(chunk, codes, mark, printed, os.getpid()))
