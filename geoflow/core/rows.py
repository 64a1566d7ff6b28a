"""The rows that a store is read for, and what it is asked to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from geoflow.core.batch import Completed
from geoflow.core.models import Attempt, JobStatus
from geoflow.support.jsonable import from_json

Reuse = Literal["repair", "update", "nothing"]


class NewJob(NamedTuple):
    """A submission. ``stages`` and ``parameters`` are JSON text; ``source`` says where its code came from."""

    job_id: str
    job_type: str
    stages: str
    parameters: str
    created_at: float
    source: str | None = None


class JobRow(NamedTuple):
    """One job as the store has it. ``owner`` is JSON text about the last process that drove it."""

    job_key: int
    job_id: str
    job_type: str
    status: JobStatus
    stage: int
    stages: str
    parameters: str
    result: str | None
    error: str | None
    traceback: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    owner: str | None
    epoch: int
    source: str | None

    @property
    def let_pass(self) -> frozenset[int]:
        """The keys of the plans that have failed tasks, and without which the job went on."""
        if '"let_pass"' not in self.stages:
            return frozenset()
        return frozenset(key for stage in from_json(self.stages) if type(key := stage.get("let_pass")) is int)

    @property
    def told_of_owner(self) -> dict[str, Any]:
        """What ``owner`` says, as far as it is a dict: it may say anything."""
        try:
            owner = from_json(self.owner or "{}")
        except ValueError:
            return {}
        return owner if isinstance(owner, dict) else {}

    @property
    def has_ended(self) -> bool:
        """Whether nothing of the job will change any more by itself."""
        return self.ended_at is not None and self.status not in (JobStatus.QUEUED, JobStatus.PROCESSING)


class StageRow(NamedTuple):
    """A planned stage, whose tasks have the keys ``first_key`` to ``first_key + task_count - 1``."""

    stage_key: int
    stage: int
    first_key: int
    task_count: int
    planned_at: float

    @property
    def end_key(self) -> int:
        """The key after the last task's."""
        return self.first_key + self.task_count


class Take(NamedTuple):
    """Which queued tasks of a stage to start: the first ones of each of *groups*, as many as go together, and as many
    new ones as *sizes* say, from the first behind the key *after* on."""

    stage: StageRow
    groups: Sequence[Sequence[int]] = ()
    after: int = 0
    sizes: Sequence[int] = ()


class Again(NamedTuple):
    """What of a job a rerun does over: everything from *stage* on, or, with *keep*, what of it is out of date.

    With *keep* the stage's plan stays, and its tasks that ran with the code of now; the stages behind it go. The job
    gets other *parameters* (JSON text) where these are given. With *reuse*, what is planned anew takes over results: in
    a ``"repair"`` those of this job's own plans that it sets aside, whatever files are like by now; in an ``"update"``
    those of all that is the same, but for what looks at the world. With ``"nothing"`` it does not, though the job type
    or the session says so.
    """

    stage: int = 1
    keep: bool = False
    parameters: str | None = None
    reuse: Reuse | None = None

    @property
    def told(self) -> tuple[str, str | None]:
        """What a job's history says of it: the event, and what of the job it is about, where that is not all."""
        if self.reuse == "update":
            return "updated", None
        if self.reuse == "repair":
            return "retried", f"what failed, from stage {self.stage} on"
        what = f"what is stale, from stage {self.stage} on" if self.keep else f"from stage {self.stage} on"
        return "rerun", what if self.keep or self.stage > 1 else None


class Anew(NamedTuple):
    """What a job's plans are made anew for, and *since* which plan's key those that are set aside may be taken from."""

    mode: Reuse
    since: int


class Keyed(NamedTuple):
    """What a task is known by to later plans, whatever ran it: its *place* in this one, a *digest* of its type and its
    parameters, and its ``jobtypes.inputs.Inputs`` as JSON text."""

    place: int
    digest: str
    inputs: str


class SeenJob(NamedTuple):
    """A job as somebody has seen it, who wants to remove that one and no other."""

    job_id: str
    status: str
    ended_at: float | None
    tasks: int


class TakenOver(NamedTuple):
    """The tasks of a plan, by their places, that take over results, and the keys of the attempts that made these; and
    what later plans are to know others by."""

    reused: Mapping[int, int] = MappingProxyType({})
    keyed: Sequence[Keyed] = ()


class Reusable(NamedTuple):
    """A task that has completed and may be taken over; *result* is JSON text, where that was asked for."""

    digest: str
    attempt_key: int
    code: str
    inputs: str
    ended_at: float | None
    result: str


class FailedRow(NamedTuple):
    """A failed task, in the order in which `geoflow.core.next_step.failure_message` takes them."""

    task_index: int
    task_id: str
    task_type: str
    retries: int
    error: str


class Results(NamedTuple):
    """The results of so many tasks as one JSON array, in task order."""

    tasks: int
    text: str


class Move(NamedTuple):
    """A change of state of the tasks *keys*, all by the same *event* of ``TASK_TRANSITIONS``."""

    event: str
    keys: Sequence[int]
    not_before: float | None = None


class Changes(NamedTuple):
    """What the store has yet to hear of a job's tasks."""

    moves: list[Move]
    attempts: list[Attempt]
    completed: list[Completed]


class EventRow(NamedTuple):
    """What happened to a job: the *event*, in a past participle; the status that the job had and that it has since, and
    the *stage* that it is at. *tasks* is how many it was about. A *session* of the process *pid* on *host* made it.
    """

    happened_at: float
    event: str
    was: str | None
    status: str | None
    stage: int
    tasks: int
    why: str | None
    session: str
    pid: int
    host: str


class Lease(NamedTuple):
    """The right to write to a job: it is good until someone claims the job again."""

    job_key: int
    job_id: str
    epoch: int

    @property
    def correlation_id(self) -> str:
        """What all lines of the log have in common that tell of one way of the job's through engine and workers."""
        return f"{self.job_id[:8]}.{self.epoch}"
