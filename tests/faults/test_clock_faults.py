"""The machine's clock is set back or forward while a job runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.clocks import ManualClock
from tests.helpers.sessions import OpenSession, rows


class SetClock(ManualClock):
    """A clock that is set by *step* seconds when someone first waits for it."""

    tick = 0.1  # as the real one, which is looked at again and again

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = step

    def wait(self, inbox: Any, seconds: float) -> Any:
        if self.step:
            self.advance(self.step)
            self.step = 0.0
            return None
        assert sum(self.waits) < 60, "it waits for a time that will not come"
        return super().wait(inbox, seconds)


@pytest.mark.parametrize("step", [-3_600.0, 86_400.0, -1_000_000_000.0])
def test_F105_a_clock_that_is_set_makes_no_retry_wait_longer_than_its_delay(
    open_session: OpenSession, step: float
) -> None:
    clock = SetClock(step)
    session = open_session(workers=0, clock=clock, max_retries=2, base_delay=1.0, max_delay=2.0)
    job = session.run("acts", tasks=[{"do": "raise", "value": "OSError", "until_attempt": 3}])
    assert job.status == "completed"
    assert rows(session, "SELECT attempts, retries FROM tasks") == [(3, 2)]
    assert sum(clock.waits) <= 1.0 + 2.0 + clock.tick
    assert rows(session, "SELECT count(*) FROM attempts WHERE ended_at < started_at") == [(0,)]
