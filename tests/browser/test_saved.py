"""What is left of a notebook without its kernel: in JupyterLab again, and as a page of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.driving import Lab, Page, button, until, use

pytestmark = pytest.mark.browser
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SLOW = "[{'do': 'sleep', 'value': 0.1}] * 100"
FAILING = "[{'do': 'raise', 'value': 'ValueError'}, {}, {}]"


def shown_of_jobs(path: Path) -> list[str]:
    """The first line of each job that the notebook *path* has an output of."""
    outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", ())]
    bundles = [output.data for output in outputs if 'class="geoflow"' in output.get("data", {}).get("text/html", "")]
    return [bundle["text/plain"].splitlines()[0] for bundle in bundles]


def check_page(browser: Any, path: Path, folder: Path) -> None:
    """Export the notebook *path* to HTML: it shows every job, and asks nobody for anything on account of that."""
    from nbconvert import HTMLExporter

    html = folder / "page.html"
    html.write_text(HTMLExporter().from_filename(str(path))[0])
    opened = Page(browser, "file:")
    opened.page.goto(html.as_uri())
    views = opened.page.locator(".geoflow:visible")
    words = [view.inner_text() for view in views.all()]
    expected = shown_of_jobs(path)
    assert expected
    assert len(words) == len(expected)
    for said, line in zip(words, expected, strict=True):
        assert "".join(line.split()) in "".join(said.split())  # a report has its title above it
    # What nbconvert puts into every page: formulas are drawn by the one, the other is for scripts in outputs.
    assert [url for url in opened.external if "mathjax" not in url and "require" not in url] == []
    opened.close()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_an_exported_notebook_shows_every_job_without_kernel_and_network(
    browser: Any, path: Path, tmp_path: Path
) -> None:
    check_page(browser, path, tmp_path)


def test_a_notebook_that_came_from_elsewhere_and_is_not_trusted_is_legible_all_the_same(lab: Lab) -> None:
    with lab.opened("untrusted", like=NOTEBOOKS[1]):
        view = lab.page.locator(".jp-OutputArea-child", has_text="Errors: 9 failed tasks in 4 groups")
        assert view.locator("style, svg").count() == 0, "JupyterLab has taken them out"
        for words in ("✗ failed", "51/60", "could not convert string to float: 'n/a'"):
            assert view.get_by_text(words).first.is_visible()
        group = view.locator("details", has_text="FileNotFoundError").first
        traceback = group.get_by_text("Traceback (most recent call last)").first
        assert not traceback.is_visible()
        group.get_by_text("FileNotFoundError").first.click()
        traceback.wait_for()


def test_what_was_saved_shows_how_jobs_ended_when_the_kernel_is_gone(
    notebook: Lab, browser: Any, tmp_path: Path
) -> None:
    failed = notebook.run(f"job = session.run('acts', tasks={FAILING})")
    button(failed, "Retry failed").wait_for()
    cancelled = notebook.run(f"job = session.submit('acts', tasks={SLOW})\njob.watch()")
    use(button(cancelled, "Cancel"))
    button(cancelled, "Resume").wait_for()
    notebook.command("docmanager:save")
    notebook.restart()
    notebook.reload()
    for cell, words in ((failed, "Errors: 1 failed task"), (cancelled, "⊘ cancelled")):
        until(cell, words)
        assert cell.locator(".gf-stages").is_visible()
        assert "widget" not in cell.inner_text()
        assert cell.get_by_role("button").count() == 0
    for cell in (failed, cancelled):
        cell.get_by_text("Error displaying widget").wait_for(state="attached")
        assert "widget" not in cell.inner_text(), "what JupyterLab says of buttons that are gone is not shown"
    assert all("widget model not found" in error for error in notebook.errors), (
        "nor can it be kept from saying it there"
    )
    notebook.errors.clear()
    check_page(browser, notebook.file, tmp_path)
