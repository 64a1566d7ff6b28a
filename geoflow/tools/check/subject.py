"""A job type that is checked, and the files and lines that are shown for its parts."""

from __future__ import annotations

import ast
import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from geoflow.jobtypes.contract import DefinesJob, Handler
from geoflow.tools.check.findings import Finding, finding
from geoflow.usercode.origin import is_ours
from geoflow.usercode.references import innermost
from geoflow.usercode.sources import syntax_of

Place = tuple[str, int]


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

    def finding(self, code: str, what: str, kind: str = "class", name: str = "") -> Finding:
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
        place = self._stage(int(name)) if kind == "stage" else place_of(self.function(kind, name))
        if place is None or is_ours(place[0]):
            others = (self._class, *(step.function for step in self.steps.values()))
            place = next(filter(None, map(place_of, others)), None)
        return place and shown(*place)

    def _stage(self, number: int) -> Place | None:
        if steps := [step for step in self.steps.values() if step.number == number]:
            return place_of(steps[0].function)
        file, node = syntax_of(self._class) or ("", None)
        for part in getattr(node, "body", ()):
            match part:
                case ast.Assign([ast.Name("stages")], value) | ast.AnnAssign(ast.Name("stages"), value=value):
                    dicts = getattr(value, "elts", ())[number - 1 : number]
                    return file, (dicts[0] if dicts else part).lineno
        return None

    @property
    def _class(self) -> type:
        return self.job_class if isinstance(self.job_class, type) else type(self.job_class)


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
    inner = innermost(target)
    inner = inspect.unwrap(getattr(inner, "__func__", inner))
    if not hasattr(inner, "__code__"):
        inner = getattr(type(inner), "__call__", None)  # noqa: B004
    return inner if hasattr(inner, "__code__") else None


def place_of(target: Any) -> Place | None:
    """The file of a function or class, and the line of its ``def`` or ``class``."""
    inner = target if isinstance(target, type) else plain_function(target)
    if inner is not None and (syntax := syntax_of(inner)):
        return syntax[0], syntax[1].lineno
    code = getattr(inner, "__code__", None)
    return code and (code.co_filename, code.co_firstlineno)
