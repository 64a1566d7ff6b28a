"""Names that a function may read before they have a value. Only where nothing in sight keeps it from that. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from geoflow.checks.source import own

_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_NOT_ALWAYS = (ast.IfExp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.FunctionDef)


def maybe_unbound(function: ast.FunctionDef) -> Iterator[tuple[str, ast.Name]]:
    """Names, and where they are read: a place that is always come to, while they are given a value only sometimes."""
    everywhere = {name for part in function.body for name in _stored(part)}
    arguments = function.args
    known = {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    outside = {name for node in own(function) if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    bound, asked = set(known), set[str]()
    for part in function.body:
        for use in _reads(part):
            if use.id in everywhere - bound - outside:
                yield use.id, use
                bound.add(use.id)
        if isinstance(part, ast.If) and _ended(part.body):  # what comes after it may count on what it asked
            asked |= {node.id for node in ast.walk(part.test) if isinstance(node, ast.Name)}
        bound |= _bound_by(part, asked)


def _stored(part: ast.AST) -> set[str]:
    """The names that get a value anywhere in *part*; those of comprehensions are their own."""
    found: set[str] = set()
    loops = [node.target for node in own(part) if isinstance(node, ast.comprehension)]
    inner = {name for target in loops for name in ast.walk(target)}
    for node in (part, *own(part)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in inner:
            found.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            found.add(node.name)
    if isinstance(part, ast.FunctionDef | ast.ClassDef):
        return {part.name}
    children = [child for node in (part, *own(part)) for child in ast.iter_child_nodes(node)]
    return found | {child.name for child in children if isinstance(child, ast.FunctionDef | ast.ClassDef)}


def _bound_by(part: ast.stmt, asked: set[str]) -> set[str]:
    """The names that have a value after *part*, where it goes on after it. Rather too many than too few."""
    match part:
        case ast.If():
            arms = [arm for arm in (part.body, part.orelse) if not _ended(arm)]
            asked = asked | {node.id for node in ast.walk(part.test) if isinstance(node, ast.Name)}
            return (set.intersection(*(_after(arm, asked) for arm in arms)) if arms else _stored(part)) | _stored(
                part.test
            )
        case ast.For():
            named = {node.id for node in ast.walk(part.iter) if isinstance(node, ast.Name)}
            runs = bool(named & asked) or _has_items(part.iter) or bool(part.orelse)
            return _stored(part) if runs else set()
        case ast.While():
            return _stored(part) if isinstance(part.test, ast.Constant) or part.orelse else set()
        case ast.Try():
            arms = [clause.body for clause in part.handlers if not _ended(clause.body)]
            whole = _after([*part.body, *part.orelse], asked)
            return set.intersection(whole, *(_after(arm, asked) for arm in arms)) | _after(part.finalbody, asked)
        case ast.Match():
            covered = any(isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None for case in part.cases)
            arms = [case.body for case in part.cases if not _ended(case.body)]
            return set.intersection(*(_after(arm, asked) for arm in arms)) if covered and arms else set()
        case ast.With():
            items = {name for item in part.items for name in _stored(item)}
            return items | _after(part.body, asked)
    return _stored(part)


def _after(body: Sequence[ast.stmt], asked: set[str]) -> set[str]:
    return {name for part in body for name in _bound_by(part, asked)}


def _ended(body: Sequence[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], _ENDS)


def _has_items(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List | ast.Dict):
        return bool(ast.unparse(node).strip("()[]{}"))
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"


def _reads(part: ast.stmt) -> Iterable[ast.Name]:
    """The names that *part* always reads, whatever it finds."""
    heads: list[ast.AST] = [part]
    if isinstance(part, ast.If | ast.While):
        heads = [part.test]
    elif isinstance(part, ast.For):
        heads = [part.iter]
    elif isinstance(part, ast.With):
        heads = [item.context_expr for item in part.items]
    elif isinstance(part, ast.Match):
        heads = [part.subject]
    elif isinstance(part, ast.Try | ast.FunctionDef | ast.ClassDef):
        heads = []
    while heads:
        node = heads.pop(0)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node
        if isinstance(node, ast.BoolOp):
            heads.append(node.values[0])
        elif not isinstance(node, _NOT_ALWAYS):
            heads += ast.iter_child_nodes(node)
