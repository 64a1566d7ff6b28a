"""What a user wants of a traceback: their own frames with the source, the rest folded, and what caused what. Pure."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import PurePath
from typing import NamedTuple

from geoflow.support.text import count
from geoflow.usercode.origin import PACKAGE, is_ours

_FRAME = re.compile(r'^ +File "([^"\n]+)", line (\d+)(?:,? in (.+))?$', re.MULTILINE)
# The text of a frame's line, which stands below it.
_TEXT = re.compile(r'\n    (?! *File ")(.*)')
# A frame with the lines that belong to it, or any other line.
_PART = re.compile(rf'{_FRAME.pattern}(?:\n    (?! *File ").*)*|^.*$', re.MULTILINE)
# Cython's files have no path, since they were compiled elsewhere.
LIBRARY = re.compile(r"^<frozen |\.pyx$|[/\\](?:site-packages|dist-packages|lib[/\\]python3[^/\\]*)[/\\]")
# The stack of a process that hung or crashed, as it wrote that itself: what ran is its first frame, not its last.
NEWEST_FIRST = "(most recent call first)"
_CELL = re.compile(r"[/\\]ipykernel_\d+[/\\]\d+\.py$|^<ipython-input-")
_LINKS = {
    "The above exception was the direct cause of the following exception:": "which caused",
    "During handling of the above exception, another exception occurred:": "and while that was handled",
}


class Frame(NamedTuple):
    """A place in code, and the text of its line, which may be empty."""

    file: str
    line: int
    function: str
    text: str


def raised_by(traceback: str) -> Frame | None:
    """The last frame of the user's own in *traceback*; of a library, when there is none of the user's.

    None of a stack that a process wrote as it was ended: that may have been anywhere.
    """
    if NEWEST_FIRST in traceback:
        return None
    frames = list(_FRAME.finditer(traceback))
    own = [frame for frame in frames if not (LIBRARY.search(frame[1]) or is_ours(frame[1]))] or frames
    if not own:
        return None
    file, line, function = own[-1].groups("")
    text = _TEXT.match(traceback, own[-1].end())
    return Frame(file, int(line), function, text[1].rstrip() if text else "")


def place(traceback: str) -> str | None:
    """What `raised_by` finds, in words."""
    frame = raised_by(traceback)
    if frame is None:
        return None
    file, line, function, _ = frame
    return f"{function and f'{function} in '}{'a cell' if _CELL.search(file) else PurePath(file).name}, line {line}"


def fold(traceback: str) -> str:
    """*traceback* with a line in place of each run of frames that are libraries'; all of it if none is the user's."""
    parts = list(_PART.finditer(traceback))
    is_stack = NEWEST_FIRST in traceback
    if all(_is_library(part, is_stack) for part in parts if part[1]):
        return traceback
    lines: list[str] = []
    for is_library, run in groupby(parts, key=lambda part: _is_library(part, is_stack)):
        frames = list(run)
        lines += [_folded(frames, is_stack)] if is_library else [part[0] for part in frames]
    return "\n".join(lines)


def _is_library(part: re.Match[str], is_stack: bool) -> bool:
    file = part[1]
    # A stack goes down to the command that started the process.
    return bool(file) and (bool(LIBRARY.search(file)) or is_ours(file) or (is_stack and file == "<string>"))


def _folded(frames: list[re.Match[str]], is_stack: bool) -> str:
    file, line, function = frames[0 if is_stack else -1].groups("")
    short = f"geoflow/{file.removeprefix(PACKAGE)}" if is_ours(file) else "/".join(PurePath(file).parts[-2:])
    where = f"{short}, line {line}{function and f', in {function}'}"
    return f"  [{count(len(frames), 'library frame')}{', the last' * (len(frames) > 1)}: {where}]"


def cause(traceback: object) -> str | None:
    """The exception that *traceback* began with, in one line, where that is another than it ended with.

    None, too, where a text that was cut has lost it, and of what is no text, as another program may have left it.
    """
    first = (causes(traceback) or "").partition("\n")[0] if isinstance(traceback, str) else ""
    return None if first.startswith("[... ") else first or None


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
