"""pipefunc: a pipeline of three functions with map specs; results in memory, or a file each."""

from pathlib import Path
from typing import Any

from pipefunc import PipeFunc, Pipeline

from benchmarks.peer_harness import Peer, main
from benchmarks.tasks import Item, busy, gathered, listing, noop, spawn_pool


def nothing(item: Item) -> Any:
    return noop(item)


def listed(what: Item) -> list[Item]:
    return listing(what)


def worked(thing: Item) -> Any:
    return busy(thing)


def summed(done: Any) -> int:
    return gathered(list(done))


class InMemory(Peer):
    storage = "dict"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pool = spawn_pool()
        self.alone = Pipeline([PipeFunc(nothing, "found", mapspec="item[i] -> found[i]")])
        self.stages = Pipeline(
            [
                PipeFunc(listed, "thing", mapspec="... -> thing[i]"),
                PipeFunc(worked, "done", mapspec="thing[i] -> done[i]"),
                PipeFunc(summed, "total"),
            ]
        )
        self.runs = 0

    def __exit__(self, *error: Any) -> None:
        self.pool.shutdown()

    def run(self, pipeline: Pipeline, inputs: dict[str, Any]) -> Any:
        self.runs += 1
        folder = None if self.storage == "dict" else self.folder / str(self.runs)
        return pipeline.map(inputs, folder, executor=self.pool, storage=self.storage, show_progress=False)

    def noops(self, n: int) -> int:
        found = self.run(self.alone, {"item": [{"index": index} for index in range(n)]})
        return len(found["found"].output)

    def two_stages(self, n: int, loops: int) -> int:
        return int(self.run(self.stages, {"what": {"n": n, "loops": loops}})["total"].output)


class InFiles(InMemory):
    storage = "file_array"


if __name__ == "__main__":
    main({"memory": InMemory, "files": InFiles}, "pipefunc")
