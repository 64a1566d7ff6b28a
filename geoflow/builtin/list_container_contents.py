r"""list_container_contents: list a folder, a zip file or any fsspec URL, look at each file, sum up.

Stage 1 lists, stage 2 looks at each thing listed (a task each), stage 3 adds up. Nothing is skipped without a word:

- Folders that links lead to are not entered (links may form loops), and FIFOs, sockets and devices are never opened
  (that may block for ever): they are rows of their own, counted under ``entries``.
- Folders and files that cannot be read, and links that lead nowhere, are rows with the reason, and counted and listed
  in the summary; with ``strict`` they fail their task, and so the job.

``files`` and ``bytes`` are those of ``find -type f``: links are counted apart. Of two zip members with one name only
the later is there, as after unpacking. Names are shown as they are, but a backslash is doubled and a byte that is no
UTF-8 becomes ``\udcXX``, so that each name has a JSON form of its own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import posixpath
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, field_validator

from geoflow.builtin.file_kinds import HEAD, kind, suffix
from geoflow.core.models import JobExecutionContext
from geoflow.errors import ResourceNotFoundError
from geoflow.jobtypes.contract import job_id_for, task_id

LIST = "list_container_contents_list"
ANALYSE = "list_container_contents_analyse"
SUMMARISE = "list_container_contents_summarise"

PASSING = (ConnectionError, TimeoutError)  # left to the engine, which retries; other failures become rows
MOST_COMMON = 50
SHOWN = 100


class ContainerParameters(BaseModel):
    """What a submission may say."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    container: str
    sha256: bool = False
    strict: bool = False

    @field_validator("container", mode="before")
    @classmethod
    def _the_same_for_every_worker(cls, container: Any) -> str:
        given = str(container).removeprefix("file://")
        if "://" in given:
            return given
        path = os.path.abspath(os.path.expanduser(given))
        if not given or not (os.path.isdir(path) or (os.path.isfile(path) and zipfile.is_zipfile(path))):
            raise ValueError(f"there is no folder or zip file {given!r}; a URL looks like s3://bucket/folder")
        return path


