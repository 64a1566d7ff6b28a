"""A task as a test: a file for pytest that calls its handler with its parameters, and says what should come of it."""

from __future__ import annotations

import builtins
import os
import re
import sys
import sysconfig
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from geoflow import errors
from geoflow.contract import JobType, accepts_context
from geoflow.errors import DefinitionError, ParameterError
from geoflow.models import TaskStatus
from geoflow.testing.literals import WIDTH, columns, literal, quoted
from geoflow.text import MASKED, count, mask, mask_text, plain
from geoflow.transport import innermost, pack
from geoflow.values import from_json, to_json
from geoflow.worker import outcome

if TYPE_CHECKING:
    from geoflow.notebook.replay import TaskHandle

Expect = Literal["success", "failure"]
LONGEST = 100_000  # characters of parameters or result, in a file that people are to read
_INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))
# What is called of each module that the test may have to import.
_CALLS = {"json": "json.loads(", "logging": "logging.getLogger(", "os": "os.environ[", "re": "re.escape("}
_WHY = "SELECT error_type, error, traceback FROM attempt WHERE attempt_key = (? << 12) + ?"
_NO_ERROR = "the handler returned success: False and no error"  # what the engine says of it then


def as_stored(returned: Any, task_type: str = "this task") -> dict[str, Any]:
    """What a handler *returned*, as the store keeps it: JSON, in which dates have become text and tuples lists.

    Raises ``ContractViolationError`` for what is no dict with a ``success`` of True or False, and ``UnstorableValue``
    for what has no JSON form: both fail the task.
    """
    outcome(returned, task_type)
    found: dict[str, Any] = from_json(to_json(returned))
    return found


def write(task: TaskHandle, path: str | os.PathLike[str], expect: Expect | None, overwrite: bool) -> Path:
    """See `TaskHandle.to_pytest`."""
    place = Path(path).expanduser()
    if not re.fullmatch(r"test_.*\.py|.*_test\.py", place.name):
        raise ParameterError(
            f"pytest would not find {place.name!r}: give the file a name like test_{task.task_type}.py."
        )
    if place.exists() and not overwrite:
        raise FileExistsError(f"{place} exists: give another path, or overwrite=True to write it anew.")
    text = _file(task, place.absolute().parent, expect)
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place, "w" if overwrite else "x", encoding="utf-8") as file:
        file.write(text)
    return place


class _Found(NamedTuple):
    """Where a handler is: its module, what to import from it, and the expression for it."""

    module: str
    name: str
    expression: str


class _Secret(NamedTuple):
    """What stands in the code for a value that is not written there."""

    variable: str
    value: Any

    def __repr__(self) -> str:
        read = f'os.environ["{self.variable}"]'
        return read if isinstance(self.value, str) else f"json.loads({read})"


def _file(task: TaskHandle, folder: Path, expect: Expect | None) -> str:
    session, status = task.job._session, task.status
    secrets, failed = session.settings.secrets, status == TaskStatus.FAILED
    error_type, error, traceback = _why(task) if failed else ("", "", None)
    _check(task, status, expect, f"{error_type}: {mask_text(error, secrets)}")
    registered = session._registered_as(task.job._row())
    found = _handler(task, registered)

    hidden: dict[str, _Secret] = {}
    body = [f"    params = {_written('parameters', task.parameters, secrets, hidden)}"]
    arguments = "params"
    if _takes_context(task, registered):
        body.append(_context(task))
        arguments = "params, context"
    name = found.expression
    if "[" in name:
        body.append(f"    handler = {name}")
        name = "handler"
    call, names = f"{name}({arguments})", list[str]()

    seen = mask_text(error, secrets)
    for one in hidden.values():
        seen = seen.replace(one.value, MASKED) if isinstance(one.value, str) else seen
    if failed and expect == "failure":
        told, names = _raises(call, error_type, error if seen == error else "", traceback is not None, found.module)
        body += told
    elif failed or expect == "success":
        told = ["    outcome = gf.testing.as_stored(returned)", '    assert outcome["success"] is True, outcome']
        body += ["", f"    returned = {call}", "", *told]
    else:
        body.append(f"    expected = {_written('result', task.result, secrets, hidden)}")
        body += ["", f"    returned = {call}", "", "    assert gf.testing.as_stored(returned) == expected"]

    about = f"{task} ({task.job.job_type}), stage {task.stage}, {status}"
    notes = [f"T{about[1:]}{f' with {error_type}: {seen}' if failed else ''}"]
    if hidden:
        notes.append(f"Not written here, since they look secret: set {' and '.join(hidden)}.")
    lines = [line for note in notes for line in textwrap.wrap(plain(note), WIDTH - 6, max_lines=4, placeholder=" …")]
    title = re.sub(r"\W+", "_", f"test_{task.task_type}_{task.id}").strip("_").lower()
    comments = [f"    # {line}" for line in lines]
    return "\n".join([*_head(found, names, body, folder), "", "", f"def {title}() -> None:", *comments, *body, ""])


