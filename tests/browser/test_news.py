"""What one is told without looking: the end of a job, in the tab's title and to a screen reader, and mistakes."""

from __future__ import annotations

import nbformat
import pytest

from tests.browser.driving import Lab, until

pytestmark = pytest.mark.browser
# A page that is driven is never hidden by itself.
HIDDEN = "Object.defineProperty(document, 'hidden', {value: true, configurable: true})"
SEEN = "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))"


def test_the_end_of_a_long_job_is_in_the_title_of_a_tab_that_is_not_seen_until_it_is(notebook: Lab) -> None:
    notebook.run("from geoflow.notebook import outputs\noutputs.LONG = 1")
    before = notebook.page.title()
    short = notebook.run("job = session.run('acts', tasks=[{}])")
    until(short, "✓ completed")
    notebook.page.evaluate(HIDDEN)
    cell = notebook.run("job = session.run('acts', tasks=[{'do': 'sleep', 'value': 1.5}, {}])")
    until(cell, "✓ completed")
    notebook.page.wait_for_function("document.title.startsWith('✓ acts · ')")
    assert notebook.page.title() == f"✓ acts · {before}"
    assert cell.get_by_role("status").inner_text().split()[:3] == ["✓", "completed", "acts"]
    notebook.page.evaluate(SEEN)
    assert notebook.page.title() == before
    notebook.command("docmanager:save")
    cells = nbformat.read(notebook.file, 4).cells
    kinds = {kind for each in cells for output in each.get("outputs", ()) for kind in output.get("data", ())}
    assert "application/javascript" not in kinds, "nothing of it stays"


def test_a_job_that_runs_is_no_news_and_one_that_has_stopped_is(notebook: Lab) -> None:
    cell = notebook.run("job = session.submit('acts', tasks=[{'do': 'sleep', 'value': 60}])\njob.watch()")
    until(cell, "▸ processing")
    assert cell.get_by_role("status").count() == 0
    notebook.run("job.cancel();")
    until(cell, "cancelled")
    assert "cancelled" in cell.get_by_role("status").first.inner_text()


def test_a_mistake_is_one_block_and_an_interrupt_one_line(notebook: Lab) -> None:
    wrong = notebook.run("session.run('no_such_type')")
    assert wrong.locator(".jp-OutputArea-output").inner_text().startswith("DefinitionError: Unknown job type")
    assert "Traceback" not in wrong.inner_text()
    cell = notebook.run("session.run('acts', tasks=[{'do': 'sleep', 'value': 60}])", wait=False)
    until(cell, "▸ processing")
    notebook.command("notebook:interrupt-kernel")
    notebook.until_run(cell)
    until(cell, "Interrupted. Job ")
    assert "Traceback" not in cell.inner_text()
