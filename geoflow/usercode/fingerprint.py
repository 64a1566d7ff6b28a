"""What tells two versions of a user's code apart: its meaning, not its layout, comments or docstrings.

A function stands for itself and for what it uses of the user's own: helpers, classes, constants. What is installed, and
Python itself, count by name alone. Functions of a file count as the file has them now, which is what a worker imports.
"""

from __future__ import annotations

import ast
import copy
import dis
import functools
import hashlib
import inspect
import os
import pickle
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Set
from typing import Any, TypeVar, get_args

from geoflow.usercode.origin import PACKAGE, is_users
from geoflow.usercode.references import closure_of, names, wrapped_by
from geoflow.usercode.sources import definition, own, parsed, source_of, syntax_of, text_in

_PLAIN = (str, int, float, complex, bytes, bool, type(None), type(Ellipsis))
_LOOKS_UP = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def fingerprint(target: Any) -> str:
    """Twelve hex digits that stay the same for as long as *target* means the same."""
    reader = _Reader()
    reader.read(target)
    return hashlib.sha256("\n".join(reader.parts).encode(errors="backslashreplace")).hexdigest()[:12]


def text_of(target: Any) -> str:
    """The text of what `fingerprint` looks at, as far as it has one: functions, classes and constants of the user's."""
    reader = _Reader()
    reader.read(target)
    texts = dict[str, None]()
    for key, value in list(reader.seen.items()):
        if isinstance(value, types.FunctionType | type):
            path = _file_of(value) if isinstance(value, type) else value.__code__.co_filename
            # A class of a notebook has no file.
            texts[(source_of(value) if path is None or is_users(path) else None) or ""] = None
        elif isinstance(value, ast.stmt):
            texts[f"{ast.unparse(value)}\n"] = None
        elif isinstance(key, tuple) and isinstance(value, _PLAIN) and value is not None:  # what is built in is None too
            texts[f"{key[1]} = {value!r}\n"] = None
    return "\n".join(text for text in texts if text)


class _Reader:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.seen: dict[Any, Any] = {}  # the values too, lest their ids be given to others

    def read(self, value: Any) -> None:
        """Add what *value* is, and what it depends on, unless that was done."""
        if isinstance(value, _PLAIN):
            self.parts.append(repr(value))
            return
        if id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if hasattr(value, "__fingerprint__"):
            self.read_all(value.__fingerprint__())
        elif (parts := wrapped_by(value)) is not None:
            self.read_all(parts)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, list | tuple):
            self.parts.append(f"{type(value).__name__} {len(value)}")
            self.read_all(value)
        elif isinstance(value, set | frozenset):
            self.read_all(sorted(value, key=repr))
        elif isinstance(value, dict):
            self.parts.append(f"dict {len(value)}")
            self.read_all(part for item in value.items() for part in item)
        elif isinstance(value, types.ModuleType):
            self.parts.append(value.__name__)
        elif callable(value) and hasattr(value, "__wrapped__"):  # by functools.cache, for one
            self.read(value.__wrapped__)
        elif args := get_args(value):  # list[Tile], Annotated[int, Field(ge=0)]
            self.parts.append(type(value).__name__)
            self.read_all([getattr(value, "__origin__", None), *args])
        else:
            self._object(value)

    def read_all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.read(value)

    def _function(self, function: types.FunctionType) -> None:
        code = function.__code__
        held = [value for name, value in closure_of(function).items() if name != "__class__"]
        if not is_users(code.co_filename):  # it may be around one of the user's
            self.parts.append(f"{function.__module__}.{code.co_qualname}")
            self.read_all([getattr(function, "__wrapped__", None), *held])
            return
        self.read_all(held)
        if syntax := syntax_of(function):
            self._syntax(syntax[1], function.__globals__, code.co_filename, {*code.co_freevars})
        else:  # it was made without a source: by exec, or by a library
            used = self._bytecode(code).difference(code.co_freevars)
            self._names(used, set(code.co_names), function.__globals__, code.co_filename)
            self.read_all([function.__defaults__, function.__kwdefaults__])

    def _bytecode(self, code: types.CodeType) -> set[str]:
        """Add what *code* does; the names that it looks up outside of itself."""
        self.parts.append(f"{code.co_name} {code.co_code.hex()} {code.co_names} {code.co_varnames}")
        instructions = dis.get_instructions(code)
        looked_up = {instruction.argval for instruction in instructions if instruction.opname in _LOOKS_UP}
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                looked_up |= self._bytecode(constant)
            else:
                self.read(constant)
        return looked_up

    def _class(self, cls: type) -> None:
        path = _file_of(cls)
        self.parts.append(f"{cls.__module__}.{cls.__qualname__}")
        if path is not None and not is_users(path):
            return
        if path and "<" not in cls.__qualname__ and (node := definition(path, cls.__qualname__)):
            self._syntax(node, vars(sys.modules[cls.__module__]), path)
        else:  # it is of a notebook, or of a function: what it holds
            held = {name: member for name, member in vars(cls).items() if not name.startswith(("__", "_abc", "model_"))}
            fields = getattr(cls, "model_fields", None)
            self.read_all([inspect.get_annotations(cls), fields, dict(sorted(held.items()))])
        self.read_all(cls.__bases__)

    def _syntax(
        self, node: ast.stmt | ast.Lambda, space: dict[str, Any], path: str, known: Set[str] = frozenset()
    ) -> None:
        """Add what *node* means, and what the names in it do there, less those that are *known*."""
        meaning, used, attributes = _meaning(node)
        self.parts.append(meaning)
        self._names(used - known, attributes, space, path)

    def _names(self, used: Set[str], attributes: Set[str], space: dict[str, Any], path: str) -> None:
        """Add what names stand for there: as the file has it now, if it is one's, else as it is."""
        assigned = _assigned(path)
        for name in sorted(used):
            key = id(space), name, frozenset(attributes)  # modules may import each other
            if key in self.seen:
                continue
            self.seen[key] = value = space.get(name)
            for statement in assigned.get(name, ()):
                if id(statement) not in self.seen:
                    self.seen[id(statement)] = statement
                    self._syntax(statement, space, path)
            if name in assigned or name not in space:
                continue
            if isinstance(value, types.ModuleType) and is_users(str(getattr(value, "__file__", None) or PACKAGE)):
                self._names(attributes & vars(value).keys(), attributes, vars(value), str(value.__file__))
            else:
                self.read(value)

    def _object(self, value: Any) -> None:
        kind = type(value)
        path = _file_of(kind)
        if (path is None or is_users(path)) and hasattr(value, "__dict__"):
            self.read_all([kind, vars(value)])
            return
        self.parts.append(f"{kind.__module__}.{kind.__qualname__}")
        try:
            self.parts.append(hashlib.sha256(pickle.dumps(value)).hexdigest())
        except Exception:  # whatever objects raise when they are pickled
            self.parts.append(re.sub(r" at 0x[0-9a-f]+", "", repr(value)))


