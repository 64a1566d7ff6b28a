"""A task as a test: a file for pytest that calls its handler with its parameters, and says what should come of it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from geoflow.core.models import TaskStatus
from geoflow.engine.tasks import TaskRow
from geoflow.errors import DefinitionError, ParameterError
from geoflow.jobtypes.contract import Registered, accepts_context
from geoflow.support.masking import MASKED, mask, mask_text
from geoflow.support.text import count, plain
from geoflow.tools import along
from geoflow.tools.export.layout import literal
from geoflow.tools.importable import place_of
from geoflow.usercode.references import innermost

Expect = Literal["success", "failure"]
LONGEST = 100_000  # characters of parameters or result, in a file that people are to read
_WIDTH = 88
_KNOWN_BY = 60  # characters of an error
_INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))
# What is called of each module that the test may have to import.
_CALLS = {"json": "json.loads(", "logging": "logging.getLogger(", "os": "os.environ["}


def write(
    task: TaskRow,
    job_type: Registered,
    secrets: tuple[str, ...],
    path: str | os.PathLike[str],
    expect: Expect | None,
    overwrite: bool,
    inputs: str | Sequence[str] = (),
    limit: float = 10,
) -> Path:
    """Write the test of *task*, whose type is registered as *job_type*; see `TaskHandle.to_pytest`."""
    place = Path(path).expanduser()
    if not re.fullmatch(r"test_.*\.py|.*_test\.py", place.name):
        raise ParameterError(
            f"pytest would not find {place.name!r}: give the file a name like test_{task.task_type}.py."
        )
    if place.exists() and not overwrite:
        raise FileExistsError(f"{place} exists: give another path, or overwrite=True to write it anew.")
    taken = along.found(mask(task.arguments, secrets), [inputs] if isinstance(inputs, str) else inputs, limit)
    beside = place.absolute().with_name(f"{place.stem}_inputs")
    if taken.files and beside.exists() and not overwrite:
        raise FileExistsError(f"{beside} exists: give another path, or overwrite=True to write it anew.")
    text = _file(task, job_type, secrets, place.absolute().parent, expect, taken, beside.name)
    place.parent.mkdir(parents=True, exist_ok=True)
    if taken.files:
        shutil.rmtree(beside, ignore_errors=True)
    for each in taken.files:
        (beside / each.place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(each.source, beside / each.place)
    with open(place, "w" if overwrite else "x", encoding="utf-8") as file:
        file.write(text)
    return place


class _Found(NamedTuple):
    """Where a handler is: its module, what to import from it, and the expression for it."""

    module: str
    name: str
    expression: str


@dataclass(frozen=True, repr=False)
class _Secret:
    """What stands in the code for a value that is not written there."""

    variable: str
    value: Any

    def __repr__(self) -> str:
        read = f'os.environ["{self.variable}"]'
        return read if isinstance(self.value, str) else f"json.loads({read})"


@dataclass(frozen=True, repr=False)
class _Beside:
    """What stands in the code for the path of a file: where that is, from the test's folder."""

    place: str

    def __repr__(self) -> str:
        return f"str(Path(__file__).parent / {self.place!r})"


