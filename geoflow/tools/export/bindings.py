"""What names mean where a definition is written, and the statements that gave them their values."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import re
import symtable
import sys
import textwrap
import types
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from geoflow.usercode.references import closure_of
from geoflow.usercode.sources import files_of, parsed, text_in

Scope = Mapping[str, Any]


def scope_of(value: Any, scope: Scope) -> Scope:
    """What the names in the source of a function or class mean; *scope* is where it was found."""
    if isinstance(value, types.FunctionType):
        return ChainMap(closure_of(value), value.__globals__)
    same = scope.get("__name__") == value.__module__
    return scope if same else vars(sys.modules.get(value.__module__, types.ModuleType("")))


def of_around(text: str) -> set[str]:
    """The ``nonlocal`` names of the definition *text* whose variables are of a function around it."""
    outer = {name for node in ast.walk(parsed(text)) if isinstance(node, ast.Nonlocal) for name in node.names}
    if not outer:
        return outer
    # As it was written: inside a function that has them all.
    around = f"def around():\n {' = '.join(sorted(outer))} = None\n{textwrap.indent(text, ' ')}"

    def look(table: symtable.SymbolTable) -> set[str]:
        seen: set[str] = set()
        for inner in table.get_children():
            symbols = inner.get_symbols()
            passed = {symbol.get_name() for symbol in symbols if symbol.is_free()}
            seen |= {symbol.get_name() for symbol in symbols if symbol.is_nonlocal()} | (look(inner) & passed)
        return seen

    return look(symtable.symtable(around, "<around>", "exec").get_children()[0])


def assigned(name: str, value: Any, scope: Scope, *, calls: bool = True) -> str | None:
    """The expression that *value* was made by, where ``name = expression`` is found, without *calls* unless allowed."""
    for text in map(text_in, files_of(scope)):
        for node in reversed(parsed(text).body):
            match node:
                case ast.Assign([ast.Name(bound)], made) | ast.AnnAssign(ast.Name(bound), _, made) if bound == name:
                    if made is None or (not calls and any(isinstance(part, ast.Call) for part in ast.walk(made))):
                        return None
                    expression = ast.get_source_segment(text, made)
                    with contextlib.suppress(Exception):  # the expression of something that is gone
                        if expression and _shown(eval(expression, dict(scope))) == _shown(value):
                            return expression
    return None


def statement_of(name: str, scope: Scope) -> str | None:
    """The expression that *name* was given last, whatever it means by now."""
    for text in map(text_in, files_of(scope)):
        for node in reversed(parsed(text).body):
            match node:
                case ast.Assign([ast.Name(bound)], made) | ast.AnnAssign(ast.Name(bound), _, made) if bound == name:
                    return None if made is None else ast.get_source_segment(text, made)
    return None


def _shown(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def import_of(name: str, value: Any, scope: Scope) -> list[str]:
    """The statements that bind *name* to *value*, as they are written; else one that does so, if there is one."""
    statements = set()
    for node in (node for file in files_of(scope) for node in _imports(text_in(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.name if alias.asname else alias.name.partition(".")[0]
                if (alias.asname or bound) == name and sys.modules.get(bound) is value:
                    statements.add(f"import {ast.unparse(alias)}")
        elif isinstance(node, ast.ImportFrom):
            package = scope.get("__package__") or "__main__"
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                if (alias.asname or alias.name) == name and _in_module(origin, alias.name) is value:
                    statements.add(f"from {origin} import {ast.unparse(alias)}")
    if not statements and isinstance(value, types.ModuleType):
        return [f"import {_as(value.__name__, name)}"]
    module, own = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if not statements and callable(value) and _in_module(str(module), str(own)) is value:
        return [f"from {module} import {_as(str(own), name)}"]
    return sorted(statements)


@functools.lru_cache(64)
def _imports(text: str) -> list[ast.Import | ast.ImportFrom]:
    """The statements that import in *text*: it is asked for each name, and a file has ten thousand nodes."""
    return [node for node in ast.walk(parsed(text)) if isinstance(node, ast.Import | ast.ImportFrom)]


def _as(own: str, name: str) -> str:
    return own if own == name else f"{own} as {name}"


def _in_module(module: str, name: str) -> Any:
    return vars(sys.modules[module]).get(name) if module in sys.modules else None
