"""Measure what much of a thing costs, and twice as much: ``python -m benchmarks.volume --help``. Needs gigabytes.

Each is in a process of its own: wall time, its processor's time, the most memory that it and any of its workers took,
and the store's size.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

import geoflow as gf
from geoflow.commands import cli

MB = 1_000_000


def work(params: dict[str, Any]) -> dict[str, Any]:
    if params.get("fail"):
        raise ValueError("on purpose")
    return {"success": True, "result": "x" * params.get("gives", 0)}


def total(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": len(params["previous_results"])}


class Many:
    """One stage of as many tasks as its parameters say."""

    job_type = "many"
    description = "Many tasks, or long ones."
    stages: list[dict[str, Any]] = [{"number": 1, "name": "work", "task_type": "work", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return f"{params['number']:064x}"

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        given = dict(job_params["given"]) | {"text": "x" * job_params.get("takes", 0)}
        return [
            {"task_id": f"s{stage}-{n}", "task_type": "work", "parameters": given} for n in range(job_params["tasks"])
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {"tasks": len(context.task_results)}


class FanIn(Many):
    job_type = "fan_in"
    stages = [*Many.stages, {"number": 2, "name": "total", "task_type": "total", "parallelism": "fan_in"}]


def of_stages(number: int) -> type:
    """A job type of so many stages."""
    stages = [
        {"number": n, "name": f"s{n}", "task_type": "work", "parallelism": "fan_out" if n > 1 else "single"}
        for n in range(1, number + 1)
    ]
    return type("Stages", (Many,), {"job_type": "stages", "stages": stages, "__module__": "__main__"})


HANDLERS = {"work": work, "total": total}


@contextlib.contextmanager
def session(store: Path, job_class: type = Many, **options: Any) -> Iterator[gf.Session]:
    with gf.open(store, **{"workers": 2, "display": "none", "max_retries": 0} | options) as opened:
        opened.register(job_class, {name: HANDLERS[name] for name in {s["task_type"] for s in job_class.stages}})  # type: ignore[attr-defined]
        yield opened


def one_job(store: Path, job_class: type, **params: Any) -> str:
    with session(store, job_class) as opened:
        job = opened.run(job_class, {"number": 0, "given": {}} | params)
        return f"{job.status}{': ' + job.error[:70] if job.error else ''}"


def results(store: Path, size: int) -> str:
    return one_job(store, Many, tasks=size, given={"gives": 95_000})


def fan_in(store: Path, size: int) -> str:
    return one_job(store, FanIn, tasks=size, given={"gives": 95_000})


def parameters(store: Path, size: int) -> str:
    return one_job(store, Many, tasks=size, takes=MB)


def failures(store: Path, size: int) -> str:
    return one_job(store, Many, tasks=size, given={"fail": True})


def stages(store: Path, size: int) -> str:
    return one_job(store, of_stages(size), tasks=1)


def tasks(store: Path, size: int) -> str:
    return one_job(store, Many, tasks=size)


def jobs(store: Path, size: int) -> str:
    with session(store, workers=0) as opened:
        found = [opened.submit(Many, {"number": n, "tasks": 1, "given": {}}) for n in range(size)]
        return str(found[-1].wait().status)


def typed(*words: str) -> Callable[[Path, int], str]:
    def said(store: Path, size: int) -> str:
        return f"exit code {cli.main([*words, '--store', str(store)])}"

    return said


def frame(store: Path, size: int) -> str:
    with session(store) as opened:
        return f"{len(opened.job('0').tasks()):,} rows"


# What is measured, of how much, and then with the store that this leaves.
CASES: dict[str, tuple[Callable[[Path, int], str], int, tuple[str, ...]]] = {
    "results": (results, 11_000, ("count", "list")),
    "finalize": (results, 32_000, ()),
    "fan_in": (fan_in, 32_000, ()),
    "parameters": (parameters, 5_000, ("count",)),
    "failures": (failures, 300_000, ()),
    "jobs": (jobs, 10_000, ("list", "resume")),
    "stages": (stages, 500, ()),
    "tasks": (tasks, 2_000_000, ("count",)),
    "rows": (tasks, 100_000, ("frame",)),
}
LOOKS: dict[str, Callable[[Path, int], str]] = {
    "count": typed("sql", "select count(*) from tasks"),
    "list": typed("jobs"),
    "resume": typed("resume"),
    "frame": frame,
}


def measured(name: str, store: Path, size: int) -> tuple[float, float, float, float, float, str]:
    """Seconds, those of the processor; MB of the process, of its largest child, of the store; what it said last."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "benchmarks.volume", "--one", name, str(store), str(size)]
    own = others = 0
    busy = 0.0
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(words, stdout=said) as running:
            process = psutil.Process(running.pid)
            while running.poll() is None:
                with contextlib.suppress(psutil.Error):
                    own = max(own, process.memory_info().rss)
                    busy = sum(process.cpu_times()[:2])
                    children = process.children(recursive=True)
                    others = max([others, *(child.memory_info().rss for child in children)])
                time.sleep(0.02)
        said.seek(0)
        last = said.read().strip().rpartition("\n")[2]
    spent = time.perf_counter() - began
    size_of_all = sum(file.stat().st_size for file in store.parent.glob(f"{store.name}*"))
    return spent, busy, own / MB, others / MB, size_of_all / MB, last


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.volume", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; all when none is named")
    parser.add_argument("--part", type=float, default=1.0, help="so much of each, such as 0.1")
    parser.add_argument("--twice", action="store_true", help="then twice as much, and how each figure grew")
    parser.add_argument("--folder", help="where the stores are made, and removed; the usual place for temporary files")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, store, size = options.one
        print((LOOKS[name] if name in LOOKS else CASES[name][0])(Path(store), int(size)))
        return
    print(f"{'':>12} {'how many':>10} {'seconds':>8} {'busy':>8} {'driver MB':>10} {'worker MB':>10} {'store MB':>9}")
    for case in options.cases or CASES:
        _, size, looks = CASES[case]
        before: dict[str, tuple[float, ...]] = {}
        for times in (1, 2) if options.twice else (1,):
            count = int(size * options.part) * times
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                for name in (case, *looks):
                    *figures, said = measured(name, Path(folder, "work.db"), count)
                    line = "{:>12} {:>10,} {:>8.2f} {:>8.2f} {:>10.0f} {:>10.0f} {:>9.0f}  {}"
                    print(line.format(name, count, *figures, said), flush=True)
                    if name in before:
                        grew = (f"{now / max(then, 1e-9):.2f}" for now, then in zip(figures, before[name], strict=True))
                        print("{:>12} {:>10} {:>8} {:>8} {:>10} {:>10} {:>9}".format("grew", "2.00", *grew), flush=True)
                    before[name] = tuple(figures)


if __name__ == "__main__":
    main()
