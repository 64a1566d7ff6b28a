"""How user code reaches a worker process: by reference where it can be imported, by value where it cannot.

A function of a module travels as its name; one that lives in a notebook (or in another function) travels as its
bytes, until the slot's process says that it has that version. Both are checked when the code is registered, so that
a handler which cannot travel is refused with the name of the variable that holds it back, not lost in a queue.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import linecache
import os
import sys
import types
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from geoflow.errors import DefinitionError
from geoflow.support.text import human_bytes
from geoflow.usercode.fingerprint import fingerprint
from geoflow.usercode.importable import reference_of, unimportable
from geoflow.usercode.origin import PACKAGE, is_ours, is_users
from geoflow.usercode.pickling import CodePickler, OpenFileError, UnimportableError, arrived
from geoflow.usercode.references import innermost, variables_of

# What a function holds is sent with it to every worker, and again whenever its cell is run.
WARN_BYTES, MAX_BYTES = 1_000_000, 50_000_000
_CODE = (types.FunctionType, types.MethodType, type, functools.partial)


class Code(NamedTuple):
    """A function or class on its way: its version, and either where to import it or its bytes.

    The version tells whether a process has it as it is now; ``fingerprint``, which attempts record, whether it still
    means the same. ``own`` are the top-level packages whose classes count as the job type's own (see `retry`);
    ``sources``, the text of notebook cells by file name, for tracebacks; ``modules``, the user's modules that it
    depends on, each with a stamp of its file: a process that has imported it with another stamp is out of date.
    """

    version: str
    reference: str | None
    value: bytes | None
    own: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    modules: tuple[tuple[str, str], ...] = ()
    fingerprint: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it can be loaded from what is here; otherwise it only names what the other side has."""
        return self.value is not None or self.reference is not None

    def name_only(self) -> Code:
        """What goes to a process that has said that it has the code."""
        return self._replace(reference=None, value=None, sources=(), modules=())


def pack(target: Any) -> Code:
    """*target* ready to travel; ``DefinitionError`` when a variable that it uses keeps it from that."""
    with contextlib.suppress(TypeError):  # not everything can be referred to weakly
        if (known := _packed.get(target)) is not None and known.modules == _modules([target]):
            return known
    own = (str(getattr(innermost(target), "__module__", None) or "__main__").partition(".")[0],)
    reference = reference_of(target)
    if reference is not None:
        modules = _modules([target])
        version = _digest(f"{reference}@{modules}".encode())
        code = Code(version, reference, None, own, (), modules, fingerprint(target))
        with contextlib.suppress(TypeError):
            _packed[target] = code
        return code
    buffer = io.BytesIO()
    pickler = CodePickler(buffer)
    try:
        pickler.dump(target)
    except Exception:  # as in `unshippable`
        buffer = io.BytesIO()
    value = buffer.getvalue()
    if not 0 < len(value) <= MAX_BYTES:
        raise DefinitionError(f"{_name(target)} {unshippable(target)}")
    files = {code.co_filename for code in pickler.codes()}
    sources = tuple((name, "".join(linecache.getlines(name))) for name in sorted(files))
    modules = _modules([target, *pickler.met])
    version = _digest(value + repr(modules).encode())
    if version not in _fingerprints:
        _fingerprints[version] = fingerprint(target)
        for old in list(_fingerprints)[:-_KNOWN]:
            _fingerprints.pop(old, None)
    with contextlib.suppress(TypeError):
        _originals[version] = target
    return Code(version, None, value, own, sources, modules, _fingerprints[version])


# What travels by reference: to look for its module again takes as long as to run it.
_packed: weakref.WeakKeyDictionary[Any, Code] = weakref.WeakKeyDictionary()
# Of what travels by value, by version: it is packed anew at each submission.
_fingerprints: dict[str, str] = {}
_KNOWN = 1000
# And itself, should it run in this process: a class that is unpacked where it was packed is changed by that.
_originals: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _modules(values: list[Any]) -> tuple[tuple[str, str], ...]:
    """The module of the first of *values*, and the user's own ones that they depend on, with stamps of their files."""
    stamps = {"__main__": ""}
    for value in values:  # which grow: what a module holds may be of another one
        is_module = isinstance(value, types.ModuleType)
        module = value if is_module else sys.modules.get(str(getattr(value, "__module__", None)))
        name = getattr(module, "__name__", "__main__")
        if name not in stamps:
            path = str(getattr(module, "__file__", None) or PACKAGE)  # one that is built in has none
            counts = value is values[0] or is_users(path)
            stamps[name] = _stamp(path) if counts else ""
            values += vars(module).values() if counts else ()
    return tuple(sorted((name, stamp) for name, stamp in stamps.items() if stamp))


