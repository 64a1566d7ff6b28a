"""What is kept of a worker's process from call to call: how each thing is read and written, and what changes it."""

from __future__ import annotations

import decimal
import faulthandler
import gc
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
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from geoflow.support.surroundings import put_environment

STACK_SIGNAL = getattr(signal, "SIGUSR1", None)


class Kept(NamedTuple):
    """One thing that calls may change: how it is read and written, and the functions by which it is changed.

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


_change_folder, _set_umask, draw_anew = os.chdir, os.umask, random.seed  # before they are wrapped
KEPT: dict[str, Kept] = {
    "folder": Kept(lambda folder: folder and _change_folder(folder), _folder, "os.chdir os.fchdir", look=True),
    "umask": Kept(_set_umask, _umask, "os.umask"),
    "environment": Kept(put_environment, lambda: dict(os.environ), "os.putenv os.unsetenv"),
    "module path": Kept(lambda path: operator.setitem(sys.path, slice(None), path), lambda: list(sys.path), look=True),
    "signal handlers": Kept(_put_handlers, _handlers, "signal.signal"),
    "blocked signals": Kept(
        lambda mask: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "signal.pthread_sigmask",
    ),
    "timers": Kept(_stop_timers, None, "signal.setitimer signal.alarm"),
    "limits": Kept(_put_limits, _limits, "resource.setrlimit resource.prlimit"),
    "recursion limit": Kept(sys.setrecursionlimit, sys.getrecursionlimit, "sys.setrecursionlimit"),
    "limit of digits": Kept(sys.set_int_max_str_digits, sys.get_int_max_str_digits, "sys.set_int_max_str_digits"),
    "garbage collector": Kept(
        _put_collector, lambda: (gc.isenabled(), gc.get_threshold()), "gc.enable gc.disable gc.set_threshold"
    ),
    "locale": Kept(
        lambda name: locale.setlocale(locale.LC_ALL, name), lambda: locale.setlocale(locale.LC_ALL), "locale.setlocale"
    ),
    "decimal context": Kept(
        lambda values: decimal.setcontext(decimal.Context(**values)),
        _decimal,
        "decimal.getcontext decimal.setcontext",
        late=True,
    ),
    "socket timeout": Kept(socket.setdefaulttimeout, socket.getdefaulttimeout, "socket.setdefaulttimeout"),
    "logging's level": Kept(logging.disable, lambda: logging.root.manager.disable, "logging.disable"),
    "trace": Kept(sys.settrace, sys.gettrace, "sys.settrace", look=True),
    "profile": Kept(sys.setprofile, sys.getprofile, "sys.setprofile", look=True),
    "threads": Kept(lambda _: None, None, "threading.Thread.start"),
    "hooks": Kept(_put_hooks, _hooks, look=True),
    "warning filters": Kept(_put_filters, lambda: list(warnings.filters), look=True),
    "fault handler": Kept(
        arm_faulthandler,
        None,
        "faulthandler.enable faulthandler.disable faulthandler.register faulthandler.unregister "
        "faulthandler.dump_traceback_later",
    ),
    "random numbers": Kept(lambda _: draw_anew(), None, "random.seed random.setstate"),
    "numpy's random numbers": Kept(lambda _: _numpy().random.seed(), None, "numpy.random.seed numpy.random.set_state"),
    "numpy's errors": Kept(lambda errors: _numpy().seterr(**errors), lambda: _numpy().geterr(), "numpy.seterr"),
}
