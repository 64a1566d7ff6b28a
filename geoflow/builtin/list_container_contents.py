r"""list_container_contents: list a folder, a zip file or any fsspec URL, look at each file, sum up.

Stage 1 lists, stage 2 looks at each regular file and each link to one (a task each), stage 3 adds up, and finalize
puts beside the sums what only stage 1 knows. Nothing is skipped without a word:

- Folders that links lead to are not entered (links may form loops); FIFOs, sockets and devices are never opened (that
  may block for ever). Both are counted and listed, and so is a zip member that a later one of the same name replaces.
- What the pattern or the limit leaves out is counted.
- Folders and files that cannot be read and links that lead nowhere are counted and listed with the reason; with
  ``strict`` they fail their task, and so the job.

``files`` and ``bytes`` are those of ``find -type f``: a link is counted under ``links`` alone. Names are shown as they
are but for two things: a backslash is doubled, and a byte that is no UTF-8 becomes ``\udcXX`` as in a Python string, so
that every name has a JSON form of its own. A container in which there is nothing to look at gets one stage-2 task for
the container itself, because a fan-in over no results would fail the job, and an empty folder is not a failure.
"""

from __future__ import annotations

import codecs
import errno
import fnmatch
import functools
import hashlib
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from geoflow.contract import job_id_for, task_id
from geoflow.errors import ResourceNotFoundError
from geoflow.models import JobExecutionContext

LIST = "list_container_contents_list"
ANALYSE = "list_container_contents_analyse"
SUMMARISE = "list_container_contents_summarise"

HEAD = 4096
BLOCK = 2**20
TOP_SUFFIXES = 50
LARGEST = 10
SHOWN = 100

# What opening and reading a damaged, encrypted or forbidden file raises; zipfile tells of encryption and of unknown
# compression by RuntimeError.
UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
# Among these, what a retry may cure: it is left to the engine.
PASSING = (ConnectionError, TimeoutError)


class ContainerParameters(BaseModel):
    """What a submission may say.

    ``pattern`` is a glob on the path relative to the container, in which ``*`` matches ``/`` too; ``limit`` keeps the
    first files in order of their paths.
    """

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    container: str = Field(min_length=1)
    pattern: str | None = Field(default=None, min_length=1)
    sha256: bool = False
    strict: bool = False
    limit: int | None = Field(default=None, ge=1)

    @field_validator("container", mode="before")
    @classmethod
    def _text(cls, container: Any) -> Any:
        return os.fspath(container) if isinstance(container, os.PathLike) else container

    @field_validator("container")
    @classmethod
    def _the_same_for_every_worker(cls, container: str) -> str:
        local = re.sub(r"^(zip://::)?((file|local)://)?", "", container)
        if _is_url(local):
            return container
        path = os.path.abspath(os.path.expanduser(local))
        if not os.path.exists(path):
            raise ValueError(f"{path} does not exist: name a folder, a zip file, or a URL such as s3://bucket/folder")
        return path