def _file_of(cls: type) -> str | None:
    """The file of its module; None when it is of a notebook, or of a script, after which IPython may have gone on.

    What is built in is as if it were geoflow's.
    """
    module = None if cls.__module__ == "__main__" else sys.modules.get(cls.__module__)
    return getattr(module, "__file__", None) or (PACKAGE if module else None)


def _assigned(path: str) -> dict[str, list[ast.stmt]]:
    """The statements of a file that give its constants their values, by name. A cell's are looked up as values."""
    return _assignments(parsed(text_in(path))) if os.path.exists(path) else {}


Found = TypeVar("Found")


def _once_a_node(find: Callable[[Any], Found]) -> Callable[[Any], Found]:
    """Remember what *find* finds for as long as the tree is kept, and no longer: see `sources.parsed`."""
    known: weakref.WeakKeyDictionary[ast.AST, Found] = weakref.WeakKeyDictionary()

    @functools.wraps(find)
    def found(node: Any) -> Found:
        if node not in known:
            known[node] = find(node)
        return known[node]

    return found


@_once_a_node
def _assignments(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    statements: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for name in (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)):
                statements.setdefault(name, []).append(statement)
    return statements


@_once_a_node
def _meaning(node: ast.stmt | ast.Lambda) -> tuple[str, set[str], set[str]]:
    """*node* as text, the names from outside that it uses, and all attributes that it asks of anything."""
    node = copy.deepcopy(node)
    if isinstance(node, _Function):
        node.decorator_list = []  # they are around it as functions
    meaning = _shape(node)
    for part in ast.walk(node):
        match part:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                for variable in (inner for inner in own(part) if isinstance(inner, ast.AnnAssign)):
                    variable.annotation = ast.Constant(None)  # which Python never looks up
            case ast.AugAssign(target, _, value):
                part.value = ast.Tuple([target, value])  # what is added to is looked up as well
            case ast.Constant(str() | bytes() as value):
                part.value = value[:0]  # quoted types do not count, and some f-strings could not be written again
    used = {name for name in set().union(*names(ast.unparse(node))) if not name.startswith("__")}
    return meaning, used, {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}


def _shape(value: Any) -> str:
    """Syntax as text, without places and docstrings."""
    # Fields that are empty are left out: newer versions of Python have more of them.
    if isinstance(value, list):
        return f"({' '.join(_shape(part) for part in value if part not in (None, []))})"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = dict(ast.iter_fields(value))
    if isinstance(value, _Function | ast.ClassDef) and ast.get_docstring(value, clean=False) is not None:
        fields["body"] = value.body[1:] or [ast.Pass()]
    held = " ".join(f"{name}={_shape(part)}" for name, part in fields.items() if part not in (None, []))
    return f"{type(value).__name__}({held})"
