"""A folder of 1,000 files goes through three stages, and is brought up to date, beside joblib.Memory and pipefunc.

    python -m benchmarks.folder_update [--files 1000] [--seconds 0.02]

Each lists the folder, makes a file of each file in two workers, and adds up. Then ten files are added, two changed, and
one of the made ones is deleted, and the same program runs again. What ran is counted by the functions themselves. Each
is used at its best: the other two are given the size and times of each file as arguments, so that they see changes.
Times are of whole processes. joblib and pipefunc run in environments of their own, made in the temporary folder.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults_beside_others import environment, lines, version

ROOT = Path(__file__).resolve().parents[1]
WORKERS, SIZE, ADDED, CHANGED, DELETED = 2, 20_000, 10, 2, 1
PACKAGES = {"geoflow": "", "joblib": "joblib", "pipefunc": "pipefunc"}
NAMES = {"geoflow": "geoflow, update", "joblib": "joblib.Memory", "pipefunc": "pipefunc, disk cache"}
HEAD = ("with", "first run", "again, nothing changed", "ran", "after the changes", "ran", "not made again")


# What is done with each file, the same for all


def ran(folder: str, what: str) -> None:
    with open(Path(folder, "ran"), "a") as file:
        file.write(f"{what}\n")


def made_of(folder: str, path: str, seconds: float) -> dict[str, Any]:
    ran(folder, Path(path).name)
    text = Path(path).read_text()
    time.sleep(seconds)  # what a tool of someone else's would take
    target = Path(folder, "made", Path(path).name)
    target.write_text(text.upper())
    return {"out": str(target), "size": len(text)}


def files_of(folder: str) -> list[str]:
    ran(folder, "scan")
    return sorted(str(path) for path in Path(folder, "data").iterdir())


def state_of(path: str) -> tuple[int, int, int]:
    about = os.stat(path)
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns


# How each of them does it


def with_geoflow(folder: str, seconds: float) -> int:
    import geoflow as gf

    def scan(params):
        return {"success": True, "result": {"files": files_of(params["folder"])}}

    def make(params):
        return {"success": True, "result": made_of(params["folder"], params["path"], params["seconds"])}

    def add(params):
        ran(params["job_parameters"]["folder"], "sum")
        return {"success": True, "result": sum(one["result"]["size"] for one in params["previous_results"])}

    class Folder:
        job_type = "folder"
        description = "Make a file of each file."
        stages = [
            {"number": 1, "name": "scan", "task_type": "scan"},
            {
                "number": 2,
                "name": "make",
                "task_type": "make",
                "parallelism": "fan_out",
                "inputs": ["path"],
                "outputs": ["out"],
            },
            {"number": 3, "name": "sum", "task_type": "sum", "parallelism": "fan_in"},
        ]

        @staticmethod
        def validate_job_parameters(params):
            return params

        @staticmethod
        def generate_job_id(params):
            from geoflow.jobtypes.contract import job_id_for

            return job_id_for("folder", params)

        @staticmethod
        def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
            if stage == 1:
                return [{"task_id": f"{job_id[:8]}-scan", "task_type": "scan", "parameters": job_params}]
            return [
                {
                    "task_id": f"{job_id[:8]}-{path.rpartition('/')[2]}",
                    "task_type": "make",
                    "parameters": {**job_params, "path": path},
                }
                for path in previous_results[0]["result"]["files"]
            ]

        @staticmethod
        def finalize_job(context=None):
            return {"size": context.task_results[-1].result_data["result"]}

    import warnings

    warnings.simplefilter("ignore")  # that the folder for what is made may have changed unseen
    with gf.open(Path(folder, "work.db"), workers=WORKERS, display="none") as session:
        session.register(Folder, {"scan": scan, "make": make, "sum": add})
        job = session.run("folder", folder=folder, seconds=seconds, on_existing="update")
        return int(job.result()["size"])


def with_joblib(folder: str, seconds: float) -> int:
    from joblib import Memory, Parallel, delayed

    memory = Memory(Path(folder, "cache"), verbose=0)

    @memory.cache
    def make(folder: str, path: str, state: tuple[int, int, int], seconds: float) -> dict[str, Any]:
        return made_of(folder, path, seconds)

    @memory.cache
    def add(folder: str, sizes: list[int]) -> int:
        ran(folder, "sum")
        return sum(sizes)

    files = files_of(folder)
    calls = (delayed(make)(folder, path, state_of(path), seconds) for path in files)
    return int(add(folder, [one["size"] for one in Parallel(n_jobs=WORKERS)(calls)]))


def listed(folder: str, look: int) -> list[str]:
    return [f"{path} {state_of(path)}" for path in files_of(folder)]


def one_made(folder: str, file: str, seconds: float) -> dict[str, Any]:
    return made_of(folder, file.partition(" ")[0], seconds)


def added(folder: str, made: Any) -> int:
    ran(folder, "sum")
    return sum(one["size"] for one in made)


def with_pipefunc(folder: str, seconds: float) -> int:
    from concurrent.futures import ProcessPoolExecutor

    from pipefunc import PipeFunc, Pipeline

    pipeline = Pipeline(
        [
            PipeFunc(listed, "file", mapspec="... -> file[i]"),
            PipeFunc(one_made, "made", mapspec="file[i] -> made[i]", cache=True),
            PipeFunc(added, "total"),
        ],
        cache_type="disk",
        cache_kwargs={"cache_dir": str(Path(folder, "cache")), "lru_shared": False},
    )
    given = {"folder": folder, "seconds": seconds, "look": time.time_ns()}
    with ProcessPoolExecutor(WORKERS) as pool:
        found = pipeline.map(given, None, executor=pool, storage="dict", show_progress=False)
    return int(found["total"].output)


WAYS: dict[str, Callable[[str, float], int]] = {
    "geoflow": with_geoflow,
    "joblib": with_joblib,
    "pipefunc": with_pipefunc,
}


# Measuring


def write(folder: Path, number: int, word: str) -> None:
    (folder / "data" / f"tile_{number:05}.txt").write_text(word * (SIZE // len(word)))


def measure(python: str, name: str, files: int, seconds: float) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="geoflow-folder-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        for there in ("data", "made"):
            (folder / there).mkdir()
        for number in range(files):
            write(folder, number, "tile ")

        def run() -> tuple[str, list[str], int]:
            (folder / "ran").unlink(missing_ok=True)
            command = [python, "-m", "benchmarks.folder_update", "--one", name, made, "--seconds", str(seconds)]
            began = time.monotonic()
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            return f"{time.monotonic() - began:.2f} s", lines(folder / "ran"), int(done.stdout.split()[-1])

        first, _, _ = run()
        again, in_vain, size = run()
        for number in range(files, files + ADDED):
            write(folder, number, "new ")
        for number in range(CHANGED):
            write(folder, 10 + number, "other ")
        gone = folder / "made" / f"tile_{files // 2:05}.txt"
        gone.unlink()
        changed, what, now = run()
        texts = [path.read_text() for path in sorted((folder / "data").iterdir())]
        if (size, now) != (files * SIZE, sum(map(len, texts))):
            raise SystemExit(f"{name}: the sums are {size} and {now}, which is wrong")
        tiles = [word for word in what if word.startswith("tile_")]
        others = sorted(set(what) - set(tiles))
        said = f"{len(tiles)} files, {' and '.join(others)}"
        missing = [path.name for path in (folder / "data").iterdir() if not (folder / "made" / path.name).exists()]
        return NAMES[name], first, again, " and ".join(sorted(set(in_vain))), changed, said, str(len(missing))


def row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.02, help="what each file takes")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(WAYS[options.one[0]](options.one[1], options.seconds))
        return
    print(row(HEAD))
    print("|---" * len(HEAD) + "|")
    for name, package in PACKAGES.items():
        try:
            python = environment(package)
        except subprocess.CalledProcessError as exc:
            print(f"{name} does not install: {exc.stderr.decode()[-200:]}", file=sys.stderr)
            continue
        print(row(measure(python, name, options.files, options.seconds)), flush=True)
    print(", ".join(version(environment(package), name) for name, package in PACKAGES.items()))


if __name__ == "__main__":
    main()
