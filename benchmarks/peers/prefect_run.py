"""Prefect with a server of its own on this machine, results kept in files; tasks in place, or in threads.

What does nothing is called in the flow's own thread, which is the fastest; tasks of 2 ms are faster in two threads. The
`ProcessPoolTaskRunner` is slower than both by far, for tasks of 2 ms too: each task starts a client of its own.
"""

import os
from pathlib import Path
from typing import Any

from benchmarks.peer_harness import Peer, main
from benchmarks.tasks import WORKERS, busy, gathered, listing, noop


class Prefect(Peer):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Prefect reads these when it is imported, and so do the processes that it starts.
        os.environ |= {
            "PREFECT_HOME": str(folder),
            "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        from prefect import flow, task
        from prefect.task_runners import ThreadPoolTaskRunner

        runner = ThreadPoolTaskRunner(max_workers=WORKERS)
        do_nothing, do_list, do_work, do_gather = map(task, (noop, listing, busy, gathered))

        @flow
        def noops(n: int) -> int:
            return len([do_nothing({"index": index}) for index in range(n)])

        @flow(task_runner=runner)
        def two_stages(n: int, loops: int) -> int:
            done = do_work.map(do_list({"n": n, "loops": loops})).result()
            return int(do_gather(done))

        self.flows: tuple[Any, Any] = noops, two_stages

    def noops(self, n: int) -> int:
        return int(self.flows[0](n))

    def two_stages(self, n: int, loops: int) -> int:
        return int(self.flows[1](n, loops))


if __name__ == "__main__":
    main({"local": Prefect}, "prefect")
