"""What HTML and text say of a job in the same words, and how wide a text is in a terminal. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

from geoflow.notebook.views import LETTERS, ErrorGroup, JobView, StageView
from geoflow.text import count, human_duration, shorten

# A symbol for each state, and the class that gives it its colour.
SYMBOLS = {
    "queued": ("○", "queued"),
    "processing": ("▸", "processing"),
    "completed": ("✓", "completed"),
    "failed": ("✗", "failed"),
    "cancelled": ("⊘", "cancelled"),
    "interrupted": ("‖", "interrupted"),
    "completed with errors": ("!", "errors"),
    "not planned": ("·", "unplanned"),
}
NO_JOBS = "There are no jobs yet: session.run(...) makes one."
# Of a job with more stages, those around the one that it is at.
_STAGES_SHOWN = 12


def parallelism(stage: StageView) -> str:
    """How the stage's tasks are made, in words; an author may have words of his own."""
    return {"fan_out": "fan out", "fan_in": "fan in"}.get(stage.parallelism) or shorten(stage.parallelism, 20)


def short_id(job_id: str) -> str:
    return shorten(job_id[:8], 8)


def when(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def took(seconds: float | None) -> str:
    return "" if seconds is None else human_duration(seconds)


def window(stages: Sequence[StageView]) -> tuple[Sequence[StageView], str]:
    """The stages to show, and what to say of the others."""
    if len(stages) <= _STAGES_SHOWN:
        return stages, ""
    at = next((i for i, stage in enumerate(stages) if stage.state != "completed"), len(stages))
    first = min(max(at - _STAGES_SHOWN // 2, 0), len(stages) - _STAGES_SHOWN)
    shown = stages[first : first + _STAGES_SHOWN]
    return shown, f"Stages {first + 1} to {first + len(shown)} of {len(stages)}; job.stages() has all of them."


def stage_time(stage: StageView, view: JobView) -> str:
    until = view.now if stage.ended_at is None and view.driver is not None else stage.ended_at
    return took(until - stage.started_at) if until is not None and stage.started_at is not None else ""


def numbers(stage: StageView) -> list[tuple[str, int]]:
    return [(state, stage.counts[state]) for state in reversed(LETTERS.values()) if stage.counts.get(state)]


def about(view: JobView) -> list[str]:
    """What there is to say beside the state."""
    now = []
    if view.status == "failed" and view.ended_at is None and view.driver:
        now = ["its other tasks still run"]
    elif view.state == "processing" and view.stages and all(stage.state == "completed" for stage in view.stages):
        now = ["finalizing"]
    driven = [f"driven by {shorten(view.driver, 60)}"] if view.driver else []
    return [part for part in (took(view.elapsed), *now, f"submitted {when(view.created_at)}", *driven) if part]


def errors_title(view: JobView) -> str:
    groups = f"in {count(len(view.errors), 'group')}"
    if view.examined < view.failed:
        return f"Errors: {count(view.failed, 'failed task')}, of which the first {view.examined} are {groups}"
    return f"Errors: {count(view.failed, 'failed task')} {groups}"


def ungrouped(view: JobView) -> str:
    left = view.examined - sum(group.count for group in view.errors)
    return f"{count(left, 'more task')} failed in other ways: see job.errors()." if left else ""


def fate(group: ErrorGroup) -> str:
    return f"{shorten(group.category, 20) or 'unknown'}, {'retried' if group.retried else 'not retried'}"


def waits(group: ErrorGroup) -> list[tuple[str, str, str]]:
    """The attempts as (number, what came before it, how it ended)."""
    rows = []
    for number, waited, error, outcome, duration in group.attempts:
        before = "no wait" if waited is None else f"waited {human_duration(waited)}"
        ran = "" if duration is None else f" after {human_duration(duration)}"
        rows.append((str(number), before, f"{outcome}{ran}: {error}"))
    return rows


# Widths in a terminal


def columns(char: str) -> int:
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1


def fit(line: str, width: int) -> str:
    """*line* in at most *width* columns of a terminal, where some characters take two."""
    if sum(map(columns, line)) <= width:
        return line
    used, kept = 0, []
    for char in line:
        used += columns(char)
        if used >= width:
            break
        kept.append(char)
    return "".join(kept).rstrip() + "…"


def pad(text: str, width: int) -> str:
    fitted = fit(text, width)
    return fitted + " " * (width - sum(map(columns, fitted)))