def _check(task: TaskHandle, status: TaskStatus, expect: Expect | None, error: str) -> None:
    if expect not in (None, "success", "failure"):
        raise ParameterError(f"expect cannot be {expect!r}: use 'success' or 'failure', or leave it out.")
    if expect == "failure" and status != TaskStatus.FAILED:
        raise ParameterError(f"{task} is {status}: it has no error to expect.")
    if expect is None and status not in (TaskStatus.FAILED, TaskStatus.COMPLETED):
        raise ParameterError(f"{task} is {status}: it has no outcome to expect yet. Say expect='success'.")
    if expect != "success" and error.startswith(("WorkerDied", "EngineLost", "TaskTimeout")):
        raise ParameterError(
            f"{task} failed with {error}. A test that calls its handler would do the same to pytest. To write it all "
            "the same, say expect='success'."
        )


def _why(task: TaskHandle) -> tuple[str, str, str | None]:
    with task.job._session.store.reading() as connection:
        error_type, error, traceback = connection.execute(_WHY, (task._key, task._row().attempts)).fetchone()
    return str(error_type), str(error), traceback


# Its handler


def _handler(task: TaskHandle, registered: JobType) -> _Found:
    """Where a test can import it from; ``DefinitionError`` when that is nowhere."""
    handler = task.handler
    if (reference := pack(handler).reference) is not None:
        module, _, path = reference.partition(":")
        name, dot, rest = path.partition(".")
        if name.startswith("test"):  # which pytest would take for a test
            return _Found(module, f"{name} as handle_{name}", f"handle_{name}{dot}{rest}")
        return _Found(module, name, path)
    module, kind = str(registered.job_class.__module__), quoted(task.task_type)
    loaded = sys.modules.get(module)
    if module != "__main__" and getattr(loaded, "__spec__", None) is not None:
        for name, value in vars(loaded).items():
            if registered.maker is not None and value is registered.maker:
                return _Found(module, name, f"{name}.handlers()[{kind}]")
            if name == "ALL_HANDLERS" and isinstance(value, dict) and value.get(task.task_type) is handler:
                return _Found(module, name, f"{name}[{kind}]")
    own = getattr(innermost(handler), "__name__", task.task_type)
    raise DefinitionError(
        f"{own}, the handler of {task.task_type!r}, is not in a file that a test could import it from. Export its job "
        "type with gf.export, or move it to a file; register that, then write the test."
    )


def _takes_context(task: TaskHandle, registered: JobType) -> bool:
    """Whether a call of it needs a context: that of a `gf.JobType` does not, where the function asks for none."""
    for step in getattr(registered.job_class, "flow_steps", ()):
        if step.task_type == task.task_type:
            return "context" in [role for role, _ in step.takes.values()]
    return accepts_context(task.handler)


def _context(task: TaskHandle) -> str:
    given = task.context()._asdict()
    del given["logger"]
    lines = [f"        {name}={quoted(value) if isinstance(value, str) else value}," for name, value in given.items()]
    logger = f"        logger=logging.getLogger({quoted(f'geoflow.task.{task.task_type}')}),"
    return "\n".join(["    context = gf.TaskContext(", *lines, logger, "    )"])


# The code


def _head(found: _Found, names: list[str], body: list[str], folder: Path) -> list[str]:
    """The imports, of what the *body* uses and of the handler."""
    root, code = _root(found.module), "\n".join(body)
    used = [name for name, call in _CALLS.items() if call in code]
    lines = ['"""A task that geoflow ran, as a test."""', "", *(f"import {name}" for name in used)]
    lines += ["import sys", "from pathlib import Path"] if root else []
    lines += [""] * (lines[-1] != "")
    lines += ["import geoflow as gf"] * bool(re.search(r"\bgf\.(testing|errors|TaskContext)\b", code))
    lines += ["import pytest"] * ("pytest.raises(" in code)
    if root:
        where = os.path.relpath(root, os.path.realpath(folder)).replace("{", "{{").replace("}", "}}")
        added = "f" + quoted("{Path(__file__).parent}/" + where)
        insertion = f"sys.path.insert(0, {added})"
        if len(insertion) > WIDTH:
            insertion = f"sys.path.insert(\n    0,\n    {added},\n)"
        lines += [""] * (lines[-1] != "") + ["# Where its module is found.", insertion]
    names = sorted({found.name, *names})
    imported = f"from {found.module} import {', '.join(names)}"
    if len(imported) > WIDTH:
        imported = "\n    ".join([f"from {found.module} import (", *(f"{name}," for name in names)]) + "\n)"
    return [*lines, "", imported]


