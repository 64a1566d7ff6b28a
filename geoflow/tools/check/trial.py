"""The trial of a job type from outside: sample parameters, one process with a time limit, and what it tells."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from geoflow.executors.spawning import SlotContext
from geoflow.jobtypes.contract import Registered
from geoflow.jobtypes.schema import schema_of
from geoflow.support.jsonable import to_json
from geoflow.support.text import human_duration
from geoflow.tools.check import trial_child
from geoflow.tools.check.findings import Finding, finding
from geoflow.tools.check.subject import Subject, shown
from geoflow.usercode.packing import pack


def trial(
    subject: Subject, registered: Registered, given: Mapping[str, Any] | None, run: int, seconds: float
) -> Iterator[Finding]:
    """What comes of trying *registered* with the parameters *given*, or else with what its schema tells.

    Without a schema it is tried with none, and stops where validation asks for some.
    """
    schema, are_given = schema_of(registered.job_class), given is not None
    are_guessed = not are_given and schema is None and _takes_parameters(registered.job_class)
    if given is None:
        given, wanted = _sample(schema)
        if wanted:
            yield subject.finding("GF901", wanted, "method", "validate_job_parameters")
            return
    known = list((schema or {}).get("properties", ()))
    ask = {"stages": registered.stages, "job_type": registered.name, "given": given, "known": known, "run": run}
    ask |= {"are_given": are_given, "are_guessed": are_guessed}
    at, done = ["class", ""], False
    ended, messages = _ran(registered, to_json(ask, where="parameters"), seconds)
    for message in messages:
        at, done = message.get("doing", at), "done" in message
        if "code" in message:
            place = message["place"]
            where = shown(*place) if place else subject.where(*message["at"])
            yield finding(message["code"], subject.name, message["what"], where)
    if not done:
        yield subject.finding("GF903", f"{ended}, in the {' '.join(at)}".rstrip() + ".", *at)


def _takes_parameters(job_class: Any) -> bool:
    """Whether it may; of typed functions it is known."""
    steps = getattr(job_class, "flow_steps", None)
    return steps is None or any(role == "params" for step in steps for role, _ in step.takes.values())


def _sample(schema: dict[str, Any] | None) -> tuple[dict[str, Any], str]:
    """The examples of the schema, defaults left to validate; and in words what is required and has neither, if any."""
    if schema is None:
        return {}, ""
    described = {name: about for name, about in schema["properties"].items() if isinstance(about, Mapping)}
    examples = {name: about["examples"][0] for name, about in described.items() if about.get("examples")}
    examples |= {name: about["example"] for name, about in described.items() if "example" in about}
    missing = [str(name) for name in schema.get("required") or () if name not in examples]
    return examples, f"There are no defaults or examples for {', '.join(missing)}." if missing else ""


def _ran(registered: Registered, ask: str, seconds: float) -> tuple[str, list[dict[str, Any]]]:
    """How the process ended, and what it told before."""
    codes = {name: pack(handler) for name, handler in registered.handlers.items()}
    with tempfile.NamedTemporaryFile() as messages:
        arguments = (messages.name, pack(registered.job_class), codes, ask, dict(os.environ), seconds)
        process = SlotContext().Process(target=trial_child.main, args=arguments)
        process.start()
        try:
            process.join(seconds)
            code = process.exitcode
        finally:
            with contextlib.suppress(OSError):  # with all that it started, if it came so far as to lead a group
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
        lines = messages.read().decode().splitlines(keepends=True)
    ended = f"It was stopped after {human_duration(seconds)}"
    if code is not None:
        ended = f"The process ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
    return ended, [json.loads(line) for line in lines if line.endswith("\n")]
