"""Where things are written: the syntax of a function, and the file and line to show for it."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from geoflow.contract import DefinesJob, Handler
from geoflow.transport import innermost

Place = tuple[str, int]
_HERE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
_BUILT_IN = os.path.join(_HERE, "builtin", "")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True)
class Subject:
    """A job type that is checked: its class, its handlers as they were given, and the key it is registered under."""

    name: str
    job_class: Any
    handlers: Mapping[str, Handler]
    key: str | None = None
    maker: DefinesJob | None = None
    steps: Mapping[str, Any] = field(default_factory=dict)

    def function(self, kind: str, name: str) -> Any:
        """The user's own function: the ``"method"`` or the ``"handler"`` called *name*, or None."""
        step = self.steps.get(name)
        if step is not None:
            return step.function
        if kind == "handler":
            return self.handlers.get(name)
        if self.maker is not None:
            return getattr(self.job_class, "flow_finalize", None) if name == "finalize_job" else None
        return getattr(self.job_class, name, None)

    def where(self, kind: str, name: str) -> str | None:
        """Where it is written; ``("stage", "2")`` is the second dict of stages."""
        if kind == "stage":
            return self._stage(int(name))
        found = place_of(self.function(kind, name))
        if found is None or is_ours(found[0]):
            found = self._class()
        return found and shown(*found)

    def _class(self) -> Place | None:
        node = class_of(self.job_class)
        if node is not None:
            return node[0], node[1].lineno
        return next((found for step in self.steps.values() if (found := place_of(step.function))), None)

    def _stage(self, number: int) -> str | None:
        if steps := [step for step in self.steps.values() if step.number == number]:
            return (found := place_of(steps[0].function)) and shown(*found)
        node = class_of(self.job_class)
        for part in node[1].body if node else ():
            target = part.targets[0] if isinstance(part, ast.Assign) else getattr(part, "target", None)
            value = getattr(part, "value", None)
            if node and isinstance(target, ast.Name) and target.id == "stages" and value is not None:
                items = value.elts if isinstance(value, ast.List | ast.Tuple) else []
                return shown(node[0], items[number - 1].lineno if 0 < number <= len(items) else part.lineno)
        return self.where("class", "")


def is_ours(file: str) -> bool:
    """Whether *file* is the engine's own; the job types that are built in are the user's as any others."""
    return file.startswith(_HERE) and not file.startswith(_BUILT_IN)


def shown(file: str, line: int) -> str:
    """``file:line``: relative to the working folder where it is in it, and ``In[3]:5`` for a cell."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    with_name = getattr(getattr(shell, "compile", None), "format_code_name", None)
    if with_name is not None and (named := with_name(file)):
        return f"{named[1]}:{line}"
    relative = os.path.relpath(file) if os.path.isabs(file) else file
    return f"{file if relative.startswith('..') else relative}:{line}"


def plain_function(target: Any) -> Any:
    """The Python function inside decorators, partials and methods; None where there is none."""
    found = innermost(target)
    found = getattr(found, "__func__", found)
    if callable(found):
        found = inspect.unwrap(found)
    if not hasattr(found, "__code__") and callable(found):
        found = type(found).__call__
    return found if hasattr(found, "__code__") else None


def place_of(target: Any) -> Place | None:
    function = plain_function(target)
    if function is None:
        return None
    node = node_of(function)
    return function.__code__.co_filename, node.lineno if node else function.__code__.co_firstlineno


def node_of(target: Any) -> ast.FunctionDef | None:
    """The syntax of the function *target*, as its file or cell has it."""
    function = plain_function(target)
    if function is None:
        return None
    code = function.__code__
    for node in ast.walk(tree_of(code.co_filename)):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if code.co_firstlineno in (first, node.lineno):
                return node
    return None


def class_of(job_class: Any) -> tuple[str, ast.ClassDef] | None:
    """The file of a class, or of that of an object, and its syntax there."""
    job_class = job_class if isinstance(job_class, type) else type(job_class)
    files = [getattr(sys.modules.get(getattr(job_class, "__module__", "")), "__file__", None)]
    files += [place[0] for member in vars(job_class).values() if (place := place_of(member))]
    for file in filter(None, files):
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ClassDef) and node.name == getattr(job_class, "__name__", ""):
                return file, node
    return None


def tree_of(file: str) -> ast.Module:
    if os.path.exists(file):  # what is only in memory must stay there
        linecache.checkcache(file)
    return _parsed("".join(linecache.getlines(file)))


@functools.lru_cache(32)
def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):  # the file was changed since it was imported
        return ast.Module([], [])


def own(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a function, less what is in the functions and classes inside it; in the order it is written."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _SCOPES):
            yield child
            yield from own(child)
