"""What others put in between: `geoflow.testing` has faults happen to handlers before their code travels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from geoflow.engine.parts import Parts
from geoflow.jobtypes.contract import Handler

Replace = Callable[[Parts, Mapping[str, Handler]], Mapping[str, Handler]]
_replace: Replace | None = None


def have_replaced(replace: Replace | None) -> None:
    """From now on handlers are what *replace* makes of them, given the session's parts; None: what they are."""
    global _replace  # noqa: PLW0603 - one for the process is what it is for
    _replace = replace


def as_run(parts: Parts, handlers: Mapping[str, Handler]) -> Mapping[str, Handler]:
    """What is run in place of *handlers*."""
    return handlers if _replace is None else _replace(parts, handlers)
