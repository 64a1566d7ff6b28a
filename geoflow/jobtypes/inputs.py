"""What of a task's parameters names files, and what tells one state of a file from another.

A worker looks, as a stage is planned: files may be on a disk that answers late, or not at all, and a plan has a time
limit. It looks before a task runs. What changes after that, even while it runs, is another state the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from geoflow.core.chunks import Look
from geoflow.errors import ContractViolationError
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.text import shorten

MOST_TEXTS = 50_000  # different ones of a task that are looked at; MOST_FILES, of one folder
MOST_FILES = 100_000
LONGEST = 4_096  # a path has no more bytes
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|/vsi[a-z0-9_]+/")
# A file may change twice within one tick of the clock that its times are taken from, and look the same: these are the
# ticks of disks with fractions of seconds, and of those without.
_TICK, _COARSE_TICK, _LOOKS = 0.02, 2.1, 5
_AT_ONCE = 1 << 20
_KEY = "<key>"
SAVED = "gf_saved"  # the key that tells the reference of what `gf.save` was given, and has its format


class Inputs(NamedTuple):
    """The files that a task's parameters name, by path: those *declared*, and those *found*, with their states.

    *unseen* are the names of parameters that are folders or addresses, and that nobody declared: of what is in them is
    looked at only what another text names.
    """

    declared: Mapping[str, str]
    found: Mapping[str, str]
    unseen: Sequence[str]

    @classmethod
    def of(cls, text: str) -> Inputs | None:
        """What a store has as *text*; None where another program has changed it."""
        try:
            read = cls(**from_json(text))
            texts = [*read.declared, *read.declared.values(), *read.found, *read.found.values(), *read.unseen]
        except (ValueError, TypeError, AttributeError):
            return None
        return read if all(isinstance(text, str) for text in texts) else None

    def same_as(self, other: Inputs, outputs: Sequence[str] = ()) -> bool:
        """Whether all files are as they were in *other*, but for *outputs*, whole paths that the task makes itself."""
        made = set(outputs)
        return all(
            _states(mine, made) == _states(theirs, made)
            for mine, theirs in ((self.declared, other.declared), (self.found, other.found))
        ) and list(self.unseen) == list(other.unseen)


def _states(files: Mapping[str, str], made: set[str]) -> dict[str, str]:
    # By content, what tells the time stands behind it: a file that is only newer is the same.
    return {path: state.partition(" ")[0] for path, state in files.items() if path not in made}


class Looker:
    """Looks at files, at each once. *content* is how declared ones are told apart, where their times are not enough."""

    def __init__(self, content: bool = False) -> None:
        self._content = content
        self._known: dict[tuple[str, bool], str | None] = {}
        self._listed: dict[str, Mapping[str, Sequence[str]]] = {}

    def inputs(self, parameters: Mapping[str, Any], patterns: Sequence[str]) -> tuple[str | None, set[str]]:
        """The `Inputs` of a task as JSON text, None where their state is not known; and which *patterns* found any."""
        declared, found, unseen = dict[str, str](), dict[str, str](), set[str]()
        is_known, used, folders, texts = True, set[str](), set[str](), set[str]()
        for name, value in leaves(parameters):
            if name == _KEY:  # what the parameter is called
                continue
            is_key = name.endswith(_KEY)
            meant = [] if is_key else [pattern for pattern in patterns if fnmatchcase(name, pattern)]
            used.update(meant)
            if not isinstance(value, str) or not value or len(value) > LONGEST:
                is_known = is_known and (not meant or value in (None, "", [], {}))
                continue
            if value in texts and not meant:
                continue
            if len(texts) >= MOST_TEXTS:
                is_known = False
                break
            path = value if _ADDRESS.match(value) else os.path.abspath(value)
            if meant:
                state = self._state(path, declared=True)
                is_known = is_known and state is not None
                declared[path] = state or ""
            elif path is value or (state := self._state(path, declared=False)) == "folder":
                unseen.add(name.removesuffix(f".{_KEY}"))
                if path is not value:
                    folders.add(path)
            else:
                is_known = is_known and state is not None
                if state:
                    found[path] = state
            texts.add(value)
        is_known = is_known and len(folders) * len(texts) <= MOST_TEXTS
        for path in self._meant(folders, texts) if is_known else ():
            state = self._state(path, declared=False)
            is_known = is_known and state is not None
            if state and state != "folder" and path not in declared:
                found[path] = state
        if not is_known:
            return None, used
        return to_json(Inputs(declared, found, sorted(unseen))._asdict()), used

    def _meant(self, folders: Iterable[str], texts: Iterable[str]) -> Iterator[str]:
        """The files that a folder and another text may mean together: one in it, without its ending too, or below."""
        for folder in folders:
            names = self._names_in(folder)
            for text in texts:
                if "/" not in text:
                    yield from (os.path.join(folder, name) for name in names.get(text, ()))
                elif not os.path.isabs(text):
                    yield os.path.join(folder, text)

    def _names_in(self, folder: str) -> Mapping[str, Sequence[str]]:
        """What is in *folder*, by its names and by what stands before a dot in them."""
        if folder not in self._listed:
            names: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):
                    dots = (place for place, letter in enumerate(name) if letter == "." and place)
                    for beginning in (name, *(name[:place] for place in dots)):
                        names.setdefault(beginning, []).append(name)
            except OSError:  # nobody can look into it from here: nor will the task
                pass
            self._listed[folder] = names
        return self._listed[folder]

    def _state(self, path: str, *, declared: bool) -> str | None:
        """What tells the file from itself at another time; empty where there is none, None in doubt."""
        if (path, declared) not in self._known:
            self._known[path, declared] = self._look(path, declared)
        return self._known[path, declared]

    def _look(self, path: str, declared: bool) -> str | None:
        if _ADDRESS.match(path):
            return _state_of_address(path)
        try:
            if not declared:
                return state_of(path)
            return _state_of_all(path, self._content)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None if declared else ""
        except OSError as exc:  # there may be something that cannot be seen from here
            return "" if exc.errno in _NO_NAMES and not declared else None


_NO_NAMES = (36, 63)  # a name that is too long, on Linux and on macOS


def state_of(path: str, *, patient: bool = True) -> str | None:
    """The state of a file and what belongs to it, by size and times; ``folder`` of a folder, None of what is neither.

    When it has just changed, a *patient* look waits until a further change would be seen; None where that does not end.
    """
    about = os.stat(path)
    if stat.S_ISDIR(about.st_mode):
        return "folder"
    if not stat.S_ISREG(about.st_mode) or os.path.splitext(path)[1].lower() in _OF_OTHERS:
        return None
    paths = beside(path)
    for _ in range(_LOOKS):
        parts = [about]
        for other in paths:
            with contextlib.suppress(OSError):
                parts.append(os.stat(other))
        changed = max(max(part.st_mtime_ns, part.st_ctime_ns) for part in parts)
        left = (_TICK if changed % 1_000_000_000 else _COARSE_TICK) - abs(time.time() - changed / 1e9)
        if left <= 0 or not patient:
            return "+".join(f"{part.st_size}:{part.st_mtime_ns}:{part.st_ctime_ns}" for part in parts)
        time.sleep(left)
        about = os.stat(path)
    return None


def beside(path: str) -> list[str]:
    """Where what belongs to the file at *path* would be."""
    name, ending = os.path.splitext(path)
    return [*(name + other for other in _BESIDE.get(ending.lower(), ())), *(path + other for other in _BEHIND)]


# What belongs to a file of that ending, and what does to a file of any: a changed table is another shapefile. A file
# that only names others is never known to be the same.
_BESIDE = {
    ".shp": (".dbf", ".shx", ".prj", ".cpg"),
    ".tab": (".dat", ".map", ".id", ".ind"),
    ".mif": (".mid",),
    **dict.fromkeys((".img", ".dat", ".bil", ".bip", ".bsq", ".raw"), (".hdr",)),
    **dict.fromkeys((".tif", ".tiff"), (".tfw", ".prj")),
}
_BEHIND = (".aux.xml", ".ovr", ".msk", "-wal")
_OF_OTHERS = {".vrt"}


def _state_of_all(path: str, content: bool, *, patient: bool = True) -> str | None:
    """The state of a file or, of a folder, that of all that is in it; by *content*, with its times behind it."""
    times = state_of(path, patient=patient)
    if times is None:
        return None
    if times != "folder" and not content:
        return times
    files = _files_in(path) if times == "folder" else [path]
    if files is None:
        return None
    read, seen = hashlib.sha256(), hashlib.sha256()
    for file in files:
        state = state_of(file, patient=patient) if times == "folder" else times
        if state is None:
            return None
        name = os.path.relpath(file, path).encode("utf-8", "surrogateescape")
        seen.update(b"%s\0%s\0" % (name, state.encode()))
        if content:
            read.update(b"%s\0" % name)
            with open(file, "rb") as opened:
                digest = hashlib.sha256()
                while part := opened.read(_AT_ONCE):
                    digest.update(part)
            read.update(digest.digest())
    told = times if times != "folder" else f"{len(files)}:{seen.hexdigest()[:32]}"
    return f"{read.hexdigest()[:32]} {told}" if content else told


def _files_in(folder: str) -> list[str] | None:
    """All files in *folder*, in order; None where there are too many, or where not all of it can be seen."""
    files: list[str] = []

    def fail(exc: OSError) -> None:
        raise exc

    for here, folders, names in os.walk(folder, onerror=fail):
        if any(os.path.islink(os.path.join(here, name)) for name in folders):  # which may lead anywhere
            return None
        files += (os.path.join(here, name) for name in names)
        if len(files) > MOST_FILES:
            return None
    return sorted(files)


def _state_of_address(address: str) -> str | None:
    """What fsspec knows of *address*, where that includes its time or its version."""
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(address, skip_instance_cache=True)
        about = system.info(path)
    except Exception:  # whatever the libraries of so many kinds of stores raise: it is not known
        return None
    names = ("etag", "lastmodified", "last_modified", "mtime", "updated", "modified", "version_id", "md5hash")
    told = {name: value for name, value in about.items() if re.sub("[-]", "_", name.lower()) in names and value}
    return f"{about.get('size')}:{sorted((name, str(value)) for name, value in told.items())}" if told else None


def changed_since(then: Inputs) -> bool:
    """Whether a declared local file is not as it was; addresses are not asked."""
    for path, state in then.declared.items():
        if _ADDRESS.match(path):
            continue
        try:
            now = _state_of_all(path, content=False, patient=False)
            if now is not None and now == state.rpartition(" ")[2]:
                continue
            if (
                " " not in state
                or (_state_of_all(path, content=True) or "").partition(" ")[0] != state.partition(" ")[0]
            ):
                return True
        except OSError:
            return True
    return False


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All texts and numbers in *value*, and the keys of its dicts, by dotted names; items of a list have its name."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield f"{name}.{_KEY}" if name else _KEY, key
            yield from leaves(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value:
        for part in value:
            yield from leaves(part, name)
    else:
        yield name, value


def is_key(name: str) -> bool:
    """Whether `leaves` calls the key of a dict so."""
    return name.endswith(_KEY)


def is_address(text: str) -> bool:
    """Whether *text* is of something that is not reached by a path: ``https://…``, ``/vsis3/…``."""
    return _ADDRESS.match(text) is not None


