"""One job while it is driven: where it stands, what waits, what is out, and what is yet to be written.

Nothing here acts: reports go in, changes for the store and tasks to send come out.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from geoflow.contract import JobType
from geoflow.executors.base import Chunk, Report
from geoflow.models import Attempt, Call, Category, Failure, JobStatus, OnFailure, Outcome, Stage
from geoflow.pace import Pace
from geoflow.retry import Retry, RetryPolicy, decide
from geoflow.stores.base import FailedRow, JobRow, Lease, Move, StageRow, TaskRow
from geoflow.transitions import MAX_LOSSES, View
from geoflow.transport import Code

Intent = Literal["go on", "resume", "rerun", "refinalize"]
_LOST = Failure("its worker process ended, through no fault of its own; it runs again, uncharged", "Lost", "lost", True)
_ENGINE = Failure("the process that drove the job ended; it runs again, uncharged", "EngineLost", "lost", True)
_TOO_OFTEN = Failure(
    f"it ran each of the {MAX_LOSSES} last times that its worker or the process driving the job was killed, and may be "
    "what kills it",
    "EngineLost",
    Category.LOST,
    True,
)


@dataclass(frozen=True, slots=True)
class Options:
    """How a job is run, where its stages do not say otherwise. Times are in seconds."""

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    on_failure: OnFailure = "drain"
    task_timeout: float | None = None
    plan_timeout: float | None = None
    finalize_timeout: float | None = None


class JobRun:
    """A job that is driven in this process."""

    def __init__(
        self,
        row: JobRow,
        lease: Lease,
        job_type: JobType,
        codes: Mapping[str, Code],
        class_code: Code,
        options: Options,
        *,
        intent: Intent = "go on",
        parameters: str | None = None,
    ) -> None:
        self.row = row
        self.lease = lease
        self.job_type = job_type
        self.codes = codes
        self.class_code = class_code
        self.options = options
        self.intent = intent
        self.parameters = parameters or row.parameters
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.interrupted = False
        self.asked: tuple[str, int] | None = None  # a plan or finalize that is on its way, and its stage
        self.to_send: Chunk | None = None
        self.failures: list[FailedRow] = []
        self._moves: list[Move] = []
        self._attempts: list[Attempt] = []
        self.stand_at(row, None, {})

    @property
    def job_id(self) -> str:
        return self.row.job_id

    @property
    def refinalizing(self) -> bool:
        return self.intent == "refinalize"

    # Where it stands

    def stand_at(self, row: JobRow, planned: StageRow | None, counts: Mapping[str, int]) -> None:
        """Stand where the store says: at *row*'s stage, which is *planned* or not yet."""
        self.row = row
        self.status = row.status
        self.closed = row.status in (JobStatus.COMPLETED, JobStatus.CANCELLED) or row.ended_at is not None
        self.stage_number = row.stage
        self.planned_at(planned, counts)

    def planned_at(self, planned: StageRow | None, counts: Mapping[str, int]) -> None:
        """Begin with the stage *planned*, whose tasks are in the states of *counts*."""
        self.planned = planned
        if planned is not None:
            self.stage_number = planned.stage
        self.counts = {state: counts.get(state, 0) for state in ("queued", "processing", "completed", "failed")}
        self.counts["cancelled"] = counts.get("cancelled", 0)
        self.pace = Pace()
        self._ready: deque[TaskRow] = deque()
        self._waiting: list[tuple[float, int, TaskRow]] = []
        self._out: dict[int, TaskRow] = {}
        self._requeued: dict[int, tuple[float, float | None]] = {}
        self._cursor = planned.first_key - 1 if planned else 0
        self.failures = []

    @property
    def stage(self) -> Stage:
        return self.job_type.stages[self.stage_number - 1]

    @property
    def on_failure(self) -> OnFailure:
        return self.stage.on_failure or self.options.on_failure

    @property
    def policy(self) -> RetryPolicy:
        policy, retries = self.options.policy, self.stage.max_retries
        return policy if retries is None else policy.model_copy(update={"max_retries": retries})

    def view(self) -> View:
        return View(
            self.status,
            self.stage_number,
            len(self.job_type.stages),
            self.planned is not None,
            **self.counts,
            on_failure=self.on_failure,
            closed=self.closed,
        )

    def due(self) -> float | None:
        """When the next task that waits for its retry may start."""
        return self._waiting[0][0] if self._waiting else None

    # Changes for the store

    def take_changes(self) -> tuple[list[Move], list[Attempt]]:
        """What is yet to be written, in order; it is then the caller's to write."""
        moves, self._moves = self._moves, []
        attempts, self._attempts = self._attempts, []
        return moves, attempts

    def _move(self, event: str, keys: Sequence[int], to: str | None, not_before: float | None = None) -> None:
        if keys:
            self._moves.append(Move(event, keys, not_before))
            self.counts["processing"] -= len(keys)
            if to is not None:
                self.counts[to] += len(keys)

    # Tasks that go out

    def next_tasks(self, size: int, now: float, read: Callable[[int, int], list[TaskRow]]) -> list[TaskRow]:
        """Up to *size* tasks of one type that may start now, marked as started; *read* gives more of the queue.

        A task that failed or was lost before goes alone, so that it can take no neighbour with it.
        """
        while self._waiting and self._waiting[0][0] <= now:
            self._ready.append(heapq.heappop(self._waiting)[2])
        while len(self._ready) < size and self._cursor >= 0:
            rows = read(self._cursor, max(2 * size, 1_000))
            self._cursor = rows[-1].key if rows else -1
            for row in rows:
                if row.not_before is not None:
                    self._requeued.setdefault(row.key, (row.not_before, None))
                if row.not_before is not None and row.not_before > now:
                    self._wait(row, row.not_before)
                else:
                    self._ready.append(row)
        if not self._ready:
            return []
        tasks = [self._ready.popleft()]
        alone = tasks[0].retries or tasks[0].losses
        while self._ready and len(tasks) < size and not alone:
            following = self._ready[0]
            if following.task_type != tasks[0].task_type or following.retries or following.losses:
                break
            tasks.append(self._ready.popleft())
        self._out.update((task.key, task) for task in tasks)
        self._moves.append(Move("start", [task.key for task in tasks]))
        self.counts["queued"] -= len(tasks)
        self.counts["processing"] += len(tasks)
        return tasks

    def chunk(self, number: int, tasks: Sequence[TaskRow]) -> Chunk:
        """*tasks*, which are of one type, ready to be sent."""
        calls = tuple(
            Call(task.key, task.task_id, task.task_index, task.task_type, task.attempt + 1, task.parameters)
            for task in tasks
        )
        timeout = self.stage.timeout or self.options.task_timeout
        return self._chunk(number, "tasks", self.stage_number, self.codes[tasks[0].task_type], calls, timeout)

    def question(
        self, number: int, kind: Literal["plan", "finalize"], stage: int, argument: str, timeout: float | None
    ) -> Chunk:
        """A plan or a finalize, ready to be sent."""
        return self._chunk(number, kind, stage, self.class_code, (Call(0, kind, 0, kind, 1, argument),), timeout)

    def _chunk(
        self,
        number: int,
        kind: Literal["tasks", "plan", "finalize"],
        stage: int,
        code: Code,
        calls: tuple[Call, ...],
        timeout: float | None,
    ) -> Chunk:
        policy, known = self.options.policy, tuple(self.job_type.handlers)
        return Chunk(number, kind, self.job_id, self.job_type.name, stage, code, calls, policy, timeout, known)

    def _wait(self, task: TaskRow, until: float) -> None:
        heapq.heappush(self._waiting, (until, task.key, task))

    # What came back

    def settle(self, report: Report, now: float) -> list[Attempt]:
        """Take in what became of a chunk of tasks. Returns the attempts that failed their task for good."""
        completed: list[int] = []
        final: list[Attempt] = []
        for reported in report.attempts:
            task = self._out.pop(reported.key)
            attempt = reported
            if reported.key in self._requeued:
                queued_at, backoff = self._requeued.pop(reported.key)
                attempt = reported._replace(queued_at=queued_at, backoff=backoff)
            self._attempts.append(attempt)
            if attempt.failure is None:
                completed.append(attempt.key)
                continue
            match decide(attempt.failure, task.retries, self.policy):
                case Retry(delay):
                    self._move("retry", [task.key], "queued", now + delay)
                    self._requeued[task.key] = (now, delay)
                    again = task._replace(attempt=attempt.attempt, retries=task.retries + 1, losses=0)
                    self._wait(again, now + delay)
                case _:
                    self._fail(task, attempt.failure)
                    final.append(attempt)
        self._move("complete", completed, "completed")
        self._lose(report.lost, _LOST, suspects=report.suspects)
        self._release(report.unstarted)
        if report.attempts:
            ended = [attempt.ended_at for attempt in report.attempts if attempt.ended_at is not None]
            started = report.attempts[0].started_at
            if ended and started is not None:
                self.pace.observe(len(report.attempts), max(ended[-1] - started, 0.0))
        return final

    def _fail(self, task: TaskRow, failure: Failure) -> None:
        self._move("fail", [task.key], "failed")
        error = f"{failure.error_type}: {failure.error}"
        self.failures.append(FailedRow(task.task_index, task.task_id, task.task_type, task.retries, error))

    def _lose(self, keys: Sequence[int], why: Failure, *, suspects: bool) -> None:
        for key in keys:
            task = self._out.pop(key)
            if suspects and task.losses + 1 >= MAX_LOSSES:
                self._attempts.append(_unseen(task, Outcome.FAILED, _TOO_OFTEN))
                self._fail(task, _TOO_OFTEN)
                continue
            self._attempts.append(_unseen(task, Outcome.LOST, why))
            self._move("lose" if suspects else "requeue", [key], "queued")
            self._ready.appendleft(task._replace(attempt=task.attempt + 1, losses=task.losses + suspects))

    def _release(self, keys: Sequence[int]) -> None:
        self._move("release", keys, "queued")
        tasks = [self._out.pop(key) for key in keys]
        self._ready.extendleft(reversed(tasks))

    def recover(self, left: Sequence[tuple[int, int, int]], ran: frozenset[int] | None) -> None:
        """Account for tasks *left* in processing, as (key, attempt, losses), by an engine that is gone.

        *ran* are those that ran when it died, where that is known; only these come closer to `MAX_LOSSES`.
        """
        for key, attempt, losses in left:
            task = TaskRow(key, "", 0, "", attempt - 1, 0, losses, None, "{}")
            suspect = ran is None or key in ran
            if suspect and losses + 1 >= MAX_LOSSES:
                self._attempts.append(_unseen(task, Outcome.FAILED, _TOO_OFTEN))
                self._moves.append(Move("fail", [key]))
            else:
                self._attempts.append(_unseen(task, Outcome.LOST, _ENGINE))
                self._moves.append(Move("lose" if suspect else "requeue", [key]))

    def give_up(self, reports: Sequence[Report], outcome: Outcome) -> tuple[list[int], list[int]]:
        """Let go of the chunks that were stopped: (keys that had begun, keys that had not). Their attempts are kept."""
        begun: list[int] = []
        unstarted: list[int] = []
        for report in reports:
            if report.chunk.kind == "tasks":
                begun += report.lost
                unstarted += report.unstarted
        why = Failure(f"the job was {outcome}", str(outcome).capitalize(), "lost", True)
        for key in begun:
            task = self._out.pop(key)
            self._attempts.append(_unseen(task, outcome, why if outcome == Outcome.INTERRUPTED else None))
        for key in unstarted:
            self._out.pop(key)
        return begun, unstarted


def _unseen(task: TaskRow, outcome: Outcome, failure: Failure | None) -> Attempt:
    """An attempt that nobody saw the end of."""
    return Attempt(task.key, task.attempt + 1, outcome, None, None, failure=failure)