class ListContainerContents:
    job_type = "list_container_contents"
    description = "List a folder, zip file or fsspec URL; size, suffix, kind and SHA-256 of each file; a summary."
    stages = [
        {"number": 1, "name": "list", "task_type": LIST, "parallelism": "single"},
        {"number": 2, "name": "analyse", "task_type": ANALYSE, "parallelism": "fan_out"},
        {"number": 3, "name": "summarise", "task_type": SUMMARISE, "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        """The parameters with their defaults; pydantic's ``ValidationError`` (a ``ValueError``) lists every problem."""
        return ContainerParameters.model_validate(params).model_dump(mode="json")

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        """64 hex digits over the job type and all parameters."""
        return job_id_for(ListContainerContents.job_type, params)

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """Stage 1: the one listing. Stage 2: a task for each thing listed. Stage 3 is the engine's."""
        if stage == 1:
            return [{"task_id": task_id(job_id, stage, "list"), "task_type": LIST, "parameters": job_params}]
        [listing] = [previous["result"] for previous in previous_results or []]
        given = {key: job_params[key] for key in ("container", "sha256", "strict")}
        return [
            {
                "task_id": task_id(job_id, stage, thing.path),
                "task_type": ANALYSE,
                "parameters": {**given, "listed_at": listing["listed_at"], **thing._asdict()},
            }
            for thing in (Thing(*row) for row in listing["things"])
        ]

    @staticmethod
    def finalize_job(context: JobExecutionContext | None = None) -> dict[str, Any]:
        """The summary of stage 3, whose one task is the last."""
        summary: dict[str, Any] = context.task_results[-1].result_data["result"] if context else {}
        return summary


class Thing(NamedTuple):
    """One thing in a container: *entry* is ``file``, ``link``, or what keeps it from being opened."""

    path: str
    entry: str
    bytes: int | None = None
    problem: str | None = None


def list_container(params: dict[str, Any]) -> dict[str, Any]:
    """The `Thing` rows of a container in order of their paths. Raises when the container itself cannot be listed."""
    container, listed_at = params["container"], datetime.now(UTC).isoformat()
    found: dict[str, Thing] = {}
    with contextlib.suppress(FileNotFoundError):
        found |= {thing.path: thing for thing in _walk(_opened(container, listed_at))}
    if not found and not os.path.exists(container):  # in an object store, a wrong address is an empty folder
        hint = "check the address (zip://::URL for a zip file; each process has a memory:// of its own)"
        raise ResourceNotFoundError(f"There is nothing at {container}: {hint}.")
    # An empty folder is no failure, but a fan-in over no results is: one thing stands for the container.
    things = sorted(found.values()) or [Thing("", "empty container")]
    problems = [f"{thing.path}: {thing.problem}" for thing in things if thing.problem]
    if params["strict"] and problems:
        error = f"{len(problems)} unreadable folders in {container} (strict=true): {'; '.join(problems[:SHOWN])}"
        return {"success": False, "error": error, "retryable": False}
    return {"success": True, "result": {"listed_at": listed_at, "things": [list(thing) for thing in things]}}


def analyse_thing(params: dict[str, Any]) -> dict[str, Any]:
    """Size, suffix, kind by content and, on request, SHA-256 of one file or of what one link leads to."""
    container, path, entry = params["container"], params["path"], params["entry"]
    row = {"path": path, "entry": entry, "bytes": params["bytes"], "suffix": suffix(path), "error": params["problem"]}
    if entry not in ("file", "link"):
        return {"success": True, "result": row}
    try:
        stream, size = _opened(container, params["listed_at"]).open(_real(path))
        with stream:
            head = stream.read(HEAD)
            row |= {"kind": kind(head), "bytes": params["bytes"] if size is None else size}
            if params["sha256"]:
                digest = hashlib.sha256(head)
                while block := stream.read(2**20):
                    digest.update(block)
                row["sha256"] = digest.hexdigest()
    except PASSING:
        raise
    except Exception as exc:  # damaged archives and remote stores raise much else than OSError
        row["kind"] = "dangling link" if entry == "link" and isinstance(exc, FileNotFoundError) else "unreadable"
        row["error"] = f"{row['kind']}: {_reason(exc)}"
        if params["strict"]:
            return {"success": False, "error": f"{path} in {container}: {row['error']}", "retryable": False}
    return {"success": True, "result": row}


def summarise_container(params: dict[str, Any]) -> dict[str, Any]:
    """Counts and bytes over all files, by suffix and by kind; what could not be read, the first hundred by name."""
    rows = [{**row, "bytes": row["bytes"] or 0} for row in (done["result"] for done in params["previous_results"])]
    files = [{**row, "suffix": row["suffix"] or "(none)"} for row in rows if row["entry"] == "file"]
    errors = [{"path": row["path"], "error": row["error"]} for row in rows if row["error"]]
    result = {
        "container": params["job_parameters"]["container"],
        "files": len(files),
        "bytes": sum(row["bytes"] for row in files),
        "entries": Counter(row["entry"] for row in rows),
        "by_suffix": _totals(files, "suffix"),
        "by_kind": _totals(files, "kind"),
        "dangling_links": sum(row.get("kind") == "dangling link" for row in rows),
        "error_count": len(errors),
        "errors": errors[:SHOWN],
    }
    return {"success": True, "result": result}


def _totals(files: list[dict[str, Any]], key: str) -> dict[str, dict[str, int]]:
    """Count and bytes by what files have under *key*, the most common first; the rare ones are one ``(other)``."""
    common = Counter(row[key] for row in files).most_common(MOST_COMMON)
    totals = {name: {"count": 0, "bytes": 0} for name, _ in common}
    for row in files:
        total = totals.setdefault(row[key] if row[key] in totals else "(other)", {"count": 0, "bytes": 0})
        total["count"] += 1
        total["bytes"] += row["bytes"]
    return totals


# The three kinds of container: each lists a folder in it ("" is the topmost), and opens a file, with its size if known.


class _Folder(NamedTuple):
    root: str

    def children(self, folder: str) -> Iterator[Thing]:
        with os.scandir(os.path.join(self.root, folder)) as found:
            for child in found:
                yield Thing(os.path.join(folder, child.name), *self._entry(child))

    def _entry(self, child: os.DirEntry[str]) -> tuple[str, int | None]:
        if child.is_dir(follow_symlinks=False):
            return "folder", None
        entry = "link" if child.is_symlink() else "file"
        try:
            status = child.stat()
        except OSError:  # gone, forbidden or a dangling link: the task that is to read it will say so
            return entry, None
        if stat.S_ISREG(status.st_mode):
            return entry, status.st_size
        return "link to a folder" if stat.S_ISDIR(status.st_mode) else "special file", None

    def open(self, path: str) -> tuple[Any, int | None]:
        full = os.path.join(self.root, path)
        status = os.stat(full)
        if not stat.S_ISREG(status.st_mode):  # replaced since it was listed: opening a FIFO would block
            raise OSError("Not a regular file any more")
        return open(full, "rb"), status.st_size


class _Zip(NamedTuple):
    archive: zipfile.ZipFile

    def children(self, folder: str) -> Iterator[Thing]:  # all files at once: a zip file is no tree
        return (Thing(info.filename, "file", info.file_size) for info in self.archive.infolist() if not info.is_dir())

    def open(self, path: str) -> tuple[Any, int | None]:
        return self.archive.open(path), self.archive.getinfo(path).file_size


class _Remote(NamedTuple):
    fs: Any
    root: str

    def children(self, folder: str) -> Iterator[Thing]:
        for child in self.fs.ls(posixpath.join(self.root, folder), detail=True):
            path = child["name"].removeprefix(self.root.rstrip("/")).strip("/")
            if path != folder:  # some stores list a folder in itself
                entry = "folder" if child["type"] == "directory" else child["type"]
                yield Thing(path, entry, child.get("size"))

    def open(self, path: str) -> tuple[Any, int | None]:
        stream = self.fs.open(posixpath.join(self.root, path), "rb")
        return stream, getattr(stream, "size", None)


@functools.lru_cache(maxsize=2)
def _opened(container: str, listed_at: str) -> _Folder | _Zip | _Remote:
    """The container, opened once a process for each listing: each task would read the directory of an archive anew."""
    if "://" in container:
        import fsspec  # slow, and not needed for a folder

        fs, root = fsspec.core.url_to_fs(container)
        fs.invalidate_cache()
        return _Remote(fs, root)
    return _Folder(container) if os.path.isdir(container) else _Zip(zipfile.ZipFile(container))


def _walk(container: _Folder | _Zip | _Remote) -> Iterator[Thing]:
    """All in a container, folder by folder. A folder that cannot be listed is a thing too, unless it is the topmost."""
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            children = list(container.children(folder))
        except OSError as exc:
            if folder == "" or isinstance(exc, PASSING):
                raise
            children = [Thing(folder, "unreadable folder", problem=_reason(exc))]
        pending += [child.path for child in children if child.entry == "folder"]
        yield from (child._replace(path=_shown(child.path)) for child in children if child.entry != "folder")


def _reason(exc: Exception) -> str:
    return _shown((exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__)


def _shown(name: str) -> str:
    return name.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode("utf-8")


def _real(shown: str) -> str:
    return shown.encode("latin-1", "backslashreplace").decode("unicode_escape")


ALL_JOBS = {ListContainerContents.job_type: ListContainerContents}
ALL_HANDLERS = {LIST: list_container, ANALYSE: analyse_thing, SUMMARISE: summarise_container}
