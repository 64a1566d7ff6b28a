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
import linecache
import os
import pickle
import re
import sys
import types
from collections.abc import Iterable
from typing import Any, get_args

from geoflow.origin import PACKAGE, is_users

_PLAIN = (str, int, float, complex, bytes, bool, type(None), type(Ellipsis))
_LOOKS_UP = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda


def fingerprint(target: Any) -> str:
    """Twelve hex digits that stay the same for as long as *target* means the same."""
    reader = _Reader()
    reader.read(target)
    return hashlib.sha256("\n".join(reader.parts).encode(errors="backslashreplace")).hexdigest()[:12]


class _Reader:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self._seen: dict[int, Any] = {}  # the values too, lest their ids be given to others

    def read(self, value: Any) -> None:
        """Add what *value* is, and what it depends on, unless that was done."""
        if isinstance(value, _PLAIN):
            self.parts.append(repr(value))
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if hasattr(value, "__fingerprint__"):
            self.read_all(value.__fingerprint__())
        elif isinstance(value, functools.partial):
            self.read_all([value.func, value.args, value.keywords])
        elif isinstance(value, types.MethodType):
            self.read_all([value.__self__, value.__func__])
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, staticmethod | classmethod):
            self.read(value.__func__)
        elif isinstance(value, property):
            self.read_all([value.fget, value.fset])
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
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
        if not is_users(code.co_filename):  # it may be around one of the user's
            self.parts.append(f"{function.__module__}.{code.co_qualname}")
            self.read_all([getattr(function, "__wrapped__", None), *_contents(cells.values())])
            return
        node = _definition(code.co_filename, code.co_qualname, code.co_name, code.co_firstlineno)
        if node is None:  # it was made without a source: by exec, or by a library
            self._bytecode(code)
            names = {name: set(code.co_names) for name in _loaded(code).union(code.co_freevars)}
            self.read_all([function.__defaults__, function.__kwdefaults__])
        else:
            self.parts.append(_meaning(node))
            names = _names(node)
        for name, attributes in sorted(names.items()):
            if name in cells:
                self.read_all(_contents([cells[name]]))
            else:
                self._name(name, attributes, function.__globals__, code.co_filename)

    def _bytecode(self, code: types.CodeType) -> None:
        self.parts.append(f"{code.co_name} {code.co_code.hex()} {code.co_names} {code.co_varnames}")
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._bytecode(constant)
            else:
                self.read(constant)

    def _class(self, cls: type) -> None:
        path = _file_of(cls)
        self.parts.append(f"{cls.__module__}.{cls.__qualname__}")
        if path is not None and not is_users(path):
            return
        node = _definition(path, cls.__qualname__) if path else None
        if node is None:
            self._made_class(cls)
        else:
            self.parts.append(_meaning(node))
            for name, attributes in sorted(_names(node).items()):
                self._name(name, attributes, vars(sys.modules[cls.__module__]), str(path))
        self.read_all(cls.__bases__)

    def _made_class(self, cls: type) -> None:
        """A class of a notebook, whose source nobody can find: what it holds."""
        fields = getattr(cls, "model_fields", None)
        held = {name: member for name, member in vars(cls).items() if not name.startswith(("__", "_abc", "model_"))}
        self.read_all([inspect.get_annotations(cls), fields, dict(sorted(held.items()))])

    def _name(self, name: str, attributes: set[str], space: dict[str, Any], path: str) -> None:
        """What a name stands for there: as the file has it now, if it is one's, else as it is."""
        statements = _assigned(path).get(name, [])
        for statement in statements:
            if id(statement) not in self._seen:
                self._seen[id(statement)] = statement
                self.parts.append(_meaning(statement))
                for other, others in sorted(_names(statement).items()):
                    self._name(other, others, space, path)
        value = space.get(name)
        if statements or name not in space:
            return
        if isinstance(value, types.ModuleType) and is_users(str(getattr(value, "__file__", None) or PACKAGE)):
            for attribute in sorted(attributes & set(vars(value))):
                self._name(attribute, attributes, vars(value), str(value.__file__))
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


def _contents(cells: Iterable[types.CellType]) -> Iterable[Any]:
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:  # it has no value yet
            continue


@functools.lru_cache(256)
def _parsed(text: str) -> ast.Module:
    """The tree of *text*, without docstrings; an empty one when it is not Python, such as a cell with magics."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node) is not None
        ):
            node.body[:1] = [] if node.body[1:] else [ast.Pass()]
    return tree


def _tree(path: str) -> ast.Module:
    linecache.checkcache(path)
    return _parsed("".join(linecache.getlines(path)))


def _definition(path: str, qualname: str, name: str = "", line: int = 0) -> _Definition | None:
    """Where the file has it: by its name in a file of today, by its line in a cell, of which there may be many."""
    tree = _tree(path)
    if os.path.exists(path) and "<" not in qualname:
        body: list[ast.stmt] = tree.body
        found = None
        for part in qualname.split("."):
            named = [node for node in body if isinstance(node, _Definition) and getattr(node, "name", None) == part]
            found = named[-1] if named else None
            body = found.body if found is not None else []
        return found
    here = [
        node
        for node in ast.walk(tree)
        if isinstance(node, _Definition)
        and getattr(node, "name", "<lambda>") == name
        and line == min(one.lineno for one in [node, *getattr(node, "decorator_list", [])])
    ]
    return here[0] if len(here) == 1 else None


def _assigned(path: str) -> dict[str, list[ast.stmt]]:
    """The statements of a file that give its constants their values, by name. A cell's are looked up as values."""
    return _assignments(_tree(path)) if os.path.exists(path) else {}


@functools.lru_cache(256)
def _assignments(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for name in (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)):
                found.setdefault(name, []).append(statement)
    return found


def _names(node: ast.stmt | ast.Lambda) -> dict[str, set[str]]:
    """The names from outside that *node* uses, each with all attributes that are asked of anything in it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node = copy.copy(node)
        node.decorator_list = []
    attributes = {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
    alone = ast.Module([ast.Expr(node) if isinstance(node, ast.Lambda) else node], [])
    try:
        found = _loaded(compile(ast.fix_missing_locations(alone), "<alone>", "exec", dont_inherit=True))
    except SyntaxError:  # a nonlocal name, which there is none of when it stands alone
        found = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return {name: attributes for name in found if not name.startswith("__")}


def _loaded(code: types.CodeType) -> set[str]:
    """The names that are looked up outside of *code*: parameters and what it gives a value itself are not."""
    found = {one.argval for one in dis.get_instructions(code) if one.opname in _LOOKS_UP}
    return found.union(*(_loaded(inner) for inner in code.co_consts if isinstance(inner, types.CodeType)))


def _meaning(node: ast.AST) -> str:
    """*node* as text, without places, and without the decorators of a function, which are around it as functions."""
    skipped = "decorator_list" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ""
    return _shape([(name, value) for name, value in ast.iter_fields(node) if name != skipped])


def _shape(value: Any) -> str:
    # Fields that are empty are left out: newer versions of Python have more of them.
    if isinstance(value, ast.AST):
        return f"{type(value).__name__}{_shape(list(ast.iter_fields(value)))}"
    if isinstance(value, list):
        return f"({' '.join(_shape(part) for part in value if part not in (None, []))})"
    if isinstance(value, tuple):
        name, held = value
        return "" if held is None or held == [] else f"{name}={_shape(held)}"
    return repr(value)
