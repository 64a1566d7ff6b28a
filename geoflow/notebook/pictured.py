"""The pictures of a job: each is made when it is asked for, and its card has all of which there is something to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from geoflow.engine.runtime import Runtime
from geoflow.stores.store import Store
from geoflow.support.text import shorten

if TYPE_CHECKING:
    from geoflow.render.pictures import Picture


class Pictured:
    """A job that has pictures. They are of the attempts that have ended, of the plans that count now; each is made once
    and does not change, and costs for 100,000 attempts a tenth of a second. ``print`` has it as text.
    """

    runtime: Runtime
    id: str

    def timeline(self) -> Picture:
        """A picture of when each worker was busy, and with what came of it; planning, retries and pauses are seen."""
        return self._drawn("Timeline")

    def histogram(self) -> Picture:
        """A picture of how long the attempts of each stage ran, the slowest named."""
        return self._drawn("Durations")

    def over_time(self) -> Picture:
        """A picture of how many attempts had ended by when, and how: where it is steep, much was done."""
        return self._drawn("Progress")

    def memory(self) -> Picture:
        """A picture of how much memory each worker's process had at most, and when, as far as that is known.

        It is the ``peak_memory`` of `attempts`.
        """
        return self._drawn("Memory")

    def map(self) -> Picture:
        """A map of where its tasks work, coloured by their state, with the coasts as a faint ground.

        A footprint is looked for in a task's parameters, then in its metadata and its result: GeoJSON, a ``bbox`` in
        degrees, the ``z``, ``x`` and ``y`` of a tile, a ``quadkey``, or an H3 cell, for which h3 is to be installed.
        Of many tasks 400 are looked at, those that failed first; the picture says so.
        """
        return self._drawn("Map")

    def pictures(self) -> Iterator[tuple[str, str]]:
        """All of these of which there is something to see: a title and HTML each."""
        return pictures(self.runtime.store, self.id, self._name())

    def _drawn(self, what: str) -> Picture:
        return _drawings(self.runtime.store, self.id, self._name(), peaks=what == "Memory")[what]()

    def _name(self) -> str:
        return name_of(self.runtime.row(self.id).job_type, self.id)


def name_of(job_type: str, job_id: str) -> str:
    """What the pictures of the job call it."""
    return f"{shorten(job_type, 60)} {job_id[:8]}"


def pictures(store: Store, job_id: str, name: str) -> Iterator[tuple[str, str]]:
    """What there is to see of a job that has stopped: its pictures as HTML, each with a title."""
    for title, draw in _drawings(store, job_id, name, peaks=True).items():
        if picture := draw():
            yield title, picture.part


def _drawings(store: Store, job_id: str, name: str, *, peaks: bool) -> dict[str, Callable[[], Picture]]:
    from geoflow.render import maps
    from geoflow.render import pictures as made
    from geoflow.views import located
    from geoflow.views.timing import Timing

    timing = cache(lambda: Timing.of(store, job_id, peaks=peaks))  # what all but the map are drawn of
    return {
        "Timeline": lambda: made.timeline_picture(timing().timeline(), name),
        "Durations": lambda: made.histogram_picture(timing().histogram(), name),
        "Progress": lambda: made.over_time_picture(timing().over_time(), name),
        "Memory": lambda: made.memory_picture(timing().memory(), name),
        "Map": lambda: maps.map_picture(located.located(store, job_id), name),
    }
