"""What the text of methods and handlers tells without running them. Where it is not sure, it tells nothing."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Any

from geoflow.checks.findings import Finding
from geoflow.checks.methods import of_methods
from geoflow.checks.reading import Text, first_argument, is_name
from geoflow.checks.source import Subject, node_of, own
from geoflow.checks.unbound import maybe_unbound

_BROAD = ("Exception", "BaseException")


def written(subject: Subject) -> Iterator[Finding]:
    """What is found in the source of *subject*; nothing where there is no source."""
    for name in subject.handlers:
        if isinstance(name, str) and (node := node_of(function := subject.function("handler", name))) is not None:
            yield from _of_handler(Text(subject, function), name, node)
    finalize = subject.function("method", "finalize_job")
    if finalize is not None and (node := node_of(finalize)) is not None:
        yield from _of_finalize(Text(subject, finalize), node)
    if subject.maker is None and isinstance(subject.job_class, type):
        yield from of_methods(subject)


# Handlers


def _of_handler(text: Text, name: str, function: ast.FunctionDef) -> Iterator[Finding]:
    swallowed: list[ast.Return] = []
    for attempt in (node for node in own(function) if isinstance(node, ast.Try)):
        for place, clause in enumerate(attempt.handlers):
            said = [part for part in clause.body if isinstance(part, ast.Return) and _says(part, "success") is False]
            some_pass = any(map(_raises, attempt.handlers[:place])) or _raises(clause)
            if _is_broad(clause) and said and not some_pass:
                swallowed += said
                what = "every exception" if clause.type is None else ast.unparse(clause.type)
                yield text.found("GF201", f"The handler of {name!r} catches {what} and returns success: False.", clause)
    for node in own(function) if not function.decorator_list or text.subject.maker else ():  # they may mend it
        if isinstance(node, ast.Return) and node not in swallowed:
            yield from _of_return(text, name, node)


def _of_return(text: Text, name: str, node: ast.Return) -> Iterator[Finding]:
    given, is_flow = node.value, text.subject.maker is not None
    if given is None or (isinstance(given, ast.Constant) and given.value is None):
        if not is_flow:
            yield text.found("GF202", f"The handler of {name!r} returns nothing here.", node)
    elif isinstance(given, ast.Dict) and None not in given.keys:
        success = _says(node, "success")
        keys = {key.value for key in given.keys if isinstance(key, ast.Constant)}
        if "success" not in keys:
            if not is_flow and len(keys) == len(given.keys):
                yield text.found("GF202", f"The handler of {name!r} returns a dict without success here.", node)
        elif not isinstance(success, bool) and success is not ...:
            yield text.found("GF202", f"The handler of {name!r} returns success as {success!r} here.", node)
        elif success is False:
            if "error" not in keys:
                yield text.found("GF203", f"The handler of {name!r} fails without an error here.", node)
            if "retryable" not in keys:
                yield text.found("GF204", f"The handler of {name!r} fails here without retryable.", node)


def _says(node: ast.Return, key: str) -> Any:
    """The constant that a returned dict has under *key*; ``...`` where it is none, or there is none."""
    if isinstance(node.value, ast.Dict):
        for name, value in zip(node.value.keys, node.value.values, strict=True):
            if isinstance(name, ast.Constant) and name.value == key:
                return value.value if isinstance(value, ast.Constant) else ...
    return ...


def _is_broad(clause: ast.ExceptHandler) -> bool:
    kinds = clause.type.elts if isinstance(clause.type, ast.Tuple) else [clause.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in _BROAD) for kind in kinds)


def _raises(clause: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in own(clause))


# Finalize


def _of_finalize(text: Text, function: ast.FunctionDef) -> Iterator[Finding]:
    context = _context_of(text.subject, function)
    asked = _asked(function)
    for node in own(function) if context not in asked else ():
        if isinstance(node, ast.Attribute) and is_name(node.value, context) and node.attr == "job_parameters":
            yield text.found("GF205", f"finalize reads {context}.job_parameters.", node)
        is_get = isinstance(node, ast.Attribute) and node.attr == "get" and is_name(node.value, context)
        if is_get or (isinstance(node, ast.Subscript) and is_name(node.value, context)):
            yield text.found("GF205", f"finalize reads {context} as a dict.", node)
    for node in _dict_uses(function, context, asked) if context else ():
        yield text.found("GF206", f"finalize takes a task result as a dict: {ast.unparse(node)}.", node)
    for name, node in maybe_unbound(function):
        yield text.found("GF207", f"finalize reads {name}, which may have no value then.", node)


def _context_of(subject: Subject, function: ast.FunctionDef) -> str | None:
    ending = getattr(subject.job_class, "flow_ending", None)
    if ending is not None:
        return next((name for name, (role, _) in ending.takes.items() if role == "context"), None)
    return first_argument(subject, "finalize_job", function)


def _asked(function: ast.FunctionDef) -> set[str]:
    """The names that are asked what they are, or have: code that is made for both."""
    calls = [node for node in own(function) if isinstance(node, ast.Call) and node.args]
    found = {
        ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) in ("isinstance", "hasattr", "getattr")
    }
    guarded = any(
        "AttributeError" in ast.unparse(node) for node in own(function) if isinstance(node, ast.ExceptHandler)
    )
    return found | ({node.id for node in own(function) if isinstance(node, ast.Name)} if guarded else set())


def _dict_uses(function: ast.FunctionDef, context: str | None, asked: set[str]) -> Iterator[ast.AST]:
    """Where an item of ``context.task_results`` is read as a dict."""
    bound = Counter(node.id for node in own(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    loops = [part for part in own(function) if isinstance(part, ast.For | ast.comprehension)]
    many: set[str] = set()
    one: set[str] = set()

    def is_many(node: ast.AST | None) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr == "task_results" and is_name(node.value, context)
        if isinstance(node, ast.Subscript):
            return isinstance(node.slice, ast.Slice) and is_many(node.value)
        if isinstance(node, ast.ListComp):
            [first, *others] = node.generators
            return not others and is_many(first.iter) and is_name(node.elt, getattr(first.target, "id", None))
        if isinstance(node, ast.BoolOp):
            return is_many(node.values[0])
        return isinstance(node, ast.Name) and node.id in many

    def is_one(node: ast.AST | None) -> bool:
        if isinstance(node, ast.Subscript):
            return isinstance(node.slice, ast.Constant | ast.UnaryOp) and is_many(node.value)
        return isinstance(node, ast.Name) and node.id in one

    for _ in range(3):  # names of names
        for node in own(function):
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(node, ast.Assign) and isinstance(target, ast.Name):
                many |= {target.id} if is_many(node.value) else set()
                one |= {target.id} if is_one(node.value) and bound[target.id] == 1 else set()
            elif isinstance(node, ast.For | ast.comprehension) and isinstance(target, ast.Name) and is_many(node.iter):
                same = [part for part in loops if is_name(part.target, target.id)]
                only = bound[target.id] == len(same) and all(is_many(part.iter) for part in same)
                one |= {target.id} if only else set()
    one -= asked
    for node in own(function):
        if isinstance(node, ast.Subscript) and is_one(node.value) and isinstance(node.slice, ast.Constant):
            if isinstance(node.slice.value, str):
                yield node
        elif isinstance(node, ast.Attribute) and node.attr in ("get", "keys", "items") and is_one(node.value):
            yield node
