"""Write a job type of typed functions as a module of the plain contract, which needs nothing of geoflow.

What is written stays as it is under formatters of any width: lines are short, or hold one item and end with a comma.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from geoflow.exporting import carried
from geoflow.exporting.gather import Gathered
from geoflow.exporting.layout import WIDTH, literal, quoted
from geoflow.exporting.source import Scope, scope_of, source_of
from geoflow.flow import JobType
from geoflow.flow.crossing import ADDED, _accepted
from geoflow.flow.jobtype import _ordered
from geoflow.flow.lowered import Lowered, Pick, Role, Step
from geoflow.flow.stage import lower

CO_FUTURE_ANNOTATIONS = 0x1000000  # `from __future__ import annotations`, in the flags of code
_ALL = "ALL_HANDLERS = "
_CARRIED = vars(carried)
_HANDLER = '''
def {name}_handler(params: dict[str, Any]) -> dict[str, Any]:
    """{about}"""
{results}    result = {call}
    return _handled(result)
'''
_CONTRACT = '''
class {camel}:
    """The stages {names}."""

    job_type = {job}
    description = {description}
    {stages}
    parameters_schema = {schema}
    {outside}

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return {validated}

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return {job_id}

    @staticmethod
    def create_tasks_for_stage(
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
{plans}        raise ValueError(f"Stage {{stage}} is one task, which the engine makes.")

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        results = _completed(context, {last})
{finalized}


ALL_JOBS = {jobs}
ALL_HANDLERS = {handlers}
'''
_ONE = """        if stage == 1:
            task = {{
                "task_id": _task_id(job_id, {name}),
                "task_type": {task_type},
                "parameters": {parameters},
            }}
            return [task]
"""
_EACH = """        if stage == {number}:
            results = _results(previous_results)
{found}            return [
                {{
                    "task_id": _task_id(job_id, {name}, key),
                    "task_type": {task_type},
                    "parameters": {parameters},
                }}
                for key, item in _keyed(keys, items)
            ]
