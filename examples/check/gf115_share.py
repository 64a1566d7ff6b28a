"""A share of the tiles that is given in percent."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF115",)


class TilePercent(Elevation):
    job_type = "tile_percent"
    stages = [{**Elevation.stages[0], "allow_failed": 1.5}, *Elevation.stages[1:]]


ALL_JOBS = {"tile_percent": TilePercent}
ALL_HANDLERS = HANDLERS
