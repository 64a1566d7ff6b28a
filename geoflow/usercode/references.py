"""What a function or class uses: the names in its text, and the values that it holds on to by names of its own.

Whoever goes from user code to what that needs begins here: what tells versions apart, what travels, what is exported.
"""

from __future__ import annotations

import ast
import copy
import functools
import re
import symtable
import types
from collections.abc import Iterator
from typing import Any

from geoflow.usercode.sources import parsed

# What is around functions, and where it has them.
_AROUND: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (functools.partial, ("func", "args", "keywords")),
    (types.MethodType, ("__self__", "__func__")),
    (staticmethod | classmethod, ("__func__",)),
    (property, ("fget", "fset")),
)


def wrapped_by(value: Any) -> list[Any] | None:
    """The parts of something of Python's that is around a function, a partial for one; None of anything else."""
    names = next((names for kind, names in _AROUND if isinstance(value, kind)), None)
    return None if names is None else [getattr(value, name) for name in names]


def innermost(target: Any) -> Any:
    """The function inside a `functools.partial`, or *target* itself."""
    while isinstance(target, functools.partial):
        target = target.func
    return target


def closure_of(function: types.FunctionType) -> dict[str, Any]:
    """What the variables of functions around it, which *function* uses, hold by now."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}


def variables_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables that *function* uses, and its defaults, by name: those of its inner functions too."""
    yield from closure_of(function).items()
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    yield from zip(reversed(arguments), reversed(function.__defaults__ or ()), strict=False)
    yield from (function.__kwdefaults__ or {}).items()
    codes = [function.__code__]
    while codes:  # with the comprehensions and functions inside it
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        yield from ((name, function.__globals__[name]) for name in code.co_names if name in function.__globals__)


@functools.lru_cache(500)
def names(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names of others that *text* uses when it is run, and when what it defines is called or read."""
    at_once: set[str] = set()
    later: set[str] = set()

    def look(table: symtable.SymbolTable, into: set[str], *, top: bool = False) -> None:
        symbols = table.get_symbols()
        into |= {symbol.get_name() for symbol in symbols if symbol.is_referenced() and (top or symbol.is_global())}
        for child in table.get_children():
            at_that = child.get_type() == "class" or child.get_name() == "genexpr"
            look(child, into if at_that else later)

    spread = _without_comprehensions(text)
    try:
        table = symtable.symtable(spread, "<alone>", "exec")
    except SyntaxError:  # a nonlocal name is like a global one where what it is of is missing
        table = symtable.symtable(re.sub(r"\bnonlocal\b", "global", spread), "<alone>", "exec")
    look(table, at_once, top=True)
    for node in ast.walk(parsed(text)):
        later |= set().union(*(names(annotation.value)[0] for annotation in quoted_annotations(node)))
    return frozenset(at_once), frozenset(later)


class _AsGenerators(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> ast.AST:
        node = self.generic_visit(node)
        match node:
            case ast.ListComp(element, generators) | ast.SetComp(element, generators):
                return ast.GeneratorExp(element, generators)
            case ast.DictComp(key, value, generators):
                return ast.GeneratorExp(ast.Tuple([key, value], ast.Load()), generators)
        return node


def _without_comprehensions(text: str) -> str:
    """*text* with generators in their place, which have scopes of their own on every Python.

    Since 3.12 (PEP 709) a comprehension is a part of the function around it: a name of another one in there, or of the
    class body, hides one that is meant to be global.
    """
    tree = parsed(text)
    if not any(isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp) for node in ast.walk(tree)):
        return text
    return ast.unparse(_AsGenerators().visit(copy.deepcopy(tree)))


def quoted_annotations(node: ast.AST) -> list[Any]:
    """The annotations of *node* itself that are text with code in it."""
    both = (getattr(node, "annotation", None), getattr(node, "returns", None))
    texts = [each for each in both if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return [text for text in texts if parsed(str(text.value)).body]
