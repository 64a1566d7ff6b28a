"""A notebook in a browser for the tests; without what that needs they are skipped, or fail where it is required."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.driving import Lab, chromium, jupyter, missing


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    reason = missing()
    if reason and os.environ.get("GEOFLOW_BROWSER") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with jupyter(tmp_path_factory.mktemp("jupyter")) as (url, folder):
        yield Lab(browser, url, folder)


@pytest.fixture
def notebook(lab: Lab, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A new notebook with a session that has the job types of `jobs`; nothing may go wrong on its page."""
    with lab.opened(re.sub(r"\W", "_", request.node.name)):
        lab.run(
            "import geoflow as gf\n"
            "from tests.helpers import jobs\n"
            f"session = gf.open({str(tmp_path / 'work.db')!r}, workers=2, max_retries=0)\n"
            "registered = session.register(jobs)"
        )
        yield lab
        lab.page.screenshot(path=tmp_path / "page.png")  # to be looked at where a test has failed
