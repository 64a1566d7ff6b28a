"""Geospatial jobs beside a plain pool, joblib and Dask.

    pip install "geoflow[geo]" joblib distributed
    python benchmarks/geospatial.py wall | killed | lines

All run the functions of examples/geospatial on the raster that lies there, by the programs of `geospatial_pool`, and
geoflow as its job types. A figure is of a whole process with all that it starts, from its start to its end. All have to
find the same.

``wall``    the large raster and zonal statistics: each tool alone with two workers, in turns, then all at once with one
            worker each; wall time, time of the processor, memory of the largest process
``killed``  the large raster, killed with all its processes once half of the tiles are there, and run again
``lines``   lines of code that are not the functions themselves
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import ctypes
import inspect
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "geospatial"
sys.path[:0] = [str(ROOT), str(EXAMPLES)]
LAND = EXAMPLES / "data" / "land30s.tif"
TOOLS = ("pool", "joblib", "dask", "geoflow")
WORK = ("process_large_raster", "zonal_stats")
OURS = ("job_type", "JobType", "ALL_")  # what is of geoflow or of the contract has one of these in it
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


def parameters(work: str, folder: Path, raster: Path) -> dict[str, Any]:
    if work == "process_large_raster":
        return {"raster": str(raster), "out": str(folder / "tiles"), "side": 5400 if raster == LAND else 1350}
    from geoflow import datasets

    return {"zones": str(datasets.path("countries")), "raster": str(raster), "out": str(folder / "stats.parquet")}


# One run, in a process of its own


def run(tool: str, work: str, workers: int, folder: Path, raster: Path) -> float:
    """What is found: pixels of land, of all tiles or zones."""
    given = parameters(work, folder, raster)
    if tool == "geoflow":
        import geoflow as gf

        with gf.open(folder / "work.db", workers=workers, display="none") as session:
            session.register(EXAMPLES / f"{work}.py")
            made = session.run(work, given, on_existing="resume").result()
        return float(made["ones" if work == WORK[0] else "sum"])
    from benchmarks import geospatial_pool

    program = getattr(geospatial_pool, work)
    if tool == "pool":
        found = geospatial_pool.pooled(workers, program, **given)
    elif tool == "joblib":
        from joblib import Parallel, delayed

        with Parallel(n_jobs=workers) as parallel:  # of one job it makes none: it works in this process
            found = program(lambda function, items: parallel(map(delayed(function), items)), **given)
    else:
        from distributed import Client, LocalCluster

        asked = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
        with LocalCluster(**asked) as cluster, Client(cluster) as client:
            found = program(lambda function, items: client.gather(client.map(function, list(items))), **given)
    return float(found["ones"] if work == WORK[0] else found.sum)


def measured(argv: list[str]) -> dict[str, float]:
    """Run *argv* as this process's child and heir of all that it leaves; what they took together."""
    import resource

    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    found = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    wall = time.monotonic() - began
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()  # a fork server outlives its user by a moment
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    return {"found": float(found), "wall": wall, "cpu": cpu, "memory": used.ru_maxrss * 1024 / 1e6}


def command(how: str, tool: str, work: str, workers: int, folder: str, raster: Path) -> list[str]:
    return [sys.executable, __file__, how, tool, work, str(workers), folder, str(raster)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path[:2])}