class ListContainerContents:
    """List a container, look at each file in it, and sum up."""

    job_type = "list_container_contents"
    description = "List a folder, zip file or fsspec URL; size, suffix, kind and SHA-256 of each file; a summary."
    stages = [
        {"number": 1, "name": "list", "task_type": LIST, "parallelism": "single"},
        {"number": 2, "name": "analyse", "task_type": ANALYSE, "parallelism": "fan_out"},
        {"number": 3, "name": "summarise", "task_type": SUMMARISE, "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        """The parameters with their defaults, a local container as an absolute path; nothing is listed yet.

        Raises pydantic's ``ValidationError`` (a ``ValueError``) with every problem.
        """
        return ContainerParameters.model_validate(params).model_dump(mode="json")

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        """64 hex digits over the job type and all parameters."""
        # Whoever submits may add keys of its own (a correlation id, say); they are no part of the work.
        known = {name: params[name] for name in ContainerParameters.model_fields if name in params}
        return job_id_for(ListContainerContents.job_type, known)

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """Stage 1: the one listing. Stage 2: a task for each file and link listed. Stage 3 is the engine's."""
        if stage == 1:
            return [{"task_id": task_id(job_id, stage, "list"), "task_type": LIST, "parameters": job_params}]
        given = {key: job_params[key] for key in ("container", "sha256", "strict")}
        listed = [entry for previous in previous_results or [] for entry in previous["result"]["entries"]]
        return [
            {
                "task_id": task_id(job_id, stage, path),
                "task_type": ANALYSE,
                "parameters": {**given, "path": path, "entry": entry, "bytes": size},
                "metadata": {"bytes": size or 0},
            }
            for path, entry, size in listed or [("", "container", 0)]
        ]

    @staticmethod
    def finalize_job(context: JobExecutionContext | None = None) -> dict[str, Any]:
        """The summary of stage 3, and beside it what stage 1 saw but handed to nobody."""
        tasks = context.task_results if context else []
        found = {task.task_type: task.result_data["result"] for task in tasks if task.success}
        listing, summary = found.get(LIST, {}), found.get(SUMMARISE, {})
        others: list[list[str]] = listing.get("others", [])
        counts = Counter(what for _, what, _ in others)
        unread = [{"path": path, "error": why} for path, what, why in others if what == "unreadable folder"]
        not_opened = [{"path": path, "what": why} for path, what, why in others if what != "unreadable folder"]
        return {
            "container": listing.get("container"),
            **summary,
            "special": counts["special"],
            "folder_links": counts["folder link"],
            "replaced_members": counts["replaced member"],
            "not_opened": not_opened[:SHOWN],
            "unreadable_folders": counts["unreadable folder"],
            "excluded_by_pattern": listing.get("excluded_by_pattern", 0),
            "beyond_limit": listing.get("beyond_limit", 0),
            "error_count": len(unread) + summary.get("error_count", 0),
            "errors": [*unread, *summary.get("errors", [])][:SHOWN],
        }


# The three handlers.


def list_container(params: dict[str, Any]) -> dict[str, Any]:
    """What there is to look at, as compact rows: a listing may have a hundred thousand of them.

    ``entries`` are ``[path, "file" or "link", bytes or None]`` in order of paths, ``others`` are
    ``[path, what, reason]`` where *what* is ``special``, ``folder link``, ``replaced member`` or ``unreadable folder``.
    Raises when the container itself cannot be listed.
    """
    container, pattern = params["container"], params["pattern"]
    if _is_url(container):
        listing = _list_url(container)
    else:
        listing = _list_folder(container) if os.path.isdir(container) else _list_zip(container)
    others = sorted([_shown(path), what, _shown(why)] for path, what, why in listing.others)
    unread = [f"{path}: {why}" for path, what, why in others if what == "unreadable folder"]
    if params["strict"] and unread:
        error = f"Unreadable folders in {container} (strict=true): {len(unread)}: {'; '.join(unread[:SHOWN])}"
        return {"success": False, "error": error, "retryable": False}
    matching = [entry for entry in listing.entries if pattern is None or fnmatch.fnmatchcase(entry[0], pattern)]
    entries = sorted([_shown(path), entry, size] for path, entry, size in matching)
    kept = entries[: params["limit"]]
    return {
        "success": True,
        "result": {
            "container": container,
            "entries": kept,
            "others": others,
            "excluded_by_pattern": len(listing.entries) - len(matching),
            "beyond_limit": len(matching) - len(kept),
        },
    }


def analyse_file(params: dict[str, Any]) -> dict[str, Any]:
    """Size, suffix, kind by content and, on request, SHA-256 of one file or of what one link leads to."""
    container, shown = params["container"], params["path"]
    row = {"path": shown, "entry": params["entry"], "bytes": params["bytes"], "suffix": suffix(shown)}
    if params["entry"] == "container":
        return {"success": True, "result": row}
    path = _real(shown)
    try:
        stream, size = _open(container, path)
        with stream:
            row["bytes"] = params["bytes"] if size is None else size
            head = stream.read(HEAD)
            row["kind"] = kind(head)
            if params["sha256"]:
                row["sha256"] = _sha256(head, stream)
    except PASSING:
        raise
    except UNREADABLE as exc:
        target = _missing_target(container, path, exc) if params["entry"] == "link" else None
        reason = _shown(f"the link leads nowhere: {target}" if target else _reason(exc))
        if params["strict"]:
            return {"success": False, "error": f"{shown} in {container}: {reason} (strict=true)", "retryable": False}
        row |= {"kind": "dangling" if target else "unreadable", "error": reason}
    return {"success": True, "result": row}


def summarise_container(params: dict[str, Any]) -> dict[str, Any]:
    """Counts and bytes over all files, by suffix and by kind; the largest files; the first hundred errors."""
    rows = [previous["result"] for previous in params["previous_results"]]
    files = [row for row in rows if row["entry"] == "file"]
    errors = [{"path": row["path"], "error": row["error"]} for row in rows if "error" in row]
    largest = sorted(files, key=lambda row: (-(row["bytes"] or 0), row["path"]))[:LARGEST]
    kinds = Counter(row.get("kind") for row in rows)
    return {
        "success": True,
        "result": {
            "files": len(files),
            "bytes": sum(row["bytes"] or 0 for row in files),
            "links": sum(row["entry"] == "link" for row in rows),
            "dangling": kinds["dangling"],
            "unreadable": kinds["unreadable"],
            "by_suffix": _totals((row["suffix"] or "(none)", row["bytes"] or 0) for row in files),
            "by_kind": _totals((row["kind"], row["bytes"] or 0) for row in files),
            "largest": [{"path": row["path"], "bytes": row["bytes"] or 0} for row in largest],
            "error_count": len(errors),
            "errors": errors[:SHOWN],
        },
    }


# What the handlers are made of.


def suffix(path: str) -> str:
    """The lower-case suffix with its dot, or ``""``; a compressed tar file has both, as in ``.tar.gz``."""
    stem, last = os.path.splitext(path.rpartition("/")[2].lower())
    return f".tar{last}" if last in (".gz", ".bz2", ".xz", ".zst") and stem.endswith(".tar") else last


# First match decides; short words of letters are taken together with what must follow them, since texts begin with
# anything. A GeoTIFF is a TIFF: what makes it one is not at its beginning.
SIGNATURES = [
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"II\*\0|MM\0\*", "tiff"),  # TIFF 6.0, section 2
        (rb"II\+\0|MM\0\+", "bigtiff"),  # BigTIFF, libtiff.gitlab.io
        (rb"\x89PNG\r\n\x1a\n", "png"),  # ISO/IEC 15948, 5.2
        (rb"\xff\xd8\xff", "jpeg"),  # ITU-T T.81, annex B
        (rb"GIF8[79]a", "gif"),  # GIF89a, 17
        (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "jpeg2000"),  # ISO/IEC 15444-1, annexes I and A
        (rb"SQLite format 3\0.{52}(GPKG|GP10|GP11)", "geopackage"),  # OGC 12-128, requirement 2: application_id
        (rb"SQLite format 3\0", "sqlite"),  # sqlite.org/fileformat.html, 1.3
        (rb"\x89HDF\r\n\x1a\n", "hdf5"),  # HDF5 File Format 3.0, II.A; NetCDF-4 is the same
        (rb"CDF[\x01\x02\x05]", "netcdf"),  # NetCDF classic, 64-bit offset and CDF-5
        (rb"PAR1", "parquet"),  # parquet-format README
        (rb"\0\0\x27\x0a.{20}", "shapefile"),  # ESRI Shapefile Technical Description 1998; .shp and .shx
        (rb"fgb[\x02-\x08]fgb", "flatgeobuf"),  # flatgeobuf.org; the fourth byte is the version
        (rb"LASF.{20}\x01", "las"),  # ASPRS LAS 1.4, table 3; LAZ is the same
        (rb"GRIB.{3}[\x01\x02]", "grib"),  # WMO FM 92, section 0
        (rb"PMTiles[\x03-\x08]", "pmtiles"),  # PMTiles 3, header: the eighth byte is the version
        (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "zip"),  # PKWARE APPNOTE 4.3.7, 4.3.16, 8.5
        (rb"\x1f\x8b\x08", "gzip"),  # RFC 1952, 2.3.1
        (rb"\x28\xb5\x2f\xfd", "zstd"),  # RFC 8878, 3.1.1
        (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "bzip2"),  # bzip2 1.0.8, compress.c: a block, or the end of no blocks
        (rb"\xfd7zXZ\0", "xz"),  # The .xz File Format 1.2, 2.1.1.1
        (rb".{257}ustar", "tar"),  # POSIX.1-2017, pax
        (rb"%PDF-", "pdf"),  # ISO 32000-1, 7.5.2
        (rb"\x7fELF", "elf"),  # TIS ELF 1.2
        (rb"..\r\n[\x00-\x03]\0\0\0", "python bytecode"),  # PEP 552
    )
]
TEXT_KINDS = [
    (re.compile(r"\s*\{\s*[\"}]|\s*\[\s*([\[{\"\]]|-?\d|true|false|null)"), "json"),
    (re.compile(r"\s*<(!doctype html|html)[\s>]", re.IGNORECASE), "html"),
    (re.compile(r"\s*<(\?xml|!doctype|!--|[a-z_][\w:.-]*[\s/>])", re.IGNORECASE), "xml"),
]
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def kind(head: bytes) -> str:
    """What a file is by its first 4096 bytes: a name in ``SIGNATURES``, a kind of text, ``empty`` or ``unknown``."""
    if not head:
        return "empty"
    for signature, name in SIGNATURES:
        if signature.match(head):
            return name
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:  # incrementally: the head may end within a character
        text = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return "unknown"
    if CONTROL.search(text):
        return "unknown"
    return next((name for beginning, name in TEXT_KINDS if beginning.match(text)), "text")