"""


class Writer:
    """Puts the module of *job_type* together; ``gathered`` has what keeps it from being one."""

    def __init__(self, job_type: JobType) -> None:
        job_type.contract()  # says what is amiss
        # Made anew: of the class that was run in this process, what has travelled lacks its functions.
        about = job_type.__module__, job_type.description, job_type.params
        made: Any = lower(*about, _ordered(job_type._stages), job_type._finalize)[0]
        self.gathered = Gathered({job_type.__module__, "__main__"})
        self._made: type[Lowered] = made
        self.steps = made.flow_steps
        self._stages: list[dict[str, Any]] = made.stages
        self._description = str(made.description)
        self._adapters: dict[str, str] = {}
        self._scopes = [_scope(step) for step in made.flow_steps]
        self._params = self._adapter_of(made.flow_params) if made.flow_params else ""

    def text(self) -> str:
        """The module's text. It is good for nothing when there are problems."""
        made, steps = self._made, self.steps
        job, names = quoted(made.job_type), ", ".join(step.name for step in steps)
        handlers = "\n".join(map(self._handler, steps))
        parts: dict[str, str] = {
            "names": names,
            "job": job,
            "description": quoted(self._description),
            "stages": literal(self._stages, "stages: ClassVar[list[dict[str, Any]]] = ", 4),
            "schema": f"{self._params}.json_schema()" if self._params else '{"type": "object"}',
            "outside": literal(made.non_identity_parameters, "non_identity_parameters = ", 4),
            "validated": self._validated(),
            "job_id": self._job_id(),
            "plans": "".join(map(self._plan, steps)),
            "last": quoted(steps[-1].task_type),
            "finalized": self._finalized(),
            "handlers": _listed(
                "{", [f"{quoted(step.task_type)}: {step.name}_handler" for step in steps], "}", "", _ALL
            ),
        }
        users = {*self.gathered.code, *self.gathered.values, *self.gathered.imports}
        camel = made.__name__ if made.__name__ not in users else f"{made.__name__}Job"
        contract = _CONTRACT.format(camel=camel, jobs=f"{{{job}: {camel}}}", **parts)
        for name in sorted(users & {camel, "ALL_JOBS", "ALL_HANDLERS", *(f"{step.name}_handler" for step in steps)}):
            self.gathered.problem(f"{name!r} is what the exported module calls something of its own: rename yours.")
        self._carry(handlers + contract)
        adapters = "".join(f"{name} = TypeAdapter({text})\n" for text, name in self._adapters.items())
        code = self.gathered.code
        ours = [text for name, text in code.items() if name in _CARRIED]
        sections = [text for name, text in code.items() if name not in _CARRIED]
        sections += ["# Values to JSON and back, keys and ids: as they were where this was tried.\n\n\n" + ours[0]]
        sections += ours[1:]
        sections += [f"# What the functions take, to be made from JSON.\n{adapters}" if adapters else ""]
        top = [self._about(names), self._imports(), "\n".join(self.gathered.values.values())]
        body = [section.strip("\n") for section in (*sections, handlers, contract) if section]
        return "\n\n".join(filter(None, top)) + "\n\n\n" + "\n\n\n".join(body) + "\n"

    def _about(self, names: str) -> str:
        told = f"A job type of CoreMachine with the stages {names}, exported from typed functions. It needs no geoflow."
        title = " ".join((self._description or self._made.job_type).split()).replace("\\", "\\\\")
        title = title.replace('"', "'")
        return f'"""{title}{"" if title.endswith((".", "?", "!")) else "."}\n\n{textwrap.fill(told, 86)}\n"""'

    def _imports(self) -> str:
        lines = {line for found in self.gathered.imports.values() for line in found}
        named: dict[str, list[str]] = {}
        for line in sorted(lines):
            head, _, name = line.partition(" import ")
            if line.startswith("from "):
                named.setdefault(head, []).append(name)
        whole = sorted(line for line in lines if line.startswith("import "))
        for head, names in named.items():
            line = f"{head} import {', '.join(names)}"
            whole.append(line if len(line) <= WIDTH else _listed(f"{head} import (", names, ")"))
        blocks: list[list[str]] = [[], [], []]
        for line in whole:
            module = line.split()[1]
            standard = module.partition(".")[0] in sys.stdlib_module_names
            blocks[2 if module in self.gathered.files else 0 if standard else 1].append(line)
        future = ["from __future__ import annotations"] if any(map(_is_lazy, self.steps)) else []
        return "\n\n".join("\n".join(block) for block in (future, *blocks) if block)

    def _carry(self, code: str) -> None:
        """Take along what the code that is written here needs."""
        self.gathered.imports["ClassVar"] = ["from typing import ClassVar"]
        words = {*re.findall(r"\b_[a-z_]+(?=\()", code), "Any", *(["TypeAdapter"] if self._adapters else [])}
        for name in sorted(words & _CARRIED.keys()):
            self.gathered.take(name, _CARRIED, "the exported module")

    # What functions take

    def _adapter_of(self, kind: type) -> str:
        own: Scope = {"__name__": kind.__module__, kind.__name__: kind}
        return self._adapter(kind.__name__, next((one for one in self._scopes if kind.__name__ in one), own))

    def _adapter(self, annotation: str, scope: Scope) -> str:
        text = self.gathered.text(annotation, scope, self._made.job_type)
        name = f"_{re.sub(r'[^A-Za-z0-9]+', '_', text).strip('_').upper()}"
        taken = {known for other, known in self._adapters.items() if other != text}
        if len(name) > 25 or name in taken:
            name = f"_TAKEN_{len(self._adapters) + 1}"
        return self._adapters.setdefault(text, name)

    def _call(self, step: Step, sources: Mapping[Role, str], indent: str) -> str:
        scope = _scope(step)
        self.gathered.take(step.name, {**scope, step.name: step.function}, self._made.job_type)
        items = []
        for name in filter(step.takes.__contains__, inspect.signature(step.function).parameters):
            role, from_json = step.takes[name]
            source, written = sources[role], _annotation(step.function, name)
            if from_json.annotation is not Any and role != "context":
                adapter = self._adapter(written, scope) if written else self._params
                source = f"_made({adapter}, {source})"
            items.append(f"{name}={source}")
        return _listed(f"{step.name}(", items, ")", indent, "result = ")

    def _handler(self, step: Step) -> str:
        for name, (role, _) in step.takes.items():
            if role == "context":
                self.gathered.problem(
                    f"{step.name} takes a context ({name}), which production does not give to handlers: leave it out. "
                    "To log, use logging.getLogger(__name__)."
                )
        params = 'params["job_parameters"]' if step.kind == "reduce" else 'params["params"]'
        sources: dict[Role, str] = {"item": 'params["item"]', "params": params, "results": "results", "context": "None"}
        results = '_results(params["previous_results"])'
        results = f"    results = {results if step.shape == 'all' else f'_first({results})'}\n"
        about = {"stage": "one task", "each": f"one item of {step.previous}", "reduce": f"all of {step.previous}"}
        return _HANDLER.format(
            name=step.name,
            about=f"{step.name}: {about[step.kind]}.",
            results=results if step.kind == "reduce" else "",
            call=self._call(step, sources, "    "),
        )

    # What the class does

    def _validated(self) -> str:
        params = self._made.flow_params
        if params is None:
            return "_plain(dict(params))"
        if _accepted(params, {"any": 0}) == ["any"]:  # it says itself what becomes of names that it has not
            return f"_plain({self._params}.validate_python(params, **_by_name()))"
        return _listed(
            "_validated(",
            [self._params, "params", *map(quoted, dict.fromkeys(_accepted(params, {})))],
            ")",
            " " * 8,
            "return ",
        )

    def _job_id(self) -> str:
        params, outside = self._made.flow_params, list(self._made.non_identity_parameters)
        if params is not None and (names := _accepted(params, {"any": 0})) != ["any"]:
            outside += sorted(ADDED - {*names})  # production's submit adds them by itself
        return _listed(
            "_job_id(", [quoted(self._made.job_type), "params", *map(quoted, outside)], ")", " " * 8, "return "
        )

    def _plan(self, step: Step) -> str:
        given = ['"item": item'] if step.kind == "each" else []
        given += ['"params": job_params'] if "params" in dict(step.takes.values()) else []
        about = {
            "name": quoted(step.name),
            "task_type": quoted(step.task_type),
            "parameters": f"{{{', '.join(given)}}}",
        }
        if step.kind != "each":
            return _ONE.format(**about) if step.kind == "stage" else ""
        items = "results" if step.over is None else self._picked(step, step.over, "results")
        items = f"_items({items})" if step.shape == "items" else items
        keys = "range(len(items))" if step.key is None else self._picked(step, step.key, "items")
        found = f"            items = {items}\n            keys = {keys}\n"
        return _EACH.format(number=step.number, found=found, **about)

    def _picked(self, step: Step, pick: Pick, values: str) -> str:
        """Code that finds what ``over=`` or ``key=`` says in each of *values*."""
        if isinstance(pick.how, str):
            return f"_fields({values}, {quoted(pick.how)})"
        name = getattr(pick.how, "__name__", "")
        self.gathered.take(name, {name: pick.how}, f"{pick.what}= of {step.name}")
        kind = pick.taken.annotation if pick.taken else Any
        if kind is Any:
            return f"_picked({name}, {values})"
        main = next(each for each, (role, _) in step.takes.items() if role == "item")
        before = self.steps[step.number - 2]
        source, what = (step.function, main) if pick.what == "key" else (before.function, "return")
        written = _annotation(source, what)
        if written is not None:
            adapter = self._adapter(written, scope_of(inspect.unwrap(source), {}))
        elif isinstance(kind, type):
            adapter = self._adapter_of(kind)
        else:
            self.gathered.problem(
                f"{step.name} has a {pick.what}= that is a function: annotate {main}, which it is of."
            )
            return ""
        return f"_picked({name}, {values}, {adapter})"

    def _finalized(self) -> str:
        ending = self._made.flow_ending
        if ending is None and self.steps[-1].kind == "each":
            return '        return {"count": len(results), "results": results[:1000]}'
        if ending is None:
            return '        only = _first(results)\n        return only if isinstance(only, dict) else {"result": only}'
        sources: dict[Role, str] = {
            "results": "results" if ending.shape == "all" else "_first(results)",
            "params": "context.parameters",
            "context": "context",
        }
        return f"        result = {self._call(ending, sources, ' ' * 8)}\n        return _plain(result)"