def together(runs: list[tuple[str, str, int]], raster: Path) -> list[dict[str, float]]:
    """Several tools at the same moment, each in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        begun = []
        for tool, work, workers in runs:
            own = Path(folder, tool)
            own.mkdir()
            argv = command("measure", tool, work, workers, str(own), raster)
            begun.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment()))
        return [json.loads(process.communicate()[0]) for process in begun]


# What is shown


def wall(rounds: int, raster: Path, tools: list[str], works: list[str]) -> None:
    for work in works:
        alone: dict[str, list[dict[str, float]]] = {tool: [] for tool in tools}
        for turn in range(rounds):
            for tool in tools if turn % 2 == 0 else tools[::-1]:
                alone[tool] += together([(tool, work, 2)], raster)
        table(f"{work}, each alone with two workers, {rounds} rounds", alone)
        found: dict[str, list[dict[str, float]]] = {tool: [] for tool in tools}
        for turn in range(rounds):
            order = tools[turn:] + tools[:turn]
            for tool, figures in zip(order, together([(tool, work, 1) for tool in order], raster), strict=True):
                found[tool].append(figures)
        table(f"{work}, all at once with one worker each, {rounds} rounds", found)


def table(title: str, found: dict[str, list[dict[str, float]]]) -> None:
    """The median of each, and of the ratios to the pool of the same round."""
    [_] = {one["found"] for figures in found.values() for one in figures}
    print(f"\n{title}; largest process in MB: median, most")
    print("".join(f"{name:>9}" for name in (" " * 10, "wall, s", "of pool", "CPU, s", "of pool", "median", "most")))
    for tool, figures in found.items():
        cells = []
        for name in ("wall", "cpu"):
            ratios = [one[name] / pool[name] for one, pool in zip(figures, found["pool"], strict=True)]
            cells += [f"{statistics.median(one[name] for one in figures):.1f}", f"{statistics.median(ratios):.3f}"]
        memory = sorted(one["memory"] for one in figures)
        print(f"{tool:10}{''.join(f'{cell:>9}' for cell in cells)}{statistics.median(memory):9.0f}{memory[-1]:9.0f}")


def killed(raster: Path, tools: list[str]) -> None:
    print("\nkilled at half of the tiles, and run again:  tiles there   cut again   of")
    for tool in tools:
        with tempfile.TemporaryDirectory() as folder:
            argv = command("run", tool, "process_large_raster", 2, folder, raster)
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment()}
            first = subprocess.Popen(argv, start_new_session=True, **quiet)  # type: ignore[call-overload]
            tiles = Path(folder, "tiles")
            while len(list(tiles.glob("r*.tif"))) < 16:
                if first.poll() is not None:
                    raise SystemExit(f"{tool} ended by itself")
                time.sleep(0.01)
            for process in whole_tree(first.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            first.wait()
            before = {path.name: path.stat().st_mtime_ns for path in tiles.glob("r*.tif")}
            subprocess.run(argv, check=True, **quiet)  # type: ignore[call-overload]
            after = {path.name: path.stat().st_mtime_ns for path in tiles.glob("r*.tif")}
            again = sum(before.get(name) != when for name, when in after.items())
            print(f"{tool:42}{len(before):14}{again:12}{len(after):5}")


def whole_tree(pid: int) -> list[int]:
    """The process and all that descends from it, children of a fork server too; the ancestors first."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def lines() -> None:
    """Of each job type: its functions, which both have; what geoflow is told beside them; the pool's program."""
    source = Path(__file__).with_name("geospatial_pool.py").read_text()
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    programs = {node.name: code_lines(source, node) for node in nodes}
    print(f"{'lines of':28}{'functions':>10}{'geoflow':>10}{'pool':>8}")
    for name in ("process_raster_collection", "process_large_raster", "zonal_stats", "ingest_vector", "create_h3_base"):
        module = __import__(name)
        given, functions = split(module)
        print(f"{name:28}{functions:10}{given:10}{programs[name]:8}")
    print(f"{'for all of them':28}{'':10}{'':10}{programs['pooled']:8}")


def split(module: ModuleType) -> tuple[int, int]:
    """How many lines of *module* tell geoflow something, and how many are functions and data that a pool needs too."""
    source = inspect.getsource(module)
    ours, theirs = 0, 0
    for node in ast.parse(source).body:
        told = ast.dump(node)
        if isinstance(node, ast.FunctionDef):
            ours += sum(code_lines(source, mark) for mark in node.decorator_list)
            theirs += code_lines(source, node)
        elif isinstance(node, ast.ClassDef | ast.Assign) and any(word in told for word in OURS):
            ours += code_lines(source, node)
        elif not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr):
            theirs += code_lines(source, node)
    return ours, theirs


def code_lines(source: str, node: ast.AST) -> int:
    """How many lines *node* has, without blank ones, comments and docstrings."""
    lines = source.splitlines()
    taken = set(range(node.lineno, node.end_lineno + 1))  # type: ignore[attr-defined]
    for part in ast.walk(node):
        if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
            taken -= set(range(part.lineno, (part.end_lineno or 0) + 1))
    return sum(bool(lines[number - 1].strip()) and not lines[number - 1].strip().startswith("#") for number in taken)


def main() -> None:
    if sys.argv[1] in ("run", "measure"):
        how, tool, work, workers, folder, raster = sys.argv[1:]
        if how == "run":
            print(run(tool, work, int(workers), Path(folder), Path(raster)))
        else:
            print(json.dumps(measured(command("run", tool, work, int(workers), folder, Path(raster)))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("wall", "killed", "lines"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tools", nargs="*", default=list(TOOLS), choices=TOOLS)
    parser.add_argument("--work", nargs="*", default=list(WORK), choices=WORK)
    parser.add_argument("--small", action="store_true", help="of a sixteenth of the raster, around Africa")
    asked = parser.parse_args()
    if asked.what == "lines":
        lines()
        return
    with tempfile.TemporaryDirectory() as folder:
        raster = part(Path(folder, "part.tif")) if asked.small else LAND
        if asked.what == "killed":
            killed(raster, asked.tools)
        else:
            wall(asked.rounds, raster, asked.tools, asked.work)


def part(path: Path) -> Path:
    """10,800 × 5,400 pixels from 20° W, 37.5° N on, written to *path*."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(LAND) as whole:
        window = Window(19_200, 6_300, 10_800, 5_400)
        laid = {"width": 10_800, "height": 5_400, "transform": whole.window_transform(window)}
        with rasterio.open(path, "w", **(whole.profile | laid)) as made:
            made.write(whole.read(window=window))
    return path


if __name__ == "__main__":
    main()
