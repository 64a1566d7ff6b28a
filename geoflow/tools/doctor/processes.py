"""Whether worker processes can run here, and what those of sessions that were killed left behind."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_all_start_methods
from pathlib import Path

from geoflow.executors.child import DEFAULT_ENVIRONMENT
from geoflow.executors.leftovers import is_left
from geoflow.executors.marker import read_mark
from geoflow.support.identity import PREFIX
from geoflow.support.processors import usable
from geoflow.support.text import count, human_bytes, human_duration
from geoflow.tools.doctor.diagnosis import Diagnosis, ok, problem, run_python, warning
from geoflow.tools.doctor.places import TRIAL, unwritable

SHARED_MEMORY = 60_000_000  # bytes: containers get 64 MB when nobody says otherwise
FILES, FILES_A_WORKER = 40, 12  # measured: 15 and 10
# In a process of its own: a session takes over its process's log.
ONE_TASK = """
import json, sys, time
from geoflow.session import Session
began, store = time.monotonic(), sys.argv[1]
session = Session(store, workers=1, max_retries=0, display="none", log_file=store + ".log")
job = session.submit("hello_world", n=1).wait()
took = time.monotonic() - began
with session.store.reading() as connection:
    pids = [pid for (pid,) in connection.execute("SELECT DISTINCT pid FROM attempt").fetchall()]
session.close()
print(json.dumps([job.error, took, pids]))
"""


def shared_memory(path: Path = Path("/dev/shm"), system: str = sys.platform) -> Diagnosis:
    """Where Linux keeps the semaphores of processes that belong together, and what handlers may share."""
    remedy = "In a container: docker run --shm-size=256m, or what corresponds to it."
    if not system.startswith("linux"):
        return ok(f"This system does without {path}.")
    if why := unwritable(path) if path.is_dir() else "it is not there":
        return problem(f"{path} cannot be used: {why}. Workers need it to start.", remedy)
    size = shutil.disk_usage(path)
    text = f"{path}, {human_bytes(size.free)} of {human_bytes(size.total)} free."
    return ok(text) if size.free >= SHARED_MEMORY else warning(text, remedy)


def open_files(workers: int | None) -> Diagnosis:
    """Whether a process may have as many files open as a session with *workers* needs."""
    import resource  # which Windows lacks

    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = usable() if workers is None else workers
    needed = FILES + FILES_A_WORKER * number
    unlimited = limit == resource.RLIM_INFINITY
    text = f"{'Any number' if unlimited else f'{limit:,}'} allowed; a session with {count(number, 'worker')} needs "
    if unlimited or limit >= 2 * needed:
        return ok(f"{text}{needed:,}.")
    wanted = max(1024, 4 * needed)
    remedy = f"ulimit -n {wanted}   # before Python starts{'' if wanted <= most else '; the system has to allow it'}"
    return (problem if limit < needed else warning)(f"{text}{needed:,}, and handlers theirs.", remedy)


def workers() -> Diagnosis:
    """Have one worker process start, do a job's two tasks and end, on a store of its own."""
    with tempfile.TemporaryDirectory(prefix=TRIAL) as made:
        printed, error = run_python(ONE_TASK, str(Path(made, "trial.db")))
    failed, took, pids = (error, 0.0, []) if error else json.loads(printed)
    if failed:
        return problem(
            f"One was to do a task, and failed: {failed}", "Mend what it says; the other checks may say more."
        )
    if alive := [pid for pid in pids if _leads_a_group(pid)]:
        return problem(f"Process {alive[0]} outlived its session.", f"kill -9 {alive[0]}")
    text = f"did its work and ended: {human_duration(took)}."
    if "forkserver" in get_all_start_methods():
        return ok(f"One started (forkserver), {text}")
    return ok(f"One started (spawn), {text} There is no fork server here, so each start takes longer.")


def worker_environment(environment: Mapping[str, str], preload: Sequence[str]) -> Diagnosis:
    """What workers have otherwise than this process, and whether they can import what they are to preload."""
    for name in preload:
        if error := run_python(f"import {name}", environment=environment)[1]:
            return problem(f"preload names {name}, which cannot be imported: {error}", "Mend its name, or install it.")
    added = [f"{name}={value}" for name, value in DEFAULT_ENVIRONMENT.items() if name not in environment]
    own = [f"{name}={environment[name]}" for name in DEFAULT_ENVIRONMENT if name in environment]
    more = f", and {', '.join(added)}, which are not set here" if added else ""
    kept = f". As they are set here: {', '.join(own)}" if own else ""
    return ok(f"Workers have the variables of this process{more}{kept}. See docs/workers.md.")


def leftovers(temp: Path) -> Diagnosis:
    """What sessions that were killed left in the temporary folder, and workers that outlived theirs."""
    # One without marks tells nothing: it goes when the next session ends.
    left = sorted(path for path in temp.glob(f"{PREFIX}*") if is_left(path) and any(path.glob("slot-*.mark")))
    marks = [read_mark(mark.read_bytes()) for path in left for mark in path.glob("slot-*.mark")]
    if outlived := sorted({mark.pid for mark in marks if mark and mark.pid and _leads_a_group(mark.pid)}):
        pids = " ".join(map(str, outlived))
        return problem(f"Workers that outlived their session: {pids}.", f"kill -9 {pids}")
    if left:
        text = f"{count(len(left), 'folder')} in {temp} of sessions that were killed."
        # In this order: the marks in them say which task ran when its session ended.
        names = shlex.join(path.name for path in left)
        remedy = f"Resume their jobs, then: cd {shlex.quote(str(temp))} && rm -r {names}"
        return warning(text, remedy)
    return ok("None: no session was killed and left something behind.")


def _leads_a_group(pid: int) -> bool:
    """Whether it is a worker that runs, and not another process of that number: workers lead groups of their own."""
    try:
        return os.getpgid(pid) == pid and b"multiprocessing" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
