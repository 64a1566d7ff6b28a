"""A stage takes over the results of equal tasks that have completed."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF122",)


class TileReuses(Elevation):
    job_type = "tile_reuses"
    stages = [Elevation.stages[0], {**Elevation.stages[1], "reuse": True}, Elevation.stages[2]]


ALL_JOBS = {"tile_reuses": TileReuses}
ALL_HANDLERS = HANDLERS
