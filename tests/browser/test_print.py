"""A job on paper: what is folded or scrolls on a page is there in full, and dark pages are white."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from tests.browser.driving import Page
from tests.helpers import jobs

pytestmark = pytest.mark.browser
DARK = '<body data-jp-theme-light="false" style="--jp-content-font-color1: #eee; --jp-layout-color0: #111">{}</body>'


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    """A dark page with a failed job one of whose tasks has a long parameter, above its pictures."""
    with gf.Session(":memory:", workers=0, max_retries=0, display="none") as session:
        session.register(jobs)
        said = "\n".join(f"line {number}" for number in range(60))
        job = session.run("acts", tasks=[{"do": "raise", "value": "ValueError", "note": said}, {}, {}])
        (tmp_path / "job.html").write_text(f"<!doctype html><meta charset=utf-8>{DARK.format(job._repr_html_())}")
    opened = Page(browser, "file:")
    opened.page.goto((tmp_path / "job.html").as_uri())
    yield opened.page
    opened.page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (opened.errors, opened.external) == ([], [])
    opened.close()


def test_all_that_is_folded_or_scrolls_is_printed(page: Any) -> None:
    folded = page.locator("details:not([open]) > :not(summary)")
    texts = page.locator(".geoflow pre")
    assert folded.count() > 2
    assert not folded.first.is_visible()
    scrolls = "all => all.filter(one => one.scrollHeight > one.clientHeight + 1).length"
    page.locator("summary").first.click()
    assert texts.evaluate_all("all => all.some(one => getComputedStyle(one).maxHeight !== 'none')")
    page.emulate_media(media="print")
    assert all(part.is_visible() for part in folded.all())
    assert texts.evaluate_all(scrolls) == 0
    assert page.get_by_text("line 59").first.is_visible()
    page.emulate_media(media="screen")
    assert not folded.first.is_visible()


def test_paper_is_white_whatever_the_page_is(page: Any) -> None:
    colours = "one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).color]"
    card = page.locator(".geoflow").first
    assert card.evaluate(colours)[0] == "rgb(17, 17, 17)"
    page.emulate_media(media="print")
    assert card.evaluate(colours) == ["rgb(255, 255, 255)", "rgb(31, 35, 40)"]
