"""How a job comes to be driven from here: it is claimed, started on the machine, waited for, and put back.

It is driven in a thread of its own, or, where there are no workers, in the one that waits.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from geoflow.core.models import MAX_AT_ONCE, JobStatus
from geoflow.core.retry import RetryPolicy
from geoflow.core.rows import Again, JobRow
from geoflow.engine.active_job import CLASS, ActiveJob, Intent, Options
from geoflow.engine.existing import stored_type
from geoflow.engine.loop import Verb
from geoflow.engine.parts import Parts
from geoflow.errors import DefinitionError
from geoflow.jobtypes.contract import Registered
from geoflow.jobtypes.sizes import too_much
from geoflow.support.admission import Admission
from geoflow.support.masking import mask_text
from geoflow.support.nesting import refuse_inside
from geoflow.support.surroundings import Surroundings
from geoflow.usercode.fingerprint import text_of
from geoflow.usercode.packing import Code, pack

# How long the driving thread outlives the last job: starting one takes longer than a small job.
LINGER_SECONDS = 1.0
# How many jobs are remembered that were interrupted, or that an error stopped. The others are let go of with their
# parameters and their code: a session may run for weeks.
REMEMBERED = 32
SOURCE_CHARACTERS = 100_000  # of the text of a handler and what it uses


class Follower(Protocol):
    """What is to be done once a job has completed."""

    def submit(self) -> object: ...

    def in_background(self) -> None:
        """The same where nobody hears what is raised."""


class Claiming(Parts):
    """Jobs whose rows and code are known, driven with these parts."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # What is to follow jobs, by their ids: whoever takes it out of here does it.
        self.followers: dict[str, list[Follower]] = {}
        self._following: list[threading.Event] = []

    def close(self) -> None:
        self.followers.clear()
        for done in self._following:  # it may be about to submit a job, which is interrupted then
            done.wait(5.0)
        super().close()

    @property
    def options(self) -> Options:
        """How jobs are run, where their stages do not say otherwise."""
        s = self.settings
        policy = self.retry or RetryPolicy(max_retries=s.max_retries, base_delay=s.base_delay, max_delay=s.max_delay)
        limits = s.task_timeout, s.plan_timeout, s.finalize_timeout
        most = None if s.result_limit is None else s.result_limit * 1e6
        share = None if self.budget is None else self.budget // self.executor.slots
        careful = share is not None and self.executor.looks() is not None
        return Options(policy, s.on_failure, s.allow_failed, *limits, s.reuse, most, self.budget, careful, share)

    def whose(self) -> str | None:
        """Whose session it is, when it is not for a task that runs in this process to wait in."""
        is_driving = any(not job.done.is_set() for job in self.active.values())
        return "the session that runs it" if is_driving else None

    def check_can_drive(self) -> None:
        """Raise where no job can be driven from here, with what to do instead, before anything is stored."""
        refuse_inside(self.whose())
        if self.pool is None and not self.is_inline and "executor" not in vars(self):
            from geoflow.executors.spawning import check_can_start

            check_can_start()

    def declared(self, job_type: Registered) -> dict[str, Admission]:
        """The limits of its stages, each declared until it is closed. ``DefinitionError`` if others differ, or if a
        stage needs more memory than there is."""
        for stage in job_type.stages:
            if self.budget is not None and (needs := stage.memory or 0) > self.budget:
                who = f"{job_type.name}: each task of stage {stage.number} ({stage.name})"
                raise DefinitionError(f"{who} needs {too_much(needs, self.budget)}")
        found: dict[str, Admission] = {}
        try:
            for limit in dict.fromkeys(stage.limit for stage in job_type.stages if stage.limit is not None):
                if limit.name in found:
                    raise DefinitionError(
                        f"Two stages of {job_type.name} have limits {limit.name!r} with different numbers: "
                        "give both the same, or other names."
                    )
                interval = 1 / limit.per_second if limit.per_second else 0.0
                places = limit.at_once or MAX_AT_ONCE
                found[limit.name] = Admission(self.limits_folder, limit.name, places, interval, str(limit))
        except BaseException:
            for admission in found.values():
                admission.close()
            raise
        return found

    def running(self, job_id: str) -> ActiveJob | None:
        """The job, if it is driven from here."""
        job = self.active.get(job_id)
        return None if job is None or job.done.is_set() else job

    def claim(
        self,
        row: JobRow,
        job_type: Registered,
        codes: Mapping[str, Code],
        intent: Intent = "go on",
        again: Again | None = None,
    ) -> ActiveJob:
        """Claim the job for this process; *codes* are by task type, that of the class by an empty name."""
        self.check_can_drive()
        here = Surroundings.now()
        lease, claimed = self.store.held(row), row._replace(owner=None)
        if lease is None:
            lease = self.store.claim(row.job_key, self.owner(row.job_id, job_type.stages, row.owner))
        try:
            if lease.epoch > row.epoch:
                fresh = self.store.job(row.job_id)
                assert fresh is not None, "a claimed job is in the store"
                # The owner before this claim left marks that say what ran when it ended.
                claimed = fresh._replace(owner=row.owner)
            parts: dict[str, Any] = {"surroundings": here, "saved_to": self.files_of(row.job_id)}
            job = ActiveJob(claimed, lease, job_type, codes, self.options, intent=intent, again=again, **parts)
            job.limits = self.declared(job_type)
            self._keep_sources(job)
        except BaseException:
            self.store.release(lease)
            raise
        job.on_done = self._let_go
        self.active[row.job_id] = job
        if self.claimed is not None:
            self.claimed.append(job)
        return job

    def _keep_sources(self, job: ActiveJob) -> None:
        """Keep the text of the job's handlers, for who compares. What is in the way of that is in no job's way."""

        def text(handler: object) -> str:
            return mask_text(text_of(handler)[:SOURCE_CHARACTERS], self.settings.secrets)

        handlers = job.job_type.handlers.items()
        texts = {job.codes[name].fingerprint: partial(text, handler) for name, handler in handlers if name in job.codes}
        with contextlib.suppress(Exception):
            self.store.keep_sources(texts)

    def _let_go(self, job: ActiveJob) -> None:
        if job.job_id in self.followers and job.status == JobStatus.COMPLETED:
            done = threading.Event()
            self._following = [*(each for each in self._following if not each.is_set()), done]
            threading.Thread(target=self._followed, args=(job.job_id, done), name="geoflow-follow").start()
        if job.interrupted or job.error:
            self._stopped.append(job)
            if len(self._stopped) <= REMEMBERED:
                return
            job = self._stopped.popleft()
        if self.active.get(job.job_id) is job:
            self.active.pop(job.job_id, None)

    def follow(self, job_id: str, follower: Follower) -> None:
        """Have *follower* act once the job has completed; at once, in this thread, where it has."""
        self.followers.setdefault(job_id, []).append(follower)
        if self._has_completed(job_id):
            for each in self.followers.pop(job_id, ()):
                each.submit()

    def _followed(self, job_id: str, done: threading.Event) -> None:
        try:
            for each in self.followers.pop(job_id, ()):
                each.in_background()
        finally:
            done.set()

    def wait_for_all(self) -> None:
        """Wait for all that is driven from here, and for what follows it."""
        while True:
            for job in list(self.active.values()):
                self.wait_for(job)
            for done in self._following:
                done.wait()
            completed = [job_id for job_id in list(self.followers) if self._has_completed(job_id)]
            for job_id in completed:  # its end was seen before its followers' thread
                for each in self.followers.pop(job_id, ()):
                    each.in_background()
            if not completed and all(job.done.is_set() for job in list(self.active.values())):
                return

    def _has_completed(self, job_id: str) -> bool:
        row = self.store.job(job_id)
        return row is not None and row.status == JobStatus.COMPLETED

    def start(self, job: ActiveJob, *, awaited: bool) -> None:
        """Have *job* driven. Where there are no workers, and it is *awaited*, that is up to `wait_for`."""
        driven = self.machine.ask("start", job)
        if not driven and not (awaited and self.is_inline):
            self._in_background()

    def _in_background(self) -> None:
        # Should two be started at once, the second waits for the first, and finds nothing left to drive.
        threading.Thread(target=self._drive, name="geoflow-machine").start()

    def _drive(self) -> None:
        # A method, which keeps what it is of: parts that nobody else holds still drive their jobs, and are found when
        # the interpreter exits.
        with contextlib.suppress(BaseException):  # whoever waits for a job was told
            self.machine.drive(linger=0.0 if self.is_inline else LINGER_SECONDS)

    def wait_for(
        self, job: ActiveJob, deadline: Callable[[], bool] | None = None, refresh: Callable[[], None] | None = None
    ) -> bool:
        """Wait until the job is done, driving it from here where there are no workers; False past the deadline."""
        if self.is_inline:
            self.machine.drive(lambda: job.done.is_set() or bool(deadline and deadline()))
            if not self.machine.idle():
                self._in_background()  # what else was submitted meanwhile counts on being driven
        while not job.done.wait(0.05):  # short steps, so that an interrupt of the kernel lands
            if deadline is not None and deadline():
                return False
            if refresh is not None:
                refresh()
        return True

    def ask(self, verb: Verb, job: ActiveJob) -> None:
        """Have the loop cancel or interrupt the job, and see it done."""
        if self.machine.ask(verb, job):
            job.done.wait(5.0)
        else:
            self.machine.drive(job.done.is_set)

    def put_back(self, row: JobRow) -> None:
        """Have nobody drive the job, though its being claimed or started was interrupted, or failed."""
        job = self.active.get(row.job_id)
        try:
            if job is not None and not job.done.is_set():
                self.ask("interrupt", job)
        finally:
            if job is None or not job.done.is_set():  # the machine never heard of it
                self.active.pop(row.job_id, None)
                self.store.abandon(row.job_key)

    def cancel_here(self, row: JobRow) -> None:
        """Cancel a job that nobody drives; its code is not needed for that."""
        known = stored_type(row)
        job = self.claim(row, known, {CLASS: pack(known.job_class)})
        self.ask("cancel", job)
