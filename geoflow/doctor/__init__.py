"""Whether this machine is fit for the work: what was tried, what came of it, and what to do about it.

Each check looks at one thing, for real where it can (it takes locks, starts a worker, writes ahead), and leaves nothing
behind.
"""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from geoflow.config import Settings
from geoflow.doctor.finding import Finding
from geoflow.doctor.installed import extras, geo_variables, packages, python, sqlite_library
from geoflow.doctor.places import file_system, folder, locks, log, mounts, unwritable, write_ahead
from geoflow.doctor.processes import leftovers, open_files, shared_memory, workers
from geoflow.doctor.store import jobs, store_file
from geoflow.stores.choice import is_duckdb
from geoflow.text import count, mask_text, plain

__all__ = ["Finding", "Report", "doctor"]


MOST_LINES = 6


class Report(tuple[Finding, ...]):
    """What the checks found, in order; it shows itself as lines."""

    def lines(self, width: int = 80) -> Iterator[str]:
        """For people, in *width* columns where words allow it; the verdict comes last."""
        longest = max((len(finding.name) for finding in self), default=0)
        for finding in self:
            text, remedy = (mask_text(plain(part)) for part in (finding.text, finding.remedy))
            head = f"{finding.status:7}  {finding.name:{longest}}  "
            wrapper = textwrap.TextWrapper(max(width - len(head), 30), break_long_words=False, break_on_hyphens=False)
            told = [line for part in (text, remedy and f"To do: {remedy}") for line in _cut(wrapper.wrap(part))]
            yield from (f"{' ' * len(head) if place else head}{line}" for place, line in enumerate(told))
        problems, warnings = (sum(finding.status == wanted for finding in self) for wanted in ("problem", "warning"))
        verdict = "Mend the problems first." if problems else "This machine is fit for the work."
        yield f"{count(len(self), 'check')}: {count(problems, 'problem')}, {count(warnings, 'warning')}. {verdict}"

    def document(self) -> list[dict[str, str]]:
        """For programs: dicts with ``name``, ``status``, ``text`` and ``remedy``."""
        return [{key: mask_text(value) for key, value in asdict(finding).items()} for finding in self]

    @property
    def exit_status(self) -> int:
        """1 when there is a problem, else 0; warnings do not count."""
        return int(any(finding.status == "problem" for finding in self))

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def doctor(settings: Settings) -> Report:
    """What all checks find, for sessions of these *settings*. They take about a second."""
    return Report(_made(check) for check in _checks(settings))


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "… --json tells all of it."]


def _checks(settings: Settings) -> Iterator[Callable[[], Finding]]:
    store, temp = Path(settings.store).absolute(), Path(tempfile.gettempdir())
    yield from (python, sqlite_library, packages, extras, partial(geo_variables, os.environ))
    kept = settings.store != ":memory:"
    if kept:
        yield partial(folder, "store folder", store.parent)
    if kept and store.parent.is_dir():
        yield partial(file_system, store.parent, mounts())
    if kept and not unwritable(store.parent):
        yield from () if is_duckdb(store) else (partial(write_ahead, store.parent),)
        yield partial(locks, store)
    yield partial(folder, "temporary folder", temp)
    yield from (partial(log, settings.log_path), shared_memory, partial(open_files, settings.workers))
    yield from (workers, partial(leftovers, temp))
    if kept:
        yield from (partial(store_file, store), partial(jobs, store))


def _made(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as exc:  # one check that fails must not keep the others from being made
        name = check.func.__name__ if isinstance(check, partial) else check.__name__
        text = f"It could not be checked: {type(exc).__name__}: {exc}"
        return Finding(name.replace("_", " "), "problem", text, "Mend what it says.")
