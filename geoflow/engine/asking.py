"""What user code is asked for besides tasks: the plan of a stage, and a job's result; and what follows from its answer.

It runs in a slot, as tasks do, and other jobs go on meanwhile. A fan-in is planned without it.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator

from geoflow.core.batch import NewTasks
from geoflow.core.chunks import Look, Report
from geoflow.core.models import Attempt, Category, Failure, JobStatus, Outcome
from geoflow.core.next_step import Finalize, Plan
from geoflow.core.payloads import fallback_result, fan_in_parameters, finalize_argument, plan_argument
from geoflow.core.rows import FailedRow, Results, StageRow
from geoflow.engine.active_job import ActiveJob
from geoflow.engine.endings import Endings
from geoflow.engine.events import tell, tell_if_heavy
from geoflow.engine.lining_up import lined_up
from geoflow.engine.taking_over import FAN_IN_UNIT, look_of, taken_over
from geoflow.errors import DefinitionError, ResultRemoved
from geoflow.jobtypes.contract import task_id
from geoflow.support.jsonable import MAX_BYTES, to_json
from geoflow.support.parcel import packed
from geoflow.support.text import count, human_bytes


class Asking(Endings):
    """The loop of a machine, with what it asks of user code."""

    _chunks = 0  # sent so far: each has a number

    def _number(self) -> int:
        """That of the next chunk."""
        self._chunks += 1
        return self._chunks

    # Out

    def _leave(self, job: ActiveJob) -> None:
        """Write all that happened in the stage, and that it is passed, where tasks of it failed."""
        self._flush(job)
        planned, failed = job.tasks.planned, job.tasks.counts["failed"]
        if planned is not None and failed and planned.stage_key not in job.let_pass:
            self._store.let_pass(job.lease, planned, failed)
            job.let_pass.add(planned.stage_key)
            tell(job, "goes on", logging.WARNING, error_message=f"{count(failed, 'task')} of the stage failed")

    def _missing(self, job: ActiveJob, before: StageRow | None) -> list[FailedRow]:
        """The tasks of the stage *before* that failed, and were let pass."""
        return self._store.failed(before) if before is not None and before.stage_key in job.let_pass else []

    def _plan(self, job: ActiveJob, number: int) -> None:
        self._leave(job)
        before = job.tasks.planned if number > 1 else None
        if number > 1 and (before is None or before.stage != number - 1):
            plans = self._store.stages(job.row.job_key, whole=True)
            before = next((row for row in plans if row.stage == number - 1), None)
        look = look_of(job, job.job_type.stages[number - 1])
        if job.job_type.stages[number - 1].is_fan_in:
            self._fan_in(job, number, before, look)
            return
        missing = self._missing(job, before)
        argument = plan_argument(job.parameters, missing)
        previous = self._previous(before, len(missing))
        self._ask(job, Plan(number), argument, (results.text for results in previous), look)

    def _previous(self, before: StageRow | None, missing: int) -> Iterator[Results]:
        """The results of the stage *before*, all but those of the tasks that are *missing*: none is left out unsaid."""
        if before is None:
            return
        left = before.task_count - missing
        for results in self._store.results(before):
            left -= results.tasks
            yield results
        if left:
            raise self._store.damaged(f"what came of {count(left, 'task')} of stage {before.stage} cannot be found")

    def _fan_in(self, job: ActiveJob, number: int, before: StageRow | None, look: Look | None) -> None:
        """The stage has one task, which is given the results of the stage *before*; in a slot, if that is to *look*."""
        stage, last = job.job_type.stages[number - 1], number - 1
        about = f"Stage {number} ({stage.name}) is a fan_in"
        size = self._store.results_bytes(before) if before is not None else 0
        if size + len(job.parameters) > MAX_BYTES:
            self._fail(
                job,
                f"{about} over {human_bytes(size)} of results of stage {last}, and one task can be given "
                f"{human_bytes(MAX_BYTES)}. Have the tasks of stage {last} write files and return their paths, then "
                f"job.rerun(stage={last}); or put a stage between that aggregates parts of them.",
            )
            return
        missing = self._missing(job, before)
        previous = self._previous(before, len(missing))
        if size and look is not None:
            argument = plan_argument(job.parameters, missing)
            self._ask(job, Plan(number), argument, (results.text for results in previous), look)
            return
        parameters = fan_in_parameters(number, job.parameters, previous, missing)
        if parameters is None:
            self._fail(job, f"{about} and has nothing to aggregate: stage {last} completed no task.")
            return
        unit = task_id(job.job_id, number, FAN_IN_UNIT)
        self._planned(job, number, NewTasks.of((unit, stage.task_type, parameters, None)))

    def _finalize(self, job: ActiveJob) -> None:
        self._leave(job)
        about = {
            "job_id": job.job_id,
            "job_type": job.job_type.name,
            "current_stage": job.stage_number,
            "total_stages": len(job.job_type.stages),
        }
        argument, results = (
            finalize_argument(about, job.parameters),
            self._store.finalize_rows(job.row.job_key, job.let_pass, done=len(job.job_type.stages)),
        )
        self._ask(job, Finalize(), argument, results)

    def _ask(
        self, job: ActiveJob, step: Plan | Finalize, argument: str, results: Iterable[str], look: Look | None = None
    ) -> None:
        """Send user code to a slot, as soon as one is free.

        What is long goes there and back by files, where there is a folder that this process shares with the slots.
        """
        number, folder = self._number(), self._executor.where()
        sent = answer = None
        if folder is not None:
            sent, answer = (os.path.join(folder, f"{number}.{what}") for what in ("given", "answer"))
            job.files = [sent, answer]
        try:
            texts = packed(results, sent)
        except OSError as exc:
            why = f"the results cannot be written to {folder}, for its process to read: {exc.strerror}."
            what_to_do = "Free some space there, or have TMPDIR name another folder."
            failure = Failure(f"{why} {what_to_do}", type(exc).__name__, Category.TRANSIENT, True)
            self._heard(job, step, Attempt(0, 1, Outcome.FAILED, None, None, failure=failure), None)
            return
        if answer is not None and texts.file is None:
            job.files = [answer]
        job.ask(step, number, argument, texts, answer, look)
        self._send_asked(job)

    def _send_asked(self, job: ActiveJob) -> None:
        if job.to_send is not None and self._executor.capacity(job.job_id, reserve=False):
            self._executor.submit(job.to_send)
            job.to_send = None

    # Back

    def _answered(self, job: ActiveJob, report: Report) -> None:
        """A plan or a finalize came back, or died."""
        step, attempt = job.asked, report.attempts[0] if report.attempts else None
        assert step is not None, "an answer follows a question"
        if attempt is None or job.asks_again(attempt.failure):  # its process died
            job.to_send = report.chunk._replace(number=self._number())
            return
        job.asked = None
        self._heard(job, step, attempt, report.planned)

    def _heard(self, job: ActiveJob, step: Plan | Finalize, attempt: Attempt, tasks: NewTasks | None) -> None:
        match step:
            case Finalize():
                self._finalized(job, attempt)
            case Plan(stage) if attempt.failure is None:
                self._planned(job, stage, tasks or NewTasks.of())
                self._clear_up(job)
            case Plan(stage):
                self._clear_up(job)
                name, failure = job.job_type.stages[stage - 1].name, attempt.failure
                error = f"Stage {stage} ({name}) could not be planned: {failure.error_type}: {failure.error}"
                self._fail(job, error, failure.traceback)

    def _planned(self, job: ActiveJob, number: int, tasks: NewTasks) -> None:
        taken = taken_over(job, self._store, number, tasks)
        try:
            planned = self._store.plan(job.lease, number, tasks, now=self._clock.now(), taken=taken)
        except ResultRemoved:
            self._planned(job, number, tasks)  # and takes over what is there by now
            return
        except DefinitionError as exc:
            self._fail(job, str(exc))
            return
        counts = {"queued": planned.task_count - len(taken.reused), "completed": len(taken.reused)}
        job.begin(planned, counts=counts, **lined_up(job, self._store, planned))
        tell(job, "planned", tasks=planned.task_count, **({"reused": len(taken.reused)} if taken.reused else {}))
        if not job.job_type.stages[number - 1].is_fan_in:  # which is given what there is
            tell_if_heavy(job, tasks)

    def _line_up_anew(self, job: ActiveJob) -> None:
        """Tasks have had more memory than there is for each of as many as workers, or more is known of what they have:
        from now on they go out by that, if it matters."""
        job.tasks.has_outgrown = False
        planned = job.tasks.planned
        if self._memory is None or planned is None:
            return
        self._flush(job)
        queue = job.tasks.queue
        was_known = queue.is_weighed and not queue.is_guessed
        lined = lined_up(job, self._store, planned, anew=True)
        queue.line_up(**lined)
        needs = lined.get("needs", {})
        for key, _, _ in self._store.in_state(planned, "processing"):
            self._memory.is_out(job.job_id, key, needs.get(key, 0))
        if not queue.is_weighed:
            self._memory.wait_no_more(job.job_id)
        if needs and not was_known and not queue.is_guessed:
            most = human_bytes(max(needs.values()))
            tell(job, f"goes on by memory: tasks of stage {planned.stage} are expected to need up to {most} each")

    def _finalized(self, job: ActiveJob, attempt: Attempt) -> None:
        result, failure = attempt.result, attempt.failure
        if failure is not None:
            counts: Counter[str] = Counter()
            for stage in self._store.stages(job.row.job_key):
                counts.update(self._store.counts(stage))
            result = to_json(fallback_result(job.job_type.name, failure, counts))
            level = logging.WARNING
            tell(job, "finalize failed", level, error_type=failure.error_type, error_message=failure.error)
        event = "refinalize" if job.refinalizing else "complete"
        traceback, why = None, None
        if failure is not None:
            traceback, why = failure.traceback, f"with the fallback: {failure.error_type}: {failure.error}"
        self._store.change_job(job.lease, event, now=self._clock.now(), result=result, traceback=traceback, why=why)
        job.status = JobStatus.COMPLETED
        job.closed = True
        self._end(job)
