"""How user code reaches a worker process: by reference where it can be imported, by value where it cannot.

A function of a module travels as its name; one that lives in a notebook (or in another function) travels as its
bytes, once for each slot and version. Both are checked when the code is registered, so that a handler which cannot
travel is refused with the name of the variable that holds it back, not lost in a queue.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import cloudpickle


class Code(NamedTuple):
    """A function or class on its way: its version, and either where to import it or its bytes.

    ``own`` are the top-level packages whose classes count as the job type's own (see `geoflow.retry`).
    """

    version: str
    reference: str | None
    value: bytes | None
    own: tuple[str, ...] = ()


def pack(target: Any) -> Code:
    """*target* ready to travel. Call after `unshippable` said that it can."""
    own = (_top(target),)
    reference = _reference(target)
    if reference is not None:
        return Code(f"{reference}@{_file_version(target)}", reference, None, own)
    value = cloudpickle.dumps(target)
    return Code(hashlib.sha256(value).hexdigest()[:16], None, value, own)


def unpack(code: Code) -> Any:
    """The function or class itself, in the worker."""
    if code.value is not None:
        return cloudpickle.loads(code.value)
    assert code.reference is not None
    module, _, name = code.reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _top(target: Any) -> str:
    return str(getattr(target, "__module__", None) or "__main__").partition(".")[0]


def _reference(target: Any) -> str | None:
    """``module:name`` when a fresh process would import the very same object, else None."""
    module = getattr(target, "__module__", None)
    name = getattr(target, "__qualname__", None)
    if not module or not name or module == "__main__" or "<locals>" in name:
        return None
    loaded = sys.modules.get(module)
    # A module without a file (typed into a notebook, made by a test) exists in this process only.
    if loaded is None or getattr(loaded, "__spec__", None) is None:
        return None
    found: Any = loaded
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is target else None


def _file_version(target: Any) -> str:
    """A stamp that changes when the file of the module does, so that a slot with the older code is not reused."""
    path = getattr(sys.modules.get(target.__module__), "__file__", None)
    if path is None:
        return "-"
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError:
        return "-"


def unshippable(target: Any) -> str | None:
    """Why *target* cannot travel to another process, as the rest of a sentence about it, or None when it can."""
    if _reference(target) is not None:
        return None
    for name, value in _held(target):
        if isinstance(value, io.IOBase):  # cloudpickle would send the file's contents in its place
            return f"uses the open file {name!r}: pass its path in the parameters and open it inside the handler."
    try:
        cloudpickle.dumps(target)
    except Exception as exc:  # whatever user objects raise when they are pickled
        for name, value in _held(target):
            try:
                cloudpickle.dumps(value)
            except Exception:
                return (
                    f"uses {name!r}, a {type(value).__name__}, which cannot travel to a worker process: "
                    "make it inside the handler, from plain values in the parameters."
                )
        return f"cannot travel to a worker process ({type(exc).__name__}: {exc})."
    return None


def _held(target: Any) -> Iterator[tuple[str, Any]]:
    """The variables that *target* and the notebook functions it calls hold on to, by name."""
    seen: set[int] = set()
    waiting = [target]
    while waiting:
        holder = waiting.pop()
        function = inspect.unwrap(holder) if callable(holder) else holder
        if isinstance(holder, type):
            waiting += [getattr(member, "__func__", member) for member in vars(holder).values()]
            continue
        if hasattr(function, "func") and hasattr(function, "args"):  # functools.partial
            yield from ((f"argument {i}", value) for i, value in enumerate(function.args))
            yield from function.keywords.items()
            function = function.func
        if not isinstance(function, types.FunctionType) or id(function) in seen:
            continue
        seen.add(id(function))
        variables = inspect.getclosurevars(function)
        for name, value in {**variables.nonlocals, **variables.globals}.items():
            if isinstance(value, types.FunctionType | type):
                if _reference(value) is None:
                    waiting.append(value)
            elif not isinstance(value, types.ModuleType):
                yield name, value
