"""Where one coordinator saturates: a simulation of many slots and tasks, with costs taken from real runs.

The coordinator is one thread: it takes in the answers that wait, then fills the free slots, with chunks sized by the
engine's own rule, and each chunk and each task costs it some time. The slots cost nothing here. What is simulated is
that thread's time alone, so the figures are the best that any pool of that size can reach.
"""

import argparse
import heapq
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import geoflow as gf
from benchmarks import noop_job
from geoflow.core import chunking as pace


def costs(tasks=4_000, rounds=3, **options):
    """Seconds of this process's processor time for each chunk and for each task, from jobs of tasks that do nothing.

    All of a job counts (storing the plan, starting, completing, finalizing), in chunks of one and in large ones. With
    two slots nearly every chunk has a transaction of its own; with more they share it, so the cost errs upwards.
    """

    def spent(n, largest, turn):
        usual, pace.MAX_CHUNK = pace.MAX_CHUNK, largest
        try:
            with tempfile.TemporaryDirectory() as folder:
                session = gf.open(Path(folder) / "work.db", workers=2, display="none", **options)
                session.register(noop_job)
                session.run("noop", n=10 + turn)
                began = time.process_time()
                assert session.submit("noop", n=n).wait().status == "completed"
                taken = time.process_time() - began
                session.close()
                return taken / n
        finally:
            pace.MAX_CHUNK = usual

    alone = min(spent(tasks, 1, turn) for turn in range(rounds))
    together = min(spent(10 * tasks, 2_000, turn) for turn in range(rounds))
    return alone - together, together


def simulate(slots, tasks, seconds, chunk_cost, task_cost):
    """Run *tasks* that take *seconds* each on average, chunks half to one and a half times what they should.

    Returns the wall time in seconds, the shares of it that slots and coordinator are at work, and the mean chunk.
    """
    rule, chance = pace.Pace(), random.Random(1)
    running: list[tuple[float, int, int, float]] = []  # (when the running chunk ends, slot, its tasks, its seconds)
    behind: list[tuple[int, float] | None] = [None] * slots  # the chunk that waits in a slot: its tasks, its seconds
    free = list(range(slots))
    single: set[int] = set()  # slots with one chunk, which another may wait behind
    now = busy = worked = 0.0
    left, chunks = tasks, 0
    while left or running:
        if not (left and (free or (single and rule.is_short()))) and running[0][0] > now:
            now = running[0][0]  # nothing to do until then
        turn = now
        while running and running[0][0] <= now:  # take in all that waits
            ended, slot, size, taken = heapq.heappop(running)
            now += (chunk_cost + size * task_cost) / 2
            rule.observe(size, taken)
            waiting = behind[slot]
            if waiting is None:
                free.append(slot)
                single.discard(slot)
            else:
                size, taken = waiting
                behind[slot] = None
                heapq.heappush(running, (ended + taken, slot, size, taken))
                single.add(slot)
        # Those that are filled now may have another behind at once, as may those that have one.
        room = [*free, *single, *free] if rule.is_short() else free
        free = []
        for slot in room:
            if not left:
                break
            size = min(left, rule.chunk_size(left, slots))
            taken = size * seconds * chance.uniform(0.5, 1.5)
            now += (chunk_cost + size * task_cost) / 2
            left, chunks, worked = left - size, chunks + 1, worked + taken
            if slot in single:
                single.remove(slot)
                behind[slot] = size, taken
            else:
                single.add(slot)
                heapq.heappush(running, (now + taken, slot, size, taken))
        busy += now - turn
    return now, worked / (slots * now), busy / now, tasks / chunks


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--chunk-cost", type=float, help="microseconds a chunk; measured here when not given")
    parser.add_argument("--task-cost", type=float, help="microseconds a task; measured here when not given")
    parser.add_argument("--seconds", type=float, nargs="*", default=[0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10])
    parser.add_argument("--dask", action="store_true", help="measure with Dask, its scheduler in the same process")
    options = parser.parse_args()
    if options.chunk_cost is None or options.task_cost is None:
        if options.dask:
            import distributed

            with (
                distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
                distributed.Client(cluster) as client,
            ):
                chunk_cost, task_cost = costs(1_000, 2, executor=client.get_executor())
        else:
            chunk_cost, task_cost = costs()
        print(f"measured on Python {platform.python_version()}, {os.cpu_count()} processors")
    else:
        chunk_cost, task_cost = options.chunk_cost / 1e6, options.task_cost / 1e6
    print(f"a chunk costs the coordinator {chunk_cost * 1e6:.0f} µs, each task in it {task_cost * 1e6:.0f} µs")
    print(f"\n{options.tasks:,} tasks on {options.slots:,} slots")
    print(f"{'task s':>8} {'chunk':>7} {'wall s':>10} {'tasks/s':>9} {'slots at work':>14} {'coordinator at work':>20}")
    for seconds in options.seconds:
        wall, slots, coordinator, chunk = simulate(options.slots, options.tasks, seconds, chunk_cost, task_cost)
        rate = options.tasks / wall
        print(f"{seconds:8.3f} {chunk:7.1f} {wall:10.1f} {rate:9,.0f} {slots:14.0%} {coordinator:20.0%}", flush=True)
    alone = chunk_cost + task_cost
    print(f"\nTasks that travel alone: at most {1 / alone:,.0f} a second, whatever the number of slots.")
    print(f"{options.slots:,} slots are kept at work by tasks of {options.slots * alone:.2f} s and longer.")
    for seconds in (0.1, 1.0, 10.0, 60.0):
        print(f"Tasks of {seconds:g} s keep at most {seconds / alone:,.0f} slots at work.")


if __name__ == "__main__":
    main()
