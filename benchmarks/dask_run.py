"""1,000 tasks of real work on two Dask worker processes, one of them killed on the way, beside two local slots.

Each task compresses and hashes a file of random bytes. Needs ``pip install "geoflow[dask]"``.
"""

import argparse
import hashlib
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import time
import zlib
from importlib.metadata import version
from pathlib import Path

import distributed

import geoflow as gf
from geoflow.jobtypes.contract import job_id_for


def squeeze(params):
    content = Path(params["path"]).read_bytes()
    packed = zlib.compress(content, 6)
    return {"success": True, "result": {"sha256": hashlib.sha256(packed).hexdigest(), "bytes": len(packed)}}


class Squeeze:
    job_type = "squeeze"
    description = "Compresses and hashes n files of a folder."
    stages = [{"number": 1, "name": "squeeze", "task_type": "squeeze", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params):
        return {"folder": str(params["folder"]), "n": int(params["n"])}

    @staticmethod
    def generate_job_id(params):
        return job_id_for("squeeze", params)

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return [
            {"task_id": f"{n:05d}", "task_type": "squeeze", "parameters": {"path": f"{job_params['folder']}/{n}"}}
            for n in range(job_params["n"])
        ]

    @staticmethod
    def finalize_job(context=None):
        found = hashlib.sha256()
        for task in context.task_results:
            found.update(task.result_data["result"]["sha256"].encode())
        return {"completed": sum(task.success for task in context.task_results), "sha256": found.hexdigest()}


def measure(folder, name, n, *, kill=False, **options):
    """Seconds for the job, and its result; with *kill*, one process dies when a third is done."""
    session = gf.open(Path(folder) / f"{name}.db", display="none", **options)
    session.register(Squeeze, {"squeeze": squeeze})
    session.run("squeeze", folder=folder, n=4)  # so that starting processes and imports is in no figure
    began = time.perf_counter()
    job = session.submit("squeeze", folder=folder, n=n)
    while kill:
        time.sleep(0.01)
        with session.store.reading() as connection:
            done = connection.execute("SELECT pid FROM attempts WHERE outcome = 'completed' AND slot IS NOT NULL")
            pids = [pid for (pid,) in done if pid]
        if len(pids) > n / 3:
            os.kill(pids[-1], signal.SIGKILL)
            break
    job.wait()
    seconds = time.perf_counter() - began
    with session.store.reading() as connection:
        attempts = dict(connection.execute("SELECT outcome, count(*) FROM attempts GROUP BY 1").fetchall())
        processes = connection.execute("SELECT count(DISTINCT pid) FROM attempts").fetchone()[0]
    attempts["completed"] -= 4
    result = job.result()
    session.close()
    return seconds, result, attempts, processes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--kilobytes", type=int, default=128, help="of each file")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, distributed {version('distributed')}, {os.cpu_count()} processors")
    chance = random.Random(1)
    timings: dict[str, list[float]] = {"local slots": [], "Dask": [], "Dask, one killed": []}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(options.tasks):
            # Half chance, half repeated: as compressible as an image.
            half = chance.randbytes(options.kilobytes * 512)
            (Path(folder) / str(n)).write_bytes(half + half[:64] * (len(half) // 64))
        for turn in range(options.rounds):
            results = []
            for name, times in timings.items():
                if name == "local slots":
                    found = measure(folder, f"{name}-{turn}", options.tasks, workers=2)
                else:
                    with (
                        distributed.LocalCluster(
                            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
                        ) as cluster,
                        distributed.Client(cluster) as client,
                    ):
                        pool = client.get_executor()
                        kill = name.endswith("killed")
                        found = measure(folder, f"{name}-{turn}", options.tasks, executor=pool, kill=kill)
                seconds, result, attempts, processes = found
                times.append(seconds)
                results.append(result)
                shown = ", ".join(f"{count} {outcome}" for outcome, count in sorted(attempts.items()))
                print(
                    f"  {name:<18} {seconds:7.2f} s   {result['completed']} tasks, attempts: {shown}; {processes} pids"
                )
            assert all(result == results[0] for result in results), "the results differ"
    print(f"\n{'':<18} {'tasks/s min, median, max':>28} {'of local':>10}")
    local = statistics.median(timings["local slots"])
    for name, times in timings.items():
        rates = [options.tasks / seconds for seconds in sorted(times, reverse=True)]
        shown = f"{rates[0]:,.0f}  {statistics.median(rates):,.0f}  {rates[-1]:,.0f}"
        print(f"{name:<18} {shown:>28} {local / statistics.median(times):>10.2f}")


if __name__ == "__main__":
    sys.exit(main())
