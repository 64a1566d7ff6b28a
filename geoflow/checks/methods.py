"""What the text of a job class's methods tells: its plans, its validation, its own record of a job."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from geoflow.checks.findings import Finding
from geoflow.checks.reading import Text, first_argument, is_name
from geoflow.checks.source import Subject, node_of, own
from geoflow.flow.crossing import ADDED
from geoflow.notebook.fields import schema_of

_DATABASES = ("sqlite3", "duckdb", "psycopg", "psycopg2", "pyodbc", "oracledb")
_OPENS = dict.fromkeys((*(f"{module}.connect" for module in _DATABASES), "create_engine"), "a database")
_OPENS |= {f"{module}.{verb}": "the network" for module in ("requests", "httpx") for verb in ("get", "post", "head")}
_OPENS |= {"sqlalchemy.create_engine": "a database", "urllib.request.urlopen": "the network", "urlopen": "the network"}


def of_methods(subject: Subject) -> Iterator[Finding]:
    nodes = {name: node_of(getattr(subject.job_class, name, None)) for name in _METHODS}
    for name, node in nodes.items():
        text = Text(subject, getattr(subject.job_class, name)) if node else None
        if node is None or text is None:
            continue
        if name == "create_tasks_for_stage":
            yield from _branches(text, node)
        if name in ("validate_job_parameters", "create_tasks_for_stage"):
            yield from _opened(text, name, node)
        if name == "validate_job_parameters" and getattr(subject.job_class, "parameters_schema", None) is not None:
            yield from _schema(text, node)
        if name in ("create_job_record", "queue_job"):
            yield from _totals(text, name, node)


_METHODS = ("validate_job_parameters", "create_tasks_for_stage", "create_job_record", "queue_job")


def _branches(text: Text, function: ast.FunctionDef) -> Iterator[Finding]:
    stages = getattr(text.subject.job_class, "stages", None)
    given = stages if isinstance(stages, list | tuple) else ()
    fan_ins = [
        place
        for place, one in enumerate(given, 1)
        if place > 1 and isinstance(one, dict) and one.get("parallelism") == "fan_in"
    ]
    stage = first_argument(text.subject, "create_tasks_for_stage", function)
    for node in own(function):
        asked: list[tuple[Any, Sequence[ast.stmt]]] = []
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], ast.Eq):
            sides = [node.test.left, *node.test.comparators]
            if any(is_name(side, stage) for side in sides):
                asked = [(side.value, node.body) for side in sides if isinstance(side, ast.Constant)]
        elif isinstance(node, ast.Match) and is_name(node.subject, stage):
            values = [
                (case.pattern.value, case.body) for case in node.cases if isinstance(case.pattern, ast.MatchValue)
            ]
            asked = [(value.value, body) for value, body in values if isinstance(value, ast.Constant)]
        for number, body in asked:
            if number in fan_ins and not _does_nothing(body):
                yield text.found("GF208", f"The plan makes tasks for stage {number}, which is a fan_in.", body[0])


def _does_nothing(body: Sequence[ast.stmt]) -> bool:
    last = body[-1]
    nothing = isinstance(last, ast.Return) and (last.value is None or ast.unparse(last.value) in ("None", "[]"))
    return nothing or isinstance(last, ast.Raise | ast.Pass)


def _opened(text: Text, name: str, function: ast.FunctionDef) -> Iterator[Finding]:
    for node in own(function):
        if isinstance(node, ast.Call) and (what := _OPENS.get(ast.unparse(node.func))):
            yield text.found("GF311", f"{name} opens {what}: {ast.unparse(node.func)}(...).", node)


def _schema(text: Text, function: ast.FunctionDef) -> Iterator[Finding]:
    schema = schema_of(text.subject.job_class)
    params = first_argument(text.subject, "validate_job_parameters", function)
    if schema is None or params is None:
        return
    known, read = set(schema["properties"]), dict[str, ast.AST]()
    understood: set[ast.AST] = set()
    for node in own(function):
        holder = key = None
        if isinstance(node, ast.Subscript):
            holder, key = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
            holder, key = node.func.value, node.args[0] if node.args else None
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            holder, key = node.comparators[0], node.left
        if is_name(holder, params) and isinstance(key, ast.Constant) and isinstance(key.value, str):
            read.setdefault(key.value, node)
            understood.add(holder)  # type: ignore[arg-type]
    for name in sorted(set(read) - known - ADDED):
        yield text.found("GF209", f"validate reads {name!r}, which parameters_schema does not have.", read[name])
    if all(node in understood for node in own(function) if is_name(node, params)):  # else it may read any key
        texts = {node.value for node in own(function) if isinstance(node, ast.Constant)}
        for name in sorted(known - set(read) - texts):
            yield text.found("GF209", f"parameters_schema has {name!r}, which validate never reads.", function)


def _totals(text: Text, name: str, function: ast.FunctionDef) -> Iterator[Finding]:
    stages = getattr(text.subject.job_class, "stages", None) or ()
    for node in own(function):
        said: list[Any] = []
        if isinstance(node, ast.Call):
            said = [word.value for word in node.keywords if word.arg == "total_stages"]
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            said = [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "total_stages"]
        for value in said:
            if isinstance(value, ast.Constant) and isinstance(value.value, int) and value.value != len(stages):
                told = f"{name} says total_stages={value.value}, and there are {len(stages)} stages."
                yield text.found("GF116", told, value)
