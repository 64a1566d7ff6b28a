"""A slot as its driver sees it: the chunks it was sent, and who is to blame. `child` is what runs in its process."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Category, Failure
from geoflow.executors.child import Setup
from geoflow.executors.leftovers import clear_behind
from geoflow.executors.loaded_code import Held
from geoflow.executors.marker import SETTING_UP, Mark
from geoflow.executors.reports import from_answer, from_mark, has_ended, with_returned
from geoflow.executors.watch import Watch
from geoflow.executors.worker import Answer
from geoflow.executors.worker_process import WorkerProcess
from geoflow.support.memory import Kills, too_little
from geoflow.support.text import cut

logger = logging.getLogger("geoflow.executors")
MAX_START_FAILURES = 3
# An answer that is on its way is waited for so long before its process is ended.
ANSWER_SECONDS = 0.25
# How long the pool may take to see that its process has gone, and to hand over what that had told.
GONE_SECONDS = 0.5
_generations = count()  # of all slots: a late message is never taken for one of another process
WHILE = {"tasks": "while it ran this task", "plan": "while it made the plan", "finalize": "while it ran finalize_job"}
_UNHEARD = Failure(
    "the thread that sends to a worker process and hears it has ended, as when the system lets no other start",
    "WorkerDied",
    Category.LOST,
    True,
)


class Message(NamedTuple):
    """A chunk's future is done, in the process *generation* of the slot."""

    slot: int
    generation: int
    chunk: int
    future: Future[Any]


class WorkerLimits(NamedTuple):
    """After how many tasks, and from how many bytes on, a process is replaced; None is never."""

    tasks: int | None = None
    memory: float | None = None


