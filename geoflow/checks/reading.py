"""What the readers of source share: findings with the line that they are about, and names."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from geoflow.checks.findings import Finding, finding
from geoflow.checks.source import Subject, plain_function, shown


class Text:
    """The function that is read: what is found in it has its lines."""

    def __init__(self, subject: Subject, function: Any) -> None:
        self.subject = subject
        self.file = plain_function(function).__code__.co_filename

    def found(self, code: str, what: str, node: ast.AST) -> Finding:
        return finding(code, self.subject.name, what, shown(self.file, node.lineno))  # type: ignore[attr-defined]


def first_argument(subject: Subject, name: str, function: ast.FunctionDef) -> str | None:
    """What the method *name* calls its first argument, less the class of a class method."""
    found = inspect.getattr_static(subject.job_class, name, None)
    names = [argument.arg for argument in function.args.posonlyargs + function.args.args]
    return next(iter(names[isinstance(found, classmethod) :]), None)


def is_name(node: ast.AST | None, name: str | None) -> bool:
    return name is not None and isinstance(node, ast.Name) and node.id == name
