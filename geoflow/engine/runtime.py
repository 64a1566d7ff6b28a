"""The runtime of one session: its store, executor, registry, clock, settings and machine, and all that is done by them.

It knows jobs by their ids, and answers with rows, views and receipts. What a person holds of it is a face that stands
above: `geoflow.session.Session`, and the handles of jobs and tasks.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from geoflow.core.models import JobStatus, Receipt
from geoflow.core.rows import Again, JobRow, NewJob
from geoflow.engine import hooks
from geoflow.engine.active_job import CLASS, Intent
from geoflow.engine.claiming import Claiming
from geoflow.engine.existing import check_same_job, found_again, keeps_its_own, may_have_changed, ran_on_others
from geoflow.engine.stale_code import Stale, again_from, fingerprints, ran_with_older, stale_tasks
from geoflow.engine.taking_over import looking_again
from geoflow.errors import DefinitionError, JobExists, JobFailed, JobNotFound, ParameterError, StoreBusy
from geoflow.jobtypes import loading
from geoflow.jobtypes.contract import DefinesJob, Registered
from geoflow.jobtypes.parameters import job_id_of, validated
from geoflow.stores.store import Store
from geoflow.support import logs
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.text import shorten
from geoflow.usercode.origin import stacklevel
from geoflow.usercode.packing import Code, pack
from geoflow.views.changed import inputs_changed, unseen
from geoflow.views.model import JobView
from geoflow.views.snapshot import snapshot

logger = logs.logger_of("geoflow.runtime")
OnExisting = Literal["return", "resume", "rerun", "update", "raise"]
OUTPUT_BYTES = 64_000  # of what a running task has printed
# A loop that sleeps is not woken by an interrupt of the kernel: it sleeps in short slices.
SLICE_SECONDS = 0.1


class Runtime(Claiming):
    """Submits, drives, looks at and cancels the jobs of one session, which says what it is opened with."""

    # Job types, and their code

    def registered(self, job_type: str | type | DefinesJob) -> Registered:
        """The job type as it is now, registered if need be."""
        return loading.registered(self.registry, job_type)

    def registered_as(self, row: JobRow) -> Registered:
        """The type of a stored job, from what is registered or built in: its name is never taken for a file's (S43)."""
        return loading.registered_as(self.registry, row)

    def codes(self, job_type: Registered) -> dict[str, Code]:
        """The code of its handlers by task type, and of its class by an empty name."""
        handlers = hooks.as_run(self, job_type.handlers)
        return {name: pack(code) for name, code in {**handlers, CLASS: job_type.job_class}.items()}

    def fingerprints(self, row: JobRow) -> dict[str, str]:
        """Those of the code of now, by task type."""
        return fingerprints(self.codes(self.registered_as(row)))

    # Looking

    def row(self, job_id: str) -> JobRow:
        """The job whose id begins with *job_id*; ``JobNotFound`` when there is none, or more than one."""
        if not isinstance(job_id, str):
            raise ParameterError(
                f"A job is known by its id or the beginning of it, a text such as '4f23fe85': "
                f"{shorten(repr(job_id), 60)} is {type(job_id).__name__}. session.jobs() lists the ids."
            )
        rows = self.store.find(job_id.strip().lower()) if job_id.strip() else []
        if not rows:
            what = f"No job in {self.settings.store_name} has an id that begins with {job_id!r};"
            raise JobNotFound(what, python="see jobs().", typed="see geoflow jobs.")
        if len(rows) > 1:
            several = ", ".join(f"{row.job_id[:12]} ({row.job_type})" for row in rows[:5])
            raise JobNotFound(f"{len(rows)} jobs have ids that begin with {job_id!r}: {several}. Give more of the id.")
        return rows[0]

    def snapshot(self, job_id: str) -> JobView:
        """The job as it can be seen now."""
        return self.seen_in(self.store, job_id)

    def seen_in(self, store: Store, job_id: str) -> JobView:
        """The job as it can be seen now in *store*, which is this session's."""
        return snapshot(store, job_id, self.clock.now(), self.settings.secrets, self.calls_of)

    def printed(self, job_id: str, task_key: int, limit: int = OUTPUT_BYTES) -> str | None:
        """What the task has printed that runs now, as far as it has written it out; None where it does not run."""
        calls = self.calls_of(self.row(job_id), limit)
        return next((call.printed or "" for call in calls if call.key == task_key), None)

    def driver(self, job_id: str) -> str | None:
        """Who drives the job, in words."""
        return self.store.driver(self.row(job_id).job_key)

    def has_stopped(self, job_id: str) -> bool:
        """Whether the job is at its end, or nobody drives it."""
        return self.row(job_id).has_ended or self.driver(job_id) is None

    def let_pass(self, row: JobRow) -> dict[int, int]:
        """How many tasks failed in the stages, by their numbers, that the job has left all the same."""
        plans = self.store.stages(row.job_key) if row.let_pass else []
        failed = {
            plan.stage: self.store.counts(plan).get("failed", 0) for plan in plans if plan.stage_key in row.let_pass
        }
        return {stage: number for stage, number in failed.items() if number}

    def stale(self, job_id: str) -> list[Stale]:
        """What of the job completed with older code than that of its handlers now."""
        return self.stale_in(self.store, self.row(job_id))

    def stale_in(self, store: Store, row: JobRow) -> list[Stale]:
        """The same, of a job as *store* has it, which is this session's."""
        return stale_tasks(store, row, self.fingerprints(row))

    def found_again(self, receipt: Receipt, spelt: str) -> str:
        """What to say when the submission found it; nothing where older code or inputs are all, which was warned of.

        *spelt* is how ``on_existing`` is given.
        """
        if receipt.status == "created":
            return ""
        view = self.snapshot(receipt.job_id)
        return (
            ""
            if (receipt.stale or receipt.inputs_changed) and view.status == JobStatus.COMPLETED
            else found_again(view, spelt)
        )

    # Submitting, and driving on

    def submit(
        self,
        job_type: str | type | DefinesJob,
        given: dict[str, Any],
        on_existing: OnExisting = "return",
        *,
        here: bool = False,
        begun: list[JobRow] | None = None,
    ) -> Receipt:
        """Submit it; see `geoflow.session.Session.submit`. *here* says that this thread is to wait for it at once.

        The row of what is then driven is put into *begun* before that.
        """
        if on_existing not in get_args(OnExisting):
            known = "'return', 'resume', 'rerun', 'update' or 'raise'"
            raise ParameterError(f"on_existing cannot be {on_existing!r}: use {known}.")
        self.check_can_drive()
        registered = self.registered(job_type)
        text = validated(registered, given, self.settings.secrets)
        job_id = job_id_of(registered, text)
        for admission in self.declared(registered).values():  # a conflict is told before anything is stored
            admission.close()
        codes = self.codes(registered)  # a variable that cannot travel any more is told before anything is stored
        stages = [
            stage.model_dump(include={"number", "name", "task_type", "parallelism"}) for stage in registered.stages
        ]
        source = getattr(sys.modules.get(registered.job_class.__module__), "__file__", None)
        new = NewJob(job_id, registered.name, to_json(stages), text, self.clock.now(), source)
        # Who finds a job needs no workers: the first submission of a session looks before it starts what they need.
        is_there = "executor" not in vars(self) and self.store.job(job_id) is not None
        row, created = self.store.create(new, owner=None if is_there else self.owner(job_id, registered.stages, None))
        begun = [] if begun is None else begun
        if created:
            begun.append(row)
            try:
                if on_existing == "update":  # what it makes is known to the next one
                    self.drive(row, registered, "rerun", codes=codes, here=here, again=Again(reuse="update"))
                else:
                    self.drive(row, registered, "go on", codes=codes, here=here)
            except BaseException:
                self.put_back(row)
                raise
            return Receipt(job_id=job_id, job_type=registered.name, status="created")
        check_same_job(row, registered, text, self.settings.secrets)
        self._tell_found_again(row, on_existing)
        receipt = Receipt(
            job_id=job_id,
            job_type=registered.name,
            status="already_exists",
            existing_status=row.status,
            stage=row.stage,
            idempotent=True,
        )
        if on_existing == "raise":
            what = f"Job {job_id[:8]} ({registered.name}) exists and is {row.status};"
            raise JobExists(what, python="see session.job(…).", typed=f"see geoflow status {job_id[:8]}.")
        kept = keeps_its_own(row, registered, given, text, self.settings.secrets)
        if kept is not None and on_existing not in ("rerun", "update"):
            warnings.warn(kept, stacklevel=stacklevel())
        if on_existing == "return":
            if outdated := stale_tasks(self.store, row, fingerprints(codes)):
                receipt = receipt.model_copy(update={"stale": sum(kind.tasks for kind in outdated)})
                warnings.warn(ran_with_older(row, outdated), stacklevel=stacklevel())
            if changed := inputs_changed(self.store, row):
                receipt = receipt.model_copy(update={"inputs_changed": changed})
                warnings.warn(ran_on_others(row, changed), stacklevel=stacklevel())
            return receipt
        if on_existing == "update" and (names := unseen(self.store, row, looking_again(registered))):
            receipt = receipt.model_copy(update={"unseen": tuple(names)})
            warnings.warn(may_have_changed(row, names), stacklevel=stacklevel())
        begun.append(row)
        again = self._again(registered, on_existing, text) if on_existing in ("rerun", "update") else None
        intent: Intent = "resume" if on_existing == "resume" else "rerun"
        self.drive(row, registered, intent, codes=codes, here=here, again=again)
        return receipt

    def _tell_found_again(self, row: JobRow, on_existing: OnExisting) -> None:
        """One line, so that the log has all submissions, and not only those that made a job."""
        about = {"job_id": row.job_id, "job_type": row.job_type, "operation": "submit", "on_existing": on_existing}
        with logs.into(self.log), contextlib.suppress(Exception):  # as with all that is told
            logger.later(logging.INFO, lambda: f"job {row.job_id[:8]} found again: {row.status}", about)

    def _again(self, job_type: Registered, how: str, parameters: str | None = None) -> Again:
        """All over again; where results are reused otherwise, a rerun that was asked for reuses none."""
        reusing = self.settings.reuse or any(stage.reuse for stage in job_type.stages)
        return Again(parameters=parameters, reuse="update" if how == "update" else "nothing" if reusing else None)

    def drive(
        self,
        row: JobRow,
        job_type: Registered,
        intent: Intent,
        *,
        codes: Mapping[str, Code] | None = None,
        here: bool = False,
        again: Again | None = None,
    ) -> None:
        """Have this session's machine drive the job, with *codes*, or else the code of now."""
        with self.opening:  # of two threads that ask for one job at once, the second finds it running
            if self.running(row.job_id) is not None:
                if intent in ("go on", "resume", "retry"):
                    return
                raise StoreBusy(f"Job {row.job_id[:8]} is running in this session: wait for it or cancel it first.")
            try:
                self.start(self.claim(row, job_type, codes or self.codes(job_type), intent, again), awaited=here)
            except BaseException:
                self.put_back(row)
                raise

    # What can be done with a job, by its id

    def wait(self, job_id: str, timeout: float | None = None, refresh: Callable[[], None] | None = None) -> None:
        """Wait until the job has ended, or until nobody drives it. ``TimeoutError`` after *timeout* seconds."""
        began = time.monotonic()

        def late() -> bool:
            return timeout is not None and time.monotonic() - began > timeout

        job = self.active.get(job_id)
        if job is not None:
            if not self.wait_for(job, late, refresh):
                raise TimeoutError(f"Job {job_id[:8]} has not ended after {timeout:g} s; it goes on.")
            row = self.row(job_id)
            if job.error is not None and (not row.has_ended or row.ended_at == job.row.ended_at):
                raise job.error  # but for a store that failed after the end: it is not the one that was there before
            return
        while not self.has_stopped(job_id):  # another process drives it
            if late():
                raise TimeoutError(f"Job {job_id[:8]} has not ended after {timeout:g} s; it goes on elsewhere.")
            if refresh is not None:
                refresh()
            time.sleep(SLICE_SECONDS)

    def cancel(self, job_id: str) -> None:
        """End the job, wherever it is driven, or where nobody does."""
        row, job = self.row(job_id), self.running(job_id)
        if job is not None:
            self.ask("cancel", job)
        elif not row.has_ended:
            try:
                self.cancel_here(row)
            except StoreBusy:
                self.store.request_cancel(row.job_key)
                deadline = time.monotonic() + 10.0
                while not self.row(job_id).has_ended and time.monotonic() < deadline:
                    time.sleep(0.05)

    def resume(self, job_id: str) -> None:
        """Go on where the job stopped, with the code of now."""
        row = self.row(job_id)
        if row.status != JobStatus.COMPLETED:
            self.drive(row, self.registered_as(row), "resume")

    def retry_failed(self, job_id: str) -> None:
        """Run the failed tasks again, with the code of now; then go on from there.

        Where the job went on without some, the stages behind the first of these are planned anew. Of a job that was
        cancelled only these run, and it is cancelled again at their end.
        """
        row = self.row(job_id)
        plans = self.store.stages(row.job_key) if row.status == JobStatus.CANCELLED else []
        if row.status == JobStatus.CANCELLED and not any(self.store.counts(plan).get("failed") for plan in plans):
            raise JobFailed(
                f"Job {job_id[:8]} was cancelled, so there is nothing that failed to run again;",
                python="job.resume() goes on with it.",
                typed=f"geoflow resume {job_id[:8]} goes on with it.",
                job_id=job_id,
                status="cancelled",
            )
        if passed := self.let_pass(row):
            self.drive(row, self.registered_as(row), "rerun", again=Again(min(passed), keep=True, reuse="repair"))
        elif row.status != JobStatus.COMPLETED:
            self.drive(row, self.registered_as(row), "retry")

    def refinalize(self, job_id: str, *, here: bool = False) -> None:
        """Run finalize again, with the code of now, over the results that are there."""
        row = self.row(job_id)
        if row.status != JobStatus.COMPLETED:
            raise JobFailed(
                f"Job {job_id[:8]} is {row.status}: only a completed job can be finalized again. Resume it first.",
                job_id=job_id,
                status=str(row.status),
            )
        self.drive(row, self.registered_as(row), "refinalize", here=here)

    def rerun(self, job_id: str, stage: int | str | None = None, stale: bool = False) -> None:
        """Do all of it over again, or from a *stage* on, or what is *stale*; see `JobHandle.rerun`."""
        if stage is not None and stale:
            raise ParameterError("rerun takes stage= or stale=True: a stage is run again with all of its tasks.")
        row = self.row(job_id)
        job_type, again = self.registered_as(row), None
        if stage is not None:
            names = [planned["name"] for planned in from_json(row.stages)]
            again = again_from(stage, names, self.store.stages(row.job_key), job_id[:8])
        elif stale:
            outdated = self.stale(job_id)
            if not outdated:
                return
            again = Again(outdated[0].stage, keep=True)
        reuse = self._again(job_type, "rerun").reuse
        self.drive(row, job_type, "rerun", again=(again or Again())._replace(reuse=reuse))

    def rerun_stale(self, job_id: str) -> None:
        """`rerun` what is stale, as a button does it."""
        self.rerun(job_id, stale=True)

    def update(self, job_id: str) -> None:
        """Plan all of it anew, and run what is not the same as what is there; see `JobHandle.update`."""
        row = self.row(job_id)
        self.drive(row, self.registered_as(row), "rerun", again=Again(reuse="update"))

    def resume_all(self) -> list[str]:
        """Go on with every job that was interrupted, or whose process ended; the ids of those that were taken up."""
        resumed = []
        for row in self.store.unended():
            # A row that is not sound is read as that of a failed job, which has ended.
            ended = row.status == "failed" and row.ended_at is not None
            if ended or self.store.driver(row.job_key) is not None:
                continue
            try:
                self.drive(row, self.registered_as(row), "go on")
                resumed.append(row.job_id)
            except StoreBusy:
                continue  # somebody else was a moment faster
            except DefinitionError as exc:
                warnings.warn(exc.as_warning(), stacklevel=stacklevel())
        return resumed
