"""huey with its SQLite storage, without fsync, and a consumer of two processes that hardly waits between looks."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peer_harness import Mapper, main
from benchmarks.tasks import WORKERS

PAUSE = 0.001


class Huey(Mapper):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        os.environ["HUEY_FILE"] = str(folder / "huey.db")
        from huey_tasks import call

        self.call = call
        command = [sys.executable, "-m", "huey.bin.huey_consumer", "huey_tasks.huey", "-n", "-q"]
        command += ["-k", "process", "-w", str(WORKERS), "-d", str(PAUSE), "-m", str(PAUSE), "-b", "1.0"]
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self.consumer = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})

    def __exit__(self, *error: Any) -> None:
        self.consumer.terminate()
        self.consumer.wait()

    def many(self, function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        found = []
        for result in [self.call(function.__name__, item) for item in items]:
            while (value := result.get(preserve=True)) is None:
                time.sleep(PAUSE)
            found.append(value)
        return found


if __name__ == "__main__":
    main({"sqlite": Huey}, "huey")
