"""Which jobs are meant by what is said of them: their states, their type, when they were submitted or ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from geoflow.errors import ParameterError
from geoflow.support.text import shorten

if TYPE_CHECKING:
    from geoflow.views.model import JobView

# As a list of jobs shows them, in one word each.
STATES = ("queued", "processing", "completed", "with_errors", "failed", "cancelled", "interrupted")
_SHOWN = {"with_errors": "completed with errors"}


class Choice(NamedTuple):
    """What jobs have to be like: in one of the *states*, where there are any, of the *job_type*, submitted since."""

    states: Sequence[str] = ()
    job_type: str | None = None
    since: float | None = None

    def means(self, view: JobView) -> bool:
        return (
            (not self.states or view.state in [_SHOWN.get(state, state) for state in self.states])
            and self.job_type in (None, view.job_type)
            and (self.since is None or view.created_at >= self.since)
        )


def states_of(said: str | Sequence[str] | None) -> tuple[str, ...]:
    """The states that were *said*; ``ParameterError`` for one that there is not."""
    states = (said,) if isinstance(said, str) else tuple(said or ())
    if wrong := next((state for state in states if state not in STATES), None):
        raise ParameterError(f"state cannot be {shorten(repr(wrong), 40)}: a job is {', '.join(STATES)}.")
    return states
