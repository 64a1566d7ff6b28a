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
import sysconfig
import textwrap
import types
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Scope = Mapping[str, Any]
_INSTALLED = re.compile(rf"{re.escape(sysconfig.get_path('stdlib'))}|.*(site|dist)-packages")
_FIELD = ("default", "default_factory", "alias", "validation_alias", "metadata", "description")
_TOLD = ("__doc__", "__annotations__", "model_config", "__dataclass_params__")


def scope_of(value: Any, scope: Scope) -> Scope:
    """What the names in the source of a function or class mean; *scope* is where it was found."""
    if isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        closure = {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}
        return ChainMap(closure, value.__globals__) if closure else value.__globals__
    same = scope.get("__name__") == value.__module__
    return scope if same else vars(sys.modules.get(value.__module__, types.ModuleType("")))


def is_users(module: types.ModuleType) -> bool:
    """Whether a module is neither of the standard library nor installed."""
    path = getattr(module, "__file__", None)
    return path is not None and not _INSTALLED.match(path)


def source_of(value: Any, scope: Scope) -> str | None:
    """The source of a function or class, decorators included; None where it cannot be found."""
    try:
        text = textwrap.dedent(inspect.getsource(value))
        (found,) = ast.parse(text).body
    except (OSError, TypeError, SyntaxError, ValueError):
        found = None
    if isinstance(found, ast.FunctionDef | ast.ClassDef) and found.name == value.__name__:
        return text.rstrip() + "\n"
    if isinstance(value, type):
        for text in _texts(scope):
            for node in _parsed(text).body:
                if isinstance(node, ast.ClassDef) and node.name == value.__name__:
                    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                    part = "".join(text.splitlines(keepends=True)[first - 1 : node.end_lineno])
                    if _makes(part, value, scope):
                        return part.rstrip() + "\n"
    return None


def _makes(text: str, wanted: type, scope: Scope) -> bool:
    """Whether *text* makes a class that is like *wanted*: its cell may have been changed and not been run."""
    names = dict(scope)
    try:
        exec(compile(text, "<export>", "exec", dont_inherit=True), names)  # what the user ran in this process before
        return bool(_outline(names[wanted.__name__]) == _outline(wanted))
    except Exception:  # the cell of something else
        return False


def _outline(value: Any) -> Any:
    """What tells two versions of a class, a function or a value apart."""
    if isinstance(value, type):
        about = {name: held for name, held in vars(value).items() if name[:2] != "__" or name in _TOLD}
        fields = getattr(value, "model_fields", None) or getattr(value, "__dataclass_fields__", None) or {}
        of_fields = [_outline([getattr(field, name, None) for name in _FIELD]) for field in fields.values()]
        members = {name: repr(held) if isinstance(held, type) else _outline(held) for name, held in about.items()}
        return members, list(fields), of_fields
    value = getattr(value, "__func__", value)
    code = value if isinstance(value, types.CodeType) else getattr(value, "__code__", None)
    if code is not None:
        return code.co_code, code.co_names, [_outline(constant) for constant in code.co_consts]
    return re.sub(r"\b0x[0-9a-f]+", "", repr(value))


def _texts(scope: Scope) -> Iterator[str]:
    """The file of a module; of a notebook the cells, the newest first."""
    path = scope.get("__file__")
    if path and str(path).endswith(".py") and Path(path).is_file():
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
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if [getattr(one, "id", None) for one in targets] == [name] and isinstance(node, ast.Assign | ast.AnnAssign):
                found = ast.get_source_segment(text, node.value) if node.value else None
                if not calls and any(isinstance(part, ast.Call) for part in ast.walk(node)):
                    return None
                with contextlib.suppress(Exception):  # the expression of something that is gone
                    if found and _outline(eval(found, dict(scope))) == _outline(value):
                        return found
    return None


def import_of(name: str, value: Any, scope: Scope) -> list[str]:
    """The statements that bind *name* to *value*, as they are written; else one that does so, if there is one."""
    found = [
        f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
        for node in _nodes(scope, ast.Import)
        for alias in node.names
        if (alias.asname or alias.name.partition(".")[0]) == name
        and sys.modules.get(alias.name if alias.asname else name) is value
    ]
    for node in _nodes(scope, ast.ImportFrom):
        dots, package = "." * node.level, scope.get("__package__") or None
        origin = importlib.util.resolve_name(dots + (node.module or ""), package) if package or not dots else ""
        for alias in node.names:
            if (alias.asname or alias.name) == name and _in_module(origin, alias.name) is value:
                found.append(f"from {origin} import {alias.name}" + (f" as {name}" if alias.asname else ""))
    if found:
        return sorted(set(found))
    if isinstance(value, types.ModuleType):
        return [f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}")]
    module, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if isinstance(module, str) and isinstance(own, str) and callable(value) and _in_module(module, own) is value:
        parts = module.split(".")
        shorter = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        nearest = next(each for each in shorter if _in_module(each, own) is value)
        return [f"from {nearest} import {own}" + ("" if own == name else f" as {name}")]
    return []


def _nodes(scope: Scope, kind: type[Any]) -> list[Any]:
    return [node for text in _texts(scope) for node in ast.walk(_parsed(text)) if isinstance(node, kind)]


def _in_module(module: str, name: str) -> Any:
    return vars(sys.modules[module]).get(name) if module in sys.modules else None


def names_in(text: str) -> tuple[set[str], set[str], set[str]]:
    """The names of others that *text* uses when it is run, and when what it defines is called; what that assigns."""
    at_once: set[str] = set()
    later: set[str] = set()
    changed: set[str] = set()

    def look(table: symtable.SymbolTable, into: set[str], *, top: bool = False) -> None:
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (top or symbol.is_global()):
                into.add(symbol.get_name())
            if not top and symbol.is_declared_global() and symbol.is_assigned():
                changed.add(symbol.get_name())
        for child in table.get_children():
            look(child, into if child.get_type() == "class" else later)

    look(symtable.symtable(text, "<export>", "exec"), at_once, top=True)
    for node in ast.walk(ast.parse(text)):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                later |= {one.id for one in ast.walk(ast.parse(annotation.value)) if isinstance(one, ast.Name)}
    return at_once, later, changed
