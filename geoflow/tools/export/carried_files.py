"""What exported modules carry with them whose functions use `gf.output` or `gf.scratch`. It imports nothing of geoflow.

It does what `executors.outputs` does, but that nobody comes after a process that was killed.
"""

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import threading as _threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar


class _Files:
    """What the handlers that run have asked for, by their threads: folders, with the files that come from them."""

    asked: ClassVar[dict[int, dict[Path, Path | None]]] = {}


def _ending(handler: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Have what *handler* writes there once it has returned a success, and nothing else left of it."""

    @functools.wraps(handler)
    def ended(params: dict[str, Any]) -> dict[str, Any]:
        thread = _threading.get_ident()
        asked = _Files.asked[thread] = {}
        try:
            returned = handler(params)
            if returned["success"]:
                _keep(asked)
            return returned
        finally:
            del _Files.asked[thread]
            for folder in asked:
                shutil.rmtree(folder, ignore_errors=True)

    return ended


def _keep(asked: dict[Path, Path | None]) -> None:
    """Give the files their names, each after what was put beside it; what GDAL kept beside the old ones goes."""
    there = {target.parent / name for folder, target in asked.items() if target for name in os.listdir(folder)}
    for folder, target in asked.items():
        if target is not None:
            for old in (target.with_name(target.name + ending) for ending in (".aux.xml", ".msk", ".ovr")):
                if old not in there:
                    old.unlink(missing_ok=True)
            for name in sorted(os.listdir(folder), key=target.name.__eq__):
                os.replace(folder / name, target.parent / name)


@contextlib.contextmanager
def _output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under its own name in a folder beside *path*: it is there once the handler has succeeded."""
    target = Path(os.path.realpath(path))
    if os.fspath(path).endswith(os.sep) or target.is_dir() or not target.parent.is_dir():
        raise ValueError(f"There can be no file {str(path)!r}: that is a folder, or in none.")
    asked = _Files.asked.get(_threading.get_ident())
    if asked is not None and target in asked.values():
        raise ValueError(f"The file {str(path)!r} was asked for before. Ask for each once.")
    folder = Path(tempfile.mkdtemp(prefix=".output-", dir=target.parent))
    try:
        yield folder / target.name
        if not (folder / target.name).is_file():
            raise ValueError(f"No file was written to the path that is for {str(path)!r}.")
        if asked is None:  # no handler runs here
            _keep({folder: target})
        else:
            asked[folder] = target
    finally:
        if asked is None or folder not in asked:
            shutil.rmtree(folder, ignore_errors=True)


def _scratch() -> Path:
    """A folder of the handler's own, which goes with its end; where none runs, with that of the interpreter."""
    asked = _Files.asked.get(_threading.get_ident())
    if asked is None:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
    folders = [folder for folder, target in asked.items() if target is None] or [Path(tempfile.mkdtemp())]
    asked[folders[0]] = None
    return folders[0]