def stamp_of(module: str) -> str:
    """What tells the file of an imported module, as it is now, from what it was and will be."""
    return _stamp(str(getattr(sys.modules[module], "__file__", None) or PACKAGE))


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
        return _digest_of(path, (status.st_ino, status.st_mtime_ns, status.st_size))
    except OSError:
        return "-"


@functools.lru_cache(1000)
def _digest_of(path: str, stat: tuple[int, ...]) -> str:
    return _digest(Path(path).read_bytes())


def unpack(code: Code) -> Any:
    """The function or class itself, in the worker."""
    if (original := _originals.get(code.version)) is not None:
        return original
    if code.value is not None:
        for name, text in code.sources:
            linecache.cache.setdefault(name, (len(text), None, text.splitlines(keepends=True), name))
        return arrived(code.value)
    assert code.reference is not None
    module, _, name = code.reference.partition(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def unshippable(target: Any) -> str | None:
    """Why *target* cannot travel to another process, as the rest of a sentence about it, or None when it can."""
    if reference_of(target) is not None:
        return None
    if (why := unimportable(target)) is not None:
        return why
    scale = _Scale()
    pickler = CodePickler(scale)
    try:
        pickler.dump(target)
    except UnimportableError as exc:
        return f"uses {exc}"
    except Exception as exc:  # whatever user objects raise when they are pickled
        return _culprit(target) or f"cannot travel to a worker process ({type(exc).__name__}: {exc})."
    if scale.size > MAX_BYTES:
        uses, most = _weights(target, scale.size), human_bytes(MAX_BYTES)
        return f"{uses}, which would be sent to every worker process; at most {most} can be: {_TO_A_FILE}."
    if scale.size > WARN_BYTES:
        uses = f"{_name(target)} {_weights(target, scale.size)}"
        _warn(f"{uses}, which is sent to every worker process. To be faster, {_TO_A_FILE}.", pickler.codes())
    return None


_TO_A_FILE = "write it to a file, give its path in the parameters, and read it inside the handler"
_warned: set[tuple[str, str, int]] = set()


def _warn(message: str, codes: list[types.CodeType]) -> None:
    """Warn once, in the place where the user's function is written."""
    own = [(code.co_filename, code.co_firstlineno) for code in codes if not is_ours(code.co_filename)]
    where, line = own[0] if own else (__file__, 1)
    if (message, where, line) not in _warned:  # Python's own memory of them is lost whenever somebody catches warnings
        _warned.add((message, where, line))
        warnings.warn_explicit(message, UserWarning, where, line)


def _weights(target: Any, size: int) -> str:
    """The variables that make up most of what *target* weighs, with their sizes."""
    sizes: dict[int, tuple[int, str]] = {}
    for name, value in _held(target, set()):
        with contextlib.suppress(Exception):  # what does not travel, and was left out of it
            sizes.setdefault(id(value), (_size(value), name))
    most = [(weight, name) for weight, name in sorted(sizes.values(), reverse=True)[:3] if weight > size // 10]
    named = " and ".join(f"{name!r} ({human_bytes(weight)})" for weight, name in most)
    return f"uses {named}" if named else f"takes {human_bytes(size)}"


def _culprit(target: Any) -> str | None:
    for name, value in _held(target, set()):
        try:
            _size(value)
        except OpenFileError:
            return f"uses the open file {name!r}: pass its path in the parameters and open it inside the handler."
        except Exception:  # as above
            return (
                f"uses {name!r}, a {type(value).__name__}, which cannot travel to a worker process: make it inside "
                "the handler, from plain values in the parameters."
            )
    return None


class _Scale:
    """A file that keeps nothing but how much was written to it."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, part: Any) -> int:
        written = memoryview(part).nbytes
        self.size += written
        return written


def _size(value: Any) -> int:
    """How many bytes *value* would travel as."""
    scale = _Scale()
    CodePickler(scale).dump(value)
    return scale.size


def _name(target: Any) -> str:
    return str(getattr(innermost(target), "__name__", type(target).__name__))


def _held(target: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The variables that *target* and the notebook functions it calls hold on to, by name."""
    if id(target) in seen or reference_of(target) is not None:
        return
    seen.add(id(target))
    named: list[tuple[str, Any]] = []
    if isinstance(target, functools.partial):
        named += [("func", target.func), *((f"argument {i}", value) for i, value in enumerate(target.args))]
        named += target.keywords.items()
    elif isinstance(target, types.MethodType):
        yield from _held(target.__self__, seen)
        named += [("self", target.__self__), ("func", target.__func__)]
    elif isinstance(target, types.FunctionType):
        named += variables_of(target)
    elif isinstance(target, type):
        named += [(name, getattr(member, "__func__", member)) for name, member in vars(target).items()]
    else:
        named += [*getattr(target, "__dict__", {}).items(), (type(target).__name__, type(target))]
    for name, value in named:
        if isinstance(value, _CODE):
            yield from _held(value, seen)
        elif not isinstance(value, types.ModuleType) and not name.startswith("__"):
            yield name, value
