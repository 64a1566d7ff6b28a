"""A report on a chunk: from a worker's answer, or from the mark of a process that is gone without one."""

from __future__ import annotations

from typing import Any

from geoflow.core.batch import Completed, NewTasks
from geoflow.core.chunks import Chunk, Report
from geoflow.core.models import Attempt, Failure, Outcome
from geoflow.executors.loaded_code import Held
from geoflow.executors.marker import Mark
from geoflow.executors.returned import Returned
from geoflow.executors.worker import Answer
from geoflow.support.parcel import Texts

_FAULT_HEADS = ("Fatal Python error:", "Stack (most recent call first):", "Current thread 0x")


def from_answer(chunk: Chunk, answer: Answer, slot: int, held: Held | None = None) -> Report:
    """Every call of *chunk* accounted for: ended, or not begun. *held* is what ran, where the answer does not say."""
    held = Held(*answer.held) if answer.held else held
    batch, version = chunk.batch, held.fingerprint if held else chunk.code.fingerprint
    pid, memory = answer.pid, answer.peak_memory
    attempts = [
        Attempt(
            *(key, batch.attempt, Outcome.FAILED if failure else Outcome.COMPLETED, started_at, ended_at, cpu, memory),
            *(result, failure and Failure(*failure), output, slot, pid, version),
        )
        for key, started_at, ended_at, cpu, result, failure, output in answer.told
    ]
    completed = None
    if answer.ran > len(answer.told):
        keys, told = batch.keys[: answer.ran], {key for key, *_ in answer.told}
        keys = [key for key in keys if key not in told] if told else keys
        completed = Completed(batch.attempt, slot, pid, version, memory, keys, *answer.completed)
    return Report(
        chunk,
        attempts,
        unstarted=batch.keys[answer.ran :],
        planned=_tasks(*answer.planned) if answer.planned else None,
        completed=completed,
        seconds=answer.seconds,
    )


def has_ended(chunk: Chunk, mark: Mark) -> bool:
    """Whether all of the chunk's calls that the process will make are over."""
    if mark.chunk != chunk.number:
        return mark.chunk > chunk.number  # they are numbered in the order in which they are sent
    # Behind the last one comes only a call that saw that it was taken back.
    return mark.position < 0 or mark.position > len(chunk.batch.keys)


def from_mark(
    chunk: Chunk,
    mark: Mark,
    failure: Failure | None,
    printed: str | None,
    slot: int,
    now: float,
    ran: float,
    memory: str | None = None,
) -> Report | None:
    """What the *mark* says of a chunk whose process is gone without an answer; None where it had not begun.

    *failure* is what the process is gone for, where its call is to blame, which *ran* for so many seconds; what is told
    of its *memory* stands below what it printed.
    """
    keys, index = chunk.batch.keys, mark.position - 1
    if has_ended(chunk, mark):
        if len(keys) > 1 or failure is None:
            ended = min(abs(mark.position), len(keys)) if mark.chunk == chunk.number else len(keys)
            return Report(chunk, lost=keys[:ended], unstarted=keys[ended:], suspects=failure is not None)
        index = 0
    elif mark.chunk != chunk.number or mark.position == 0:
        return None
    if failure is None:
        return Report(chunk, lost=keys[: index + 1], unstarted=keys[index + 1 :], printed=printed)
    output, stack = _parted(printed)
    blamed = Attempt(
        keys[index],
        chunk.batch.attempt,
        Outcome.FAILED,
        now - max(ran, 0.0),
        now,
        failure=failure._replace(traceback=stack),
        output=output if memory is None else f"{output.rstrip()}\n{memory}" if output else memory,
        slot=slot,
        pid=mark.pid,
        code=chunk.code.fingerprint,
    )
    return Report(chunk, (blamed,), lost=keys[:index], unstarted=keys[index + 1 :])


def with_returned(report: Report, returned: Returned | None) -> Report:
    """The *report* on a process that is gone, with what its calls had *returned*: nobody is blamed for one of these."""
    if returned is None or not returned.attempts:
        return report
    begun = frozenset(report.lost).union(attempt.key for attempt in report.attempts)
    kept = returned.report(begun, report.chunk)
    keys = {attempt.key for attempt in returned.attempts}
    others = [attempt for attempt in report.attempts if attempt.key not in keys]
    return report._replace(
        attempts=[*kept.attempts, *others],
        completed=kept.completed,
        lost=[key for key in report.lost if key not in keys],
        seconds=kept.seconds,
    )


def _parted(printed: str | None) -> tuple[str | None, str | None]:
    """What the task printed, and the stack that the process wrote as it ended."""
    heads = [place for head in _FAULT_HEADS if (place := (printed or "").find(head)) >= 0]
    if printed is None or not heads:
        return printed, None
    return printed[: min(heads)] or None, printed[min(heads) :]


def _tasks(task_ids: list[str], task_types: list[str], inputs: list[str | None], *texts: Any) -> NewTasks:
    """A plan's tasks, whose parameters and metadata may be in a file."""
    if len(texts) == 1:
        texts = Texts(file=texts[0], of=2), Texts(file=texts[0], place=1, of=2)
    return NewTasks(task_ids, task_types, *texts)._replace(inputs=inputs)
