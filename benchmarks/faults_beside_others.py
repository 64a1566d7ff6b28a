"""Four faults in geoflow, a bare ProcessPoolExecutor, joblib and pebble: what is kept, and what is left behind.

    python benchmarks/faults_beside_others.py [--markdown]

Each runs 100 tasks of 20 ms in two workers, of which the one in the middle is the culprit. What is kept of the work of
a killed parent is what the same script, run again, does not do again. joblib and pebble run in an environment of their
own, made in the temporary folder; what does not install is left out, with the reason.
"""

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
TASKS, CULPRIT, SECONDS = 100, 50, 0.02
TIMEOUT, PATIENCE, GRACE = 2.0, 15.0, 2.0
CASES = {
    "kill": "a task that SIGKILLs its worker",
    "hang": f"a task that hangs, timeout {TIMEOUT:g} s",
    "exception": "an exception that cannot be unpickled",
    "parent": "kill -9 of the parent, half-way",
}
PACKAGES = {"geoflow": "", "pool": "", "joblib": "joblib", "pebble": "pebble"}
NAMES = {"pool": "ProcessPoolExecutor(2)", "joblib": "joblib (loky)"}
HEAD = ("fault", "with", "results kept", "ended after", f"workers left after {GRACE:g} s")


class Unreadable(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")


def work(n: int, case: str, folder: str) -> int:
    with open(Path(folder) / "pids", "a") as file:
        file.write(f"{os.getpid()}\n")
    if n == CULPRIT and case == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if n == CULPRIT and case == "hang":
        time.sleep(1_000)
    if n == CULPRIT and case == "exception":
        raise Unreadable("it broke", "noon")
    time.sleep(SECONDS)
    return n


# How each of them is used. What is yielded, the caller has.


def with_pool(case: str, folder: str) -> Iterator[int]:
    from concurrent.futures import ProcessPoolExecutor, wait

    pool = ProcessPoolExecutor(2)
    futures = []
    with contextlib.suppress(Exception):  # a broken pool takes no more
        futures.extend(pool.submit(work, n, case, folder) for n in range(TASKS))
    wait(futures, TIMEOUT + TASKS * SECONDS)  # it knows no timeout for a task: the caller stops waiting
    for future in futures:
        with contextlib.suppress(Exception):
            yield future.result(timeout=0)
    pool.shutdown(wait=False, cancel_futures=True)


def with_joblib(case: str, folder: str) -> Iterator[int]:
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=2, timeout=TIMEOUT if case == "hang" else None, return_as="generator_unordered")
    with contextlib.suppress(Exception):  # the first failure ends it; what came before is kept
        yield from parallel(delayed(work)(n, case, folder) for n in range(TASKS))


def with_pebble(case: str, folder: str) -> Iterator[int]:
    from pebble import ProcessPool

    with ProcessPool(max_workers=2) as pool:
        futures = [pool.schedule(work, args=(n, case, folder), timeout=TIMEOUT) for n in range(TASKS)]
        for future in futures:
            with contextlib.suppress(Exception):
                yield future.result()


def with_geoflow(case: str, folder: str) -> Iterator[int]:
    sys.path.insert(0, str(HERE.parent.parent))
    import geoflow as gf
    from geoflow.jobtypes.contract import job_id_for

    def handler(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": work(params["n"], params["case"], params["folder"])}

    class Faults:
        job_type = "faults"
        description = "A hundred tasks, one of which is the culprit."
        stages = [{"number": 1, "name": "work", "task_type": "work"}]

        @staticmethod
        def validate_job_parameters(params):
            return params

        @staticmethod
        def generate_job_id(params):
            return job_id_for("faults", params)

        @staticmethod
        def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
            return [
                {"task_id": f"{n}", "task_type": "work", "parameters": {"n": n, **job_params}} for n in range(TASKS)
            ]

        @staticmethod
        def finalize_job(context=None):
            return {}

    with gf.open(Path(folder) / "work.db", workers=2, display="none", task_timeout=TIMEOUT, max_retries=0) as session:
        session.register(Faults, {"work": handler})
        job = session.run("faults", case=case, folder=folder, on_existing="resume")
        yield from (n for n, status in enumerate(job.tasks().status) if status == "completed")


WAYS: dict[str, Callable[[str, str], Iterator[int]]] = {
    "geoflow": with_geoflow,
    "pool": with_pool,
    "joblib": with_joblib,
    "pebble": with_pebble,
}


def run_one(name: str, case: str, folder: str) -> None:
    """In a process of its own: write down each result that the caller has."""
    for n in WAYS[name](case, folder):
        with open(Path(folder) / "kept", "a") as file:
            file.write(f"{n}\n")


# Measuring


def measure(python: str, name: str, case: str) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="geoflow-faults-", ignore_cleanup_errors=True) as folder:
        home, command = Path(folder), [python, str(HERE), "--one", name, case, folder]
        began = time.monotonic()
        parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if case == "parent":
            while len(lines(home / "pids")) < TASKS // 2 and parent.poll() is None:
                time.sleep(0.01)
            parent.kill()
        try:
            parent.wait(PATIENCE)
            took = "killed" if case == "parent" else f"{time.monotonic() - began:.1f} s"
        except subprocess.TimeoutExpired:
            took = f"not in {PATIENCE:g} s"
            parent.kill()
            parent.wait()
        time.sleep(GRACE)
        left = {pid for pid in set(map(int, lines(home / "pids"))) if is_running(pid)}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        ran = len(lines(home / "pids"))
        kept, wanted = len(lines(home / "kept")), TASKS - 1
        if case == "parent":
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            kept, wanted = TASKS - (len(lines(home / "pids")) - ran), ran
        return CASES[case], NAMES.get(name, name), f"{kept} of {wanted}", took, str(len(left))


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True


def environment(package: str) -> str:
    """The Python that has *package*; raises ``CalledProcessError`` when it does not install."""
    if not package:
        return sys.executable
    home = Path(tempfile.gettempdir()) / f"geoflow-faults-{package}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True, capture_output=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
        subprocess.run(install, check=True, capture_output=True)
        (home / "ready").touch()
    return str(python)


def version(python: str, package: str) -> str:
    code = f"from importlib.metadata import version; print('{package}', version('{package}'))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def shown(cells: tuple[str, ...], markdown: bool) -> str:
    if markdown:
        return f"| {' | '.join(cells)} |"
    return "".join(cell.ljust(width) for cell, width in zip(cells, (40, 25, 15, 15, 26), strict=True)).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(*options.one)
        return
    pythons, about = {}, [f"Python {platform.python_version()}"]
    for name, package in PACKAGES.items():
        try:
            pythons[name] = environment(package)
            about += [version(pythons[name], package)] if package else []
        except subprocess.CalledProcessError as exc:
            about.append(f"{name} left out: {(exc.stderr or b'').decode().strip().splitlines()[-1:]}")
    print(f"{', '.join(about)}; {os.cpu_count()} processors\n")
    print(shown(HEAD, options.markdown))
    print("|---" * len(HEAD) + "|" if options.markdown else "-" * 120, flush=True)
    for case in CASES:
        for name, python in pythons.items():
            print(shown(measure(python, name, case), options.markdown), flush=True)


if __name__ == "__main__":
    main()
