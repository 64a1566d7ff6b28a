"""Prove that an exported module does what was recorded of a run: in a process of its own, which has no geoflow."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from geoflow.core.rows import JobRow
from geoflow.errors import DefinitionError
from geoflow.executors.spawning import python
from geoflow.jobtypes.typed.crossing import ADDED
from geoflow.stores.store import Store
from geoflow.support.jsonable import from_json
from geoflow.views import rows

MOST = 20  # tasks of each stage that run again
SECONDS = 600.0
_ADDED: dict[str, Any] = {**dict.fromkeys(ADDED), "use_service_bus": False}
_QUEUED = {"_correlation_id": "export", "_processing_path": "queue"}  # what production adds to a task's parameters
_CHILD = Path(__file__).with_name("proof_child.py")


class RecordedCall(NamedTuple):
    """A call that a run made, and what came of it: of a method of the job type, or of the handler of a task type."""

    kind: Literal["parameters", "job id", "task ids", "results", "finalize"]
    what: str
    function: str
    arguments: list[Any]
    was: Any


def recorded(store: Store, job: JobRow, contract: Any) -> list[RecordedCall]:
    """The calls that a completed run made, with those of up to 20 tasks of each stage."""
    every, params, previous = rows.tasks(store, job.job_id), from_json(job.parameters), None
    asked = {**_ADDED, **params}
    calls = [RecordedCall("job id", "the job id", "generate_job_id", [params], job.job_id)]
    with contextlib.suppress(ValueError):  # what it makes of parameters is nothing that it would take
        validated = contract.validate_job_parameters(asked)
        calls.insert(0, RecordedCall("parameters", "parameters", "validate_job_parameters", [asked], validated))
    for step in contract.flow_steps:
        where = f"stage {step.number}: "
        tasks = [task for task in every if task["stage"] == step.number]
        if step.kind != "reduce":
            kept = {"item", *dict(step.takes.values())}
            planned = [{"task_id": task["task_id"], "task_type": step.task_type} for task in tasks]
            for task, plan in zip(tasks, planned, strict=True):
                plan["parameters"] = {name: value for name, value in task["parameters"].items() if name in kept}
            arguments = [step.number, params, job.job_id, previous]
            calls.append(RecordedCall("task ids", where + "its tasks", "create_tasks_for_stage", arguments, planned))
        for task in tasks[:: max(len(tasks) // MOST, 1)][:MOST]:
            what, arguments = f"{where}the result of {task['task_id']}", [{**task["parameters"], **_QUEUED}]
            calls.append(RecordedCall("results", what, step.task_type, arguments, task["result"]))
        previous = [task["result"] for task in tasks] or None
    result = from_json(job.result or "{}") or {}
    if not result.get("fallback"):
        results = [
            {name: task[name] for name in ("task_id", "task_type", "status")}
            | {"result_data": task["result"], "error_details": None, "success": True}
            for task in every
        ]
        stages = len(contract.stages)
        context = {"job_id": job.job_id, "job_type": job.job_type, "current_stage": stages, "total_stages": stages}
        context |= {"parameters": params, "task_results": results}
        calls.append(RecordedCall("finalize", "the result of finalize", "finalize_job", [context], result))
    return calls


def proved_on(name: str, text: str, calls: list[RecordedCall]) -> dict[str, int]:
    """How many of what were the same; ``DefinitionError`` with what was not."""
    with tempfile.TemporaryDirectory(prefix="geoflow-export-") as folder:
        asked, outcome = Path(folder, "asked"), Path(folder, "outcome")
        Path(folder, f"{name}.py").write_text(text, "utf-8")
        paths = [folder, *map(os.path.abspath, sys.path)]
        saved = Path(folder, "saved")
        saved.mkdir()
        asked.write_text(json.dumps({"name": name, "sys_path": paths, "calls": calls}), "utf-8")
        try:
            done = subprocess.run(
                [python(), "-P", str(_CHILD), str(asked), str(outcome)],
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
                env={**os.environ, "SAVED_FOLDER": str(saved)},
            )
        except subprocess.TimeoutExpired:
            raise DefinitionError(f"its proof did not end within {SECONDS:.0f} s; prove=False leaves it out.") from None
        if not outcome.exists():
            last = (done.stderr.strip().splitlines() or [""])[-1]
            raise DefinitionError(f"its proof ended with exit code {done.returncode}: {last}")
        compared = json.loads(outcome.read_text("utf-8"))
    if different := compared["different"]:
        more = [f"  - and {len(different) - 10:,} more"] if len(different) > 10 else []
        raise DefinitionError("\n".join([*(f"  - {line}" for line in different[:10]), *more]))
    return compared["same"]  # type: ignore[no-any-return]
