"""Whether this machine is fit for the work: what was tried, what came of it, and what to do about it.

Each check looks at one thing, for real where it can (it takes locks, starts a worker, writes ahead), and leaves nothing
behind.
"""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from geoflow.stores.opening import is_duckdb
from geoflow.support.config import Settings
from geoflow.support.masking import mask_text
from geoflow.support.text import count, plain
from geoflow.tools.doctor.finding import Finding, problem
from geoflow.tools.doctor.installed import extras, geo_variables, packages, python, sqlite_library
from geoflow.tools.doctor.places import file_system, folder, locks, log, mounts, unwritable, write_ahead
from geoflow.tools.doctor.processes import leftovers, open_files, shared_memory, workers
from geoflow.tools.doctor.store import jobs, store_file

__all__ = ["Finding", "Report", "doctor"]

MOST_LINES = 6


class Report(tuple[Finding, ...]):
    """What the checks found, in order; it shows itself as lines."""

    def lines(self, width: int = 80) -> Iterator[str]:
        """For people, in *width* columns where words allow it; the verdict comes last."""
        longest = max((len(finding.name) for finding in self), default=0)
        for name, status, text, remedy in self:
            head = f"{status:7}  {name:{longest}}  "
            wrapper = textwrap.TextWrapper(max(width - len(head), 30), break_long_words=False, break_on_hyphens=False)
            wrapper.max_lines, wrapper.placeholder = MOST_LINES, " … --json tells all of it."
            for part in filter(None, (text, remedy and f"To do: {remedy}")):
                for line in wrapper.wrap(mask_text(plain(part))):
                    yield head + line
                    head = " " * len(head)
        problems, warnings = (sum(finding.status == wanted for finding in self) for wanted in ("problem", "warning"))
        verdict = "Mend the problems first." if problems else "This machine is fit for the work."
        yield f"{count(len(self), 'check')}: {count(problems, 'problem')}, {count(warnings, 'warning')}. {verdict}"

    def document(self) -> list[dict[str, str]]:
        """For programs: dicts with ``name``, ``status``, ``text`` and ``remedy``."""
        return [{key: mask_text(value) for key, value in finding._asdict().items()} for finding in self]

    @property
    def exit_status(self) -> int:
        """1 when there is a problem, else 0; warnings do not count."""
        return int(any(finding.status == "problem" for finding in self))

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def doctor(settings: Settings) -> Report:
    """What all checks find, for sessions of these *settings*. They take about a second."""
    return Report(_made(check)._replace(name=name) for name, check in _checks(settings))


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], Finding]]]:
    store, temp = Path(settings.store).absolute(), Path(tempfile.gettempdir())
    kept = settings.store != ":memory:"
    yield "python", python
    yield "sqlite", sqlite_library
    yield "packages", packages
    yield "extras", extras
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
    yield "leftovers", partial(leftovers, temp)
    if kept:
        yield "store", partial(store_file, store, as_it_lies=not fit)
        if fit:
            yield "jobs", partial(jobs, store)


def _made(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as exc:  # one check that fails must not keep the others from being made
        return problem(f"It could not be checked: {type(exc).__name__}: {exc}", "Mend what it says.")
