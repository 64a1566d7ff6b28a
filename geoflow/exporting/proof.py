"""Prove that an exported module does what was recorded of a run: in a process of its own, which has no geoflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoflow.errors import DefinitionError
from geoflow.flow.crossing import ADDED
from geoflow.values import from_json

if TYPE_CHECKING:
    from geoflow.handle import JobHandle

MOST = 20  # tasks of each stage that run again
SECONDS = 600.0
_ADDED: dict[str, Any] = {**dict.fromkeys(ADDED), "use_service_bus": False}
_CHILD = Path(__file__).with_name("child.py")


def recorded(job: JobHandle, contract: Any) -> dict[str, Any]:
    """What a completed run was given and made: parameters, ids, and the results of its tasks in order, by stage."""
    row, frame, parameters = job._row(), job.tasks(), job.parameters
    wanted = ("task_id", "task_type", "status", "result")
    tasks: list[list[dict[str, Any]]] = [[] for _ in contract.stages]
    for task in frame.to_dict("records"):
        tasks[task["stage"] - 1].append({name: task[name] for name in wanted})
    asked = {**_ADDED, **parameters}
    try:
        validated = contract.validate_job_parameters(asked)
    except ValueError:  # what it makes of parameters is nothing that it would take
        validated = None
    return {
        "job_id": job.id,
        "parameters": parameters,
        "asked": asked,
        "validated": validated,
        "stages": [[task for task in found if task["status"] == "completed"] for found in tasks],
        "task_results": [
            {
                "task_id": task["task_id"],
                "task_type": task["task_type"],
                "status": str(task["status"]),
                "result_data": task["result"] or {},
                "error_details": None,
                "success": task["status"] == "completed",
            }
            for found in tasks
            for task in found
        ],
        "result": None if job.with_errors else from_json(row.result or "null"),
    }


def prove(name: str, text: str, run: dict[str, Any]) -> dict[str, int]:
    """How many of what were the same; ``DefinitionError`` with what was not."""
    with tempfile.TemporaryDirectory(prefix="geoflow-export-") as folder:
        module, asked, told = (Path(folder, each) for each in (f"{name}.py", "asked", "told"))
        module.write_text(text, "utf-8")
        paths = [os.path.abspath(path) for path in sys.path]
        about = {"name": name, "module": str(module), "sys_path": paths, "run": run, "most": MOST}
        asked.write_text(json.dumps(about), "utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(_CHILD), str(asked), str(told)],
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise DefinitionError(f"its proof did not end within {SECONDS:.0f} s; prove=False leaves it out.") from None
        if not told.exists():
            last = (done.stderr.strip().splitlines() or [""])[-1]
            raise DefinitionError(f"its proof ended with exit code {done.returncode}: {last}")
        found = json.loads(told.read_text("utf-8"))
    if found["different"]:
        shown = [f"  - {line}" for line in found["different"][:10]]
        more = len(found["different"]) - len(shown)
        raise DefinitionError("\n".join([*shown, *([f"  - and {more:,} more"] if more else [])]))
    same: dict[str, int] = found["same"]
    return same
