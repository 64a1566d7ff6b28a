"""One job while it is driven: where it stands, what waits, what is out, and what is yet to be written.

Nothing here acts: reports go in, changes for the store and tasks to send come out.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, NamedTuple

from geoflow.core.batch import Batch, Completed
from geoflow.core.chunking import Pace
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Category, Failure, JobStatus, OnFailure, Outcome, Stage
from geoflow.core.retry import Retry, RetryPolicy, decide
from geoflow.core.rows import Again, FailedRow, JobRow, Lease, Move, StageRow, Take
from geoflow.core.transitions import MAX_LOSSES, View
from geoflow.jobtypes.contract import JobType
from geoflow.support.parcel import Texts
from geoflow.support.surroundings import Surroundings
from geoflow.usercode.packing import Code

CLOCK_SLACK = 1.0  # seconds by which a clock may be corrected without its counting as set
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
        job_type: JobType,
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
        self.asked: tuple[str, int] | None = None  # a plan or finalize that is on its way, and its stage
        self.asked_again = 0
        self.to_send: Chunk | None = None
        self.files: list[str] = []  # that what is asked travels by
        self.failures: list[FailedRow] = []
        self._changes = Changes([], [], [])
        self.stand_at(row, None, {})

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
        self._cursor = planned.first_key - 1 if planned else 0  # new tasks with higher keys have yet to go out
        self._largest: deque[int] | None = None  # or these, in this order
        self._returned: list[tuple[float, int]] = []  # queued tasks that are not new: (when they may start, key)
        self._requeued: dict[int, tuple[float, float | None]] = {}
        self.failures = []

    def start_first(self, largest: Sequence[int]) -> None:
        """Have the new tasks go out in this order."""
        self._largest = deque(largest)

    def returned_before(self, returned: Sequence[tuple[int, float | None]]) -> None:
        """Remember queued tasks that failed or were lost under an engine before this one."""
        for key, not_before in returned:
            heapq.heappush(self._returned, (not_before or 0.0, key))
            if not_before is not None:
                self._requeued[key] = (not_before, None)

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
        return self._returned[0][0] if self._returned else None

    def can_start(self, now: float) -> bool:
        """Whether a task is ready to go out, and the stage lets one more run."""
        ready = self.counts["queued"] > len(self._returned) or (self._returned and self._returned[0][0] <= now)
        return bool(ready) and (self.stage.workers is None or self.counts["processing"] < self.stage.workers)

    # Changes for the store

    def take_changes(self) -> Changes:
        """What is yet to be written, in order; it is then the caller's to write."""
        changes, self._changes = self._changes, Changes([], [], [])
        return changes

    def _move(self, event: str, keys: Sequence[int], to: str, not_before: float | None = None) -> None:
        if keys:
            self._changes.moves.append(Move(event, keys, not_before))
            self.counts["processing"] -= len(keys)
            self.counts[to] += len(keys)

    # Tasks that go out

    def wish(self, room: int, slots: int, seconds: float, now: float) -> Take | None:
        """What to start in as many as *room* chunks of about so many *seconds*, or None.

        A task that failed or was lost before goes alone, so that it can take no neighbour with it. So do those of a
        stage that few workers may run at once: what is out can then be counted.
        """
        if self.planned is None:
            return None
        if self.stage.workers is not None:
            room, seconds = min(room, self.stage.workers - self.counts["processing"]), 0.0
        self._wait_anew(now)
        if room <= 0:
            return None
        groups: list[list[int]] = []
        while len(groups) < room and self._returned and self._returned[0][0] <= now:
            groups.append([heapq.heappop(self._returned)[1]])
        new = self.counts["queued"] - len(groups) - len(self._returned)
        sizes: list[int] = []
        while new > 0 and len(groups) + len(sizes) < room:
            size = self.pace.chunk_size(new, slots, seconds)
            if self._largest is None:
                sizes.append(size)
            else:
                groups.append([self._largest.popleft() for _ in range(size)])
            new -= size
        return Take(self.planned, groups, self._cursor, sizes) if groups or sizes else None

    def _wait_anew(self, now: float) -> None:
        """Should the machine's clock have been set back, nothing waits longer than its delay from now on."""
        if self._returned and self._requeued.get(self._returned[0][1], (now, None))[0] > now + CLOCK_SLACK:
            for _, key in self._returned:
                _, delay = self._requeued.get(key, (now, None))
                self._requeued[key] = (now, delay)
            waits = ((key, self._requeued[key][1] or self.policy.max_delay) for _, key in self._returned)
            self._returned = sorted((now + delay, key) for key, delay in waits)

    def started(self, number: int, batch: Batch, wished: Sequence[int], patience: float) -> Chunk:
        """The tasks of *batch*, which the store says have started, ready to be sent; see `Chunk` for *patience*.

        *wished* is the group of the wish that it answers, if it answers one.
        """
        if self._largest is not None and len(wished) > len(batch.keys):
            self._largest.extendleft(key for key in reversed(wished) if key not in batch.keys)
        if batch.is_new and self._largest is None:
            self._cursor = batch.keys[-1]
        self.counts["queued"] -= len(batch.keys)
        self.counts["processing"] += len(batch.keys)
        timeout = self.stage.timeout or self.options.task_timeout
        return self._chunk(number, "tasks", self.stage_number, self.codes[batch.task_type], batch, timeout, patience)

    def question(
        self,
        number: int,
        kind: Literal["plan", "finalize"],
        stage: int,
        argument: str,
        texts: Texts,
        timeout: float | None,
        answer: str | None = None,
    ) -> Chunk:
        """A plan or a finalize, ready to be sent."""
        batch = Batch(kind, 1, 0, 0, 0, (0,), f'["{kind}"]', f"[{argument}]")
        chunk = self._chunk(number, kind, stage, self.codes[CLASS], batch, timeout)
        return chunk._replace(texts=texts, answer=answer)

    def asks_again(self, failure: Failure | None) -> bool:
        """Whether a plan whose process died is to be made once more, which is then counted: as for a task (S30)."""
        if failure is None or failure.category != Category.LOST or self.asked_again >= self.policy.max_retries:
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

    def _again(self, keys: Sequence[int], *, since: float = 0.0, new: bool) -> None:
        """Have *keys* go out once more, not before *since*."""
        if new and self._largest is not None:
            self._largest.extendleft(reversed(keys))
        elif new:
            self._cursor = min(self._cursor, keys[0] - 1)
        else:
            for key in keys:
                heapq.heappush(self._returned, (since, key))

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
            if key in self._requeued:
                queued_at, backoff = self._requeued.pop(key)
                attempt = reported._replace(queued_at=queued_at, backoff=backoff)
            self._changes.attempts.append(attempt)
            if failure is None:
                done.append(key)
                continue
            match decide(failure, batch.retries, policy):
                case Retry(delay):
                    retried.setdefault(delay, []).append(key)
                    self._requeued[key] = (now, delay)
                    self._again([key], since=now + delay, new=False)
                case _:
                    failed.append(attempt)
        for delay, keys in retried.items():
            self._move("retry", keys, "queued", now + delay)
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
            self._move("lose" if suspects else "requeue", keys, "queued")
            self._again(keys, new=batch.is_new and not suspects)
        return []

    def _release(self, batch: Batch, keys: Sequence[int]) -> None:
        if keys:
            self._move("release", keys, "queued")
            self._again(keys, new=batch.is_new)

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
