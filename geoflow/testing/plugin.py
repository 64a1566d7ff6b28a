"""The pytest plugin: a session that waits for nothing, and a check of a job type.

pytest imports this whenever it starts: what it needs of geoflow is imported by the fixtures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from geoflow.session import Session


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "geoflow(**options): options of the session that geoflow_session opens")


class SkippingClock:
    """The machine's clock, set forward by whatever the engine would wait for. It never goes back."""

    tick = float("inf")

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._ahead

    def wait(self, inbox: SimpleQueue[Any], seconds: float) -> Any:
        until = self.now() + seconds
        try:
            return inbox.get(timeout=min(seconds, 0.001))  # long enough for other threads to be heard
        except Empty:
            self._ahead += max(until - self.now(), 0.0)
            return None


@pytest.fixture
def geoflow_session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session of this test's own, in memory, whose tasks run in this process. It also serves ``gf.run`` and its like.

    A retry is recorded with its backoff, but nobody waits for it. ``@pytest.mark.geoflow(workers=2, max_retries=0)``
    gives it other options; see `geoflow.Session`. ``GEOFLOW_*`` variables do not count.
    """
    for name in [name for name in os.environ if name.upper().startswith("GEOFLOW_")]:
        monkeypatch.delenv(name)
    from geoflow import api

    marker = request.node.get_closest_marker("geoflow")
    given = {"store": ":memory:", "workers": 0, "display": "none", "clock": SkippingClock()}
    session = api.open(**{**given, **(marker.kwargs if marker else {})})
    monkeypatch.setattr(api, "_session", session)
    yield session
    session.close()


@pytest.fixture
def geoflow_check() -> Callable[..., Any]:
    """A function that checks a job type as ``gf.check`` does, and fails the test with what was found wrong.

    ``strict=True`` fails it for warnings too. The report is returned.
    """

    def check(target: Any, handlers: Any = None, *, strict: bool = False, **parameters: Any) -> Any:
        __tracebackhide__ = True
        import geoflow as gf

        report = gf.check(target, handlers, **parameters)
        wrong = ("error", "warning") if strict else ("error",)
        if any(finding.severity in wrong for finding in report.findings):
            pytest.fail(repr(report), pytrace=False)
        return report

    return check