class _Listing(NamedTuple):
    """Real names: ``entries`` are (path, file or link, bytes), ``others`` are (path, what, reason)."""

    entries: list[tuple[str, str, int | None]]
    others: list[tuple[str, str, str]]


def _list_folder(root: str) -> _Listing:
    listing = _Listing([], [])
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as found:
                children = list(found)
        except OSError as exc:
            if not folder:
                raise
            listing.others.append((folder, "unreadable folder", _reason(exc)))
            continue
        for child in children:
            path = f"{folder}/{child.name}" if folder else child.name
            if not _list_child(listing, path, child):
                pending.append(path)
    return listing


def _list_child(listing: _Listing, path: str, child: os.DirEntry[str]) -> bool:
    """Add one thing to the listing, or say False: it is a folder."""
    link = False
    try:
        if child.is_dir(follow_symlinks=False):
            return False
        link = child.is_symlink()
        status = os.stat(child.path, follow_symlinks=link)
    except OSError:  # gone, forbidden or a dangling link: the task that is to read it will say so
        listing.entries.append((path, "link" if link else "file", None))
        return True
    if stat.S_ISREG(status.st_mode):
        listing.entries.append((path, "link" if link else "file", status.st_size))
    elif stat.S_ISDIR(status.st_mode):
        listing.others.append((path, "folder link", "link to a folder"))
    else:
        names = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "character device"}
        what = names.get(stat.S_IFMT(status.st_mode), "block device")
        listing.others.append((path, "special", f"link to a {what}" if link else what))
    return True


