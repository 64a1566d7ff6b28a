"""How a slot's process is started: from a fork server where there is one, and without the caller's ``__main__``."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing import context, spawn, util
from typing import Any

from geoflow.errors import ParameterError
from geoflow.support.identity import born, label

# Of bytes: a socket's path may have 103 on macOS and 107 on Linux, and "/listener-" and eight characters follow.
MAX_SOCKET_FOLDER = 84
SHORT_FOLDER = "/tmp"
END_SECONDS = 1.0
_HAS_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
_Context: Any = context.ForkServerContext if _HAS_FORKSERVER else context.SpawnContext
_Process: Any = context.ForkServerProcess if _HAS_FORKSERVER else context.SpawnProcess


def warm_up(preload: tuple[str, ...] = ()) -> None:
    """Start the fork server now: it imports what workers need while this process imports what a session needs."""
    inline, unknown = os.environ.get("GEOFLOW_WORKERS") == "0", "GEOFLOW_PRELOAD" in os.environ  # which is read later
    if _HAS_FORKSERVER and not inline and not unknown and _why_not() is None:
        SlotContext(preload)
        with contextlib.suppress(OSError):  # should a process be wanted, its start says why it cannot be
            _start_server()


def check_can_start() -> None:
    """Raise ``ParameterError`` where this process cannot start others at all, with what to do instead."""
    if why := _why_not():
        raise ParameterError(f"{why} Or run without worker processes: workers=0, or a pool of your own as executor=.")


def _why_not() -> str | None:
    if multiprocessing.current_process().daemon:
        return (
            "This process was started by multiprocessing as a daemon, such as a worker of a Pool or of Dask, which may "
            "start no processes. Run the job from the process that started it."
        )
    name = os.path.basename(python()).lower()
    if any(known in name for known in ("python", "pypy", "graalpy")) or (name and python() != sys.executable):
        return None
    return (
        f"Worker processes are started with Python's own program, and sys.executable is {sys.executable!r}, as where "
        "Python is part of another one. Say which it is: multiprocessing.set_executable('/path/to/python')."
    )


def python() -> str:
    """The program that is started for another process: what multiprocessing was told, as where Python is embedded."""
    return os.fsdecode(spawn.get_executable() or "")


def _start_server() -> None:
    """Start the fork server, unless it runs, deaf to interrupts while it imports: these are sent to a whole group."""
    from multiprocessing import forkserver, resource_tracker, util

    _complete_main()
    _renew_server()
    _have_room_for_sockets()
    resource_tracker.ensure_running()  # first: to start it lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server: Any = forkserver._forkserver
        address = server._forkserver_address
        if address and not util.is_abstract_socket_namespace(address) and not os.path.lexists(address):
            with contextlib.suppress(FileNotFoundError):
                server._stop()  # nobody can reach it: its folder was tidied away, as of what lies in /tmp for long
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _renew_server() -> None:
    """Have the fork server be one that imports all that is wanted of it: one that runs does not hear of more.

    The one before goes on, for the workers that it has started; it is asked for no others.
    """
    from multiprocessing import forkserver

    with _renewing:
        server: Any = forkserver._forkserver
        if server._forkserver_pid is not None and not _wanted.keys() <= _imported:
            _earlier.append(server)
            server = forkserver._forkserver = forkserver.ForkServer()
            for name in forkserver.__all__:  # which are its methods
                setattr(forkserver, name, getattr(server, name))
        if server._forkserver_pid is None:
            _imported.clear()
            _imported.update(_wanted)
            server.set_forkserver_preload(["geoflow.executors.preloaded", *_imported])


def _import_nothing() -> None:
    """Have fork servers import nothing of what the last one was to: each worker that needs it does, and says so."""
    from multiprocessing import forkserver

    with _renewing:
        _left_out.update(_imported)
        for name in _left_out:
            _wanted.pop(name, None)
        _imported.clear()
        forkserver.set_forkserver_preload(["geoflow.executors.preloaded"])


_wanted: dict[str, None] = {}  # what sessions of this process have asked it to import, in this order
_imported: set[str] = set()  # by the one that runs
_left_out: set[str] = set()  # since one ended, or hung, that was to import them
_earlier: list[Any] = []
_renewing = threading.Lock()


def _have_room_for_sockets() -> None:
    """Have multiprocessing put its sockets into a folder of ours, unless it has one that will do.

    Ours says by its name whose it is, so that it does not stay for ever when this process is killed; and its path is
    short enough for a socket, which those in a long TMPDIR are not.
    """
    settings = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    present = settings.get("tempdir")
    if present and os.path.lexists(present) and len(os.fsencode(present)) <= MAX_SOCKET_FOLDER:
        return
    parent, name = tempfile.gettempdir(), label()
    is_long = len(os.fsencode(os.path.join(parent, name))) + 8 > MAX_SOCKET_FOLDER
    try:
        folder = tempfile.mkdtemp(prefix=name, dir=SHORT_FOLDER if is_long else parent)
    except OSError as exc:
        if not is_long:
            raise
        raise OSError(
            f"a socket's path in {parent} is too long for the system, and there can be none in {SHORT_FOLDER} "
            f"({exc.strerror}). Set TMPDIR to a folder with a shorter path"
        ) from None
    util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)
    settings["tempdir"] = folder


def _complete_main() -> None:
    """Give ``__main__`` back what multiprocessing looks for in it: a notebook's ``%reset -f`` takes that away too."""
    main = sys.modules["__main__"]
    if not hasattr(main, "__spec__"):
        main.__spec__ = None


