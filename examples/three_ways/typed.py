"""Statistics of a folder of tiles, as a `gf.JobType`: ``python typed.py FOLDER``."""

import json
import sys
from pathlib import Path

from pydantic import BaseModel
from tiles import listed, measured, merged

import geoflow as gf


class Params(BaseModel):
    folder: Path


class Tile(BaseModel):
    name: str
    path: Path


tile_stats = gf.JobType("tiles_typed", params=Params, description="Statistics of a folder of tiles.")


@tile_stats.stage
def scan(p: Params) -> list[Tile]:
    return [Tile(name=path.stem, path=path) for path in listed(p.folder)]


@tile_stats.each(scan, key="name")
def stat(tile: Tile) -> dict:
    return measured(tile.path)


@tile_stats.reduce(stat)
def merge(stats: list[dict]) -> dict:
    return merged(stats)


if __name__ == "__main__":
    print(json.dumps(tile_stats.run(folder=sys.argv[1]).result()))
