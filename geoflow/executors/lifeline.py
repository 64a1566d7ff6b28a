"""The reaper's end of the line: a process beside this one that ends the workers when this one is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import weakref
from pathlib import Path

from geoflow.executors import orphan_reaper as reaper
from geoflow.executors.spawning import python


class Lifeline:
    """The reaper, and the pipe whose end tells it that this process is gone."""

    def __init__(self, folder: Path) -> None:
        self.registry = str(folder / "workers")
        os.mkfifo(self.registry, 0o600)
        # Held open, so that workers never wait.
        self._registry = os.open(self.registry, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # and so it is in the reaper, for good
        try:
            self._reaper = subprocess.Popen(
                [python(), "-I", "-S", str(reaper.__file__), self.registry],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _lifelines.add(self)

    def let_go(self) -> None:
        """In a fork of this process, which is not to keep the pipe open when this process has gone."""
        assert self._reaper.stdin is not None
        os.close(self._reaper.stdin.fileno())
        os.close(self._registry)

    def forget(self, pid: int) -> None:
        """Tell the reaper that the group *pid* is gone."""
        with contextlib.suppress(BlockingIOError):  # a reaper that was killed reads no more
            os.write(self._registry, f"-{pid}\n".encode())

    def close(self) -> None:
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._reaper.wait(2.0)
        os.close(self._registry)
        _lifelines.discard(self)


_lifelines: weakref.WeakSet[Lifeline] = weakref.WeakSet()


def _let_go_of_lifelines() -> None:
    for lifeline in list(_lifelines):
        lifeline.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_lifelines)
