"""What the machine asks of an executor, and what travels to a worker and back.

Tasks travel in chunks. What comes back accounts for every one of a chunk's tasks: it ended (an attempt), it was lost
with its process through no fault of its own, or it never began.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any, Literal, NamedTuple, Protocol

from geoflow.models import Attempt, Call
from geoflow.retry import RetryPolicy
from geoflow.transport import Code


class Chunk(NamedTuple):
    """Work for one slot: tasks of one stage and handler, or one plan, or one finalize.

    A plan's or finalize's single call has the key 0 and carries its arguments as JSON in ``parameters``. ``timeout``
    is in seconds for each call. ``task_types`` are those that a plan may name.
    """

    number: int
    kind: Literal["tasks", "plan", "finalize"]
    job_id: str
    job_type: str
    stage: int
    code: Code
    calls: tuple[Call, ...]
    policy: RetryPolicy
    timeout: float | None = None
    task_types: tuple[str, ...] = ()


def to_wire(chunk: Chunk) -> Chunk:
    """*chunk* with its calls turned into columns: a list of texts is pickled in a third of the time of its tuples."""
    return chunk._replace(calls=tuple(zip(*chunk.calls, strict=True)))  # type: ignore[arg-type]


def from_wire(chunk: Chunk) -> Chunk:
    """What `to_wire` was given."""
    return chunk._replace(calls=tuple(map(Call._make, zip(*chunk.calls, strict=True))))


class Report(NamedTuple):
    """What became of a chunk.

    ``attempts`` are the calls that ended, the one that took its process down with it included; ``lost``, keys of
    calls that had run in a process that died before it told; ``unstarted``, keys of those that had not begun.
    ``planned`` are a plan's tasks. ``broken`` says that the slot cannot start processes at all.
    """

    chunk: Chunk
    attempts: tuple[Attempt, ...] = ()
    lost: tuple[int, ...] = ()
    unstarted: tuple[int, ...] = ()
    planned: tuple[Any, ...] = ()
    broken: str | None = None
    suspects: bool = False


class Executor(Protocol):
    """Runs chunks in slots. All methods are called from the machine's thread, except `start`'s inbox."""

    slots: int

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
        """End the processes that run this job's chunks, and report on these."""

    def busy(self) -> bool:
        """Whether any chunk is out."""

    def where(self) -> str | None:
        """A folder from which `running_at_death` tells later what ran, if this process is killed."""

    def close(self) -> None:
        """End all processes, within seconds whatever they do."""
