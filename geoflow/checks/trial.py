"""The trial of a job type from outside: sample parameters, one process with a time limit, and what it tells."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing import connection
from typing import Any

from geoflow.checks import probe
from geoflow.checks.findings import Finding, finding
from geoflow.checks.source import Subject, shown
from geoflow.contract import JobType
from geoflow.executors.spawning import SlotContext
from geoflow.notebook.fields import schema_of
from geoflow.text import human_duration
from geoflow.transport import pack
from geoflow.values import to_json

_HANDLER = re.compile(r"The handler of '[^']*' ")
_TOLD_BY_TEXT = {"GF340": ("GF205", "GF206", "GF207"), "GF341": ("GF205", "GF206"), "GF342": ("GF205", "GF206")}


def trial(
    subject: Subject, registered: JobType, given: Mapping[str, Any] | None, run: int, seconds: float
) -> Iterator[Finding]:
    """What comes of trying *registered* with the parameters *given*, or else with what its schema tells."""
    sample = samples(registered.job_class) if given is None else given
    if sample is None:
        wanted = ", ".join(_required(schema_of(registered.job_class) or {}))
        told = f"There are no defaults or examples for {wanted}." if wanted else "Its parameters are not known."
        yield finding("GF901", subject.name, told, subject.where("method", "validate_job_parameters"))
        return
    stages = [stage.model_dump(include={"number", "task_type", "parallelism"}) for stage in registered.stages]
    known = list((schema_of(registered.job_class) or {}).get("properties", ()))
    ask = {"stages": stages, "job_type": registered.name, "given": sample, "known": known, "run": run}
    for message in _messages(registered, to_json(ask, where="parameters"), seconds):
        if "ended" in message:
            kind, name = message["at"]
            told = f"{message['ended']}, in the {kind} {name}".rstrip()
            yield finding("GF903", subject.name, f"{told}.", subject.where(kind, name))
        elif "code" in message:
            place = message["place"]
            where = shown(*place) if place else subject.where(*message["at"])
            yield finding(message["code"], subject.name, message["what"], where)


def without_repeats(read: list[Finding], tried: Iterable[Finding]) -> list[Finding]:
    """What was *read*, and what the trial tells besides."""
    codes, places = {one.code for one in read}, {(one.code, one.where) for one in read}
    handlers = {(one.code, found[0]) for one in read if (found := _HANDLER.match(one.what))}
    kept = list(dict.fromkeys(read))
    for one in tried:
        found = _HANDLER.match(one.what)
        told = (one.code, one.where) in places or (one.code, found and found[0]) in handlers
        if not told and not codes & set(_TOLD_BY_TEXT.get(one.code, ())):
            kept.append(one)
    return kept


def samples(job_class: Any) -> dict[str, Any] | None:
    """The examples that its schema gives, defaults left to validate; None where something required has neither."""
    schema = schema_of(job_class)
    if schema is None:
        steps = getattr(job_class, "flow_steps", None)
        asks = steps is None or any(role == "params" for step in steps for role, _ in step.takes.values())
        return None if asks else {}
    found: dict[str, Any] = {}
    for name, about in schema["properties"].items():
        examples = about.get("examples") if isinstance(about, Mapping) else None
        if isinstance(examples, list) and examples:
            found[name] = examples[0]
        elif isinstance(about, Mapping) and "example" in about:
            found[name] = about["example"]
    missing = [name for name in _required(schema) if name not in found]
    return None if missing else found


def _required(schema: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in schema.get("required") or ()]


def _messages(registered: JobType, ask: str, seconds: float) -> Iterator[dict[str, Any]]:
    """What the process says until it is done; last, how it ended, where it does not say that it is."""
    context = SlotContext()
    reader, writer = context.Pipe(duplex=False)
    codes = {name: pack(handler) for name, handler in registered.handlers.items()}
    process = context.Process(
        target=probe.main, args=(writer, pack(registered.job_class), codes, ask, dict(os.environ), seconds)
    )
    deadline = time.monotonic() + seconds
    at, ended = ["class", ""], f"It was stopped after {human_duration(seconds)}"
    process.start()
    try:
        writer.close()
        while left := max(deadline - time.monotonic(), 0):
            ready = connection.wait([reader, process.sentinel], left)
            if reader not in ready or not reader.poll():
                if ready:
                    process.join()
                    ended = f"The process ended with {_exit(process.exitcode)}"
                    break
                continue
            try:
                message = json.loads(reader.recv_bytes())
            except (EOFError, OSError, ValueError):  # the last, where user code wrote into the pipe
                process.join(max(deadline - time.monotonic(), 0))
                ended = f"The process ended with {_exit(process.exitcode)}"
                break
            if "done" in message:
                return
            if "broken" in message:
                ended = f"It failed: {message['broken']}"
                break
            at = message.get("doing", at)
            yield message
        yield {"ended": ended, "at": at}
    finally:
        if process.pid:
            with contextlib.suppress(OSError):  # with all that it started, if it came so far as to lead a group
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        reader.close()


def _exit(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
