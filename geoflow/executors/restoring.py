"""What a call changed of its process and did not change back: put back before the next one begins.

A change that goes through a function of Python's is told by that function, which is wrapped in a worker: so a call that
changes nothing costs next to nothing. The rest is compared after each call, or, where that takes longer, once a
millisecond, after a failure and at a chunk's end. What an import changes (a library's variables, the settings at the
top of a user's module) is no call's and stays. What cannot be put back makes the worker *sick*: it begins nothing more,
and another takes its place.
"""

from __future__ import annotations

import concurrent.futures.thread
import functools
import importlib
import os
import resource
import sys
import threading
import time
import types
import warnings
from typing import Any

from geoflow.executors.kept import KEPT, Kept, draw_anew, forget_shown_warnings
from geoflow.support.surroundings import Surroundings, put_environment

LOOK_SECONDS = 1e-3
# More files open than at the start, or half of those allowed: then a worker is replaced.
MOST_FILES = 256
# A thread that only has its last lines to go is waited for.
THREAD_SECONDS = 0.05
_IMPORT = "<frozen importlib._bootstrap>"
_IDLE = concurrent.futures.thread._worker.__code__


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
        draw_anew()  # what the fork server had imported would draw the same numbers in each worker
        self._learn()

    def _learn(self) -> None:
        """Be told of changes to what has come to be loaded, and know how it is."""
        for name, kind in KEPT.items():
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
        self._modules = len(sys.modules)  # last: to look for what is in numpy imports more of it

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
        elif (read := KEPT[kind].read) is not None:
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
            KEPT["folder"].write(surroundings.folder)
        except OSError as exc:
            raise FileNotFoundError(
                f"The folder {surroundings.folder}, in which the job was submitted, cannot be entered: {exc.strerror}. "
                "Make it again, or go to another one, and resume the job."
            ) from None
        finally:
            for name in ("folder", "environment", "module path"):
                self._was[name] = (KEPT[name].read or str)()
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
        for name, kind in KEPT.items():
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
        self._next_look = time.monotonic() + LOOK_SECONDS
        self.sick = self.sick or self._too_many_files() or self._left_thread()

    def _compare(self, name: str, kind: Kept, keeps: bool) -> None:
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
