"""What one check found (``__init__`` lists them all), and Python in a process of its own, for those that need one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from geoflow.executors.spawning import python
from geoflow.support.text import shorten

CHILD_SECONDS = 60


class Diagnosis(NamedTuple):
    """A ``warning`` is what may go wrong, a ``problem`` what does; *remedy* says what to do about it."""

    name: str
    status: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""


# A check does not say its own name: it has that from the list of all of them.
ok, warning, problem = (partial(Diagnosis, "", status) for status in ("ok", "warning", "problem"))


def run_python(code: str, *arguments: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The last line that *code* prints, and what went wrong with it, or ""."""
    # This very geoflow, whatever lies in the folder that this is called from.
    paths = (str(Path(__file__).parents[3]), environment.get("PYTHONPATH"))
    try:
        done = subprocess.run(
            [python(), "-P", "-c", code, *arguments],
            env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"it has not ended after {CHILD_SECONDS} s."
    said = (done.stderr if done.returncode else done.stdout).strip() or f"exit status {done.returncode}"
    last = said.splitlines()[-1]
    return ("", shorten(last, 300)) if done.returncode else (last, "")
