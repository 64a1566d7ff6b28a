"""Find job types by name: built-in ones, the ones in a Python file, or those of a module."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from geoflow.core.rows import JobRow
from geoflow.errors import DefinitionError, GeoflowError
from geoflow.jobtypes.contract import DefinesJob, Registered, defines_job, normalise
from geoflow.jobtypes.registry import Registry
from geoflow.support.text import shorten

BUILT_IN = {
    "hello_world": "geoflow.builtin.hello_world",
    "list_container_contents": "geoflow.builtin.list_container_contents",
}

_OURS = str(Path(__file__).parents[1]) + os.sep


def registered(registry: Registry, job_type: str | type | DefinesJob) -> Registered:
    """The job type that is meant, as it is now: registered if need be, from its file or module where it is named so."""
    if defines_job(job_type):
        return registry.get(registry.register(job_type)[0])
    if not isinstance(job_type, str | type):
        kind, also = type(job_type).__name__, ""
        if isinstance(getattr(job_type, "stages", None), list):
            also = f" {kind} is a job class: give the class itself, {kind}, and no object of it."
        elif callable(job_type):
            also = f" {getattr(job_type, '__name__', kind)} is a function; it runs as a stage or handler of one."
        raise DefinitionError(
            f"{shorten(repr(job_type), 60)} is no job type.{also} A job type is given as a gf.JobType, as a class, "
            "or as its name, its file or its module, a text."
        )
    name = str(getattr(job_type, "job_type", job_type.__name__)) if isinstance(job_type, type) else job_type
    return registry.get(find(registry, name))


def registered_as(registry: Registry, row: JobRow) -> Registered:
    """The type of a stored job, from what is registered or built in: its name is never taken for a file's (S43)."""
    if row.job_type not in registry and row.job_type not in BUILT_IN:
        where = f" Its code came from {row.source}." if row.source else ""
        raise DefinitionError(
            f"Job {row.job_id[:8]} is of type {row.job_type!r}, which is not registered in this session.{where}",
            python="Register it with session.register(...), then go on.",
            typed="No file is loaded by itself: name it with --load.",
        )
    return registered(registry, row.job_type)


def find(registry: Registry, name: str) -> str:
    """The job type that *name* means, registered if need be: its name, ``path/to/file.py`` or ``package.module``.

    A file or module must have one job type in its ``ALL_JOBS``; ``file.py:job_type`` picks one of several.
    """
    if name in registry:
        return normalise(name)
    if normalise(name) in BUILT_IN:
        registry.register(importlib.import_module(BUILT_IN[normalise(name)]))
        return normalise(name)
    place, _, picked = name.partition(":")
    if not place.endswith(".py") and "." not in place:
        for built_in in BUILT_IN:
            find(registry, built_in)
        return registry.get(name).name
    names = registry.register(load(place))
    if picked:
        if normalise(picked) not in names:
            raise DefinitionError(f"{place} has no job type {picked!r}; it has {', '.join(sorted(names))}.")
        return normalise(picked)
    if len(names) > 1:
        raise DefinitionError(f"{place} has {len(names)} job types: say which, such as {place}:{sorted(names)[0]}.")
    return names[0]


def load(place: str) -> ModuleType:
    """The module in the file or of the name *place*; what it raises is told in a ``DefinitionError``."""
    if not place.endswith(".py"):
        if not {"", str(Path.cwd())} & set(sys.path):
            sys.path.insert(0, str(Path.cwd()))
        return _imported(place, place)
    path = Path(os.path.abspath(place))  # a link keeps its own name
    if not path.is_file():
        raise DefinitionError(f"There is no file {path}.")
    if not path.stem.isidentifier():
        raise DefinitionError(f"{path.name} cannot be imported: rename it to letters, digits and '_'.")
    # Workers are given this process's sys.path, so they find the file, and what lies beside it, under the same name.
    if str(path.parent) not in sys.path[:1]:
        sys.path.insert(0, str(path.parent))
    loaded = _imported(path.stem, str(path)) if path.stem not in sys.modules else sys.modules[path.stem]
    loaded_from = getattr(loaded, "__file__", None)
    if loaded_from is None or not os.path.samefile(loaded_from, path):
        raise DefinitionError(f"{path.name} has the name of a module that is loaded already: rename the file.")
    return loaded


def _imported(module: str, place: str) -> ModuleType:
    missing = DefinitionError(f"There is no module {place!r}. For a file, give its path with .py at the end.")
    if not all(part.isidentifier() for part in module.split(".")):
        raise missing
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as exc:  # whatever a user's module does when it is imported
        if isinstance(exc, ModuleNotFoundError) and exc.name and f"{module}.".startswith(f"{exc.name}."):
            raise missing from None
        frames = exc.__traceback__
        while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
            frames = frames.tb_next
        ours = isinstance(exc, GeoflowError)  # its message tells all; how it was found does not matter
        limit = None if ours else -4
        told = traceback.TracebackException(type(exc), exc.with_traceback(frames), frames, limit=limit)
        if ours:
            theirs = [frame for frame in told.stack if not frame.filename.startswith(_OURS)]
            told.stack = traceback.StackSummary.from_list(theirs[-4:])
        shown = "".join(told.format()).rstrip()
        raise DefinitionError(f"{place} could not be imported:\n{shown}") from None


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename in (__file__, importlib.__file__)
