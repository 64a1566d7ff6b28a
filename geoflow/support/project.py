"""What the project that one works in says of geoflow: the table ``[tool.geoflow]`` of its ``pyproject.toml``."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from geoflow.errors import GeoflowWarning, ParameterError

NAME = "pyproject.toml"
_PATHS = ("store", "log_file")


def project_settings() -> tuple[Path | None, dict[str, Any]]:
    """The nearest ``pyproject.toml``, in this folder or one above it, and what it says; None where it says nothing.

    Paths are from its folder. Raises ``ParameterError`` where it cannot be read as TOML. One that belongs to another
    user is not used, which a warning says: a setting may name modules that workers import.
    """
    path = _nearest()
    try:
        text = path.read_bytes() if path is not None else b""
    except OSError:
        text = b""
    if path is None or b"geoflow" not in text:
        return None, {}
    import tomllib

    try:
        said = tomllib.loads(text.decode("utf-8")).get("tool", {}).get("geoflow")
    except (ValueError, AttributeError) as exc:
        raise ParameterError(f"{path} cannot be read: {exc}.") from None
    if said is None:
        return None, {}
    if not isinstance(said, dict):
        raise ParameterError(f"{path}: tool.geoflow is no table of settings.")
    if not _is_ours(path):
        told = f"{path} belongs to another user: what it says of geoflow is not used. Make it yours, or leave it out."
        warnings.warn(told, GeoflowWarning, stacklevel=2)
        return None, {}
    return path, {name: _in_place(value, path.parent) if name in _PATHS else value for name, value in said.items()}


def _nearest() -> Path | None:
    try:
        folder = Path.cwd()
    except OSError:  # it is gone
        return None
    return next((path for each in (folder, *folder.parents) if (path := each / NAME).is_file()), None)


def _in_place(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or value in ("", ":memory:"):
        return value
    return os.path.join(folder, "geoflow.duckdb" if value == "duckdb" else os.path.expanduser(value))


def _is_ours(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.stat().st_uid in (0, os.getuid())
