"""The list of jobs in a notebook: a row a job, which opens it, as long as the session is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geoflow.core.rows import EventRow
from geoflow.notebook import job_list
from geoflow.notebook.outputs import WIDGET
from geoflow.views.job_list import listed_jobs
from geoflow.views.past import ago, worked
from tests.helpers.drawn import checked, text_of
from tests.helpers.sessions import OpenSession
from tests.helpers.waiting import wait_until
from tests.notebook.test_widget import Page, open_notebook, page

__all__ = ["open_notebook", "page"]
FAILS = {"do": "raise", "value": "ValueError"}


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> list[job_list.JobList]:
    """Those that were shown."""
    shown: list[job_list.JobList] = []
    show = job_list.JobList.show

    def shows(self: job_list.JobList) -> None:
        shown.append(self)
        show(self)

    monkeypatch.setattr(job_list.JobList, "show", shows)
    return shown


def words(listed: job_list.JobList) -> list[str]:
    return [row.description for row in listed.rows if row.layout.display != "none"]


def test_S68_jobs_are_listed_live_and_a_row_opens_its_job_and_closes_it_again(
    open_notebook: OpenSession, page: Page, lists: list[job_list.JobList], tmp_path: Path
) -> None:
    session = open_notebook()
    session.run("acts", tasks=[FAILS], n=1)
    session.watch()
    (listed,) = lists
    assert WIDGET in page.outputs[-1]
    until = {"do": "wait for", "value": str(tmp_path / "gate")}
    job = session.submit("acts", tasks=[{}, until], n=2)
    wait_until(lambda: len(words(listed)) == 2 and "1/2" in words(listed)[1])
    oldest, newest = words(listed)
    assert "processing" in newest
    assert "n=2" in newest
    assert "failed" in oldest
    assert listed.rows[0].tooltip.startswith("Submitted 20")
    listed.rows[1].click()
    wait_until(lambda: "driven by this notebook" in text_of(listed._card.value))
    checked(listed._card.value)
    assert words(listed)[1].startswith("▾")
    (tmp_path / "gate").touch()
    job.wait()
    wait_until(lambda: "completed" in words(listed)[1])
    wait_until(lambda: text_of(listed._card.value).startswith("✓ completed acts"))
    listed.rows[1].click()
    wait_until(lambda: listed._card.value == "")


def test_S68_what_was_listed_stays_as_html_once_the_session_is_closed(
    open_notebook: OpenSession, page: Page, lists: list[job_list.JobList]
) -> None:
    session = open_notebook()
    session.run("acts", tasks=[{}], n="<b>")
    session.watch()
    place = len(page.outputs) - 1
    session.close()
    wait_until(lambda: WIDGET not in page.outputs[place])
    html = page.outputs[place]["text/html"]
    checked(html)
    assert "<b>" not in html
    assert 'title="20' in html


def test_S68_without_a_notebook_the_jobs_are_printed_in_80_columns(
    open_session: OpenSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session = open_session(workers=0)
    session.watch()
    session.run("hello_world", n=2)
    session.run("hello_world", n=3)
    session.watch(limit=1)
    none, head, row = capsys.readouterr().out.splitlines()
    assert none == "There are no jobs yet."
    assert head.split() == ["State", "Job", "Job", "type", "Parameters", "Tasks", "Submitted"]
    assert row.startswith("✓ completed")
    assert row.endswith("just now")
    assert max(len(head), len(row)) <= 80


def told(*events: tuple[str, float]) -> list[EventRow]:
    none: dict[str, Any] = dict.fromkeys(EventRow._fields)
    return [EventRow(**{**none, "event": event, "happened_at": at}) for event, at in events]


def test_the_hours_between_a_stop_and_the_next_beginning_are_not_worked() -> None:
    assert worked([], None) is None
    day = [("submitted", 0.0), ("started", 1.0), ("interrupted", 60.0), ("claimed", 30_000.0)]
    assert worked(told(*day, ("finalized", 30_040.0)), None) == 100.0
    assert worked(told(*day), 30_010.0) == 70.0, "it runs"
    assert worked(told(("submitted", 0.0), ("planned", 5.0), ("claimed", 90.0), ("ended", 100.0)), None) == 15.0, (
        "killed"
    )


def test_of_a_job_whose_beginning_has_no_events_it_is_not_told_that_it_was_worked_on_since_then_alone(
    open_session: OpenSession,
) -> None:
    resumed = told(("claimed", 30_000.0), ("finalized", 30_040.0))
    assert worked(resumed, None) is None
    session = open_session(workers=0)
    job = session.run("hello_world", n=2)
    store: Any = session.runtime.store
    now = session.runtime.clock.now()
    (listed,) = listed_jobs(store, now, 1, ())
    assert "at most" not in listed.words[5]
    with store._transaction() as connection:
        connection.execute("DELETE FROM events WHERE job_id = ? AND event = 'submitted'", (job.id,))
    (listed,) = listed_jobs(store, now, 1, ())
    assert listed.words[5].startswith("at most ")


def test_how_long_ago_is_said_as_a_person_would() -> None:
    assert [ago(seconds) for seconds in (0.0, 12.0, 200.0)] == ["just now", "12 s ago", "3 min ago"]
