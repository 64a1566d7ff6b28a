"""From a worker's answer to a report on its chunk."""

from __future__ import annotations

from typing import Any

from geoflow.core.batch import Completed, NewTasks
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Failure, Outcome
from geoflow.executors.codes import Held
from geoflow.executors.worker import Answer
from geoflow.support.parcel import Texts


def report(chunk: Chunk, answer: Answer, slot: int, held: Held | None = None) -> Report:
    """Every call of *chunk* accounted for: ended, or not begun. *held* is what ran, where the answer does not say."""
    held = Held(*answer.held) if answer.held else held
    batch, version = chunk.batch, held.fingerprint if held else chunk.code.fingerprint
    pid, memory = answer.pid, answer.peak_memory
    attempts = [
        Attempt(
            key,
            batch.attempt,
            Outcome.COMPLETED if failure is None else Outcome.FAILED,
            started_at,
            ended_at,
            cpu,
            memory,
            result,
            None if failure is None else Failure(*failure),
            output,
            slot,
            pid,
            version,
        )
        for key, started_at, ended_at, cpu, result, failure, output in answer.told
    ]
    completed = None
    if answer.ran > len(answer.told):
        positions, *columns = answer.completed
        keys = [batch.keys[position] for position in positions] if answer.told else batch.keys[: answer.ran]
        completed = Completed(batch.attempt, slot, pid, version, memory, keys, *columns)
    return Report(
        chunk,
        attempts,
        unstarted=batch.keys[answer.ran :],
        planned=_tasks(*answer.planned) if answer.planned else None,
        completed=completed,
        seconds=answer.seconds,
    )


def _tasks(task_ids: list[str], task_types: list[str], *texts: Any) -> NewTasks:
    """A plan's tasks, whose parameters and metadata may be in a file."""
    if len(texts) == 1:
        texts = Texts(file=texts[0], of=2), Texts(file=texts[0], place=1, of=2)
    return NewTasks(task_ids, task_types, *texts)
