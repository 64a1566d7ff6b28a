"""What a bundle says of its task, in its ``task.json``: typed, as it is written and as it is read of anybody's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

FORMAT = 1
_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def _dotted(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("no name of Python's")
    return text


_Dotted = Annotated[str, AfterValidator(_dotted)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Number = Annotated[int, Field(ge=0)]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class SentJob(_Told):
    job_id: str
    job_type: str
    status: str
    parameters: dict[str, Any]


class SentTask(_Told):
    """``missing`` are the tasks before it that the job went on without."""

    task_id: str
    task_type: str
    stage: _Number
    stage_name: str
    index: _Number
    status: str
    attempts: _Number
    result: Any = None
    missing: list[dict[str, Any]] = []


class SentAttempt(_Told):
    """Times in seconds since the epoch, memory in bytes."""

    attempt: _Number
    outcome: str
    error_type: str | None = None
    error: str | None = None
    error_category: str | None = None
    traceback: str | None = None
    output: str | None = None
    started_at: float | None = None
    duration: float | None = None
    peak_memory: int | None = None
    pid: int | None = None
    code: str | None = None


class SentPlace(_Told):
    """Where the handler is; see `geoflow.tools.importable.Place`."""

    module: _Dotted
    path: _Dotted
    key: str | None = None
    is_called: bool = False


class SentCode(_Told):
    """``ran`` is the version of the last attempt, ``source`` its text where it was kept, ``now`` that of ``files``.

    ``files`` has the digest of each. Without a ``place`` it cannot be run, and ``why`` says the reason.
    """

    ran: str | None = None
    now: str | None = None
    source: str | None = None
    files: dict[str, _Digest] = {}
    place: SentPlace | None = None
    takes_context: bool = False
    why: str | None = None
    hidden: list[str] = []


class SentInput(_Told):
    """What a parameter names: its place in the bundle, else why it was not sent."""

    name: str
    text: str
    place: str | None = None
    why: str | None = None


class SentInputs(_Told):
    """``places`` leads from what parameters say to what is in ``inputs/``; ``files`` has sizes and digests there."""

    named: list[SentInput] = []
    places: dict[str, str] = {}
    files: dict[str, tuple[_Number, _Digest]] = {}


class SentLine(_Told):
    """A line of the log; its time in seconds since the epoch."""

    time: float | None = None
    level: str | None = None
    message: str = ""


class Told(_Told):
    """All of it. ``hidden`` are the parameters that look secret, whose values were not sent."""

    format: Annotated[int, Field(ge=1)]
    made_at: str
    geoflow: str
    job: SentJob
    task: SentTask
    parameters: dict[str, Any]
    hidden: list[str] = []
    attempts: list[SentAttempt] = []
    lines: list[SentLine] = []
    ran_with: dict[str, str] = {}
    code: SentCode
    inputs: SentInputs = SentInputs()

    @property
    def last(self) -> SentAttempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def name(self) -> str:
        return f"task {self.task.task_id} of {self.job.job_type} {self.job.job_id[:8]}"


def hidden_in(value: Any, masked: Any, name: str = "") -> list[str]:
    """The names of the parts of *value* that are not as they were in *masked*."""
    if value == masked:
        return []
    if isinstance(value, dict) and isinstance(masked, dict) and value.keys() == masked.keys():
        return [each for key in value for each in hidden_in(value[key], masked[key], f"{name}.{key}" if name else key)]
    if isinstance(value, list) and isinstance(masked, list) and len(value) == len(masked):
        pairs = enumerate(zip(value, masked, strict=True))
        return [each for place, two in pairs for each in hidden_in(*two, f"{name}.{place}")]
    return [name]


def put(parameters: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """*parameters* with other values at the names *given*, dots for what is in what; ``KeyError`` of one unknown."""
    copied = _copy(parameters)
    for name, value in given.items():
        *outer, last = [name] if name in copied else name.split(".")
        held: Any = copied
        for part in outer:
            held = held[_key(held, part)]
        held[_key(held, last)] = value
    made: dict[str, Any] = copied
    return made


def _key(held: Any, part: str) -> Any:
    key = int(part) if isinstance(held, list) and part.isdecimal() else part
    there = key in held if isinstance(held, dict) else isinstance(held, list) and key in range(len(held))
    if not there:
        raise KeyError(part)
    return key


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
