"""Jobs of several shapes whose tasks fail by chance, for a while: each is known by its name, wherever it stands.

What a task gives depends on all that it was given, and so does the result of the job: two runs that differ anywhere
differ there.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import geoflow as gf
from geoflow.jobtypes.contract import job_id_for
from tests.helpers.sessions import rows

FAILURES = ("value", "value", "os", "returned")  # and, in a process of its own, "die"


def draw(*parts: Any) -> int:
    """A number that is always the same for the same *parts*."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:6], "big")


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


class Weather:
    """In *folder*: which tasks fail, *percent* of them by their names and a *salt*; and which have run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def is_now(self, percent: int, salt: int = 0, *, deadly: bool = False) -> None:
        text = json.dumps({"percent": percent, "salt": salt, "deadly": deadly})
        (self.folder / "next").write_text(text)
        os.replace(self.folder / "next", self.folder / "weather")

    def ran(self) -> list[str]:
        trace = self.folder / "trace"
        return trace.read_text().splitlines() if trace.exists() else []


def grow(params: dict[str, Any]) -> dict[str, Any]:
    return _grown(params, None)


def grow_told(params: dict[str, Any], context: gf.TaskContext) -> dict[str, Any]:
    return _grown(params, [context.task_id, context.task_index])


def gather(params: dict[str, Any]) -> dict[str, Any]:
    about = params["job_parameters"]
    name = f"{params['aggregation_metadata']['stage']}-{about['number']}.all"
    return _grown({"folder": about["folder"], "name": name, "given": params}, None)


def _grown(params: dict[str, Any], told: Any) -> dict[str, Any]:
    folder, name = Path(params["folder"]), params["name"]
    with open(folder / "trace", "a") as file:
        file.write(f"{name}\n")
    weather = json.loads((folder / "weather").read_text())
    time.sleep(draw(name) % 3 / 1_000)
    if draw(name, weather["salt"]) % 100 < weather["percent"]:
        ways = (*FAILURES, "die") if weather["deadly"] else FAILURES
        way = ways[draw(name, "way", weather["salt"]) % len(ways)]
        if way == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "returned":
            return {"success": False, "error": f"{name} is not there", "retryable": False}
        raise {"value": ValueError, "os": OSError}[way](f"{name} is broken")
    given = json.loads(json.dumps(params).replace(params["folder"], ""))  # the same wherever it ran
    return {"success": True, "result": {"name": name, "digest": digest([given, told])}}


class Grown:
    """``tasks`` of the first stage; in a fan-out, one to three for each result; ``told`` ones take a context."""

    job_type = "grown"
    description = "Tasks that fail by chance."
    on_failure = "continue"

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        return job_id_for(cls.job_type, {**params, "folder": ""})

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        names = [f"{job_params['number']}.{n}" for n in range(job_params["tasks"])]
        if stage > 1:
            before = [result["result"]["name"] for result in previous_results or ()]
            names = [f"{name}.{n}" for name in before for n in range(1 + draw(name, "children") % 3)]
        kind = "grow_told" if job_params["told"] else "grow"
        made = [{"name": f"{stage}-{name.rpartition('-')[2]}", "folder": job_params["folder"]} for name in names]
        # Known by their names, or by their places.
        ids = [f"{stage}-{place}" if job_params["placed"] else task["name"] for place, task in enumerate(made)]
        return [{"task_id": ids[place], "task_type": kind, "parameters": task} for place, task in enumerate(made)]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        told = [
            [task.task_id, task.task_type, str(task.status), task.success, task.result_data, task.error_details]
            for task in context.task_results
        ]
        return {"tasks": len(told), "failed": sum(not task[3] for task in told), "digest": digest(told)}


def _of(*kinds: str) -> list[dict[str, Any]]:
    types = dict.fromkeys(("single", "fan_out"), "grow") | {"fan_in": "gather"}
    return [
        {"number": number, "name": f"{kind}_{number}", "task_type": types[kind], "parallelism": kind}
        for number, kind in enumerate(kinds, start=1)
    ]


class GrownOnce(Grown):
    job_type = "grown_once"
    stages = _of("single")


class GrownOut(Grown):
    job_type = "grown_out"
    stages = _of("single", "fan_out", "fan_out")


class GrownIn(Grown):
    job_type = "grown_in"
    stages = _of("single", "fan_out", "fan_in")


class GrownAgain(Grown):
    job_type = "grown_again"
    stages = _of("single", "fan_in", "fan_out", "fan_in")


ALL_JOBS = {job.job_type: job for job in (GrownOnce, GrownOut, GrownIn, GrownAgain)}
ALL_HANDLERS: dict[str, Any] = {"grow": grow, "grow_told": grow_told, "gather": gather}


def all_of(session: gf.Session, job: gf.JobHandle, folder: Path) -> tuple[Any, ...]:
    """What a job came to, but for the folder: its state, its tasks with what they were given and gave, its result."""
    sql = "SELECT stage, task_index, task_id, task_type, status, parameters, result FROM tasks"
    found = rows(session, f"{sql} WHERE job_id = ? AND superseded = 0 ORDER BY stage, task_index", job.id)
    tasks = [tuple(str(value).replace(str(folder), "") for value in row) for row in found]
    return job.status, job.with_errors, tasks, job.result() if job.status == "completed" else None
