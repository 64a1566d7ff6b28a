"""The tasks of the stage that a job is at: how many are in which state, and what the store has yet to hear of them.

Nothing here acts: reports go in, changes for the store and what to start next come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from geoflow.core.batch import Batch, Completed
from geoflow.core.chunking import Pace
from geoflow.core.chunks import Report
from geoflow.core.memory import MARGIN, Part
from geoflow.core.models import Attempt, Category, Failure, Outcome
from geoflow.core.queue import TaskQueue
from geoflow.core.retry import RetryPolicy, retry_in
from geoflow.core.rows import Changes, FailedRow, Move, StageRow, Take
from geoflow.core.transitions import MAX_LOSSES

_NOT_PLANNED = StageRow(0, 0, 0, 0, 0.0)
_LOST = Failure("its worker process ended, through no fault of its own; it runs again, uncharged", "Lost", "lost", True)
_ENGINE = Failure("the process that drove the job ended; it runs again, uncharged", "EngineLost", "lost", True)
_INTERRUPTED = Failure("the job was interrupted", "Interrupted", "lost", True)
_TOO_OFTEN = Failure(
    f"it ran each of the {MAX_LOSSES} last times that its worker or the process driving the job was killed, and may be "
    "what kills it",
    "EngineLost",
    Category.LOST,
    True,
)


class StageTasks:
    """The tasks of a stage: those of the rows *planned*, or none where it is not planned yet.

    They are in the states of *counts*, and at most so many *workers* may be at them. For *order*, *needs*, *guessed*,
    *tried* and *alone* see `TaskQueue`; *failures* have failed for good. One that memory did not suffice for runs again
    alone, if it *can_be_alone*. One that has more than its *share* of memory, in bytes, has outgrown it, which is to be
    seen to.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        planned: StageRow | None = None,
        counts: Mapping[str, int] = MappingProxyType({}),
        *,
        workers: int | None = None,
        order: Sequence[int] | None = None,
        needs: Mapping[int, float] | None = None,
        guessed: bool = False,
        can_be_alone: bool = False,
        share: int | None = None,
        tried: Sequence[tuple[int, float | None]] = (),
        alone: Sequence[int] = (),
        failures: Sequence[FailedRow] = (),
    ) -> None:
        self.policy = policy
        self.planned = planned
        queued = counts.get("queued", 0)
        about: dict[str, Any] = {"order": order, "needs": needs, "guessed": guessed, "tried": tried, "alone": alone}
        self.queue = TaskQueue(planned or _NOT_PLANNED, queued, most=policy.max_delay, **about)
        self.counts = {state: counts.get(state, 0) for state in ("processing", "completed", "failed", "cancelled")}
        self.failures = list(failures)
        self.pace = Pace()
        self._workers = workers
        self._can_be_alone, self._share = can_be_alone, share
        self.has_outgrown = False
        self.seen: dict[int, int] = {}  # what those that run had in memory by now, by their keys
        self.sized_ends = 0  # as many as there were when it was last asked whether more is told
        self._learnt = 0  # so many have ended since one had, and it is looked at anew when these are twice as many
        self._changes = Changes([], [], [])

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

    # Out

    def can_start(self, now: float) -> bool:
        """Whether a task is ready to go out, there is memory for one, and the stage lets one more run."""
        if self.queue.is_blocked:
            return False
        return self.queue.is_ready(now) and (self._workers is None or self.counts["processing"] < self._workers)

    def startable(self, now: float) -> int:
        """How many tasks are ready to go out, of those that the stage lets run."""
        ready = self.queue.ready(now)
        return ready if self._workers is None else max(min(ready, self._workers - self.counts["processing"]), 0)

    def may_wait_behind(self) -> bool:
        """Whether its chunks take so little time that one may wait behind another in a slot."""
        return self.pace.is_short() and not self.queue.is_weighed

    def take(self, room: int, slots: int, seconds: float, now: float, part: Part | None = None) -> Take | None:
        """What to start in as many as *room* chunks of about so many *seconds*, or None; *part*, of the memory.

        The tasks of a stage that few workers may run at once go alone: what is out can then be counted.
        """
        if self._workers is not None:
            room, seconds = min(room, self._workers - self.counts["processing"]), 0.0
        return self.queue.take(room, lambda new: self.pace.chunk_size(new, slots, seconds), now, part)

    def started(self, batch: Batch, group: Sequence[int]) -> None:
        """The store has started *batch*, of this *group* of what was taken, if it was a group."""
        self.queue.started(batch.keys, group, new=batch.is_new)
        self.counts["processing"] += len(batch.keys)

    # Back

    def settle(self, report: Report, now: float) -> list[tuple[Attempt, FailedRow]]:
        """Take in what became of a chunk of tasks. Returns the attempts that failed their task for good, and these."""
        batch, completed, attempts = report.chunk.batch, report.completed, report.attempts
        if completed is not None and not batch.is_new:  # it may have waited for a retry, which its attempt says
            attempts = [*attempts, *completed.attempts()]
            completed = None
        if completed is not None:
            self._changes.completed.append(completed)
            self._move("complete", completed.keys, "completed")
        if self._share is not None:
            self._share = self._weighed(self._share, completed, attempts)
        failed = self._end(batch, attempts, now)
        failed += self._lose(batch, report.lost, suspects=report.suspects)
        final = self._fail(batch, failed)
        if report.unstarted:
            self._move("release", report.unstarted)
            self.queue.put_back(report.unstarted, new=batch.is_new)
        ended = len(attempts) + (len(completed.keys) if completed is not None else 0)
        length = len(batch.parameters) * ended // len(batch.keys) if batch.keys else 0
        length += sum(map(len, completed.results)) if completed is not None else 0
        self.pace.observe(ended, report.seconds or _seconds(attempts), length)
        return final

    def _end(self, batch: Batch, attempts: Sequence[Attempt], now: float) -> list[Attempt]:
        """Account for attempts that ended; those that failed for good."""
        completed: list[int] = []
        failed: list[Attempt] = []
        crowded: list[int] = []
        retried: dict[float, list[int]] = {}
        for ended in attempts:
            key, failure = ended.key, ended.failure
            wait = self.queue.settled(key)
            attempt = ended if wait is None else ended._replace(queued_at=wait.since, backoff=wait.delay)
            if failure is not None and failure.category == Category.MEMORY and self._is_next_alone(key):
                attempt = attempt._replace(outcome=Outcome.LOST)
                crowded.append(key)
            elif failure is None:
                completed.append(key)
            elif (delay := retry_in(failure, batch.retries, self.policy)) is not None:
                retried.setdefault(delay, []).append(key)
                self.queue.retry(key, delay, now)
            else:
                failed.append(attempt)
            self._changes.attempts.append(attempt)
        self._move("lose", crowded)
        for delay, keys in retried.items():
            self._move("retry", keys, not_before=now + delay)
        self._move("complete", completed, "completed")
        return failed

    def _weighed(self, share: int, completed: Completed | None, attempts: Sequence[Attempt]) -> int:
        """The *share*, or what some of these had at most, where that was more; it is told of again well above that."""
        had = max((attempt.peak_memory or 0 for attempt in attempts), default=0)
        had = max(had, completed.peak_memory or 0) if completed is not None else had
        if self.queue.is_weighed:
            self._learnt += 1
            self.has_outgrown |= self._learnt.bit_count() == 1
        if had <= share:
            return share
        self.has_outgrown = True
        return int(had * MARGIN)

    def sees(self, looks: Mapping[int, int]) -> bool:
        """Whether *looks* at tasks that run, which have so many bytes by now, tell of one more, or well more of one."""
        first, count = (self.planned.first_key, self.planned.task_count) if self.planned is not None else (0, 0)
        own = {key: had for key, had in looks.items() if first <= key < first + count}
        if all(had <= MARGIN * self.seen.get(key, 0) for key, had in own.items()):
            return False
        self.seen |= own
        return True

    def _is_next_alone(self, key: int) -> bool:
        """Whether this one, for which memory did not suffice, goes out again with all of it, before that counts."""
        return self._can_be_alone and self.queue.be_alone(key)

    def _lose(self, batch: Batch, keys: Sequence[int], *, suspects: bool) -> list[Attempt]:
        """Account for what was running in a process that died; the attempts that were one too many."""
        if suspects and batch.losses + 1 >= MAX_LOSSES:
            last = [_unseen(key, batch.attempt, Outcome.FAILED, _TOO_OFTEN) for key in keys]
            self._changes.attempts.extend(last)
            return last
        if keys:
            self._changes.attempts.extend(_unseen(key, batch.attempt, Outcome.LOST, _LOST) for key in keys)
            self._move("lose" if suspects else "requeue", keys)
            self.queue.put_back(keys, new=batch.is_new and not suspects)
        return []

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

    # What was stopped: the job is driven no further, so that nothing of this goes out again

    def interrupt(self, reports: Sequence[Report]) -> None:
        """What was stopped is to be queued again, uncharged."""
        begun, unstarted = self._stopped(reports, Outcome.INTERRUPTED, _INTERRUPTED)
        self._changes.moves.extend([Move("release", unstarted), Move("requeue", begun)])

    def cancel(self, reports: Sequence[Report], queued: Sequence[int]) -> None:
        """What was stopped is cancelled, and so is what the store has as *queued*."""
        begun, unstarted = self._stopped(reports, Outcome.CANCELLED, None)
        self._changes.moves.extend([Move("release", unstarted), Move("cancel", [*begun, *unstarted, *queued])])

    def _stopped(
        self, reports: Sequence[Report], outcome: Outcome, failure: Failure | None
    ) -> tuple[list[int], list[int]]:
        """The keys that had begun, whose attempts are kept, and those that had not."""
        begun: list[int] = []
        unstarted: list[int] = []
        for report in reports:
            begun += report.lost
            unstarted += report.unstarted
            attempts = [_unseen(key, report.chunk.batch.attempt, outcome, failure) for key in report.lost]
            if attempts:
                attempts[-1] = attempts[-1]._replace(output=report.printed)
            self._changes.attempts.extend(attempts)
        return begun, unstarted


