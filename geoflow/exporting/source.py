"""Where definitions are written, in files and cells, and which names of others they use."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import inspect
import linecache
import re
import symtable
import sys
import textwrap
import types
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Scope = Mapping[str, Any]


def scope_of(value: Any, scope: Scope) -> Scope:
    """What the names in the source of a function or class mean; *scope* is where it was found."""
    if isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        closure = {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}
        return ChainMap(closure, value.__globals__) if closure else value.__globals__
    same = scope.get("__name__") == value.__module__
    return scope if same else vars(sys.modules.get(value.__module__, types.ModuleType("")))


def source_of(value: Any, scope: Scope) -> str | None:
    """The source of a function or class, decorators included; None where it cannot be found."""
    with contextlib.suppress(OSError, TypeError, SyntaxError, ValueError):
        text = textwrap.dedent(inspect.getsource(value))
        (found,) = ast.parse(text).body
        if isinstance(found, ast.FunctionDef | ast.ClassDef) and found.name == value.__name__:
            return text.rstrip() + "\n"
    if not isinstance(value, type):
        return None
    for text in _texts(scope):
        for node in _parsed(text).body:
            if isinstance(node, ast.ClassDef) and node.name == value.__name__ and _is_of(value, node):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                return "".join(text.splitlines(keepends=True)[first - 1 : node.end_lineno]).rstrip() + "\n"
    return None


def _is_of(kind: type, node: ast.ClassDef) -> bool:
    """Whether *node* has the fields of *kind*: its cell may have been changed, and have failed when it was run."""
    fields = {ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)}
    return fields == inspect.get_annotations(kind).keys()


def _texts(scope: Scope) -> Iterator[str]:
    """The file of a module; of a notebook the cells, the newest first."""
    path = str(scope.get("__file__"))
    if path.endswith(".py") and Path(path).is_file():
        yield Path(path).read_text("utf-8")
    if scope.get("__name__") == "__main__":
        for entry in reversed(list(linecache.cache.values())):
            if len(entry) == 4 and entry[1] is None:  # of no file
                yield "".join(entry[2])


@functools.lru_cache(1000)
def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


def assigned(name: str, value: Any, scope: Scope, *, calls: bool = True) -> str | None:
    """The expression that *value* was made by, where ``name = expression`` is found, without *calls* unless allowed."""
    for text in _texts(scope):
        for node in reversed(_parsed(text).body):
            match node:
                case ast.Assign([ast.Name(bound)], made) | ast.AnnAssign(ast.Name(bound), _, made) if bound == name:
                    if made is None or (not calls and any(isinstance(part, ast.Call) for part in ast.walk(made))):
                        return None
                    found = ast.get_source_segment(text, made)
                    with contextlib.suppress(Exception):  # the expression of something that is gone
                        if found and _shown(eval(found, dict(scope))) == _shown(value):
                            return found
    return None


def _shown(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def import_of(name: str, value: Any, scope: Scope) -> list[str]:
    """The statements that bind *name* to *value*, as they are written; else one that does so, if there is one."""
    found = set()
    for node in (node for text in _texts(scope) for node in ast.walk(_parsed(text))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.name if alias.asname else alias.name.partition(".")[0]
                if (alias.asname or bound) == name and sys.modules.get(bound) is value:
                    found.add(f"import {ast.unparse(alias)}")
        elif isinstance(node, ast.ImportFrom):
            package = scope.get("__package__") or "__main__"
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                if (alias.asname or alias.name) == name and _in_module(origin, alias.name) is value:
                    found.add(f"from {origin} import {ast.unparse(alias)}")
    if not found and isinstance(value, types.ModuleType):
        return [f"import {_as(value.__name__, name)}"]
    module, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if not found and callable(value) and _in_module(str(module), str(own)) is value:
        return [f"from {module} import {_as(str(own), name)}"]
    return sorted(found)


def _as(own: str, name: str) -> str:
    return own if own == name else f"{own} as {name}"


def _in_module(module: str, name: str) -> Any:
    return vars(sys.modules[module]).get(name) if module in sys.modules else None


def names_in(text: str) -> tuple[set[str], set[str]]:
    """The names of others that *text* uses when it is run, and when what it defines is called."""
    at_once: set[str] = set()
    later: set[str] = set()

    def look(table: symtable.SymbolTable, into: set[str], *, top: bool = False) -> None:
        into |= {one.get_name() for one in table.get_symbols() if one.is_referenced() and (top or one.is_global())}
        for child in table.get_children():
            look(child, into if child.get_type() == "class" else later)

    look(symtable.symtable(text, "<export>", "exec"), at_once, top=True)
    for node in ast.walk(ast.parse(text)):
        for annotation in quoted_annotations(node):
            later |= names_in(str(annotation.value))[0]
    return at_once, later


def quoted_annotations(node: ast.AST) -> list[ast.Constant]:
    """The annotations of *node* that are text."""
    found = (getattr(node, "annotation", None), getattr(node, "returns", None))
    return [one for one in found if isinstance(one, ast.Constant) and isinstance(one.value, str)]