def _listed(head: str, items: Iterable[str], tail: str, indent: str = "", before: str = "") -> str:
    """*head*, the items, *tail* in a line that begins with *indent* and *before*; else an item a line."""
    items = list(items)
    line = f"{head}{', '.join(items)}{tail}"
    if len(indent + before + line) <= WIDTH:
        return line
    return "\n".join([head, *(f"{indent}    {item}," for item in items), indent + tail])


def _scope(step: Step) -> Scope:
    return scope_of(inspect.unwrap(step.function), {})


def _is_lazy(step: Step) -> bool:
    """Whether annotations of its file are not looked at when it is imported."""
    return bool(inspect.unwrap(step.function).__code__.co_flags & CO_FUTURE_ANNOTATIONS)


def _annotation(function: Any, name: str) -> str | None:
    """An annotation of *function* as it is written; that of what it returns is called ``return``."""
    inner = inspect.unwrap(function)
    source = source_of(inner, scope_of(inner, {})) or "def none(): ..."
    node: Any = ast.parse(source).body[0]
    arguments = {one.arg: one.annotation for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    found = node.returns if name == "return" else arguments.get(name)
    if isinstance(found, ast.Constant) and isinstance(found.value, str):
        return found.value
    return ast.get_source_segment(source, found) if found else None
