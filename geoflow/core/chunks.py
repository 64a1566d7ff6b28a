"""What an executor is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from geoflow.core.batch import Batch, Completed, NewTasks
from geoflow.core.models import Attempt
from geoflow.core.retry import RetryPolicy
from geoflow.core.rows import Lease
from geoflow.support.admission import Place
from geoflow.support.parcel import Texts
from geoflow.support.surroundings import Surroundings
from geoflow.usercode.packing import Code


class Look(NamedTuple):
    """What to look at as a stage is planned: the files that its tasks' parameters name, but for those *ignored*.

    *inputs* are patterns of the names of those that are declared, which are told apart by their *content*, or by their
    size and times. *strict* says that each is to name some. *fan_in* is the one task, its id and its type, of a stage
    that is no other's to plan, and the stage's number.
    """

    inputs: tuple[str, ...] = ()
    content: bool = False
    ignored: tuple[str, ...] = ()
    strict: bool = False
    fan_in: tuple[str, str, int] | None = None


class Chunk(NamedTuple):
    """Work for one slot: tasks of one stage and handler, or one plan, or one finalize.

    A plan or finalize is a batch of one call, with the key 0 and its arguments as ``parameters``; what it is told of
    results is in ``texts``, and a long plan may be written to the file ``answer``. ``timeout`` is in seconds for each
    call, ``idle_timeout`` for one that tells nothing of itself. ``task_types`` are those that a plan may name. When
    it has taken ``patience`` seconds, it goes back with what is done. ``surroundings`` are None for a process that is
    in them already. ``look`` is what a plan is to look at, ``epoch`` that of the lease, and ``files`` the job's
    folder, for what its calls save. No result of a task may be more than ``result_limit`` bytes. A ``place`` is to be
    held while the call runs. There is a ``budget`` of memory for all tasks, in bytes: none of a plan may need more.
    """

    number: int
    kind: Literal["tasks", "plan", "finalize"]
    job_id: str
    job_type: str
    stage: int
    code: Code
    batch: Batch
    policy: RetryPolicy
    timeout: float | None = None
    task_types: tuple[str, ...] = ()
    patience: float = 0.0
    texts: Texts = Texts()
    answer: str | None = None
    surroundings: Surroundings | None = None
    look: Look | None = None
    epoch: int = 0
    files: str | None = None
    result_limit: float | None = None
    place: Place | None = None
    idle_timeout: float | None = None
    budget: int | None = None

    @property
    def correlation_id(self) -> str:
        """That of its job while it is driven by this lease; see `Lease`."""
        return Lease(0, self.job_id, self.epoch).correlation_id


class Report(NamedTuple):
    """What became of a chunk, or of some of its calls.

    ``completed`` and ``attempts`` are the calls that ended, the one that took its process down with it included;
    ``lost``, keys of calls that had run in a process that died before it told; ``unstarted``, keys of those that had
    not begun. ``planned`` are a plan's tasks. ``seconds`` is what the calls took together. ``broken`` says that the
    slot cannot start processes at all. ``printed`` is what the last of the lost has printed.
    """

    chunk: Chunk
    attempts: Sequence[Attempt] = ()
    lost: Sequence[int] = ()
    unstarted: Sequence[int] = ()
    planned: NewTasks | None = None
    broken: str | None = None
    suspects: bool = False
    completed: Completed | None = None
    seconds: float = 0.0
    printed: str | None = None
