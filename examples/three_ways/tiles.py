"""The work itself, which is the same in all the ways: tiles of numbers in CSV files, and what is asked of them."""

import math
from pathlib import Path
from typing import Any

NODATA = -9999.0


def listed(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.csv"))


def measured(path: Path) -> dict[str, Any]:
    """The lowest, mean and highest cell of a tile, NODATA apart."""
    rows = [list(map(float, line.split(","))) for line in path.read_text().splitlines()]
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"{path.name} has rows of different lengths")
    cells = [cell for row in rows for cell in row if cell != NODATA]
    low, high = min(cells, default=math.nan), max(cells, default=math.nan)
    return {"name": path.stem, "cells": len(cells), "total": sum(cells), "low": low, "high": high}


def merged(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The same of all tiles that have cells."""
    land = [one for one in found if one["cells"]]
    cells = sum(one["cells"] for one in land)
    return {
        "tiles": len(found),
        "cells": cells,
        "low": min(one["low"] for one in land),
        "mean": sum(one["total"] for one in land) / cells,
        "high": max(one["high"] for one in land),
    }


def write_some(folder: Path, count: int) -> None:
    """Tiles to try it on; the second is all NODATA."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rows = [
            [NODATA if number == 1 else round(math.sin(number + x * y) * 50, 2) for x in range(8)] for y in range(6)
        ]
        (folder / f"tile_{number:02d}.csv").write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
