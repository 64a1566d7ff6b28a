"""What huey's consumer imports to find the tasks: it and the caller must open the same file."""

import os
from typing import Any

from huey import SqliteHuey

from benchmarks import tasks

huey = SqliteHuey("benchmark", filename=os.environ["HUEY_FILE"], fsync=False)


@huey.task()
def call(name: str, item: Any) -> Any:
    return getattr(tasks, name)(item)
