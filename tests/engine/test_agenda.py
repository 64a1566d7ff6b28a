"""Which runs a turn of the machine looks at."""

from __future__ import annotations

import pytest

from geoflow.builtin.hello_world import HelloWorld
from geoflow.core.models import JobStatus, Stage
from geoflow.core.rows import Changes, JobRow, Lease, StageRow
from geoflow.core.stage import StageTasks
from geoflow.engine.active_job import ActiveJob, Options
from geoflow.engine.agenda import Agenda
from geoflow.jobtypes.contract import Registered
from tests.helpers.sessions import OpenSession

NOW = 1_700_000_000.0
STAGE = Stage(number=1, name="one", task_type="one", parallelism="single")


def a_run(*returned: float) -> ActiveJob:
    """One with tasks that wait for these times."""
    job_id = "a" * 64
    row = JobRow(1, job_id, "j", JobStatus.PROCESSING, 1, "[]", "{}", None, None, None, NOW, None, None, None, 1, None)
    run = ActiveJob(row, Lease(1, job_id, 1), Registered("j", HelloWorld, (STAGE,), {}), {}, Options())
    tried = [(key, at) for key, at in enumerate(returned)]
    run.begin(StageRow(1, 1, 0, len(tried), NOW), counts={"queued": len(tried)}, tried=tried)
    return run


def test_a_run_is_looked_at_once_after_something_happened_to_it() -> None:
    agenda, one, other = Agenda(), a_run(), a_run()
    agenda.touch([other, one])
    assert agenda.take(NOW, 0) == [one, other], "the oldest comes first"
    for run in (one, other):
        agenda.rest(run, to_send=False)
    assert agenda.take(NOW, 9) == []


def test_as_many_runs_are_looked_at_as_there_is_room_for_the_oldest_first() -> None:
    agenda, runs = Agenda(), [a_run() for _ in range(4)]
    for run in reversed(runs):
        agenda.rest(run, to_send=True)
    assert agenda.take(NOW, 0) == []
    assert agenda.take(NOW, 2) == runs[:2]
    agenda.rest(runs[0], to_send=True)
    agenda.rest(runs[1], to_send=False)
    assert agenda.first_in_line() is runs[0]
    assert agenda.take(NOW, 2) == [runs[0], runs[2]]
    agenda.drop(runs[0])
    agenda.drop(runs[2])
    assert agenda.take(NOW, 2) == [runs[3]]


def test_S26_a_run_is_looked_at_when_a_task_of_it_may_be_tried_again_and_not_before() -> None:
    agenda, late, soon = Agenda(), a_run(NOW + 9), a_run(NOW + 5)
    agenda.rest(late, to_send=False)
    agenda.rest(soon, to_send=False)
    assert agenda.due() == NOW + 5
    assert agenda.take(NOW + 4.9, 9) == []
    assert agenda.take(NOW + 5, 0) == [soon]
    agenda.drop(soon)
    assert agenda.due() == NOW + 9
    agenda.rest(late, to_send=True)
    assert agenda.due() is None, "it goes as soon as there is room"
    agenda.rest(late, to_send=False)
    agenda.drop(late)
    assert agenda.due() is None
    assert agenda.take(NOW + 10, 9) == []


def test_S26_all_times_are_looked_at_again_when_the_clock_was_set_back() -> None:
    agenda, run = Agenda(), a_run(NOW + 5)
    agenda.rest(run, to_send=False)
    assert agenda.take(NOW, 0) == []
    assert agenda.take(NOW - 0.5, 0) == [], "so little is a correction"
    assert agenda.take(NOW - 3600, 0) == [run]


@pytest.mark.parametrize("workers", [0, 2])
def test_S36_a_job_costs_the_same_however_many_are_submitted_with_it(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    looked, take_changes = [0], StageTasks.take_changes

    def counted(tasks: StageTasks) -> Changes:  # of whatever run is looked at, also one whose plan waits for a slot
        looked[0] += 1
        return take_changes(tasks)

    monkeypatch.setattr(StageTasks, "take_changes", counted)
    session = open_session(workers=workers)
    jobs = [session.submit("hello_world", n=1, message=str(number)) for number in range(150)]
    assert {str(job.wait(60).status) for job in jobs} == {"completed"}
    assert looked[0] <= 30 * len(jobs), "and not as many times the jobs as there are jobs"
