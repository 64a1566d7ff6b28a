"""How a job that stopped came to do so, in one line."""

from __future__ import annotations

import pytest

from geoflow.core.rows import EventRow
from geoflow.views.past import stopped
from geoflow.views.stages import StageView

STAGES = [StageView(1, "scan", "scan_it", "single", True, 100, {"completed": 24, "cancelled": 76}, None)]
NOON = 1_700_000_000.0


def event(
    name: str, *, status: str | None = None, session: str = "mine", host: str = "here", at: float = NOON
) -> EventRow:
    return EventRow(at, name, "processing", status or name, 1, 0, None, session, 42, host)


def said(*events: EventRow, later: float = 180.0) -> str:
    return stopped(events, STAGES, "mine", "here", NOON + later)


def test_S63_a_cancelled_job_says_by_whom_when_and_what_is_left() -> None:
    assert said(event("cancelled")) == "cancelled by you 3 min ago (2023-11-14 22:13:20 UTC), 76 tasks left"
    assert said(event("cancelled", session="other")).startswith("cancelled by another session (process 42) 3 min ago")
    assert "(process 42 on there)" in said(event("cancelled", session="other", host="there"))


def test_S63_who_asked_counts_and_not_who_drove() -> None:
    asked, done = event("cancel asked"), event("cancelled", session="other")
    assert said(asked, done).startswith("cancelled by you ")
    assert said(done, event("found again"), event("claimed")).startswith("cancelled by another")


def test_S63_a_job_of_which_the_last_event_is_no_stop_has_no_such_line() -> None:
    assert said() == ""
    assert said(event("cancelled"), event("resumed", status="queued")) == ""
    assert said(event("found again")) == ""


def test_S63_nobody_fails_a_job() -> None:
    assert said(event("failed"), event("ended", status="failed")).startswith("failed 3 min ago (")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "just now"), (9, "just now"), (42, "42 s ago"), (90, "1 min ago"), (7200, "2 h ago"), (2e5, "2 d ago")],
)
def test_S63_how_long_ago_is_told_in_one_unit(seconds: float, words: str) -> None:
    assert f" {words} (" in said(event("cancelled"), later=seconds)
