"""What is installed: Python, SQLite and the packages."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
import shlex
import sqlite3
import sys
from collections.abc import Iterable

from geoflow.stores.sqlite import schema
from geoflow.tools.doctor.diagnosis import Diagnosis, ok, problem, warning

Version = tuple[int, ...]

STRICT_TABLES, JSON_ARROWS, LOG_RESET_MENDED = (3, 37, 0), (3, 38, 0), (3, 51, 3)
EXTRAS = (
    *("distributed", "rasterio", "rio-cogeo", "pyogrio", "geopandas", "shapely", "pyproj", "pyarrow", "h3"),
    *("exactextract", "ipykernel", "jupyterlab", "notebook"),
)


def python(system: str = sys.platform) -> Diagnosis:
    text = f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()}"
    if system.startswith(("linux", "darwin")):
        return ok(text)
    return warning(f"{text}. geoflow is tested on Linux and macOS.", "On Windows, use WSL.")


def sqlite_library(version: Version = sqlite3.sqlite_version_info, threads: int = sqlite3.threadsafety) -> Diagnosis:
    """Whether Python's SQLite can keep a store; *threads* is its ``threadsafety``, 0 when it has none."""
    text = f"SQLite {'.'.join(map(str, version))}, {'' if threads else 'not '}safe for threads"
    newer = "Use a Python that brings a newer SQLite."
    if version < STRICT_TABLES:
        return problem(f"{text}. A store needs 3.37, for its strict tables.", newer)
    if not threads:
        return problem(f"{text}, and a session has several.", newer)
    try:
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(schema())
    except sqlite3.Error as exc:
        return problem(f"{text}. It cannot make a store: {exc}.", newer)
    if version < JSON_ARROWS:
        return warning(f"{text}. Queries of your own with ->> need 3.38.", newer)
    if version < LOG_RESET_MENDED:  # no warning: all would have it, and next to nobody the fault
        text += ". Before 3.51.3, two processes that write at the very same instant may in rare cases damage a store"
    return ok(f"{text}.")


def packages(needed: Iterable[str] | None = None) -> Diagnosis:
    """Whether the packages *needed* are there; by default those of geoflow, written as there: ``pandas>=2.2``."""
    if needed is None:
        try:
            needed = importlib.metadata.requires("geoflow") or ()
        except importlib.metadata.PackageNotFoundError:
            return warning("geoflow is not installed: it runs from its folder.", "pip install -e .")
    versions, wrong = [], []
    for requirement, _, marker in (line.partition(";") for line in needed):
        parts = re.match(r"\s*([\w.-]+)(?:\[.*?\])?\s*(?:>=\s*([\d.]+))?", requirement)
        if parts is None or "extra" in marker:
            continue
        version = _version(parts[1])
        versions.append(f"{parts[1]} {version}")
        if version is None or _numbers(version) < _numbers(parts[2] or ""):
            wrong.append(requirement.strip())
    if wrong:
        return problem(f"Missing, or too old: {', '.join(wrong)}.", f"pip install {shlex.join(wrong)}")
    return ok(f"{', '.join(versions)}.")


def extras(names: Iterable[str] = EXTRAS) -> Diagnosis:
    """What geoflow does without."""
    versions = {name: _version(name) for name in names}
    there = ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "none"
    missing = ", ".join(name for name, version in versions.items() if not version)
    return ok(f"{there}{'. Not installed: ' * bool(missing)}{missing}.")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> Version:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
