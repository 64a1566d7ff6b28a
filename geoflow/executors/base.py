"""What the machine asks of an executor, and what travels to a worker and back.

Tasks travel in chunks. What comes back accounts for every one of a chunk's tasks: it ended (an attempt), it was lost
with its process through no fault of its own, or it never began.
"""

from __future__ import annotations

from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, Protocol

from geoflow.core.chunks import Chunk, Report


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

    def written(self) -> None:
        """All that was reported by now is in the store."""

    def stop(self, job_id: str) -> list[Report]:
        """End the processes that run this job's chunks, and report on these: what had ended by then, it has ended."""

    def busy(self) -> bool:
        """Whether any chunk is out."""

    def looks(self) -> Mapping[int, int] | None:
        """How many bytes each task that went out by itself has in memory now, by its key, once that has been about
        the same for some time; None where that cannot be told."""

    def where(self) -> str | None:
        """A folder from which `leftovers` tells later what ran and what had returned, if this process is killed."""

    def close(self) -> None:
        """End all processes, within seconds whatever they do."""