class SlotProcess(_Process):  # type: ignore[misc]
    """A worker process that does not run the user's script once more."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.joined = threading.Event()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "joined"}  # which stays on this side

    def join(self, timeout: float | None = None) -> None:
        """As its pool's thread does when the process has ended; who else wants the exit code waits for that."""
        super().join(timeout)
        self.joined.set()

    def start(self) -> None:
        if _HAS_FORKSERVER:
            _start_server()
        else:
            _complete_main()
        with _without_main():
            try:
                super().start()
            except (OSError, EOFError):  # it may have died of what it was to import
                _import_nothing()
                raise


class SlotContext(_Context):  # type: ignore[misc]
    """A multiprocessing context for one process, which it remembers for its exit code.

    The fork server imports *preload* once for all that it starts.
    """

    def __init__(self, preload: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._made: SlotProcess | None = None
        _wanted.update(dict.fromkeys(name for name in preload if name not in _left_out))

    def Process(self, *args: Any, **kwargs: Any) -> SlotProcess:
        self._made = SlotProcess(*args, **kwargs)
        return self._made

    def exit_code(self, seconds: float) -> int | None:
        """That of the process, once its pool's thread has asked for it: two askers would get it wrong.

        No thread is begun for the wait: while the interpreter exits none may be.
        """
        if self._made is None or self._made.pid is None or not self._made.joined.wait(seconds):
            return None
        code: int | None = self._made.exitcode
        return code

    def kill(self) -> None:
        """End the process, also one that starts just now and has told nobody of itself."""
        if self._made is not None and self._made.pid is not None:
            self._made.kill()


def end_server() -> None:
    """End a fork server that starts nothing, and whatever it hangs in. The next start of a process starts another."""
    if not _HAS_FORKSERVER:
        return
    from multiprocessing import forkserver

    _import_nothing()  # it may hang in that
    pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it is this process's child, and not waited for: the number is its own
        deadline = time.monotonic() + END_SECONDS
        while born(pid) is not None and time.monotonic() < deadline:  # else the next start would still ask this one
            time.sleep(0.005)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start a process that does not import the caller's ``__main__``: what lives there travels by value.

    Otherwise a script without an ``if __name__ == "__main__"`` guard would start itself again in every worker. Several
    threads may be at it at once, and one of them for ever.
    """
    if spawn.get_preparation_data is not _prepared:
        spawn.get_preparation_data = _prepared
    _starting.one_of_ours = True
    try:
        yield
    finally:
        _starting.one_of_ours = False


_starting = threading.local()
_original = spawn.get_preparation_data


def _prepared(name: str) -> dict[str, Any]:
    data = _original(name)
    if getattr(_starting, "one_of_ours", False):
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
    return data


def _forget_server() -> None:
    """In a fork of this process, whose child the fork server is not: it starts its own."""
    forkserver = sys.modules.get("multiprocessing.forkserver")
    for server in (getattr(forkserver, "_forkserver", None), *_earlier):
        if getattr(server, "_forkserver_pid", None) is not None:
            os.close(server._forkserver_alive_fd)
            server.__init__()  # anew
    _earlier.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_server)
