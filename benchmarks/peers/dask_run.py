"""Dask distributed on this machine: a bag, which makes few large tasks of many items, and futures, one a task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.bag
from distributed import Client, LocalCluster

from benchmarks.peer_harness import Mapper, main
from benchmarks.tasks import WORKERS

PARTITIONS = 2 * WORKERS


class Futures(Mapper):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cluster = LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs="CRITICAL",
            local_directory=str(folder),
        )
        self.client = Client(self.cluster)

    def __exit__(self, *error: Any) -> None:
        self.client.close()
        self.cluster.close()

    def many(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        if len(items) == 1:
            return [self.client.submit(function, items[0], pure=False).result()]
        return list(self.client.gather(self.client.map(function, items, pure=False, batch_size=1_000)))


class Bag(Futures):
    def many(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        if len(items) == 1:
            return super().many(function, items)
        bag = dask.bag.from_sequence(items, npartitions=PARTITIONS)
        return list(self.client.compute(bag.map(function)).result())


if __name__ == "__main__":
    main({"bag": Bag, "futures": Futures}, "distributed")
