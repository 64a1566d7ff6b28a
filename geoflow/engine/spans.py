"""Jobs, stages and attempts as spans of OpenTelemetry, where this process has a provider of the SDK that takes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from geoflow.core.rows import JobRow
from geoflow.stores.store import Store
from geoflow.support.masking import mask_text
from geoflow.views import rows

# The SDK's batch processor holds 2,048 spans and drops those that are too many (OTEL_BSP_MAX_QUEUE_SIZE).
FLUSHED_AFTER = 500
_ENDED = ("completed", "failed", "cancelled")  # what a job was when it was taken up again
_OF_ATTEMPT = ("task_id", "attempt", "outcome", "error_type", "error_category", "slot", "pid", "cpu", "peak_memory")


def told_too(
    store: Store, secrets: Sequence[str], on_job_complete: Callable[..., object] | None
) -> Callable[..., object] | None:
    """*on_job_complete*, and before it the spans of the job that ended, where somebody takes spans by now.

    Each attempt is told of once: those since the job ended for the last time, whoever ended it.
    """
    sdk = sys.modules.get("opentelemetry.sdk.trace")
    provider: Any = sys.modules["opentelemetry.trace"].get_tracer_provider() if sdk is not None else None
    if sdk is None or not isinstance(provider, sdk.TracerProvider):
        return on_job_complete

    def ended(*, job_id: str, **about: Any) -> None:
        try:
            row = store.job(job_id)
            if row is not None:
                again = [event for event in store.events(job_id) if event.event == "claimed" and event.was in _ENDED]
                _tell(store, row, secrets, provider, again[-1].happened_at if again else 0.0)
        finally:
            if on_job_complete is not None:
                on_job_complete(job_id=job_id, **about)

    return ended


def _tell(store: Store, row: JobRow, secrets: Sequence[str], provider: Any, since: float) -> None:
    """Spans of what has ended after *since*, in seconds since the epoch."""
    spans = _Spans(provider, secrets)
    ended, began = row.ended_at or since, max(row.started_at or row.created_at, since)
    about = {"job_id": row.job_id, "job_type": row.job_type, "status": str(row.status)}
    job = spans.begin(f"job {row.job_type}", began, None, about)
    if row.error:
        spans.fail(job, row.error, None, row.traceback)
    for stage in rows.stages(store, row.job_id):
        last = planned = max(_seconds(stage["planned_at"]) or since, since)
        of_stage = None
        for attempt in rows.attempts_ended_after(store, row.job_id, stage["stage"], since):
            started, done = _seconds(attempt["started_at"]), _seconds(attempt["ended_at"])
            if started is None or done is None:
                continue  # nobody saw it end
            if of_stage is None:
                about = {"stage": stage["stage"], "tasks": stage["tasks"]}
                of_stage = spans.begin(f"stage {stage['stage_name']}", planned, job, about)
            own = spans.begin(attempt["task_type"], started, of_stage, {name: attempt[name] for name in _OF_ATTEMPT})
            if attempt["error"] is not None:
                spans.fail(own, attempt["error"], attempt["error_type"], attempt["traceback"])
            spans.end(own, done)
            last = max(last, done)
        if of_stage is not None:
            spans.end(of_stage, last)
    spans.end(job, max(ended, began))
    provider.force_flush()


class _Spans:
    """Spans with times of their own, which are seconds since the epoch."""

    def __init__(self, provider: Any, secrets: Sequence[str]) -> None:
        self._provider, self._secrets = provider, secrets
        self._tracer = provider.get_tracer("geoflow", version("geoflow"))
        self._ended = 0

    def begin(self, name: str, at: float, parent: Any, about: Mapping[str, Any]) -> Any:
        from opentelemetry.trace import set_span_in_context

        attributes = {f"geoflow.{key}": value for key, value in about.items() if value is not None}
        inside = None if parent is None else set_span_in_context(parent)
        return self._tracer.start_span(name, inside, start_time=_nanoseconds(at), attributes=attributes)

    def fail(self, span: Any, error: str, error_type: str | None, traceback: str | None) -> None:
        """As OpenTelemetry has exceptions: an event of this name, with these attributes."""
        from opentelemetry.trace import Status, StatusCode

        told = {"exception.message": error, "exception.type": error_type, "exception.stacktrace": traceback}
        told = {name: mask_text(text, self._secrets) for name, text in told.items() if text}
        span.add_event("exception", told)
        span.set_status(Status(StatusCode.ERROR, told["exception.message"]))

    def end(self, span: Any, at: float) -> None:
        span.end(_nanoseconds(at))
        self._ended += 1
        if self._ended % FLUSHED_AFTER == 0:
            self._provider.force_flush()


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _nanoseconds(at: float) -> int:
    return round(at * 1e6) * 1_000