def not_taken(handler: Any) -> tuple[str, ...]:
    """The parameters that tasks have and their *handler* does not look at: a typed function's are known."""
    return getattr(handler, "parameters_not_taken", ())


def looked_at(parameters: Iterable[str | None], look: Look) -> list[str | None]:
    """The `Inputs` of each task of a plan, as JSON text, or None where their state is not known."""
    looker, found, names = Looker(look.content), list[str | None](), set[str]()
    used: set[str] = set()
    for text in parameters:
        values = {name: value for name, value in from_json(text or "{}").items() if name not in look.ignored}
        inputs, meant = looker.inputs(values, look.inputs)
        found.append(inputs if len(meant) == len(set(look.inputs)) else None)
        used |= meant
        if len(names) < 100:
            names.update(name for name, _ in leaves(values) if not name.endswith(_KEY))
    if found and look.strict and (unknown := [pattern for pattern in look.inputs if pattern not in used]):
        there = shorten(", ".join(sorted(names)) or "none", 200)
        raise ContractViolationError(
            f"The stage says that {' and '.join(map(repr, unknown))} of its tasks' parameters is an input, and no task "
            f"has a parameter of that name. They have: {there}. Mend inputs= of the stage.",
            code="GF123",
        )
    return found


def outputs_of(result: str, patterns: Sequence[str]) -> list[str] | None:
    """The files that a task's *result* (JSON text) tells by these names; None where it does not tell one of them."""
    try:
        value = from_json(result)
    except (ValueError, TypeError):  # another program has changed it
        return None
    value = value.get("result", value) if isinstance(value, dict) else value
    used, files = set[str](), list[str]()
    for name, leaf in leaves(value):
        if meant := [pattern for pattern in patterns if fnmatchcase(name, pattern)]:
            used.update(meant)
            if isinstance(leaf, str):
                files.append(leaf)
            elif leaf is not None and leaf not in ([], {}):
                return None
    return files if used.issuperset(patterns) else None


def saved_in(result: str) -> list[str]:
    """The files that references in a task's *result* (JSON text) name."""
    return [] if SAVED not in result else [ref["path"] for ref in _references(from_json(result))]


def _references(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and SAVED in value and isinstance(value.get("path"), str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _references(part)


def are_as_left(files: Iterable[str], ended_at: float) -> bool:
    """Whether *files* are there, and have not changed since the task that made them ended."""
    try:
        times = [os.stat(path) for path in files]
    except (OSError, ValueError):
        return False
    return all(max(about.st_mtime, about.st_ctime) <= ended_at for about in times)
