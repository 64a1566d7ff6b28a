"""A job type from typed functions: the least, mean and highest elevation of each tile, and of all of them together.

    python examples/tile_stats.py
    geoflow run examples/tile_stats.py folder=elevation make=12

Tiles are ESRI ASCII grids. With ``make`` the job makes some to begin with; those out at sea are all NODATA.
"""

import logging
import math
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

import geoflow as gf

logger = logging.getLogger(__name__)
NODATA = -9999.0
SIDE = 40  # cells


class Params(BaseModel):
    folder: Path
    make: int = Field(default=0, ge=0, le=1000)
    note: Annotated[str, gf.identity(False)] = ""  # another note, the same job


class Tile(BaseModel):
    name: str
    path: Path
    bytes: int


class Stat(BaseModel):
    name: str
    cells: int
    low: float  # NaN where there is no land
    mean: float
    high: float


tile_stats = gf.JobType("tile_stats", params=Params, description="Elevations of a folder of tiles.")


def elevation(column: int, row: int) -> float:
    """Metres above the sea: two ranges of hills, and water to the east."""
    height = 900 * math.sin(column / 31) + 400 * math.cos((column + 2 * row) / 17) - 2 * column
    return round(height, 1) if height > 0 else NODATA


def write_tile(folder: Path, number: int) -> None:
    rows = [[elevation(number * SIDE + column, row) for column in range(SIDE)] for row in range(SIDE)]
    head = f"ncols {SIDE}\nnrows {SIDE}\nxllcorner {number * SIDE}\nyllcorner 0\ncellsize 1\nNODATA_value {NODATA}\n"
    text = head + "\n".join(" ".join(map(str, row)) for row in rows) + "\n"
    # A task that is killed in the middle leaves no half tile behind.
    part = folder / f"tile_{number:02d}.part"
    part.write_text(text)
    part.replace(folder / f"tile_{number:02d}.asc")


def read_tile(path: Path) -> list[float]:
    """The cells of the tile that have an elevation."""
    lines = path.read_text().splitlines()
    head = dict(line.split() for line in lines[:6])
    cells = [float(cell) for line in lines[6:] for cell in line.split()]
    if len(cells) != int(head["ncols"]) * int(head["nrows"]):
        raise ValueError(f"{path.name} has {len(cells)} cells, not the {head['ncols']} × {head['nrows']} it promises")
    return [cell for cell in cells if cell != float(head["NODATA_value"])]


@tile_stats.stage
def scan(p: Params) -> list[Tile]:
    """The tiles of the folder, once those that are to be made are there."""
    p.folder.mkdir(parents=True, exist_ok=True)
    for number in range(p.make):
        write_tile(p.folder, number)
    return [Tile(name=path.stem, path=path, bytes=path.stat().st_size) for path in sorted(p.folder.glob("*.asc"))]


@tile_stats.each(scan, key="name", timeout=60)
def stat(tile: Tile) -> Stat:
    cells = read_tile(tile.path)
    logger.info("%s: %d of %d bytes are land", tile.name, len(cells), tile.bytes)
    if not cells:
        return Stat(name=tile.name, cells=0, low=math.nan, mean=math.nan, high=math.nan)
    return Stat(name=tile.name, cells=len(cells), low=min(cells), mean=sum(cells) / len(cells), high=max(cells))


@tile_stats.reduce(stat)
def merge(stats: list[Stat]) -> Stat:
    land = [one for one in stats if one.cells]
    cells = sum(one.cells for one in land)
    return Stat(
        name="all",
        cells=cells,
        low=min(one.low for one in land),
        mean=sum(one.mean * one.cells for one in land) / cells,
        high=max(one.high for one in land),
    )


@tile_stats.finalize
def summary(total: Stat, p: Params, context: gf.JobExecutionContext) -> dict:
    return {"folder": str(p.folder), "tiles": len(context.task_results) - 2, **total.model_dump(exclude={"name"})}


ALL_JOBS = {"tile_stats": tile_stats}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, gf.open(Path(folder, "work.db"), workers=2) as session:
        job = tile_stats.run(folder=Path(folder, "tiles"), make=12, session=session)
        print(job.result())

        broken = Path(folder, "tiles", "tile_03.asc")
        whole = broken.read_text()
        broken.write_text(whole[:2000])
        job = tile_stats.run(folder=Path(folder, "tiles"), session=session)  # other parameters: another job
        print(job.status, "-", job.error)

        broken.write_text(whole)
        print(job.retry_failed().result())


if __name__ == "__main__":
    main()
