"""One job while it is driven: what of, for whom and with what code, where it stands, and what is sent for it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from geoflow.core.batch import Batch
from geoflow.core.chunks import Chunk, Look
from geoflow.core.models import Category, Failure, JobStatus, Limit, OnFailure, Stage
from geoflow.core.next_step import Finalize, Plan, View
from geoflow.core.retry import RetryPolicy
from geoflow.core.rows import Again, Anew, JobRow, Lease, StageRow
from geoflow.core.stage import StageTasks
from geoflow.errors import DefinitionError
from geoflow.jobtypes.contract import Registered
from geoflow.support.admission import Admission, Place
from geoflow.support.allowance import AllowFailed, most
from geoflow.support.parcel import Texts
from geoflow.support.surroundings import Surroundings
from geoflow.support.text import count
from geoflow.usercode.packing import Code

_numbers = itertools.count()  # of all that are driven: the older one comes first
CLASS = ""  # what its class goes by among a job's codes
Intent = Literal["go on", "resume", "retry", "rerun", "refinalize"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a job is run, where its stages do not say otherwise. Times are in seconds."""

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    on_failure: OnFailure = "drain"
    allow_failed: AllowFailed = None
    task_timeout: float | None = None
    plan_timeout: float | None = None
    finalize_timeout: float | None = None
    reuse: bool = False
    result_limit: float | None = None  # bytes
    budget: int | None = None  # bytes that its tasks may have together with others'; None is any number
    careful: bool = False  # whether one is looked at first, where nothing is known of what they need
    share: int | None = None  # and that each may have, if there are as many as workers