class _Values:
    """Writes values as code; ``hidden`` are the secrets among them, *files* the paths that are written otherwise."""

    def __init__(self, secrets: tuple[str, ...], files: Mapping[str, _Beside]) -> None:
        self.hidden: dict[str, _Secret] = {}
        self._secrets, self._files = secrets, files

    def written(self, name: str, value: Any) -> str:
        """Code that gives the variable *name* a task's *value*."""
        start = f"    {name} = "
        shown = self._beside(_without(value, mask(value, self._secrets), name, self.hidden))
        code = start + literal(shown, len(start))
        if len(code) > LONGEST:
            raise ParameterError(
                f"Its {name} would take {count(len(code), 'character')} in the test, more than the {LONGEST:,} that "
                "people can read. Give the handler a path to a file, and make a small one for the test."
            )
        return code

    def _beside(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._files.get(value, value)
        if isinstance(value, list):
            return [self._beside(item) for item in value]
        return {key: self._beside(item) for key, item in value.items()} if isinstance(value, dict) else value


def _files(named: Sequence[along.Named], folder: Path, inputs: str, root: str | None) -> dict[str, _Beside]:
    """The paths that are written as seen from the test's *folder*: what was taken along to *inputs* there, and files
    that are below *root*, where its module is, or that are named from the folder that one works in."""
    found = dict[str, _Beside]()
    for each in named:
        if each.place is not None:
            found[each.text] = _Beside(f"{inputs}/{each.place}")
        elif os.path.isfile(each.text) and any(sign in each.text for sign in "/\\."):
            path = Path(os.path.realpath(each.text))
            if not os.path.isabs(each.text) or (root is not None and path.is_relative_to(root)):
                found[each.text] = _Beside(Path(os.path.relpath(path, os.path.realpath(folder))).as_posix())
    return found


def _file(
    task: TaskRow,
    registered: Registered,
    secrets: tuple[str, ...],
    folder: Path,
    expect: Expect | None,
    taken: along.Along,
    inputs: str,
) -> str:
    status, error = TaskStatus(task.status), task.error or ""
    _check(task, status, expect, f"{task.error_type}: {mask_text(error, secrets)}")
    found = _handler(task, registered)

    root = _root(found.module)
    values = _Values(secrets, _files(taken.named, folder, inputs, root))
    body, hidden = [values.written("params", task.arguments)], values.hidden
    arguments = "params"
    if accepts_context(task.handler_in(registered)):
        body.append(_context(task))
        arguments = "params, context"
    handler = found.expression
    if "[" in handler:
        body.append(f"    handler = {handler}")
        handler = "handler"

    seen = mask_text(error, secrets)
    for one in hidden.values():
        seen = seen.replace(one.value, MASKED) if isinstance(one.value, str) else seen
    returned = ["", f"    returned = {handler}({arguments})", ""]
    if status == TaskStatus.FAILED and expect == "failure":
        body += ["", f"    failure = gf.testing.failure_of({handler}, {arguments})", ""]
        body.append(f"    assert failure.error_type == {task.error_type!r}")
        # What geoflow itself says of a result names the task type, which the test does not know.
        if seen == error and task.error_type not in ("ContractViolationError", "UnstorableValue"):
            body.append(f"    assert failure.error.startswith({error.partition(chr(10))[0][:_KNOWN_BY]!r})")
    elif status == TaskStatus.FAILED or expect == "success":
        body += [*returned, "    outcome = gf.testing.as_stored(returned)"]
        body.append('    assert outcome["success"] is True, outcome')
    else:
        body.append(values.written("expected", task.returned))
        body += [*returned, "    assert gf.testing.as_stored(returned) == expected"]

    about = f"{task} ({task.job_type}), stage {task.stage}, {status}"
    notes = [f"T{about[1:]}{f' with {task.error_type}: {seen}' if status == TaskStatus.FAILED else ''}"]
    if hidden:
        notes.append(f"Not written here, since they look secret: set {' and '.join(hidden)}.")
    lines = [line for note in notes for line in textwrap.wrap(plain(note), _WIDTH - 6, max_lines=4, placeholder=" …")]
    title = re.sub(r"\W+", "_", f"test_{task.task_type}_{task.task_id}").strip("_").lower()
    comments = [f"    # {line}" for line in lines]
    return "\n".join([*_head(found, body, folder, root), "", "", f"def {title}() -> None:", *comments, *body, ""])


def _check(task: TaskRow, status: TaskStatus, expect: Expect | None, error: str) -> None:
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


# Its handler


def _handler(task: TaskRow, registered: Registered) -> _Found:
    """Where a test can import it from; ``DefinitionError`` when that is nowhere."""
    handler, kind = task.handler_in(registered), repr(task.task_type)
    place = place_of(handler, registered, task.task_type)
    if place is not None and place.key is not None:
        return _Found(place.module, place.path, f"{place.path}{'.handlers()' * place.is_called}[{kind}]")
    if place is not None:
        name, rest = place.name, place.path.removeprefix(place.name)
        if name.startswith("test"):  # which pytest would take for a test
            return _Found(place.module, f"{name} as handle_{name}", f"handle_{name}{rest}")
        return _Found(place.module, name, place.path)
    own = getattr(innermost(handler), "__name__", task.task_type)
    raise DefinitionError(
        f"{own}, the handler of {task.task_type!r}, is not in a file that a test could import it from. Export its job "
        "type with gf.export, or move it to a file; register that, then write the test."
    )


def _context(task: TaskRow) -> str:
    given = task.context()._asdict()
    logger = given.pop("logger").name
    missing = [f"gf.{each!r}" for each in given.pop("missing")]
    lines = [f"        {name}={value!r}," for name, value in given.items()]
    lines += [f"        missing=[{', '.join(missing)}],"] if missing else []
    return "\n".join(
        ["    context = gf.TaskContext(", *lines, f"        logger=logging.getLogger({logger!r}),", "    )"]
    )


# The code


def _head(found: _Found, body: list[str], folder: Path, root: str | None) -> list[str]:
    """The imports, of what the *body* uses and of the handler."""
    code = "\n".join(body)
    imports = [f"import {name}" for name, call in _CALLS.items() if call in code]
    inserted = []
    imports += ["import sys"] * (root is not None)
    imports += ["from pathlib import Path"] * (root is not None or "Path(__file__)" in code)
    if root is not None:
        place = os.path.relpath(root, os.path.realpath(folder))
        beside = "Path(__file__).parent" + ("" if place == "." else f" / {place!r}")
        inserted = ["", "# Where its module is found.", f"sys.path.insert(0, str({beside}))"]
    first = ['"""A task that geoflow ran, as a test."""', "", *imports, *[""] * bool(imports), "import geoflow as gf"]
    return [*first, *inserted, "", f"from {found.module} import {found.name}"]


def _root(module: str) -> str | None:
    """The folder that must be on ``sys.path``, unless it is where things are installed."""
    top = sys.modules[module.partition(".")[0]]
    path = os.path.realpath(getattr(top, "__file__", None) or os.path.join(next(iter(top.__path__)), "__init__.py"))
    if path.startswith(_INSTALLED) or top.__name__ == "geoflow":
        return None
    return os.path.dirname(os.path.dirname(path) if hasattr(top, "__path__") else path)


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
