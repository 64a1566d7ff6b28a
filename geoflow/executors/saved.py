"""Results that have no JSON form: kept as files of their job, and handed on as references.

A file is named by what is in it, so that equal results have equal references (S48), and an attempt that runs again
writes no second one. It is an output of the attempt as any other (`outputs`): there once that has succeeded.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from geoflow.errors import SavedFileLost
from geoflow.executors.formats import FORMATS, format_of, write
from geoflow.executors.outputs import Home, begun
from geoflow.jobtypes.inputs import SAVED
from geoflow.support.attempt import ends_of_attempt, is_of_a_handler
from geoflow.support.identity import label
from geoflow.support.text import shorten


def save(value: Any) -> dict[str, Any]:
    """Keep *value* in a file of the job's, and return the reference to it, a small dict that is JSON; see `load`.

    It takes ``bytes`` (as they are), numpy arrays (npy), pandas DataFrames and Series (Parquet, which needs pyarrow),
    GeoDataFrames (GeoParquet, with their CRS), xarray's DataArrays and Datasets and zarr arrays (a Zarr store in one
    zip file, which needs zarr). The reference has the ``path``, the size in ``bytes`` and the
    ``sha256`` of the file, and under ``gf_saved`` its format. The file is in ``<store>.files/<job id>/``, from the
    moment that the attempt succeeds; until then `load` finds it in the same attempt alone, and of an attempt that
    does not succeed nothing is left. Outside of a task it lasts as long as the interpreter.

    Raises ``UnstorableValue`` for other types, and for what would not come back the same from such a file, with the
    column or the dtype: masks, object arrays, lists in cells, attributes that are objects. What is lost is the
    ``freq`` of a frame's index, and of an xarray object's encoding what is no text, number or dtype. Frames and
    labelled arrays are read again to find out. A zarr array comes back open for reading.
    """
    how = format_of(value)
    if is_of_a_handler():
        raise ValueError(
            "gf.save was called in a thread or a process that a handler has begun, where it is not known for which "
            "task: return the object to the handler, and save it there."
        )
    ends = ends_of_attempt()
    folder = _folder(None if ends is None else ends.folder)
    ending = FORMATS[how].ending
    with begun("", folder / f"{uuid.uuid4().hex}{ending}") as (home, writing):
        write(value, how, writing.path)
        digest, size = _digest(writing.path), writing.path.stat().st_size
        target = folder / f"{digest[:32]}{ending}"
        if _is_whole(target, digest, size):
            home.drop(writing)
        else:
            home.finish(writing, target.name)
    return {SAVED: how, "path": str(target), "bytes": size, "sha256": digest}


def load(reference: Mapping[str, Any]) -> Any:
    """The object that `save` was given, by the reference that it returned: in a later task, in finalize, in a notebook.

    Size and hash are compared first. Raises ``TypeError`` for what is no reference, ``SavedFileLost`` where the file
    is gone or is another one by now. Nothing of the file is executed.
    """
    named = reference if isinstance(reference, Mapping) else {}
    how, path, size, digest = (named.get(name) for name in (SAVED, "path", "bytes", "sha256"))
    if not (isinstance(path, str) and isinstance(size, int) and isinstance(digest, str)):
        raise TypeError(f"gf.load takes the reference that gf.save returned, not {shorten(repr(reference), 100)}.")
    if how not in FORMATS:
        raise TypeError(f"gf.load knows no format {shorten(repr(how), 40)}; it reads {', '.join(FORMATS)}.")
    target = _at_hand(Path(path))
    if not target.exists():
        raise SavedFileLost(
            f"{path}, which gf.save has written, is gone: its job's files were removed, or the store was moved without "
            "them. Put the folder back, or run the task that saved it again."
        )
    if not _is_whole(target, digest, size):
        raise SavedFileLost(f"{path} is not what gf.save has written: it was changed since. Run its task again.")
    return FORMATS[how].read(target)


def _at_hand(target: Path) -> Path:
    for end in ends_of_attempt() or ():
        if isinstance(end, Home):
            return end.at_hand(target)
    return target


def _folder(of_job: str | None) -> Path:
    folder = Path(of_job) if of_job is not None else _of_process(os.getpid())
    place = folder.parent.parent
    if not place.is_dir():
        raise ValueError(f"gf.save writes to {folder}, and there is no folder {place} on this machine.")
    for each in (folder.parent, folder):
        each.mkdir(0o700, exist_ok=True)
    return folder


@cache
def _of_process(pid: int) -> Path:
    """For what is saved where no job runs."""
    folder = Path(tempfile.mkdtemp(prefix=label()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _is_whole(path: Path, digest: str, size: int) -> bool:
    try:
        return path.stat().st_size == size and _digest(path) == digest
    except FileNotFoundError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