def _root(module: str) -> str | None:
    """The folder that must be on ``sys.path``, unless it is where things are installed."""
    top = sys.modules[module.partition(".")[0]]
    path = os.path.realpath(getattr(top, "__file__", None) or os.path.join(next(iter(top.__path__)), "__init__.py"))
    if path.startswith(_INSTALLED) or top.__name__ == "geoflow":
        return None
    return os.path.dirname(os.path.dirname(path) if hasattr(top, "__path__") else path)


def _raises(call: str, error_type: str, error: str, raised: bool, module: str) -> tuple[list[str], list[str]]:
    """Lines that expect this error of *call*, and what to import from *module* for them."""
    if not raised and error_type in ("ContractViolationError", "UnstorableValue"):
        return ["", f"    with pytest.raises(gf.errors.{error_type}):", f"        gf.testing.as_stored({call})"], []
    if not raised:
        lines = ["", f"    returned = {call}", "", '    assert returned["success"] is False']
        first = _beginning(error, '    assert returned["error"].startswith()') if error != _NO_ERROR else ""
        return [*lines, f'    assert returned["error"].startswith({first})'] if first else lines, []
    # What has no text, and sys.exit(3), is told in other words than the exception's own.
    first = _beginning(error, "    message = ") if error[:1] != "<" and error != error_type != "SystemExit" else ""
    lines, match = ([f"    message = {first}"], ", match=re.escape(message)") if first else ([], "")
    homes = {"": builtins, "gf.errors.": errors, None: sys.modules[module]}
    home = next((home for home, held in homes.items() if isinstance(vars(held).get(error_type), type)), "?")
    if home != "?":
        lines += ["", f"    with pytest.raises({home or ''}{error_type}{match}):", f"        {call}"]
        return lines, [error_type] if home is None else []
    lines += ["", f"    with pytest.raises(Exception{match}) as caught:", f"        {call}", ""]
    return [*lines, f"    assert type(caught.value).__name__ == {quoted(error_type)}"], []


def _beginning(text: str, around: str) -> str:
    """As much of the first line of *text* as fits on a line with *around*, as code."""
    first = text.partition("\n")[0]
    while first and len(around) + columns(quoted(first)) > WIDTH:
        first = first[:-1]
    return quoted(first) if first.strip() else ""


def _written(what: str, value: Any, secrets: tuple[str, ...], hidden: dict[str, _Secret]) -> str:
    """A task's *value* as code; what looks secret in it is added to *hidden*."""
    shown = _without(value, mask(value, secrets), what, hidden)
    code = literal(shown, 4, len("    expected = "))
    if len(code) > LONGEST:
        raise ParameterError(
            f"Its {what} would take {count(len(code), 'character')} in the test, more than the {LONGEST:,} that people "
            "can read. Give the handler a path to a file, and make a small one for the test."
        )
    return code


def _without(value: Any, masked: Any, name: str, hidden: dict[str, _Secret]) -> Any:
    """*value*, which is called *name*, with a `_Secret` for each part that is not as it was in *masked*."""
    if isinstance(value, str) and (known := [one for one in hidden.values() if one.value == value]):
        return known[0]
    if value == masked:
        return value
    if isinstance(value, dict) and isinstance(masked, dict):
        return {key: _without(item, masked[key], key, hidden) for key, item in value.items()}
    if isinstance(value, list) and isinstance(masked, list):
        return [_without(item, other, name, hidden) for item, other in zip(value, masked, strict=True)]
    own = variable = "GEOFLOW_TEST_" + re.sub(r"\W+", "_", name, flags=re.ASCII)[:30].upper()
    number = 1
    while hidden.setdefault(variable, _Secret(variable, value)).value != value:
        variable = f"{own}_{(number := number + 1)}"
    return hidden[variable]
