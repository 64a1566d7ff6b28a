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

from geoflow.checks.findings import Finding, finding
from geoflow.contract import DefinesJob, Handler
from geoflow.origin import is_ours
from geoflow.transport import innermost

Place = tuple[str, int]
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

    @property
    def known(self) -> Mapping[str, Handler]:
        """Its handlers, where they are a dict as they should be."""
        return self.handlers if isinstance(self.handlers, Mapping) else {}

    def found(self, code: str, what: str, kind: str = "class", name: str = "") -> Finding:
        """A finding about the ``"method"``, ``"handler"``, ``"stage"`` (by its number) or ``"class"``."""
        return finding(code, self.name, what, self.where(kind, name))

    def function(self, kind: str, name: str) -> Any:
        """The user's own function: the ``"method"`` or the ``"handler"`` called *name*, or None."""
        if name in self.steps:
            return self.steps[name].function
        if kind == "handler":
            return self.known.get(name)
        if self.maker is not None:
            name = {"finalize_job": "flow_finalize"}.get(name, "")
        return getattr(self.job_class, name, None)

    def where(self, kind: str, name: str) -> str | None:
        """Where it is written; ``("stage", "2")`` is the second dict of stages."""
        found = self._stage(int(name)) if kind == "stage" else place_of(self.function(kind, name))
        if found is None or is_ours(found[0]):
            in_class = class_of(self.job_class)
            steps = (place_of(step.function) for step in self.steps.values())
            found = (in_class[0], in_class[1].lineno) if in_class else next(filter(None, steps), None)
        return found and shown(*found)

    def _stage(self, number: int) -> Place | None:
        if steps := [step for step in self.steps.values() if step.number == number]:
            return place_of(steps[0].function)
        file, node = class_of(self.job_class) or ("", ast.Module([], []))
        for part in node.body:
            match part:
                case ast.Assign([ast.Name("stages")], value) | ast.AnnAssign(ast.Name("stages"), value=value):
                    dicts = getattr(value, "elts", ())[number - 1 : number]
                    return file, (dicts[0] if dicts else part).lineno
        return None


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
    found = inspect.unwrap(getattr(found, "__func__", found))
    if not hasattr(found, "__code__"):
        found = getattr(type(found), "__call__", None)  # noqa: B004
    return found if hasattr(found, "__code__") else None


def place_of(target: Any) -> Place | None:
    """The file of a function, and the line of its ``def``."""
    function, node = plain_function(target), node_of(target)
    if function is None:
        return None
    return function.__code__.co_filename, node.lineno if node else function.__code__.co_firstlineno


def node_of(target: Any) -> Any:
    """The ``ast.FunctionDef`` of the function *target*, as its file or cell has it; or None."""
    function = plain_function(target)
    if function is None:
        return None
    code = function.__code__
    return _definition(ast.FunctionDef, code.co_filename, code.co_name, code.co_firstlineno)


def class_of(job_class: Any) -> tuple[str, ast.ClassDef] | None:
    """The file of a class, or of that of an object, and its syntax there."""
    job_class = job_class if isinstance(job_class, type) else type(job_class)
    files = [getattr(sys.modules.get(job_class.__module__), "__file__", None)]
    files += [place[0] for member in vars(job_class).values() if (place := place_of(member))]
    for file in filter(None, files):
        if found := _definition(ast.ClassDef, file, job_class.__name__):
            return file, found
    return None


def _definition(kind: Any, file: str, name: str, first_line: int | None = None) -> Any:
    if os.path.exists(file):  # what is only in memory must stay there
        linecache.checkcache(file)
    for node in ast.walk(_parsed("".join(linecache.getlines(file)))):
        if isinstance(node, kind) and node.name == name:
            lines = (node.lineno, *(decorator.lineno for decorator in node.decorator_list))
            if first_line is None or first_line in lines:
                return node
    return None


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
