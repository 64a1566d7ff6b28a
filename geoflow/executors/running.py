"""What the workers of a session are at: read from their files, by its own process or by another one of the user's."""

from __future__ import annotations

import time
from pathlib import Path

from geoflow.core.models import Progress, RunningCall
from geoflow.executors.leftovers import at_work
from geoflow.executors.marker import printed_before, read_mark
from geoflow.executors.printed import read_output
from geoflow.support.identity import is_running
from geoflow.support.memory import of_process
from geoflow.support.progress import SUFFIX, last_told

_LOOKS = 10  # at what is written anew just now


def running_calls(owner_json: str, store: str, job_id: str, limit: int) -> list[RunningCall]:
    """The calls that run in the session which drives the job, those of its other jobs too, the longest first.

    *owner_json* is what the job's row says of its owner. Of what each has printed there are at most *limit* bytes.
    """
    folder = at_work(owner_json, store, job_id)
    calls = [_call(path, limit) for path in folder.glob("slot-*.mark")] if folder is not None else []
    return sorted(filter(None, calls), key=lambda call: -call.seconds)


def _call(path: Path, limit: int) -> RunningCall | None:
    """What runs in the worker of this mark; None where nothing does, or another call does meanwhile."""
    content = _content(path)
    mark = read_mark(content)
    if mark is None or mark.position <= 0 or not is_running(mark.pid, mark.born):
        return None
    seconds = max(time.monotonic() - mark.since, 0.0)
    printed = read_output(path.with_suffix(".out"), limit, printed_before(content))
    progress = told_in(path.with_suffix(SUFFIX), mark.since)
    # A mark that is torn, since it was written meanwhile, is another the second time.
    call = RunningCall(mark.key, mark.pid, seconds, of_process(mark.pid), printed, progress)
    return call if read_mark(_content(path)) == mark else None  # else what was read may be another's


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def told_in(path: Path, began: float) -> Progress | None:
    """What the call that *began* then has told last. It may be told of anew while this looks: then it looks again."""
    for _ in range(_LOOKS):
        content = _content(path)
        if (told := last_told(content, began)) is not None:
            return Progress(*told)
        if not content:
            break
    return None
