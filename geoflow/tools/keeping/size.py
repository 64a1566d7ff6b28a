"""What takes the space of a store: its files, and which jobs, with what."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from geoflow.engine.runtime import Runtime
from geoflow.render.report import Report, Table
from geoflow.stores.saved_files import jobs_with_files, saved_bytes
from geoflow.stores.sizes import JobSize, job_sizes
from geoflow.support.masking import mask
from geoflow.support.text import human_bytes, shorten

_LARGEST = 5


class FileSize(NamedTuple):
    """A file, or several, that the store has: what they are, where, and how many bytes."""

    what: str
    place: str
    bytes: int


@dataclass(repr=False)
class Sizes(Report):
    """What the store takes of the disk, and of which jobs; ``saved`` are the bytes of `gf.save` by job."""

    files: tuple[FileSize, ...]
    free: int
    jobs: tuple[JobSize, ...]
    saved: dict[str, int]
    secrets: tuple[str, ...]
    exit_status: int = 0  # for a shell

    @property
    def title(self) -> str:
        return f"{human_bytes(sum(file.bytes for file in self.files))} in all"

    def parts(self) -> Iterator[str | Table]:
        yield [("what", "where", "size"), *((what, place, human_bytes(size)) for what, place, size in self.files)]
        if self.free:
            yield f"Of the store's file {human_bytes(self.free)} are free, for what comes."
        if not self.jobs:
            return
        heads = ("tasks", "parameters", "results", "printed", "saved files")
        yield [("type", "jobs", *heads), *self._types()]
        largest = sorted(self.jobs, key=self._all, reverse=True)[:_LARGEST]
        if len(self.jobs) > 1:
            yield "The largest jobs:"
            yield [("job", "type", *heads), *((job.job_id[:8], _name(job), *self._cells([job])) for job in largest)]

    def document(self) -> dict[str, Any]:
        """For programs: bytes of each file, and of each job."""
        jobs = [job._asdict() | {"saved": self.saved.get(job.job_id, 0)} for job in self.jobs]
        gone = sum(self.saved.values()) - sum(job["saved"] for job in jobs)
        told = {"files": [file._asdict() for file in self.files], "free": self.free, "saved_by_removed_jobs": gone}
        return told | {"jobs": mask(jobs, self.secrets)}

    def _types(self) -> Iterator[tuple[str, ...]]:
        types: dict[str, list[JobSize]] = {}
        for job in self.jobs:
            types.setdefault(_name(job), []).append(job)
        for name, jobs in sorted(types.items(), key=lambda each: -sum(map(self._all, each[1]))):
            yield name, f"{len(jobs):,}", *self._cells(jobs)

    def _cells(self, jobs: Iterable[JobSize]) -> tuple[str, ...]:
        rows = [(*job[2:], self.saved.get(job.job_id, 0)) for job in jobs]
        tasks, *sizes = (sum(column) for column in zip(*rows, strict=True))
        return f"{tasks:,}", *(human_bytes(size) if size else "" for size in sizes)

    def _all(self, job: JobSize) -> int:
        return job.total + self.saved.get(job.job_id, 0)


def size(runtime: Runtime) -> Sizes:
    """See `Session.size`."""
    store, folder = runtime.store, runtime.saved_files
    saved = {job_id: saved_bytes(folder, job_id) for job_id in jobs_with_files(folder)}
    files = list(_files(runtime, sum(saved.values())))
    return Sizes(tuple(files), store.room()[1], tuple(job_sizes(store)), saved, tuple(runtime.settings.secrets))


def _files(runtime: Runtime, saved: int) -> Iterator[FileSize]:
    path, log = runtime.settings.store, runtime.log_path
    if path == ":memory:":
        yield FileSize("store", "memory", runtime.store.room()[0])
    else:
        yield FileSize("store", path, _bytes(Path(path)))
        for ending in ("-wal", ".wal"):
            if written := _bytes(Path(f"{path}{ending}")):
                yield FileSize("written last", f"{path}{ending}", written)
    if saved:
        yield FileSize("saved files", str(runtime.saved_files), saved)
    if log is not None and os.path.exists(log):
        rotated = [each for each in log.parent.glob(f"{log.name}.*") if each.suffix[1:].isdecimal()]
        yield FileSize(f"log{' and older ones' * bool(rotated)}", str(log), sum(map(_bytes, (log, *rotated))))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _name(job: JobSize) -> str:
    return shorten(job.job_type, 30)
