"""Job types that are measured with, beside that of `noop_job`."""

import os
import time
from pathlib import Path

from benchmarks.tasks import busy, gathered, listing
from geoflow.jobtypes.contract import job_id_for


class Job:
    """What the job types here have in common."""

    job_type: str

    @classmethod
    def generate_job_id(cls, params):
        return job_id_for(cls.job_type, params)

    @staticmethod
    def validate_job_parameters(params):
        return dict(params)

    @staticmethod
    def finalize_job(context=None):
        return {"tasks": len(context.task_results)}


class TwoStages(Job):
    """``n`` tasks of ``loops`` each."""

    job_type = "two_stages"
    description = "List, n tasks that keep a processor at work, fan-in."
    stages = [
        {"number": 1, "name": "list", "task_type": "list", "parallelism": "single"},
        {"number": 2, "name": "work", "task_type": "work", "parallelism": "fan_out"},
        {"number": 3, "name": "gather", "task_type": "gather", "parallelism": "fan_in"},
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if stage == 1:
            return [{"task_id": "list", "task_type": "list", "parameters": job_params}]
        items = previous_results[0]["result"]["items"]
        return [{"task_id": f"work-{item['index']:06d}", "task_type": "work", "parameters": item} for item in items]

    @staticmethod
    def finalize_job(context=None):
        return context.task_results[-1].result_data["result"]


def list_work(params):
    return {"success": True, "result": {"items": listing(params)}}


def gather(params):
    return {"success": True, "result": {"sum": gathered(params["previous_results"])}}


class Rows(Job):
    """``n`` tasks that return a few values each."""

    job_type = "rows"
    description = "n tasks with results as small ones are."
    stages = [{"number": 1, "name": "row", "task_type": "row", "parallelism": "single"}]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return [
            {"task_id": f"row-{index:06d}", "task_type": "row", "parameters": {"index": index}}
            for index in range(job_params["n"])
        ]


def row(params):
    index = params["index"]
    return {"success": True, "result": {"index": index, "value": index / 7, "name": f"row {index}"}}


class Held(Job):
    """``n`` tasks, of which the last ``held`` never end before the file ``folder``/resumed is there."""

    job_type = "held"
    description = "n tasks that write down that they ran; the last of them hang until the job is resumed."
    stages = [{"number": 1, "name": "run", "task_type": "run", "parallelism": "single"}]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        n, held, folder = job_params["n"], job_params["held"], job_params["folder"]
        # Tasks of different types do not travel together, so none that ends waits for one that hangs.
        return [
            {
                "task_id": f"run-{index:06d}",
                "task_type": "run" if index < n - held else "hang",
                "parameters": {"index": index, "folder": folder},
            }
            for index in range(n)
        ]


def run(params):
    _write_down(params)
    return {"success": True}


def hang(params):
    _write_down(params)
    # Looked for once: a worker that outlives its driver for a moment must not go on when the job is resumed.
    if not (Path(params["folder"]) / "resumed").exists():
        time.sleep(60)
        return {"success": False, "error": "nobody ended this job's process", "retryable": False}
    return {"success": True}


def _write_down(params):
    with (Path(params["folder"]) / f"{os.getpid()}.ran").open("a") as file:
        file.write(f"{params['index']}\n")


ALL_JOBS = {job.job_type: job for job in (TwoStages, Rows, Held)}
ALL_HANDLERS = {"list": list_work, "work": busy, "gather": gather, "row": row, "run": run, "hang": hang}
