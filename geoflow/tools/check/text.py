"""What the text of methods and handlers tells without running them. Where it is not sure, it tells nothing."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from geoflow.executors.outputs import output, scratch
from geoflow.executors.saved import load, save
from geoflow.jobtypes.schema import schema_of
from geoflow.jobtypes.typed.crossing import ADDED
from geoflow.tools.check.findings import Finding, finding
from geoflow.tools.check.places import opened, places
from geoflow.tools.check.subject import Subject, plain_function, shown
from geoflow.usercode.sources import own, syntax_of

_DATABASES = ("sqlite3", "duckdb", "psycopg", "psycopg2", "pyodbc", "oracledb")
_OPENS = dict.fromkeys((*(f"{module}.connect" for module in _DATABASES), "create_engine"), "a database")
_OPENS |= {f"{module}.{verb}": "the network" for module in ("requests", "httpx") for verb in ("get", "post", "head")}
_OPENS |= {"sqlalchemy.create_engine": "a database", "urllib.request.urlopen": "the network", "urlopen": "the network"}


def written(subject: Subject) -> Iterator[Finding]:
    """What is found in the source of *subject*; nothing where there is no source."""
    for name in subject.known:
        if isinstance(name, str):
            yield from _read(subject, "handler", name, _of_handler)
            yield from (subject.finding(code, what, "handler", name) for code, what in opened(subject, name))
    if subject.maker is None and isinstance(subject.job_class, type):
        for name, reader in _METHODS:
            yield from _read(subject, "method", name, reader)


_Reader = Callable[[Subject, str, ast.FunctionDef], Iterator[tuple[str, str, Any]]]


def _read(subject: Subject, kind: str, name: str, reader: _Reader) -> Iterator[Finding]:
    function = plain_function(subject.function(kind, name))
    file, node = (function and syntax_of(function)) or ("", None)
    if isinstance(node, ast.FunctionDef):
        for code, what, place in reader(subject, name, node):
            yield finding(code, subject.name, what, shown(file, place.lineno))


def _of_handler(subject: Subject, name: str, function: ast.FunctionDef) -> Iterator[tuple[str, str, Any]]:
    swallowed: list[ast.Return] = []
    for attempt in (node for node in own(function) if isinstance(node, ast.Try)):
        for place, clause in enumerate(attempt.handlers):
            said = [part for part in clause.body if isinstance(part, ast.Return) and _fails(_said(part))]
            some_pass = any(isinstance(node, ast.Raise) for arm in attempt.handlers[: place + 1] for node in own(arm))
            if said and not some_pass and _is_broad(clause):
                swallowed += said
                what = "every exception" if clause.type is None else ast.unparse(clause.type)
                yield "GF201", f"The handler of {name!r} catches {what} and returns success: False.", clause
    yield from places(f"The handler of {name!r}", function)
    if subject.maker is None:
        yield from _files(subject, name, function)
    if function.decorator_list and subject.maker is None:  # they may mend what it returns
        return
    who = f"The handler of {name!r}"
    for node in own(function):
        if not isinstance(node, ast.Return) or node in swallowed or (keys := _said(node)) is None:
            continue
        if "success" not in keys and subject.maker is None:
            yield "GF202", f"{who} returns {'a dict without success' if keys else 'nothing'} here.", node
        if _fails(keys) and "error" not in keys:
            yield "GF203", f"{who} fails without an error here.", node
        if _fails(keys) and "retryable" not in keys:
            yield "GF204", f"{who} fails here without retryable.", node


def _files(subject: Subject, name: str, function: ast.FunctionDef) -> Iterator[tuple[str, str, Any]]:
    """The first use of each of geoflow's functions for files."""
    names = getattr(plain_function(subject.function("handler", name)), "__globals__", {})
    for used in (output, scratch, save, load):
        for node in own(function):
            if isinstance(node, ast.Call):
                module, _, called = ast.unparse(node.func).rpartition(".")
                if (getattr(names.get(module), called, None) if module else names.get(called)) is used:
                    yield "GF125", f"The handler of {name!r} uses {ast.unparse(node.func)}.", node
                    break


