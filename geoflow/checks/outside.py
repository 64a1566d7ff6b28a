"""In the child alone: what a call touches of files, network and processes, as the interpreter's audit tells it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from geoflow.checks.source import is_ours
from geoflow.notebook.tracebacks import LIBRARY

_READS = ("open", "os.listdir", "os.scandir", "glob.glob")
_WRITES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "tempfile.mkstemp")
_OTHERS = {
    **dict.fromkeys(("socket.connect", "socket.getaddrinfo", "urllib.Request"), "the network"),
    **dict.fromkeys(("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork"), "another process"),
    "sqlite3.connect": "a database",
}
# What Python and its libraries read for themselves: modules, time zones, certificates, devices.
_NOT_MEANT = ("/dev/", "/proc/", "/sys/", "/etc/", "/usr/share/", "/usr/lib/", sys.prefix, sys.base_prefix)
_LOGGING = tuple(os.path.join("logging", name) for name in ("__init__.py", "handlers.py"))


class Touched(NamedTuple):
    """*reads* is True where a file or folder was only looked into."""

    what: str
    reads: bool
    file: str | None
    line: int


_seen: list[Touched] | None = None
_hooked = False


@contextmanager
def watching() -> Iterator[list[Touched]]:
    """What the calls inside touch. The hook can never be taken out: this is for a process that ends soon."""
    global _seen, _hooked  # noqa: PLW0603 - the interpreter has one audit
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hook)
    found: list[Touched] = []
    _seen = found
    try:
        yield found
    finally:
        _seen = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    global _seen  # noqa: PLW0603
    if _seen is None or (event not in _READS and event not in _WRITES and event not in _OTHERS):
        return
    found, _seen = _seen, None  # what is done here is not the user's doing
    try:
        if (touched := _told(event, arguments)) is not None:
            found.append(touched)
    except Exception:  # an audit hook that raises would fail the user's own call
        return
    finally:
        _seen = found


def _told(event: str, arguments: tuple[Any, ...]) -> Touched | None:
    file, line = None, 0
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib") or name.endswith(_LOGGING):
            return None
        if file is None and not LIBRARY.search(name) and not is_ours(name):
            file, line = name, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    if event in _OTHERS:
        return Touched(f"{_OTHERS[event]} ({event})", False, file, line)
    path = arguments[0] if arguments else None
    if not isinstance(path, str | bytes):
        return None
    path = os.path.abspath(os.fsdecode(path))
    if path.startswith(_NOT_MEANT) or path.endswith((".py", ".pyc")):
        return None
    reads = event in _READS
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writing = any(letter in mode for letter in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR))
        reads = not writing
    return Touched(f"{'reads' if reads else 'changes'} {path}", reads, file, line)
