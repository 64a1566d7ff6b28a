"""What HTML and text say of a job in the same words. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from geoflow.support.jsonable import from_json
from geoflow.support.masking import mask, mask_text
from geoflow.support.text import count, first_lines, human_duration, shorten
from geoflow.views.model import JobView, StageView

SYMBOLS = {
    "queued": "○",
    "processing": "▸",
    "completed": "✓",
    "failed": "✗",
    "cancelled": "⊘",
    "interrupted": "‖",
    "completed with errors": "!",
    "not planned": "·",
}
# What can be done with a job, by the name of its handle's method: what its button is called, and what it does.
ACTIONS = {
    "retry_failed": ("Retry failed", "Run the failed tasks again, with the code of now."),
    "resume": ("Resume", "Go on with what has not completed, with the code of now."),
    "refinalize": ("Finalize again", "Run finalize alone again, with the code of now."),
    "update": ("Update", "Run what is new or has changed, and what is behind it; the rest is taken over."),
    "cancel": ("Cancel", "End the job. While a cell waits for it, interrupting the kernel (■) works everywhere."),
}
# The title of what is folded where it can be, and left out where it cannot.
WHOLE = "Whole traceback"
# The title of what a failed task was given, which is JSON.
GIVEN = "Parameters of the task"
# JSON longer than this is not parsed to be drawn: a drawing is made several times a second.
READ = 50_000


def parallelism(stage: StageView) -> str:
    return shorten(stage.parallelism.replace("_", " "), 20)


def when(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def took(seconds: float | None) -> str:
    return "" if seconds is None else human_duration(seconds)


def about(view: JobView) -> list[str]:
    """What there is to say beside the state."""
    now = driven = ""
    if view.driver:
        driven = f"driven by {shorten(view.driver.partition(', since')[0], 60)}"
        if view.status == "failed" and view.ended_at is None:
            now = "its other tasks still run"
        elif view.status == "processing" and all(stage.state.startswith("completed") for stage in view.stages):
            now = "finalizing"
        elif view.remaining is not None:
            now = left(view)
    return [part for part in (took(view.elapsed), now, f"submitted {when(view.created_at)}", driven) if part]


def left(view: JobView) -> str:
    """How long it will take yet, in words that claim no more than is known: later stages have no pace yet."""
    assert view.remaining is not None
    at = max((stage.number for stage in view.stages if stage.planned), default=len(view.stages))
    of = "" if at == len(view.stages) else f" of stage {at}"
    seconds = max(round(view.remaining), 1)
    return f"about {f'{seconds} s' if seconds < 60 else human_duration(seconds)} left{of}"


def without(view: JobView) -> str:
    """That the job went on without tasks that failed; an empty text when it did not."""
    passed = [stage for stage in view.stages if stage.let_pass and stage.counts.get("failed")]
    if not passed:
        return ""
    failed, tasks = sum(stage.counts["failed"] for stage in passed), sum(stage.tasks for stage in passed)
    where = f"stage {passed[0].number}" if len(passed) == 1 else f"{len(passed)} stages"
    return (
        f"{failed:,} of {count(tasks, 'task')} of {where} failed, and the job went on without "
        f"{'it' if failed == 1 else 'them'}. In production the job would have failed."
    )


def times(stage: StageView) -> list[str]:
    """How long its tasks run and wait, on average."""
    means = (("run", stage.ran), ("wait", stage.waited))
    return [f"{'mean ' * (stage.tasks > 1)}{word} {took(span)}" for word, span in means if span is not None]


def waits(stage: StageView) -> str:
    """That some of its tasks wait until they are tried again; an empty text when none does."""
    if stage.waiting == 1:
        return "1 waits for its retry"
    return f"{stage.waiting:,} wait for their retries" if stage.waiting else ""


def reused(stage: StageView) -> str:
    """How many of its tasks have run, where others have not: their results are those of equal ones."""
    ended = stage.counts.get("completed", 0) + stage.counts.get("failed", 0)
    return f"{stage.reused:,} reused, {ended - stage.reused:,} ran" if stage.reused else ""


def errors_title(view: JobView) -> str:
    shown = sum(group.tasks for group in view.errors)
    others = f", {view.failed - shown:,} more in job.errors()" if shown < view.failed else ""
    return f"Errors: {count(shown, 'failed task')} in {count(len(view.errors), 'group')}{others}"


def readable(text: str, limit: int, secrets: Sequence[str]) -> str:
    """JSON *text* masked and made readable, in about *limit* characters."""
    if len(text) >= READ:
        return shorten(mask_text(text[:READ], secrets), limit)
    return first_lines(laid_out(mask(from_json(text), secrets), 100), characters=limit)


def laid_out(value: Any, width: int) -> str:
    """*value* as JSON, on one line if that has at most *width* characters."""
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= width else json.dumps(value, ensure_ascii=False, indent=2)
