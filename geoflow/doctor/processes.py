"""Whether worker processes can run here, and what those of sessions that were killed left behind."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any

from geoflow.doctor.finding import Finding
from geoflow.doctor.places import TRIAL, unwritable
from geoflow.executors.mark import read_mark
from geoflow.executors.remains import PREFIX
from geoflow.text import count, human_bytes, human_duration, shorten

SHARED_MEMORY = 60_000_000  # bytes: containers get 64 MB when nobody says otherwise
FILES, FILES_A_WORKER = 40, 12  # measured: 15 and 10
WORKER_SECONDS = 60
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
print(json.dumps({"status": job.status, "error": job.error, "took": took, "pids": pids}))
"""


def shared_memory(path: Path = Path("/dev/shm"), system: str = sys.platform) -> Finding:
    """Where Linux keeps the semaphores of processes that belong together, and what handlers may share."""
    name, remedy = "shared memory", "In a container: docker run --shm-size=256m, or what corresponds to it."
    if not system.startswith("linux"):
        return Finding(name, "ok", f"This system does without {path}.")
    if why := unwritable(path) if path.is_dir() else "it is not there":
        return Finding(name, "problem", f"{path} cannot be used: {why}. Workers need it to start.", remedy)
    size = shutil.disk_usage(path)
    text = f"{path}, {human_bytes(size.free)} of {human_bytes(size.total)} free."
    return Finding(name, "ok", text) if size.free >= SHARED_MEMORY else Finding(name, "warning", text, remedy)


def open_files(workers: int | None) -> Finding:
    """Whether a process may have as many files open as a session with *workers* needs."""
    name = "open files"
    try:
        import resource
    except ImportError:
        return Finding(name, "ok", "This system sets no such limit.")
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = os.cpu_count() or 1 if workers is None else workers
    needed = FILES + FILES_A_WORKER * number
    if limit == resource.RLIM_INFINITY or limit >= 2 * needed:
        shown = "As many as needed" if limit == resource.RLIM_INFINITY else f"{limit:,}"
        return Finding(name, "ok", f"{shown} allowed; a session with {count(number, 'worker')} needs {needed:,}.")
    wanted = max(1024, 4 * needed)
    remedy = f"ulimit -n {wanted}   # before Python starts{'' if wanted <= most else '; the system has to allow it'}"
    text = f"{limit:,} allowed; a session with {count(number, 'worker')} needs {needed:,}, and handlers theirs."
    return Finding(name, "problem" if limit < needed else "warning", text, remedy)


def workers() -> Finding:
    """Have one worker process start, do a job's two tasks and end, on a store of its own."""
    name = "workers"
    try:
        with tempfile.TemporaryDirectory(prefix=TRIAL) as made:
            found = _one_task(Path(made, "trial.db"))
    except subprocess.TimeoutExpired:
        found = {"error": f"it has not ended after {WORKER_SECONDS} s."}
    if found.get("status") != "completed":
        remedy = "Mend what it says; the other checks may say more."
        return Finding(name, "problem", f"One was to do a task, and failed: {found['error']}", remedy)
    if alive := [pid for pid in found["pids"] if _leads_a_group(pid)]:
        return Finding(name, "problem", f"Process {alive[0]} outlived its session.", f"kill -9 {alive[0]}")
    method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
    text = f"One started ({method}), did its work and ended: {human_duration(found['took'])}."
    if method == "spawn":
        text += " There is no fork server here, so each start takes longer."
    return Finding(name, "ok", text)


def _one_task(store: Path) -> dict[str, Any]:
    # This very geoflow, whatever lies in the folder that this is called from.
    paths = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(  # noqa: PLW1510 - its exit status is looked at
        [sys.executable, "-P", "-c", ONE_TASK, str(store)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WORKER_SECONDS,
    )
    if done.returncode:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        return {"error": shorten(said.splitlines()[-1], 300)}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def leftovers(temp: Path) -> Finding:
    """What sessions that were killed left in the temporary folder, and workers that outlived theirs."""
    name = "leftovers"
    left = sorted(path for path in temp.glob(f"{PREFIX}*") if _is_abandoned(path))
    marks = [read_mark(mark.read_bytes()) for path in left for mark in path.glob("slot-*.mark")]
    if outlived := sorted({mark.pid for mark in marks if mark and mark.pid and _leads_a_group(mark.pid)}):
        pids = " ".join(map(str, outlived))
        return Finding(name, "problem", f"Workers that outlived their session: {pids}.", f"kill -9 {pids}")
    if left:
        text = f"{count(len(left), 'folder')} in {temp} of sessions that were killed."
        # In this order: the marks in them say which task ran when its session ended.
        names = shlex.join(path.name for path in left)
        remedy = f"Resume their jobs, then: cd {shlex.quote(str(temp))} && rm -r {names}"
        return Finding(name, "warning", text, remedy)
    return Finding(name, "ok", "None: no session was killed and left something behind.")


def _is_abandoned(path: Path) -> bool:
    """Whether nobody reads the pipe in it: a session and its reaper do, for as long as they live."""
    pipe = path / "workers"
    try:
        if path.lstat().st_uid != os.getuid() or not stat.S_ISFIFO(pipe.lstat().st_mode):
            return False
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as exc:
        return exc.errno == errno.ENXIO
    return False


def _leads_a_group(pid: int) -> bool:
    """Whether it is a worker that runs, and not another process of that number: workers lead groups of their own."""
    try:
        return os.getpgid(pid) == pid and b"multiprocessing" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