def _list_zip(path: str) -> _Listing:
    """The members of a zip file. A link stored in one is the small file that holds its target."""
    members = [member for member in _zip(path, _stamp(path)).infolist() if not member.is_dir()]
    last = {member.filename: member for member in members}
    return _Listing(
        [(name, "file", member.file_size) for name, member in last.items()],
        [
            (member.filename, "replaced member", f"{member.file_size} bytes; a later member has the same name")
            for member in members
            if member is not last[member.filename]
        ],
    )


def _list_url(url: str) -> _Listing:
    """What an fsspec file system lists, folder by folder: its own walk leaves out folders that it cannot read."""
    fs, root = _filesystem(url, _stamp(url))
    fs.invalidate_cache()
    entries: dict[str, tuple[str, str, int | None]] = {}
    others: list[tuple[str, str, str]] = []
    pending, seen = [root], {root}
    while pending:
        folder = pending.pop()
        try:
            children = fs.ls(folder, detail=True)
        except PASSING:
            raise
        except OSError as exc:
            if folder != root:
                others.append((_relative(folder, root), "unreadable folder", _reason(exc)))
                continue
            if isinstance(exc, FileNotFoundError):
                raise _nothing_at(url) from exc
            raise
        for child in children:
            name = child["name"].rstrip("/")
            if child["name"] == root and child["type"] == "file":
                raise ValueError(f"{url} is a file, not a folder: for a zip file write zip://::{url}")
            if child["type"] == "directory":
                if name not in seen:
                    seen.add(name)
                    pending.append(name)
            elif name == folder:
                continue  # an object store's marker for the folder itself
            elif child["type"] in ("file", "link"):
                entries[name] = (_relative(name, root), child["type"], child.get("size"))
            else:
                others.append((_relative(name, root), "special", str(child["type"])))
    if url.startswith("memory:") and not root and not entries:
        raise _nothing_at(url)  # its root is there in every process, filled or not
    return _Listing(list(entries.values()), others)


