"""A timeout is given as text."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF114",)


class TileDownload(Elevation):
    job_type = "tile_download"
    stages = [{**Elevation.stages[0], "timeout": "60s"}, *Elevation.stages[1:]]


ALL_JOBS = {"tile_download": TileDownload}
ALL_HANDLERS = HANDLERS
