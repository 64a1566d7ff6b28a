"""What cloudpickle makes of user code, where that is not what arrives: files, names, caches, models of pydantic."""

from __future__ import annotations

import dataclasses
import functools
import io
import sys
import threading
import types
import typing
from typing import Any

import cloudpickle

from geoflow.usercode.importable import reference_of, unimportable


class OpenFileError(TypeError):
    """cloudpickle would send a file's contents in its place."""


class UnimportableError(TypeError):
    """cloudpickle would send a name that no other process can import."""


class CodePickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.met: list[Any] = []
        if "__mp_main__" in sys.modules:  # what __main__ is called in a process that multiprocessing started
            cloudpickle.register_pickle_by_value(sys.modules["__mp_main__"])

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, io.IOBase):
            raise OpenFileError("an open file")
        if obj is dataclasses.MISSING:  # which a dataclass of the notebook is full of, and knows by its identity
            return "MISSING"
        if isinstance(obj, typing.NewType):  # which pickle would look for by its name in the notebook
            return typing.NewType, (obj.__name__, obj.__supertype__)
        if isinstance(obj, functools._lru_cache_wrapper) and reference_of(obj) is None:  # and so with this
            return _cached, (obj.__wrapped__, *obj.cache_parameters().values())
        if isinstance(obj, types.CodeType):
            return types.CodeType, _code_arguments(obj)
        if isinstance(obj, type | types.FunctionType | types.ModuleType):
            self.met.append(obj)
            is_named = len(self.met) > 1 and getattr(obj, "__module__", None) in sys.modules  # others go by value
            if is_named and (why := unimportable(obj)) is not None:
                raise UnimportableError(f"{obj.__qualname__!r}, which {why}")
        if isinstance(obj, types.FunctionType):  # which may import by itself
            self.met += [sys.modules[name] for name in obj.__code__.co_names if name in sys.modules]
        reduced = super().reducer_override(obj)
        is_model = isinstance(obj, type) and isinstance(reduced, tuple) and len(reduced) == 6
        return _made_last(*reduced) if is_model and _MADE_LAST[0] in vars(obj) else reduced

    def codes(self) -> list[types.CodeType]:
        """Those of the functions that travelled, the outermost first."""
        functions = [obj for obj in self.met if isinstance(obj, types.FunctionType)]
        return [function.__code__ for function in functions if reference_of(function) is None]


_OF_CODE = (
    "argcount posonlyargcount kwonlyargcount nlocals stacksize flags code consts names varnames filename name qualname"
    " firstlineno linetable exceptiontable freevars cellvars"
)


def _code_arguments(code: types.CodeType) -> tuple[Any, ...]:
    """What makes *code* again. cloudpickle 3.1.3 leaves out its file, without which a traceback has no source line.

    Strings and tuples are copied: what happens to be shared would be written differently from one time to the next.
    """
    parts = {name: getattr(code, f"co_{name}") for name in _OF_CODE.split()}
    parts |= {name: (*parts[name],) for name in ("names", "varnames", "freevars", "cellvars")}
    parts |= {name: "".join(list(parts[name])) for name in ("filename", "name")}
    return tuple(parts.values())


# What pydantic has made of a model's schema. The schemas of models that refer to each other are made of each other: on
# their arrival, one would be made of another of which a part is still to come.
_MADE_LAST = ("__pydantic_validator__", "__pydantic_serializer__")
_arriving = threading.local()


def _made_last(make: Any, arguments: Any, state: Any, items: Any, pairs: Any, settle: Any) -> tuple[Any, ...]:
    """How a class is reduced whose validator is made once all of what it arrives with is there."""
    held, slots = dict(state[0]), state[1]
    made = [(name, held[name]) for name in _MADE_LAST if type(held.get(name)).__module__.startswith("pydantic_core")]
    last = [(name, *held.pop(name).__reduce__()[:2]) for name, _ in made]
    if last and "__pydantic_parent_namespace__" in held:  # all that was around it, which it has been made of by now
        held["__pydantic_parent_namespace__"] = None
    return make, arguments, (settle, (held, slots), last), items, pairs, _settle_but_last


def _settle_but_last(cls: type, state: Any) -> type:
    settle, held, last = state
    settle(cls, held)
    _arriving.last += [(cls, *made) for made in last]
    return cls


def arrived(value: bytes) -> Any:
    _arriving.last = []
    target = cloudpickle.loads(value)
    for cls, name, make, arguments in _arriving.last:
        setattr(cls, name, make(*arguments))
    return target


def _cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)
