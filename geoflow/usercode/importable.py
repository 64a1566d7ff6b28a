"""Whether another process finds a function or class by its name, and why not."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any

from geoflow.usercode.origin import is_users

_MAIN = ("__main__", "__mp_main__")


def reference_of(target: Any) -> str | None:
    """``module:name`` when a fresh process would import the very same object, else None."""
    module = getattr(target, "__module__", None)
    name = getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module in _MAIN or "<locals>" in name:
        return None
    loaded = sys.modules.get(module)
    try:
        there = functools.reduce(getattr, name.split("."), loaded)
    except AttributeError:
        return None
    return f"{module}:{name}" if there is target and loaded is not None and _is_importable(loaded) else None


def unimportable(target: Any) -> str | None:
    """Why nobody would find *target* by the name that it travels as, as the rest of a sentence; None if they would."""
    module = getattr(target, "__module__", None)
    by_name = isinstance(target, types.FunctionType | type) and "<locals>" not in target.__qualname__
    if not by_name or not module or module in _MAIN:
        return None
    loaded = sys.modules.get(module)
    path = getattr(loaded, "__file__", None)
    if loaded is not None and ((path and not is_users(path)) or _is_importable(loaded)):
        return None
    return (
        f"is of the module {module!r}, which worker processes cannot import: put the folder of its file on sys.path, "
        "or define it in the notebook."
    )


def _is_importable(module: types.ModuleType) -> bool:
    """Whether a process with this one's ``sys.path`` would find *module*, and its packages, where they were found here.

    That a package is loaded does not say so: pytest's importlib mode makes packages that nobody can import.
    """
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    if not spec.has_location and spec.submodule_search_locations is None:  # built in
        return spec.origin in ("built-in", "frozen")
    package, _, _ = spec.name.rpartition(".")
    parent = sys.modules.get(package)
    if package and (parent is None or not _is_importable(parent)):
        return False
    where = getattr(parent, "__path__", None)
    # Looked for anew: `importlib.util.find_spec` would answer with what is loaded already.
    for finder in sys.meta_path:
        there = finder.find_spec(spec.name, where) if hasattr(finder, "find_spec") else None
        if there is not None:
            if spec.has_location:
                return bool(there.origin == spec.origin)
            return set(there.submodule_search_locations or ()) >= set(spec.submodule_search_locations)  # a namespace
    return False