def _nothing_at(url: str) -> ResourceNotFoundError:
    hint = " (memory:// exists only in the process that wrote it)" if url.startswith("memory:") else ""
    return ResourceNotFoundError(f"There is nothing at {url}{hint}: check the address, and whether you may read it.")


def _relative(name: str, root: str) -> str:
    return name.removeprefix(root.rstrip("/")).lstrip("/")


def _open(container: str, path: str) -> tuple[BinaryIO, int | None]:
    """One file of the container, to be read, and its size in bytes where that is known."""
    if _is_url(container):
        fs, root = _filesystem(container, _stamp(container))
        stream = fs.open(f"{root.rstrip('/')}/{path}" if root else path, "rb")
        return stream, getattr(stream, "size", None)
    if os.path.isdir(container):
        full = os.path.join(container, path)
        status = os.stat(full)
        if not stat.S_ISREG(status.st_mode):  # replaced since it was listed: opening a FIFO would block
            raise OSError(errno.EINVAL, "Not a regular file any more")
        return open(full, "rb"), status.st_size
    archive = _zip(container, _stamp(container))
    try:
        member = archive.getinfo(path)
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, "No such member any more") from None
    return cast(BinaryIO, archive.open(member)), member.file_size


@functools.lru_cache(maxsize=2)
def _zip(path: str, stamp: object) -> zipfile.ZipFile:
    """The zip file, opened once a process and not once a task: its directory is read each time it is opened."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, UnicodeDecodeError) as exc:
        raise ValueError(f"{path} is neither a folder nor a zip file that can be read: {exc}") from exc


@functools.lru_cache(maxsize=2)
def _filesystem(url: str, stamp: object) -> tuple[Any, str]:
    """The fsspec file system of *url* and the path in it, opened once a process: it may be a whole archive."""
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    return fs, root


def _stamp(container: str) -> object:
    """What changes when the local archive under this name does, so that no other one is read from the cache."""
    innermost = container.rpartition("::")[2] if _is_url(container) else container
    try:
        status = os.stat(re.sub(r"^(file|local)://", "", innermost))
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _is_url(container: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*(://|::)", container) is not None


def _sha256(head: bytes, stream: BinaryIO) -> str:
    digest = hashlib.sha256(head)
    while block := stream.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _missing_target(container: str, path: str, exc: BaseException) -> str | None:
    """Where a local link leads, if it leads nowhere or round in circles."""
    if isinstance(exc, OSError) and exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) and not _is_url(container):
        try:
            return os.readlink(os.path.join(container, path))
        except OSError:  # the link itself is gone
            return None
    return None


def _reason(exc: BaseException) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__


def _shown(name: str) -> str:
    """*name* without lone surrogates, which JSON cannot hold; `_real` is the way back."""
    return name.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode("utf-8")


def _real(shown: str) -> str:
    return shown.encode("latin-1", "backslashreplace").decode("unicode_escape")


def _totals(sizes: Iterable[tuple[str, int]]) -> dict[str, dict[str, int]]:
    """Count and bytes for each name, the most frequent first; beyond the top 50 they are one ``(other)``."""
    count: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for name, size in sizes:
        count[name] += 1
        total[name] += size
    ranked = sorted(count, key=lambda name: (-count[name], name))
    top = {name: {"count": count[name], "bytes": total[name]} for name in ranked[:TOP_SUFFIXES]}
    rest = ranked[TOP_SUFFIXES:]
    if rest:
        top["(other)"] = {"count": sum(count[n] for n in rest), "bytes": sum(total[n] for n in rest)}
    return top


ALL_JOBS = {ListContainerContents.job_type: ListContainerContents}
ALL_HANDLERS = {LIST: list_container, ANALYSE: analyse_file, SUMMARISE: summarise_container}
