"""Files that are there once their attempt has succeeded, and a folder for what it needs meanwhile.

An attempt that asks for one gets a *home*, a folder whose name says which process made it. It is the place of its
scratch folder, and has a link to each folder beside an output in which that is written: made before the folder is, so
that `leftovers.clear` finds them all, whoever calls it, however the attempt ended.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from geoflow.executors.leftovers import clear
from geoflow.support import attempt
from geoflow.support.identity import label

# What GDAL keeps beside a file is of the file that was there: with another one it would be read as that one's.
_OF_THE_OLD = (".aux.xml", ".msk", ".ovr")
_asking = threading.Lock()


class Writing:
    """One output: its target, and the folder beside that in which it is written, under the target's own name."""

    def __init__(self, given: str, target: Path, folder: Path) -> None:
        self.given, self.target, self.folder = given, target, folder
        self.path = folder / target.name
        self.is_done = False

    def files(self) -> list[str]:
        """What was written, the output itself last; ``ValueError`` where that is no output."""
        found = sorted(os.scandir(self.folder), key=lambda entry: entry.name == self.target.name)
        odd = [entry.name for entry in found if not entry.is_file(follow_symlinks=False)]
        if odd:
            is_folder = (self.folder / odd[0]).is_dir()
            made = f"{odd[0]}, which was made there, is {'a folder' if is_folder else 'no file'}"
            instead = " A Zarr store can be one file: zarr.storage.ZipStore, or gf.save." if is_folder else ""
            raise ValueError(f"gf.output({self.given!r}) takes files only: {made}.{instead}")
        if not found or found[-1].name != self.target.name:
            made = f", but {', '.join(entry.name for entry in found)}" if found else ""
            raise ValueError(f"gf.output({self.given!r}): nothing was written to the path that it gave{made}.")
        return [entry.name for entry in found]


class Home:
    """What one attempt has asked for."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=label(), dir=attempt.room()))
        self._pid = os.getpid()
        self._numbers = count()
        self._outputs: dict[Path, Writing] = {}

    def begin(self, given: str, target: Path) -> Writing:
        number = next(self._numbers)
        folder = target.parent / f".{self.folder.name}-{number}"
        writing = Writing(given, target, folder)
        if self._outputs.setdefault(target, writing) is not writing:
            raise ValueError(f"gf.output({given!r}): this attempt has asked for that file before. Ask for each once.")
        try:
            os.symlink(folder, self.folder / str(number))
            folder.mkdir(0o700)
        except BaseException:
            self.drop(writing)
            raise
        return writing

    def drop(self, writing: Writing) -> None:
        """It is not to be an output: the same file may be asked for again."""
        if os.getpid() == self._pid:
            del self._outputs[writing.target]
            shutil.rmtree(writing.folder, ignore_errors=True)

    def finish(self, writing: Writing, name: str) -> None:
        """It is written, and is to be there under that *name*; where it is to be there already, it is not needed."""
        target = writing.target.with_name(name)
        if target in self._outputs:
            self.drop(writing)
            return
        path = writing.folder / name
        os.rename(writing.path, path)
        del self._outputs[writing.target]
        writing.target, writing.path, writing.is_done = target, path, True
        self._outputs[target] = writing

    def at_hand(self, target: Path) -> Path:
        """Where the file is until the attempt has ended, if it is this attempt's."""
        writing = self._outputs.get(target)
        return target if writing is None else writing.path

    def scratch(self) -> Path:
        folder = self.folder / "scratch"
        folder.mkdir(exist_ok=True)
        return folder

    def __call__(self, result: str | None) -> None:
        """The attempt ends: have its outputs there if it succeeded, and nothing else of it left in any case."""
        if os.getpid() != self._pid:  # a fork of it: the attempt is not its own
            return
        try:
            if result is not None:
                self._keep(result)
        finally:
            clear(self.folder)

    def _keep(self, result: str) -> None:
        if self.folder.name in str(result):  # that of a plan is no text
            raise ValueError(
                "The result names a place that is gone once the task has ended, which gf.output or gf.scratch gave: "
                "return the path that gf.output was asked for."
            )
        outputs = list(self._outputs.values())
        if unfinished := [writing for writing in outputs if not writing.is_done]:
            raise ValueError(f"gf.output({unfinished[0].given!r}) was still open when the handler returned.")
        files = {writing.target.parent / name: writing.folder / name for writing in outputs for name in writing.files()}
        for writing in outputs:
            for old in (writing.target.with_name(writing.target.name + suffix) for suffix in _OF_THE_OLD):
                if old not in files:
                    old.unlink(missing_ok=True)
        for target, path in files.items():
            os.replace(path, target)


@contextlib.contextmanager
def output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that it is there whole, and only if the task succeeds: ``with gf.output("a.tif") as path:``.

    The handler writes to the path that it is given: of the same name, in a hidden folder beside *path*. Once it has
    returned a success, what is there takes its place and replaces the file that was there before; files that a driver
    puts beside its own (``a.tif.ovr``, ``a.dbf``) come along. If the block or the handler after it raises or fails, or
    is ended in any way, nothing has changed. Two attempts never write to one name. Outside of a task, as in a test that
    calls a handler, the end of the block counts as the end of the handler.

    Raises ``ValueError`` where *path* is a folder, or in none that is there; where nothing was written by the end of
    the block, or a folder was; where one attempt asks for one file twice. Each fails its task for good.
    """
    target = _target(given := os.fspath(path))
    with begun(given, target) as (_, writing):
        yield writing.path
        writing.files()
        writing.is_done = True


@contextlib.contextmanager
def begun(given: str, target: Path) -> Iterator[tuple[Home, Writing]]:
    """An output at *target* which is none if the block raises, and of whom it is; *given* is what it was asked by."""
    home, is_alone = home_here()
    writing = None
    try:
        writing = home.begin(given, target)
        yield home, writing
    except BaseException:
        if writing is not None:
            home.drop(writing)
        if is_alone:
            home(None)
        raise
    if is_alone:
        home("")


def scratch() -> Path:
    """An empty folder for what the attempt needs meanwhile: the same each time it asks, and gone once it has ended.

    It is in the temporary folder (``TMPDIR``) of the session. Outside of a task, each call makes another one, which is
    removed when the interpreter ends.
    """
    home, is_alone = home_here()
    if is_alone:
        atexit.register(home, None)
    return home.scratch()


def home_here() -> tuple[Home, bool]:
    """That of the attempt that runs here; where none does, one of its own, which is its asker's to end."""
    with _asking:  # a handler may ask in several threads
        ends = attempt.ends_of_attempt()
        if ends is None:
            return Home(), True
        home = next((end for end in ends if isinstance(end, Home)), None)
        if home is None:
            ends.append(home := Home())
        return home, False


def _target(given: str) -> Path:
    """Where the file is to be in the end, links followed; ``ValueError`` where that cannot be."""
    target = Path(os.path.realpath(given))
    try:
        is_folder = given.endswith(os.sep) or not target.name or stat.S_ISDIR(target.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    if is_folder:
        raise ValueError(f"gf.output({given!r}): that is a folder. Give the path of a file in it.")
    if target.exists() and not target.is_file():
        raise ValueError(f"gf.output({given!r}): that is no file, and cannot be replaced by one.")
    if not target.parent.is_dir():
        raise ValueError(f"gf.output({given!r}): there is no folder {target.parent}. Make it before: os.makedirs(…).")
    return target
