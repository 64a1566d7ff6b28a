"""A job type whose first stage saves an array and bytes, and whose second one and finalize load them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

import geoflow as gf

SIZE = 50_000


def array(seed: int) -> np.ndarray:
    return np.arange(SIZE, dtype="f4") * seed


def keep(params: dict[str, Any], context: gf.TaskContext) -> dict[str, Any]:
    """Save an array, and on the way do what ``do`` says in the first attempts."""
    do = params.get("do") if context.attempt <= params.get("until_attempt", 99) else None
    reference = gf.save(array(params["seed"]))
    same = gf.save(array(params["seed"])) == reference
    read = bool((gf.load(reference) == array(params["seed"])).all())
    if do == "hang":
        Path(params["found"]).write_text(reference["path"])
        time.sleep(600)
    if do == "die":
        os.kill(os.getpid(), 9)
    if do == "raise":
        raise OSError("after it has saved")
    if do == "return failure":
        return {"success": False, "error": "no", "retryable": False}
    if do == "frame":
        reference = gf.save(np.array([object()]))
    if do == "thread":
        found: list[str] = []
        thread = threading.Thread(target=_try, args=(found.append,))
        thread.start()
        thread.join()
        reference = {"said": found[0]}
    if do == "fork":
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        child = multiprocessing.get_context("fork").Process(target=_try, args=(theirs.send,))
        child.start()
        reference = {"said": ours.recv()}
        child.join()
    more = {"text": "x" * params["text"]} if "text" in params else {}
    return {"success": True, "result": {"array": reference, "checked": same and read, **more}}


def _try(tell: Any) -> None:
    try:
        tell(str(gf.save(b"from elsewhere")))
    except ValueError as exc:
        tell(str(exc))


def total(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": {"sum": float(gf.load(params["array"]).sum()), "note": gf.save(b"done")}}


class Saves:
    job_type = "saves"
    description = "Arrays."
    stages: ClassVar[list[dict[str, Any]]] = [
        {"number": 1, "name": "keep", "task_type": "keep", "parallelism": "single"},
        {"number": 2, "name": "total", "task_type": "total", "parallelism": "fan_out", "reuse": True},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return f"{params['number']:064x}"

    @staticmethod
    def create_tasks_for_stage(stage: int, params: dict[str, Any], job_id: str, previous: Any = None) -> Any:
        tasks = params["tasks"] if stage == 1 else [{"array": one["result"]["array"]} for one in previous]
        return [
            {"task_id": f"{stage}-{number}", "task_type": ("keep", "total")[stage - 1], "parameters": task}
            for number, task in enumerate(tasks)
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        totals = [one.result_data["result"] for one in context.task_results if one.task_type == "total"]
        notes = {gf.load(one["note"]) for one in totals}
        return {"sums": [one["sum"] for one in totals], "all": gf.save(b"+".join(sorted(notes)))}


def submit(session: gf.Session, *tasks: dict[str, Any], number: int = 1, **how: Any) -> gf.JobHandle:
    session.register(Saves, handlers={"keep": keep, "total": total})
    return session.submit("saves", tasks=list(tasks), number=number, **how)


def files(store: Path) -> dict[str, list[str]]:
    """What is in the folders of the jobs of *store*."""
    folder = Path(f"{store}.files")
    return {job.name: sorted(os.listdir(job)) for job in folder.iterdir()} if folder.exists() else {}


def typed() -> gf.JobType:
    """A typed job type, in which a frame and arrays go from stage to stage."""
    job = gf.JobType("typed_frames")

    @job.stage
    def frame(params: dict[str, Any]) -> pd.DataFrame:
        return pd.DataFrame({"a": range(params["n"]), "b": 10})

    @job.reduce(frame)
    def columns(frame: pd.DataFrame) -> list[np.ndarray]:
        return [frame["a"].to_numpy(), frame["b"].to_numpy()]

    @job.reduce(columns)
    def total(arrays: list[np.ndarray]) -> dict[str, Any]:
        return {"total": int(arrays[1].sum()), "dtype": str(arrays[0].dtype)}

    return job
