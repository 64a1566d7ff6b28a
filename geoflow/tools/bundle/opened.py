"""A bundle that somebody has sent: read as data, checked, looked at, and run only where that is said."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from geoflow.errors import BundleError, ParameterError
from geoflow.render.report import Entry, Report, Table
from geoflow.stores.files import growing_beside, private
from geoflow.support.environment import environment
from geoflow.support.text import human_bytes, shorten
from geoflow.tools.bundle import card, names
from geoflow.tools.bundle.running import Ran, called, runner
from geoflow.tools.bundle.told import FORMAT, Told, put

_BAD = " is not to be trusted:"
_MOST_ENTRIES = 20_000
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NOT_SOUND = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, OSError)


@dataclass(frozen=True, repr=False)
class Bundle(Report):
    """A task that was sent: ``told`` is all that is known of it, ``code`` has the texts of its code by their names.

    To look at it runs nothing. `run` calls its handler, in a process of its own; `unpack` writes its files.
    """

    path: Path
    told: Told
    code: Mapping[str, str]
    exit_status: int = 0

    @property
    def title(self) -> str:
        return f"Bundle of {self.told.name}"

    @property
    def parameters(self) -> dict[str, Any]:
        """What the handler was given; ``***`` stands for what looks secret, and was not sent."""
        return put(self.told.parameters, {})

    @property
    def source(self) -> str | None:
        """The text of the handler that ran, with what it uses, where that was kept; ``code`` has what would be run."""
        return self.told.code.source

    @property
    def error(self) -> str | None:
        """The type and the message of the error that the last attempt ended with."""
        last = self.told.last
        return f"{last.error_type}: {last.error}" if last is not None and last.error else None

    @property
    def traceback(self) -> str | None:
        """Where the last attempt raised it; of a process that died, the stack that it wrote, where it could."""
        return None if self.told.last is None else self.told.last.traceback

    @property
    def output(self) -> str | None:
        """What the last attempt printed."""
        return None if self.told.last is None else self.told.last.output

    def parts(self) -> Iterator[str | Entry | Table]:
        yield from card.parts(self.told, self.code, environment())
        if self.told.code.place is not None:
            yield "None of its code has run. bundle.run() runs it, in a terminal geoflow unbundle --run."

    def _repr_html_(self) -> str:
        return str(card.card(self.told, self.code, environment()))

    def document(self) -> Any:
        document: dict[str, Any] = self.told.model_dump(mode="json")
        return document

    def unpack(self, folder: str | os.PathLike[str], *, limit: float = 2_000) -> Path:
        """Write its files to the new *folder*, at most *limit* megabytes; ``python run.py`` there calls the handler."""
        return self._unpacked(Path(folder).expanduser().absolute(), self.told, limit)

    def run(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        folder: str | os.PathLike[str] | None = None,
        limit: float = 2_000,
    ) -> Ran:
        """Call its handler here, in a process of its own with the same Python, and say what came of it.

        **It runs code that somebody has sent you, and does for real what that does**: look at ``code`` first.
        *parameters* are put in the places of others, by their names, with dots for what is in what; those that were
        not sent are asked for. It works in a temporary folder, or in the new *folder*, which is kept. After *timeout*
        seconds it is ended. Raises ``BundleError`` where it cannot be run, and says why.
        """
        told = self.told
        if told.code.place is None:
            raise BundleError(f"{told.name} cannot be run elsewhere: {told.code.why or 'it says no handler'}")
        given = dict(parameters or {})
        try:
            changed = put(told.parameters, given)
        except KeyError as exc:
            known = shorten(", ".join(told.parameters), 200)
            raise ParameterError(f"The task has no parameter {exc.args[0]!r}. It has {known or 'none'}.") from None
        if missing := [
            name for name in told.hidden if not any(name == each or name.startswith(f"{each}.") for each in given)
        ]:
            raise ParameterError(
                f"What {' and '.join(missing)} had was not sent, since it looks secret.",
                python="Give a value of yours in parameters=, a dict.",
                typed="Give a value of yours with --param NAME=VALUE.",
            )
        told = told.model_copy(update={"parameters": changed, "hidden": []})
        if folder is not None:
            return called(self._unpacked(Path(folder).expanduser().absolute(), told, limit), told, self.told, timeout)
        with tempfile.TemporaryDirectory(prefix="geoflow-bundle-", ignore_cleanup_errors=True) as made:
            return called(self._unpacked(Path(made, "task"), told, limit), told, self.told, timeout)

    def _unpacked(self, target: Path, told: Told, limit: float) -> Path:
        """The new folder *target* with all of the bundle, of which *told* is said: whole, or not there."""
        size = sum(size for size, _ in self.told.inputs.files.values())
        if size > limit * 1e6:
            raise BundleError(
                f"The files in {self.path.name} take {human_bytes(size)}, more than the limit of {limit:g} MB: say "
                "limit= for more, if you trust it."
            )
        if os.path.lexists(target):
            raise FileExistsError(f"{target} is there already: name a folder that is not.")
        if not target.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {target.parent} to make {target.name} in.")
        with growing_beside(target) as growing:
            new = growing / target.name
            texts = {
                names.TASK: told.model_dump_json(indent=1),
                names.PAGE: card.page_of(told, self.code),
                names.RUN: runner(),
                **{f"{names.CODE}{name}": text for name, text in self.code.items()},
            }
            for name, text in texts.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_text(text, "utf-8")
            with _archive(self.path) as archive:
                for name, (_, digest) in self.told.inputs.files.items():
                    (new / names.INPUTS / name).parent.mkdir(parents=True, exist_ok=True)
                    _extract(archive, names.INPUTS + name, new / names.INPUTS / name, digest)
            os.rename(new, target)
        return target


def read(path: str | os.PathLike[str]) -> Bundle:
    """The bundle at *path*, checked: nothing of it is run, unpickled, imported or written."""
    place = Path(path).expanduser()
    if not place.is_file():
        raise BundleError(f"There is no file {place}.")
    with _archive(place) as archive:
        by_name = _checked(archive, place)
        if names.TASK not in by_name:
            raise BundleError(f"{place.name} is no bundle of geoflow's: it has no {names.TASK}.")
        try:
            told = Told.model_validate_json(_text(archive, by_name[names.TASK]))
        except ValidationError as exc:
            first = exc.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise BundleError(
                f"{place.name} is no bundle that can be read: in its {names.TASK}, {shorten(where, 100)} is not sound "
                f"({shorten(first['msg'], 200)})."
            ) from None
        if told.format > FORMAT:
            raise BundleError(
                f"{place.name} was made by geoflow {shorten(told.geoflow, 20)}, whose bundles are newer than this "
                "geoflow can read: install that version."
            )
        _check_told(told, by_name, place)
        code = dict[str, str]()
        for name, digest in told.code.files.items():
            text = _text(archive, by_name[names.CODE + name])
            if hashlib.sha256(text.encode()).hexdigest() != digest:
                raise BundleError(f"{place.name} was changed: {shorten(name, 100)} is not as it was sent.")
            code[name] = text
    return Bundle(place.absolute(), told, code)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, whose damages are told in a ``BundleError``."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _NOT_SOUND as exc:
        raise BundleError(
            f"{path.name} cannot be read: {shorten(str(exc) or type(exc).__name__, 200)}. It may have been cut on its "
            "way: have it sent again."
        ) from None


def _checked(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """What is in the archive, by its names; ``BundleError`` where that is not what a bundle has."""
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise BundleError(f"{path.name} has {len(entries):,} files, more than a bundle may have ({_MOST_ENTRIES:,}).")
    by_name, folded, text = dict[str, zipfile.ZipInfo](), set[str](), 0
    for entry in entries:
        name, why = entry.filename, names.problem_of(entry.orig_filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if why is None and kind not in (0, stat.S_IFREG):
            why = "is no plain file"
        if why is None and (
            entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        ):
            why = "is encrypted, or packed in a way that bundles are not"
        if why is None and (same := unicodedata.normalize("NFKC", name).casefold()) in folded:
            why = "is there twice"
        if why is None and not name.startswith(names.INPUTS):
            text += entry.file_size
            if text > names.MOST_TEXT:
                why = f"is {human_bytes(entry.file_size)} of text, {human_bytes(text)} with others: too much"
        if why is not None:
            raise BundleError(f"{path.name}{_BAD} {_shown(entry.orig_filename)} in it {why}.")
        by_name[name] = entry
        folded.add(same)
    for name in folded:
        if any(name[:place] in folded for place, letter in enumerate(name) if letter == "/"):
            raise BundleError(f"{path.name}{_BAD} {_shown(name)} lies in a file.")
    ends = sorted((entry.header_offset, entry.header_offset + entry.compress_size) for entry in entries)
    if any(end > start for (_, end), (start, _) in pairwise(ends)) or sum(e - b for b, e in ends) > path.stat().st_size:
        raise BundleError(f"{path.name}{_BAD} files in it share their bytes, as in a zip bomb.")
    return by_name


def _check_told(told: Told, by_name: Mapping[str, zipfile.ZipInfo], path: Path) -> None:
    """Whether what is said to be there is there, and nothing else."""
    files = told.inputs.files
    said = {names.CODE + name for name in told.code.files} | {names.INPUTS + name for name in files}
    if others := sorted(said ^ {name for name in by_name if name not in names.OWN}):
        raise BundleError(f"{path.name}{_BAD} what is in it and what it says differ: {_shown(others[0])}.")
    for name, (size, _) in files.items():
        if by_name[names.INPUTS + name].file_size != size:
            raise BundleError(f"{path.name} was changed: {_shown(name)} is not as large as it was sent.")
    places = {name[:end] for name in files for end, letter in enumerate(f"{name}/") if letter == "/"}
    named = [*told.inputs.places.values(), *(each.place for each in told.inputs.named if each.place is not None)]
    if unknown := [place for place in named if place not in places]:
        raise BundleError(f"{path.name}{_BAD} it has no {_shown(unknown[0])} of which it speaks.")
    if told.code.place is not None and not (module := told.code.place.module).startswith("geoflow.builtin."):
        own = module.replace(".", "/")
        if f"{own}.py" not in told.code.files and f"{own}/__init__.py" not in told.code.files:
            raise BundleError(f"{path.name}{_BAD} its handler is in {_shown(module)}, which it has not.")


def _text(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    try:
        with archive.open(entry) as file:
            return file.read(names.MOST_TEXT + 1).decode("utf-8")
    except (UnicodeDecodeError, zlib.error) as exc:
        raise BundleError(f"{_shown(entry.filename)} in the bundle is no text: {exc}.") from None


def _extract(archive: zipfile.ZipFile, name: str, target: Path, digest: str) -> None:
    """Write the file, no more of it than it was said to have, and compare what it is."""
    found = hashlib.sha256()
    try:
        with archive.open(name) as source, open(target, "xb", opener=private) as file:
            while part := source.read(1 << 20):
                file.write(part)
                found.update(part)
    except (KeyError, zlib.error) as exc:
        raise BundleError(f"{_shown(name)} cannot be read from the bundle: {exc}.") from None
    if found.hexdigest() != digest:
        raise BundleError(f"{_shown(name)} in the bundle is not as it was sent.")


def _shown(name: str) -> str:
    return repr(shorten(name, 100))
