"""Call the handler of an unpacked bundle in a process of its own, and tell what came of it beside what did then."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from geoflow.errors import BundleError, ContractViolationError, UnstorableValue
from geoflow.executors.spawning import python
from geoflow.jobtypes.answers import outcome
from geoflow.render.markup import block, element, line, title
from geoflow.render.report import Entry, Report, Table
from geoflow.support.text import cut, human_duration, last_lines, shorten
from geoflow.tools.bundle.card import shown_of
from geoflow.tools.bundle.told import Told

_OUTCOME, _PRINTED = ".outcome.json", ".printed"
_LONGEST, _LINES = 64_000, 12


@dataclass(frozen=True, repr=False)
class Ran(Report):
    """What came of a bundle's task here: what it ``returned``, or the error that it failed with, and what it printed.

    ``same`` says whether that is what came of it then: the same result, or an error of the same type and words. A
    process that died counts as the same as another that did.
    """

    name: str
    then: str
    returned: Any
    error_type: str | None
    error: str | None
    traceback: str | None
    output: str
    seconds: float
    same: bool

    @property
    def exit_status(self) -> int:  # type: ignore[override]
        return 0 if self.error_type is None else 1

    @property
    def title(self) -> str:
        return f"Here: {self.name}"

    def parts(self) -> Iterator[str | Entry | Table]:
        yield self._said()
        if self.traceback:
            yield Entry("note", "raised", "", tuple(("", each) for each in shown_of(self.traceback)))
        if self.error_type is None:
            yield f"It returned {shorten(json.dumps(self.returned, ensure_ascii=False), 400)}"
        if self.output.strip():
            lines = last_lines(self.output.rstrip(), _LINES).splitlines()
            yield Entry("note", "printed", "", tuple(("", each) for each in lines))

    def _said(self) -> str:
        now = "it succeeded" if self.error_type is None else f"it failed with {self.error_type}: {self.error}"
        beside = "as it did then." if self.same else f"and not as then: {self.then}."
        return f"After {human_duration(self.seconds)} {now.rstrip('.')}, {beside}"

    def _repr_html_(self) -> str:
        parts = (
            title(self.title, 3),
            line(self._said()),
            block("Traceback", self.traceback),
            block("It returned", json.dumps(self.returned, indent=2) if self.error_type is None else None),
            block("It printed", self.output.rstrip() or None),
        )
        return str(element(self.title, parts))

    def document(self) -> Any:
        return dict(vars(self))


def runner() -> str:
    """The program that calls a bundle's handler, as text."""
    return resources.files("geoflow.tools.bundle").joinpath("runner.py").read_text("utf-8")


def called(folder: Path, told: Told, then: Told, timeout: float | None) -> Ran:
    """Call the handler of the bundle in *folder*; *then* is the bundle as it was sent."""
    began, late = time.monotonic(), False
    with open(folder / _PRINTED, "xb") as printed:
        process = subprocess.Popen(
            [python(), "-X", "faulthandler", "run.py", _OUTCOME],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            late = True
        finally:  # an interrupt too ends it, with all that it has started
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - began
    printed_there = (folder / _PRINTED).read_bytes()[-4 * _LONGEST :].decode("utf-8", "replace")
    output = cut(printed_there.replace(os.path.join(folder, "code", ""), ""), _LONGEST)
    came = _came(folder, told, process.returncode, timeout if late else None)
    was = then.last if then.task.status != "completed" else None
    same = came["returned"] == then.task.result if was is None else _alike(came, was.error_type, was.error)
    said = "it succeeded" if was is None else f"it failed with {was.error_type}: {shorten(was.error or '', 300)}"
    return Ran(told.name, said.rstrip("."), **came, output=output, seconds=seconds, same=same)


def _came(folder: Path, told: Told, exit_code: int, timeout: float | None) -> dict[str, Any]:
    none: dict[str, Any] = {"returned": None, "error_type": None, "error": None, "traceback": None}
    if timeout is not None:
        return none | {"error_type": "TaskTimeout", "error": f"it ran longer than {timeout:g} s, and was ended"}
    try:
        found = json.loads((folder / _OUTCOME).read_text("utf-8"))
        if "refused" in found:
            raise BundleError(str(found["refused"]))
        came = none | {name: found[name] for name in none}
    except (OSError, ValueError, KeyError, TypeError):
        how = f"exit status {exit_code}" if exit_code >= 0 else f"signal {-exit_code} ({_name(-exit_code)})"
        return none | {"error_type": "WorkerDied", "error": f"its process ended by itself, with {how}"}
    if came["error_type"] is None:
        try:
            failure = outcome(came["returned"], told.task.task_type)[1]
        except (ContractViolationError, UnstorableValue) as exc:
            return came | {"error_type": type(exc).__name__, "error": str(exc)}
        if failure is not None:
            return came | {"error_type": failure.error_type, "error": failure.error}
    return came


def _alike(came: dict[str, Any], error_type: str | None, error: str | None) -> bool:
    if came["error_type"] != error_type:
        return False
    return error_type in ("WorkerDied", "TaskTimeout") or came["error"] == error


def _name(number: int) -> str:
    return next((known.name for known in signal.Signals if known == number), "?")