class ActiveJob:
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
        saved_to: str | None = None,
    ) -> None:
        stages = len(job_type.stages)
        if row.stage > stages and intent != "rerun":
            raise DefinitionError(
                f"Job {row.job_id[:8]} is at stage {row.stage}, and {job_type.name} has {count(stages, 'stage')} now. "
                "Give it back the stages that it had; or,",
                python="to begin the job anew, job.rerun().",
                typed=f"to begin the job anew, geoflow rerun {row.job_id[:8]}.",
            )
        self.number = next(_numbers)
        self.row = row
        self.surroundings = surroundings
        self.saved_to = saved_to
        self.lease = lease
        self.job_type = job_type
        self.codes = codes
        self.options = options
        self.intent = intent
        self.again = again or Again()
        self.anew: Anew | None = None  # what its plans are made anew for
        self.parameters = self.again.parameters or row.parameters
        self.done = threading.Event()
        self.on_done: Callable[[ActiveJob], None] = lambda job: None
        self.error: BaseException | None = None
        self.interrupted = False
        self.asked: Plan | Finalize | None = None  # what user code is at, or is about to be sent for
        self.asked_again = 0
        self.to_send: Chunk | None = None
        self.files: list[str] = []  # that what is asked travels by
        self.blocked_until: float | None = None  # by a limit that others have a part in
        self.limits: dict[str, Admission] = {}  # by their names
        self._places: dict[int, Place] = {}  # by the numbers of chunks
        self.stand_at(row)
        self.tasks = StageTasks(options.policy)

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
        self.let_pass = set(row.let_pass)

    def begin(self, planned: StageRow | None, **state: Any) -> None:
        """Begin with the stage *planned*, or with one that is not planned; for its *state* see `StageTasks`."""
        if planned is not None:
            self.stage_number = planned.stage
        self.blocked_until = None
        policy = self.options.policy.of_stage(self.stage)
        budget, stage = self.options.budget, self.stage
        share = None if stage.memory or stage.memory_differs else self.options.share
        about: dict[str, Any] = {"workers": stage.at_once, "can_be_alone": budget is not None, "share": share}
        self.tasks = StageTasks(policy, planned, **about, **state)

    @property
    def stage(self) -> Stage:
        return self.job_type.stages[self.stage_number - 1]

    @property
    def on_failure(self) -> OnFailure:
        return self.stage.on_failure or self.options.on_failure

    @property
    def may_fail(self) -> int:
        """How many tasks of the stage may fail without the job."""
        if self.on_failure != "continue" or self.tasks.planned is None:
            return 0
        own = self.stage.allow_failed
        return most(self.options.allow_failed if own is None else own, self.tasks.planned.task_count)

    def view(self) -> View:
        return View(
            self.status,
            self.stage_number,
            len(self.job_type.stages),
            self.tasks.planned is not None,
            queued=len(self.tasks.queue),
            **self.tasks.counts,
            on_failure=self.on_failure,
            closed=self.closed,
            asked=self.asked,
            refinalizing=self.refinalizing,
            may_fail=self.may_fail,
        )

    # What is sent

    def chunk(self, number: int, batch: Batch, patience: float) -> Chunk:
        """The tasks of *batch*, ready to be sent; see `Chunk` for *patience*."""
        timeout = self.stage.timeout or self.options.task_timeout
        code, idle = self.codes[batch.task_type], self.stage.idle_timeout
        chunk = self._chunk(number, "tasks", self.stage_number, code, batch, timeout, patience)
        return chunk if idle is None else chunk._replace(idle_timeout=idle)

    # What others have a say in

    def admitted(self, limit: Limit, room: int, now: float) -> list[Place]:
        """Places for as many tasks as the *limit* of the stage lets begin, of those that there is *room* for."""
        admission, places = self.limits[limit.name], list[Place]()
        wanted = min(room, self.tasks.startable(now))
        while len(places) < wanted and (place := admission.admit()) is not None:
            places.append(place)
        if len(places) < wanted:
            self.blocked_until = now + admission.again_in
        return places

    def hold(self, chunk: Chunk, place: Place) -> Chunk:
        """The *chunk*, which has the *place* until `leave`."""
        self._places[chunk.number] = place
        return chunk._replace(place=place)

    def leave(self, *places: Place) -> None:
        if (limit := self.stage.limit) is not None:
            for place in places:
                self.limits[limit.name].leave(place)

    def is_back(self, number: int) -> None:
        """The chunk of that *number* has nothing to hold any more."""
        if self._places and (place := self._places.pop(number, None)) is not None:
            self.leave(place)

    def due(self) -> float | None:
        """When there is something to send again, if that is a matter of time."""
        if self.tasks.queue.is_blocked:
            return None
        return self.tasks.queue.due() if self.blocked_until is None else self.blocked_until

    def leave_limits(self) -> None:
        for admission in self.limits.values():
            admission.close()
        self.limits = {}

    def ask(
        self,
        step: Plan | Finalize,
        number: int,
        argument: str,
        texts: Texts,
        answer: str | None = None,
        look: Look | None = None,
    ) -> None:
        """Have user code called for a *step*, as soon as the chunk with its *argument* and *texts* can be sent.

        A plan is to *look* at files as well.
        """
        match step:
            case Plan(stage):
                kind: Literal["plan", "finalize"] = "plan"
                timeout = self.options.plan_timeout
            case Finalize():
                kind, stage, timeout = "finalize", self.stage_number, self.options.finalize_timeout
        self.asked, self.asked_again = step, 0
        batch = Batch(kind, 1, 0, 0, 0, (0,), f'["{kind}"]', f"[{argument}]")
        chunk = self._chunk(number, kind, stage, self.codes[CLASS], batch, timeout)
        self.to_send = chunk._replace(texts=texts, answer=answer, look=look)

    def asks_again(self, failure: Failure | None) -> bool:
        """Whether a plan whose process died is to be made once more, which is then counted: as for a task (S30)."""
        is_lost_plan = isinstance(self.asked, Plan) and failure is not None and failure.category == Category.LOST
        if not is_lost_plan or self.asked_again >= self.tasks.policy.max_retries:
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
        task_types = tuple(self.job_type.handlers)
        policy = self.tasks.policy if kind == "tasks" else self.options.policy
        named = (number, kind, self.job_id, self.job_type.name, stage, code, batch, policy, timeout, task_types)
        more: dict[str, Any] = {"files": self.saved_to, "result_limit": self.options.result_limit}
        more["budget"] = self.options.budget
        return Chunk(*named, patience, surroundings=self.surroundings, epoch=self.lease.epoch, **more)
