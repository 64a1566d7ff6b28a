"""A stage goes on without the tiles that failed."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF121",)


class TileGoesOn(Elevation):
    job_type = "tile_goes_on"
    stages = [{**Elevation.stages[0], "on_failure": "continue", "allow_failed": 0.05}, *Elevation.stages[1:]]


ALL_JOBS = {"tile_goes_on": TileGoesOn}
ALL_HANDLERS = HANDLERS
