"""In one line, how a job that stopped half-way came to do so: by whom, when, and what of it is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from geoflow.core.rows import EventRow
from geoflow.support.text import count, human_duration, shorten
from geoflow.views.model import when
from geoflow.views.stages import StageView

LOOKED_AT = 20  # of a job's last events
_STOPS = {"cancelled": "cancelled", "interrupted": "interrupted", "failed": "failed", "ended": "failed"}
_BEGIN = ("submitted", "claimed")
_REST = ("cancelled", "interrupted", "ended", "finalized")
_CHANGE_NOTHING = ("found again", "claimed", "cancel asked")


def stopped(events: Sequence[EventRow], stages: Iterable[StageView], session: str, host: str, now: float) -> str:
    """What to say of it to who looks from that *session* on that *host*; nothing where the *events* do not tell."""
    changes = [place for place, event in enumerate(events) if event.event not in _CHANGE_NOTHING]
    if not changes or (last := events[changes[-1]]).event not in _STOPS:
        return ""
    asked = events[changes[-1] - 1] if changes[-1] else last
    by = f" by {_who(asked if asked.event == 'cancel asked' else last, session, host)}" * (last.status != "failed")
    since, at = ago(now - last.happened_at), when(last.happened_at)  # both: what is kept grows old
    waiting = sum(stage.counts.get(state, 0) for stage in stages for state in ("queued", "cancelled", "processing"))
    left = f", {count(waiting, 'task')} left" if waiting else ""
    return f"{_STOPS[last.event]}{by} {since} ({at}){left}"


def worked(events: Iterable[EventRow], driven_until: float | None) -> float | None:
    """So many seconds somebody drove the job, by its *events*; None where these do not tell, or not from its beginning.

    A job of geoflow 0.1 has events only since a newer one resumed it. What lies between a stop and the next beginning
    does not count. Of a driver that was killed its last event counts as its end; *driven_until* is now, where somebody
    drives it.
    """
    total, since, last, told = 0.0, None, 0.0, False
    for event in events:
        told = told or event.event == "submitted"
        if event.event in _BEGIN:
            total += last - since if since is not None else 0.0
            since = event.happened_at
        elif event.event in _REST and since is not None:
            total, since = total + event.happened_at - since, None
        last = event.happened_at
    if since is not None:
        total += max((last if driven_until is None else driven_until) - since, 0.0)
    return total if told else None


def ago(seconds: float) -> str:
    """So many seconds before now, in words."""
    if seconds < 10.0:
        return "just now"
    length = f"{seconds:.0f} s" if seconds < 60.0 else " ".join(human_duration(seconds).split()[:2])
    return f"{length} ago"


def _who(event: EventRow, session: str, host: str) -> str:
    if event.session and event.session == session:
        return "you"
    where = "" if event.host == host else f" on {shorten(event.host, 40)}"
    return f"another session (process {event.pid}{where})"
