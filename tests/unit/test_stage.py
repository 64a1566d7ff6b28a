"""The tasks of a stage: what comes of a report, for the store and for what goes out next."""

from __future__ import annotations

from typing import Any

import pytest

from geoflow.core.batch import Batch, Completed
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Failure, Outcome
from geoflow.core.retry import RetryPolicy
from geoflow.core.rows import Changes, Move, StageRow, Take
from geoflow.core.stage import StageTasks, lost_with_engine
from geoflow.core.transitions import MAX_LOSSES
from geoflow.usercode.packing import Code

NOW = 1_700_000_000.0
PLANNED = StageRow(stage_key=1, stage=1, first_key=101, task_count=4, planned_at=NOW)
TRANSIENT, PERMANENT = Failure("no", "OSError", "transient", True), Failure("no", "ValueError", "permanent", False)


def a_stage(**state: Any) -> StageTasks:
    return StageTasks(RetryPolicy(max_retries=1, base_delay=4.0), PLANNED, {"queued": 4}, **state)


def sent(stage: StageTasks, keys: range, *, retries: int = 0, losses: int = 0) -> Chunk:
    """What is out once the store has started *keys*."""
    names = ",".join(f'"t-{key}"' for key in keys)
    texts = f"[{names}]", f"[{','.join('{}' for _ in keys)}]"
    batch = Batch("scan", 1 + retries + losses, retries, losses, PLANNED.first_key, keys, *texts)
    stage.started(batch, ())
    return Chunk(1, "tasks", "a" * 64, "j", 1, Code("c", None, b""), batch, RetryPolicy())


def ended(key: int, failure: Failure | None = None) -> Attempt:
    outcome = Outcome.COMPLETED if failure is None else Outcome.FAILED
    return Attempt(key, 1, outcome, NOW, NOW + 1, failure=failure)


def test_all_that_a_report_says_is_written_counted_and_queued_again_where_it_is_to_be() -> None:
    stage = a_stage()
    chunk = sent(stage, range(101, 105))
    assert (stage.counts["processing"], len(stage.queue)) == (4, 0)
    completed = Completed(1, 0, 1, "c", 0, [101], [NOW], [NOW + 1], [1.0], ['{"success":true}'])
    failed = [ended(102, TRANSIENT), ended(103, PERMANENT)]
    ((attempt, row),) = stage.settle(Report(chunk, failed, unstarted=[104], completed=completed), NOW)
    assert (attempt.key, row) == (103, (2, "t-103", "scan", 0, "ValueError: no"))
    assert stage.counts == {"processing": 0, "completed": 1, "failed": 1, "cancelled": 0}
    assert stage.failures == [row]
    changes = stage.take_changes()
    assert changes.moves == [
        Move("complete", [101]),
        Move("retry", [102], NOW + 4.0),
        Move("fail", [103]),
        Move("release", [104]),
    ]
    assert (changes.attempts, changes.completed) == (failed, [completed])
    assert stage.take_changes() == Changes([], [], []), "it is told once"
    assert stage.take(9, 1, 0.0, NOW) == Take(PLANNED, [], 103, [1])
    assert stage.queue.due() == NOW + 4.0


def test_S26_a_retry_that_ends_is_told_with_how_it_had_waited() -> None:
    stage = a_stage()
    stage.settle(Report(sent(stage, range(101, 102)), [ended(101, TRANSIENT)]), NOW)
    chunk = sent(stage, range(101, 102), retries=1)
    completed = Completed(2, 0, 1, "c", 0, [101], [NOW + 5], [NOW + 6], [1.0], ["{}"])
    stage.settle(Report(chunk, completed=completed), NOW + 6)
    changes = stage.take_changes()
    assert not changes.completed, "it goes as a row of its own"
    assert (changes.attempts[-1].queued_at, changes.attempts[-1].backoff) == (NOW, 4.0)


@pytest.mark.parametrize(
    ("suspects", "losses", "event"),
    [(False, MAX_LOSSES, "requeue"), (True, MAX_LOSSES - 2, "lose"), (True, MAX_LOSSES - 1, "fail")],
)
def test_S30_only_what_may_be_to_blame_comes_closer_to_the_losses_that_fail_it(
    suspects: bool, losses: int, event: str
) -> None:
    stage = a_stage()
    chunk = sent(stage, range(101, 102), losses=losses)
    final = stage.settle(Report(chunk, lost=[101], suspects=suspects), NOW)
    assert stage.take_changes().moves == [Move(event, [101])]
    assert [attempt.outcome for attempt, _ in final] == (["failed"] if event == "fail" else [])


def test_S30_of_what_a_dead_engine_left_only_what_ran_comes_closer_to_the_losses_that_fail_it() -> None:
    processing = [(101, 1, 0), (102, 3, MAX_LOSSES - 1), (103, 3, MAX_LOSSES - 1)]
    known = lost_with_engine(processing, {101: None, 102: "it began"})
    assert known.moves == [Move("lose", [101]), Move("fail", [102]), Move("requeue", [103])]
    assert [attempt.outcome for attempt in known.attempts] == ["lost", "failed", "lost"]
    assert [attempt.output for attempt in known.attempts] == [None, "it began", None]
    unknown = lost_with_engine(processing, None)
    assert unknown.moves == [Move("lose", [101]), Move("fail", [102, 103])]


def test_S38_what_was_stopped_is_queued_again_or_cancelled_with_what_it_had_printed() -> None:
    for outcome in (Outcome.INTERRUPTED, Outcome.CANCELLED):
        stage = a_stage()
        report = Report(sent(stage, range(101, 104)), lost=[101, 102], unstarted=[103], printed="half a line")
        if outcome == Outcome.INTERRUPTED:
            stage.interrupt([report])
            moves = [Move("release", [103]), Move("requeue", [101, 102])]
        else:
            stage.cancel([report], [104])
            moves = [Move("release", [103]), Move("cancel", [101, 102, 103, 104])]
        changes = stage.take_changes()
        assert changes.moves == moves
        assert [(attempt.key, attempt.outcome, attempt.output) for attempt in changes.attempts] == [
            (101, outcome, None),
            (102, outcome, "half a line"),
        ]


def test_a_stage_with_a_limit_has_no_more_tasks_out_at_once_and_each_goes_alone() -> None:
    stage = a_stage(workers=2)
    assert stage.take(9, 1, 60.0, NOW) == Take(PLANNED, [], 100, [1, 1])
    sent(stage, range(101, 103))
    assert (stage.can_start(NOW), stage.take(9, 1, 60.0, NOW)) == (False, None)


def test_S56_looks_tell_more_of_tasks_of_the_stage_alone_and_when_one_has_well_more_than_before() -> None:
    stage = a_stage()
    assert not stage.sees({})
    assert not stage.sees({100: 50, 105: 50}), "which are of other stages"
    assert stage.sees({101: 100, 105: 50})
    assert not stage.sees({101: 120})
    assert stage.sees({101: 126})
    assert stage.sees({101: 126, 104: 1})
    assert stage.seen == {101: 126, 104: 1}
