"""geoflow itself, so that it stands in the same table."""

from pathlib import Path
from typing import Any

import geoflow as gf
from benchmarks import jobs, noop_job
from benchmarks.peer_harness import Peer, main
from benchmarks.tasks import WORKERS


class Geoflow(Peer):
    suffix = ".db"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.session = gf.open(folder / f"work{self.suffix}", workers=WORKERS, display="none")
        self.session.register(noop_job)
        self.session.register(jobs)
        self.serial = 0

    def __exit__(self, *error: Any) -> None:
        self.session.close()

    def noops(self, n: int) -> int:
        self.serial += 1  # a job of the same parameters would be the same job
        return int(self.session.submit("noop", n=n, serial=self.serial).result()["tasks"])

    def two_stages(self, n: int, loops: int) -> int:
        self.serial += 1
        return int(self.session.submit("two_stages", n=n, loops=loops, serial=self.serial).result()["sum"])


class InDuckDb(Geoflow):
    suffix = ".duckdb"


if __name__ == "__main__":
    main({"sqlite": Geoflow, "duckdb": InDuckDb}, "geoflow")
