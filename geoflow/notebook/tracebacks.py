"""What a user wants of a traceback: their own frames with the source, the rest folded, and what caused what. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import PurePath

from geoflow.text import count

_FRAME = re.compile(r'^ +File "([^"\n]+)", line (\d+)(?:, in (.+))?$')
LIBRARY = re.compile(r"^<frozen |[/\\](?:site-packages|dist-packages|lib[/\\]python3[^/\\]*)[/\\]")
_CELL = re.compile(r"[/\\]ipykernel_\d+[/\\]\d+\.py$|^<ipython-input-")
_LINKS = {
    "The above exception was the direct cause of the following exception:": "which caused",
    "During handling of the above exception, another exception occurred:": "and while that was handled",
}


def place(traceback: str) -> str | None:
    """The last frame of the user's own in *traceback*, in words; of a library, when there is none of the user's."""
    frames = [found.groups() for line in traceback.splitlines() if (found := _FRAME.match(line))]
    own = [frame for frame in frames if not LIBRARY.search(frame[0])] or frames
    if not own:
        return None
    file, line, function = own[-1]
    name = "a cell" if _CELL.search(file) else PurePath(file).name
    return f"{function and f'{function} in '}{name}, line {line}"


def fold(traceback: str) -> str:
    """*traceback* with a line in place of each run of frames that are libraries'; all of it if none is the user's."""
    parts = list(_parts(traceback))
    if all(library for library, _ in parts if library is not None):
        return traceback
    lines: list[str] = []
    for library, run in groupby(parts, key=lambda part: part[0]):
        frames = [frame for _, frame in run]
        lines.extend([_folded(frames)] if library else [line for frame in frames for line in frame])
    return "\n".join(lines) + "\n" * traceback.endswith("\n")


def causes(traceback: str) -> str | None:
    """The exceptions of *traceback*, the first one first and one in a line; None when there is but one."""
    ends: list[str] = []
    before = ""
    for line in traceback.splitlines():
        if line in _LINKS:
            before = _LINKS[line]
        elif line.startswith("Traceback (") or not line.strip():
            continue
        elif not line.startswith(" ") and (before or not ends):
            ends.append(f"{before}: {line}" if before else line)
            before = ""
    return "\n".join(ends) if len(ends) > 1 else None


def _parts(traceback: str) -> Iterator[tuple[bool | None, list[str]]]:
    """Frames with the lines that belong to them, and whether they are a library's; other lines, with None."""
    frame: list[str] = []
    library: bool | None = None
    for line in traceback.splitlines():
        found = _FRAME.match(line)
        if not found and frame and line.startswith("    "):
            frame.append(line)
            continue
        if frame:
            yield library, frame
        library, frame = (bool(LIBRARY.search(found[1])), [line]) if found else (None, [])
        if not found:
            yield None, [line]
    if frame:
        yield library, frame


def _folded(frames: list[list[str]]) -> str:
    found = _FRAME.match(frames[-1][0])
    file, line, function = found.groups() if found else ("", "", "")
    where = f"{function and f'{function} in '}{'/'.join(PurePath(file).parts[-2:])}, line {line}"
    return f"  [{count(len(frames), 'library frame')}, to {where}]"
