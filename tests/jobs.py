"""Job types for the tests: tasks that do as their parameters say, in one, two or three stages."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from geoflow.contract import job_id_for


def act(params: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Do what ``params["do"]`` says; leave a line in the file ``params["trace"]`` first."""
    if params.get("trace"):
        with open(params["trace"], "a") as file:
            file.write(f"{context.task_id} {context.attempt}\n")
    do, value = params.get("do", "ok"), params.get("value")
    if params.get("until_attempt") and context.attempt >= params["until_attempt"]:
        do = "ok"
    ACTIONS.get(do, lambda value: None)(value)
    if do == "return":
        return value  # type: ignore[return-value]
    if do == "fail":
        return {"success": False, "error": "it said no", **(value or {})}
    return {"success": True, "result": {"index": context.task_index, "value": value, "pid": os.getpid()}}


def _raise(name: str) -> None:
    errors = {"OSError": OSError, "ValueError": ValueError, "RuntimeError": RuntimeError, "SystemExit": SystemExit}
    errors |= {"KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError}
    raise errors[name](f"a {name} on purpose")


def _hang(value: Any) -> None:
    time.sleep(value or 60)


def _hang_in_c(value: Any) -> None:
    re.fullmatch("(a+)+", "a" * 60 + "b")  # for years, and it keeps the GIL


def _say(value: str) -> None:
    print(value)
    print("on stderr", file=sys.stderr)
    os.write(1, b"from native code\n")
    logging.getLogger("users.own").warning("logged: %s", value)


def _spawn_child(path: str) -> None:
    Path(path).write_text(str(os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")))
    time.sleep(60)


def _note_pid(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(60)


def _fork_and_die(value: Any) -> None:
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def _say_then_die(value: str) -> None:
    print(value)
    os.kill(os.getpid(), signal.SIGKILL)


ACTIONS: dict[str, Any] = {
    "raise": _raise,
    "signal": lambda value: os.kill(os.getpid(), getattr(signal, value)),
    "segfault": lambda value: ctypes.string_at(0),
    "exit": os._exit,
    "hang": _hang,
    "hang in c": _hang_in_c,
    "say": _say,
    "sleep": time.sleep,
    "child then hang": _spawn_child,
    "pid then hang": _note_pid,
    "fork and die": _fork_and_die,
    "say then die": _say_then_die,
}


def collect(params: dict[str, Any]) -> dict[str, Any]:
    """Say what came in."""
    return {"success": True, "result": {"count": len(params["previous_results"]), "given": sorted(params)}}


class Acts:
    """One stage of the tasks in ``tasks``: a list of parameters for `act`."""

    job_type = "acts"
    description = "Tasks that do as they are told."
    stages = [{"number": 1, "name": "act", "task_type": "act", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(params.get("tasks"), list):
            raise ValueError("tasks must be a list of dicts")
        return params

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        return job_id_for(cls.job_type, params)

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        tasks = (
            job_params["tasks"] if stage == 1 else job_params.get(f"tasks_{stage}", [{}] * len(previous_results or ()))
        )
        _misbehave(job_params.get("plan") if stage == 1 else None)
        return [
            {"task_id": f"s{stage}-t{index}", "task_type": "act", "parameters": task}
            for index, task in enumerate(tasks)
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        do = context.parameters.get("finalize")
        if do == "none":
            return None  # type: ignore[return-value]
        _misbehave(do)
        return {
            "completed": sum(task.success for task in context.task_results),
            "values": [task.result_data.get("result", {}).get("value") for task in context.task_results],
            "statuses": [str(task.status) for task in context.task_results],
        }


def _misbehave(how: str | None) -> None:
    if how == "raise":
        raise RuntimeError("on purpose")
    if how == "hang":
        time.sleep(60)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)


class TwoActs(Acts):
    """As `Acts`, and a second stage of one task for each result, or of ``tasks_2``."""

    job_type = "two_acts"
    stages = [*Acts.stages, {"number": 2, "name": "again", "task_type": "act", "parallelism": "fan_out"}]


class ThreeActs(TwoActs):
    """As `TwoActs`, and a fan-in over the second stage."""

    job_type = "three_acts"
    stages = [*TwoActs.stages, {"number": 3, "name": "collect", "task_type": "collect", "parallelism": "fan_in"}]


class LargestActs(Acts):
    """As `Acts`, the largest first, by the ``size`` that some tasks have."""

    job_type = "largest_acts"
    stages = [{**Acts.stages[0], "order": "largest"}]

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        plan = super().create_tasks_for_stage(stage, job_params, job_id, previous_results)
        sizes = job_params["sizes"]
        return [{**task, "metadata": {"size": size}} for task, size in zip(plan, sizes, strict=True)]


ALL_JOBS = {"largest_acts": LargestActs, "acts": Acts, "two_acts": TwoActs, "three_acts": ThreeActs}
ALL_HANDLERS = {"act": act, "collect": collect}
