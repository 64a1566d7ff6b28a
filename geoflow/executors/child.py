"""Inside a slot's process: what is set up before user code runs, and the mark that says which call runs now."""

from __future__ import annotations

import gc
import importlib
import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

from geoflow.core.chunks import Chunk
from geoflow.executors import own_pools
from geoflow.executors.kept import arm_faulthandler
from geoflow.executors.loaded_code import Codes
from geoflow.executors.marker import MarkFile
from geoflow.executors.printed import Printed
from geoflow.executors.restoring import Restorer
from geoflow.executors.spool import Spool
from geoflow.executors.worker import NO_CODE, NOT_BEGUN, run_chunk
from geoflow.support import attempt, logs, nesting
from geoflow.support.identity import UNKNOWN, born
from geoflow.support.memory import Peak, of_process, peak
from geoflow.support.surroundings import Surroundings
from geoflow.usercode.packing import Code

logger = logging.getLogger("geoflow.executors")
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
# What libraries look at as they are loaded, and never again: a process that has them does not see a change.
READ_ONCE = (
    *DEFAULT_ENVIRONMENT,
    *("GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_DATA", "PROJ_LIB", "NUMBA_NUM_THREADS", "MPLBACKEND"),
)


class Setup(NamedTuple):
    """What a slot's process is told when it starts."""

    mark: str
    output: str
    output_limit: int
    registry: str | None
    environment: dict[str, str]
    preload: tuple[str, ...]
    weighs: bool  # whether its answers say how much memory it has
    log_file: str | None
    log_level: str
    secrets: tuple[str, ...]


_state: tuple[Codes, MarkFile, Printed, Restorer, Spool, Peak] | None = None
_weighs = False
_read: dict[str, str | None] = {}  # by what has run here, of READ_ONCE


def initialise(setup: Setup) -> None:
    """Make this process a worker: deaf to the kernel's interrupts, known to the reaper, its output in a file."""
    global _state, _weighs  # noqa: PLW0603 - one for the process is what it is
    nesting.settle_in()
    own_pools.settle_in()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
    if setup.registry is not None:
        _register(setup.registry)
    os.environ.clear()
    os.environ.update({**DEFAULT_ENVIRONMENT, **setup.environment})
    time.tzset()
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        mark = MarkFile(Path(setup.mark), new=False)
    except FileNotFoundError:  # it was given up while it started: what it was sent runs elsewhere
        os._exit(1)
    attempt.settle_in(attempt.Slot(str(Path(setup.mark).with_suffix("")), lambda: mark.read().since))
    printed = Printed(Path(setup.output), setup.output_limit, mark.printed)
    arm_faulthandler()
    mark.setting_up()
    logs.configure_worker(Path(setup.log_file) if setup.log_file else None, setup.log_level, setup.secrets)
    for module in setup.preload:
        try:
            importlib.import_module(module)
        except ImportError as exc:  # the handler that needs it fails, and says so better
            logger.warning("preload names %s, which this worker cannot import: %s", module, exc)
    _weighs = setup.weighs
    spool = Spool(Path(setup.mark).with_suffix(""), mark.written_so_far)
    _state = (Codes(), mark, printed, Restorer(), spool, Peak())
    mark.ready()
    gc.freeze()  # what is there now is never garbage, and looking for some in it takes time from every chunk


def _register(registry: str) -> None:
    """Tell the reaper of this process group; end when there is no one left to work for."""
    try:
        pipe = os.open(registry, os.O_WRONLY | os.O_NONBLOCK)
        os.write(pipe, f"+{os.getpid()} {born(os.getpid()) or UNKNOWN}\n".encode())
        os.close(pipe)
    except OSError:
        os._exit(1)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def work(chunk: Chunk | None) -> tuple[Any, ...]:
    """Run *chunk* in this slot; a plain tuple, see `worker.Answer`. None asks only whether it has started."""
    assert _state is not None
    if chunk is None:
        return ()
    codes, mark, printed, restorer, spool, highest = _state
    trouble = _enter(restorer, chunk.surroundings)
    if restorer.sick or not mark.begins(chunk.number):
        return tuple(NOT_BEGUN._replace(sick=restorer.sick))
    if not chunk.code.is_whole and codes.held(chunk.code) is None:
        return tuple(NO_CODE)
    codes = codes if trouble is None else _NoCodes(trouble)
    highest.begin()
    answer = run_chunk(chunk, codes, mark, printed, os.getpid(), keeper=restorer, spool=spool)
    return tuple(answer._replace(memory=of_process(os.getpid()) or peak()) if _weighs else answer)


def _enter(restorer: Restorer, surroundings: Surroundings | None) -> OSError | None:
    if surroundings is not None:
        environment = {**DEFAULT_ENVIRONMENT, **surroundings.environment}
        surroundings = surroundings._replace(environment=environment)
        restorer.sick = restorer.sick or _outdated(environment)
    if restorer.sick:
        return None
    try:
        restorer.enter(surroundings)
    except OSError as exc:
        return exc
    return None


def _outdated(environment: dict[str, str]) -> str:
    """Why another process is to take this one's place, where what has run here has read other values."""
    before = dict(_read)
    _read.update((name, environment.get(name)) for name in READ_ONCE)
    changed = [name for name, value in before.items() if value != _read[name]]
    return f"{changed[0]} has changed, which libraries read when they are loaded" if changed else ""


class _NoCodes(Codes):
    """Of a process that is not where its calls are to run: each fails with the reason."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self._reason = reason

    def get(self, code: Code) -> tuple[Any, bool]:
        raise self._reason
