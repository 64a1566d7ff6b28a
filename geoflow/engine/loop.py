"""Who turns the loop that drives jobs, what other threads ask of it, and what becomes of it when a turn fails.

One thread at a time turns it: the session's own, or one that waits for a job. Whatever a turn raises comes to
`Loop.drive`: nothing is left to drive then, and whoever waited has been told.
"""

from __future__ import annotations

import abc
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Literal, NamedTuple

from geoflow.engine.active_job import ActiveJob
from geoflow.engine.agenda import Agenda

Verb = Literal["start", "cancel", "interrupt"]
NUDGE = object()  # in the inbox, it says only that there is something to look at


class Command(NamedTuple):
    """What another thread asks of the loop about a job."""

    verb: Verb
    job: ActiveJob


class Loop(abc.ABC):
    """The loop of a machine, without what its turns do."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._jobs: dict[str, ActiveJob] = {}
        self._agenda = Agenda()
        self._commands: deque[Command] = deque()  # that no turn has seen yet
        self._driving = threading.Lock()
        self._handing_over = threading.Lock()
        self._driven = False
        # Within it, what is said goes to the log of the session.
        self._logged: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    @abc.abstractmethod
    def turn(self) -> None:
        """One round: take in what happened, do what follows from it."""

    @abc.abstractmethod
    def _give_up(self, jobs: list[ActiveJob], error: BaseException) -> None:
        """End *jobs*, which are all that there are, with this reason. Raises nothing."""

    # What other threads may call

    def ask(self, verb: Verb, job: ActiveJob) -> bool:
        """Have the loop start the job, cancel it, or put it back to be resumed; whether any thread drives it."""
        with self._handing_over:
            self._commands.append(Command(verb, job))
            self._inbox.put(NUDGE)
            return self._driven

    def dismiss(self) -> None:
        """Have a thread that only lingers go now."""
        self._inbox.put(NUDGE)

    def idle(self) -> bool:
        """Whether there is nothing to drive."""
        return not self._jobs and not self._commands

    def drive(self, until: Callable[[], bool] = lambda: False, *, linger: float = 0.0) -> None:
        """Turn until *until*, or until nothing is left to drive. One thread at a time: others wait for it.

        With *linger*, wait as many seconds for another job before giving the thread up.
        """
        with self._driving, self._logged():
            self._driven = True
            try:
                while not until() and self._has_work(linger):
                    try:
                        self.turn()
                    except BaseException as exc:
                        self._agenda.touch(self._jobs.values())  # what it was about to look at, nobody knows
                        if isinstance(exc, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                            raise  # the user's: it ends the waiting, and what waits says what becomes of the job
                        with self._handing_over:  # whoever asks from now on is told that nobody drives
                            self._driven = False
                            asked = [command.job for command in self._commands]
                            self._commands.clear()
                        self._give_up([*self._jobs.values(), *asked], exc)
                        if not isinstance(exc, Exception):
                            raise
            finally:
                self._driven = False

    # For the turns

    def _forget(self, job: ActiveJob) -> None:
        self._agenda.drop(job)
        self._jobs.pop(job.job_id, None)  # last: until then it is this loop's to end, whatever happens

    def _asked(self) -> Command | None:
        """The next command that is to be obeyed, or None."""
        with self._handing_over:
            return self._commands.popleft() if self._commands else None

    def _has_work(self, linger: float) -> bool:
        if linger and self.idle():
            with contextlib.suppress(Empty):
                message = self._inbox.get(timeout=linger)
                if message is not NUDGE:
                    self._inbox.put(message)  # nothing else is in there, so no order is changed
        with self._handing_over:  # whoever asks from now on is told that nobody drives
            self._driven = not self.idle()
            return self._driven
