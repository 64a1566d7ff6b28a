"""Run an exported module as production would: ``python child.py ASKED TOLD``, in a process that has no geoflow.

ASKED says in JSON which module, where its imports are found, and a run that was recorded. What differs goes to TOLD.
"""

import contextlib
import importlib.util
import json
import sys
import traceback
from types import ModuleType, SimpleNamespace
from typing import Any

ADDED = {"_correlation_id": "export", "_processing_path": "queue"}


def in_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def load(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Comparison:
    """Counts what is the same, by kind, and says what is not."""

    def __init__(self) -> None:
        self.same: dict[str, int] = {}
        self.different: list[str] = []

    def of(self, kind: str, what: str, was: Any, made: Any, *arguments: Any) -> None:
        """Call *made*, and compare with what *was*."""
        try:
            found = in_json(made(*arguments))
        except Exception as exc:
            last = traceback.extract_tb(exc.__traceback__)[-1]
            told = f"raises {type(exc).__name__}: {exc} ({last.name}, line {last.lineno})"
        else:
            if found == was:
                self.same[kind] = self.same.get(kind, 0) + (len(found) if kind == "task ids" else 1)
                return
            told = difference(was, found)
        self.different.append(f"{what} {told}")


def difference(was: Any, found: Any) -> str:
    """The first place where two values differ."""
    if isinstance(was, dict) and isinstance(found, dict):
        for key in [*was, *(key for key in found if key not in was)]:
            if key not in found or key not in was or was[key] != found[key]:
                return f"[{key!r}]{difference(was.get(key), found.get(key))}"
    if isinstance(was, list) and isinstance(found, list):
        for place, (one, other) in enumerate(zip(was, found, strict=False)):
            if one != other:
                return f"[{place}]{difference(one, other)}"
        return f": was {len(was)} items, is {len(found)}"
    return f": was {json.dumps(was)[:200]}, is {json.dumps(found)[:200]}"


def ids_of(plan: Any, number: int, given: Any, job_id: str, previous: Any, into: list[Any]) -> list[str]:
    """The ids of the tasks that are planned for a stage; their parameters are kept."""
    made = plan(number, given, job_id, previous)
    into += [task["parameters"] for task in made]
    return [task["task_id"] for task in made]


def compare(asked: dict[str, Any], found: Comparison) -> None:
    module = load(asked["name"], asked["module"])
    job_type, run = asked["name"], asked["run"]
    job, handlers = module.ALL_JOBS[job_type], module.ALL_HANDLERS
    given, job_id = run["parameters"], run["job_id"]
    if run["validated"] is not None:
        found.of("parameters", "parameters", run["validated"], job.validate_job_parameters, run["asked"])
    found.of("job id", "the job id", job_id, job.generate_job_id, given)
    previous: list[Any] | None = None
    for stage, tasks in zip(job.stages, run["stages"], strict=True):
        number, where = stage["number"], f"stage {stage['number']}"
        if stage["parallelism"] == "fan_in":
            about = {"stage": number, "previous_stage": number - 1, "pattern": "fan_in"}
            about["result_count"] = len(previous or [])
            planned = [{"previous_results": previous, "job_parameters": given, "aggregation_metadata": about}]
        else:
            planned = []
            ids = [task["task_id"] for task in tasks]
            arguments = number, given, job_id, previous, planned
            found.of("task ids", f"{where}: its task ids", ids, ids_of, job.create_tasks_for_stage, *arguments)
            planned = planned if len(planned) == len(tasks) else []
        chosen = range(0, len(planned), max(len(planned) // asked["most"], 1))[: asked["most"]]
        for index in chosen:
            task, parameters = tasks[index], in_json({**planned[index], **ADDED})
            what = f"{where}: the result of {task['task_id']}"
            found.of("results", what, task["result"], handlers[stage["task_type"]], parameters)
        previous = [task["result"] for task in tasks] or None
    if run["result"] is not None:
        every = [SimpleNamespace(**task) for task in run["task_results"]]
        names = {"job_id": job_id, "job_type": job_type, "total_stages": len(job.stages)}
        context = SimpleNamespace(**names, current_stage=len(job.stages), parameters=given, task_results=every)
        found.of("finalize", "the result of finalize", run["result"], job.finalize_job, context)


def main(asked_path: str, told_path: str) -> None:
    with open(asked_path, encoding="utf-8") as file:
        asked = json.load(file)
    sys.modules["geoflow"] = None  # type: ignore[assignment]
    sys.path[:] = asked["sys_path"]
    found = Comparison()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            compare(asked, found)
        except Exception as exc:
            found.different.append("it cannot be used: " + "".join(traceback.format_exception(exc, limit=-2)))
    with open(told_path, "w", encoding="utf-8") as file:
        json.dump({"same": found.same, "different": found.different}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
