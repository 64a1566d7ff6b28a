"""What each part is given: where to put its figures and files, and how much to measure."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figures

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """*folder* is empty at first, and goes with all that is in it when the part is done."""

    figures: Figures
    folder: Path
    rounds: int
    quick: bool
    large: bool

    @property
    def many(self) -> int:
        """The number of tasks that stands for many."""
        return 10_000 if self.quick else 100_000


def python(*arguments: object) -> list[str]:
    """A command that runs this Python with *arguments*."""
    return [sys.executable, *map(str, arguments)]


def first_line(command: list[str]) -> tuple[float, str]:
    """Start *command* in the checkout; the seconds until it has printed its first line, and that line.

    What it does after that is waited for, and in no figure.
    """
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
    if process.returncode or not line:
        raise SystemExit(f"this command failed, see above: {' '.join(command)}")
    return seconds, line.strip()
