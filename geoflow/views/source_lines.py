"""The line of code that raised an error, with those around it, where these are known to be the ones that ran."""

from __future__ import annotations

import linecache
import stat
import tokenize
from functools import lru_cache
from pathlib import Path

from geoflow.support.text import fit
from geoflow.views.model import HIT
from geoflow.views.tracebacks import Frame

AROUND, LONGEST = 2, 160  # lines before it, and after it; characters of each
LARGEST = 2_000_000  # bytes of a file


def around(frame: Frame, before: float | None) -> str | None:
    """The line of *frame*, with `HIT` before it, and lines around it; None where the traceback has no text of it.

    Of a file the others are shown if it has not changed since *before*, seconds since the epoch, and has that text
    there; of a cell of a notebook, in its own process, always: its name says which text it had.
    """
    if not frame.text:
        return None
    lines = _lines(frame.file, before)
    here = lines[frame.line - 1].strip() if 0 < frame.line <= len(lines) else None
    first = max(frame.line - AROUND, 1)
    some = lines[first - 1 : frame.line + AROUND] if here == frame.text.strip() else ()
    if not some:
        first, some = frame.line, (frame.text,)
    numbered = ((HIT if number == frame.line else " ", number, line) for number, line in enumerate(some, first))
    return "\n".join(f"{mark} {n:>4}  {fit(line.expandtabs(4), LONGEST)}".rstrip() for mark, n, line in numbered)


def _lines(file: str, before: float | None) -> tuple[str, ...]:
    cell = linecache.cache.get(file, ())
    if len(cell) == 4 and cell[1] is None:  # as IPython leaves its cells there
        return tuple(cell[2])
    try:
        found = Path(file).stat()
    except (OSError, ValueError):
        return ()
    is_known = before is not None and found.st_mtime <= before
    if not is_known or not file.endswith(".py") or not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
        return ()  # another file than the one that ran, or nothing that should be read since a store says so
    return _read(file, found.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(file: str, changed: int) -> tuple[str, ...]:
    """Of a file that was *changed* then: it is drawn several times a second."""
    try:
        with tokenize.open(file) as opened:
            return tuple(opened.read().splitlines())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ()
