"""A job as one JSON document: all that its store has of it at one moment, in pieces, for it may be long."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from geoflow.engine.runtime import Runtime
from geoflow.errors import StoreError
from geoflow.stores.files import growing_beside, private
from geoflow.support.environment import environment
from geoflow.support.masking import mask, unless_fallback
from geoflow.views.rows import whole

FORMAT = 1


def pieces(runtime: Runtime, job_id: str) -> Iterator[str]:
    """The document: ``geoflow``, ``format``, ``job``, ``stages``, ``tasks`` and ``attempts``, a row on each line.

    Tasks and attempts of plans that were set aside are there too (``superseded``). Times are ISO 8601, durations
    seconds. Secrets are masked, but in results.
    """
    secrets = runtime.settings.secrets

    def text(row: Any) -> str:
        shown = mask(row, secrets) | ({"result": unless_fallback(row["result"], secrets)} if "result" in row else {})
        return json.dumps(shown, default=_plain)

    yield f'{{"geoflow": {json.dumps(environment()["geoflow"])}, "format": {FORMAT}'
    for name, found in whole(runtime.store, runtime.row(job_id)):
        yield f',\n"{name}": '
        if isinstance(found, dict):
            yield text(found)
            continue
        before = "["
        for row in found:
            yield f"{before}\n{text(row)}"
            before = ","
        yield "]" if before == "," else "[]"
    yield "}"


def write(runtime: Runtime, job_id: str, target: Path) -> Path:
    """Write the document to the new file *target*, readable by its owner alone: whole, or not at all."""
    target = target.absolute()
    if not target.parent.is_dir():
        raise StoreError(f"There is no folder {target.parent} to write {target.name} to.")
    if os.path.lexists(target):
        raise StoreError(f"{target} is there already, and was not touched: name another file.")
    try:
        with growing_beside(target) as folder:
            new = folder / target.name
            with open(new, "x", encoding="utf-8", opener=private) as file:
                file.writelines(pieces(runtime, job_id))
                file.flush()
                os.fsync(file.fileno())
            os.rename(new, target)
    except OSError as exc:
        raise StoreError(f"{target} cannot be written: {exc.strerror or exc}. Nothing was put there.") from exc
    return target


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else str(value)
