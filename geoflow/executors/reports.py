"""From a worker's answer to a report on its chunk."""

from __future__ import annotations

from geoflow.executors.base import Chunk, Report
from geoflow.models import Attempt, Failure, Outcome
from geoflow.worker import Answer


def report(chunk: Chunk, answer: Answer, slot: int) -> Report:
    """Every call of *chunk* accounted for: ended, or not begun."""
    pid, base, memory, rows, planned = answer
    version = chunk.code.version
    attempts = []
    for call, (started, ended, cpu, result, failure, output) in zip(chunk.calls, rows, strict=False):
        attempts.append(
            Attempt(
                call.key,
                call.attempt,
                Outcome.COMPLETED if failure is None else Outcome.FAILED,
                base + started,
                base + ended,
                cpu,
                memory,
                result,
                None if failure is None else Failure(*failure),
                output,
                slot,
                pid,
                version,
            )
        )
    unstarted = tuple(call.key for call in chunk.calls[len(rows) :])
    return Report(chunk, tuple(attempts), unstarted=unstarted, planned=tuple(planned))
