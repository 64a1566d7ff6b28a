"""Sessions of this process and of others that faults are put to, and what must hold once a fault is over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path

import geoflow as gf
from geoflow.executors.processes import ProcessExecutor
from tests.helpers.sessions import ROOT, rows
from tests.helpers.waiting import is_running, wait_until

SECONDS = 60.0  # what a test waits for another process at most
PREAMBLE = f"""
import os, signal, sys, time
sys.path.insert(0, {ROOT!r})
from tests.helpers import jobs
import geoflow as gf
from tests.helpers.sessions import rows
from tests.helpers.waiting import wait_until

signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored

def say(*words):
    print(*words, flush=True)

def hear():
    return sys.stdin.readline()

def lines(path):
    return open(path).read().split() if os.path.exists(path) else []

def open_session(**options):
    session = gf.open(sys.argv[1], display="none", **{{"workers": 2, "max_retries": 1, "base_delay": 0.01, **options}})
    session.register(jobs)
    return session

session = open_session()
"""


class Kernel:
    """Python code in a process and group of its own, with a session, which speaks in lines."""

    def __init__(self, store: Path, code: str, *arguments: object) -> None:
        command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), store, *arguments]
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def hears(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.communicate(timeout=SECONDS)[1]
        return line.strip()

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def states(self) -> set[str]:
        """The system's letters for what its threads do: ``R`` runs, ``S`` sleeps, ``T`` is stopped."""
        found = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return {path.read_text().rpartition(")")[2].split()[0] for path in found}

    def stops(self) -> None:
        """Stop it where it is, all of its threads, until it is sent SIGCONT."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: self.states() == {"T"})

    def signal_group(self, number: int) -> None:
        """As a notebook server does: to the process and all that shares its group."""
        os.killpg(self.pid, number)

    def ends(self, status: int = 0) -> list[str]:
        """The rest of its lines, once it has ended as it should."""
        said, complaint = self._process.communicate(timeout=SECONDS)
        assert self._process.returncode == status, complaint
        return said.splitlines()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=SECONDS)

    def killed_after(self, seconds: float) -> bool:
        """Kill it when it has run for so long; False when it came to its end before."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()
        return self._process.returncode == -signal.SIGKILL

    def has_ended(self) -> bool:
        return self._process.poll() is not None


def workers_of(session: gf.Session) -> set[int]:
    """The processes that have worked in the session's store."""
    return {pid for (pid,) in rows(session, "SELECT DISTINCT pid FROM attempts WHERE pid IS NOT NULL")}


def running_workers(session: gf.Session) -> set[int]:
    """The processes of the session's slots."""
    executor = session.runtime.executor
    slots = executor._slots if isinstance(executor, ProcessExecutor) else []
    return {mark.pid for slot in slots if (mark := slot._mark.read()).pid}


def busy_workers(session: gf.Session) -> set[int]:
    """Those among them that have work."""
    executor = session.runtime.executor
    assert isinstance(executor, ProcessExecutor)
    return {slot._mark.read().pid for slot in executor._slots if slot.chunks}


def told(path: Path) -> list[int]:
    """The process ids that tasks wrote to a file."""
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def wait_until_gone(pids: list[int] | set[int], seconds: float = 10) -> None:
    wait_until(lambda: not any(map(is_running, pids)), seconds)


def end_group(pid: int) -> None:
    """End what a test had to leave behind."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def check_store(session: gf.Session) -> None:
    """What holds of every store in which nothing runs, whatever happened to it before."""
    assert rows(session, "PRAGMA integrity_check") == [("ok",)]
    assert rows(session, "PRAGMA foreign_key_check") == []
    assert rows(session, "SELECT job_id FROM jobs WHERE status = 'processing'") == [], "S36: no zombie"
    assert rows(session, "SELECT task_key FROM tasks WHERE status = 'processing'") == []
    # Every attempt is on record, and no task has completed twice.
    assert (
        rows(
            session,
            "SELECT t.task_key FROM tasks t WHERE t.attempts <> (SELECT count(*) FROM attempts a"
            " WHERE a.task_key = t.task_key) OR (t.status = 'completed') <> (SELECT count(*) FROM attempts a"
            " WHERE a.task_key = t.task_key AND a.outcome = 'completed')",
        )
        == []
    )


def check_aftermath(session: gf.Session) -> None:
    """The session works as on its first day: all slots, every job at its end, and nothing left of it once closed."""
    executor = session.runtime.executor
    job = session.run("acts", tasks=[{"do": "sleep", "value": 0.05}] * executor.slots * 2, after=uuid.uuid4().hex)
    assert job.status == "completed"
    used = rows(session, "SELECT DISTINCT slot FROM attempts WHERE job_id = ? ORDER BY 1", job.id)
    assert used == [(slot,) for slot in range(executor.slots)], "each slot is back"
    check_store(session)
    assert rows(session, "SELECT job_id FROM jobs WHERE status = 'queued'") == []
    workers = running_workers(session)
    session.close()
    wait_until_gone(workers)


Start = Callable[..., Kernel]