def _said(node: ast.Return) -> dict[Any, ast.expr] | None:
    """What a returned dict has under its keys: nothing for ``return None``, None where it is not sure."""
    if node.value is None or ast.unparse(node.value) == "None":
        return {}
    if isinstance(node.value, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.value.keys):
        return {key.value: value for key, value in zip(node.value.keys, node.value.values, strict=True)}  # type: ignore[union-attr]
    return None


def _fails(said: dict[Any, ast.expr] | None) -> bool:
    success = (said or {}).get("success")
    return isinstance(success, ast.Constant) and success.value is False


def _is_broad(clause: ast.ExceptHandler) -> bool:
    kinds = clause.type.elts if isinstance(clause.type, ast.Tuple) else [clause.type]
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)


def _opened(subject: Subject, name: str, function: ast.FunctionDef) -> Iterator[tuple[str, str, Any]]:
    for node in own(function):
        if isinstance(node, ast.Call) and (what := _OPENS.get(ast.unparse(node.func))):
            yield "GF311", f"{name} opens {what}: {ast.unparse(node.func)}(...).", node


def _placed(subject: Subject, name: str, function: ast.FunctionDef) -> Iterator[tuple[str, str, Any]]:
    yield from places(name, function)


def _schema(subject: Subject, name: str, function: ast.FunctionDef) -> Iterator[tuple[str, str, Any]]:
    job_class = subject.job_class
    schema = schema_of(job_class) if getattr(job_class, "parameters_schema", None) is not None else None
    is_class_method = isinstance(inspect.getattr_static(job_class, name), classmethod)
    arguments = [argument.arg for argument in function.args.posonlyargs + function.args.args][is_class_method:]
    if schema is None or not arguments:
        return
    known, read = set(schema["properties"]), dict[str, ast.AST]()
    understood: set[ast.AST] = set()
    for node in own(function):
        holder, key = _item(node)
        if _is_name(holder, arguments[0]) and isinstance(key, ast.Constant) and isinstance(key.value, str):
            read.setdefault(key.value, node)
            understood.add(holder)
    for key in sorted(set(read) - known - ADDED):
        yield "GF209", f"validate reads {key!r}, which parameters_schema does not have.", read[key]
    if all(node in understood for node in own(function) if _is_name(node, arguments[0])):  # else it may read any key
        texts = {node.value for node in own(function) if isinstance(node, ast.Constant)}
        for key in sorted(known - set(read) - texts):
            yield "GF209", f"parameters_schema has {key!r}, which validate never reads.", function


def _item(node: ast.AST) -> tuple[Any, Any]:
    """The dict and the key of ``d["key"]``, ``d.get("key")``, ``d.pop("key")`` and ``"key" in d``."""
    match node:
        case ast.Subscript(holder, key):
            return holder, key
        case ast.Call(ast.Attribute(holder, "get" | "pop"), [key, *_]):
            return holder, key
        case ast.Compare(key, [ast.In() | ast.NotIn()], [holder]):
            return holder, key
    return None, None


def _is_name(node: Any, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _totals(subject: Subject, name: str, function: ast.FunctionDef) -> Iterator[tuple[str, str, Any]]:
    stages = getattr(subject.job_class, "stages", None) or ()
    for node in own(function):
        said: list[tuple[Any, Any]] = []
        if isinstance(node, ast.Call):
            said = [(word.arg, word.value) for word in node.keywords]
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            said = list(zip(keys, node.values, strict=True))
        for key, value in said:
            if key == "total_stages" and isinstance(value, ast.Constant) and value.value != len(stages):
                yield "GF116", f"{name} says {key}={value.value!r}, and there are {len(stages)} stages.", value


_METHODS: tuple[tuple[str, _Reader], ...] = (
    ("validate_job_parameters", _opened),
    ("validate_job_parameters", _schema),
    ("create_tasks_for_stage", _opened),
    ("create_tasks_for_stage", _placed),
    ("finalize_job", _placed),
    ("create_job_record", _totals),
    ("queue_job", _totals),
)
