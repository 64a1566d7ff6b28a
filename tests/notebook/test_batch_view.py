"""Many jobs in one view that moves, in a notebook: a row a job, until nobody drives any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import geoflow as gf
from tests.helpers.drawn import checked, text_of
from tests.helpers.sessions import OpenSession
from tests.helpers.waiting import wait_until
from tests.notebook.test_widget import Page, open_notebook, page

__all__ = ["open_notebook", "page"]
FAILS = {"do": "raise", "value": "ValueError"}


def said(page: Page, place: int = -1) -> str:
    return text_of(page.outputs[place]["text/html"])


def until(path: Path) -> dict[str, object]:
    """A task that runs until the file is there."""
    return {"do": "wait for", "value": str(path)}


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def test_S67_a_batch_is_seen_live_until_its_jobs_have_ended_and_what_is_seen_then_stays(
    open_notebook: OpenSession, page: Page, gate: Path
) -> None:
    session = open_notebook()
    batch = session.map("acts", [{"tasks": [{}, until(gate)], "n": 1}, {"tasks": [FAILS], "n": 2}], tag="two")
    batch.watch()
    (seen,) = page.outputs
    assert {*seen} == {"text/plain", "text/html"}
    wait_until(lambda: "1 processing, 1 failed" in said(page))
    wait_until(lambda: "1/2" in said(page))
    page.next_cell()
    gate.touch()
    wait_until(lambda: "1 completed, 1 failed" in said(page))
    assert len(page.outputs) == 1  # the same output of the cell that asked
    checked(page.outputs[0]["text/html"])
    assert "a ValueError on purpose" in said(page)
    assert page.outputs[0]["text/plain"] == str(batch)
    batch.retry_failed().wait()
    assert "1 completed, 1 failed" in said(page, 0)


def test_S67_who_waits_for_a_batch_sees_it_meanwhile_and_once(
    open_notebook: OpenSession, page: Page, gate: Path
) -> None:
    session = open_notebook()
    batch = session.map("acts", [{"tasks": [{}], "n": n} for n in (1, 2)], tag="two")
    batch.wait()
    assert "2 jobs of acts: 2 completed" in said(page)
    assert len(page.outputs) == 1
    assert text_of(batch._repr_html_()) == "2 jobs of acts: 2 completed; see above"
    page.next_cell()
    assert "State Job n Time Tasks done Error" in text_of(batch._repr_html_())


def test_S67_a_session_that_is_closed_is_not_opened_again_for_the_view_of_a_batch(
    open_notebook: OpenSession, page: Page, gate: Path
) -> None:
    session = open_notebook()
    batch = session.map("acts", [{"tasks": [until(gate)], "n": n} for n in (1, 2)], tag="two")
    batch.watch()
    wait_until(lambda: "2 processing" in said(page))
    session.close()
    assert batch._drawn() == (None, True)
    assert session.runtime.open_store is None


def test_S67_where_there_is_no_notebook_a_batch_is_printed(
    open_session: OpenSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session = open_session(":memory:", workers=0)
    batch: gf.batch_handle.Batch = session.map("acts", [{"tasks": [{}], "n": n} for n in (1, 2)], tag="two")
    batch.wait()
    capsys.readouterr()
    batch.watch()
    assert capsys.readouterr().out == f"{batch}\n"