def lost_with_engine(processing: Sequence[tuple[int, int, int]], ran: Mapping[int, str | None] | None) -> Changes:
    """What becomes of tasks that an engine which is gone left *processing*, as (key, attempt, losses).

    *ran* are those that ran when it died, with what they had printed, where that is known; only these come closer to
    `MAX_LOSSES`.
    """
    attempts: list[Attempt] = []
    moves: dict[str, list[int]] = {}
    for key, attempt, losses in processing:
        suspect = ran is None or key in ran
        too_often = suspect and losses + 1 >= MAX_LOSSES
        outcome, why = (Outcome.FAILED, _TOO_OFTEN) if too_often else (Outcome.LOST, _ENGINE)
        attempts.append(_unseen(key, attempt, outcome, why)._replace(output=ran.get(key) if ran else None))
        moves.setdefault("fail" if too_often else "lose" if suspect else "requeue", []).append(key)
    return Changes([Move(event, keys) for event, keys in moves.items()], attempts, [])


def _seconds(attempts: Sequence[Attempt]) -> float:
    ended = [attempt.ended_at for attempt in attempts if attempt.ended_at is not None]
    started = attempts[0].started_at if attempts else None
    return max(ended[-1] - started, 0.0) if ended and started is not None else 0.0


def _unseen(key: int, number: int, outcome: Outcome, failure: Failure | None) -> Attempt:
    """An attempt that nobody saw the end of."""
    return Attempt(key, number, outcome, None, None, failure=failure)
