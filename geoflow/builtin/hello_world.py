"""hello_world: greet n times, then reply to each greeting. The smallest complete job type, to be read and copied.

The class says what the work is and never does any of it; the two handlers do the work and know nothing of the job.
"""

from __future__ import annotations

import random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from geoflow.core.models import JobExecutionContext, TaskContext
from geoflow.errors import TaskExecutionError
from geoflow.jobtypes.contract import job_id_for, task_id

GREETING = "hello_world_greeting"
REPLY = "hello_world_reply"
SHOWN = 10


class HelloWorldParameters(BaseModel):
    """What a submission may say. ``message`` is used literally; ``failure_rate`` is the share of attempts that fail."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    n: int = Field(default=3, ge=1, le=1000)
    message: str = "Hello"
    failure_rate: float = Field(default=0.0, ge=0.0, le=1.0)


class HelloWorld:
    job_type = "hello_world"
    description = "Greet n times, then reply to each greeting; attempts fail at failure_rate, the same way every time."
    # How often attempts fail says nothing about what the work is: the same greetings are the same job.
    non_identity_parameters = ("failure_rate",)
    stages = [
        {"number": 1, "name": "greeting", "task_type": GREETING, "parallelism": "single"},
        {"number": 2, "name": "reply", "task_type": REPLY, "parallelism": "fan_out"},
    ]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        """The parameters with their defaults; pydantic's ``ValidationError`` (a ``ValueError``) lists every problem."""
        return HelloWorldParameters.model_validate(params).model_dump(mode="json")

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        """64 hex digits over the job type, ``n`` and ``message``."""
        return job_id_for(HelloWorld.job_type, params, exclude=HelloWorld.non_identity_parameters)

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """Stage 1: one greeting for each of ``n``. Stage 2: one reply for each greeting that completed."""
        failure_rate = job_params["failure_rate"]
        if stage == 1:
            return [
                {
                    "task_id": task_id(job_id, stage, f"greeting-{index}"),
                    "task_type": GREETING,
                    "parameters": {"index": index, "message": job_params["message"], "failure_rate": failure_rate},
                }
                for index in range(job_params["n"])
            ]
        return [
            {
                "task_id": task_id(job_id, stage, f"reply-{greeting['index']}"),
                "task_type": REPLY,
                "parameters": {**greeting, "failure_rate": failure_rate},
            }
            for greeting in (previous["result"] for previous in previous_results or [])
        ]

    @staticmethod
    def finalize_job(context: JobExecutionContext | None = None) -> dict[str, Any]:
        """How many greetings and replies there were, and the first ten exchanges."""
        done = [task for task in context.task_results if task.success] if context else []
        replies = [task.result_data["result"] for task in done if task.task_type == REPLY]
        return {
            "greetings": len(done) - len(replies),
            "replies": len(replies),
            "first": [{"greeting": reply["greeting"], "reply": reply["reply"]} for reply in replies[:SHOWN]],
        }


def greet(params: dict[str, Any], context: TaskContext | None = None) -> dict[str, Any]:
    """``message`` with the number of the greeting, counted from 1."""
    _fail_sometimes(params["failure_rate"], context)
    index = params["index"]
    return {"success": True, "result": {"index": index, "greeting": f"{params['message']} #{index + 1}"}}


def reply(params: dict[str, Any], context: TaskContext | None = None) -> dict[str, Any]:
    """An answer that quotes the greeting."""
    _fail_sometimes(params["failure_rate"], context)
    index, greeting = params["index"], params["greeting"]
    return {"success": True, "result": {"index": index, "greeting": greeting, "reply": f"{greeting} to you too"}}


def _fail_sometimes(failure_rate: float, context: TaskContext | None) -> None:
    """Raise ``TaskExecutionError`` for this share of attempts: the same ones in every run, but anew for each retry.

    Without a context, which only geoflow gives, chance alone decides.
    """
    attempt = context and f"{context.job_id}|{context.task_id}|{context.attempt}"
    if random.Random(attempt).random() < failure_rate:
        raise TaskExecutionError(f"Failed on purpose (failure_rate={failure_rate:g}); a retry may succeed.")


ALL_JOBS = {HelloWorld.job_type: HelloWorld}
ALL_HANDLERS = {GREETING: greet, REPLY: reply}
