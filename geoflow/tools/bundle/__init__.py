"""A task as one file, to be sent: what it was given, its code as text, what came of it, and what it ran with; masked.

`write` makes it, `opened.Bundle` is what is read of it. Everything in it is text, but for the files that were chosen.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from geoflow.core.payloads import missing_in
from geoflow.core.rows import JobRow
from geoflow.engine.runtime import Runtime
from geoflow.engine.tasks import TaskRow
from geoflow.errors import DefinitionError, ParameterError
from geoflow.jobtypes.contract import accepts_context
from geoflow.stores.files import growing_beside, private
from geoflow.support.environment import environment, sound
from geoflow.support.jsonable import from_json
from geoflow.support.masking import mask, mask_text
from geoflow.support.text import human_bytes, shorten
from geoflow.tools import along
from geoflow.tools.bundle import card, names
from geoflow.tools.bundle.code import Code, code_of
from geoflow.tools.bundle.running import runner
from geoflow.tools.bundle.told import FORMAT, Told, hidden_in
from geoflow.views import rows
from geoflow.views.lines import Wanted
from geoflow.views.model import when

ATTEMPTS, LINES = 20, 1_000  # the last ones are told of
_README = """\
A task of geoflow as a bundle: {name}

index.html  shows all there is, in a browser; nothing in it is loaded or run
task.json   the same for programs
code/       the task's code, as text
inputs/     the files that were sent along
run.py      calls the task's handler: python run.py, in this folder. It does for
            real what the code does, so read that first.

With geoflow: gf.unbundle("bad.zip"), or geoflow unbundle bad.zip
"""


def write(
    runtime: Runtime,
    job: JobRow,
    task: TaskRow,
    path: str | os.PathLike[str],
    *,
    inputs: str | Sequence[str],
    limit: float,
    overwrite: bool,
) -> Path:
    """Write the bundle of *task* to *path*, readable by its owner alone: whole, or not at all."""
    target = Path(path).expanduser().absolute()
    if target.suffix.lower() != ".zip":
        raise ParameterError(f"{target.name!r} is no name of a bundle: give one that ends in .zip.")
    if os.path.lexists(target) and not overwrite:
        raise FileExistsError(f"{target} is there already: give another name, or overwrite=True.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.parent} to write {target.name} to.")
    secrets = runtime.settings.secrets
    given = task.arguments
    shown = mask(given, secrets)
    # Asked of what is shown: no file goes along that only a secret names.
    taken = along.found(shown, [inputs] if isinstance(inputs, str) else inputs, limit)
    for file in taken.files:
        if why := names.problem_of(names.INPUTS + file.place):
            raise ParameterError(f"{file.source} cannot be taken along: its name {why}. Rename it, or leave it out.")
    handler = _handler(runtime, job, task, secrets)
    code, about = handler
    with growing_beside(target) as folder:
        new = folder / target.name
        with (
            open(new, "xb", opener=private) as opened,
            zipfile.ZipFile(opened, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
        ):
            files = {file.place: _put(archive, file) for file in taken.files}
            told = Told.model_validate_json(
                json.dumps(
                    {
                        **_about(runtime, job, task, shown, secrets),
                        "parameters": shown,
                        "hidden": hidden_in(given, shown),
                        "code": about,
                        "inputs": {
                            "named": [each._asdict() for each in taken.named],
                            "places": taken.places,
                            "files": files,
                        },
                    },
                    default=_plain,
                )
            )
            texts = {
                **{names.CODE + name: text for name, text in code.files.items()},
                names.TASK: told.model_dump_json(indent=1),
                names.PAGE: card.page_of(told, code.files),
                names.README: _README.format(name=told.name),
                names.RUN: runner(),
            }
            size = sum(len(text.encode()) for text in texts.values())
            if size > names.MOST_TEXT:
                raise ParameterError(
                    f"{task} has {human_bytes(size)} of parameters, results and texts, more than the "
                    f"{human_bytes(names.MOST_TEXT)} that go into a bundle: give it a file, and what that is called."
                )
            for name, text in texts.items():
                archive.writestr(name, text)
        os.replace(new, target)
    return target


def _put(archive: zipfile.ZipFile, file: along.File) -> tuple[int, str]:
    """Add the file; its size and digest, as it was read."""
    digest, size = hashlib.sha256(), 0
    about = zipfile.ZipInfo.from_file(file.source, names.INPUTS + file.place, strict_timestamps=False)
    about.compress_type = zipfile.ZIP_DEFLATED
    about.external_attr = 0o600 << 16
    with open(file.source, "rb") as source, archive.open(about, "w") as target:
        while part := source.read(1 << 20):
            target.write(part)
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def _handler(runtime: Runtime, job: JobRow, task: TaskRow, secrets: tuple[str, ...]) -> tuple[Code, dict[str, Any]]:
    """The code as it goes along, and what is told of it."""
    attempts = rows.attempts_of(runtime.store, job.job_id, task.task_key, 1)
    ran = attempts[-1]["code"] if attempts else None
    now, takes_context = None, False
    try:
        registered = runtime.registered_as(job)
        handler = task.handler_in(registered)
        code = code_of(handler, registered, task.task_type, secrets)
        takes_context, now = accepts_context(handler), runtime.fingerprints(job).get(task.task_type)
    except DefinitionError:
        code = Code({}, why="its job type was not known where the bundle was made, and so its code is not there.")
    kept = runtime.store.sources([ran]) if ran else {}
    return code, {
        "ran": ran,
        "now": now,
        "source": mask_text(kept[ran], secrets) if ran in kept else None,
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in code.files.items()},
        "place": None if code.place is None else code.place._asdict(),
        "takes_context": takes_context,
        "why": None if code.why is None else mask_text(code.why, secrets),
        "hidden": list(code.hidden),
    }


def _about(runtime: Runtime, job: JobRow, task: TaskRow, shown: Any, secrets: tuple[str, ...]) -> dict[str, Any]:
    stages = from_json(job.stages)
    attempts = rows.attempts_of(runtime.store, job.job_id, task.task_key, ATTEMPTS)
    lines = [
        row
        for row in rows.logs(runtime.log_path, Wanted.of(job.job_id, task=task.task_id))
        if row["task_id"] == task.task_id
    ]
    about = {
        "format": FORMAT,
        "made_at": when(runtime.clock.now()),
        "geoflow": environment()["geoflow"],
        "job": {
            **{name: getattr(job, name) for name in ("job_id", "job_type", "status")},
            "parameters": from_json(job.parameters),
        },
        "task": {
            **{name: getattr(task, name) for name in ("task_id", "task_type", "stage", "status", "attempts")},
            "index": task.task_index,
            "stage_name": str(stages[task.stage - 1]["name"]) if 0 < task.stage <= len(stages) else "",
            "result": task.returned,
            "missing": [each._asdict() for each in missing_in(task.arguments.get("aggregation_metadata"))],
        },
        "attempts": attempts,
        "lines": [{**row, "message": _line(row)} for row in lines[-LINES:]],
        "ran_with": sound(job.told_of_owner.get("ran_with")),
    }
    masked: dict[str, Any] = mask(about, secrets)
    return masked


def _line(row: rows.Row) -> str:
    message, more = str(row["message"]), str(row.get("error_message") or "")
    return shorten(message if more in message else f"{message}: {more}", 2_000)


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.timestamp() if isinstance(value, datetime) else str(value)
