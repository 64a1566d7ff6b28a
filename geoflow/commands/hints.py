"""What is said beside the output: a remark, and what to type next for a job."""

from __future__ import annotations

import contextlib
import shlex
import sys
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from geoflow.commands.grammar import Request
from geoflow.support.masking import safe
from geoflow.support.text import plain

if TYPE_CHECKING:
    from geoflow.core.rows import JobRow


def tell(text: str) -> None:
    """One remark, beside the output."""
    with contextlib.suppress(OSError):  # the terminal has gone, or the disk behind it is full
        print(f"geoflow: {safe(text)}", file=sys.stderr)


def command(request: Request, verb: str, row: JobRow, what: str | None = None) -> str:
    """What to type for *verb* on this job: the same store, and the file that its code came from."""
    from geoflow.jobtypes.loading import BUILT_IN

    words = [verb, what or row.job_id[:8]]
    if row.job_type not in BUILT_IN:
        words += ["--load", _place(row.source)]
    if request.store is not None:
        words += ["--store", request.store]
    return plain(f"{request.prog} {shlex.join(words)}")


def _place(source: str | None) -> str:
    """What ``--load`` is given for the file *source*: its path, or its dotted name when it is part of a package."""
    if source is None:
        return "FILE"
    packages = list(takewhile(lambda folder: (folder / "__init__.py").is_file(), Path(source).parents))
    names = (*(folder.name for folder in reversed(packages)), Path(source).stem)
    return ".".join(names) if packages else source
