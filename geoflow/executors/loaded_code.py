"""The functions that a process was sent, and what it found when it loaded them: it may be newer than what was sent."""

from __future__ import annotations

import linecache
import sys
from typing import Any, NamedTuple

from geoflow.jobtypes.contract import accepts_context
from geoflow.support.nesting import here
from geoflow.usercode.fingerprint import fingerprint
from geoflow.usercode.packing import Code, stamp_of, unpack

# Whoever sends what is not here any more is told so, and sends it again.
MOST_VERSIONS = 256
_OLDER = "-older"  # ends the fingerprint of what was imported before its file changed


class Held(NamedTuple):
    """What a worker says of code that it has loaded: what it means there, and the modules' files as it read them."""

    version: str
    fingerprint: str
    modules: tuple[tuple[str, str], ...]


class Codes:
    """The last functions that this process was sent, by version. One whose load failed is not among them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, bool]] = {}
        self._held: dict[str, Held] = {}
        self._sources: dict[str, set[str]] = {}  # the cells that each came from
        self._brought: set[str] = set()  # those whose text came with it: it goes with it too
        self._modules: dict[str, str] = {}  # the stamps of what was imported here
        self._specs: dict[str, Any] = {}  # which change when a module is loaded again

    def get(self, code: Code) -> tuple[Any, bool]:
        """The function or class, and whether it takes a context."""
        return self._known.get(code.version) or self._load(code)

    def held(self, code: Code) -> Held | None:
        """What is here of *code*; None when it is to be sent first, or its load failed."""
        return self._held.get(code.version)

    def _load(self, code: Code) -> tuple[Any, bool]:
        missing = [name for name, _ in code.modules if name not in sys.modules]
        cells = {name for name, _ in code.sources}
        unseen = cells.difference(linecache.cache)
        here.loading = True
        try:
            target = unpack(code)
        finally:
            here.loading = False
            # Those that were here before, unseen, are taken for what the driver has.
            self._modules.update({name: stamp_of(name) for name in missing if name in sys.modules})
        for name, spec in ((name, getattr(sys.modules.get(name), "__spec__", None)) for name, _ in code.modules):
            if self._specs.setdefault(name, spec) is not spec:  # it was loaded again
                self._specs[name], self._modules[name] = spec, stamp_of(name)
        modules = tuple((name, self._modules.setdefault(name, stamp)) for name, stamp in code.modules)
        means = code.fingerprint
        if modules != code.modules:  # it is as its files are by now, or was imported before these changed
            is_newer = all(stamp == stamp_of(name) for name, stamp in modules)
            means = fingerprint(target) if is_newer else code.fingerprint + _OLDER
        self._held[code.version] = Held(code.version, means, modules)
        found_here = target, not isinstance(target, type) and accepts_context(target)
        if not means.endswith(_OLDER):  # else it may be loaded again
            self._known[code.version] = found_here
        self._sources[code.version] = cells
        self._brought |= unseen.intersection(linecache.cache)
        self._forget()
        return found_here

    def _forget(self) -> None:
        """Let go of the oldest versions: a cell that is run again and again leaves one each time."""
        for version in list(self._known)[:-MOST_VERSIONS]:
            self._known.pop(version, None)
            self._held.pop(version, None)
            gone = self._sources.pop(version, set()).difference(*self._sources.values())
            for name in gone & self._brought:
                self._brought.remove(name)
                linecache.cache.pop(name, None)
