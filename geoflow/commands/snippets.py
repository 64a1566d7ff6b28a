"""A task as code: what to put into a cell so that its handler is called with its parameters."""

from __future__ import annotations

import keyword
import pprint
from collections.abc import Mapping
from typing import Any

from geoflow.jobtypes.contract import Handler, accepts_context
from geoflow.session import Session
from geoflow.support.masking import mask, mask_text
from geoflow.support.text import shorten
from geoflow.task_handle import TaskHandle
from geoflow.usercode.packing import pack

# Longer parameters are read from the store by the cell, not written into it: characters.
LONGEST = 10_000


def cell_of(task: TaskHandle[Any], names: Mapping[str, Any]) -> str:
    """Python that calls the task's handler with its parameters, as it stands, in a notebook with the variables *names*.

    Parameters that hold a secret, or are long, are not written into it, but read from the store when it runs.
    """
    secrets = task.runtime.settings.secrets
    error = task.error
    state = f"which failed: {mask_text(error, secrets)}" if error else f"which is {task.status}"
    imported, call = _callable(task.handler, names)
    parameters = task.parameters
    written = _literal(parameters)
    if mask(parameters, secrets) != parameters or len(written) > LONGEST:
        written = "task.parameters"
    takes_context = accepts_context(task.handler)
    lines = [shorten(f"# T{str(task)[1:]}, stage {task.stage}, {state}", 110), *imported]
    if takes_context or call == "task.handler" or written == "task.parameters":
        holder = _variable(task.runtime, names)
        if holder is None:
            lines.append("from geoflow.api import latest_session")
        lines.append(f"task = {holder or 'latest_session()'}.job({task.job_id[:16]!r}).task({task.id!r})")
    lines += [f"params = {written}", f"{call}(params{', task.context()' if takes_context else ''})"]
    return "\n".join(lines)


def _literal(parameters: Mapping[str, Any]) -> str:
    if len(line := repr(parameters)) <= 90:
        return line
    items = (f"{name!r}: {pprint.pformat(value, width=80, sort_dicts=False)}," for name, value in parameters.items())
    return "{\n    " + "\n".join(items).replace("\n", "\n    ") + "\n}"


def _callable(handler: Handler, names: Mapping[str, Any]) -> tuple[list[str], str]:
    """What is to be imported for *handler*, and an expression for it."""
    name = _variable(handler, names)
    if name is not None:
        return [], name
    module, _, path = (pack(handler).reference or "").partition(":")
    return ([f"from {module} import {path.partition('.')[0]}"], path) if path else ([], "task.handler")


def _variable(value: Any, names: Mapping[str, Any]) -> str | None:
    """A variable that has *value*, or a session of that runtime, if there is one that a person would have named so."""
    held = {name: what.runtime if isinstance(what, Session) else what for name, what in names.items()}
    found = [name for name, what in held.items() if what is value and name.isidentifier() and name[0] != "_"]
    own = [name for name in found if name == getattr(value, "__name__", None)]
    return next((name for name in own + found if not keyword.iskeyword(name)), None)
