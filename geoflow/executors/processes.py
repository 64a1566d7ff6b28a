"""Slots: process pools of one worker each, so that a process that dies takes exactly one task with it.

A slot's file of memory (its mark) says which call runs; that is how a timeout and a death find the one to blame. All
processes start from a fork server, or by spawn where there is none, never as a fork of a kernel with threads.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from geoflow.core.chunking import CHUNK_SECONDS
from geoflow.core.chunks import Chunk, Report
from geoflow.executors.child import Setup
from geoflow.executors.leftovers import remove, sign, sweep
from geoflow.executors.lifeline import Lifeline
from geoflow.executors.slots import ANSWER_SECONDS, Message, Slot, WorkerLimits
from geoflow.executors.spawning import SHORT_FOLDER
from geoflow.executors.watch import Watch
from geoflow.executors.worker import Answer
from geoflow.support.identity import label
from geoflow.support.masking import DEFAULT_SECRETS
from geoflow.support.memory import Kills, of_process


class ProcessExecutor:
    """*slots* worker processes. Nothing is started before the first chunk."""

    chunk_seconds = CHUNK_SECONDS

    def __init__(
        self,
        slots: int,
        *,
        preload: tuple[str, ...] = (),
        start_timeout: float | None = 60.0,
        output_limit: int = 64_000,
        log_file: Path | None = None,
        log_level: str = "INFO",
        secrets: tuple[str, ...] = DEFAULT_SECRETS,
        limits: WorkerLimits | None = None,
    ) -> None:
        self.slots = slots
        self._preload = preload
        self._watch, self._start_timeout = Watch(), start_timeout
        self._output_limit = output_limit
        self._limits = limits or WorkerLimits()
        self._log = (None if log_file is None else str(log_file.absolute()), log_level, secrets)
        self._slots: list[Slot] = []
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._folder: Path | None = None
        self._lifeline: Lifeline | None = None
        self._opening = threading.Lock()
        self._kills, self._next_look_at_kills = Kills(), 0.0

    def start(self, inbox: SimpleQueue[Any]) -> None:
        self._inbox = inbox

    def _open(self) -> None:
        with self._opening:  # also in threads that submit, which say `where` they will run
            if self._slots:
                return
            try:
                self._folder = Path(tempfile.mkdtemp(prefix=label()))
                sign(self._folder)
                self._lifeline = Lifeline(self._folder)
                forget = self._lifeline.forget
                shared = (
                    self._folder,
                    self._setup,
                    forget,
                    self._watch,
                    self._start_timeout,
                    self._limits,
                    self._kills,
                )
                self._slots = [Slot(number, *shared) for number in range(self.slots)]
            except BaseException:  # an interrupt, mostly: the next call begins anew
                self.close()
                raise

    def _setup(self, mark: Path, output: Path) -> Setup:
        registry = self._lifeline.registry if self._lifeline else None
        environment, weighs = dict(os.environ), self._limits.memory is not None
        return Setup(
            str(mark), str(output), self._output_limit, registry, environment, self._preload, weighs, *self._log
        )

    def where(self) -> str | None:
        self._open()
        return str(self._folder)

    def capacity(self, job_id: str, *, reserve: bool) -> int:
        self._open()
        idle = sum(1 for slot in self._slots if not slot.chunks)
        if not reserve:
            return idle
        behind = [slot for slot in self._slots if len(slot.chunks) == 1 and not slot.is_due]
        return idle * 2 + sum(1 for slot in behind if slot.chunks[0].job_id == job_id)

    def submit(self, chunk: Chunk) -> None:
        def burden(slot: Slot) -> tuple[bool, int, bool, bool]:
            foreign = any(other.job_id != chunk.job_id for other in slot.chunks)
            return foreign, len(slot.chunks), slot.is_due, not slot.started

        slot = min(self._slots, key=burden)
        slot.send(chunk, self._inbox)

    def run_here(self) -> bool:
        return False

    def collect(self, message: Message) -> list[Report]:
        slot = self._slots[message.slot] if self._slots else None
        if slot is None or message.generation != slot.generation:
            return []  # of a process that was ended meanwhile and accounted for then
        error = message.future.exception()
        if error is None:
            return slot.answered(message.chunk, Answer(*message.future.result()))
        return slot.died(None if isinstance(error, BrokenProcessPool) else error)

    def written(self) -> None:
        for slot in self._slots:
            slot.written()

    def check(self) -> list[Report]:
        if (now := self._watch.look()) >= self._next_look_at_kills:  # an old one is to explain no later death
            self._next_look_at_kills = now + 1.0
            self._kills.look()
        reports = [report for slot in self._slots for report in slot.check()]
        idle = sum(1 for slot in self._slots if not slot.chunks)
        for slot in self._slots:
            if idle and (recalled := slot.recall_waiting() or slot.recall_rest()):
                reports.append(recalled)
                idle -= 1
        return reports

    def stop(self, job_id: str) -> list[Report]:
        concerned = [slot for slot in self._slots if any(chunk.job_id == job_id for chunk in slot.chunks)]
        until = time.monotonic() + ANSWER_SECONDS
        return [report for slot in concerned for report in slot.stop(until)]

    def busy(self) -> bool:
        return any(slot.chunks for slot in self._slots)

    def looks(self) -> dict[int, int] | None:
        if of_process(os.getpid()) is None:
            return None
        return dict(look for slot in self._slots if (look := slot.look()) is not None)

    def close(self) -> None:
        slots, lifeline, folder = self._slots, self._lifeline, self._folder
        self._slots, self._lifeline, self._folder = [], None, None
        with contextlib.ExitStack() as each:  # whatever one of them raises, from the last to the first
            if folder is not None:
                for temp in {tempfile.gettempdir(), SHORT_FOLDER}:
                    each.callback(sweep, Path(temp))
                each.callback(remove, folder)
            if lifeline is not None:
                each.callback(lifeline.close)
            for slot in slots:
                each.callback(slot.close)
