"""How long it takes from a mended cell to the results of the tasks that had failed, as one at a notebook sees it."""

from __future__ import annotations

import linecache
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geoflow as gf
from benchmarks.tasks import WORKERS, alternated, calibrated, timed

if TYPE_CHECKING:
    from benchmarks.parts.run import Run

DONE, BROKEN = 1_000, 5
# What a notebook would have in its cells. It is run as they are: in `__main__`, so that it travels by value.
FIRST = """
import os
from pathlib import Path
import geoflow as gf
from benchmarks.tasks import spin

loop = gf.JobType("loop", description="Tasks that count, and write down that they ran.")

@loop.stage
def find(p: dict) -> list[dict]:
    return [{"number": number, "loops": p["loops"], "folder": p["folder"]} for number in range(p["n"])]
"""
STAGE = """
@loop.each(find, key="number")
def work(item: dict) -> dict:
    with Path(item["folder"], f"{os.getpid()}.ran").open("a") as file:
        file.write(f"{item['number']}\\n")
    spin(item["loops"])
    if item["number"] in BROKEN:
        raise ValueError("this one is not mended yet")
    return {"number": item["number"]}
"""
LAST = """
@loop.reduce(work)
def total(done: list[dict]) -> dict:
    return {"sum": sum(one["number"] for one in done)}
"""


class Cells:
    """The cells of a notebook, and the names that they make."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self._ran = 0

    def run(self, source: str) -> None:
        """Run *source* as IPython does: under a name of its own, under which its lines are found."""
        self._ran += 1
        name = f"<cell {self._ran}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), self.names)


def loop(run: Run) -> None:
    """a cell mended after 5 of 1,005 tasks failed: those 5 again, beside the whole job again"""
    loops, cells, n = calibrated(), Cells(), DONE + BROKEN
    broken = {(place + 1) * n // (BROKEN + 1) for place in range(BROKEN)}
    failing, mended = (STAGE.replace("BROKEN", repr(tuple(found))) for found in (sorted(broken), ()))
    with gf.open(run.folder / "work.db", workers=WORKERS, display="none") as session:
        for cell in (FIRST, failing, LAST):
            cells.run(cell)
        for turn in range(run.rounds + 1):  # of the first no figure is taken: workers are warm, as they mostly are
            cells.run(failing)
            folders, jobs = {}, {}
            for way in ("failed ones", "whole job"):
                folders[way] = run.folder / f"{way} {turn}"
                folders[way].mkdir()
                given = {"n": n, "loops": loops, "folder": str(folders[way])}
                jobs[way] = session.submit(cells.names["loop"], given).wait()
                assert (jobs[way].tasks()["status"] == "failed").sum() == BROKEN
            found = alternated(turn, {way: partial(_mended, cells, mended, jobs[way], way) for way in jobs})

            ran = {way: _ran(folder) for way, folder in folders.items()}
            assert ran["failed ones"] == Counter(range(n)) + Counter(broken), "a task that was kept ran again"
            assert ran["whole job"] == Counter([*range(n), *range(n)])
            if turn:
                for way in jobs:
                    run.figures.add("loop", f"mended cell to results, {way}", found[way], "s")
                run.figures.add("loop", "failed ones / whole job", found["failed ones"] / found["whole job"])


def _mended(cells: Cells, cell: str, job: gf.JobHandle, way: str) -> float:
    """The seconds from the start of the mended cell until the job has completed and its tasks are a DataFrame."""

    def act() -> None:
        cells.run(cell)
        (job.retry_failed() if way == "failed ones" else job.rerun()).wait()
        frame = job.tasks()
        assert len(frame) == DONE + BROKEN + 2
        assert set(frame["status"]) == {"completed"}

    return timed(act)


def _ran(folder: Path) -> Counter[int]:
    """How often each task ran, as the tasks themselves have it."""
    return Counter(int(line) for file in folder.glob("*.ran") for line in file.read_text().split())
