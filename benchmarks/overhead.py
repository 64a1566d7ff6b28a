"""Tasks per second that do nothing, all state kept, beside a bare pool with one submit a task in the same run."""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import noop_job

import geoflow as gf


def bare(pool, n):
    began = time.perf_counter()
    futures = [pool.submit(noop_job.noop, {"index": index}) for index in range(n)]
    for future in futures:
        future.result()
    return n / (time.perf_counter() - began)


def engine(session, n, serial):
    began = time.perf_counter()
    job = session.submit("noop", n=n)
    job.wait()
    rate = n / (time.perf_counter() - began)
    assert job.result() == {"tasks": n}, job.error
    return rate


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(f"{'tasks':>8} {'geoflow/s':>24} {'bare submit/s':>24} {'ratio':>20}   peak MB")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(options.workers) as pool:
        bare(pool, 100)
        for n in options.sizes:
            rows = []
            for turn in range(options.rounds):
                session = gf.open(Path(folder) / f"{n}-{turn}.db", workers=options.workers, display="none")
                session.register(noop_job)
                engine(session, 10 + turn, turn)
                ours, theirs = engine(session, n, turn), bare(pool, min(n, 20_000))
                session.close()
                rows.append((ours, theirs, ours / theirs))
            shown = [
                "{1:,.{p}f} ({0:,.{p}f}-{2:,.{p}f})".format(min(c), statistics.median(c), max(c), p=p)
                for c, p in zip(zip(*rows, strict=True), (0, 0, 1), strict=True)
            ]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{n:>8} {shown[0]:>24} {shown[1]:>24} {shown[2]:>20}   {peak:.0f}", flush=True)


if __name__ == "__main__":
    main()
