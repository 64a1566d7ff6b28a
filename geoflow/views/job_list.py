"""The last jobs of a store as rows: what tells them apart, how far they are, and how long ago they were submitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from geoflow.stores.store import Store
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.masking import mask
from geoflow.support.text import human_duration, shorten
from geoflow.views.model import SYMBOLS, JobView, when
from geoflow.views.past import ago, worked
from geoflow.views.snapshot import listing

HEADS = ("State", "Job", "Job type", "Parameters", "Tasks", "Worked", "Submitted")


class ListedJob(NamedTuple):
    """A job in words, by `HEADS`; ``at`` is the moment of which ``words`` say how long ago it was."""

    view: JobView
    words: tuple[str, ...]
    at: str


def listed_jobs(store: Store, now: float, limit: int, secrets: Sequence[str]) -> list[ListedJob]:
    """The last *limit* jobs, newest first; of their parameters those that are not the same in all of their type."""
    views = listing(store, now, limit)
    rows = {view.job_id: store.job(view.job_id) for view in views}
    given: dict[str, dict[str, Any]] = {
        key: mask(from_json(row.parameters), secrets) for key, row in rows.items() if row
    }
    by_type: dict[str, list[dict[str, Any]]] = {}
    for view in views:
        by_type.setdefault(view.job_type, []).append(given.get(view.job_id, {}))
    return [
        ListedJob(
            view,
            (
                f"{SYMBOLS[view.state]} {view.state}",
                view.job_id[:8],
                shorten(view.job_type, 30),
                _told(given.get(view.job_id, {}), by_type[view.job_type]),
                _done(view),
                _worked(store, view, now),
                ago(max(now - view.created_at, 0.0)),
            ),
            when(view.created_at),
        )
        for view in views
    ]


def _worked(store: Store, view: JobView, now: float) -> str:
    """For how long somebody drove it, without the night before a resume; where that was not kept, at most so long."""
    seconds = worked(store.events(view.job_id), now if view.driver else None)
    if seconds is None and view.elapsed is not None:
        return f"at most {human_duration(view.elapsed)}"
    return "" if seconds is None else human_duration(seconds)


def _told(parameters: dict[str, Any], others: list[dict[str, Any]]) -> str:
    texts = {name: to_json(value) for name, value in parameters.items()}
    alike = [name for name in texts if all(to_json(other.get(name)) == texts[name] for other in others)]
    shown = [name for name in texts if name not in alike] or list(texts) if len(others) > 1 else list(texts)
    return " ".join(f"{shorten(name, 20)}={shorten(texts[name], 20)}" for name in shown[:3])


def _done(view: JobView) -> str:
    tasks, completed = (sum(stage.tasks for stage in view.stages), view.counts["completed"])
    return f"{completed:,}/{tasks:,}" + (f", {view.failed:,} failed" if view.failed else "")
