"""Write a job type of typed functions as a module of the plain contract, which needs nothing of geoflow."""

from __future__ import annotations
import __future__

import inspect
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from geoflow.jobtypes.typed import TypedJob
from geoflow.jobtypes.typed.annotations import show
from geoflow.jobtypes.typed.crossing import ADDED, accepted
from geoflow.jobtypes.typed.foreign import is_foreign
from geoflow.jobtypes.typed.jobtype import made_anew
from geoflow.jobtypes.typed.lowered import Lowered, Pick, Role, Step
from geoflow.support.text import plain
from geoflow.tools.export import carried
from geoflow.tools.export.bindings import Scope, scope_of
from geoflow.tools.export.gather import Gathered
from geoflow.tools.export.layout import literal

_MODULE = '''"""{title}

A job type of CoreMachine with the stages {names}, exported from typed functions.
It needs no geoflow. Formatters leave it as it was written, for as long as the next line is here.
"""
# fmt: off

{top}


{code}


# Values to JSON and back, keys and ids: as they were where this was tried.


{carried}


{handlers}


class {camel}:
    """The stages {names}."""

    job_type = "{job}"
    description = {description}
    stages: ClassVar[list[dict[str, Any]]] = [
{stages}
    ]
    parameters_schema = {schema}
    non_identity_parameters = {non_identity}

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return {validated}

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return _job_id("{job}", params{outside})

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
        tasks = [task for task in context.task_results if task.task_type == "{last}"]
        results = _results([task.result_data for task in tasks if task.success])
{finalized}


ALL_JOBS = {{"{job}": {camel}}}
ALL_HANDLERS = {{
{registered}
}}
'''
_HANDLER = '''\
def {name}_handler(params: dict[str, Any]) -> dict[str, Any]:
    """{name}: {about}."""
    return _handled({call})
'''
_ONE = """\
        if stage == 1:
            task = {{
                "task_id": _task_id(job_id, "{name}"),
                "task_type": "{task_type}",
                "parameters": {{{parameters}}},
            }}
            return [task]
"""
_EACH = """\
        if stage == {number}:
            results = _results(previous_results)
            items = {items}
            keys = {keys}
            return [
                {{
                    "task_id": _task_id(job_id, "{name}", key),
                    "task_type": "{task_type}",
                    "parameters": {{{parameters}}},
                }}
                for key, item in _keyed(items, keys)
            ]
"""
LAZY = __future__.annotations.compiler_flag
_ABOUT = {"stage": "one task", "each": "one item of {}", "reduce": "all of {}"}


