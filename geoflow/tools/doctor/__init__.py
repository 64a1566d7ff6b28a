"""Whether this machine is fit for the work: what was tried, what came of it, and what to do about it.

Each check looks at one thing, for real where it can (it takes locks, starts a worker, writes ahead), and leaves nothing
behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from geoflow.render.report import Entry, Report
from geoflow.stores.opening import is_duckdb
from geoflow.support.masking import mask_text
from geoflow.support.settings import Settings
from geoflow.support.text import count, plain
from geoflow.tools.doctor.diagnosis import Diagnosis, problem
from geoflow.tools.doctor.geospatial import geo_libraries, geo_variables
from geoflow.tools.doctor.installed import extras, packages, python, sqlite_library
from geoflow.tools.doctor.places import file_system, folder, locks, log, mounts, unwritable, write_ahead
from geoflow.tools.doctor.processes import leftovers, open_files, shared_memory, worker_environment, workers
from geoflow.tools.doctor.store import jobs, store_file

__all__ = ["Diagnosis", "DoctorReport", "doctor"]


class DoctorReport(Report, tuple[Diagnosis, ...]):
    """What the checks found, in order; it shows itself as lines."""

    title = "Doctor"
    titled = False
    most_lines = 6

    @property
    def exit_status(self) -> int:  # type: ignore[override]
        """1 when there is a problem, else 0; warnings do not count."""
        return int(self._number("problem") > 0)

    def _number(self, status: str) -> int:
        return sum(diagnosis.status == status for diagnosis in self)

    def document(self) -> list[dict[str, str]]:
        """For programs: dicts with ``name``, ``status``, ``text`` and ``remedy``."""
        return [{key: mask_text(value) for key, value in diagnosis._asdict().items()} for diagnosis in self]

    def parts(self) -> Iterator[str | Entry]:
        """What each check found, and the verdict last."""
        longest = max((len(diagnosis.name) for diagnosis in self), default=0)
        for name, status, text, remedy in self:
            said = (("", text), ("To do: ", remedy)) if remedy else (("", text),)
            masked = tuple((label, mask_text(plain(words))) for label, words in said)  # as it will be seen
            yield Entry(status, f"{status:7}", name, masked, margin=longest + 11)
        problems, warnings = self._number("problem"), self._number("warning")
        verdict = "Mend the problems first." if problems else "This machine is fit for the work."
        yield f"{count(len(self), 'check')}: {count(problems, 'problem')}, {count(warnings, 'warning')}. {verdict}"


def doctor(settings: Settings) -> DoctorReport:
    """What all checks find, for sessions of these *settings*. They take about a second."""
    return DoctorReport(_made(check)._replace(name=name) for name, check in _checks(settings))


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], Diagnosis]]]:
    store, temp = Path(settings.store).absolute(), Path(tempfile.gettempdir())
    kept = settings.store != ":memory:"
    yield "python", python
    yield "sqlite", sqlite_library
    yield "packages", packages
    yield "extras", extras
    yield "geo libraries", geo_libraries
    yield "geo variables", partial(geo_variables, os.environ)
    if kept:
        yield "store folder", partial(folder, store.parent)
    if kept and store.parent.is_dir():
        yield "file system", partial(file_system, store.parent, mounts())
    # Where there are no locks, or no space, SQLite would wait for them half a minute each time.
    fit = kept and not unwritable(store.parent)
    if fit:
        held = _made(partial(locks, store))
        yield "locks", lambda: held
        fit = held.status == "ok"
        if fit and not is_duckdb(store):
            yield "write-ahead log", partial(write_ahead, store.parent)
    yield "temporary folder", partial(folder, temp)
    yield "log", partial(log, settings.log_path)
    yield "shared memory", shared_memory
    yield "open files", partial(open_files, settings.workers)
    yield "workers", workers
    yield "worker environment", partial(worker_environment, os.environ, settings.preload)
    yield "leftovers", partial(leftovers, temp)
    if kept:
        yield "store", partial(store_file, store, as_it_lies=not fit)
        if fit:
            yield "jobs", partial(jobs, store)


def _made(check: Callable[[], Diagnosis]) -> Diagnosis:
    try:
        return check()
    except Exception as exc:  # one check that fails must not keep the others from being made
        return problem(f"It could not be checked: {type(exc).__name__}: {exc}", "Mend what it says.")
