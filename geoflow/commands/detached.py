"""A job that is run without a word, and one that is run by a process of its own, which this one leaves behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from geoflow.commands.grammar import REFUSED, Request
from geoflow.commands.hints import tell
from geoflow.commands.results import Job, Result
from geoflow.errors import GeoflowError
from geoflow.job_handle import JobHandle
from geoflow.session import Session

DETACH, QUIET = "--detach", "--quiet"


class Quiet(Job):
    """A job that was submitted: its id is all that is printed, at once, and its end is waited for."""

    def __init__(self, session: Session, job: JobHandle, request: Request) -> None:
        super().__init__(job, request)
        self._session = session

    def lines(self, width: int) -> Iterator[str]:
        yield self.job.id
        sys.stdout.flush()  # whoever has started this reads it before the job has ended
        self._session.follow(self.job)

    def to_json(self) -> str:
        self._session.follow(self.job)
        return super().to_json()


class Detached(Result):
    """A job that another process runs, which does so without a word; and the number of that process."""

    def __init__(self, job_id: str, pid: int, prog: str) -> None:
        self._job_id, self._pid, self._prog = job_id, pid, prog

    def value(self) -> str:
        return self._job_id

    def document(self) -> dict[str, Any]:
        return {"job_id": self._job_id, "pid": self._pid}

    def lines(self, width: int) -> Iterable[str]:
        begins = self._job_id[:8]
        tell(
            f"process {self._pid} runs it: {self._prog} watch {begins} shows it, {self._prog} cancel {begins} ends it."
        )
        return [self._job_id]


class Failed(Result):
    """Nothing was submitted: the process that was to do so has said why, and ended so."""

    def __init__(self, exit_status: int) -> None:
        self._exit_status = exit_status

    @property
    def exit_status(self) -> int:
        return self._exit_status or REFUSED

    def value(self) -> None:
        return None

    def document(self) -> None:
        raise GeoflowError("Nothing was submitted.")

    def lines(self, width: int) -> Iterable[str]:
        return []


def detach(request: Request) -> Detached | Failed:
    """Start the same command once more, in a session of its own, and quiet; return once it has submitted its job."""
    words = [QUIET if word == DETACH else word for word in request.typed if word != "--json"]
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, "-m", "geoflow", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
        assert child.stdout is not None
        try:
            first = child.stdout.readline().decode().strip()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGTERM)
            raise
        status = None if first else child.wait()
        said.seek(0)
        with contextlib.suppress(OSError):
            sys.stderr.write(said.read().decode("utf-8", "replace"))
        return Failed(status) if status is not None else Detached(first, child.pid, request.prog)