class Writer:
    """Puts the module of *job_type* together; ``gathered`` has what keeps it from being one."""

    def __init__(self, job_type: TypedJob) -> None:
        job_type.contract()  # says what is amiss
        made: Any = made_anew(job_type)[0]
        self.gathered = Gathered({job_type.__module__, "__main__"})
        self._made: type[Lowered] = made
        self.steps = made.flow_steps

    def text(self) -> str:
        """The module's text. It is good for nothing when there are problems."""
        made: Any = self._made
        handlers, plans = list(map(self._handler, self.steps)), "".join(map(self._plan, self.steps))
        finalized, parameters = self._finalized(), self._parameters()
        camel = made.__name__ if made.__name__ not in self.gathered.held else f"{made.__name__}Job"
        ours = {camel, "ALL_JOBS", "ALL_HANDLERS", *(f"{step.name}_handler" for step in self.steps)}
        for name in sorted(ours & self.gathered.held.keys()):
            self.gathered.problem(f"{name!r} is what the exported module calls something of its own: rename yours.")
        users = len(self.gathered.code)
        for name in filter(lambda name: name.startswith("_"), vars(carried)):  # they bring what they import
            self.gathered.take(name, vars(carried), "the exported module")
        self.gathered.take("ClassVar", {"ClassVar": ClassVar}, "the exported module")
        mark = "@_ending\n" if "_ending" in self.gathered.code else ""
        code = list(self.gathered.code.values())
        left_out = ("limit", "size", "memory")
        stages = [{key: value for key, value in stage.items() if key not in left_out} for stage in made.stages]
        for step, stage in zip(self.steps, made.stages, strict=True):
            for key in (key for key in left_out[1:] if key in stage):
                self.gathered.notes.append(f"{key}= of {step.name} is geoflow's alone: it is left out.")
        for limit in dict.fromkeys(stage["limit"] for stage in made.stages if "limit" in stage):
            self.gathered.notes.append(f"the limit {limit.name!r} ({limit}) is geoflow's alone: it is left out.")
        title = " ".join(plain(made.description or made.job_type).split()).replace("\\", "\\\\").replace('"', "'")
        return _MODULE.format(
            title=title + ("" if title.endswith((".", "?", "!")) else "."),
            names=", ".join(step.name for step in self.steps),
            top="\n\n".join(filter(None, [self._imports(), "\n".join(self.gathered.values.values())])),
            code="\n\n".join(code[:users]).strip(),
            carried="\n\n".join(code[users:]).strip(),
            handlers="\n\n".join(mark + handler for handler in handlers).strip(),
            camel=camel,
            job=made.job_type,
            description=literal(made.description),
            stages="\n".join(f"        {literal(stage, 8)}," for stage in stages),
            non_identity=literal(made.non_identity_parameters),
            plans=plans,
            last=self.steps[-1].task_type,
            finalized=finalized,
            registered="\n".join(f'    "{step.task_type}": {step.name}_handler,' for step in self.steps),
            **parameters,
        )

    def _parameters(self) -> dict[str, str]:
        """What the class does with parameters, as code."""
        params, outside = self._made.flow_params, [*self._made.non_identity_parameters]
        schema, validated = '{"type": "object"}', "_plain(params)"
        if params is not None:
            name, names = self._class(params), accepted(params, {"*params": 0})
            if names != ["*params"]:  # else it says itself what becomes of names that it has not
                outside += sorted(ADDED - {*names})  # production's submit adds them by itself
                names = list(map(literal, dict.fromkeys(names)))
            schema, validated = (
                f"TypeAdapter({name}).json_schema()",
                f"_validated({', '.join([name, 'params', *names])})",
            )
        return {"schema": schema, "validated": validated, "outside": "".join(f", {literal(name)}" for name in outside)}

    def _imports(self) -> str:
        is_lazy = any(inspect.unwrap(step.function).__code__.co_flags & LAZY for step in self.steps)
        return statements(self.gathered.imports, is_lazy=is_lazy)

    def _class(self, kind: type) -> str:
        """The name of a class that is taken along."""
        scopes: list[Scope] = [scope_of(inspect.unwrap(step.function), {}) for step in self.steps]
        own: Scope = {"__name__": kind.__module__, kind.__name__: kind}
        scope = next((scope for scope in scopes if kind.__name__ in scope), own)
        self.gathered.take(kind.__name__, scope, self._made.job_type)
        return kind.__name__

    def _call(self, step: Step, sources: Mapping[Role, str]) -> str:
        scope = scope_of(inspect.unwrap(step.function), {})
        self.gathered.take(step.name, {**scope, step.name: step.function}, self._made.job_type)
        arguments = [step.name]
        for name, (role, taken) in step.takes.items():
            source, params = sources[role], self._made.flow_params
            if role == "params" and params and name not in step.function.__annotations__:
                source = f"_made({self._class(params)}, {source})"
            if is_foreign(hint := params if role == "params" and params else taken.annotation, taken.added):
                self.gathered.problem(
                    f"{step.name} takes {name}: {show(hint)}, which geoflow alone makes from JSON: "
                    "take what is stored (GeoJSON, WKT, numbers, the reference of gf.save), and make it inside."
                )
            arguments.append(f"{name}={source}")
        return f"_called({', '.join(arguments)})"

    def _handler(self, step: Step) -> str:
        for name, (role, _) in step.takes.items():
            if role == "context":
                self.gathered.problem(
                    f"{step.name} takes a context ({name}), which production does not give to handlers: leave it out. "
                    "To log, use logging.getLogger(__name__)."
                )
        is_reduce, results = step.kind == "reduce", '_results(params["previous_results"])'
        sources: dict[Role, str] = {
            "item": 'params["item"]',
            "params": 'params["job_parameters"]' if is_reduce else 'params["params"]',
            "results": results if step.shape == "all" else f"_first({results})",
            "context": "None",
        }
        about, call = _ABOUT[step.kind].format(step.previous), self._call(step, sources)
        return _HANDLER.format(name=step.name, about=about, call=call)

    def _plan(self, step: Step) -> str:
        parameters = ['"item": item'] if step.kind == "each" else []
        parameters += ['"params": job_params'] if "params" in dict(step.takes.values()) else []
        about: dict[str, Any] = {"name": step.name, "task_type": step.task_type, "parameters": ", ".join(parameters)}
        if step.kind == "reduce":
            return ""
        if step.kind == "stage":
            return _ONE.format(**about)
        items = "results"
        if step.over:
            items = self._picked(step, step.over, "results", self.steps[step.number - 2].function, "return")
        keys = "range(len(items))"
        if step.key:
            main = next(name for name, (role, _) in step.takes.items() if role == "item")
            keys = self._picked(step, step.key, "items", step.function, main)
        items = f"_items({items})" if step.shape == "items" else items
        return _EACH.format(number=step.number, items=items, keys=keys, **about)

    def _picked(self, step: Step, pick: Pick, values: str, function: Any, annotated: str) -> str:
        """Code for what *pick* finds in each of *values*: what *function* has for *annotated* in its annotations."""
        if isinstance(pick.how, str):
            return f"[one[{literal(pick.how)}] for one in {values}]"
        name = getattr(pick.how, "__name__", "")
        self.gathered.take(name, {name: pick.how}, f"{pick.what}= of {step.name}")
        kind = pick.taken.annotation if pick.taken else Any
        if annotated in function.__annotations__:
            values = f'_made(list[_hint({function.__name__}, "{annotated}")], {values})'
        elif isinstance(kind, type):
            values = f"_made(list[{self._class(kind)}], {values})"
        elif kind is not Any:
            self.gathered.problem(
                f"{step.name} has a {pick.what}= that is a function: annotate {annotated}, which it is of."
            )
        return f"[_plain({name}(one)) for one in {values}]"

    def _finalized(self) -> str:
        ending, indent = self._made.flow_ending, " " * 8
        if ending is not None:
            results = "results" if ending.shape == "all" else "_first(results)"
            sources: dict[Role, str] = {"results": results, "params": "context.parameters", "context": "context"}
            return f"{indent}return _plain({self._call(ending, sources)})"
        if self.steps[-1].kind == "each":
            return f'{indent}return {{"count": len(results), "results": results[:1000]}}'
        return f'{indent}only = _first(results)\n{indent}return only if isinstance(only, dict) else {{"result": only}}'


def statements(imports: Mapping[str, Sequence[str]], *, is_lazy: bool = False) -> str:
    """What a module imports, in the usual order; annotations of one that *is_lazy* are not looked up."""
    named = defaultdict(list)
    for line in sorted({line for lines in imports.values() for line in lines}):
        head, _, name = line.partition(" import ")
        named[head].append(name)
    lines = [f"{head} import {', '.join(names)}" if names[0] else head for head, names in named.items()]
    blocks: list[list[str]] = [["from __future__ import annotations"] if is_lazy else [], [], []]
    for line in sorted(lines, key=lambda line: (line.startswith("from"), line)):
        blocks[1 if line.split()[1].partition(".")[0] in sys.stdlib_module_names else 2].append(line)
    return "\n\n".join("\n".join(block) for block in blocks if block)
