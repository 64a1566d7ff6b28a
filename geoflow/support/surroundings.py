"""Where a job was submitted: folder, environment and module path, which all of its tasks are to see."""

from __future__ import annotations

import os
import sys
import time
from typing import NamedTuple


class Surroundings(NamedTuple):
    """As they were in the driver. ``folder`` is empty when it had none any more."""

    folder: str
    environment: dict[str, str]
    path: tuple[str, ...]

    @classmethod
    def now(cls) -> Surroundings:
        """Those of this process."""
        try:
            folder = os.getcwd()
        except FileNotFoundError:
            folder = ""
        # An empty entry means the current folder, also once that is another one.
        path = tuple(os.path.join(folder, entry) if entry else folder for entry in sys.path)
        return cls(folder, dict(os.environ), path)


def put_environment(wanted: dict[str, str]) -> None:
    """Have this process's environment be *wanted*, by changing what differs."""
    now = dict(os.environ)
    for name in now.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if now.get(name) != value:
            os.environ[name] = value
    time.tzset()
