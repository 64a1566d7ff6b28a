"""A job type whose tasks write files, and what is left of them. Light, since many processes import it."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import geoflow as gf
from geoflow.support.identity import PREFIX

PIECES = 8
WHOLE = "".join(f"piece {number}\n" for number in range(PIECES))


def write(params: dict[str, Any], context: gf.TaskContext) -> dict[str, Any]:
    """Write ``path`` piece by piece, and on the way do what ``do`` says; see `beside` for where it is found then."""
    do, path = params.get("do"), Path(params["path"])
    if context.attempt > params.get("until_attempt", 99):
        do = None
    (gf.scratch() / "some").write_text("a draft")
    with gf.output(path) as writing:
        if (found := params.get("found")) is not None:
            Path(found).write_text(f"{writing}\n{gf.scratch()}\n")
        for number in range(PIECES):
            with writing.open("a") as file:
                file.write(f"piece {number}\n")
            if number == PIECES // 2:
                _halfway(do, writing)
            time.sleep(params.get("pause", 0))
    if do == "raise later":
        raise ValueError("after the block")
    if do == "interrupt":
        raise KeyboardInterrupt
    if do == "return failure":
        return {"success": False, "error": "no", "retryable": False}
    result = {"draft": writing, "scratch": gf.scratch()}.get(str(do), path)
    return {"success": True, "result": {"path": str(result), "was": path.exists()}}


def write_first(params: dict[str, Any]) -> dict[str, Any]:
    """The same, as in a first attempt: it takes no context."""
    return write(params, gf.TaskContext("", "writes", 1, "", 0, "write", 1, logging.getLogger()))


def _halfway(do: Any, writing: Path) -> None:
    if do == "raise":
        raise OSError("in the block")
    if do == "die":
        os.kill(os.getpid(), 9)
    if do == "hang":
        time.sleep(600)
    if do == "in a thread":
        thread = threading.Thread(target=_other, args=(writing.parents[1] / "thread",))
        thread.start()
        thread.join()
        raise OSError("in the block")
    if do == "in a fork":
        if (child := os.fork()) == 0:
            _other(writing.parents[1] / "fork")
            os._exit(0)
        os.waitpid(child, 0)
        raise OSError("in the block")
    if do == "more":
        writing.with_name(f"{writing.name}.ovr").write_text("new")


def _other(path: Path) -> None:
    with gf.output(path) as writing:
        writing.write_text(WHOLE)


class Writes:
    job_type = "writes"
    description = "Files."
    stages: ClassVar[list[dict[str, Any]]] = [
        {"number": 1, "name": "write", "task_type": "write", "parallelism": "single"}
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return f"{params['number']:064x}"

    @staticmethod
    def create_tasks_for_stage(stage: int, params: dict[str, Any], job_id: str, previous: Any = None) -> Any:
        return [
            {"task_id": f"{job_id[-4:]}-{number}", "task_type": "write", "parameters": task}
            for number, task in enumerate(params["tasks"])
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {"tasks": len(context.task_results)}


def submit(session: gf.Session, *tasks: dict[str, Any], **how: Any) -> gf.JobHandle:
    session.register(Writes, handlers={"write": write})
    return session.submit("writes", tasks=list(tasks), number=1, **how)


def left(folder: Path) -> list[Path]:
    """What is in *folder* that is no output, and what attempts have at hand in the temporary folder."""
    temp = Path(tempfile.gettempdir())
    homes = [path for path in temp.glob(f"{PREFIX}*") if (path / "scratch").exists() or any(path.glob("[0-9]*"))]
    return [*folder.glob(".*"), *homes, *temp.glob(f"{PREFIX}*/{PREFIX}*")]
