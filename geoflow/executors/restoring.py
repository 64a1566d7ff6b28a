"""What a call changed of its process and did not change back: put back before the next one begins.

A change that goes through a function of Python's is told by that function, which is wrapped in a worker: so a call that
changes nothing costs next to nothing. The rest is compared after each call, or, where that takes longer, once a
millisecond, after a failure and at a chunk's end. What an import changes (a library's variables, the settings at the
top of a user's module) is no call's and stays. What cannot be put back makes the worker *sick*: it begins nothing more,
and another takes its place.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import decimal
import faulthandler
import functools
import gc
import importlib
import locale
import logging
import operator
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from geoflow.support.surroundings import Surroundings, put_environment

LOOK_SECONDS = 1e-3
# More files open than at the start, or half of those allowed: then a worker is replaced.
MOST_FILES = 256
# A thread that only has its last lines to go is waited for.
THREAD_SECONDS = 0.05
STACK_SIGNAL = getattr(signal, "SIGUSR1", None)
_IMPORT = "<frozen importlib._bootstrap>"
_IDLE = concurrent.futures.thread._worker.__code__


class Kind(NamedTuple):
    """One thing that calls change: how it is read and written, and the functions by which it is changed.

    Without a *read* it cannot be compared, and is written whenever one of those was called. With *look* it is compared
    at each look as well. With *late*, the change comes after the call of that function.
    """

    write: Callable[[Any], object]
    read: Callable[[], Any] | None = None
    by: str = ""
    look: bool = False
    late: bool = False


def arm_faulthandler(_: object = None) -> None:
    """Have a crash, and the signal that asks for it, write where this process is."""
    faulthandler.cancel_dump_traceback_later()
    faulthandler.enable(file=2)
    if STACK_SIGNAL is not None:
        faulthandler.unregister(STACK_SIGNAL)
        faulthandler.register(STACK_SIGNAL, file=2, all_threads=False)


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _umask() -> int:
    before = _set_umask(0o077)
    _set_umask(before)
    return before


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _put_handlers(wanted: dict[int, Any]) -> None:
    now = _handlers()
    for number, handler in wanted.items():
        if now[number] != handler and handler is not None:
            signal.signal(number, handler)
    arm_faulthandler()


def _stop_timers(_: object) -> None:
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)


_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


def _limits() -> dict[int, tuple[int, int]]:
    return {limit: resource.getrlimit(limit) for limit in _LIMITS}


def _put_limits(wanted: dict[int, tuple[int, int]]) -> None:
    now = _limits()
    for limit, pair in wanted.items():
        if now[limit] != pair:
            resource.setrlimit(limit, pair)


def _put_collector(wanted: tuple[bool, tuple[int, int, int]]) -> None:
    enabled, threshold = wanted
    (gc.enable if enabled else gc.disable)()
    gc.set_threshold(*threshold)


def _decimal() -> dict[str, Any]:
    context = decimal.getcontext()
    return {name: getattr(context, name) for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")} | {
        "traps": dict(context.traps)
    }


def _hooks() -> tuple[Any, ...]:
    return sys.excepthook, sys.unraisablehook, threading.excepthook, sys.stdin


def _put_hooks(wanted: tuple[Any, ...]) -> None:
    sys.excepthook, sys.unraisablehook, threading.excepthook, sys.stdin = wanted


class _Never(Warning):
    """Nobody gives it."""


def forget_shown_warnings() -> None:
    """Have Python show each warning once more: it remembers in each module those that it has shown."""
    warnings.simplefilter("ignore", _Never, append=True)


def _put_filters(wanted: list[Any]) -> None:
    warnings.filters[:] = wanted  # type: ignore[index]  # it is a list, whatever its stub says
    forget_shown_warnings()


def _numpy() -> Any:
    return sys.modules["numpy"]


_change_folder, _set_umask, _seed = os.chdir, os.umask, random.seed  # before they are wrapped
KINDS: dict[str, Kind] = {
    "folder": Kind(lambda folder: folder and _change_folder(folder), _folder, "os.chdir os.fchdir", look=True),
    "umask": Kind(_set_umask, _umask, "os.umask"),
    "environment": Kind(put_environment, lambda: dict(os.environ), "os.putenv os.unsetenv"),
    "module path": Kind(lambda path: operator.setitem(sys.path, slice(None), path), lambda: list(sys.path), look=True),
    "signal handlers": Kind(_put_handlers, _handlers, "signal.signal"),
    "blocked signals": Kind(
        lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "signal.pthread_sigmask",
    ),
    "timers": Kind(_stop_timers, None, "signal.setitimer signal.alarm"),
    "limits": Kind(_put_limits, _limits, "resource.setrlimit resource.prlimit"),
    "recursion limit": Kind(sys.setrecursionlimit, sys.getrecursionlimit, "sys.setrecursionlimit"),
    "limit of digits": Kind(sys.set_int_max_str_digits, sys.get_int_max_str_digits, "sys.set_int_max_str_digits"),
    "garbage collector": Kind(
        _put_collector, lambda: (gc.isenabled(), gc.get_threshold()), "gc.enable gc.disable gc.set_threshold"
    ),
    "locale": Kind(
        lambda name: locale.setlocale(locale.LC_ALL, name),
        lambda: locale.setlocale(locale.LC_ALL),
        "locale.setlocale",
    ),
    "decimal context": Kind(
        lambda values: decimal.setcontext(decimal.Context(**values)),
        _decimal,
        "decimal.getcontext decimal.setcontext",
        late=True,
    ),
    "socket timeout": Kind(socket.setdefaulttimeout, socket.getdefaulttimeout, "socket.setdefaulttimeout"),
    "logging's level": Kind(logging.disable, lambda: logging.root.manager.disable, "logging.disable"),
    "trace": Kind(sys.settrace, sys.gettrace, "sys.settrace", look=True),
    "profile": Kind(sys.setprofile, sys.getprofile, "sys.setprofile", look=True),
    "threads": Kind(lambda _: None, None, "threading.Thread.start"),
    "hooks": Kind(_put_hooks, _hooks, look=True),
    "warning filters": Kind(_put_filters, lambda: list(warnings.filters), look=True),
    "fault handler": Kind(
        arm_faulthandler,
        None,
        "faulthandler.enable faulthandler.disable faulthandler.register faulthandler.unregister "
        "faulthandler.dump_traceback_later",
    ),
    "random numbers": Kind(lambda _: _seed(), None, "random.seed random.setstate"),
    "numpy's random numbers": Kind(lambda _: _numpy().random.seed(), None, "numpy.random.seed numpy.random.set_state"),
    "numpy's errors": Kind(lambda errors: _numpy().seterr(**errors), lambda: _numpy().geterr(), "numpy.seterr"),
}


class Restorer:
    """Knows how this process is to be, from now on."""

    def __init__(self) -> None:
        self.sick = ""
        self._told: set[str] = set()
        self._by_import: set[str] = set()
        self._was: dict[str, Any] = {}
        self._pending: Surroundings | None = None
        self._reads = False  # and is not to be told of what it calls for that
        self._next_look = 0.0
        self._modules = 0
        self._threads = set(threading.enumerate())
        lowest, allowed = _lowest_free(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most_files = min(lowest + MOST_FILES, max(allowed // 2, lowest + 16))
        forget_shown_warnings()
        _seed()  # what the fork server had imported would draw the same numbers in each worker
        self._learn()

    def _learn(self) -> None:
        """Be told of changes to what has come to be loaded, and know how it is."""
        self._modules = len(sys.modules)
        for name, kind in KINDS.items():
            functions = [
                (_find(place), function) for place, _, function in (by.rpartition(".") for by in kind.by.split())
            ]
            if name in self._was or any(place is None for place, _ in functions):
                continue
            if kind.read is None:
                kind.write(None)
            self._was[name] = kind.read and kind.read()
            for place, function in functions:
                self._wrap(name, place, function)
        self._path, self._filters = self._was["module path"], self._was["warning filters"]

    def _wrap(self, kind: str, place: Any, name: str) -> None:
        function = getattr(place, name, None)
        if function is None:  # not on every system
            return

        @functools.wraps(function)
        def told(*args: Any, **kwargs: Any) -> Any:
            if self._reads or not _imports():
                if not self._reads:
                    self._told.add(kind)
                return function(*args, **kwargs)
            try:
                return function(*args, **kwargs)
            finally:
                self._reads = True
                self._adopt(kind, args)
                self._reads = False

        setattr(place, name, told)

    def _adopt(self, kind: str, args: tuple[Any, ...]) -> None:
        """An import has changed this."""
        self._by_import.add(kind)
        if kind == "environment":  # os.environ itself hears of it only after this
            name, *value = map(os.fsdecode, args)
            self._was[kind].pop(name, None)
            for text in value:
                self._was[kind][name] = text
        elif kind == "threads":
            self._threads.update(threading.enumerate())
        elif (read := KINDS[kind].read) is not None:
            self._was[kind] = read()

    def enter(self, surroundings: Surroundings | None) -> None:
        """Go to where a job was submitted; ``FileNotFoundError`` when that is not there. None is where the last was."""
        surroundings = surroundings or self._pending
        if surroundings is None:
            return
        self._pending = surroundings
        self._reads = True
        put_environment(surroundings.environment)
        sys.path[:] = surroundings.path
        importlib.invalidate_caches()
        try:
            KINDS["folder"].write(surroundings.folder)
        except OSError as exc:
            raise FileNotFoundError(
                f"The folder {surroundings.folder}, in which the job was submitted, cannot be entered: {exc.strerror}. "
                "Make it again, or go to another one, and resume the job."
            ) from None
        finally:
            for name in ("folder", "environment", "module path"):
                self._was[name] = (KINDS[name].read or str)()
            self._path = self._was["module path"]
            self._reads = False
        self._pending = None

    def after(self, ended: float, failed: bool, printed: bool) -> str:
        """A call has *ended*: put back what it changed. Why nothing more is to run here, or an empty text."""
        if printed:
            forget_shown_warnings()
        if (
            failed
            or ended > self._next_look
            or self._told
            or sys.path != self._path
            or warnings.filters != self._filters
        ):
            self.look()
        return self.sick

    def look(self) -> None:
        """Compare all there is to compare, and put it back."""
        self._reads = True
        grown = len(sys.modules) != self._modules
        for name, kind in KINDS.items():
            told, by_import = name in self._told, name in self._by_import
            if told or by_import or kind.look:
                keeps = by_import and (kind.late or not told)
                try:
                    self._compare(name, kind, keeps or (grown and not kind.by))
                except Exception as exc:  # whatever the system says to it
                    self.sick = f"a task changed its {name}, which cannot be put back: {type(exc).__name__}: {exc}"
        if grown:
            self._learn()
        self._path, self._filters = self._was["module path"], self._was["warning filters"]
        self._told.clear()
        self._by_import.clear()
        self._reads = False
        self._next_look = time.perf_counter() + LOOK_SECONDS
        self.sick = self.sick or self._too_many_files() or self._left_thread()

    def _compare(self, name: str, kind: Kind, keeps: bool) -> None:
        now = kind.read and kind.read()
        if kind.read is not None and now == self._was[name]:
            return
        if keeps:
            self._was[name] = now
        else:
            kind.write(self._was[name])

    def _too_many_files(self) -> str:
        try:
            lowest = _lowest_free()
        except OSError as exc:
            return f"its tasks left so many files open that there are no more: {exc.strerror}"
        return f"its tasks left {lowest - 3} files open" if lowest > self._most_files else ""

    def _left_thread(self) -> str:
        if threading.active_count() <= len(self._threads):
            return ""
        for thread in set(threading.enumerate()) - self._threads:
            if not thread.daemon and not _is_idle(thread):
                thread.join(THREAD_SECONDS)
                if thread.is_alive():
                    return f"a task left the thread {thread.name!r} running"
        return ""


def _find(place: str) -> Any:
    """A module that is loaded, or a class in one; None where it is not."""
    module, _, name = place.rpartition(".")
    return sys.modules.get(place) or getattr(sys.modules.get(module), name, None)


def _imports() -> bool:
    """Whether what asks for it is called by an import."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != _IMPORT:
        frame = frame.f_back
    return frame is not None


def _lowest_free() -> int:
    """The lowest number that no open file has: with as many open, in practice, as it says."""
    lowest = os.dup(1)
    os.close(lowest)
    return lowest


def _is_idle(thread: threading.Thread) -> bool:
    """Whether it is one of a pool's that wait for work, which a library may keep."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code is _IDLE


def memory() -> int:
    """How much this process has in memory now, in bytes; at most so far, where the system does not say."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
