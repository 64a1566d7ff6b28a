"""One job while it is driven: where it stands, what waits, what is out, and what is yet to be written.

Nothing here acts: reports go in, changes for the store and tasks to send come out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Literal, NamedTuple

from geoflow.core.batch import Batch, Completed
from geoflow.core.chunking import Pace
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Category, Failure, JobStatus, OnFailure, Outcome, Stage
from geoflow.core.queue import NOT_PLANNED, TaskQueue
from geoflow.core.retry import Retry, RetryPolicy, decide
from geoflow.core.rows import Again, FailedRow, JobRow, Lease, Move, StageRow, Take
from geoflow.core.transitions import MAX_LOSSES, Finalize, Plan, View
from geoflow.jobtypes.contract import Registered
from geoflow.support.parcel import Texts
from geoflow.support.surroundings import Surroundings
from geoflow.usercode.packing import Code

_numbers = count()  # of all runs: the older one comes first
CLASS = ""  # what its class goes by among a job's codes
Intent = Literal["go on", "resume", "retry", "rerun", "refinalize"]
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


class Changes(NamedTuple):
    """What the store has yet to hear of a job's tasks."""

    moves: list[Move]
    attempts: list[Attempt]
    completed: list[Completed]


class JobRun:
    """A job that is driven in this process."""

    def __init__(
        self,
        row: JobRow,
        lease: Lease,
        job_type: Registered,
        codes: Mapping[str, Code],
        options: Options,
        *,
        intent: Intent = "go on",
        again: Again | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.number = next(_numbers)
        self.row = row
        self.surroundings = surroundings
        self.lease = lease
        self.job_type = job_type
        self.codes = codes
        self.options = options
        self.intent = intent
        self.again = again or Again()
        self.parameters = self.again.parameters or row.parameters
        self.done = threading.Event()
        self.on_done: Callable[[JobRun], None] = lambda run: None
        self.error: BaseException | None = None
        self.interrupted = False
        self.asked: Plan | Finalize | None = None  # what user code is at, or is about to be sent for
        self.asked_again = 0
        self.to_send: Chunk | None = None
        self.files: list[str] = []  # that what is asked travels by
        self.failures: list[FailedRow] = []
        self._changes = Changes([], [], [])
        self.stand_at(row)
        self.begin(None)

    @property
    def job_id(self) -> str:
        return self.row.job_id

    @property
    def refinalizing(self) -> bool:
        return self.intent == "refinalize"

    def finish(self) -> None:
        """Nothing drives it any more: wake who waits, and have it let go of."""
        self.done.set()
        self.on_done(self)

    # Where it stands

    def stand_at(self, row: JobRow) -> None:
        """Stand where the store says, but for the tasks of its stage; see `begin`."""
        self.row = row
        self.status = row.status
        self.closed = row.status in (JobStatus.COMPLETED, JobStatus.CANCELLED) or row.ended_at is not None
        self.stage_number = row.stage

    def begin(
        self,
        planned: StageRow | None,
        counts: Mapping[str, int] = MappingProxyType({}),
        *,
        order: Sequence[int] | None = None,
        tried: Sequence[tuple[int, float | None]] = (),
        failures: Sequence[FailedRow] = (),
    ) -> None:
        """Begin with the stage *planned*, whose tasks are in the states of *counts*, or with one that is not planned.

        For *order* and *tried* see `TaskQueue`; *failures* are the tasks that have failed for good.
        """
        self.planned = planned
        if planned is not None:
            self.stage_number = planned.stage
        queued, most = counts.get("queued", 0), self.options.policy.max_delay
        self.queue = TaskQueue(planned or NOT_PLANNED, queued, order=order, tried=tried, most=most)
        self.counts = {state: counts.get(state, 0) for state in ("processing", "completed", "failed", "cancelled")}
        self.failures = list(failures)
        self.pace = Pace()

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
            queued=len(self.queue),
            **self.counts,
            on_failure=self.on_failure,
            closed=self.closed,
            asked=self.asked,
            refinalizing=self.refinalizing,
        )

    def can_start(self, now: float) -> bool:
        """Whether a task is ready to go out, and the stage lets one more run."""
        return self.queue.is_ready(now) and (
            self.stage.workers is None or self.counts["processing"] < self.stage.workers
        )

    # Changes for the store

    def take_changes(self) -> Changes:
        """What is yet to be written, in order; it is then the caller's to write."""
        changes, self._changes = self._changes, Changes([], [], [])
        return changes

    def _move(self, event: str, keys: Sequence[int], to: str | None = None, not_before: float | None = None) -> None:
        """Tasks that were processing are *to* be in another state; None is queued."""
        if keys:
            self._changes.moves.append(Move(event, keys, not_before))
            self.counts["processing"] -= len(keys)
            if to is not None:
                self.counts[to] += len(keys)

    # Tasks that go out

    def wish(self, room: int, slots: int, seconds: float, now: float) -> Take | None:
        """What to start in as many as *room* chunks of about so many *seconds*, or None.

        The tasks of a stage that few workers may run at once go alone: what is out can then be counted.
        """
        if self.stage.workers is not None:
            room, seconds = min(room, self.stage.workers - self.counts["processing"]), 0.0
        return self.queue.take(room, lambda new: self.pace.chunk_size(new, slots, seconds), now)

    def started(self, number: int, batch: Batch, wished: Sequence[int], patience: float) -> Chunk:
        """The tasks of *batch*, which the store says have started, ready to be sent; see `Chunk` for *patience*.

        *wished* is the group of the wish that it answers, if it answers one.
        """
        self.queue.started(batch.keys, wished, new=batch.is_new)
        self.counts["processing"] += len(batch.keys)
        timeout = self.stage.timeout or self.options.task_timeout
        return self._chunk(number, "tasks", self.stage_number, self.codes[batch.task_type], batch, timeout, patience)

    def ask(self, step: Plan | Finalize, number: int, argument: str, texts: Texts, answer: str | None = None) -> None:
        """Have user code called for a *step*, as soon as the chunk with its *argument* and *texts* can be sent."""
        match step:
            case Plan(stage):
                kind: Literal["plan", "finalize"] = "plan"
                timeout = self.options.plan_timeout
            case Finalize():
                kind, stage, timeout = "finalize", self.stage_number, self.options.finalize_timeout
        self.asked, self.asked_again = step, 0
        batch = Batch(kind, 1, 0, 0, 0, (0,), f'["{kind}"]', f"[{argument}]")
        chunk = self._chunk(number, kind, stage, self.codes[CLASS], batch, timeout)
        self.to_send = chunk._replace(texts=texts, answer=answer)

    def asks_again(self, failure: Failure | None) -> bool:
        """Whether a plan whose process died is to be made once more, which is then counted: as for a task (S30)."""
        is_lost_plan = isinstance(self.asked, Plan) and failure is not None and failure.category == Category.LOST
        if not is_lost_plan or self.asked_again >= self.policy.max_retries:
            return False
        self.asked_again += 1
        return True

    def _chunk(
        self,
        number: int,
        kind: Literal["tasks", "plan", "finalize"],
        stage: int,
        code: Code,
        batch: Batch,
        timeout: float | None,
        patience: float = 0.0,
    ) -> Chunk:
        job, policy, known = self.job_type, self.options.policy, tuple(self.job_type.handlers)
        named = (number, kind, self.job_id, job.name, stage, code, batch, policy, timeout, known)
        return Chunk(*named, patience, surroundings=self.surroundings)

    # What came back

    def settle(self, report: Report, now: float) -> list[tuple[Attempt, FailedRow]]:
        """Take in what became of a chunk of tasks. Returns the attempts that failed their task for good, and these."""
        batch, policy = report.chunk.batch, self.policy
        completed, attempts = report.completed, report.attempts
        if completed is not None and not batch.is_new:  # it may have waited for a retry, which its attempt says
            attempts = [*attempts, *completed.attempts()]
            completed = None
        done: list[int] = []
        failed: list[Attempt] = []
        retried: dict[float, list[int]] = {}
        if completed is not None:
            self._changes.completed.append(completed)
            self._move("complete", completed.keys, "completed")
        for reported in attempts:
            key, failure = reported.key, reported.failure
            attempt = reported
            if (wait := self.queue.settled(key)) is not None:
                attempt = reported._replace(queued_at=wait.since, backoff=wait.delay)
            self._changes.attempts.append(attempt)
            if failure is None:
                done.append(key)
                continue
            match decide(failure, batch.retries, policy):
                case Retry(delay):
                    retried.setdefault(delay, []).append(key)
                    self.queue.retry(key, delay, now)
                case _:
                    failed.append(attempt)
        for delay, keys in retried.items():
            self._move("retry", keys, not_before=now + delay)
        self._move("complete", done, "completed")
        failed += self._lose(batch, report.lost, suspects=report.suspects)
        final = self._fail(batch, failed)
        self._release(batch, report.unstarted)
        ended = len(attempts) + (len(completed.keys) if completed is not None else 0)
        length = len(batch.parameters) * ended // len(batch.keys) if batch.keys else 0
        length += sum(map(len, completed.results)) if completed is not None else 0
        self.pace.observe(ended, report.seconds or _seconds(attempts), length)
        return final

    def _fail(self, batch: Batch, attempts: Sequence[Attempt]) -> list[tuple[Attempt, FailedRow]]:
        self._move("fail", [attempt.key for attempt in attempts], "failed")
        names = dict(zip(batch.keys, batch.names(), strict=True)) if attempts else {}
        rows = []
        for attempt in attempts:
            assert attempt.failure is not None
            error = f"{attempt.failure.error_type}: {attempt.failure.error}"
            place, name = attempt.key - batch.first_key, names[attempt.key]
            rows.append(FailedRow(place, name, batch.task_type, batch.retries, error))
        self.failures += rows
        return list(zip(attempts, rows, strict=True))

    def _lose(self, batch: Batch, keys: Sequence[int], *, suspects: bool) -> list[Attempt]:
        """Account for what was running; the attempts that were one too many."""
        if suspects and batch.losses + 1 >= MAX_LOSSES:
            last = [_unseen(key, batch.attempt, Outcome.FAILED, _TOO_OFTEN) for key in keys]
            self._changes.attempts.extend(last)
            return last
        if keys:
            self._changes.attempts.extend(_unseen(key, batch.attempt, Outcome.LOST, _LOST) for key in keys)
            self._move("lose" if suspects else "requeue", keys)
            self.queue.put_back(keys, new=batch.is_new and not suspects)
        return []

    def _release(self, batch: Batch, keys: Sequence[int]) -> None:
        if keys:
            self._move("release", keys)
            self.queue.put_back(keys, new=batch.is_new)

    def recover(self, left: Sequence[tuple[int, int, int]], ran: frozenset[int] | None) -> None:
        """Account for tasks *left* in processing, as (key, attempt, losses), by an engine that is gone.

        *ran* are those that ran when it died, where that is known; only these come closer to `MAX_LOSSES`.
        """
        moves: dict[str, list[int]] = {}
        for key, attempt, losses in left:
            suspect = ran is None or key in ran
            too_often = suspect and losses + 1 >= MAX_LOSSES
            outcome, why = (Outcome.FAILED, _TOO_OFTEN) if too_often else (Outcome.LOST, _ENGINE)
            self._changes.attempts.append(_unseen(key, attempt, outcome, why))
            moves.setdefault("fail" if too_often else "lose" if suspect else "requeue", []).append(key)
        self._changes.moves.extend(Move(event, keys) for event, keys in moves.items())

    def give_up(self, reports: Sequence[Report], outcome: Outcome) -> tuple[list[int], list[int]]:
        """Let go of what was stopped: (keys that had begun, keys that had not). Their attempts are kept."""
        begun: list[int] = []
        unstarted: list[int] = []
        why = Failure(f"the job was {outcome}", str(outcome).capitalize(), "lost", True)
        for report in reports:
            begun += report.lost
            unstarted += report.unstarted
            number, failure = report.chunk.batch.attempt, why if outcome == Outcome.INTERRUPTED else None
            stopped = [_unseen(key, number, outcome, failure) for key in report.lost]
            if stopped:
                stopped[-1] = stopped[-1]._replace(output=report.printed)
            self._changes.attempts.extend(stopped)
        return begun, unstarted


def _seconds(attempts: Sequence[Attempt]) -> float:
    ended = [attempt.ended_at for attempt in attempts if attempt.ended_at is not None]
    started = attempts[0].started_at if attempts else None
    return max(ended[-1] - started, 0.0) if ended and started is not None else 0.0


def _unseen(key: int, number: int, outcome: Outcome, failure: Failure | None) -> Attempt:
    """An attempt that nobody saw the end of."""
    return Attempt(key, number, outcome, None, None, failure=failure)
