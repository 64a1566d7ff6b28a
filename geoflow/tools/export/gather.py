"""Gather what some functions need, in an order that works, without what production lacks; or say all that is amiss."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import itertools
import logging
import re
import sys
import types
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from geoflow import errors
from geoflow.core.models import JobExecutionContext, TaskContext
from geoflow.executors.outputs import output, scratch
from geoflow.executors.saved import load, save
from geoflow.jobtypes.typed import InputFile, OutputFile, TypedJob, identity
from geoflow.support.masking import mask
from geoflow.support.progress import progress, track
from geoflow.tools.export import carried, carried_files, carried_saved
from geoflow.tools.export.bindings import Scope, assigned, import_of, of_around, scope_of, statement_of
from geoflow.tools.export.layout import is_data, literal
from geoflow.usercode.origin import is_users
from geoflow.usercode.references import names, quoted_annotations
from geoflow.usercode.sources import source_of

LONGEST = 2_000  # characters of a variable that is written into a file
_SAVED_NOTE = (
    "the environment variable SAVED_FOLDER is to name a folder that all workers share, for what gf.save is given: "
    "bytes, arrays, DataFrames and GeoDataFrames."
)
_STAGES = ("stage", "each", "reduce", "finalize")
_ERRORS = (errors.ContractViolationError, errors.BusinessLogicError, *errors.BusinessLogicError.__subclasses__())
# What stands for geoflow's own functions is in these modules, under their names with an underscore.
_STAND_INS: dict[Any, types.ModuleType] = {
    **dict.fromkeys((output, scratch), carried_files),
    **dict.fromkeys((save, load), carried_saved),
    **dict.fromkeys((progress, track), carried),
}
_CARRIED = {carried.__name__, carried_files.__name__, carried_saved.__name__}
# What is made again from its expression: it holds nothing that was opened or counted.
_MADE_AGAIN = (
    *(re.Pattern, logging.Logger, PurePath, Enum, date, time, timedelta, tzinfo, Decimal, UUID, TypeAdapter, BaseModel),
    *(types.GenericAlias, types.UnionType, type(list[int] | None), type(Any), types.MappingProxyType),
)


class Gathered:
    """The definitions by name: ``imports``, ``values`` and ``code``; ``problems`` keep them from being exported.

    Definitions of the modules *own* are written out, those of others imported; ``files`` are the user's among these.
    ``held`` is what each name means. What is of geoflow is replaced, or a problem, but *with_geoflow* imported.
    """

    def __init__(self, own: set[str], *, with_geoflow: bool = False) -> None:
        self.imports: dict[str, list[str]] = {}
        self.values: dict[str, str] = {}
        self.code: dict[str, str] = {}
        self.problems: dict[str, None] = {}
        self.notes: list[str] = []
        self.files: dict[str, str] = {}
        self._own = own | _CARRIED
        self._with_geoflow = with_geoflow
        self.held: dict[str, Any] = {}
        self._ready: dict[str, str] = {}

    def problem(self, text: str) -> None:
        self.problems[text] = None

    def take(self, name: str, scope: Scope, who: str) -> None:
        """Have *name* mean in the module what it means in *scope*, for *who*."""
        if name.startswith("__") and name.endswith("__"):
            return  # __name__ and its like, which every module has
        if name not in scope:
            if not hasattr(builtins, name) and name not in self.held:
                self.problem(f"{who} uses {name!r}, which is not defined: run its cell, or import it, first.")
            return
        value, is_new = scope[name], name not in self.held
        held = self.held.setdefault(name, value)
        if held is not value and not (is_data(value) and is_data(held) and repr(held) == repr(value)):
            self.problem(f"{name!r} means two things in what is exported, one of them in {who}: rename one of them.")
        elif name in self._ready:
            self.code.setdefault(name, self._ready[name])  # who needs it at once finds it before itself
        elif is_new:
            self._define(name, value, scope, who)

    def _define(self, name: str, value: Any, scope: Scope, who: str) -> None:
        inner = inspect.unwrap(value) if callable(value) and not isinstance(value, type) else value
        is_made_again = isinstance(value, _MADE_AGAIN) or dataclasses.is_dataclass(value)
        if isinstance(inner, type | types.FunctionType) and inner.__module__ in self._own:
            self._write_out(name, inner, scope, who)
        elif not self._with_geoflow and (_is_geoflow(value) or _marks_a_file(value)):
            pass  # it is told where it is written
        elif is_data(value):
            text = f"{name} = {literal(value)}"
            self.values[name] = text
            if mask({name: value}) != {name: value}:
                self.notes.append(f"{name} looks like a secret, and is in the module as it is.")
            if len(text) > LONGEST:
                self.problem(
                    f"{who} uses {name!r}, which takes {len(text):,} characters to write out: write it to a file, "
                    "give its path in the parameters, and read it inside the function."
                )
        elif statements := import_of(name, value, scope):
            self._import(name, statements, who)
        elif made := self._made(name, value, scope, calls=is_made_again):
            self._write(name, f"{name} = {made}\n", scope, value)
        else:
            self.problem(
                f"{who} uses {name!r}, a {type(value).__name__}, which cannot be written into a file: make it inside "
                "the function, from plain values in the parameters."
            )

    def _made(self, name: str, value: Any, scope: Scope, *, calls: bool) -> str | None:
        """The expression that *value* was made by, where that makes it again."""
        if self._with_geoflow and isinstance(value, TypedJob):
            return statement_of(name, scope)
        return assigned(name, value, scope, calls=calls or type(value).__module__ == "typing")

    def _import(self, name: str, statements: list[str], who: str) -> None:
        self.imports[name] = statements
        for statement in statements:
            module = sys.modules[statement.split()[1]]
            path = getattr(module, "__file__", None)
            if path is None or not is_users(path):
                continue
            self.files[module.__name__] = path
            if self._with_geoflow:
                continue
            if held := next((each for each, value in vars(module).items() if _is_geoflow(value)), None):
                self.problem(
                    f"{who} uses {name!r} of {path}, which would be imported, but has {held!r} of geoflow: "
                    "production does not have that. Move what is needed into a module without geoflow."
                )

    def _write_out(self, name: str, value: Any, scope: Scope, who: str) -> None:
        if value.__name__ == "<lambda>":
            return self.problem(f"{who} uses {name!r}, a lambda: write it as a def.")
        scope = scope_of(value, scope)
        text = source_of(value)
        if text is None and (made := assigned(name, value, scope)):
            text = f"{name} = {made}\n"
        if text is None or value.__name__ != name:
            return self.problem(
                f"{who} uses {name!r}, whose source cannot be found under that name: run its cell again, or save it "
                "in a file."
            )
        return self._write(name, text, scope, value)

    def _write(self, name: str, text: str, scope: Scope, value: Any) -> None:
        """Put *text*, which defines *name*, after what it needs at once and, but for a class, what it needs later."""
        text = self._without_geoflow(text, scope, name)
        at_once, later = names(text)
        for each in sorted(at_once - {name}):
            self.take(each, scope, name)
        self._ready[name] = text
        if isinstance(value, type):
            self.code[name] = text
        for each in sorted(later - {name}):
            self.take(each, scope, name)
        self.code.setdefault(name, text)

    def _without_geoflow(self, text: str, scope: Scope, who: str) -> str:
        """*text* with what of geoflow there is a stand-in for replaced; what else it has of geoflow is a problem."""
        if self._with_geoflow:
            return text
        unbound = of_around(text)
        used = set().union(*names(text))  # a parameter may be called as something else in the notebook is
        known = {name: scope[name] for name in used if name in scope}
        raw = text.encode()
        starts = list(itertools.accumulate(map(len, raw.splitlines(keepends=True)), initial=0))
        edits: list[tuple[int, int, str]] = []

        def put(node: Any, new: str) -> None:
            begin = starts[node.lineno - 1] + node.col_offset
            edits.append((begin, starts[node.end_lineno - 1] + node.end_col_offset, new))

        def visit(node: ast.AST) -> None:
            skipped: list[Any] = []
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                if any(name.partition(".")[0] == "geoflow" for name in modules):
                    self.problem(f"{who} imports geoflow, which production does not have: do without it.")
            elif isinstance(node, ast.Global):
                for name in node.names:
                    self.problem(f"{who} assigns the global {name!r}, which other processes do not see: return it.")
            elif isinstance(node, ast.Nonlocal):
                for name in sorted(unbound.intersection(node.names)):
                    why = "of the function around it, which other processes do not see: return it."
                    self.problem(f"{who} assigns {name!r} {why}")
            elif isinstance(node, ast.FunctionDef):
                skipped = [mark for mark in node.decorator_list if _is_stage(mark, known)]
                edits.extend((starts[mark.lineno - 1], starts[mark.end_lineno], "") for mark in skipped)
            elif isinstance(node, ast.Call) and _looked_up(node.func, known) is identity:
                return put(node, f'"identity({", ".join(map(ast.unparse, node.args))})"')
            elif isinstance(node, ast.Attribute | ast.Name) and _marks_a_file(_looked_up(node, known)):
                return put(node, "str")
            elif isinstance(node, ast.Attribute | ast.Name) and _is_geoflow(value := _looked_up(node, known)):
                if (new := self._stand_in(value)) is not None:
                    return put(node, new)
                kind = "a gf.JobType, " if isinstance(value, TypedJob) else ""
                return self.problem(
                    f"{who} uses {ast.unparse(node)}, {kind}which production does not have: do without it, or pass "
                    "what it gives you as a parameter."
                )
            for annotation in quoted_annotations(node):
                if (new := self._without_geoflow(inside := annotation.value, scope, who)) != inside:
                    put(annotation, repr(new))
            for child in ast.iter_child_nodes(node):
                if child not in skipped:
                    visit(child)
            return None

        visit(ast.parse(text))
        for begin, end, new in sorted(edits, reverse=True):
            raw = raw[:begin] + new.encode() + raw[end:]
        return raw.decode()

    def _stand_in(self, value: Any) -> str | None:
        """The name that stands for one of geoflow's: production has contexts of its own, and knows errors by name."""
        if value in (TaskContext, JobExecutionContext):
            self.take("Any", {"Any": Any}, "the exported module")
            return "Any"
        if isinstance(value, types.FunctionType) and (module := _STAND_INS.get(value)):
            name = f"_{value.__name__}"
            for each in (name, *(["_ending"] if module is carried_files else [])):
                self.take(each, vars(module), "the exported module")
            if module is carried_saved and _SAVED_NOTE not in self.notes:
                self.notes.append(_SAVED_NOTE)
            return name
        if value not in _ERRORS:
            return None
        name, base = str(value.__name__), value.__bases__[-1]
        above = "Exception" if base is errors.GeoflowError else self._stand_in(base) or base.__name__
        if self.held.setdefault(name, value) is value:
            self.code[name] = f'class {name}({above}):\n    """{value.__doc__}"""\n'
        return name


def _looked_up(node: ast.AST, scope: Scope) -> Any:
    """What a name with dots means in *scope*, as far as that is sure without running anything."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(held := _looked_up(node.value, scope), types.ModuleType):
        return getattr(held, node.attr, None)
    return None


def _is_geoflow(value: Any) -> bool:
    if isinstance(value, types.ModuleType):
        return value.__name__.partition(".")[0] == "geoflow"
    of = value if isinstance(value, type | types.FunctionType) else type(value)
    return of.__module__.partition(".")[0] == "geoflow" and of.__module__ not in _CARRIED


def _marks_a_file(value: Any) -> bool:
    return value is InputFile or value is OutputFile


def _is_stage(decorator: ast.expr, scope: Scope) -> bool:
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    if not isinstance(name, ast.Attribute) or name.attr not in _STAGES:
        return False
    # A job type that a function makes is a variable of that function, not one of its stages'.
    is_gone = isinstance(name.value, ast.Name) and name.value.id not in scope
    return is_gone or isinstance(_looked_up(name.value, scope), TypedJob)
