"""In the child alone: what a call touches of files, network and processes, as the interpreter's audit tells it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from geoflow.usercode.origin import is_users

_READS = ("open", "os.listdir", "os.scandir", "glob.glob")
_WRITES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "tempfile.mkstemp")
_OTHERS = {
    **dict.fromkeys(("socket.connect", "socket.getaddrinfo", "urllib.Request"), "the network"),
    **dict.fromkeys(("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork"), "another process"),
    "sqlite3.connect": "a database",
}
_EVENTS = {*_READS, *_WRITES, *_OTHERS}
# What Python and its libraries read for themselves: modules, time zones, certificates, devices.
_NOT_MEANT = ("/dev/", "/proc/", "/sys/", "/etc/", "/usr/share/", "/usr/lib/", sys.prefix, sys.base_prefix)
_LOGGING = tuple(os.path.join("logging", name) for name in ("__init__.py", "handlers.py"))


class Touched(NamedTuple):
    """*reads* is True where a file or folder was only looked into; *place* is the user's line."""

    what: str
    reads: bool
    place: tuple[str, int] | None


_seen: list[Touched] | None = None


@contextmanager
def watching() -> Iterator[list[Touched]]:
    """What the calls inside touch. The hook can never be taken out: this is for a process that ends soon."""
    global _seen  # noqa: PLW0603 - the interpreter has one audit
    hook()
    touched: list[Touched] = []
    _seen = touched
    try:
        yield touched
    finally:
        _seen = None


@functools.cache
def hook() -> None:
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    global _seen  # noqa: PLW0603
    if _seen is None or event not in _EVENTS:
        return
    seen, _seen = _seen, None  # what is done here is not the user's doing
    try:
        if (touched := _touched(event, arguments)) is not None:
            seen.append(touched)
    except Exception:  # an audit hook that raises would fail the user's own call
        return
    finally:
        _seen = seen


def _touched(event: str, arguments: tuple[Any, ...]) -> Touched | None:
    place = None
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib") or file.endswith(_LOGGING):
            return None
        if place is None and is_users(file):
            place = file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    if event in _OTHERS:
        return Touched(f"{_OTHERS[event]} ({event})", False, place)
    path = os.path.abspath(os.fsdecode(arguments[0]))  # raises for a descriptor: nothing new is touched
    if path.startswith(_NOT_MEANT) or path.endswith((".py", ".pyc")):
        return None
    reads = event in _READS
    if event == "open":
        _, mode, flags = arguments
        reads = not (set(mode) & set("wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR))
    return Touched(f"{'reads' if reads else 'changes'} {path}", reads, place)
