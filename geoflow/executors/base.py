"""What the machine asks of an executor, and what travels to a worker and back.

Tasks travel in chunks. What comes back accounts for every one of a chunk's tasks: it ended (an attempt), it was lost
with its process through no fault of its own, or it never began.
"""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple, Protocol

from geoflow.core.batch import Batch, Completed, NewTasks
from geoflow.core.models import Attempt
from geoflow.core.retry import RetryPolicy
from geoflow.executors.surroundings import Surroundings
from geoflow.support.parcel import Texts
from geoflow.usercode.packing import Code


class Chunk(NamedTuple):
    """Work for one slot: tasks of one stage and handler, or one plan, or one finalize.

    A plan or finalize is a batch of one call, with the key 0 and its arguments as ``parameters``; what it is told of
    results is in ``texts``, and a long plan may be written to the file ``answer``. ``timeout`` is in seconds for each
    call. ``task_types`` are those that a plan may name. When it has taken ``patience`` seconds, it goes back with what
    is done. ``surroundings`` are None for a process that is in them already.
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


class Executor(Protocol):
    """Runs chunks in slots. All methods are called from the machine's thread, except `start`'s inbox."""

    slots: int
    # How much work makes the way to a slot and back cheap.
    chunk_seconds: float

    def start(self, inbox: SimpleQueue[Any]) -> None:
        """Be ready; put a message in *inbox* whenever something is there to `collect`."""

    def capacity(self, job_id: str, *, reserve: bool) -> int:
        """How many more chunks of the job the slots can take; with *reserve*, one behind each that runs."""

    def submit(self, chunk: Chunk) -> None:
        """Send *chunk* to the slot that has the least to do. Call only within `capacity`."""

    def run_here(self) -> bool:
        """Run one chunk in this very thread, where that is how the executor works; whether there was one."""

    def collect(self, message: Any) -> list[Report]:
        """What a message from the inbox means."""

    def check(self) -> list[Report]:
        """Look for calls that are past their timeout and processes that ended without a word; end those."""

    def stop(self, job_id: str) -> list[Report]:
        """End the processes that run this job's chunks, and report on these: what had ended by then, it has ended."""

    def busy(self) -> bool:
        """Whether any chunk is out."""

    def where(self) -> str | None:
        """A folder from which `running_at_death` tells later what ran, if this process is killed."""

    def close(self) -> None:
        """End all processes, within seconds whatever they do."""