class Slot:
    """One process at a time, replaced when it dies, and the chunks that it was sent."""

    def __init__(
        self,
        number: int,
        folder: Path,
        setup: Callable[[Path, Path], Setup],
        forget: Callable[[int], None],
        watch: Watch,
        start_timeout: float | None,
        limits: WorkerLimits,
        kills: Kills,
    ) -> None:
        self.number = number
        self.generation = next(_generations)
        self.chunks: deque[Chunk] = deque()
        self._futures: dict[int, Future[Any]] = {}  # by chunk
        self._folder = folder
        self._setup = setup
        self._forget = forget
        self._recalled: set[int] = set()
        self._start_failures = 0
        self._watch, self._start_timeout, self._kills = watch, start_timeout, kills
        self._sign: tuple[object, ...] = ()  # the last sign of life, and when it was first seen
        self._sign_since = 0.0
        self._most_tasks, self._most_memory = limits.tasks or math.inf, limits.memory or math.inf
        self._successor: WorkerProcess | None = None
        self._reported = self._written = 0  # the numbers of the last chunk that was, and that is known to be written
        self._unwritten: list[Path] = []  # what processes that are gone kept of chunks that are not
        self._begin()

    def _begin(self) -> None:
        self._drop_failed()
        self._process, self._successor = self._successor or self._made(self.generation), None
        self._mark = self._process.mark
        self._ran = 0

    def _drop_failed(self) -> None:
        if self._successor is not None and self._successor.has_failed:
            self._successor.leave()
            self._successor, self._ran = None, 0  # to be tried again, in a while

    def _made(self, generation: int) -> WorkerProcess:
        # Other files for each process: the last one may still write while it dies.
        stem = self._folder / f"slot-{self.number}-{generation}"
        return WorkerProcess(stem, self._setup, self._forget)

    def _replace(self) -> None:
        """Forget the process; the next chunk starts another."""
        self._unwritten += self._process.files()
        self._process.leave()
        self.generation = next(_generations)
        self.chunks.clear()
        self._futures.clear()
        self._recalled.clear()
        self._begin()

    def _retire(self) -> None:
        """The same for one that still runs and has nothing to do: it is ended as well."""
        self._process.close()  # a task may have left it a thread that goes on for ever
        self._replace()

    def _wear(self, answer: Answer) -> None:
        """Replace a process that a task made sick; have a successor ready for one that is old or large."""
        self._ran += answer.ran
        self._drop_failed()
        if answer.sick and not self.chunks:  # what it was sent behind comes back unbegun
            logger.info("a worker process is replaced: %s", answer.sick)
            self._retire()
        elif self._successor is None and (self._ran >= self._most_tasks or answer.memory > self._most_memory):
            self._successor = self._made(next(_generations))
            self._successor.warm_up()

    @property
    def is_due(self) -> bool:
        """Whether another process stands ready for the next chunk, once this one has done what it has."""
        return self._successor is not None and self._successor.is_warm

    @property
    def started(self) -> bool:
        return self._process.started

    def send(self, chunk: Chunk, inbox: SimpleQueue[Any]) -> None:
        if not self.chunks and (self.is_due or self._process.is_outdated(chunk.code)):
            self._retire()
        future, generation = self._process.submit(chunk), self.generation
        self.chunks.append(chunk)
        self._futures[chunk.number] = future
        future.add_done_callback(lambda done: inbox.put(Message(self.number, generation, chunk.number, done)))

    def answered(self, number: int, answer: Answer) -> list[Report]:
        self._futures.pop(number, None)
        if number in self._recalled:
            self._recalled.remove(number)
            return []
        if not self.chunks or self.chunks[0].number != number:
            return []  # it came twice: a slot answers in the order in which it was asked
        chunk = self.chunks.popleft()
        self._reported = number
        self._start_failures = 0
        held = self._process.held(chunk.code)
        if answer.held:
            self._process.holds(Held(*answer.held))
        elif answer.held is not None:
            self._process.lacks(chunk.code)
        self._wear(answer)
        return [from_answer(chunk, answer, self.number, held)]

    def written(self) -> None:
        """All that was reported is in the store: what was kept of it need be no longer."""
        if self._reported != self._written:
            self._written = self._reported
            self._mark.written(self._written)
        while self._unwritten:
            self._unwritten.pop().unlink(missing_ok=True)

    def recall_waiting(self) -> Report | None:
        """Take back the chunk that waits behind one that turned out long, while another slot has nothing to do."""
        if len(self.chunks) < 2 or self._mark.runs_long() is None:
            return None
        waiting = self.chunks[-1]
        self._mark.recall(waiting.number, rest=False)
        if self._mark.read().chunk != self.chunks[0].number:
            return None  # it begins just now, and answers for itself
        self.chunks.pop()
        self._recalled.add(waiting.number)
        return Report(waiting, unstarted=waiting.batch.keys)

    def recall_rest(self) -> Report | None:
        """Take back what has not begun of the chunk that runs, behind a call in it that turned out long."""
        if len(self.chunks) != 1 or (mark := self._mark.runs_long()) is None:
            return None
        (chunk,) = self.chunks
        keys = chunk.batch.keys
        if chunk.kind != "tasks" or mark.chunk != chunk.number or max(mark.position, 1) >= len(keys):
            return None
        self._mark.recall(chunk.number, rest=True)
        mark = self._mark.read()
        if mark.position < 0 or mark.position >= len(keys):
            return None  # it got to its end, and answers for itself
        # Should the call that the mark names now have seen the recall, its chunk's answer says that it did not begin.
        self.chunks[0] = chunk._replace(batch=chunk.batch._replace(keys=keys[: mark.position]))
        return Report(chunk, unstarted=keys[mark.position :])

    def check(self) -> list[Report]:
        """Whether the running call is past its time, a sign of life is, or the process gone without a word."""
        if not self.chunks or not self.started:
            return []
        chunk, mark = self.chunks[0], self._mark.read()
        if mark.chunk == chunk.number and mark.position > 0:
            if why := self._past_its_time(chunk, mark):
                self._process.dump_stack()
                if self._mark.read()[:3] != mark[:3]:
                    return []  # meanwhile it ended by itself
                failure = Failure(f"{why}, and its process was ended", "TaskTimeout", Category.TIMEOUT, True)
                return self._end(failure, mark)
        elif self._start_timeout is not None and self._silence(chunk, mark) > self._start_timeout:
            return self._silenced(chunk, mark)
        # A child of the worker may hold the pipe that would tell of its death (found with os.fork in a handler).
        if mark.pid and not self._process.is_alive():
            return self.died(None)
        return [] if self._process.is_heard() else self._end(_UNHEARD)

    def look(self) -> tuple[int, int] | None:
        """The key of the task that runs by itself, and how many bytes it has in memory, once that has been steady."""
        chunk, mark = self.chunks[0] if self.chunks else None, self._mark.read()
        if chunk is None or chunk.kind != "tasks" or len(chunk.batch.keys) != 1:
            return None
        if mark.chunk != chunk.number or mark.position < 1:
            return None
        had = self._process.steady(mark.since)
        return None if had is None else (mark.key, had)

    def _past_its_time(self, chunk: Chunk, mark: Mark) -> str | None:
        """Why the call that runs is to be ended, if it is."""
        if chunk.timeout is not None and self._watch.spent(mark.since) > chunk.timeout:
            return f"timed out: it ran longer than {chunk.timeout:g} s"
        idle = chunk.idle_timeout
        if idle is not None and self._silence(chunk, mark, *self._process.told()) > idle:
            return f"timed out: for {idle:g} s (idle_timeout) it neither printed nor told of its progress"
        return None

    def _silence(self, chunk: Chunk, mark: Mark, *told: object) -> float:
        """For how many seconds there was no sign of life: nothing of this has changed."""
        sign = (chunk.number, mark.pid, mark.chunk, mark.position, *told)
        if sign != self._sign:
            self._sign, self._sign_since = sign, self._watch.look()
        return self._watch.spent(self._sign_since)

    def _silenced(self, chunk: Chunk, mark: Mark) -> list[Report]:
        if not mark.pid:
            doing = "start"
            self._process.give_up_starting()
        elif mark.chunk == SETTING_UP:
            doing = "set itself up, and import what preload names"
        elif mark.chunk != chunk.number:
            doing = "take the work that it was sent"
        else:
            doing = "hand over its answer" if mark.position else f"load the code of {chunk.batch.task_type}"
        self._process.dump_stack()
        silence = f"gave no sign of life for {self._start_timeout:g} s (start_timeout)"
        what = f"a worker process was to {doing}, and {silence}"
        return self._end(Failure(what, "WorkerDied", Category.LOST, True))

    def stop(self, until: float) -> list[Report]:
        """End the process for the job's sake: nobody is to blame. An answer on its way is waited for, *until* then."""
        first = self.chunks[0]
        self._mark.recall(self.chunks[-1].number, rest=False)  # nothing more is to begin meanwhile
        if has_ended(first, self._mark.read()):
            wait([self._futures[first.number]], max(until - time.monotonic(), 0.0))
        return self._end(None)

    def died(self, error: BaseException | None) -> list[Report]:
        """The process ended by itself, or could not answer: the running call is to blame."""
        pid = self._mark.read().pid
        if error is not None:
            what = f"the worker's answer could not be read: {type(error).__name__}: {error}"
        else:
            # A plan or a finalize is sent to an idle slot, and nothing behind it: all that it has is of one kind.
            kind = next((chunk.kind for chunk in self.chunks), "tasks")
            who, when = (f" {pid}", WHILE[kind]) if pid else ("", "before it said anything")
            how, is_crowded = self._process.how_it_ended(out_of_memory=self._kills.look)
            what = f"worker process{who} {how} {when}"
            if is_crowded and kind == "tasks":
                what = f"{what}; {too_little(self._process.memory, self.chunks[0].budget)}"
                return self._end(Failure(what, "WorkerDied", Category.MEMORY, True))
        return self._end(Failure(what, "WorkerDied", Category.LOST, True))

    def _end(self, failure: Failure | None, judged: Mark | None = None) -> list[Report]:
        """End the process, and account for all that it was sent.

        *failure* is for the call that ran: for that of *judged*, where that is given.
        """
        chunks = list(self.chunks)
        if chunks:  # nor does one begin them that is only about to start, and cannot be ended yet
            self._mark.recall(chunks[-1].number, rest=False)
        self._process.kill()
        # What it had told by then is told; and only once it is gone does its mark stand still.
        wait([self._futures[chunk.number] for chunk in chunks], GONE_SECONDS)
        mark = self._mark.read()
        if judged is not None and mark[:3] != judged[:3]:
            failure = None
        clear_behind(self._folder, mark.pid)
        printed = self._process.printed()
        has_died = failure is not None and failure.error_type == "WorkerDied"
        memory = self._process.remembered(mark.since) if has_died else None
        trouble = self._process.trouble
        futures, returned = dict(self._futures), self._process.returned()
        self._replace()
        reports = []
        for chunk in chunks:
            answer = _told(futures[chunk.number])
            if answer is not None:
                reports.append(from_answer(chunk, answer, self.number))
                continue
            ran = time.monotonic() - mark.since
            begun = from_mark(chunk, mark, failure, printed, self.number, time.time(), ran, memory)
            if begun is None:
                why = "\n".join(filter(None, (trouble or failure.error, printed))) if failure is not None else None
                begun = self._unstarted(chunk, why)
            else:
                self._start_failures = 0
                begun = with_returned(begun, returned.get(chunk.number))
            reports.append(begun)
            failure = None  # of several that it did not tell of, only the first is what it died with
        return reports

    def _unstarted(self, chunk: Chunk, why: str | None) -> Report:
        """The process ended before any call; *why*, unless it was on demand."""
        broken = None
        if why is not None:
            self._start_failures += 1
            if self._start_failures >= MAX_START_FAILURES:
                what = f"Worker processes cannot start: {self._start_failures} in a row ended before any work."
                broken = f"{what} {cut(why, 4_000)}"
        return Report(chunk, unstarted=chunk.batch.keys, broken=broken)

    def close(self) -> None:
        if self.chunks:
            self._process.kill()
        self._process.close()
        if self._successor is not None:
            self._successor.close()


def _told(future: Future[Any]) -> Answer | None:
    """What the process answered, should it have."""
    has_answered = future.done() and not future.cancelled() and future.exception() is None
    return Answer(*future.result()) if has_answered else None
