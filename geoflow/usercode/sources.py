"""The source of user code: a function's or class's own text, and its syntax tree."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import sys
import textwrap
import threading
import tokenize
import types
from collections.abc import Iterator, Mapping
from typing import Any

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda


def files_of(space: Mapping[str, Any]) -> Iterator[str]:
    """Where the names of a module are written: its file; of a notebook all cells as well, the newest first."""
    if file := space.get("__file__"):
        yield file
    if space.get("__name__") == "__main__":
        in_memory = [path for path, entry in linecache.cache.items() if len(entry) == 4 and entry[1] is None]
        yield from reversed(in_memory)


def text_in(path: str) -> str:
    """What the file has now, or had the cell."""
    linecache.checkcache(path)
    return "".join(linecache.getlines(path))


def parsed(text: str) -> ast.Module:
    """The tree of *text*; an empty one when it is not Python, such as a cell with magics."""
    with _parsing:
        tree = _trees.pop(text, None)
        if tree is None:
            try:
                tree = ast.parse(text)
            except (SyntaxError, ValueError):
                tree = ast.Module([], [])
            kept = sum(map(len, _trees))
            for old in list(_trees)[:-FEWEST_TREES]:
                if kept <= MOST_CHARACTERS:
                    break
                kept -= len(old)
                del _trees[old]
        _trees[text] = tree
        return tree


# The trees of the texts that were last asked for. A tree takes seventy times the memory of its text, and each run of a
# cell brings another one.
FEWEST_TREES, MOST_CHARACTERS = 16, 300_000
_trees: dict[str, ast.Module] = {}
_parsing = threading.Lock()


def own(node: ast.AST) -> Iterator[ast.AST]:
    """What is in *node* but not in the functions and classes inside it, in the order it is written."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, Definition):
            yield from own(child)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Those of what is its `own`, in the same order: few among many expressions, and all with names but lambdas."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            yield child
            if not isinstance(child, Definition):
                yield from _statements(child)


def definition(path: str, qualname: str, line: int = 0) -> Definition | None:
    """What is so called in a file or cell.

    With the *line* where it began when it ran: of a file what is called so today, if it has moved; in a cell, and
    inside a function, what begins there, as there may be many.
    """
    tree = parsed(text_in(path))
    if line and ("<" in qualname or not os.path.exists(path)):
        named = _named(ast.walk(tree), qualname.rpartition(".")[2])
        here = [node for node in named if _first_line(node) == line]
        return here[0] if len(here) == 1 else None
    nodes: list[Any] = [tree]
    for name in qualname.replace("<locals>.", "").split("."):
        nodes = [node for outer in nodes for node in _named(_statements(outer), name)]
    here = [node for node in nodes if _first_line(node) == line]
    return (here or nodes or [None])[-1]


def _named(nodes: Iterator[ast.AST], name: str) -> list[Definition]:
    return [node for node in nodes if isinstance(node, Definition) and getattr(node, "name", "<lambda>") == name]


def _first_line(node: Definition) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min(part.lineno for part in [node, *decorators])


def syntax_of(value: types.FunctionType | type) -> tuple[str, Definition] | None:
    """The file or cell of a function or class, and its syntax there; None where it cannot be found."""
    if not isinstance(value, type):
        code = value.__code__
        where = code.co_filename, code.co_qualname, code.co_firstlineno
        node = definition(*where) or _in_a_document(*where)
        return (code.co_filename, node) if node else None
    space = vars(sys.modules.get(value.__module__, types.ModuleType("")))
    for path in [*_files_of_methods(value), *files_of(space)]:
        node = definition(path, value.__qualname__)
        if isinstance(node, ast.ClassDef) and (os.path.exists(path) or _has_fields_of(value, node)):
            return path, node
    return None


def _in_a_document(path: str, qualname: str, line: int) -> Definition | None:
    """A function in a file that is not Python as a whole: one with blocks of code in it."""
    if parsed(text_in(path)).body or not (lines := linecache.getlines(path)[line - 1 :]):
        return None
    try:
        block = textwrap.dedent("".join(inspect.getblock(lines)))
    except (SyntaxError, tokenize.TokenError):  # a file that is being edited
        return None
    named = _named(ast.walk(parsed("\n" * (line - 1) + block)), qualname.rpartition(".")[2])
    return named[0] if len(named) == 1 else None


def _files_of_methods(cls: type) -> Iterator[str]:
    for member in vars(cls).values():
        code = getattr(inspect.unwrap(getattr(member, "__func__", member)), "__code__", None)
        if code is not None and code.co_qualname.startswith(f"{cls.__qualname__}."):
            yield code.co_filename


def _has_fields_of(cls: type, node: ast.ClassDef) -> bool:
    """Its cell may have been changed, and have failed when it was run."""
    fields = {ast.unparse(statement.target) for statement in node.body if isinstance(statement, ast.AnnAssign)}
    return fields == inspect.get_annotations(cls).keys()


def source_of(value: types.FunctionType | type) -> str | None:
    """The text of a function or class, decorators included; None where it cannot be found under its name."""
    if (syntax := syntax_of(value)) is None or getattr(syntax[1], "name", None) != value.__name__:
        return None
    block = inspect.getblock(linecache.getlines(syntax[0])[_first_line(syntax[1]) - 1 :])
    text = textwrap.dedent("".join(block)).rstrip() + "\n"
    return text if parsed(text).body else None  # a text in it may keep it from standing alone
