"""Files that a task's parameters name, as they are taken along with it: to a colleague, or beside a test."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from geoflow.errors import ParameterError
from geoflow.jobtypes.inputs import LONGEST, beside, is_address, is_key, leaves
from geoflow.support.text import count, human_bytes, shorten

MOST = 10_000  # files of all that are taken along


class File(NamedTuple):
    """A file that is taken along, of so many bytes, and its *place* below the folder that they are put into."""

    source: Path
    place: str
    size: int


class Named(NamedTuple):
    """What a parameter says and where it leads: the *text* of the parameter *name*, its *place* when it is taken along
    (a folder's has no ending of its own), else *why* not."""

    name: str
    text: str
    place: str | None = None
    why: str | None = None


class Along(NamedTuple):
    """What a task's parameters name, and the files of those that are taken along."""

    named: Sequence[Named] = ()
    files: Sequence[File] = ()

    @property
    def places(self) -> dict[str, str]:
        """Where what parameters say is found, below the folder of what was taken along."""
        return {each.text: each.place for each in self.named if each.place is not None}


def found(parameters: Mapping[str, Any], chosen: Sequence[str], limit: float) -> Along:
    """What of *parameters* names files, those that are *chosen* to be taken along: of at most *limit* megabytes.

    Each of *chosen* is a pattern of a parameter's name, with or without what it is in, or of what it says; ``*`` is
    all files, but no folders. What belongs to a file goes with it: a shapefile's table for one. Raises
    ``ParameterError`` where a pattern has nothing, or where all is too much.
    """
    named, files, used, known = list[Named](), list[File](), set[str](), dict[str, str | None]()
    for name, text in _paths(parameters):
        meant = [pattern for pattern in chosen if _is_meant(name, text, pattern)]
        used.update(meant)
        if text not in known:
            known[text] = None
            why, place = "it was not chosen", None
            if is_address(text):
                why = "it is an address"
            elif (kind := _kind(text)) is None:
                if not meant or meant == ["*"]:
                    continue  # most texts name no file
                why = "there is no file of that name"
            elif meant and not (kind == "folder" and meant == ["*"]):
                taken = list(_taken(os.path.abspath(text), str(len(files)), kind))
                files += taken
                place = taken[0].place if kind == "file" else str(len(files) - len(taken))
            known[text] = place
            named.append(Named(name, text, place, None if place is not None else why))
    if unused := [pattern for pattern in chosen if pattern not in used and pattern != "*"]:
        names = ", ".join(dict.fromkeys(name for name, _ in leaves(parameters) if not is_key(name)))
        raise ParameterError(
            f"No parameter of the task is called, or names, {' or '.join(map(repr, unused))}. "
            f"It has {shorten(names, 300) or 'none'}."
        )
    _check(files, limit)
    return Along(named, files)


def _paths(parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in leaves(parameters):
        if not is_key(name) and isinstance(value, str) and 0 < len(value) <= LONGEST and "\0" not in value:
            yield name, value


def _is_meant(name: str, text: str, pattern: str) -> bool:
    return any(fnmatchcase(each, pattern) for each in (name, name.rpartition(".")[2], text))


def _kind(text: str) -> str | None:
    try:
        mode = os.stat(text).st_mode
    except (OSError, ValueError):
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else None


def _taken(path: str, place: str, kind: str) -> Iterator[File]:
    """The file and what belongs to it, or all that is in the folder."""
    if kind == "file":
        for part in (path, *beside(path)):
            if os.path.isfile(part):
                yield File(Path(part), f"{place}/{os.path.basename(part)}", os.path.getsize(part))
        return
    number = 0
    for here, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            each = Path(here, name)
            if each.is_file():
                yield File(each, f"{place}/{each.relative_to(path).as_posix()}", each.stat().st_size)
                number += 1
                if number > MOST:
                    return  # which is refused
    if not number:
        raise ParameterError(f"{path} is a folder with nothing in it, and cannot be taken along.")


def _check(files: Sequence[File], limit: float) -> None:
    size = sum(file.size for file in files)
    if len(files) > MOST:
        raise ParameterError(f"More than {MOST:,} files would be taken along: choose fewer.")
    if size > limit * 1e6:
        largest = sorted(files, key=lambda file: -file.size)[:3]
        named = ", ".join(f"{file.source.name} {human_bytes(file.size)}" for file in largest)
        raise ParameterError(
            f"What is to be taken along is {human_bytes(size)} in {count(len(files), 'file')} ({named}), more than the "
            f"limit of {limit:g} MB: choose fewer, make a small file that fails alike, or say limit=."
        )
